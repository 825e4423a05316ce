"""Bars as the terminal gives them, in flat arrays ordered by symbol and time: lots, previous closes, filled frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.client import reading
from qmt_orchestration.client.adjust import groups
from qmt_orchestration.client.bar_queries import local_days, read_bars
from qmt_orchestration.client.moments import Range
from qmt_orchestration.client.symbols import lot_size_of
from qmt_orchestration.market import calendar
from qmt_orchestration.market.periods import minutes_of
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, to_ms
from qmt_orchestration.settings import Settings

_EPOCH: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000
_OFFSET_MS: Final = 8 * 3_600_000
Array = npt.NDArray[Any]


@dataclass
class Bars:
    """Parallel arrays. time: epoch ms, midnight for days and more; volume: lots; preClose NaN where it is not known."""

    symbol: Array
    time: Array
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    amount: Array
    preClose: Array
    suspendFlag: Array

    @classmethod
    def none(cls) -> Bars:
        """No rows."""
        return cls(np.zeros(0, dtype=object), np.zeros(0, np.int64), *(np.zeros(0) for _ in range(8)))

    def take(self, chosen: Array) -> Bars:
        """The rows of a mask or of positions."""
        return Bars(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def with_prices(self, prices: dict[str, Array]) -> Bars:
        """The same with other prices."""
        return replace(self, **prices)


def is_intraday(period: str) -> bool:
    """Whether bars of the period lie within a day."""
    return period == "1m" or bool(minutes_of(period))


def load(settings: Settings, codes: Sequence[str], period: str, span: Range, *, fill: bool) -> Bars:
    """Bars of *codes* of whole days (weeks, months) that *span* touches; *fill* adds frames without a trade."""
    found = read_bars(settings, codes, _whole_days(span), period, after_hours=True, so_far=True)
    seconds = found.column("frame").cast(pa.int64()).to_numpy()
    symbol = found.column("symbol").to_numpy(zero_copy_only=False)
    time = seconds * 1000 if is_intraday(period) else local_days(seconds * 1000) * _DAY_MS - _OFFSET_MS
    prices = {name: found.column(name).to_numpy() for name in ("open", "high", "low", "close", "amount")}
    shares = found.column("vol").to_numpy()
    if not is_intraday(period):
        pre = found.column("pre_close").to_numpy()
        pre = np.where(pre > 0, pre, np.nan)
        halted = found.column("suspended").to_numpy().astype(np.int32)
        return Bars(symbol, time, **prices, volume=_lots(symbol, shares), preClose=pre, suspendFlag=halted)
    starts = _day_starts(symbol, time)
    bars = Bars(
        symbol, time, **prices, volume=_lots_of_minutes(symbol, starts, shares),
        preClose=np.concatenate([[np.nan], prices["close"][:-1]]) if len(time) else np.zeros(0),
        suspendFlag=np.zeros(len(time), np.int32),
    )  # fmt: skip
    closes = _day_closes(settings, codes, span)
    days = local_days(time)
    for row in np.flatnonzero(starts).tolist():
        bars.preClose[row] = closes.get((symbol[row], int(days[row])), (np.nan, False))[0]
    return _filled(bars, closes, period) if fill else bars


def within(bars: Bars, period: str, span: Range) -> Bars:
    """The rows of the closed range; of daily and longer bars those whose day lies in it."""
    if is_intraday(period):
        return bars.take((bars.time >= span.first_ms) & (bars.time <= span.last_ms))
    days = local_days(bars.time)
    first, last = ((day - _EPOCH).days for day in (span.first_day, span.last_day))
    return bars.take((days >= first) & (days <= last))


def last_of_each(bars: Bars, count: int) -> Bars:
    """The last *count* rows of each symbol."""
    keep = np.zeros(len(bars.symbol), np.bool_)
    for first, last in groups(bars.symbol):
        keep[max(first, last - count) : last] = True
    return bars.take(keep)


def _whole_days(span: Range) -> Range:
    first = to_ms(at(span.first_day, 0))
    return Range(first, to_ms(at(span.last_day, 0)) + _DAY_MS - 1)


def _day_starts(symbol: Array, time: Array) -> Array:
    """Where a row is its symbol's first of the day."""
    if not len(time):
        return np.zeros(0, np.bool_)
    days = local_days(time)
    return np.concatenate([[True], (symbol[1:] != symbol[:-1]) | (days[1:] != days[:-1])])


def _lot_sizes(symbol: Array) -> Array:
    sizes = {code: lot_size_of(code) for code in set(symbol.tolist())}
    return np.array([sizes[code] for code in symbol.tolist()], np.int64)


def _lots(symbol: Array, shares: Array) -> Array:
    lot = _lot_sizes(symbol)
    out: Array = (shares + lot // 2) // lot
    return out


def _lots_of_minutes(symbol: Array, starts: Array, shares: Array) -> Array:
    """Growth of the day's volume in lots: odd lots are rounded once in the cumulative value, as the exchange does, so
    that the minutes add up to the day."""
    total = np.cumsum(shares)
    group = np.cumsum(starts) - 1
    cumulative = total - (total - shares)[starts][group] if len(total) else total
    lots = _lots(symbol, cumulative)
    before = np.concatenate([[0], lots[:-1]]) if len(lots) else lots
    return lots - np.where(starts, 0, before)


def _day_closes(settings: Settings, codes: Sequence[str], span: Range) -> dict[tuple[str, int], tuple[float, bool]]:
    """(previous close, suspended all day) by symbol and day since 1970, as far as it is known."""
    wanted = {"symbols": list(codes), "first": span.first_day, "last": span.last_day}
    found = reading.rows(settings, "previous_closes", wanted)
    return {(row[0], (row[1] - _EPOCH).days): (row[2] if row[2] > 0 else np.nan, bool(row[3])) for row in found}


def _filled(bars: Bars, closes: dict[tuple[str, int], tuple[float, bool]], period: str) -> Bars:
    """Frames before the first trade of a day, and those of days of suspension, at the previous close with volume 0.

    A day reaches as far as the rows of any symbol asked for; a day with none of them, to its end.
    """
    labels = np.array(_labels(period)) * 60_000
    days, starts = local_days(bars.time), _day_starts(bars.symbol, bars.time)
    unique, inverse = np.unique(days, return_inverse=True)
    newest = np.zeros(len(unique), np.int64)
    np.maximum.at(newest, inverse, bars.time)
    reached = dict(zip(unique.tolist(), newest.tolist(), strict=True))
    first = {(bars.symbol[row], int(days[row])): int(bars.time[row]) for row in np.flatnonzero(starts).tolist()}
    added: list[Bars] = []
    for (symbol, day), (close, suspended) in closes.items():
        if not close > 0 or not (suspended or (symbol, day) in first):
            continue
        midnight = day * _DAY_MS - _OFFSET_MS
        until = first.get((symbol, day), reached.get(day, midnight + _DAY_MS) + 1)
        times = midnight + labels
        times = times[times < until]
        if len(times):
            price, flag = np.full(len(times), close), np.full(len(times), int((symbol, day) not in first), np.int32)
            zero = np.zeros(len(times), np.int64)
            names = np.full(len(times), symbol, dtype=object)
            added.append(Bars(names, times, price, price, price, price, zero, zero.astype(float), price, flag))
    if not added:
        return bars
    joined = Bars(**{f.name: np.concatenate([getattr(b, f.name) for b in (bars, *added)]) for f in fields(bars)})
    joined = joined.take(np.lexsort((joined.time, joined.symbol.astype(str))))
    untraded = _day_starts(joined.symbol, joined.time)
    joined.preClose[1:] = np.where(untraded[1:], joined.preClose[1:], joined.close[:-1])
    return joined


def _labels(period: str) -> list[int]:
    """End labels of a day's frames, minutes since midnight."""
    n = 1 if period == "1m" else minutes_of(period)
    if n == 1:
        return list(MINUTE_LABELS)
    ends = [min(end, 240) for end in range(n, 240 + n, n)]
    return [end + (570 if end <= 120 else 660) for end in ends]


def days_back(last: date, count: int, period: str) -> date:
    """A day from which *count* bars up to *last* are reached, if the symbol was not suspended."""
    if period in ("1w", "1mo"):
        return last - timedelta(days=(count + 2) * (7 if period == "1w" else 31))
    per_day = 1 if period == "1d" else len(_labels(period))
    days = calendar.trading_days(last - timedelta(days=30 + 2 * (count // per_day + 3)), last)
    wanted = count // per_day + 3
    return days[-wanted] if len(days) >= wanted else (days[0] if days else last)
