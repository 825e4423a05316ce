"""Counters of a symbol that begin again in mid-session: the terminal was restarted and counts from 0, or from less.

Volume or amount (or both) fall, and from there on grow as they should: what was paid for the growth lies within the
day's prices. Nothing accepted was wrong then, so nothing is withdrawn. What had been counted is added to every later
tick (`feed.memory.Carry`), and the first one is a baseline: what was traded around the restart belongs to no minute.
"""

from __future__ import annotations

from collections.abc import Sequence

from qmt_orchestration.feed.compare import mismatch
from qmt_orchestration.feed.memory import Carry, Seen

_FACTORS = (10, 100, 1000)


def fell(before: Seen, now: Seen) -> bool:
    """Whether a counter of *now* is below what it was."""
    slack = max(before.slack, now.slack)
    return before.total > 0 and (now.total < before.total - slack or now.amount < before.amount - 0.5)


def began_again(recent: Sequence[Seen], wrong: int, run: Sequence[Seen], *, priced: bool, par: float) -> bool:
    """Whether the held ticks *run* are of counters that began again after *recent* (accepted ones).

    *wrong*: how many of the newest accepted ones contradict the first of *run*. Not when these rose at once, or are a
    multiple of what fits: then they were wrong, and *run* continues what was before them.
    """
    first, newest, last, oldest = run[0], run[-1], recent[-1], recent[-wrong]
    if not fell(last, first):
        return False
    grown = newest._replace(total=newest.total - first.total, amount=newest.amount - first.amount)
    if min(grown.total, grown.amount) <= 0 or (priced and mismatch(grown, par)):
        return False
    before = recent[-wrong - 1] if wrong < len(recent) else None
    if before is None or before.total == 0:
        faster = (last.total - oldest.total) * (len(run) - 1) > 3 * grown.total * (wrong - 1)
        close = any(_close(last.total, first.total * n) and _close(last.amount, first.amount * n) for n in _FACTORS)
        return not (faster and close)
    at_once = 2 * (oldest.total - before.total) > last.total - before.total
    return not at_once and not multiples(before, recent[-wrong:], first)


def _close(accepted: float, multiple: float) -> bool:
    return multiple / 1.5 < accepted < multiple * 1.02


def multiples(before: Seen, wrong: Sequence[Seen], now: Seen) -> bool:
    """Whether each tick of *wrong* is 10, 100 or 1000 times what fits between *before* and *now*."""
    return all(
        any(
            before.total <= seen.total / factor <= now.total and before.amount <= seen.amount / factor <= now.amount
            for factor in _FACTORS
        )
        for seen in wrong
    )


def carry_from(last: Seen, first: Seen, lot: int, price: float) -> Carry:
    """What to add to *first* and all that follow it, so that they go on from *last*.

    *price*: yuan per unit, 0 where amount ÷ volume is no price. Where only one of volume and amount fell, the growth of
    the other says how far the day has come.
    """
    amount_fell = first.amount < last.amount - 0.5
    reached = last.total
    if price and not amount_fell:
        reached += max(0, int((first.amount - last.amount) / price))
    lots = max(0, -(-(reached - first.total) // lot)) if fell(last, first._replace(amount=last.amount)) else 0
    total, amount = first.total + lots * lot, 0.0
    if amount_fell:
        amount = last.amount + max(0, total - last.total) * price - first.amount
    return Carry(
        volume=lots if first.volume else 0,
        pvolume=0 if first.slack and first.volume else lots * lot,
        amount=round(amount, 4),
        high=last.high if first.high < last.high else 0.0,
        low=last.low if last.low and (first.low > last.low or not first.low) else 0.0,
    )
