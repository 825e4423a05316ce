"""The checks of a batch at the edge: vectorised over all its ticks, exact in the order of each symbol's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qmt_orchestration.feed.memory import Memory, number_day
from qmt_orchestration.market import quality
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.quality import CODE, REASONS, Reason
from qmt_orchestration.market.schema import TickFlag


class Checks:
    """The readable ticks of one call of `feed.edge.Edge.process`, as columns.

    After `run`: *reason* (code of `Reason`, 0 = accepted) and *flags* of each row, *detail* of some.
    """

    def __init__(
        self,
        memory: Memory,
        values: dict[str, Any],
        ids: npt.NDArray[np.int64],
        source: npt.NDArray[np.int64],
        *,
        now_ms: int | None,
        by_first_tick: bool,
        moment_ms: int = 0,
    ) -> None:
        self.memory, self.values, self.ids, self.source = memory, values, ids, source
        self.now, self.by_first_tick, self.moment_ms = now_ms, by_first_tick, moment_ms
        self.gap = self.new_day = False
        self.reason = np.zeros(len(self.ids), np.uint8)
        self.flags = np.zeros(len(self.ids), np.uint32)
        self.detail: dict[int, str] = {}

    def run(self) -> None:
        """Fill `reason` and `flags`, and carry the memory on."""
        values = self.values
        quality.value_reasons(values, self.reason)
        self.shares, self.guarded = quality.shares_of(values["volume"], values["pvolume"])
        self.days = quality.local_day(values["time"])
        if self.now is not None:
            self._mark(values["time"] > self.now + quality.FUTURE_LIMIT_MS, Reason.BAD_TIME)
            self.flags[values["time"] > self.now + quality.SKEW_TOLERANCE_MS] |= np.uint32(TickFlag.CLOCK_SKEW)
        self._check_days()
        mismatch = quality.unit_mismatch(values["amount"], self.shares, values["high"], values["low"], self.guarded)
        self.flags[mismatch] |= np.uint32(TickFlag.UNIT_MISMATCH)
        self.flags[self.guarded] |= np.uint32(TickFlag.LOTS_GUARD)
        self.flags[quality.outside_session(values["time"])] |= np.uint32(TickFlag.OUTSIDE_SESSION)

    def _mark(self, where: npt.NDArray[np.bool_], reason: Reason) -> None:
        self.reason[where & (self.reason == 0)] = CODE[reason]

    def _check_days(self) -> None:
        """Walk through the trading days in the batch (nearly always one), each against its own memory."""
        memory, start, total = self.memory, 0, len(self.ids)
        while start < total:
            ok = self.reason[start:] == 0
            days = self.days[start:]
            later = np.flatnonzero(ok & (days > memory.day))
            stop = start + int(later[0]) if len(later) else total
            if stop > start:
                self._check_stretch(start, stop)
            if stop == total:
                return
            if is_trading_day(number_day(self.days[stop])):
                memory.begin_day(int(self.days[stop]))
                self.new_day = True
                start = stop
            else:
                self.reason[stop] = CODE[Reason.BAD_TIME]
                self.detail[stop] = f"expected a trading day, found {number_day(self.days[stop])}"
                start = stop

    def _check_stretch(self, start: int, stop: int) -> None:
        memory, values = self.memory, self.values
        part = slice(start, stop)
        reason = self.reason[part]
        reason[(reason == 0) & (self.days[part] < memory.day)] = CODE[Reason.OTHER_DAY]
        rows = np.flatnonzero(reason == 0) + start
        if not len(rows):
            return
        times = values["time"][rows]
        if memory.assess:
            if self.moment_ms:
                moment = self.moment_ms
            elif self.by_first_tick:
                moment = int(times[0])
            else:
                moment = int(times[self.source[rows] == self.source[rows[0]]].max())
            self.gap |= memory.assess_gap(moment)
        self._check_sequence(rows)
        memory.covered_ms = max(memory.covered_ms, int(times.max()))
        memory.learn_limits(self.ids[rows], values["lastClose"][rows])
        ids = self.ids[rows]
        outside = quality.outside_limits(values["lastPrice"][rows], memory.up[ids], memory.down[ids])
        self.flags[rows[outside]] |= np.uint32(TickFlag.OUTSIDE_LIMITS)

    def _check_sequence(self, rows: npt.NDArray[np.int64]) -> None:
        """Nothing may fall or repeat within a symbol's day.

        First as if all were good, vectorised over the rows sorted by symbol; the few symbols where that fails are
        walked through one tick at a time, so that one bad tick does not condemn those after it.
        """
        memory, values = self.memory, self.values
        order = rows[np.argsort(self.ids[rows], kind="stable")]
        ids = self.ids[order]
        first = np.ones(len(ids), np.bool_)
        first[1:] = ids[1:] != ids[:-1]
        now = {name: values[name][order] for name in ("time", "pvolume", "amount")}
        now["shares"] = self.shares[order]
        before = {}
        for name, column in now.items():
            shifted = np.empty_like(column)
            shifted[1:] = column[:-1]
            shifted[first] = getattr(memory, name)[ids[first]]
            before[name] = shifted
        slack = np.where(self.guarded[order], quality.LOTS_TOLERANCE_SHARES, 0)
        bad = (
            (now["time"] < before["time"])
            | (now["shares"] < before["shares"] - slack)
            | (now["amount"] < before["amount"] - 0.5)
            | (
                (now["time"] == before["time"])
                & (now["pvolume"] == before["pvolume"])
                & (now["amount"] == before["amount"])
            )
        )
        if bad.any():
            doubtful = np.isin(ids, ids[bad])
            self._walk(order[doubtful])
            order, ids, first = order[~doubtful], ids[~doubtful], first[~doubtful]
            now = {name: column[~doubtful] for name, column in now.items()}
        if not len(order):
            return
        last = np.ones(len(ids), np.bool_)
        last[:-1] = first[1:]
        for name, column in now.items():
            getattr(memory, name)[ids[last]] = column[last]
        needs = first & memory.baseline[ids]
        if needs.any():
            self.flags[order[needs]] |= np.uint32(TickFlag.BASELINE)
            memory.baseline[ids[needs]] = False

    def _walk(self, rows: npt.NDArray[np.int64]) -> None:
        """The exact rule, tick by tick, for *rows* sorted by symbol and then by arrival."""
        memory, values = self.memory, self.values
        for row in rows:
            i = self.ids[row]
            now = (int(values["time"][row]), int(values["pvolume"][row]), float(values["amount"][row]))
            shares = int(self.shares[row])
            before = (int(memory.time[i]), int(memory.pvolume[i]), float(memory.amount[i]))
            slack = quality.LOTS_TOLERANCE_SHARES if self.guarded[row] else 0
            if now == before:
                self._set_aside(row, Reason.DUPLICATE, "the same time, shares and amount came before")
                memory.baseline[i] = False
            elif now[0] < before[0]:
                self._set_aside(row, Reason.BACKWARD_TIME, f"expected at least {before[0]} ms, found {now[0]}")
            elif shares < memory.shares[i] - slack:
                self._set_aside(row, Reason.BACKWARD_VOLUME, f"expected {memory.shares[i]} shares, found {shares}")
            elif now[2] < before[2] - 0.5:
                self._set_aside(row, Reason.BACKWARD_AMOUNT, f"expected at least {before[2]} yuan, found {now[2]}")
            else:
                memory.time[i], memory.pvolume[i], memory.amount[i] = now
                memory.shares[i] = shares
                if memory.baseline[i]:
                    self.flags[row] |= np.uint32(TickFlag.BASELINE)
                    memory.baseline[i] = False

    def _set_aside(self, row: int, reason: Reason, detail: str) -> None:
        self.reason[row] = CODE[reason]
        self.detail[int(row)] = detail

    def why(self, row: int) -> str:
        """What was expected and found of the rejected row *row*."""
        if row in self.detail:
            return self.detail[row]
        reason = REASONS[self.reason[row] - 1]
        if reason is Reason.OTHER_DAY:
            return f"expected {number_day(self.memory.day)}, found {number_day(self.days[row])}"
        found = {name: self.values[name][row].item() for name in ("time", "lastPrice", "volume", "pvolume", "amount")}
        wanted = {
            Reason.NOT_FINITE: "expected finite numbers",
            Reason.NEGATIVE: "expected nothing below 0",
            Reason.ZERO_PRICE: "expected a last price above 0 with volume traded",
            Reason.BAD_TIME: "expected a time of today, not ahead of the market's clock",
        }
        return f"{wanted.get(reason, reason.value)}, found {found}"
