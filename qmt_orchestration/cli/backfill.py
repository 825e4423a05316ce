"""`qmt backfill`: whole days made again through Dagster, with progress and cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from qmt_orchestration.cli.access import MISUSE, DataDir, fail, has_warehouse, no_warehouse, settings_of
from qmt_orchestration.cli.days import trading_span
from qmt_orchestration.cli.terminal import say, say_json
from qmt_orchestration.client.symbols import nearest, normalize_all
from qmt_orchestration.local import engines
from qmt_orchestration.warehouse.migrate import migrate


def backfill(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD")],
    last: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD")],
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Fetch QMT's own bars of every day (needs a running gateway), fill gaps, compare"
        ),
    ] = False,
    symbols: Annotated[
        str, typer.Option(help="With commas: fetch QMT's bars of these symbols only; implies --history")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Make the trading days of a range again: from ticks where they are, else from QMT's history, which a running
    gateway is asked for. Safe to repeat and to interrupt.

    The last line is JSON: bars per period, what each day came from, checks, cost. Exit code 1 when a day's run failed.
    """
    from dagster import DagsterExecutionInterruptedError

    from qmt_orchestration.client.api import known_symbols
    from qmt_orchestration.orchestration.backfill import FROM_WHAT_THERE_IS, materialize_days
    from qmt_orchestration.orchestration.jobs import RECONCILE_DAY

    days, wanted = trading_span(first, last), normalize_all([s for s in symbols.split(",") if s])
    started, cpu = time.monotonic(), time.process_time()
    settings = settings_of(data_dir)
    if not has_warehouse(settings):
        fail(no_warehouse(settings))
    try:
        with engines.ensure(settings) as ready:
            migrate(ready)
            if wanted:
                _require_known(wanted, known_symbols(ready))
            job = RECONCILE_DAY if history or wanted else FROM_WHAT_THERE_IS
            outcome = materialize_days(ready, days, say, job=job, symbols=wanted)
    except ValueError as error:  # a day before the first partition
        fail(str(error), MISUSE)
    except engines.EngineError as error:
        fail(str(error))
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        say("qmt backfill: interrupted; what was made stays, the same command goes on")
        raise typer.Exit(130) from None
    seconds = time.monotonic() - started
    cost = {
        "days": len(days),
        "seconds": round(seconds, 1),
        "seconds_per_day": round(seconds / len(days), 2),
        "cpu_seconds_here": round(time.process_time() - cpu, 1),
    }
    for failure in outcome["errors"]:
        say(f"qmt backfill: {failure['day']}: {failure['error']}")
    say_json({**outcome, "cost": cost})
    raise typer.Exit(1 if outcome["failed_runs"] else 0)


def _require_known(wanted: Sequence[str], known: Sequence[str]) -> None:
    """End the command at a symbol that is unknown; a warehouse that knows none yet leaves it to the gateway."""
    for symbol in wanted:
        if known and symbol not in known:
            close = nearest(symbol, known)
            hint = f": the nearest are {', '.join(close)}" if close else ""
            fail(f"no instrument {symbol} is known{hint}", MISUSE)
