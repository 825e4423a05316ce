"""Bars of the simulated market as QMT hands them out: 1m, 5m and 1d of any simulated date.

As QMT's own: 241 minutes a day with end labels, volume in lots, amount in whole yuan, the sum of the minutes equal to
the day's (after-hours trading is in the daily row only); what has not been downloaded comes back as padding rows of
one of two kinds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.sessions import AFTER_HOURS_END, MINUTE_LABELS, SHANGHAI, at, from_ms, to_ms
from qmt_orchestration.simulator.hashing import I64, Bool
from qmt_orchestration.simulator.market import MarketDay

#: Fields of a bar with their dtype, in QMT's order and spelling.
FIELDS: Final[dict[str, str]] = {
    "time": "<i8",  # epoch ms: the end of a minute bar, midnight of a daily one
    "open": "<f8",
    "high": "<f8",
    "low": "<f8",
    "close": "<f8",
    "volume": "<i8",  # lots
    "amount": "<f8",  # whole yuan
    "settelementPrice": "<f8",
    "openInterest": "<i4",
    "preClose": "<f8",
    "suspendFlag": "<i4",
}
#: Minutes of the windows that a day's minutes are gathered into.
WINDOWS: Final = {"5m": 5, "15m": 15, "30m": 30, "60m": 60, "1h": 60}
PERIODS: Final = ("1m", *WINDOWS, "1d")
#: A request without a start reaches back this far.
DEFAULT_DAYS: Final = 250

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TimeRange:
    """A closed range of time, epoch ms."""

    begin_ms: int
    end_ms: int


def parse_moment(value: str | int, *, end: bool) -> int | None:
    """Epoch ms of ``YYYYMMDD``, ``YYYYMMDDhhmmss`` (Shanghai) or epoch ms; None if empty. An end date counts."""
    if isinstance(value, int):
        return value
    if not value:
        return None
    try:
        if len(value) == 8:
            day = datetime.strptime(value, "%Y%m%d").replace(tzinfo=SHANGHAI)
            return to_ms(day + timedelta(days=1)) - 1 if end else to_ms(day)
        return to_ms(datetime.strptime(value, "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI))
    except ValueError as error:
        raise ValueError(f"expected YYYYMMDD or YYYYMMDDhhmmss, found {value!r}") from error


def qmt_bars(day: MarketDay, period: str) -> Columns:
    """A whole day's bars of all its symbols: arrays (symbols, rows) by field name, price 0 before the first trade."""
    bars: Columns = dict(day.bars())
    rows = len(day.symbols)
    traits = day.traits
    lot, scale = traits.lot[:, None], traits.scale[:, None]
    lots = np.diff((day_cumulative(bars["vol"]) + lot // 2) // lot, axis=1)
    paid = traits.yuan(day_cumulative(bars["amount"]), day_cumulative(bars["vol"]))
    yuan = np.diff(np.floor(paid + 0.5), axis=1)
    prices: Columns = {name: bars[name] for name in ("open", "high", "low", "close")}
    labels: tuple[int, ...] = MINUTE_LABELS
    if period in WINDOWS:
        minutes = WINDOWS[period]
        prices, lots, yuan = _windows(minutes, prices, lots, yuan)
        labels = (*range(570 + minutes, 691, minutes), *range(780 + minutes, 901, minutes))
    elif period == "1d":
        after = day.after_hours.sum(axis=1)
        volume = day.cumulative[:, -1] + after
        amount = traits.yuan(bars["amount"].sum(axis=1) + after * day.final, volume)
        final = np.where(day.suspended, day.last_close, day.close[:, -1])
        traded = day.day_high[:, -1] > 0
        values = (day.opening(), day.day_high[:, -1], day.day_low[:, -1], final)
        prices = {
            name: np.where(traded, value, final)[:, None]
            for name, value in zip(("open", "high", "low", "close"), values, strict=True)
        }
        lots, yuan, labels = ((volume[:, None] + lot // 2) // lot), np.floor(amount + 0.5)[:, None], (0,)
    times = np.array([to_ms(at(day.day, label)) for label in labels])
    shape = (rows, len(labels))
    close: npt.NDArray[Any] = prices["close"] / scale
    last = np.broadcast_to(day.last_close[:, None] / scale, (rows, 1))
    out: Columns = {name: value / scale for name, value in prices.items()}
    out |= {
        "time": np.broadcast_to(times, shape),
        "volume": lots,
        "amount": yuan.astype(np.float64),
        "settelementPrice": np.zeros(shape),
        "openInterest": np.full(shape, 15 if period == "1d" else 13),
        "preClose": np.concatenate([last, np.where(close[:, :-1] > 0, close[:, :-1], last)], axis=1),
        "suspendFlag": np.broadcast_to(day.suspended[:, None].astype(np.int32), shape),
    }
    return out


def day_cumulative(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Running sums along the day with a leading 0."""
    out = np.zeros((values.shape[0], values.shape[1] + 1), np.int64)
    np.cumsum(values, axis=1, out=out[:, 1:])
    return out


def _windows(minutes: int, prices: Columns, lots: Any, yuan: Any) -> tuple[Columns, Any, Any]:
    """1m rows to rows of so many minutes (a divisor of 120); the 09:30 row joins the first."""
    starts = np.array([0, *range(minutes + 1, 241, minutes)])
    quoted = np.where(prices["open"] > 0, np.arange(241)[None, :], 241)
    first = np.minimum.reduceat(quoted, starts, axis=1)
    padded = np.concatenate([prices["open"], np.zeros((len(lots), 1), np.int64)], axis=1)
    low = np.minimum.reduceat(np.where(prices["low"] > 0, prices["low"], 1 << 40), starts, axis=1)
    out = {
        "open": np.take_along_axis(padded, first, axis=1),
        "high": np.maximum.reduceat(prices["high"], starts, axis=1),
        "low": np.where(low == 1 << 40, 0, low),
        "close": prices["close"][:, [*(starts[1:] - 1).tolist(), 240]],
    }
    return out, np.add.reduceat(lots, starts, axis=1), np.add.reduceat(yuan, starts, axis=1)


class SimulatedHistory:
    """The local store of a terminal: what was downloaded is there, the rest is padding. Kept in memory."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ranges: dict[tuple[str, str], list[TimeRange]] = {}
        self._lock = threading.Lock()

    def download(self, symbol: str, period: str, start: str | int, end: str | int, now_ms: int) -> None:
        """Make a range of one symbol and period available, as far as it has happened by *now_ms*."""
        begin_ms, end_ms = parse_moment(start, end=False), parse_moment(end, end=True)
        have = TimeRange(_or(begin_ms, 0), min(_or(end_ms, now_ms), now_ms))
        with self._lock:
            self._ranges.setdefault((symbol, period), []).append(have)

    def bars(
        self,
        symbols: list[str],
        period: str,
        start: str | int,
        end: str | int,
        count: int,
        *,
        now_ms: int,
        fill: bool,
        everything: bool = False,
    ) -> Iterator[tuple[str, list[str], Columns]]:
        """(symbol, labels, fields) per symbol: bars in [start, end] that ended by *now_ms*; the last *count* if >= 0.

        *everything* treats all ranges as downloaded. With *fill* the minutes before a day's first trade are filled with
        the previous close, else they are left out.
        """
        if period not in PERIODS:
            raise ValueError(f"expected one of {', '.join(PERIODS)}, found {period!r}")
        if not symbols:
            return
        end_ms = min(now_ms, _or(parse_moment(end, end=True), now_ms))
        begin_ms = _or(parse_moment(start, end=False), end_ms - DEFAULT_DAYS * 86_400_000)
        parts: dict[str, list[Columns]] = {s: [] for s in symbols}
        for day in self._days(period, begin_ms, end_ms, now_ms, count):
            values = qmt_bars(_day(self._seed, day, tuple(symbols)), period)
            for row, symbol in enumerate(symbols):
                bars = {name: values[name][row].astype(dtype) for name, dtype in FIELDS.items()}
                have = np.full(len(bars["time"]), everything) | self._have(symbol, period, bars["time"])
                bars = _padding(symbol, bars, ~have)
                parts[symbol].append(_asked_for(bars, have, period, begin_ms, end_ms, fill=fill))
        for symbol, days in parts.items():
            joined = {
                name: np.concatenate([d[name] for d in days] or [np.zeros(0)]).astype(dtype)
                for name, dtype in FIELDS.items()
            }
            if count >= 0:
                joined = {name: array[max(0, len(array) - count) :] for name, array in joined.items()}
            form = "%Y%m%d" if period == "1d" else "%Y%m%d%H%M%S"
            yield symbol, [from_ms(ms).strftime(form) for ms in joined["time"].tolist()], joined

    def holds(self, symbol: str, period: str, time_ms: int) -> bool:
        """Whether the row at this time was downloaded."""
        return bool(self._have(symbol, period, np.array([time_ms]))[0])

    def _have(self, symbol: str, period: str, times: I64) -> Bool:
        """Which of the rows at these times were downloaded."""
        with self._lock:
            ranges = list(self._ranges.get((symbol, period), ()))
        have = np.zeros(len(times), dtype=np.bool_)
        for r in ranges:
            have |= (times >= r.begin_ms) & (times <= r.end_ms)
        return have

    def _days(self, period: str, begin_ms: int, end_ms: int, now_ms: int, count: int) -> list[date]:
        days = trading_days(from_ms(begin_ms).date(), from_ms(end_ms).date())
        if period == "1d" and days and now_ms < to_ms(at(days[-1], _minutes(AFTER_HOURS_END))):
            days.pop()  # the day is not over
        if count >= 0:
            per_day = 1 if period == "1d" else 240 // WINDOWS.get(period, 1)
            days = days[-(count // per_day + 3) :]
        return days


def _day(seed: int, day: date, symbols: tuple[str, ...]) -> MarketDay:
    """The day's plan; those of a few symbols are remembered, as programs ask for them again and again."""
    return _few(seed, day, symbols) if len(symbols) <= _FEW else MarketDay(seed, day, symbols)


_FEW: Final = 20


@lru_cache(maxsize=64)
def _few(seed: int, day: date, symbols: tuple[str, ...]) -> MarketDay:
    return MarketDay(seed, day, symbols)


def _minutes(moment: Any) -> int:
    return int(moment.hour * 60 + moment.minute)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _asked_for(bars: Columns, have: Bool, period: str, begin_ms: int, end_ms: int, *, fill: bool) -> Columns:
    """The rows of a day in the range; those before the first trade are filled with the previous close, or left out."""
    times, unpriced = bars["time"], bars["close"] == 0
    keep = times <= end_ms + 1 if period == "1d" else (times <= end_ms) & (times >= begin_ms)
    if fill:
        prices = {name: np.where(unpriced, bars["preClose"], bars[name]) for name in ("open", "high", "low", "close")}
        bars = {**bars, **prices}
    else:
        keep &= ~(unpriced & have)
    return {name: array[keep] for name, array in bars.items()}


def _padding(symbol: str, bars: Columns, where: Bool) -> Columns:
    """The rows as QMT returns them when not downloaded: nothing traded, suspended, price 0 or last close."""
    if not where.any():
        return bars
    price = bars["preClose"][0] if crc32(symbol.encode()) % 2 else 0.0
    padding: dict[str, float] = dict.fromkeys(("open", "high", "low", "close", "preClose"), price)
    padding |= {"volume": 0, "amount": 0.0, "suspendFlag": 1}
    return {name: np.where(where, padding.get(name, array), array) for name, array in bars.items()}
