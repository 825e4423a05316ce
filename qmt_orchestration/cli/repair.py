"""`qmt verify`, `qmt backfill`, `qmt override-bar`: wrong days found and made again, through Dagster."""

from __future__ import annotations

import getpass
import math
import time
from collections.abc import Sequence
from datetime import datetime
from datetime import time as Time
from typing import Annotated, Any, NoReturn

import typer

from qmt_orchestration.cli.access import (
    FOUND,
    MISUSE,
    NOTHING,
    DataDir,
    Json,
    fail,
    has_warehouse,
    no_warehouse,
    settings_of,
    warehouse_of,
)
from qmt_orchestration.cli.days import trading_day, trading_span
from qmt_orchestration.cli.terminal import say, say_json
from qmt_orchestration.client.symbols import nearest, normalize_all
from qmt_orchestration.local import engines
from qmt_orchestration.market.sessions import MINUTE_LABELS, SHANGHAI
from qmt_orchestration.warehouse.client import connect, load_sql
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration.warehouse.verify import verify as compare

First = Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD")]
Last = Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD")]


def verify(
    first: First,
    last: Last,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare ticks and bars of closed days, by rows and sums per table and symbol, with what was recorded of them.

    Exit code 1 when rows are gone or were changed; `qmt backfill` makes the day again."""
    days, settings = trading_span(first, last), settings_of(data_dir)
    with warehouse_of(settings) as ready, connect(ready) as client:
        changed, unknown = compare(client, ready, days, datetime.now(SHANGHAI).date())
    if as_json:
        say_json(
            {
                "days": len(days),
                "not_recorded": [str(day) for day in unknown],
                "changed": [
                    {"day": str(c.day), "table": c.table, "symbols": c.symbols, "first": [list(f) for f in c.first]}
                    for c in changed
                ],
            }
        )
    else:
        for found in changed:
            typer.echo(str(found))
        for day in unknown:
            typer.echo(f"{day}: nothing recorded yet; the night job and `qmt backfill` record closed days")
        typer.echo(
            f"{len(days)} days verified, {len(changed)} tables changed"
            + (": repair with `qmt backfill`" if changed else "")
        )
    raise typer.Exit(NOTHING if changed else FOUND)


def backfill(
    first: First,
    last: Last,
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
    say_json({**outcome, "cost": cost})
    _end(outcome)


def _require_known(wanted: Sequence[str], known: Sequence[str]) -> None:
    """End the command at a symbol that is unknown; a warehouse that knows none yet leaves it to the gateway."""
    for symbol in wanted:
        if known and symbol not in known:
            close = nearest(symbol, known)
            hint = f": the nearest are {', '.join(close)}" if close else ""
            fail(f"no instrument {symbol} is known{hint}", MISUSE)


def override_bar(
    symbol: Annotated[str, typer.Argument(help="600519 or 600519.SH")],
    frame: Annotated[str, typer.Argument(help='End of the minute, "2025-06-05 10:31"')],
    reason: Annotated[str, typer.Option(help="Why; kept in the table bar_overrides with your name and the time")],
    values: Annotated[str, typer.Option(help="open,high,low,close,volume in shares,amount in yuan")] = "",
    from_qmt: Annotated[bool, typer.Option("--from-qmt", help="Take QMT's own bar of the minute")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the override back: the rule's bar again")] = False,
    data_dir: DataDir = None,
) -> None:
    """Replace one minute bar that is wrong although its ticks are whole, and make the day's bars again.

    The row is marked as history with a score of 0.5; what was done is in the table bar_overrides.
    """
    from qmt_orchestration.orchestration.backfill import materialize_days

    (name,) = normalize_all([symbol])
    moment = _frame(frame)
    if (bool(values), from_qmt, undo).count(True) != 1:
        fail("expected exactly one of --values, --from-qmt and --undo", MISUSE)
    numbers = _numbers(values) if values else (0.0,) * 6
    try:
        with engines.ensure(settings_of(data_dir)) as ready:
            migrate(ready)
            parameters = dict(zip(("open", "high", "low", "close", "vol", "amount"), numbers, strict=True)) | {
                "symbol": name,
                "frame": moment.strftime("%Y-%m-%d %H:%M:%S"),
                "active": int(not undo),
                "from_qmt": int(from_qmt),
                "vol": int(numbers[4]),
                "reason": reason,
                "author": getpass.getuser(),
            }
            with connect(ready) as client:
                found = client.query(load_sql("qmt_bar"), parameters).first_row[0]
                if from_qmt and not found:
                    fail(f"no bar of QMT for {name} at {frame}: `qmt backfill --history` fetches them")
                client.command(load_sql("override_bar"), parameters)
            outcome = materialize_days(ready, [moment.date()])
    except engines.EngineError as error:
        fail(str(error))
    _end(outcome)


def _end(outcome: dict[str, Any]) -> NoReturn:
    """Name the runs that failed; exit code 1 when there are any."""
    for failure in outcome["errors"]:
        say(f"qmt: {failure['day']}: {failure['error']}")
    raise typer.Exit(NOTHING if outcome["failed_runs"] else FOUND)


def _frame(text: str) -> datetime:
    day, _, clock = text.partition(" ")
    try:
        moment = Time.fromisoformat(clock)
    except ValueError:
        fail(f'expected a frame like "2025-06-05 10:31", found {text[:40]!r}', MISUSE)
    if moment.hour * 60 + moment.minute not in MINUTE_LABELS:
        fail(f"{clock} is no frame of a day: 09:30 to 11:30, 13:01 to 15:00", MISUSE)
    return datetime.combine(trading_day(day), Time(moment.hour, moment.minute), SHANGHAI)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
        open_, high, low, close, vol, amount = numbers
    except ValueError:
        fail(f"expected six numbers open,high,low,close,volume,amount, found {text[:80]!r}", MISUSE)
    right = all(map(math.isfinite, numbers)) and 0 < low <= min(open_, close) <= max(open_, close) <= high
    if not right or vol < 0 or vol != int(vol) or amount < 0 or (vol > 0) != (amount > 0):
        fail(f"expected 0 < low <= open, close <= high, and whole volume with amount, found {text[:80]!r}", MISUSE)
    return numbers
