"""The checks of a batch at the edge: vectorised over all its ticks, exact in the order of each symbol's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.feed.compare import PRICE_EPS, mismatch
from qmt_orchestration.feed.doubts import Batch, Doubts, Released
from qmt_orchestration.feed.memory import COLUMNS, FIRST_START_MINUTE, LAST, SETTLED, Seen, number_day, units_of
from qmt_orchestration.market import quality
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.quality import CODE, REASONS, Reason
from qmt_orchestration.market.schema import TickFlag

#: In `Checks.reason`: neither accepted nor rejected yet, `feed.doubts` holds it.
HELD: Final = 255
_TIME, _TOTAL, _AMOUNT, _HIGH, _LOW, _CLOSE, _SLACK = (
    LAST[name] for name in ("time", "total", "amount", "high", "low", "last_close", "slack")
)
#: Where a column of `Checks.rows` is that of the payload; the others follow from it.
_GIVEN: Final = (
    *((LAST[name], name) for name in ("time", "volume", "pvolume", "amount", "high", "low")),
    (_CLOSE, "lastClose"),
)
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]


class Checks:
    """The readable ticks of one call of `feed.edge.Edge.process`, as columns.

    After `run`: *reason* (code of `Reason`, 0 = accepted, `HELD`) and *flags* of each row, *detail* of some, *carried*:
    rows whose counters are others than they came with, *released*: what became of earlier rows. *row*, *record*: a row
    as columns, and as a row of the rejected.
    """

    def __init__(
        self,
        doubts: Doubts,
        values: dict[str, Any],
        ids: Ids,
        source: Ids,
        *,
        now_ms: int | None,
        by_first_tick: bool,
        ahead_ms: int,
        row: Callable[[int], dict[str, Any]],
        record: Callable[[int, Reason, str], dict[str, Any]],
        moment_ms: int = 0,
    ) -> None:
        self.doubts, self.memory, self.values, self.ids, self.source = doubts, doubts.memory, values, ids, source
        self.now, self.by_first_tick, self.ahead_ms, self.moment_ms = now_ms, by_first_tick, ahead_ms, moment_ms
        self.gap = self.new_day = False
        self.reason = np.zeros(len(self.ids), np.uint8)
        self.flags = np.zeros(len(self.ids), np.uint32)
        self.detail: dict[int, str] = {}
        self.carried: dict[int, Seen] = {}
        self.released = Released()
        self._batch = Batch(self._seen, self._prices, row, record, self._reject, self._hold, self._accept)

    def run(self) -> None:
        """Fill `reason` and `flags`, and carry the memory on."""
        values, universe = self.values, self.memory.universe
        self.rows = np.zeros((len(self.ids), len(COLUMNS)))  #: as `Memory.last` keeps them
        for k, name in _GIVEN:
            self.rows[:, k] = values[name]
        price, opened, times = values["lastPrice"], values["open"], values["time"]
        lot = self.memory.lot[self.ids]
        self.priced = universe.priced[self.ids]
        self.shares, self.guarded = quality.shares_of(values["volume"], values["pvolume"], lot)
        self.rows[:, _TOTAL] = self.shares
        if self.guarded.any():
            self.rows[:, _SLACK] = self.guarded * lot
            self.flags[self.guarded & self.priced] |= np.uint32(TickFlag.LOTS_GUARD)
        self.days = quality.local_day(times)
        least, most = self.rows.min(axis=0), self.rows.max(axis=0)
        volumes = max(most[LAST["volume"]], most[LAST["pvolume"]], most[_TOTAL])
        plain = least.min() >= 0 and opened.min() >= 0 and price.min() > 0 and volumes < quality.MAX_VOLUME
        plain = plain and most.max() < np.inf and opened.max() + price.max() < np.inf
        if not (plain and self._of_a_session(int(least[_TIME]), int(most[_TIME]))):
            self._check_values()
        if self.now is not None:
            self._check_clock(self.now)
        if most[_TIME] < (self.memory.day + 1) * quality.DAY_MS - quality.SHANGHAI_OFFSET_MS:
            self._check_stretch(0, len(self.ids))
        else:
            self._check_days()

    @staticmethod
    def _of_a_session(first_ms: int, last_ms: int) -> bool:
        """Whether both times are of one session, after the opening call's match."""
        if not quality.EARLIEST_MS <= first_ms <= last_ms < quality.LATEST_MS:
            return False
        day, since = divmod(first_ms + quality.SHANGHAI_OFFSET_MS, quality.DAY_MS)
        first, last = since // 60_000, (last_ms + quality.SHANGHAI_OFFSET_MS - day * quality.DAY_MS) // 60_000
        return quality.FIRST_TRADE_MINUTE <= first <= last < 1440 and not quality.is_outside(first, last)

    def _check_values(self) -> None:
        """What a tick shows by itself, one at a time."""
        quality.value_reasons(self.values, self.reason)
        self._mark(self.shares >= quality.MAX_VOLUME, Reason.VOLUME_TOO_LARGE)
        minutes = quality.minute_of_day(self.values["time"])
        self.flags[quality.outside_session(self.values["time"])] |= np.uint32(TickFlag.OUTSIDE_SESSION)
        self._mark((minutes < quality.FIRST_TRADE_MINUTE) & (self.shares > 0) & self.priced, Reason.BAD_TIME)

    def _check_clock(self, now: int) -> None:
        """Nothing comes from the future. A clock of ours that is slow shows in most ticks and is allowed for."""
        times = self.values["time"]
        self.memory.leads.append(times - now)
        newest = int(times.max())
        if newest <= now:
            return
        allowed = now + self.memory.lead_ms()
        self._mark(times > allowed + self.ahead_ms, Reason.BAD_TIME)
        self._mark(self.days > int(quality.local_day(np.array([allowed]))[0]), Reason.BAD_TIME)
        self.flags[times > allowed + quality.SKEW_TOLERANCE_MS] |= np.uint32(TickFlag.CLOCK_SKEW)

    def _mark(self, where: Bools, reason: Reason) -> None:
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
            if self.by_first_tick and self._is_of_the_day_before(stop):
                self._reject(stop, Reason.BAD_TIME, f"expected {number_day(memory.day)}, whose values it goes on with")
                start = stop
            elif is_trading_day(number_day(self.days[stop])):
                self.doubts.flush(self.released)
                memory.begin_day(int(self.days[stop]))
                self.new_day = True
                start = stop
            else:
                self._reject(stop, Reason.BAD_TIME, f"expected a trading day, found {number_day(self.days[stop])}")
                start = stop

    def _is_of_the_day_before(self, row: int) -> bool:
        """Whether a recorded tick goes on with its symbol's values of the day before: its date is wrong."""
        i = self.ids[row]
        now, last = self.rows[row], self.memory.last[i]
        same_close = last[_CLOSE] > 0 and abs(now[_CLOSE] - last[_CLOSE]) < PRICE_EPS
        return bool(same_close and now[_TOTAL] >= last[_TOTAL] > 0 and now[_AMOUNT] >= last[_AMOUNT])

    def _check_stretch(self, start: int, stop: int) -> None:
        memory, values = self.memory, self.values
        part = slice(start, stop)
        reason = self.reason[part]
        if self.days[part].min() < memory.day:
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

    def _check_sequence(self, rows: Ids) -> None:
        """A symbol's ticks follow each other: nothing falls, repeats, jumps or leaves what the day allows.

        First as if all were good, vectorised over the rows sorted by symbol; the few symbols where that fails are
        walked through one tick at a time, so that one bad tick does not condemn those after it.
        """
        memory = self.memory
        order = rows[np.argsort(self.ids[rows], kind="stable")]
        ids = self.ids[order]
        first = np.ones(len(ids), np.bool_)
        first[1:] = ids[1:] != ids[:-1]
        now = self.rows[order]
        before = memory.last[ids]
        if not first.all():
            again = ~first
            before[again] = now[np.flatnonzero(again) - 1]
        if self.by_first_tick:
            minute = quality.minute_of_day(self.values["time"][order])
            memory.begin_late(ids[first & (minute >= FIRST_START_MINUTE) & (now[:, _TOTAL] > 0)])
        memory.learn_limits(ids, now[:, _CLOSE])
        bad = memory.doubtful[ids]
        if not self._follows(order, ids, before, now):
            bad |= self._contradicts(order, ids, before, now)
        if bad.any():
            doubtful = np.isin(ids, ids[bad])
            for row in order[doubtful].tolist():
                i = int(self.ids[row])
                memory.learn_limit(i, float(self.values["lastClose"][row]))
                self.doubts.walk(i, row, self._batch, self.released)
            order, ids, first, now = order[~doubtful], ids[~doubtful], first[~doubtful], now[~doubtful]
        if not len(order):
            return
        needs = first & memory.baseline[ids]
        if needs.any():
            self.flags[order[needs]] |= np.uint32(TickFlag.BASELINE)
            now[needs, LAST["flags"]] = int(TickFlag.BASELINE)
            memory.baseline[ids[needs]] = False
        memory.accept_all(ids, first, now)
        young = memory.units[ids] < SETTLED
        if young.any():
            own = ids[young & (now[:, _TOTAL] > 0) & ~memory.unit_open[ids]]
            memory.units[own] += 1

    def _follows(self, order: Ids, ids: Ids, before: Any, now: Any) -> bool:
        """Whether every tick plainly follows the one before: `_contradicts` would find nothing. In a few operations
        for all, which is what most batches need."""
        if self.memory.universe.has_par:
            return False
        step = now - before
        least, most = step.min(axis=0), step.max(axis=0)
        if least[_TIME] <= 0 or min(least[_TOTAL], least[_AMOUNT], least[_HIGH]) < 0 or most[_LOW] > 0:
            return False
        if least[_CLOSE] < 0 or most[_CLOSE] > 0:
            return False
        high, low, total, amount = now[:, _HIGH], now[:, _LOW], now[:, _TOTAL], now[:, _AMOUNT]
        price, opened = self.values["lastPrice"][order], self.values["open"][order]
        up, down = self.memory.up[ids], self.memory.down[ids]
        inside = np.minimum(np.minimum(price, opened) - low, high - np.maximum(price, opened))
        inside = np.minimum(inside, np.minimum(up - high, low - down))  # NaN: no limits are known
        if not (low.min() > 0 and inside.min() >= 0):
            return False
        worth, slack = amount - low * total, 0.005 * total + 100.0
        if not ((worth + slack).min() >= 0 and (high * total - amount + slack).min() >= 0):
            return False
        units, paid = step[:, _TOTAL], step[:, _AMOUNT]
        slack = quality.AMOUNT_SLACK_YUAN + high + quality.JUMP_SHARE * amount
        return bool((paid - low * units + slack).min() >= 0 and (high * units - paid + slack).min() >= 0)

    def _contradicts(self, order: Ids, ids: Ids, before: Any, now: Any) -> Bools:
        """Where a tick needs the walk; the same conditions as in `feed.doubts`, one array operation each."""
        memory, universe = self.memory, self.memory.universe
        price, opened = self.values["lastPrice"][order], self.values["open"][order]
        time, total, amount, high, low = (now[:, k] for k in (_TIME, _TOTAL, _AMOUNT, _HIGH, _LOW))
        low_before, traded = before[:, _LOW], before[:, _TOTAL] > 0
        bad = time < before[:, _TIME]
        bad |= total < before[:, _TOTAL] - np.maximum(now[:, _SLACK], before[:, _SLACK])
        bad |= amount < before[:, _AMOUNT] - 0.5
        bad |= (now[:, :4] == before[:, :4]).all(axis=1)  # a duplicate
        bad |= traded & (high < before[:, _HIGH] - PRICE_EPS)
        bad |= traded & (low_before > 0) & ((low > low_before + PRICE_EPS) | (low == 0))
        close, close_before = now[:, _CLOSE], before[:, _CLOSE]
        bad |= traded & (np.abs(close - close_before) > PRICE_EPS) & (np.minimum(close, close_before) > 0)
        smallest = np.minimum(price, np.where(opened > 0, opened, price))
        largest = np.maximum(price, opened)
        bad |= (high > 0) & (total > 0) & ((largest > high + PRICE_EPS) | (smallest < low - PRICE_EPS) | (low == 0))
        up, down = memory.up[ids], memory.down[ids]
        lowest = np.where((low > 0) & (total > 0), low, np.inf)
        lowest = np.minimum(lowest, np.where(price > 0, price, np.inf))
        highest = np.where(total > 0, np.maximum(price, high), price)
        excluded = (highest > up + PRICE_EPS) | (lowest < down - PRICE_EPS)
        bad |= excluded
        if universe.has_par:
            par = universe.par[ids]
            low, high = np.where(par > 0, par, low), np.where(par > 0, par, high)
        unit = quality.unit_mismatch(amount, total, high, low, now[:, _SLACK])
        if unit.any():
            self.flags[order[unit & universe.priced[ids]]] |= np.uint32(TickFlag.UNIT_MISMATCH)
            unit &= quality.unit_mismatch(amount, total, high, low, now[:, _SLACK], share=quality.UNIT_SHARE)
        units, paid = total - before[:, _TOTAL], amount - before[:, _AMOUNT]
        slack = (
            quality.AMOUNT_SLACK_YUAN + (before[:, _SLACK] + now[:, _SLACK] + 1) * high + quality.JUMP_SHARE * amount
        )
        jump = traded & (high > 0) & ((paid < low * units - slack) | (paid > high * units + slack))
        contradicts = unit | jump
        if memory.unit_open.any():
            contradicts = np.where(memory.unit_open[ids], ~unit & (total > 0), contradicts)
        bad |= contradicts & universe.priced[ids]
        return np.asarray(bad, np.bool_)

    # -- what the walk asks and decides ----------------------------------------------------------------------

    def _seen(self, row: int, lot: int) -> Seen:
        names = ("time", "volume", "pvolume", "amount", "high", "low", "lastClose")
        time, volume, pvolume, amount, high, low, close = (self.values[name][row].item() for name in names)
        total, guarded = units_of(volume, pvolume, lot)
        return Seen(time, volume, pvolume, amount, total, high, low, close, lot if guarded else 0, 0)

    def _prices(self, row: int) -> tuple[float, float]:
        return float(self.values["lastPrice"][row]), float(self.values["open"][row])

    def _reject(self, row: int, reason: Reason, detail: str) -> None:
        self.reason[row] = CODE[reason]
        self.detail[row] = detail

    def _hold(self, row: int) -> None:
        self.reason[row] = HELD

    def _accept(self, row: int, seen: Seen, flags: TickFlag) -> None:
        self.shares[row], self.guarded[row] = seen.total, seen.slack > 0
        if flags & TickFlag.CARRIED:
            self.flags[row] &= ~np.uint32(TickFlag.UNIT_MISMATCH)  # it was that of the counters as they came
            self.carried[row] = seen
        if self.priced[row] and (self.memory.unit_open[self.ids[row]] or flags & TickFlag.CARRIED):
            flags |= mismatch(seen, float(self.memory.universe.par[self.ids[row]]), 0.0) * TickFlag.UNIT_MISMATCH
        self.flags[row] |= np.uint32(flags)

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
            Reason.VOLUME_TOO_LARGE: f"expected fewer than {quality.MAX_VOLUME} units",
            Reason.BAD_TIME: "expected a time of today, not ahead of the market's clock (QMT_FEED_AHEAD_SECONDS), and "
            "no volume before 09:25",
        }
        return f"{wanted.get(reason, reason.value)}, found {found}"
