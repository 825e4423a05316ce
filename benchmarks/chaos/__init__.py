"""Chaos: the whole always-on pipeline on two simulated hosts while faults are injected, and an account of every tick.

`world` builds the hosts, `faults` breaks them, `oracle` counts, `session` puts the three together. `careless` is the
negative control: writers that must fail the account.
"""
