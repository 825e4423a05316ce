"""Measurements behind every claim in docs/performance.md: ``make bench`` (or ``python -m benchmarks NAME…``).

Each figure stands beside a baseline of the same run, because absolute times of shared machines drift.
"""
