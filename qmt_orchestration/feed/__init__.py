"""Beside QMT: the subscriber (whole-quote callback to Redis) and the gateway (history and reference data on request).

The only package that imports xtquant, and only through `feed.xt`.
"""
