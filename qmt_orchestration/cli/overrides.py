"""`qmt override-bar`: replace a wrong minute bar by hand, with a trace, or take that back."""

from __future__ import annotations

import getpass
import math
from datetime import datetime, time
from typing import Annotated

import typer

from qmt_orchestration.cli.access import MISUSE, DataDir, fail, settings_of
from qmt_orchestration.cli.days import trading_day
from qmt_orchestration.cli.terminal import say
from qmt_orchestration.client.symbols import normalize_all
from qmt_orchestration.local import engines
from qmt_orchestration.market.sessions import MINUTE_LABELS, SHANGHAI
from qmt_orchestration.warehouse.client import connect, load_sql
from qmt_orchestration.warehouse.migrate import migrate


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
    for failure in outcome["errors"]:
        say(f"qmt override-bar: {failure['day']}: {failure['error']}")
    raise typer.Exit(1 if outcome["failed_runs"] else 0)


def _frame(text: str) -> datetime:
    day, _, clock = text.partition(" ")
    try:
        moment = time.fromisoformat(clock)
    except ValueError:
        fail(f'expected a frame like "2025-06-05 10:31", found {text[:40]!r}', MISUSE)
    if moment.hour * 60 + moment.minute not in MINUTE_LABELS:
        fail(f"{clock} is no frame of a day: 09:30 to 11:30, 13:01 to 15:00", MISUSE)
    return datetime.combine(trading_day(day), time(moment.hour, moment.minute), SHANGHAI)


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
