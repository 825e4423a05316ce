"""Which of two contradicting snapshots to believe: the rule for one symbol, tick by tick.

`feed.checks` sends here only the symbols whose ticks do not simply follow each other. A tick that contradicts the
memory, or the day's limits or unit, is **held**: neither published nor rejected. The next one of its symbol decides:

- it agrees with the memory: what was held is rejected, each with its own reason;
- it agrees with what is held: once they are `confirmations` in a row, and more than the accepted ticks that contradict
  them, the memory was wrong. They are accepted, and those accepted ticks are **withdrawn** (published again with
  `TickFlag.WITHDRAWN`). So of two stories the one is believed that leaves fewer ticks out.

There is no limit of time on a row: a thinly traded symbol has minutes between its snapshots. What no later snapshot
can make right is rejected at once: a price outside the snapshot's own [low, high], a unit that is settled for the day,
the terminal's own limits of the day, and a tick that is merely late (it fits before what is known).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from qmt_orchestration.feed.memory import RECENT, SETTLED, Memory, Seen, clock_text, seen_of
from qmt_orchestration.market import quality
from qmt_orchestration.market.instruments import LOT_CANDIDATES
from qmt_orchestration.market.quality import Reason
from qmt_orchestration.market.schema import TickFlag

log = logging.getLogger("feed.doubts")

PRICE_EPS: Final = 1e-6
LONG: Final = 4 * RECENT  # a quarter of an hour of a busy symbol
LEAP: Final = 1.5
MAX_HELD: Final = 20_000  # ticks held of all symbols together: each takes some 3 KB
#: Contradictions in which one of the two ticks must be wrong. After a jump both may be right.
_EITHER: Final = frozenset(
    {
        Reason.BACKWARD_TIME,
        Reason.BACKWARD_VOLUME,
        Reason.BACKWARD_AMOUNT,
        Reason.BACKWARD_RANGE,
        Reason.PRE_CLOSE_CHANGED,
    }
)
Finding = tuple[Reason, str]


@dataclass
class Held:
    """A tick that waits for the next one of its symbol.

    *row*: its columns, if it is published; *record*: its row of the rejected, if not. *unit*: whether its unit is the
    doubt; *fit*: the lot size that its amount proves, 0 = none.
    """

    seen: Seen
    reason: str
    unit: bool
    fit: int
    row: dict[str, Any]
    record: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**asdict(self), "seen": list(self.seen)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Held:
        """Inverse of `plain`."""
        return cls(**{**plain, "seen": Seen(*plain["seen"])})


@dataclass
class Released:
    """What the decisions of one call of `Edge.process` set free, beside the rows of its own batch."""

    rows: list[dict[str, Any]] = field(default_factory=list)  #: held ticks that are accepted now
    records: list[dict[str, Any]] = field(default_factory=list)  #: held ticks that are rejected now
    withdrawn: list[tuple[int, Seen]] = field(default_factory=list)  #: accepted ticks that proved wrong


def contradiction(before: Seen, now: Seen, *, priced: bool, par: float) -> Finding | None:
    """Why *now* cannot follow *before* within a day; None when it can. *priced*, *par*: see `Instrument`."""
    slack = max(before.slack, now.slack)
    if now.time < before.time:
        return Reason.BACKWARD_TIME, f"expected at least {before.time} ms, found {now.time}"
    if now.total < before.total - slack:
        return Reason.BACKWARD_VOLUME, f"expected at least {before.total} units, found {now.total}"
    if now.amount < before.amount - 0.5:
        return Reason.BACKWARD_AMOUNT, f"expected at least {before.amount} yuan, found {now.amount}"
    fell = now.high < before.high - PRICE_EPS
    # before the first trade, high and low may still be those of the day before
    if before.total > 0 and (fell or (before.low > 0 and (now.low > before.low + PRICE_EPS or now.low == 0))):
        found = f"{now.low}…{now.high}"
        return Reason.BACKWARD_RANGE, f"expected a day's range around {before.low}…{before.high}, found {found}"
    both = min(before.last_close, now.last_close) > 0
    if before.total > 0 and both and abs(now.last_close - before.last_close) > PRICE_EPS:
        return Reason.PRE_CLOSE_CHANGED, f"expected {before.last_close}, found {now.last_close}"
    low, high = (par, par) if par else (now.low, now.high)
    if priced and before.total > 0 and high > 0:
        units, amount = now.total - before.total, now.amount - before.amount
        allowed = quality.AMOUNT_SLACK_YUAN + (before.slack + now.slack + 1) * high + quality.JUMP_SHARE * now.amount
        if amount < low * units - allowed or amount > high * units + allowed:
            return Reason.JUMP, f"expected a price of {low}…{high}, found {amount:.2f} yuan for {units} units"
    return None


def units_of(volume: int, pvolume: int, lot: int) -> tuple[int, bool]:
    """(units, whether the lots guard replaced pvolume); `quality.shares_of` for one tick."""
    from_lots = volume * lot
    guarded = abs(from_lots - pvolume) > lot
    return (from_lots if guarded else pvolume), guarded


class Doubts:
    """The walk over doubtful symbols. *reject(row, reason, detail)* and *hold_row(row)* belong to the current batch."""

    def __init__(self, memory: Memory, confirmations: int) -> None:
        self.memory, self.confirmations = memory, confirmations
        self.overturned = 0  #: how often later snapshots proved the memory wrong

    def walk(self, i: int, row: int, batch: Batch, released: Released) -> None:
        """Decide about one tick: *row* of *batch*, of symbol *i*."""
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        now = batch.seen(row, int(memory.lot[i]))
        last = seen_of(memory.last[i]) if memory.kept[i] else None
        if last and now[:4] == last[:4]:
            memory.baseline[i] = False  # nothing moved: nothing was missed
            batch.reject(row, Reason.DUPLICATE, "the same time and cumulative values came before")
            return
        finding, hard, unit, fit = self._judge(i, last, now, batch, row)
        if finding is None:
            if not self._prefers_held(i, now, released):
                self._reject_held(i, released)
            self._accept(i, now, row, batch)
            return
        known = [*memory.recent_of(i), *(held.seen for held in memory.held.get(symbol, ()))]
        if any(now[:4] == seen[:4] for seen in known):
            batch.reject(row, Reason.DUPLICATE, "the same time and cumulative values came before")
            return
        if hard:
            batch.reject(row, *finding)
            return
        if fit:
            now = batch.seen(row, fit)
        self._hold(i, Held(now, finding[0].value, unit, fit, batch.row(row), batch.record(row, *finding)), released)
        batch.hold(row)
        run = memory.held[symbol]
        if len(run) >= self._needed(i, run) and len(run) > self._against(i, run):
            self._overturn(i, released)
        elif sum(map(len, memory.held.values())) > MAX_HELD:
            self._reject_held(i, released)

    def flush(self, released: Released, symbols: list[str] | None = None) -> None:
        """Decide about everything held without waiting: believed where it outnumbers what it contradicts."""
        for symbol in list(self.memory.held) if symbols is None else symbols:
            run, i = self.memory.held[symbol], self.memory.universe.ids.get(symbol)
            if i is None:
                released.records += [held.record for held in self.memory.held.pop(symbol)]
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
        self, i: int, last: Seen | None, now: Seen, batch: Batch, row: int
    ) -> tuple[Finding | None, bool, bool, int]:
        """(finding, whether it is final, whether the unit is in doubt, the lot size that the amount proves)."""
        memory = self.memory
        price, opened = batch.prices(row)
        if now.high > 0 and now.total > 0 and outside(price, opened, now):
            return (Reason.PRICE_OUTSIDE_DAY, f"expected within {now.low}…{now.high}, found {price}"), True, False, 0
        found: Finding | None = None
        hard = unit = False
        fit = 0
        up, down = float(memory.up[i]), float(memory.down[i])
        if beyond(price, now, up, down):
            found = Reason.BEYOND_LIMITS, f"expected within {down}…{up}, found {now.low}…{now.high}, last {price}"
            hard = bool(memory.certain[i])
        priced, par = bool(memory.universe.priced[i]), float(memory.universe.par[i])
        returns = memory.unit_open[i] and now.total > 0 and not mismatch(now, par)  # the unit of its kind fits again
        if priced and (returns or (not memory.unit_open[i] and mismatch(now, par))):
            unit = True
            found = found or (Reason.AMOUNT_CONTRADICTS, _average(now))
            fits = [lot for lot in LOT_CANDIDATES if not mismatch(batch.seen(row, lot), par)]
            fit = fits[0] if len(fits) == 1 else 0
            hard = hard or bool(memory.units[i] >= SETTLED and memory.lot[i] == memory.universe.lot[i])
        if last is not None:
            known = contradiction(last, now, priced=priced and not unit and not memory.unit_open[i], par=par)
            if known and known[0] is Reason.BACKWARD_TIME and not contradiction(now, last, priced=priced, par=par):
                return known, True, unit, fit  # late, not wrong
            found = found or known
        return found, hard, unit, fit

    def _accept(self, i: int, now: Seen, row: int, batch: Batch) -> None:
        memory = self.memory
        flags = TickFlag(0)
        if memory.baseline[i]:
            memory.baseline[i], flags = False, TickFlag.BASELINE
        memory.accept(i, now._replace(flags=int(flags)))
        self._count_unit(i, now)
        batch.accept(row, now, flags)

    def _count_unit(self, i: int, now: Seen) -> None:
        memory = self.memory
        if now.total > 0 and not memory.unit_open[i]:
            memory.units[i] = min(memory.units[i] + 1, SETTLED)

    # -- what is held -----------------------------------------------------------------------------------------

    def _hold(self, i: int, held: Held, released: Released) -> None:
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        run = memory.held.get(symbol, [])
        priced = bool(memory.universe.priced[i]) and (held.fit > 0 or not held.unit)
        if run and (
            (run[-1].unit, run[-1].fit) != (held.unit, held.fit)
            or contradiction(run[-1].seen, held.seen, priced=priced, par=float(memory.universe.par[i]))
        ):
            self._reject_held(i, released)
            run = []
        memory.held[symbol] = [*run, held]
        memory.doubtful[i] = True

    def _prefers_held(self, i: int, now: Seen, released: Released) -> bool:
        """Believe what is held, if it fits before *now* too and leaves fewer ticks out than the memory does."""
        run = self.memory.held.get(self.memory.universe.symbols[i], [])
        if len(run) < 2 or run[0].unit:
            return False
        priced, par = bool(self.memory.universe.priced[i]), float(self.memory.universe.par[i])
        if not 0 < self._against(i, run) < len(run) or contradiction(run[-1].seen, now, priced=priced, par=par):
            return False
        self._overturn(i, released)
        return True

    def _reject_held(self, i: int, released: Released) -> None:
        self.memory.doubtful[i] = False
        released.records += [held.record for held in self.memory.held.pop(self.memory.universe.symbols[i], ())]

    def _needed(self, i: int, run: list[Held]) -> int:
        """How many in a row are believed: more where the day speaks against them by more than order.

        Each accepted tick whose amount agreed with the unit speaks for that unit, and each one within the limits
        against a leap beyond them.
        """
        memory, first = self.memory, run[0]
        if first.unit:
            return self.confirmations * (1 + int(memory.units[i]))
        last = seen_of(memory.last[i])
        if first.reason == Reason.BEYOND_LIMITS.value and last.total > 0 and leaps(last, first.seen):
            return self.confirmations * (1 + min(int(memory.kept[i]), SETTLED))
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
        return (
            before is not None
            and before.total > 0
            and len(wrong) > 0
            and all(
                any(
                    before.total <= seen.total / factor <= now.total
                    and before.amount <= seen.amount / factor <= now.amount
                    for factor in (10, 100, 1000)
                )
                for seen in wrong
            )
        )

    def _wrong(self, i: int, first: Held, recent: list[Seen]) -> list[Seen]:
        """The accepted ticks that contradict a row of held ones which begins with *first*, newest first."""
        par = float(self.memory.universe.par[i])
        wrong = []
        for seen in reversed(recent):
            found = contradiction(seen, first.seen, priced=False, par=par)
            other_unit = first.unit and first.fit and seen.total and mismatch(_in_lots(seen, first.fit), par)
            if not other_unit and (found is None or found[0] not in _EITHER):
                break
            wrong.append(seen)
        return wrong

    def _overturn(self, i: int, released: Released) -> None:
        """The memory was wrong: accept what is held, withdraw what contradicts it."""
        memory, symbol = self.memory, self.memory.universe.symbols[i]
        run = memory.held.pop(symbol)
        memory.doubtful[i] = False
        recent = memory.recent_of(i)
        wrong = self._wrong(i, run[0], recent)
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
            memory.limits_day[i] = 0
            memory.learn_limit(i, run[-1].seen.last_close)
        if run[0].unit:
            memory.units[i] = 0
            memory.unit_open[i] = run[0].fit == 0
            memory.lot[i] = run[0].fit or memory.lot[i]
        if any(beyond(h.row["lastPrice"], h.seen, float(memory.up[i]), float(memory.down[i])) for h in run):
            memory.up[i] = memory.down[i] = math.nan  # they proved wrong: none is known for the rest of the day
        if any(seen.flags & TickFlag.BASELINE for seen in wrong):
            memory.baseline[i] = True
        for held in run:
            flags = TickFlag.BASELINE if memory.baseline[i] else TickFlag(0)
            memory.baseline[i] = False
            memory.accept(i, held.seen._replace(flags=int(flags)))
            self._count_unit(i, held.seen)
            released.rows.append(self._published(i, held, flags))

    def _published(self, i: int, held: Held, flags: TickFlag) -> dict[str, Any]:
        """The columns of a held tick that is accepted."""
        memory, row, seen = self.memory, dict(held.row), held.seen
        flags |= TickFlag(row["flags"])
        if memory.universe.priced[i] and units_of(seen.volume, seen.pvolume, int(memory.lot[i]))[1]:
            flags |= TickFlag.LOTS_GUARD
        if memory.universe.priced[i] and mismatch(seen, float(memory.universe.par[i]), 0.0):
            flags |= TickFlag.UNIT_MISMATCH
        return {**row, "total_volume": seen.total, "flags": int(flags)}


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


def outside(price: float, opened: float, now: Seen) -> bool:
    """Whether a price lies outside the snapshot's own range of the day."""
    low, high = now.low - PRICE_EPS, now.high + PRICE_EPS
    return now.low == 0 or price > high or price < low or (opened > 0 and (opened > high or opened < low))


def beyond(price: float, now: Seen, up: float, down: float) -> bool:
    """Whether a price, the day's high or its low is one that the limits exclude (NaN = no limit)."""
    prices = [p for p in (price, now.high if now.total else 0.0, now.low if now.total else 0.0) if p > 0]
    return bool(prices) and (max(prices) > up + PRICE_EPS or min(prices) < down - PRICE_EPS)


def leaps(before: Seen, now: Seen) -> bool:
    """Whether the day's range grew, or its previous close changed, by more than half within one snapshot."""
    close = now.last_close / before.last_close if before.last_close else 1.0
    return now.high > LEAP * before.high or LEAP * now.low < before.low or not LEAP >= close >= 1 / LEAP


def mismatch(now: Seen, par: float, share: float = quality.UNIT_SHARE) -> bool:
    """`quality.unit_mismatch` for one tick."""
    low, high = (par, par) if par else (now.low, now.high)
    slack = 100.0 + 0.005 * now.total + now.slack * high + share * high * now.total
    return low > 0 and (now.amount < low * now.total - slack or now.amount > high * now.total + slack)


def _in_lots(seen: Seen, lot: int) -> Seen:
    total, guarded = units_of(seen.volume, seen.pvolume, lot)
    return seen._replace(total=total, slack=lot if guarded else 0)


def _average(now: Seen) -> str:
    average = f"{now.amount / now.total:.4f}" if now.total else f"{now.amount} yuan for no volume"
    return f"expected amount / volume within {now.low}…{now.high}, found {average}"
