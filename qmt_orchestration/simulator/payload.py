"""Snapshots as the dicts that xtdata delivers: keys, types and float noise of a real whole-quote push."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.simulator.hashing import draws, field
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.ticks import Block

_BOOK: Final = 2000  # purpose number of the draws
_BOOK_SIZES: Final = 1024
_KEYS: Final = (
    *("time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "pvolume", "stockStatus", "openInt"),
    *("transactionNum", "lastSettlementPrice", "settlementPrice", "askPrice", "bidPrice", "askVol", "bidVol"),
)


def _book_sizes() -> list[list[int]]:
    """Sizes of a side in lots: entry ``6 * n + levels`` is the n-th random side cut to its first *levels* levels."""
    bits = draws(np.arange(_BOOK_SIZES, dtype=np.uint64), _BOOK, 1, 5)
    rows = (field(bits, 0, 11) + 1).tolist()
    return [row[:levels] + [0] * (5 - levels) for row in rows for levels in range(6)]


#: Points per yuan, by their place in the key of `_Levels`.
_SCALES: Final = (100, 200, 1000)


class _Levels(dict[int, list[float]]):
    """Five prices of a side by a key that packs best price (points), scale, side and number of levels; float noise
    included."""

    def __missing__(self, key: int) -> list[float]:
        rest, place = divmod(key, 3)
        points, rest = divmod(rest, 12)
        scale = _SCALES[place]
        count, step = rest % 6, (1 if rest >= 6 else -1) / scale
        prices = [points / scale + step * i for i in range(count)] + [0.0] * (5 - count)
        self[key] = prices
        return prices


_sizes: Final = _book_sizes()
_levels: Final = _Levels()


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection while a push is built: thousands of new dicts without a cycle would be searched in vain."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class DictMaker:
    """Turns snapshots into the dicts of a whole-quote push, with xtdata's documented keys and types.

    Left out are pe, volRatio and speed1Min/speed5Min, which some builds add: with more than 21 keys a dict takes twice
    the memory, and building pushes a quarter more time.
    The lists of the order book are shared between dicts: a receiver must not change them.
    """

    def __init__(self, day: MarketDay) -> None:
        self.day = day
        self.names: npt.NDArray[np.object_] = np.array(day.symbols, dtype=object)
        self.scale_place = np.searchsorted(_SCALES, day.traits.scale)
        self.trade_size = 300 + field(day.keys, 0, 10)

    def dicts(self, block: Block) -> dict[str, dict[str, Any]]:
        """``{symbol: tick}``; the block must not hold a symbol twice."""
        day, row, price = self.day, block.row, block.price
        up, down = day.up[row], day.down[row]
        ask = np.minimum(price + 1, up)
        scale, place, lot = day.traits.scale[row], self.scale_place[row], day.traits.lot[row]
        index = day.traits.index[row]
        ask_levels = np.where(index | (price == 0) | (price >= up), 0, np.minimum(5, up - ask + 1))
        bid_levels = np.where(index | (price == 0) | (price <= down), 0, np.clip(price - down + 1, 0, 5))
        asks = list(map(_levels.__getitem__, ((ask * 12 + 6 + ask_levels) * 3 + place).tolist()))
        bids = list(map(_levels.__getitem__, ((price * 12 + bid_levels) * 3 + place).tolist()))
        ask_sizes = list(map(_sizes.__getitem__, ((block.book & 1023) * 6 + ask_levels).tolist()))
        bid_sizes = list(map(_sizes.__getitem__, ((block.book >> 10 & 1023) * 6 + bid_levels).tolist()))
        trades = np.where(block.volume > 0, block.volume // self.trade_size[row] + 1, 0)
        columns = (
            block.time.tolist(),
            (price / scale).tolist(),
            (block.open / scale).tolist(),
            (block.high / scale).tolist(),
            (block.low / scale).tolist(),
            (day.last_close[row] / scale).tolist(),
            day.traits.yuan(block.amount, block.volume, row).tolist(),
            ((block.volume + lot // 2) // lot).tolist(),
            np.where(index, 0, block.volume).tolist(),
            repeat(3),
            block.phase.tolist(),
            trades.tolist(),
            (day.last_close[row] / scale).tolist(),
            repeat(0.0),
            asks,
            bids,
            ask_sizes,
            bid_sizes,
        )
        with _no_collection():
            return {
                symbol: dict(zip(_KEYS, values, strict=True))
                for symbol, values in zip(self.names[row].tolist(), zip(*columns), strict=True)  # noqa: B905 (repeat)
            }
