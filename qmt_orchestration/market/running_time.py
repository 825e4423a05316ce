"""The running time of a simulated market: trading days without their breaks, so that lunch and nights take no time.

A day runs 09:14-11:31 and 12:59-15:31; the next trading day follows at once.
"""

from __future__ import annotations

from typing import Final

from qmt_orchestration.market.calendar import is_trading_day, next_trading_day
from qmt_orchestration.market.sessions import at, from_ms, to_ms

#: The parts of a day that run, minutes since midnight.
PARTS: Final[tuple[tuple[int, int], ...]] = ((554, 691), (779, 931))
DAY_MS: Final = sum(end - begin for begin, end in PARTS) * 60_000


def running_ms(market_ms: int) -> int:
    """How much of its day's running time has passed at a market time (epoch ms)."""
    of_day = market_ms - to_ms(at(from_ms(market_ms).date(), 0))
    return sum(min(max(of_day - begin * 60_000, 0), (end - begin) * 60_000) for begin, end in PARTS)


def advance(market_ms: int, milliseconds: float) -> int:
    """Market time (epoch ms) after *milliseconds* more of running time; within a break the break ends first.

    Raises ValueError past the last day of the calendar.
    """
    day = from_ms(market_ms).date()
    rest = running_ms(market_ms) + int(milliseconds)
    if not is_trading_day(day):
        day, rest = next_trading_day(day), int(milliseconds)
    while rest >= DAY_MS:
        day, rest = next_trading_day(day), rest - DAY_MS
    midnight = to_ms(at(day, 0))
    for begin, end in PARTS:
        length = (end - begin) * 60_000
        if rest < length:
            return midnight + begin * 60_000 + rest
        rest -= length
    raise AssertionError("rest is smaller than the day")
