"""Which of two contradicting snapshots to believe: the rule for one symbol, tick by tick.

`feed.checks` sends here only the symbols whose ticks do not simply follow each other. A tick that contradicts the
memory, or the day's limits or unit, is **held**: neither published nor rejected. The next one of its symbol decides:

- it agrees with the memory: what was held is rejected, each with its own reason;
- it agrees with what is held: once they are `confirmations` in a row, and more than the accepted ticks that contradict
  them, the memory was wrong. They are accepted, and those accepted ticks are **withdrawn** (published again with
  `TickFlag.WITHDRAWN`). So of two stories the one is believed that leaves fewer ticks out.

Two stories leave no tick out, and are believed after four times `confirmations` (or `confirmations`, where many symbols
hold at once): the counters began again (`feed.counters`), and the unit changed while everything else goes on.

There is no limit of time on a row: a thinly traded symbol has minutes between its snapshots. What no later snapshot
can make right is rejected at once: a price outside the snapshot's own [low, high], a unit that is settled for the day,
the terminal's own limits of the day, and a tick that is merely late (it fits before what is known).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from qmt_orchestration.feed.compare import (
    EITHER,
    Finding,
    average_of,
    beyond,
    contradiction,
    in_lots,
    leaps,
    mismatch,
    outside,
)
from qmt_orchestration.feed.counters import began_again, carry_from, fell, multiples
from qmt_orchestration.feed.memory import RECENT, SETTLED, Carry, Memory, Seen, clock_text, seen_of, units_of
from qmt_orchestration.market.instruments import LOT_CANDIDATES
from qmt_orchestration.market.quality import Reason
from qmt_orchestration.market.schema import TickFlag

log = logging.getLogger("feed.doubts")

LONG: Final = 4 * RECENT  # a quarter of an hour of a busy symbol
MAX_HELD: Final = 20_000  # ticks held of all symbols together: each takes some 3 KB
MANY: Final = 20  # symbols of one story, and a twentieth of the universe: it is the terminal, no single snapshot


class Story(str, Enum):
    """What a held tick would be part of; by `ORDER` what contradicts it was wrong."""

    ORDER = "order"
    UNIT = "unit"  # the day's volume is in another unit
    NEW_UNIT = "new_unit"  # from here on it is, and goes on with what was known
    AGAIN = "again"  # of a unit that is settled: right only if its counters began again
    BACK = "back"  # after they began again, they are what they would have been


#: Stories in which nothing accepted was wrong.
_GOES_ON: Final = (Story.NEW_UNIT, Story.AGAIN, Story.BACK)


@dataclass
class Held:
    """A tick that waits for the next one of its symbol.

    *row*: its columns, if it is published; *record*: its row of the rejected, if not. *fit*: the lot size that its
    amount proves, where the unit is the doubt; 0 = none.
    """

    seen: Seen
    reason: str
    story: Story
    fit: int
    row: dict[str, Any]
    record: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**asdict(self), "seen": list(self.seen)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Held:
        """Inverse of `plain`."""
        return cls(**{**plain, "seen": Seen(*plain["seen"]), "story": Story(plain["story"])})


class Verdict(NamedTuple):
    """Of one tick. *hard*: no later tick can make it right."""

    finding: Finding | None
    story: Story = Story.ORDER
    hard: bool = False
    fit: int = 0


@dataclass
class Released:
    """What the decisions of one call of `Edge.process` set free, beside the rows of its own batch."""

    rows: list[dict[str, Any]] = field(default_factory=list)  #: held ticks that are accepted now
    records: list[dict[str, Any]] = field(default_factory=list)  #: held ticks that are rejected now
    withdrawn: list[tuple[int, Seen]] = field(default_factory=list)  #: accepted ticks that proved wrong


class Doubts:
    """The walk over doubtful symbols. *reject(row, reason, detail)* and *hold_row(row)* belong to the current batch."""

    def __init__(self, memory: Memory, confirmations: int) -> None:
        self.memory, self.confirmations = memory, confirmations
        self.overturned = 0  #: how often later snapshots proved the memory wrong

    def walk(self, i: int, row: int, batch: Batch, released: Released) -> None:
        """Decide about one tick: *row* of *batch*, of symbol *i*."""
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        carry = memory.carry.get(symbol)

        def view(lot: int) -> Seen:
            seen = batch.seen(row, lot)
            return carry(seen, lot) if carry else seen

        now = view(int(memory.lot[i]))
        last = seen_of(memory.last[i]) if memory.accepted[i] else None
        if last and now[:4] == last[:4]:
            memory.baseline[i] = False  # nothing moved: nothing was missed
            batch.reject(row, Reason.DUPLICATE, "the same time and cumulative values came before")
            return
        if carry and last and not self._contradicts(i, last, raw := batch.seen(row, int(memory.lot[i]))):
            found = f"expected about {now.total} units less {carry.pvolume or carry.volume}, found {raw.total}"
            verdict, now = Verdict((Reason.JUMP, found), Story.BACK), raw
        else:
            verdict = self._judge(i, last, now, view, *batch.prices(row))
        if verdict.finding is None:
            if not self._prefers_held(i, now, released):
                self._reject_held(i, released)
            self._accept(i, now, row, batch)
            return
        known = [*memory.recent_of(i), *(held.seen for held in memory.held.get(symbol, ()))]
        if any(now[:4] == seen[:4] for seen in known):
            batch.reject(row, Reason.DUPLICATE, "the same time and cumulative values came before")
            return
        if verdict.hard:
            batch.reject(row, *verdict.finding)
            return
        if verdict.fit:
            now = view(verdict.fit)
        record = batch.record(row, *verdict.finding)
        held = Held(now, verdict.finding[0].value, verdict.story, verdict.fit, batch.row(row), record)
        self._hold(i, held, released)
        batch.hold(row)
        self._decide(i, memory.held[symbol], released)

    def _decide(self, i: int, run: list[Held], released: Released) -> None:
        """Believe what is held, if enough agree."""
        story, enough = run[0].story, self.confirmations
        if len(self.memory.held) + len(self.memory.carry) < max(MANY, len(self.memory.universe.symbols) // MANY):
            enough *= 4
        if self._began_again(i, run):
            if len(run) >= enough:
                self._carry_on(i, released)
        elif story is Story.AGAIN:
            if len(run) > enough:
                released.records.append(run.pop(0).record)
        elif len(run) >= (enough if story is Story.NEW_UNIT else self._needed(i, run)):
            if story in _GOES_ON or len(run) > self._against(i, run):
                self._overturn(i, released)
            elif sum(map(len, self.memory.held.values())) > MAX_HELD:
                self._reject_held(i, released)

    def flush(self, released: Released, symbols: list[str] | None = None) -> None:
        """Decide about everything held without waiting: believed where it outnumbers what it contradicts."""
        for symbol in list(self.memory.held) if symbols is None else symbols:
            run, i = self.memory.held[symbol], self.memory.universe.ids.get(symbol)
            if i is None:
                released.records += [held.record for held in self.memory.held.pop(symbol)]
                continue
            if self._began_again(i, run) and len(run) >= self.confirmations:
                self._carry_on(i, released)
                continue
            if run[0].story in _GOES_ON:
                self._reject_held(i, released)
                continue
            against = self._against(i, run)
            alone = not against and not self.memory.units[i] and len(run) > 1  # nothing else traded today
            spike = (
                against == len(run) and run[0].reason == Reason.BACKWARD_RANGE.value
            )  # the narrower range is the day's
            if 0 < against < len(run) or alone or spike or self._against_multiples(i, run):
                self._overturn(i, released)
            else:
                self._reject_held(i, released)

    # -- one tick ---------------------------------------------------------------------------------------------

    def _judge(
        self, i: int, last: Seen | None, now: Seen, view: Callable[[int], Seen], price: float, opened: float
    ) -> Verdict:
        """What is to be said of *now*; *view*: the same in lots of another size."""
        memory = self.memory
        if now.high > 0 and now.total > 0 and outside(price, opened, now):
            found = f"expected within {now.low}…{now.high}, found {price}"
            return Verdict((Reason.PRICE_OUTSIDE_DAY, found), hard=True)
        finding: Finding | None = None
        story, hard, fit = Story.ORDER, False, 0
        up, down = float(memory.up[i]), float(memory.down[i])
        if beyond(price, now, up, down):
            finding = Reason.BEYOND_LIMITS, f"expected within {down}…{up}, found {now.low}…{now.high}, last {price}"
            hard = bool(memory.certain[i])
        priced, par = bool(memory.universe.priced[i]), float(memory.universe.par[i])
        returns = memory.unit_open[i] and now.total > 0 and not mismatch(now, par)  # the unit of its kind fits again
        if priced and (returns or (not memory.unit_open[i] and mismatch(now, par))):
            finding = finding or (Reason.AMOUNT_CONTRADICTS, average_of(now))
            fits = [lot for lot in LOT_CANDIDATES if not mismatch(view(lot), par)]
            story, fit = Story.UNIT, fits[0] if len(fits) == 1 else 0
            # a unit that only the first few ticks of the day showed is soon another one
            settled = memory.lot[i] == memory.universe.lot[i] or memory.accepted[i] > 4 * self.confirmations
            if last and settled and memory.units[i] >= SETTLED:
                other = view(fit)._replace(slack=LOT_CANDIDATES[-1])
                if fit and other.total < 2 * last.total and not self._contradicts(i, last, other):
                    story = Story.NEW_UNIT
                elif fell(last, now):
                    story, fit = Story.AGAIN, 0
                else:
                    hard = hard or bool(memory.lot[i] == memory.universe.lot[i])
        if last is not None:
            unsure = story in (Story.UNIT, Story.NEW_UNIT) or memory.unit_open[i]
            known = contradiction(last, now, priced=priced and not unsure, par=par)
            if known and known[0] is Reason.BACKWARD_TIME and not contradiction(now, last, priced=priced, par=par):
                return Verdict(known, story, True, fit)  # late, not wrong
            finding = finding or known
        return Verdict(finding, story, hard, fit)

    def _contradicts(self, i: int, before: Seen, now: Seen) -> bool:
        priced, par = bool(self.memory.universe.priced[i]), float(self.memory.universe.par[i])
        return contradiction(before, now, priced=priced, par=par) is not None

    def _accept(self, i: int, now: Seen, row: int, batch: Batch) -> None:
        memory = self.memory
        flags = TickFlag(0)
        if memory.baseline[i]:
            memory.baseline[i], flags = False, TickFlag.BASELINE
        memory.accept(i, now._replace(flags=int(flags)))
        self._count_unit(i, now)
        batch.accept(row, now, flags | self._carried(i))

    def _carried(self, i: int) -> TickFlag:
        return TickFlag.CARRIED if self.memory.universe.symbols[i] in self.memory.carry else TickFlag(0)

    def _count_unit(self, i: int, now: Seen) -> None:
        memory = self.memory
        if now.total > 0 and not memory.unit_open[i]:
            memory.units[i] = min(memory.units[i] + 1, SETTLED)

    # -- what is held -----------------------------------------------------------------------------------------

    def _hold(self, i: int, held: Held, released: Released) -> None:
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        run = memory.held.get(symbol, [])
        priced = bool(memory.universe.priced[i]) and (held.fit > 0 or held.story is not Story.UNIT)
        if run and (
            (run[-1].story, run[-1].fit) != (held.story, held.fit)
            or contradiction(run[-1].seen, held.seen, priced=priced, par=float(memory.universe.par[i]))
        ):
            self._reject_held(i, released)
            run = []
        memory.held[symbol] = [*run, held]
        memory.doubtful[i] = True

    def _prefers_held(self, i: int, now: Seen, released: Released) -> bool:
        """Believe what is held, if it fits before *now* too and leaves fewer ticks out than the memory does."""
        run = self.memory.held.get(self.memory.universe.symbols[i], [])
        if len(run) < 2 or run[0].story is not Story.ORDER:
            return False
        priced, par = bool(self.memory.universe.priced[i]), float(self.memory.universe.par[i])
        if not 0 < self._against(i, run) < len(run) or contradiction(run[-1].seen, now, priced=priced, par=par):
            return False
        self._overturn(i, released)
        return True

    def _reject_held(self, i: int, released: Released) -> None:
        symbol = self.memory.universe.symbols[i]
        self.memory.doubtful[i] = symbol in self.memory.carry
        released.records += [held.record for held in self.memory.held.pop(symbol, ())]

    def _needed(self, i: int, run: list[Held]) -> int:
        """How many in a row are believed: more where the day speaks against them by more than order.

        Each accepted tick whose amount agreed with the unit speaks for that unit, and each one within the limits
        against a leap beyond them.
        """
        memory, first = self.memory, run[0]
        if first.story is Story.UNIT:
            return self.confirmations * (1 + int(memory.units[i]))
        last = seen_of(memory.last[i])
        if first.reason == Reason.BEYOND_LIMITS.value and last.total > 0 and leaps(last, first.seen):
            return self.confirmations * (1 + min(int(memory.accepted[i]), SETTLED))
        return self.confirmations

    def _against(self, i: int, run: list[Held]) -> int:
        """How many accepted ticks contradict what is held; where more may be than are remembered, LONG."""
        wrong = len(self._wrong(i, run[0], self.memory.recent_of(i)))
        return LONG if wrong == RECENT else wrong

    def _against_multiples(self, i: int, run: list[Held]) -> bool:
        """Whether every accepted tick that contradicts *run* is 10, 100 or 1000 times what fits before it."""
        recent, now = self.memory.recent_of(i), run[0].seen
        wrong = self._wrong(i, run[0], recent)
        before = recent[-len(wrong) - 1] if len(wrong) < len(recent) else None
        return before is not None and before.total > 0 and len(wrong) > 0 and multiples(before, wrong, now)

    def _wrong(self, i: int, first: Held, recent: list[Seen]) -> list[Seen]:
        """The accepted ticks that contradict a row of held ones which begins with *first*, newest first."""
        par = float(self.memory.universe.par[i])
        wrong = []
        for seen in reversed(recent):
            found = contradiction(seen, first.seen, priced=False, par=par)
            other_unit = (
                first.story is Story.UNIT and first.fit and seen.total and mismatch(in_lots(seen, first.fit), par)
            )
            if not other_unit and (found is None or found[0] not in EITHER):
                break
            wrong.append(seen)
        return wrong

    def _began_again(self, i: int, run: list[Held]) -> bool:
        """Whether what is held shows counters that began again, after more accepted ticks than wrong ones come."""
        if run[0].story not in (Story.ORDER, Story.AGAIN):
            return False
        recent = self.memory.recent_of(i)
        wrong = len(self._wrong(i, run[0], recent))
        priced, par = bool(self.memory.universe.priced[i]), float(self.memory.universe.par[i])
        seen = [held.seen for held in run]
        return wrong >= 2 * self.confirmations and began_again(recent, wrong, seen, priced=priced, par=par)

    def _carry_on(self, i: int, released: Released) -> None:
        """The counters began again: accept what is held with what had been counted before."""
        memory, symbol, lot = self.memory, self.memory.universe.symbols[i], int(self.memory.lot[i])
        run = memory.held.pop(symbol)
        price = float(memory.universe.par[i]) or run[0].row["lastPrice"] if memory.universe.priced[i] else 0.0
        step, before = carry_from(seen_of(memory.last[i]), run[0].seen, lot, price), memory.carry.get(symbol, Carry())
        memory.carry[symbol] = Carry(
            before.volume + step.volume,
            before.pvolume + step.pvolume,
            before.amount + step.amount,
            high=max(before.high, step.high),
            low=min(filter(None, (before.low, step.low)), default=0.0),
        )
        memory.baseline[i] = True
        self.overturned += 1
        log.log(
            logging.WARNING if len(memory.carry) <= MANY else logging.DEBUG,
            "%s at %s: %d snapshots in a row show counters that began again; %d units and %.2f yuan are carried on",
            symbol,
            clock_text(run[0].seen.time),
            len(run),
            step.pvolume or step.volume * lot,
            step.amount,
        )
        for held in run:
            self._take(i, held, step(held.seen, lot), released)

    def _overturn(self, i: int, released: Released) -> None:
        """The memory was wrong: accept what is held, withdraw what contradicts it."""
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        run = memory.held.pop(symbol)
        if run[0].story is Story.BACK:
            del memory.carry[symbol]
            memory.baseline[i] = True
        memory.doubtful[i] = symbol in memory.carry
        recent = memory.recent_of(i)
        wrong = [] if run[0].story in _GOES_ON else self._wrong(i, run[0], recent)
        released.withdrawn += [(i, seen) for seen in wrong]
        memory.put_recent(i, recent[: len(recent) - len(wrong)])
        self.overturned += 1
        log.warning(
            "%s at %s: %d snapshots in a row contradict what was known (%s) and are believed; %d accepted ones are "
            "withdrawn%s",
            symbol,
            clock_text(run[-1].seen.time),
            len(run),
            run[0].reason,
            len(wrong),
            "; older ones may be wrong too: rebuild the day from history" if len(wrong) == RECENT else "",
        )
        if wrong:
            memory.units[i] = 0
            memory.unit_open[i] = False
            memory.limits_close[i] = math.nan
            memory.learn_limit(i, run[-1].seen.last_close)
        if run[0].story in (Story.UNIT, Story.NEW_UNIT):
            memory.units[i] = 0
            memory.unit_open[i] = run[0].fit == 0
            memory.lot[i] = run[0].fit or memory.lot[i]
        if any(beyond(h.row["lastPrice"], h.seen, float(memory.up[i]), float(memory.down[i])) for h in run):
            memory.up[i] = memory.down[i] = math.nan  # they proved wrong: none is known for the rest of the day
        if any(seen.flags & TickFlag.BASELINE for seen in wrong):
            memory.baseline[i] = True
        for held in run:
            self._take(i, held, held.seen, released)

    def _take(self, i: int, held: Held, seen: Seen, released: Released) -> None:
        """Accept a held tick, as *seen*."""
        memory, row = self.memory, held.row
        flags = TickFlag.BASELINE if memory.baseline[i] else TickFlag(0)
        memory.baseline[i] = False
        memory.accept(i, seen._replace(flags=int(flags)))
        self._count_unit(i, seen)
        flags |= self._carried(i) | TickFlag(row["flags"]) & ~TickFlag.UNIT_MISMATCH  # judged by what is known now
        if memory.universe.priced[i] and units_of(seen.volume, seen.pvolume, int(memory.lot[i]))[1]:
            flags |= TickFlag.LOTS_GUARD
        if memory.universe.priced[i] and mismatch(seen, float(memory.universe.par[i]), 0.0):
            flags |= TickFlag.UNIT_MISMATCH
        carried = {name: getattr(seen, name) for name in Carry._fields}
        released.rows.append({**row, **carried, "total_volume": seen.total, "flags": int(flags)})


@dataclass(frozen=True)
class Batch:
    """What the walk needs of the batch at hand; the rows are those of `Checks`."""

    seen: Callable[[int, int], Seen]  # row, lot
    prices: Callable[[int], tuple[float, float]]  # last price, open
    row: Callable[[int], dict[str, Any]]
    record: Callable[[int, Reason, str], dict[str, Any]]
    reject: Callable[[int, Reason, str], None]
    hold: Callable[[int], None]
    accept: Callable[[int, Seen, TickFlag], None]
