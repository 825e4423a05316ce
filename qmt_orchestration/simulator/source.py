"""Where the simulator's pushes come from: the simulated market, in the order in which they fall due.

`MarketSource` and `replay.ReplaySource` have the same five methods; `engine.Simulation` drives either.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import date

import numpy as np

from qmt_orchestration.market.calendar import is_trading_day, trading_days
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.faults import Push
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.payload import DictMaker
from qmt_orchestration.simulator.ticks import MINUTES, SLOT_MS, Block, TickMaker, snapshot
from qmt_orchestration.simulator.universe import SimulatedUniverse, universe


class MarketSource:
    """The snapshots of the simulated market from a position on; days are planned when they are reached."""

    def __init__(self, settings: Settings, only: tuple[str, ...] | None = None) -> None:
        self.members: SimulatedUniverse = universe(settings.sim_symbols, settings.sim_kinds)
        self._symbols = self.members.all if only is None else only
        self._seed = settings.sim_seed
        self._planned: tuple[date, MarketDay, TickMaker, DictMaker] | None = None
        self._block: tuple[int, Block] | None = None
        self.position_ms = 0  # every snapshot due up to here has been given

    def seek(self, market_ms: int) -> None:
        """Go to a market time without giving what lies between."""
        self.position_ms = market_ms

    def pushes(self, until_ms: int) -> Iterator[tuple[int, Push]]:
        """Everything due after the position up to *until_ms*: (due time of the last tick, push).

        A symbol's snapshots never share a push: a push holds at most one 3 s slot.
        """
        for day in trading_days(from_ms(self.position_ms).date(), from_ms(until_ms).date()):
            midnight = to_ms(at(day, 0))
            first = bisect_right(MINUTES, (self.position_ms - midnight) // 60_000 - 1)
            for minute in MINUTES[first:]:
                if midnight + minute * 60_000 > until_ms:
                    break
                for begin, end in self._slots(day, minute, until_ms):
                    block = self._minute(day, minute).take(slice(begin, end))
                    self.position_ms = int(block.due[-1])
                    yield self.position_ms, self._plan(day)[3].dicts(block)
        self.position_ms = max(self.position_ms, until_ms)

    def _slots(self, day: date, minute: int, until_ms: int) -> list[tuple[int, int]]:
        due = self._minute(day, minute).due
        begin, end = np.searchsorted(due, [self.position_ms, until_ms], side="right").tolist()
        if begin >= end:
            return []
        cuts = np.flatnonzero(np.diff(due[begin:end] // SLOT_MS)) + begin + 1
        return list(zip([begin, *cuts.tolist()], [*cuts.tolist(), end], strict=True))

    def snapshot(self) -> Push:
        """The last tick of every symbol at the position; suspended ones stale. Empty on a day without trading."""
        day = from_ms(self.position_ms).date()
        if not is_trading_day(day) or not self._symbols:
            return {}
        _, market, _, dicts = self._plan(day)
        # A maker of its own: looking back must not disturb the one that goes forward.
        return dicts.dicts(snapshot(TickMaker(market), self.position_ms))

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will ever come: never, the market has no last day."""
        return False

    def _plan(self, day: date) -> tuple[date, MarketDay, TickMaker, DictMaker]:
        if self._planned is None or self._planned[0] != day:
            self._planned = self._block = None  # lets go of the day before first: a plan takes some 120 MB
            market = MarketDay(self._seed, day, self._symbols)
            self._planned = (day, market, TickMaker(market), DictMaker(market))
        return self._planned

    def _minute(self, day: date, minute: int) -> Block:
        maker = self._plan(day)[2]
        if self._block is None or self._block[0] != minute:
            self._block = (minute, maker.block(minute))
        return self._block[1]
