"""Bars labelled by the start of their window, as vn.py and Qlib have them, and the ranges that such labels mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa

from qmt_orchestration.client import reading
from qmt_orchestration.client.bar_queries import local_days, read_bars, text
from qmt_orchestration.client.moments import EARLIEST_MS, LATEST_MS, Range
from qmt_orchestration.market.sessions import SHANGHAI, from_ms, to_ms
from qmt_orchestration.settings import Settings

#: Periods with a start label, by this system's names.
PERIODS: Final = ("1m", "60m", "1d", "1w")


@dataclass(frozen=True)
class StartBar:
    """A bar; *start* is aware (Shanghai): the first moment of its minute or hour, midnight of its day or Monday."""

    start: datetime
    open: float
    high: float
    low: float
    close: float
    vol: int  # shares
    amount: float  # yuan


def start_bars(
    settings: Settings | None, symbol: str, period: str, start: datetime | None, end: datetime | None
) -> Iterator[StartBar]:
    """Bars of *symbol* whose start lies in [start, end] (aware; None = open), in time order.

    1m: 240 a day, the opening call is part of 09:30. Days and weeks include after-hours trading.
    """
    first = EARLIEST_MS if start is None else to_ms(start)
    last = LATEST_MS if end is None else to_ms(end)
    if period == "1m":
        parameters = {"symbols": [symbol], "first": text(first), "last": text(min(last + 60_000, LATEST_MS))}
        found = reading.table(settings, "bars_240", parameters)
    else:
        margin = {"60m": 3_600_000, "1d": 86_400_000, "1w": 7 * 86_400_000}[period]
        found = read_bars(settings, [symbol], Range(first, min(last + margin, LATEST_MS)), period, after_hours=True)
    names = ("open", "high", "low", "close", "vol", "amount")
    columns = [found.column(name).to_pylist() for name in names]
    for second, *values in zip(found.column("frame").cast(pa.int64()).to_pylist(), *columns, strict=True):
        moment = _start(second * 1000, period)
        if first <= to_ms(moment) <= last:
            yield StartBar(moment, *values)


def _start(frame_ms: int, period: str) -> datetime:
    """The start of the window that *frame_ms* labels by its end (1m: by its start already)."""
    if period == "1m":
        return from_ms(frame_ms)
    if period == "60m":
        return from_ms(frame_ms - 3_600_000)
    midnight = datetime.fromtimestamp(int(local_days(frame_ms)) * 86_400 - 8 * 3600, SHANGHAI)
    return midnight - timedelta(days=midnight.weekday()) if period == "1w" else midnight
