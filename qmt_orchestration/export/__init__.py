"""Bars for other programs in their own forms: Qlib's files, vn.py's database and datafeed."""
