"""One day of the simulated market at the grain of minutes: prices, volumes and what is special about each symbol.

A day is a row of 241 **cells** per symbol: the opening auction, 120 morning minutes, the snapshot after 11:30, 117
afternoon minutes, the snapshot after 14:57 and the closing auction. Each cell has its true open, high, low, close and
volume; `ticks.py` makes the snapshots that lead through them, so the true bars are known without aggregating a tick.

Prices are integer points (cents of a share: `kinds`), volumes units. (seed, date, symbol) fixes every number. Closing
prices hang together from day to day (limit-up days, suspensions and dividends included) without simulating the days
between: see `_Chain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import Final

import numpy as np

from qmt_orchestration.market.calendar import previous_trading_day, require_trading_day, trading_days
from qmt_orchestration.market.instruments import trading_of
from qmt_orchestration.simulator.cells import AUCTION, CELLS, CLOSING, NO_LOW, NOON, RESIDUAL, minute_amounts
from qmt_orchestration.simulator.hashing import F64, I64, U64, Bool, draw, draws, field, symbol_keys, unit
from qmt_orchestration.simulator.kinds import traits
from qmt_orchestration.simulator.universe import limit_percent

NORMAL, SUSPENDED, LIMIT_UP, LOCKED_UP, LIMIT_DOWN, HALTED = range(6)
HALT_CELLS: Final = 10
LATE_FROM: Final = 901  # minute of the day with which `MarketDay.after_hours` begins
AFTER_HOURS_FROM: Final = 905
LATE_MINUTES: Final = 930 - LATE_FROM

_BLOCK: Final = 8  # trading days; at most one special day in each, none near its end
_EPOCH: Final = date(2005, 1, 4)
_RULES_OF: Final = date(2025, 1, 2)
# purposes of random draws: one number each, so that no two decisions share their bits
_TREND, _DAILY, _SPECIAL, _TRAIT, _DIVIDEND, _DAY, _OPEN, _WALK, _TRADE, _VOLUME, _SHAPE, _AFTER = range(1, 13)


def day_index(day: date) -> int:
    """Number of the trading day, counted from 2005-01-04."""
    return len(trading_days(_EPOCH, day)) - 1


class _Chain:
    """Closing prices over the days of a set of symbols, each computable on its own.

    The close tends to a random target of the day. A special day (limit-up, suspension …) throws it off the target,
    but only early in a block of eight days, so that within its block it is back: at a block's start the close *is* the
    target, and any day's close follows from at most eight steps.
    """

    def __init__(self, seed: int, symbols: tuple[str, ...]) -> None:
        self.symbols = symbols
        self.keys = symbol_keys(seed, symbols)
        trait = draw(self.keys, _TRAIT)
        self.traits = traits(symbols)
        spread = unit(draw(self.keys, _TRAIT, 1))
        share = np.where(unit(trait) < 0.02, 120.0, 4.0) * np.exp(2.4 * spread)
        self.base = np.where(self.traits.base > 0, self.traits.base * np.exp(0.4 * spread), share)
        self.offset = field(trait, 0, 3)
        # How far targets move. It must not depend on the day's rules, or the change of a rule would move prices; the
        # largest step (3.4 sigma and 1/64 of the drift) stays inside the narrowest limit the share ever had.
        percent = percents(symbols, _RULES_OF)
        self.sigma = np.select([percent == 5, percent == 10], [0.006, 0.016], 0.024)
        self.drift = np.where(percent == 5, 0.1, 0.4)

    def target(self, index: int) -> I64:
        """The close in points that the day tends to."""
        knot, part = index // 64, (index % 64) / 64
        ends = [unit(draw(self.keys, _TREND, knot + i)) - 0.5 for i in (0, 1)]
        trend = self.drift * (ends[0] * (1 - part) + ends[1] * part)
        noise = self.sigma * 3.4 * (unit(draw(self.keys, _DAILY, index)) - 0.5)
        points: I64 = np.rint(self.traits.scale * self.base * np.exp(trend + noise)).astype(np.int64)
        return points

    def kind(self, index: int) -> I64:
        """What is special about the day, per symbol."""
        position, block = (index + self.offset) % _BLOCK, (index + self.offset) // _BLOCK
        bits = draw(self.keys, _SPECIAL, block)
        u = field(bits, 8, 20) / 2**20 / 0.16  # sixteen in a hundred blocks hold a special day
        kinds = np.select([u < 0.3, u < 0.55, u < 0.65, u < 0.8, u < 1], range(1, 6), NORMAL)
        special = (position == 1 + field(bits, 0, 8) % 3) & ~self.traits.plain
        return np.where(special, kinds, NORMAL)

    def dividend(self, index: int, close: I64) -> I64:
        """Cash dividend in cents a share whose ex-date is the day: about once in 256 days, 0.1–1 % of the price."""
        share = 1 + field(draw(self.keys, _DIVIDEND), 8, 3)
        return np.where(self.dividend_due(index), np.maximum(1, close * share // 1000), 0)

    def close_before(self, day: date) -> tuple[I64, I64]:
        """(close of the trading day before *day*, dividend whose ex-date is *day*), in cents."""
        index = day_index(day)
        if index <= _BLOCK:
            raise ValueError(f"the simulated market begins in 2005-02; {day} is too early (QMT_SIM_DATE)")
        days = [day]
        for _ in range(_BLOCK - 1):
            days.append(previous_trading_day(days[-1]))
        close = self.target(index - _BLOCK)
        for back in range(_BLOCK - 1, 0, -1):
            close = self.step(index - back, days[back], close)[3]
        return close, self.dividend(index, close)

    def dividend_due(self, index: I64 | int) -> Bool:
        """Whether the day of this number is the ex-date of a dividend."""
        position, block = (index + self.offset) % _BLOCK, (index + self.offset) // _BLOCK
        due: Bool = (position == 5) & (block % 32 == field(draw(self.keys, _DIVIDEND), 0, 5))
        return due & self.traits.pays

    def step(self, index: int, day: date, close: I64) -> tuple[I64, I64, I64, I64]:
        """From the close of the day before: (last close less dividend, up limit, down limit, close of *day*)."""
        last = close - self.dividend(index, close)
        percent = percents(self.symbols, day)
        up, down = limits(last, percent)
        kind = self.kind(index)
        wanted = np.clip(self.target(index), down, up)
        wanted = np.where((index + self.offset) % _BLOCK == 0, self.target(index), wanted)
        raised = (kind == LIMIT_UP) | (kind == LOCKED_UP)
        closes = np.where(raised, up, np.where(kind == LIMIT_DOWN, down, np.where(kind == SUSPENDED, last, wanted)))
        return last, up, down, closes


@lru_cache(maxsize=64)
def _percents(symbols: tuple[str, ...], day: date) -> I64:
    return np.array([limit_percent(s, day) for s in symbols], dtype=np.int64)


def percents(symbols: tuple[str, ...], day: date) -> I64:
    """Price limit in per cent per symbol. Rules change on few days, so a month is looked up once."""
    return _percents(symbols, day) if day.year in (2020, 2026) else _percents(symbols, date(day.year, 1, 1))


def limits(last_close: I64, percent: I64) -> tuple[I64, I64]:
    """(up, down) limit in cents: last close × (1 ± limit), rounded half up, exactly."""
    return (last_close * (100 + percent) + 50) // 100, (last_close * (100 - percent) + 50) // 100


class MarketDay:
    """The plan of one day for a set of symbols; all arrays have one row per symbol, prices in cents.

    ``traded, open, high, low, close, volume``: (symbols, 241 cells), *close* carried forward through cells without a
    trade (0 before the first). ``after_hours``: units per minute from 15:01, of shares from 15:05 on, (symbols, 29).
    ``continuous``: traded until 15:00 (a repo: 15:30) without a closing call. With *reference_only* there is just the
    day's frame: last close, limits, kind.
    """

    def __init__(self, seed: int, day: date, symbols: tuple[str, ...], *, reference_only: bool = False) -> None:
        self.seed, self.day, self.symbols = seed, require_trading_day(day), symbols
        chain = _Chain(seed, symbols)
        self.traits = chain.traits
        self.index = day_index(day)
        before, self.dividend = chain.close_before(day)
        self.previous_close = before
        self.last_close, self.up, self.down, self.final = chain.step(self.index, day, before)
        self.kind = chain.kind(self.index)
        self.suspended: Bool = self.kind == SUSPENDED
        if reference_only:
            return
        self.keys: U64 = draw(chain.keys, _DAY, self.index)
        style = draw(chain.keys, _TRAIT, 2)
        u = unit(style)
        self.dense, self.rare = u < 0.93, u >= 0.985
        self.empty_morning: Bool = self.rare & (field(style, 0, 2) < 2)
        # 2 to 65 million shares a day
        daily = self.traits.size * np.exp(14.5 + 3.5 * unit(draw(chain.keys, _TRAIT, 3)))
        self._per_minute = np.where(self.dense, daily / 240, np.where(self.rare, 300.0, 900.0))
        self._amounts: I64 | None = None
        self._price_path()
        self._volumes()

    # -- prices ---------------------------------------------------------------------------------------------

    def _path(self) -> tuple[I64, Bool]:
        """Closing price per cell if it traded, and where the price is sealed at its limit."""
        n = len(self.symbols)
        cell = np.arange(CELLS)[None, :]
        bits = draw(self.keys, _OPEN)
        sealing = (self.kind == LIMIT_UP) | (self.kind == LIMIT_DOWN)
        end = np.where(sealing, 20 + field(bits, 0, 8) % 200, CLOSING)
        end = np.where(self.kind == LOCKED_UP, 1, end)[:, None]
        first = np.clip(self.last_close * (1 + 0.012 * (unit(bits) - 0.5)), self.down, self.up)
        first = np.where(self.kind == LOCKED_UP, self.up, first)
        walk = np.zeros((n, CELLS))
        steps = draws(self.keys, _WALK, 1, CELLS - 1)
        walk[:, 1:] = np.cumsum((field(steps, 0, 24) + field(steps, 24, 24)) / 2**24 - 1, axis=1)
        share = np.minimum(cell / end, 1)
        at_end = np.take_along_axis(walk, end, axis=1)
        swing = np.where(self.dense, 0.0022, 0.0012)[:, None] * (walk - share * at_end)
        swing = np.where(cell < end, swing, 0)
        logs = np.log(first)[:, None] * (1 - share) + np.log(np.maximum(self.final, 1))[:, None] * share
        path = np.rint(np.exp(logs + swing)).astype(np.int64)
        path = np.clip(path, self.down[:, None], self.up[:, None])
        path[:, CLOSING] = self.final
        sealed = ((self.kind == LIMIT_UP) | (self.kind == LIMIT_DOWN) | (self.kind == LOCKED_UP))[:, None]
        return path, sealed & (cell >= end) | (self.kind == LOCKED_UP)[:, None]

    def _trades(self) -> Bool:
        """Which cells trade."""
        cell = np.arange(CELLS)[None, :]
        u = unit(draws(self.keys, _TRADE, 0, CELLS))
        chance = np.where(self.dense, 1.0, np.where(self.rare, 0.02, 0.5))[:, None] * np.ones(CELLS)
        chance[:, AUCTION] = np.where(self.dense, 0.995, np.where(self.rare, 0.2, 0.5))
        chance[:, NOON] *= 0.5
        chance[:, RESIDUAL] *= 0.7
        chance[:, CLOSING] = np.where(self.rare, 0.5, 1.0)
        traded = u < chance
        traded &= ~(self.empty_morning[:, None] & (cell <= NOON))
        self.halt_cell = np.where(self.kind == HALTED, 30 + field(draw(self.keys, _TRADE, CELLS), 0, 8) % 150, CELLS)
        halt = self.halt_cell[:, None]
        traded &= ~((cell >= halt) & (cell < halt + HALT_CELLS))
        traded[:, NOON] &= traded[:, NOON - 1]  # a first trade at 11:30:0x would leave the open of 11:30 ambiguous
        traded[:, CLOSING] |= ~traded.any(axis=1)
        traded[self.suspended] = False
        return traded

    def _price_path(self) -> None:
        path, sealed = self._path()
        self.traded = traded = self._trades()
        rows = np.arange(len(self.symbols))
        last_cell = CELLS - 1 - np.argmax(traded[:, ::-1], axis=1)
        path[rows, last_cell] = self.final  # the day's close is its last trade
        carried = np.maximum.accumulate(np.where(traded, np.arange(CELLS), -1), axis=1)
        self.close = np.where(carried >= 0, np.take_along_axis(path, np.maximum(carried, 0), axis=1), 0)
        earlier = np.concatenate([np.zeros((len(rows), 1), np.int64), self.close[:, :-1]], axis=1)
        bits = draws(self.keys, _SHAPE, 0, CELLS)
        flat = sealed | np.isin(np.arange(CELLS), (AUCTION, NOON, RESIDUAL, CLOSING))[None, :]
        step = np.where(flat, 0, field(bits, 0, 2) % 3 - 1)
        up, down = self.up[:, None], self.down[:, None]
        opened = np.clip(np.where(earlier > 0, earlier, self.close) + step, down, up)
        self.open = np.where(flat, self.close, opened)
        reach = np.where(flat, 0.0, 0.0025 * self.close)
        above = (reach * (field(bits, 2, 12) / 4096) ** 3).astype(np.int64)
        below = (reach * (field(bits, 14, 12) / 4096) ** 3).astype(np.int64)
        self.high = np.where(traded, np.minimum(np.maximum(self.open, self.close) + above, up), 0)
        self.low = np.where(traded, np.maximum(np.minimum(self.open, self.close) - below, down), NO_LOW)
        self.day_high = np.maximum.accumulate(self.high, axis=1)
        self.day_low = np.minimum.accumulate(self.low, axis=1)
        before = np.concatenate([np.zeros((len(rows), 1), np.int64), self.day_high[:, :-1]], axis=1)
        lower = np.concatenate([np.full((len(rows), 1), NO_LOW), self.day_low[:, :-1]], axis=1)
        # A new extreme of the day that no snapshot's last price shows: it was reached between two snapshots.
        self.hidden_high = (field(bits, 26, 2) == 0) & (self.high > before) & (self.high > self.open) & ~flat
        self.hidden_high &= self.high > self.close
        self.hidden_low = (field(bits, 28, 2) == 0) & (self.low < lower) & (self.low < self.open) & ~flat
        self.hidden_low &= self.low < self.close

    # -- volumes --------------------------------------------------------------------------------------------

    def _volumes(self) -> None:
        cell = np.arange(CELLS)
        shape = 0.6 + 1.6 * np.exp(-cell / 25) + 0.5 * np.exp((cell - 238) / 20)  # busy after the open and to the end
        shape[AUCTION], shape[NOON], shape[RESIDUAL], shape[CLOSING] = 3.0, 0.05, 0.05, 4.0
        noise = 0.25 + 1.5 * unit(draws(self.keys, _VOLUME, 0, CELLS)) ** 2
        shares = 100 + (self._per_minute[:, None] * shape[None, :] * noise).astype(np.int64)
        minutes = (cell != AUCTION) & (cell != NOON) & (cell != RESIDUAL) & (cell != CLOSING)
        shares = np.where(minutes[None, :], shares + 400, shares)
        self.volume: I64 = np.where(self.traded, shares, 0)
        bits = draws(self.keys, _AFTER, 0, LATE_MINUTES)
        trading = [trading_of(s, self.day) for s in self.symbols]
        self.continuous: Bool = np.array([not t.closing_call for t in trading])
        begins = [LATE_FROM if t.continuous_end > 900 else AFTER_HOURS_FROM if t.after_hours else 930 for t in trading]
        on = LATE_FROM + np.arange(LATE_MINUTES)[None, :] >= np.array(begins)[:, None]
        after = np.where(field(bits, 0, 2) == 0, 100 + (self._per_minute[:, None] * unit(bits)).astype(np.int64), 0)
        self.after_hours: I64 = np.where(on & ~self.suspended[:, None], after, 0)
        self.cumulative = np.zeros((len(self.symbols), CELLS + 1), np.int64)
        np.cumsum(self.volume, axis=1, out=self.cumulative[:, 1:])

    # -- bars -----------------------------------------------------------------------------------------------

    def amounts(self) -> I64:
        """Amount per cell in cents, (symbols, 241); computed on first use (2 s for the whole market) and kept."""
        if self._amounts is None:
            self._amounts = minute_amounts(self)
        return self._amounts

    def bars(self) -> dict[str, F64 | I64 | Bool]:
        """The 241 true minute bars: arrays (symbols, 241) open, high, low, close, amount (cents), vol (shares), traded.

        Minutes without a trade repeat the close before them; before the first trade prices are 0.
        """
        pick = [cell for cell in range(CELLS) if cell != NOON]
        out: dict[str, F64 | I64 | Bool] = {}
        amount = self.amounts()
        values = {"open": self.open, "high": self.high, "low": self.low, "close": self.close}
        values.update(vol=self.volume, amount=amount)
        merged = {name: np.insert(array[:, pick], 239, 0, axis=1) for name, array in values.items()}
        noon = 120  # 11:30: the minute and the snapshot after it
        merged["close"][:, noon] = self.close[:, NOON]
        merged["high"][:, noon] = np.maximum(self.high[:, 120], self.high[:, NOON])
        merged["low"][:, noon] = np.minimum(self.low[:, 120], self.low[:, NOON])
        for name, array in (("vol", self.volume), ("amount", amount)):
            merged[name][:, noon] += array[:, NOON]
        merged["close"][:, 239] = self.close[:, RESIDUAL]  # 14:59 never trades
        traded = merged["vol"] > 0
        earlier = np.concatenate([np.zeros((len(self.symbols), 1), np.int64), merged["close"][:, :-1]], axis=1)
        for name in ("open", "high", "low"):
            merged[name] = np.where(traded, merged[name], earlier)
        out.update(merged)
        out["traded"] = traded
        return out

    def opening(self) -> I64:
        """The day's open in cents (0 without a trade)."""
        first = np.argmax(self.traded, axis=1)
        return np.where(self.traded.any(axis=1), self.open[np.arange(len(self.symbols)), first], 0)


def ex_dates(seed: int, symbols: tuple[str, ...], days: list[date]) -> Iterator[tuple[date, tuple[str, ...]]]:
    """Those of the trading *days* (without gaps) on which some of the *symbols* pay a dividend, and which they are."""
    if not days:
        return
    chain, first = _Chain(seed, symbols), day_index(days[0])
    for number, day in enumerate(days):
        due = np.flatnonzero(chain.dividend_due(first + number)).tolist()
        if due:
            yield day, tuple(symbols[i] for i in due)
