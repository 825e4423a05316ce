"""The cells of a day and the way through one of them: what the plan of a day and its snapshots both build on.

A **cell** is a stretch of a day with its own open, high, low, close and volume: the opening auction, 120 morning
minutes, the snapshot after 11:30, 117 afternoon minutes, the snapshot after 14:57 and the closing auction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qmt_orchestration.simulator.hashing import I64, U64, draws, field

if TYPE_CHECKING:
    from qmt_orchestration.simulator.market import MarketDay

AUCTION, NOON, RESIDUAL, CLOSING, CELLS = 0, 121, 239, 240, 241
NO_LOW: Final = 1 << 40  # "low" of a cell without a trade
SLOTS: Final = 20  # a minute's grid, 3 s each
_TICKS: Final = 100  # purpose numbers of the snapshots' draws: 100 + minute of the day


def minute_bits(day: MarketDay, minute: int) -> U64:
    """The random bits behind a clock minute's snapshots, (symbols, 20)."""
    return draws(day.keys, _TICKS + minute, 0, SLOTS)


def cell_of(minute: int) -> int | None:
    """The cell of a clock minute of continuous trading; None for any other minute."""
    if 570 <= minute < 690:
        return minute - 569
    return minute - 658 if 780 <= minute < 897 else None


def paths(day: MarketDay, cell: int, bits: U64) -> tuple[I64, I64, I64, I64, I64]:
    """Of a minute's cell, each (symbols, 20): price, shares traded since the minute's start, day high, day low, amount.

    Price and volume move only in slots that trade: all of them for a busy symbol, else the four that show open, high,
    low and close.
    """
    k = np.arange(SLOTS, dtype=np.int64)[None, :]
    first, last = day.open[:, cell, None], day.close[:, cell, None]
    high, low, traded = day.high[:, cell, None], day.low[:, cell, None], day.traded[:, cell]
    spot = field(bits[:, 0], 40, 3)
    swap = (field(bits[:, 0], 43, 1) == 1)[:, None]
    early, late = (2 + spot)[:, None], (11 + (spot * 5) % 7)[:, None]
    at_high, at_low = np.where(swap, late, early), np.where(swap, early, late)
    at_high, at_low = (np.where(traded[:, None], x, SLOTS) for x in (at_high, at_low))
    hide_high, hide_low = day.hidden_high[:, cell, None], day.hidden_low[:, cell, None]
    ceiling = np.where(hide_high, np.maximum(first, last), high)
    floor = np.where(hide_low, np.minimum(first, last), low)
    noise = (field(bits, 0, 8) - 128) * (high - low) // 400
    price = np.clip(first + (last - first) * k // (SLOTS - 1) + noise, floor, np.maximum(ceiling, floor))
    price[:, 0], price[:, -1] = first[:, 0], last[:, 0]
    price = np.where((k == at_high) & ~hide_high, high, price)
    price = np.where((k == at_low) & ~hide_low, low, price)
    key_slot = (k == 0) | (k == at_high) | (k == at_low) | (k == SLOTS - 1)
    trades = key_slot | (day.dense & (day.volume[:, cell] >= 4000))[:, None]
    price = np.take_along_axis(price, np.maximum.accumulate(np.where(trades, k, 0), axis=1), axis=1)
    weight = np.cumsum(np.where(trades, 128 + field(bits, 8, 8), 0), axis=1)
    shares = day.volume[:, cell, None] * weight // weight[:, -1:]
    traded_shares = np.diff(shares, axis=1, prepend=0)
    amount = np.cumsum(traded_shares * price, axis=1)
    before = day.day_high[:, cell - 1, None], day.day_low[:, cell - 1, None]
    day_high = np.maximum(np.maximum.accumulate(price, axis=1), np.where(k >= at_high, high, 0))
    day_low = np.minimum(np.minimum.accumulate(price, axis=1), np.where(k >= at_low, low, NO_LOW))
    silent = ~traded[:, None]
    price = np.where(silent, day.close[:, cell - 1, None], price)
    day_high = np.where(silent, before[0], np.maximum(day_high, before[0]))
    day_low = np.where(silent, before[1], np.minimum(day_low, before[1]))
    return price, shares, day_high, day_low, np.where(silent, 0, amount)


def minute_amounts(day: MarketDay) -> I64:
    """Amount in cents of each of the 241 cells: shares times the price of the snapshot that shows them."""
    amounts = day.close * day.volume  # right for the flat cells; the minutes follow
    for minute in (*range(570, 690), *range(780, 897)):
        cell = cell_of(minute)
        assert cell is not None
        amounts[:, cell] = paths(day, cell, minute_bits(day, minute))[4][:, -1]
    return amounts
