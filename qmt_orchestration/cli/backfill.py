"""`qmt backfill`: whole days made again through Dagster, with progress and cost."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer


def backfill(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD")],
    last: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD")],
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Fetch QMT's own bars of every day (needs a running gateway), fill gaps, compare"
        ),
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the engines' data and logs [env QMT_DATA_DIR]")
    ] = None,
) -> None:
    """Make the trading days of a range again: from ticks where they are, else from QMT's history, which a running
    gateway is asked for. Safe to repeat and to interrupt.

    The last line is JSON: bars per period, what each day came from, checks, cost. Exit code 1 when a day's run failed.
    """
    from dagster import DagsterExecutionInterruptedError

    from qmt_orchestration.local import engines
    from qmt_orchestration.market import calendar
    from qmt_orchestration.orchestration.backfill import FROM_WHAT_THERE_IS, RECONCILE_DAY, materialize_days
    from qmt_orchestration.settings import Settings
    from qmt_orchestration.warehouse.migrate import migrate

    started, cpu = time.monotonic(), time.process_time()
    chosen: dict[str, Any] = {"data_dir": data_dir} if data_dir else {}
    settings = Settings(**chosen)
    try:
        days = calendar.trading_days(_day(first), _day(last))
        if not days:
            raise ValueError(f"no trading day from {first} to {last}")
        with engines.ensure(settings) as ready:
            migrate(ready)
            job = RECONCILE_DAY if history else FROM_WHAT_THERE_IS
            outcome = materialize_days(ready, days, lambda text: typer.echo(text, err=True), job=job)
    except (ValueError, engines.EngineError) as error:
        typer.echo(f"qmt backfill: {error}", err=True)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        typer.echo("qmt backfill: interrupted; what was made stays, the same command goes on", err=True)
        raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    cost = {
        "days": len(days),
        "seconds": round(seconds, 1),
        "seconds_per_day": round(seconds / len(days), 2),
        "cpu_seconds_here": round(time.process_time() - cpu, 1),
    }
    for failure in outcome["errors"]:
        typer.echo(f"qmt backfill: {failure['day']}: {failure['error']}", err=True)
    typer.echo(json.dumps({**outcome, "cost": cost}, ensure_ascii=False))
    raise typer.Exit(1 if outcome["failed_runs"] else 0)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a date like 2025-06-05, found {text!r}") from None
