"""What the edge remembers: per symbol the last accepted tick of the day, and how far the market was covered.

Numpy arrays indexed by the universe's ids. A day begins with a tick of it, never with the clock; cumulatives then
start from 0.

**Baseline.** After a coverage gap (`assess_gap`) the first accepted tick of each symbol is only a base: what was traded
before it, unseen, belongs to no minute. A symbol whose snapshot only repeats what is known has missed nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.quality import DAY_MS, SHANGHAI_OFFSET_MS

log = logging.getLogger("feed.memory")

EPOCH: Final = date(1970, 1, 1)
FIRST_START_MINUTE: Final = 571  # a first start of the day up to 09:31:00 has missed no minute

#: State of a symbol: time (epoch ms), pvolume, shares, amount (yuan), whether its next tick is a baseline.
State = tuple[int, int, int, float, bool]


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days


def number_day(number: int) -> date:
    """Inverse of `day_number`."""
    return EPOCH + timedelta(days=int(number))


def trading_ms_between(start_ms: int, end_ms: int) -> int:
    """Milliseconds of trading (09:25–11:30, 13:00–15:00 of the first time's day) between two times."""
    midnight = (start_ms + SHANGHAI_OFFSET_MS) // DAY_MS * DAY_MS - SHANGHAI_OFFSET_MS
    total = 0
    for begin, end in ((565, 690), (780, 900)):
        total += max(0, min(end_ms, midnight + end * 60_000) - max(start_ms, midnight + begin * 60_000))
    return total


class Memory:
    """The memory of *universe*. *gap_seconds*: trading time without coverage that makes baselines necessary."""

    def __init__(self, universe: Universe, gap_seconds: float) -> None:
        self.gap_ms = int(gap_seconds * 1000)
        self.day = 0  #: trading day of the market, days since 1970-01-01; 0 = none yet
        self.covered_ms = 0  #: latest market time of the day up to which everything was received
        self.assess = True  #: the next ticks decide whether there was a gap
        self.exempt: npt.NDArray[np.bool_] | None = None  #: symbols that the next gap does not concern
        self._allocate(universe)

    def _allocate(self, universe: Universe) -> None:
        count = len(universe.symbols)
        self.universe = universe
        self.time = np.zeros(count, np.int64)
        self.pvolume = np.zeros(count, np.int64)
        self.shares = np.zeros(count, np.int64)
        self.amount = np.zeros(count, np.float64)
        self.baseline = np.zeros(count, np.bool_)
        self.up = np.full(count, np.nan)
        self.down = np.full(count, np.nan)
        self.limits_day = np.zeros(count, np.int64)

    def set_universe(self, universe: Universe) -> None:
        """Use *universe* from now on; what is known of symbols that stay is kept, limits are looked up anew."""
        before = {s: self.state_of(i) for s, i in self.universe.ids.items() if self.time[i] or self.baseline[i]}
        self._allocate(universe)
        self._take(before)

    def state_of(self, i: int) -> State:
        """State of the symbol with id *i*."""
        numbers = (int(self.time[i]), int(self.pvolume[i]), int(self.shares[i]), float(self.amount[i]))
        return (*numbers, bool(self.baseline[i]))

    def _take(self, states: Mapping[str, State]) -> None:
        for symbol, state in states.items():
            i = self.universe.ids.get(symbol)
            if i is not None:
                self.time[i], self.pvolume[i], self.shares[i], self.amount[i], self.baseline[i] = state

    def restore(self, day: date, covered_ms: int, states: Mapping[str, State]) -> None:
        """Take over what an earlier life knew of *day*."""
        self.day, self.covered_ms = day_number(day), covered_ms
        self._take(states)

    def begin_day(self, day: int) -> None:
        """A new trading day (days since 1970-01-01): cumulatives start from 0 and coverage is judged anew."""
        for array in (self.time, self.pvolume, self.shares, self.amount):
            array.fill(0)
        self.baseline.fill(False)
        self.day, self.covered_ms, self.assess, self.exempt = day, 0, True, None

    def assess_gap(self, moment_ms: int) -> bool:
        """Whether coverage was lost before *moment_ms* (the market's time at the first ticks); then all need baselines.

        Nothing known of the day: a gap if the moment lies after 09:31:00. Else: if more than *gap_seconds* of trading
        passed since the last tick received.
        """
        self.assess = False
        if self.covered_ms:
            gap = trading_ms_between(self.covered_ms, moment_ms) > self.gap_ms
        else:
            gap = (moment_ms + SHANGHAI_OFFSET_MS) % DAY_MS > FIRST_START_MINUTE * 60_000
        if gap:
            self.baseline[:] = True if self.exempt is None else ~self.exempt
            log.warning("coverage gap before %s: the next snapshot of each symbol is a baseline", clock_text(moment_ms))
        self.exempt = None
        return gap

    def learn_limits(self, ids: npt.NDArray[np.int64], last_close: npt.NDArray[np.float64]) -> None:
        """Make sure that the day's price limits of these symbols are known (looked up once per symbol and day)."""
        for row in np.flatnonzero(self.limits_day[ids] != self.day):
            i = ids[row]
            if self.limits_day[i] != self.day:
                symbol, day = self.universe.symbols[i], number_day(self.day)
                self.up[i], self.down[i] = self.universe.day_limits(symbol, day, float(last_close[row]))
                self.limits_day[i] = self.day


def clock_text(ms: int) -> str:
    """HH:MM:SS in Shanghai of epoch ms."""
    seconds = (ms + SHANGHAI_OFFSET_MS) % DAY_MS // 1000
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
