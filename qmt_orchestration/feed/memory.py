"""What the edge remembers: per symbol the last accepted ticks of the day, and how far the market was covered.

Numpy arrays indexed by the universe's ids. A day begins with a tick of it, never with the clock; cumulatives then
start from 0.

**Baseline.** After a coverage gap (`assess_gap`) the first accepted tick of each symbol is only a base: what was traded
before it, unseen, belongs to no minute. A symbol whose snapshot only repeats what is known has missed nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.quality import DAY_MS, SHANGHAI_OFFSET_MS

log = logging.getLogger("feed.memory")

EPOCH: Final = date(1970, 1, 1)
FIRST_START_MINUTE: Final = 571  # a first start of the day up to 09:31:00 has missed no minute

#: Accepted ticks kept per symbol, so that they can be withdrawn when they prove wrong.
RECENT: Final = 64
#: Accepted ticks whose amount and volume agree, after which a symbol's unit is settled for the day.
SETTLED: Final = 3
#: Ticks from which it is judged whether this machine's clock is slow.
LEAD_TICKS: Final = 512


class Seen(NamedTuple):
    """What a snapshot claims: the key of a tick, and what the next one is compared with. *slack*: units of rounding."""

    time: int
    volume: int
    pvolume: int
    amount: float
    total: int
    high: float
    low: float
    last_close: float
    slack: int
    flags: int


#: Columns of `Memory.last` and `Memory.recent`; float64 holds all of them exactly (integers below 2^53).
COLUMNS: Final = Seen._fields
_INTEGERS: Final = frozenset({"time", "volume", "pvolume", "total", "slack", "flags"})
LAST: Final = {name: k for k, name in enumerate(COLUMNS)}


def seen_of(row: npt.NDArray[np.float64]) -> Seen:
    """A row of `Memory.last` or `Memory.recent`."""
    values = row.tolist()
    return Seen(*(int(v) if name in _INTEGERS else v for name, v in zip(COLUMNS, values, strict=True)))


class Carry(NamedTuple):
    """What the terminal's counters had reached when they began again in mid-session (high, low: 0 = they go on)."""

    volume: int = 0
    pvolume: int = 0
    amount: float = 0.0
    high: float = 0.0
    low: float = 0.0

    def __call__(self, seen: Seen, lot: int) -> Seen:
        """*seen* as if the counters had gone on."""
        volume, pvolume = seen.volume + self.volume, seen.pvolume + self.pvolume
        total, guarded = units_of(volume, pvolume, lot)
        return seen._replace(
            volume=volume,
            pvolume=pvolume,
            amount=round(seen.amount + self.amount, 4),
            total=total,
            high=max(seen.high, self.high),
            low=min(seen.low, self.low) if self.low else seen.low,
            slack=lot if guarded else 0,
        )


def units_of(volume: int, pvolume: int, lot: int) -> tuple[int, bool]:
    """`quality.shares_of` for one tick."""
    from_lots = volume * lot
    guarded = abs(from_lots - pvolume) > lot or (pvolume <= volume and pvolume != from_lots)
    return (from_lots if guarded and volume else pvolume), guarded


@dataclass
class DayState:
    """What is known of one symbol's day: accepted ticks (newest last), and whether its next tick is a baseline."""

    recent: list[Seen] = field(default_factory=list)
    baseline: bool = False
    lot: int = 0  # proved lot size, 0 = that of its kind
    units: int = 0


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
        self.held: dict[str, list[Any]] = {}  #: ticks that wait for the next one (`feed.doubts.Held`), by symbol
        self.carry: dict[str, Carry] = {}  #: symbols whose counters began again today
        self.leads: deque[npt.NDArray[np.int64]] = deque(maxlen=16)  #: times of new ticks less our clock, by batch
        self._allocate(universe)

    def _allocate(self, universe: Universe) -> None:
        count = len(universe.symbols)
        self.universe = universe
        self.last = np.zeros((count, len(COLUMNS)))  #: the last accepted tick, columns COLUMNS; time 0 = none yet
        self.recent = np.zeros((count, RECENT, len(COLUMNS)))  #: the last accepted ticks, a ring
        self.accepted = np.zeros(count, np.int64)  #: how many ticks the ring has taken
        self.baseline = np.zeros(count, np.bool_)
        self.lot = universe.lot.copy()
        self.units = np.zeros(count, np.int64)  #: accepted ticks whose amount agreed with the unit, up to SETTLED
        self.unit_open = np.zeros(count, np.bool_)  #: no unit fits this symbol today: mismatches are only flagged
        self.up = np.full(count, np.nan)
        self.down = np.full(count, np.nan)
        self.limits_close = np.full(count, np.nan)  #: previous close from which the limits were taken; NaN = none yet
        #: symbols whose ticks `feed.doubts` decides about one by one
        self.doubtful = np.array([s in self.held or s in self.carry for s in universe.symbols], np.bool_)
        self.certain = np.zeros(count, np.bool_)  #: the limits are the terminal's own, of this day

    def set_universe(self, universe: Universe) -> None:
        """Use *universe* from now on; what is known of symbols that stay is kept, limits are looked up again."""
        before = {s: self.state_of(i) for s, i in self.universe.ids.items() if self.accepted[i] or self.baseline[i]}
        self._allocate(universe)
        self._take(before)

    def state_of(self, i: int, depth: int = RECENT) -> DayState:
        """State of the symbol with id *i*, with its newest *depth* ticks."""
        proved = int(self.lot[i]) if self.lot[i] != self.universe.lot[i] else 0
        return DayState(self.recent_of(i, depth), bool(self.baseline[i]), proved, int(self.units[i]))

    def recent_of(self, i: int, depth: int = RECENT) -> list[Seen]:
        """Accepted ticks of symbol *i*, newest last."""
        newest = int(self.accepted[i])
        count = min(newest, depth, RECENT)
        return [seen_of(self.recent[i, k % RECENT]) for k in range(newest - count, newest)]

    def put_recent(self, i: int, ticks: Sequence[Seen]) -> None:
        """Make *ticks* (newest last) all that is known of symbol *i*'s day."""
        self.accepted[i] = 0
        self.last[i] = 0
        for tick in ticks[-RECENT:]:
            self.accept(i, tick)

    def accept(self, i: int, tick: Seen) -> None:
        """Remember one accepted tick of symbol *i*."""
        self.last[i] = tick
        self.recent[i, self.accepted[i] % RECENT] = tick
        self.accepted[i] += 1

    def accept_all(self, ids: npt.NDArray[np.int64], first: npt.NDArray[np.bool_], rows: Any) -> None:
        """Remember accepted ticks (*rows*: one per tick, COLUMNS), sorted by symbol; *first*: a symbol's first one."""
        if first.all():  # the ordinary batch: a symbol once
            self.last[ids] = rows
            self.recent[ids, self.accepted[ids] % RECENT] = rows
            self.accepted[ids] += 1
            return
        starts = np.flatnonzero(first)
        counts = np.diff(starts, append=len(ids))
        own = ids[starts]
        self.last[own] = rows[starts + counts - 1]
        place = np.arange(len(ids)) - np.repeat(starts, counts) + self.accepted[ids]
        self.recent[ids, place % RECENT] = rows
        self.accepted[own] += counts

    def _take(self, states: Mapping[str, DayState]) -> None:
        for symbol, state in states.items():
            i = self.universe.ids.get(symbol)
            if i is not None:
                self.put_recent(i, state.recent)
                self.baseline[i], self.units[i] = state.baseline, state.units
                self.lot[i] = state.lot or self.universe.lot[i]

    def restore(
        self,
        day: date,
        covered_ms: int,
        states: Mapping[str, DayState],
        held: Mapping[str, list[Any]],
        carry: Mapping[str, Carry],
    ) -> None:
        """Take over what an earlier process knew of *day*."""
        self.day, self.covered_ms = day_number(day), covered_ms
        ids = self.universe.ids
        self.held = {symbol: run for symbol, run in held.items() if symbol in ids}
        self.carry = {symbol: one for symbol, one in carry.items() if symbol in ids}
        self.doubtful[[ids[symbol] for symbol in (*self.held, *self.carry)]] = True
        self._take(states)

    def begin_day(self, day: int) -> None:
        """A new trading day (days since 1970-01-01): cumulatives start from 0, coverage and units are judged again."""
        self.carry = {}
        for array in (self.last, self.accepted, self.baseline, self.units, self.unit_open, self.doubtful):
            array.fill(0)
        self.limits_close.fill(np.nan)
        self.lot[:] = self.universe.lot
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

    def begin_late(self, ids: npt.NDArray[np.int64]) -> None:
        """These symbols have traded already: the first tick of the day of those not seen before is a baseline."""
        self.baseline[ids[self.accepted[ids] == 0]] = True

    def lead_ms(self) -> int:
        """How far this machine's clock is behind the market's, ms, from the newest ticks (`leads`).

        Their median: one symbol with a wrong time does not move it, a slow clock moves all (and is logged, by
        `feed.statistics`).
        """
        leads = np.concatenate(self.leads)[-LEAD_TICKS:]
        if len(leads) < LEAD_TICKS // 8:
            return 0
        return max(0, int(np.median(leads)))

    def learn_limits(self, ids: npt.NDArray[np.int64], last_close: npt.NDArray[np.float64]) -> None:
        """Make sure that the day's price limits of these symbols are known, from this previous close."""
        for row in np.flatnonzero(self.limits_close[ids] != last_close):
            self.learn_limit(int(ids[row]), float(last_close[row]))

    def learn_limit(self, i: int, last_close: float) -> None:
        """The day's limits of symbol *i* from this previous close."""
        if np.isnan(self.limits_close[i]) or (self.limits_close[i] != last_close and last_close > 0):
            symbol, day = self.universe.symbols[i], number_day(self.day)
            self.up[i], self.down[i], self.certain[i] = self.universe.day_limits(symbol, day, last_close)
            self.limits_close[i] = last_close


def clock_text(ms: int) -> str:
    """HH:MM:SS in Shanghai of epoch ms."""
    seconds = (ms + SHANGHAI_OFFSET_MS) % DAY_MS // 1000
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
