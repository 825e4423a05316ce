"""The simulated market under `qmt up`: where it starts, when its clock begins to run, and how fast.

The clock stands still until the services work and the day's instruments are stored, so that the first minute is whole.
Then it runs at the speed given, or at the one that `speed.SpeedControl` finds for this machine.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import redis as redis_package

from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.services.speed import FASTEST, Sample, SpeedControl
from qmt_orchestration.services.state import NEEDED, SystemState, read_state
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import start_ms
from qmt_orchestration.stream import threads
from qmt_orchestration.stream.clock import ClockPublisher, Schedule, Segment, read_clock
from qmt_orchestration.warehouse.client import connect

START_TIME: Final = "09:29:20"  # of the first day: before the first trade, and close to it
_LONGEST_WAIT_SECONDS: Final = 45.0
_ANSWER_SECONDS: Final = 5
_CHANGE: Final = 0.02  # smaller changes of speed are not worth a segment

log = logging.getLogger("agent")


@dataclass(frozen=True)
class Market:
    """Settings of all processes, and of a simulated market its beginning and its speed (None = the machine's)."""

    settings: Settings
    start_ms: int = 0
    speed: float | None = None

    @property
    def is_wall(self) -> bool:
        """Real time on the very day: market time is the wall clock."""
        return self.speed == 1 and from_ms(int(time.time() * 1000)).date() == from_ms(self.start_ms).date()


def market_of(settings: Settings, redis: Any, chosen_date: str | None, speed: float | None) -> Market:
    """Where the simulated market starts: the chosen date, else where an earlier start stopped, else the default."""
    if settings.feed != "simulator":
        return Market(settings)
    own_time = settings.sim_start_time if "sim_start_time" in settings.model_fields_set else START_TIME
    begin = start_ms(calendar.require_trading_day(chosen_date or settings.sim_date), own_time)
    clock = read_clock(redis)
    if chosen_date is None and clock.simulated:
        begin = max(clock.now_ms(), clock.market_ms)
    fastest = FASTEST if speed is None else speed
    update = {
        "sim_date": str(_trading_day(from_ms(begin).date())),
        "sim_start_time": f"{from_ms(begin):%H:%M:%S}",
        "sim_anchor_ms": int(time.time() * 1000),
        "sim_clock_in_redis": True,
        "sim_speed": fastest,
        # of the market's time: at 20 times its speed as much of ours would not fit into Redis
        "stream_retention_seconds": settings.stream_retention_seconds / max(fastest, 1.0),
    }
    return Market(settings.model_copy(update=update), begin, speed)


def _trading_day(day: date) -> date:
    return day if calendar.is_trading_day(day) else calendar.next_trading_day(day)


class Pilot:
    """Call `step` once a second: it reads the state and sets the speed. A thread keeps the clock alive meanwhile, so
    that a ClickHouse that hangs does not stop the market."""

    def __init__(self, market: Market, redis: Any) -> None:
        self._market, self._redis = market, redis
        self._settings = market.settings
        self._clickhouse: Any = None
        self._control = SpeedControl()
        self._reason = "the market waits for its services"
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._running = market.is_wall
        self._begun = time.monotonic()
        self._clock: ClockPublisher | None = None
        if self._settings.feed == "simulator":
            wall = int(time.time() * 1000)
            first = Segment(wall, wall, 1.0) if market.is_wall else Segment(wall, market.start_ms, 0.0)
            self._clock = ClockPublisher(redis, Schedule((first,), skips_breaks=market.speed != 1))
            self._clock.keep(self._reason)
            threads.start("keep-clock", self._keep, self._stop, 1.0)

    def step(self) -> SystemState | None:
        """The state now; None while Redis does not answer."""
        try:
            state = read_state(self._redis, self._warehouse(), self._settings)
            if self._clock is not None:
                self._steer(self._clock, state)
            return state
        except redis_package.RedisError as error:
            log.debug("no state while Redis is away: %s", error)
            return None

    def close(self) -> None:
        """The market stands still from now on."""
        self._stop.set()
        if self._clock is not None:
            try:
                with self._lock:
                    self._clock.stop()
            except redis_package.RedisError as error:
                log.warning(
                    "the market's clock was not stopped (%s): the next start continues some seconds later", error
                )

    def _warehouse(self) -> Any:
        """A client of ClickHouse, None while it cannot be reached (which the state then says)."""
        if self._clickhouse is None:
            try:
                self._clickhouse = connect(self._settings, send_receive_timeout=_ANSWER_SECONDS)
            except Exception as error:  # the driver connects at once, and raises what it likes
                log.debug("ClickHouse is away: %s", error)
        return self._clickhouse

    def _keep(self) -> None:
        with self._lock:
            if self._clock is not None and not self._stop.is_set():
                try:
                    self._clock.keep(self._reason)
                except redis_package.RedisError as error:
                    log.debug("the clock is not kept while Redis is away: %s", error)

    def _steer(self, clock: ClockPublisher, state: SystemState) -> None:
        speed, self._reason = self._decide(state)
        now = clock.schedule.segments[-1].speed
        with self._lock:
            if abs(speed - now) > _CHANGE * now:
                clock.set_speed(speed, self._reason)

    def _decide(self, state: SystemState) -> tuple[float, str]:
        if not self._running:
            waits = self._waits_for(state)
            if waits and time.monotonic() - self._begun < _LONGEST_WAIT_SECONDS:
                reason = f"the market waits for {waits}"
                if reason != self._reason:
                    log.info(reason)
                return 0.0, reason
            log.info("the market runs%s", f", although it waited for {waits}" if waits else "")
            self._running = True
        if self._market.speed is not None:
            return self._market.speed, f"{self._market.speed:g} ×, fixed"
        delay = None if state.delay_p99_s is None and not state.lag_s else max(state.delay_p99_s or 0.0, state.lag_s)
        decision = self._control.decide(time.monotonic(), Sample(delay, state.final_behind_minutes))
        return decision.speed, decision.reason

    def _waits_for(self, state: SystemState) -> str:
        absent = [name for name in NEEDED if state.services.get(name) not in ("running", "standby")]
        if absent:
            return ", ".join(absent)
        if not state.stored:
            return "the first ticks"
        if state.instruments == 0:
            return "the instruments of the day (before_open)"
        return ""
