"""The market's clock, for every process on every host.

Live, the wall clock is the market's clock. A simulated or replayed market publishes its own in Redis
(`keys.CLOCK`); whoever needs "now" asks here, so the same code runs on both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.stream import fields, keys


@dataclass(frozen=True)
class MarketClock:
    """A reading: market time (epoch ms) at a wall time (epoch ms), and market seconds per wall second."""

    market_ms: int
    wall_ms: int
    speed: float
    simulated: bool

    def now_ms(self) -> int:
        """Market time now, epoch ms. A simulated clock runs on for at most 5 wall seconds after its last reading."""
        elapsed = max(time.time() * 1000 - self.wall_ms, 0.0)
        if self.simulated:
            elapsed = min(elapsed, 5000.0)
        return self.market_ms + int(elapsed * self.speed)

    def now(self) -> datetime:
        """Market time now, Asia/Shanghai."""
        return from_ms(self.now_ms())

    def today(self) -> date:
        """The market's date now."""
        return self.now().date()


def read_clock(client: Any) -> MarketClock:
    """The published clock of a simulated market, else the wall clock; one that cannot be read is skipped."""
    published = client.hgetall(keys.CLOCK)
    if published:
        try:
            return MarketClock(
                fields.require_integer(published, "market_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_integer(published, "wall_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_number(published, "speed", 0.0, 1e6),
                True,
            )
        except fields.FieldError as error:
            fields.skip(keys.CLOCK, f"{keys.CLOCK}: {error}")
    wall = int(time.time() * 1000)
    return MarketClock(wall, wall, 1.0, False)


def publish_clock(client: Any, market_ms: int, speed: float) -> None:
    """Called by the process that runs a simulated market, about once a second."""
    mapping = {"market_ms": market_ms, "wall_ms": int(time.time() * 1000), "speed": speed}
    client.hset(keys.CLOCK, mapping=mapping)


def clear_clock(client: Any) -> None:
    """Called by a feed that is live, so that the wall clock is the market's clock again."""
    client.delete(keys.CLOCK)
