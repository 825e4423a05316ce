"""The always-on services of a host: which there are, how one is run, and the agent that keeps them running.

No Dagster here, and no market logic: a service's work is in its own package (`feed`, `warehouse`, `console`).
"""
