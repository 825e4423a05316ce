"""The time of a simulated market, the same in every process.

From the settings alone: at wall time ``sim_anchor_ms`` it is ``sim_start_time`` of ``sim_date``, and market time runs
``sim_speed`` times as fast. At any speed but 1 the lunch break and the night are skipped (`market.running_time`). At
speed 1 it runs like a clock; if besides ``sim_date`` is today (Shanghai), market time is the wall clock itself.

Under `qmt up` the supervisor sets the speed: the clock follows the schedule in Redis (`SimClock.follow`).
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import date
from datetime import time as time_of_day
from typing import Final

import redis

from qmt_orchestration.market.calendar import require_trading_day
from qmt_orchestration.market.running_time import PARTS
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import threads
from qmt_orchestration.stream.clock import Schedule, Segment, read_clock
from qmt_orchestration.stream.connection import connect

_FOLLOW_SECONDS: Final = 0.5
_FIRST_READ_SECONDS: Final = 20.0

log = logging.getLogger(__name__)


class SimClock:
    """Reads market time (epoch ms) off the wall clock. At speed 0 there is no such relation: see `now_ms`."""

    def __init__(self, settings: Settings) -> None:
        self.first_day = require_trading_day(settings.sim_date)
        self.start_ms = start_ms(self.first_day, settings.sim_start_time)
        self.fast = settings.sim_speed == 0
        self.followed = settings.sim_clock_in_redis
        wall = time.time() * 1000
        first = Segment(settings.sim_anchor_ms or int(wall), self.start_ms, settings.sim_speed)
        if settings.sim_speed == 1 and from_ms(int(wall)).date() == self.first_day:
            first = Segment(int(wall), int(wall), 1.0)
        self.schedule = Schedule((first,), skips_breaks=settings.sim_speed != 1)
        self._newest_ms = 0
        if self.followed:
            self._follow(settings)

    @property
    def speed(self) -> float:
        """Market seconds per wall second now; 0 = as fast as it goes, or a followed clock that stands still."""
        return self.schedule.at(time.time() * 1000).speed

    def now_ms(self) -> int:
        """Market time now, epoch ms, never earlier than before; at speed 0 the end of the first day (all of it may be
        asked for)."""
        self._newest_ms = max(self._newest_ms, self.market_ms_of(time.time() * 1000))
        return self._newest_ms

    def market_ms_of(self, wall_ms: float) -> int:
        """Market time at a wall time, both epoch ms."""
        if self.fast:
            return to_ms(at(self.first_day, PARTS[-1][1]))
        try:
            return self.schedule.market_ms(wall_ms)
        except ValueError as error:
            raise ValueError(f"the simulated market ran past the calendar ({error}); set QMT_SIM_DATE back") from error

    def _follow(self, settings: Settings) -> None:
        """Read the schedule in Redis, then again twice a second in a thread. RuntimeError when there is none."""
        client = connect(settings, retries=0)
        first = threading.Event()

        def read() -> None:
            try:
                clock = read_clock(client)
            except redis.RedisError as error:  # nobody can change the speed meanwhile either
                log.debug("no clock while Redis is away: %s", error)
                return
            if clock.schedule is not None:
                self.schedule = clock.schedule
                first.set()

        threads.start("clock", read, threading.Event(), _FOLLOW_SECONDS)
        if not first.wait(_FIRST_READ_SECONDS):
            raise RuntimeError(
                "QMT_SIM_CLOCK_IN_REDIS is set, and no clock is in Redis: `qmt up` sets both; start the market with it"
            )


def start_ms(day: date, text: str) -> int:
    """Epoch ms of the time of day *text* (HH:MM:SS, Shanghai) on *day*."""
    try:
        start = time_of_day.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"QMT_SIM_START_TIME: expected HH:MM:SS, found {text!r}") from error
    return to_ms(at(day, 0)) + (start.hour * 3600 + start.minute * 60 + start.second) * 1000
