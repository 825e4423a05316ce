"""Making whole days again, outside the daemon: what `qmt replay` and `qmt backfill` call.

The same job that the UI runs, in this process, on the instance in ``data_dir/dagster``, so that runs, partitions and
checks are in Dagster's pages afterwards. Days are made one by one, each idempotent: interrupt and start again as
you like.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import dagster as dg

from qmt_orchestration.market.periods import rollups
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.orchestration.build import build_defs
from qmt_orchestration.orchestration.jobs import MAKE_DAY, RECONCILE_DAY
from qmt_orchestration.orchestration.partitions import require_partition, trading_day_partitions
from qmt_orchestration.orchestration.sqlite import kept_open
from qmt_orchestration.services.dagster_processes import dagster_home
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import connection, heartbeat, rpc
from qmt_orchestration.warehouse import verify
from qmt_orchestration.warehouse.bars import label_day
from qmt_orchestration.warehouse.client import connect, load_sql

FROM_WHAT_THERE_IS = ""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # what failed is in the answer


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of ``data_dir``, with the project's dagster.yaml."""
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        yield instance


def materialize_days(
    settings: Settings,
    days: Sequence[date],
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    job: str = MAKE_DAY,
    symbols: Sequence[str] = (),
) -> dict[str, Any]:
    """Make *days* through Dagster: the account of the ticks, bars of every period, and their checks.

    *job*: the one to run, or `FROM_WHAT_THERE_IS`: ``make_day`` for days with ticks, else ``reconcile_day``, which
    fetches QMT's history and needs a gateway (without one, QMT's bars that are already here are taken).
    *symbols*: those whose history is fetched; empty: all. What a day before today holds then is recorded as right
    (`warehouse.verify`).

    Returns ``{"bars": {period: rows}, "sources": {day: what its minutes stand on}, "checks": {"passed": n, "failed":
    [{day, asset, check, severity, expected, found}]}, "runs": [ids], "failed_runs": n, "errors": [{day, error}]}``.
    Raises ValueError when a day is no partition; a run that fails is reported, and the other days are still made.
    """
    settings.keep_first_day(min(days))
    partitions = trading_day_partitions(settings)
    keys = [require_partition(partitions, day) for day in days]
    definitions, started = build_defs(settings=settings), time.monotonic()
    checks: dict[str, Any] = {"passed": 0, "failed": []}
    outcome: dict[str, Any] = {"bars": {}, "sources": {}, "checks": checks, "runs": [], "errors": []}
    warehouse, today = connect(settings), datetime.now(SHANGHAI).date()
    with kept_open(), instance_of(settings) as instance:
        for n, key in enumerate(keys, 1):
            left = (time.monotonic() - started) / (n - 1) * (len(keys) - n + 1) if n > 1 else 0.0
            on_progress(f"making {key}, {n} of {len(keys)} days" + (f", about {left:,.0f} s left" if n > 1 else ""))
            name = _job_for(settings, days[n - 1]) if job == FROM_WHAT_THERE_IS else job
            result = definitions.resolve_job_def(name).execute_in_process(
                partition_key=key, instance=instance, raise_on_error=False, run_config=_config(name, symbols)
            )
            _collect(outcome, key, result)
            if result.success and days[n - 1] < today:
                verify.record(warehouse, settings, days[n - 1])
    outcome["bars"] = _bars(warehouse, settings, days)
    return {**outcome, "failed_runs": len(outcome["errors"])}


def _config(job: str, symbols: Sequence[str]) -> dict[str, Any]:
    chosen = (
        {"ops": {"qmt_bars_1m": {"config": {"symbols": list(symbols)}}}} if symbols and job == RECONCILE_DAY else {}
    )
    return {**QUIET, **chosen}


def _job_for(settings: Settings, day: date) -> str:
    ticks, qmt_minutes = connect(settings).query(load_sql("day_sources"), parameters={"day": day}).first_row
    if ticks or (qmt_minutes and not heartbeat.is_alive(connection.connect(settings), rpc.SERVICE)):
        return MAKE_DAY
    return RECONCILE_DAY  # also when some of QMT's bars are here: an interrupted fetch left a part of them


def _collect(outcome: dict[str, Any], key: str, result: dg.ExecuteInProcessResult) -> None:
    outcome["runs"].append(result.run_id)
    for event in result.get_asset_materialization_events():
        if event.asset_key == dg.AssetKey("bars_1m"):
            outcome["sources"][key] = str(event.materialization.metadata["source"].value)
    for evaluation in result.get_asset_check_evaluations():
        if evaluation.passed:
            outcome["checks"]["passed"] += 1
            continue
        outcome["checks"]["failed"].append(
            {
                "day": key,
                "asset": evaluation.asset_key.to_user_string(),
                "check": evaluation.check_name,
                "severity": evaluation.severity.value,
                **{name: str(evaluation.metadata[name].value) for name in ("expected", "found")},
            }
        )
    if not result.success:
        failures = [e for e in result.all_events if e.is_failure and e.is_step_event]
        error = getattr(failures[0].event_specific_data, "error", None) if failures else None
        text = _root(error) if error else "the run failed; see Dagster's page of it"
        outcome["errors"].append({"day": key, "error": text})


def _root(error: Any) -> str:
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip()


def _bars(client: Any, settings: Settings, days: Sequence[date]) -> dict[str, int]:
    """Bars that are now in the warehouse, by period."""
    out = {}
    for period in ("1m", *rollups(settings.rollup_periods)):
        rows = [
            client.query(load_sql("bars_rows"), parameters={"table": f"bars_{period}", "day": day}).first_row[0]
            for day in sorted({label_day(day, period) for day in days})
        ]
        out[period] = sum(map(int, rows))
    return out
