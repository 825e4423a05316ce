"""Definitions for the benchmark `runs`: one job with the events of a minute's run, without its work."""

from __future__ import annotations

from typing import Any

import dagster as dg

CHECKS = tuple(f"check_{n}" for n in range(7))


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2025-01-01"),
    check_specs=[dg.AssetCheckSpec(name, asset="minute") for name in CHECKS],
)
def minute() -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Nothing but its events."""
    metadata: dict[str, Any] = {"rows_written": 5150, "symbols": 5150, "seconds": 0.2}
    metadata |= {"first_frame": "10:01", "last_frame": "10:01"}
    found: dict[str, Any] = {"partition": "2025-06-05", "expected": "no key twice", "found": "0 rows too many"}
    found["measure"] = 0.0
    results = [dg.AssetCheckResult(passed=True, check_name=name, metadata=found) for name in CHECKS]
    return dg.MaterializeResult(metadata=metadata, check_results=results)


minute_job = dg.define_asset_job("minute_job", [minute], executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[minute], jobs=[minute_job])
