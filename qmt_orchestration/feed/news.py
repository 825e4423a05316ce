"""Whether the market speaks: judged by news, per market and kind, not by callbacks.

**News** of a symbol is an accepted tick that came as a change: not a snapshot after a subscription, not a tick that
was known already, not an empty payload. A group (market and kind) *flows* while symbols of it have news, and while they
are not less than half of those that usually have some: so a feed that has become thin, or one silent market among
others that talk, shows.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms

#: Minutes of the day in which a whole market is never silent. Not 09:25–09:30 and the closing call from 14:57.
LOUD: Final[tuple[tuple[int, int], ...]] = ((555, 565), (570, 690), (780, 897))
#: A group of fewer symbols may be silent by nature.
LARGE: Final = 20
#: With fewer symbols that usually have news, half of them may be missing by chance.
USUAL: Final = 50
WINDOW_MS: Final = 15_000
MINUTE_MS: Final = 60_000
_NOT_NEWS: Final = np.uint32(TickFlag.SNAPSHOT | TickFlag.WITHDRAWN)


class News:
    """News of the symbols of *universe*; times are the market's clock, epoch ms. *speed*: market seconds per second."""

    def __init__(self, universe: Universe, speed: float = 1.0) -> None:
        self.window_ms = max(WINDOW_MS, int(speed * 1000))
        self._span = (0, 0)
        self._allocate(universe)

    def _allocate(self, universe: Universe) -> None:
        self.universe = universe
        count = len(universe.groups)
        self.at = np.zeros(len(universe.symbols), np.int64)  #: when a symbol last had news
        self.sizes = np.bincount(universe.group, minlength=count)
        self.usual = np.zeros(count)  #: symbols with news in a window while the group flows
        self.flowed_ms = np.zeros(count, np.int64)  #: market time at which each group last flowed
        self.flowed_at = np.full(count, time.monotonic())
        self.recent = np.zeros(count, np.int64)  #: symbols with news in the last minute

    def set_universe(self, universe: Universe) -> None:
        """Use *universe* from now on: a new day."""
        self._allocate(universe)
        self._span = (0, 0)

    def take(self, table: pa.Table | None, ids: npt.NDArray[np.int64], now_ms: int | None) -> None:
        """Accepted ticks (EDGE_SCHEMA) and their symbols' ids."""
        if table is None or now_ms is None:
            return
        flags = table.column("flags").to_numpy()
        self.at[ids[(flags & _NOT_NEWS) == 0]] = now_ms

    def judge(self, now_ms: int) -> None:
        """See which groups flow now. Outside the loud spans of a trading day silence is right."""
        wall, span = time.monotonic(), loud_span(now_ms)
        if span is None or span != self._span:
            self._span = span or (0, 0)
            self.usual.fill(0)
            self.flowed_ms.fill(now_ms)
            self.flowed_at.fill(wall)
        count = len(self.usual)
        group = self.universe.group
        self.recent = np.bincount(group[self.at > now_ms - MINUTE_MS], minlength=count)
        counts = np.bincount(group[self.at > now_ms - self.window_ms], minlength=count)
        flows = (counts > 0) & ((counts >= self.usual / 2) | (self.usual < USUAL))
        self.usual = np.where(flows, np.maximum(counts, self.usual + (counts - self.usual) / 64), self.usual)
        self.flowed_ms[flows], self.flowed_at[flows] = now_ms, wall

    def silent(self, now_ms: int) -> tuple[float, float]:
        """(market seconds, wall seconds) since the large group that is silent longest flowed; small groups count
        together: the market as a whole is never silent."""
        large = self.sizes >= LARGE
        ms = self.flowed_ms[large] if large.any() else self.flowed_ms.max(keepdims=True)
        walls = self.flowed_at[large] if large.any() else self.flowed_at.max(keepdims=True)
        worst = int(np.argmin(ms))
        return (now_ms - int(ms[worst])) / 1000, time.monotonic() - float(walls[worst])

    def silent_groups(self, now_ms: int, seconds: float) -> list[str]:
        """Groups that have not flowed for so many market seconds."""
        flowed = zip(self.universe.groups, self.flowed_ms.tolist(), strict=True)
        return [group for group, ms in flowed if now_ms - ms > seconds * 1000]

    def text(self, now_ms: int) -> str:
        """JSON for the heartbeat: group → symbols, those with news in the last minute, market and wall seconds since
        it flowed."""
        wall = time.monotonic()
        out: dict[str, dict[str, Any]] = {}
        for k, group in enumerate(self.universe.groups):
            out[group] = {
                "symbols": int(self.sizes[k]),
                "advanced": int(self.recent[k]),
                "silent_s": round((now_ms - int(self.flowed_ms[k])) / 1000, 1),
                "wall_s": round(wall - float(self.flowed_at[k]), 1),
            }
        return json.dumps(out)


def loud_span(market_ms: int) -> tuple[int, int] | None:
    """The span of `LOUD` at this market time, None where silence is right. (day number, begin) tells spans apart."""
    moment = from_ms(market_ms)
    minute = moment.hour * 60 + moment.minute
    for begin, end in LOUD:
        if begin <= minute < end and is_trading_day(moment.date()):
            return moment.toordinal(), begin
    return None
