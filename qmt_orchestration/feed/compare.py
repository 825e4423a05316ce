"""Two snapshots of one symbol's day, or one by itself: what contradicts what. Pure functions of `feed.memory.Seen`.

`feed.checks` asks the same of whole batches, one array operation each.
"""

from __future__ import annotations

from typing import Final

from qmt_orchestration.feed.memory import Seen, units_of
from qmt_orchestration.market import quality
from qmt_orchestration.market.quality import Reason

PRICE_EPS: Final = 1e-6
LEAP: Final = 1.5
#: Contradictions in which one of the two ticks must be wrong. After a jump both may be right.
EITHER: Final = frozenset(
    {
        Reason.BACKWARD_TIME,
        Reason.BACKWARD_VOLUME,
        Reason.BACKWARD_AMOUNT,
        Reason.BACKWARD_RANGE,
        Reason.PRE_CLOSE_CHANGED,
    }
)
Finding = tuple[Reason, str]


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


def in_lots(seen: Seen, lot: int) -> Seen:
    """*seen* with its units counted in lots of this size."""
    total, guarded = units_of(seen.volume, seen.pvolume, lot)
    return seen._replace(total=total, slack=lot if guarded else 0)


def average_of(now: Seen) -> str:
    """What is expected and found of amount ÷ volume, in words."""
    found = f"{now.amount / now.total:.4f}" if now.total else f"{now.amount} yuan for no volume"
    return f"expected amount / volume within {now.low}…{now.high}, found {found}"
