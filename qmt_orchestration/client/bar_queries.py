"""Bars of any period as Arrow: stored ones, or made from minutes or days in SQL; adjusted when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.client import adjust, reading
from qmt_orchestration.client.errors import FutureRange, NoDataInRange
from qmt_orchestration.client.moments import Range
from qmt_orchestration.market.periods import STANDARD, UnknownPeriod, minutes_of
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, from_ms, to_ms
from qmt_orchestration.settings import Settings

PRICES: Final = ("open", "high", "low", "close")
_ALIASES: Final = {"1h": "60m", "1mon": "1mo"}
_DAY_MS: Final = 86_400_000
_OFFSET_MS: Final = 8 * 3_600_000


def period_of(text: str) -> str:
    """The period's name in this system: ``1m``, ``Nm`` (2 to 240), ``1d``, ``1w``, ``1mo``. Raises `UnknownPeriod`."""
    name = _ALIASES.get(text, text) if isinstance(text, str) else str(text)
    if name != "1m":
        try:
            minutes_of(name)
        except UnknownPeriod:
            raise UnknownPeriod(
                f"expected a period of 1m, 5m, 15m, 30m, 60m or 1h (any Nm up to 240), 1d, 1w, 1mo, found {text!r:.40}"
            ) from None
    return name


def read_bars(
    settings: Settings | None,
    symbols: Sequence[str],
    span: Range,
    period: str,
    adjustment: str = "none",
    *,
    after_hours: bool = False,
    so_far: bool = False,
) -> pa.Table:
    """Bars of *symbols* (none = all) with first <= frame <= last, ordered by symbol and frame.

    *period* as `period_of` gives it. *after_hours*: days, weeks and months include after-hours trading.
    *so_far*: the running day has a daily bar, too, as far as it has come (view ``bars_1d_live``).
    """
    parameters: dict[str, Any] = {"symbols": list(symbols), "first": text(span.first_ms), "last": text(span.last_ms)}
    if period == "1m" or (period in STANDARD and not (after_hours and period == "1d")):
        found = reading.table(settings, "bars_stored", {**parameters, "table": f"bars_{period}"})
    elif period == "1d":
        found = reading.table(settings, "bars_daily", parameters)
    elif minutes_of(period):
        days = {"first_day": span.first_day, "last_day": span.last_day}
        found = reading.table(settings, "bars_of_minutes", {**parameters, **days, "minutes": minutes_of(period)})
    else:
        first, last = _whole(span.first_day, period, end=False), _whole(span.last_day, period, end=True)
        more = {"first_day": first, "last_day": last, "unit": period, "after_hours": int(after_hours)}
        found = reading.table(settings, "bars_of_days", {**parameters, **more})
    if so_far and period == "1d":
        found = _with_running_day(settings, found, symbols, span)
    return adjusted(settings, found, adjustment)


def _with_running_day(settings: Settings | None, found: pa.Table, symbols: Sequence[str], span: Range) -> pa.Table:
    today = reading.market_clock(settings).today()
    if not span.first_ms <= to_ms(at(today, MINUTE_LABELS[-1])) <= span.last_ms:
        return found
    running = reading.table(settings, "bars_day_so_far", {"day": today, "symbols": list(symbols)})
    if not running.num_rows:
        return found
    running = running.select(found.column_names).cast(found.schema)
    return pa.concat_tables([found, running]).sort_by([("symbol", "ascending"), ("frame", "ascending")])


def adjusted(settings: Settings | None, found: pa.Table, adjustment: str) -> pa.Table:
    """*found* with its prices adjusted (`adjust`), to the instrument's decimals; columns and order stay."""
    if adjustment == "none" or not found.num_rows:
        return found
    symbols = found.column("symbol").to_numpy(zero_copy_only=False)
    days = local_days(found.column("frame").cast(pa.int64()).to_numpy() * 1000)
    events = events_of(settings, np.unique(symbols).tolist())
    prices = {name: found.column(name).to_numpy() for name in PRICES}
    made = adjust.to_decimals(symbols, adjust.adjust_prices(symbols, days, prices, events, adjustment))
    for name, values in made.items():
        found = found.set_column(found.schema.get_field_index(name), name, pa.array(values))
    return found


def events_of(settings: Settings | None, symbols: Sequence[str]) -> dict[str, adjust.Events]:
    """The dividend events in force by the market's today."""
    today = reading.market_clock(settings).today()
    wanted = {"symbols": list(symbols), "first": date(1990, 1, 1), "last": today}
    found = reading.rows(settings, "factors_of", wanted)
    epoch = date(1970, 1, 1)
    return adjust.events_of([(row[0], (row[1] - epoch).days, *row[2:]) for row in found])


def require_stored(settings: Settings | None, span: Range, period: str) -> None:
    """Raise `NoDataInRange` or `FutureRange` when the warehouse holds no bars of any symbol in the range."""
    base = "1d" if period in ("1d", "1w", "1mo") else "1m"
    first, last = reading.rows(settings, "bars_span", {"table": f"bars_{base}"})[0]
    refuse_outside(settings, span, first * 1000, last * 1000, f"{base} bars")


def refuse_outside(settings: Settings | None, span: Range, first_ms: int, last_ms: int, what: str) -> None:
    """Raise when *span* and [first, last], what is stored, have nothing in common."""
    if first_ms and span.first_ms <= last_ms and span.last_ms >= first_ms:
        return
    now = reading.market_clock(settings).now_ms()
    holds = f"{what} are stored from {from_ms(first_ms):%Y-%m-%d %H:%M} to {from_ms(last_ms):%Y-%m-%d %H:%M}"
    holds = holds if first_ms else f"the warehouse holds no {what} yet"
    asked = f"{from_ms(span.first_ms):%Y-%m-%d %H:%M} … {from_ms(span.last_ms):%Y-%m-%d %H:%M}"
    if span.first_ms > now:
        raise FutureRange(f"{asked} lies in the future: it is {from_ms(now):%Y-%m-%d %H:%M}; {holds}")
    raise NoDataInRange(f"nothing is stored of {asked}: {holds}; `qmt backfill` fetches past days")


def local_days(time_ms: Any) -> Any:
    """Days since 1970-01-01 in Shanghai of epoch milliseconds."""
    return (time_ms + _OFFSET_MS) // _DAY_MS


def text(ms: int) -> str:
    """Epoch milliseconds as ClickHouse reads a DateTime in Asia/Shanghai."""
    return f"{from_ms(ms):%Y-%m-%d %H:%M:%S}"


def _whole(day: date, period: str, *, end: bool) -> date:
    """The first or last day of the week or month of *day*."""
    if period == "1w":
        monday = day - timedelta(days=day.weekday())
        return monday + timedelta(days=6) if end else monday
    first = day.replace(day=1)
    return (first + timedelta(days=31)).replace(day=1) - timedelta(days=1) if end else first
