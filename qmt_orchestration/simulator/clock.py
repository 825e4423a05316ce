"""The time of a simulated market, the same in every process that has the same settings; nothing is shared.

Market time follows the wall clock from an anchor: at wall time ``sim_anchor_ms`` it is ``sim_start_time`` of
``sim_date``, and it runs ``sim_speed`` times as fast. At any speed but 1 the lunch break and the night are skipped: a
day runs 09:14-11:31 and 12:59-15:31, then the next trading day begins. At speed 1 it runs like a clock; if besides
``sim_date`` is today (Shanghai), market time is the wall clock itself.
"""

from __future__ import annotations

import time
from datetime import datetime
from datetime import time as time_of_day
from typing import Final

from qmt_orchestration.market.calendar import is_trading_day, require_trading_day, trading_days
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings

#: The parts of a day that run when breaks are skipped, minutes since midnight.
SEGMENTS: Final[tuple[tuple[int, int], ...]] = ((554, 691), (779, 931))
DAY_MS: Final = sum(end - begin for begin, end in SEGMENTS) * 60_000


class SimClock:
    """Reads market time (epoch ms) off the wall clock. At speed 0 there is no such relation: see `now_ms`."""

    def __init__(self, settings: Settings) -> None:
        self.speed = settings.sim_speed
        self.first_day = require_trading_day(settings.sim_date)
        try:
            start = time_of_day.fromisoformat(settings.sim_start_time)
        except ValueError as error:
            raise ValueError(f"QMT_SIM_START_TIME: expected HH:MM:SS, found {settings.sim_start_time!r}") from error
        wall = time.time() * 1000
        self.anchor_ms = settings.sim_anchor_ms or int(wall)
        self.start_ms = to_ms(at(self.first_day, 0)) + (start.hour * 3600 + start.minute * 60 + start.second) * 1000
        self.is_wall = self.speed == 1 and from_ms(int(wall)).date() == self.first_day
        self._offset = 0 if self.speed == 1 else _running_ms(self.start_ms)
        if self.speed != 1:
            last = datetime(self.first_day.year + 30, 1, 1, tzinfo=from_ms(0).tzinfo).date()
            self._days = trading_days(self.first_day, last)

    def now_ms(self) -> int:
        """Market time now, epoch ms; at speed 0 always the end of the first day (all of it may be asked for)."""
        return self.market_ms_of(time.time() * 1000)

    def market_ms_of(self, wall_ms: float) -> int:
        """Market time at a wall time, both epoch ms."""
        if self.is_wall:
            return int(wall_ms)
        elapsed = max(0.0, (wall_ms - self.anchor_ms) * self.speed)
        if self.speed == 0:
            return to_ms(at(self.first_day, SEGMENTS[-1][1]))
        if self.speed == 1:
            return self.start_ms + int(elapsed)
        days, rest = divmod(self._offset + int(elapsed), DAY_MS)
        if days >= len(self._days):
            raise ValueError(
                f"the simulated market ran past {self._days[-1]}, the last day of the calendar; set QMT_SIM_DATE back"
            )
        midnight = to_ms(at(self._days[days], 0))
        for begin, end in SEGMENTS:
            length = (end - begin) * 60_000
            if rest < length:
                return midnight + begin * 60_000 + rest
            rest -= length
        raise AssertionError("rest is smaller than the day")

    def wall_ms_of(self, market_ms: int) -> float:
        """The wall time (epoch ms) at which market time reaches *market_ms*; skipped times map to their break's end.

        Raises ValueError at speed 0, where market time has no place on the wall clock.
        """
        if self.is_wall:
            return float(market_ms)
        if self.speed == 0:
            raise ValueError("at QMT_SIM_SPEED=0 market time does not follow the wall clock")
        if self.speed == 1:
            return self.anchor_ms + market_ms - self.start_ms
        day = from_ms(market_ms).date()
        days = len(trading_days(self.first_day, day))
        whole = days - 1 if is_trading_day(day) else days
        running = whole * DAY_MS + (_running_ms(market_ms) if is_trading_day(day) else 0)
        return self.anchor_ms + (running - self._offset) / self.speed


def _running_ms(market_ms: int) -> int:
    """How much of its day's running time has passed at a market time."""
    moment = from_ms(market_ms)
    of_day = market_ms - to_ms(at(moment.date(), 0))
    return sum(min(max(of_day - begin * 60_000, 0), (end - begin) * 60_000) for begin, end in SEGMENTS)
