"""The market's speed follows the machine: a model of machines, from far too slow to more than fast enough."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from qmt_orchestration.services.speed import (
    BEHIND_LIMIT_MINUTES,
    DELAY_LIMIT_S,
    FASTEST,
    SLOWEST,
    Sample,
    SpeedControl,
)
from qmt_orchestration.settings import Settings

TICKS_AT_1 = 1600.0  # a second, the whole market


@dataclass
class Machine:
    """*capacity* ticks a second are stored; a minute is final *run_seconds* after its close, one after another. A speed
    takes effect two seconds after it was decided; the delay's percentile covers ten seconds."""

    capacity: float
    run_seconds: float
    backlog: float = 0.0
    market: float = 0.0  # seconds since 09:30
    final: float = 0.0  # minutes
    running_until: float = 0.0
    running_to: float = 0.0
    delays: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    ahead: deque[float] = field(default_factory=lambda: deque([4.0] * 2))
    seed: random.Random = field(default_factory=lambda: random.Random(7))

    def second(self, now: float, speed: float) -> Sample:
        self.ahead.append(speed)
        effective = self.ahead.popleft()
        self.market += effective
        self.backlog = max(self.backlog + effective * TICKS_AT_1 - self.capacity, 0.0)
        self.delays.append(self.backlog / self.capacity + self.seed.uniform(0.1, 0.4))
        if self.running_to and now >= self.running_until:
            self.final, self.running_to = self.running_to, 0.0
        closed = (self.market - 1) // 60
        if not self.running_to and closed > self.final:
            self.running_until, self.running_to = now + self.run_seconds * self.seed.uniform(0.8, 1.3), closed
        return Sample(max(self.delays), self.market / 60 - self.final)

    def bearable(self) -> float:
        """The speed at which neither limit is passed: a run may last a minute less its own start."""
        return min(self.capacity / TICKS_AT_1, 60 * (BEHIND_LIMIT_MINUTES - 1) / (self.run_seconds * 1.3), FASTEST)


@pytest.mark.parametrize("capacity", [3_000, 8_000, 20_000, 100_000])
@pytest.mark.parametrize("run_seconds", [1.0, 4.0, 10.0])
def test_the_bounds_hold_and_the_speed_is_what_the_machine_bears(capacity: float, run_seconds: float) -> None:
    control, machine = SpeedControl(), Machine(capacity, run_seconds)
    sample = Sample(None, 0.0)
    late = behind = 0
    speeds = []
    for now in range(1800):
        before = control.speed
        speed = control.decide(now, sample).speed
        assert SLOWEST <= speed <= min(FASTEST, before * 1.03)
        assert speed >= before * 0.5
        speeds.append(speed)
        sample = machine.second(now, speed)
        if now > 120:
            late += (sample.delay_s or 0) > DELAY_LIMIT_S
            behind += sample.behind_minutes > BEHIND_LIMIT_MINUTES
    assert late <= 16, "in 1 % of the seconds, the first approach included"
    assert behind <= 16
    steady = speeds[300:]
    assert sum(steady) / len(steady) >= 0.6 * machine.bearable()


def test_a_machine_that_becomes_busy_slows_the_market_within_seconds_and_it_recovers() -> None:
    control, machine, sample = SpeedControl(), Machine(40_000, 2.0), Sample(None, 0.0)
    speeds = []
    for now in range(1800):
        machine.capacity = 6_000 if 600 <= now < 700 else 40_000
        speeds.append(control.decide(now, sample).speed)
        sample = machine.second(now, speeds[-1])
    assert min(speeds[600:620]) < 0.6 * speeds[599]
    assert speeds[699] < 5
    assert max(speeds[1500:]) > 0.8 * max(speeds[:600])


def test_the_reason_names_what_holds_the_speed() -> None:
    control = SpeedControl(10.0)
    assert control.decide(0, Sample(0.2, 0.5)).reason == "10 ×, rising"
    assert "held at" in (said := control.decide(1, Sample(0.2, 2.4)).reason)
    assert said.endswith("final bars 2.4 minutes behind")
    assert control.decide(20, Sample(1.7, 0.5)).reason.endswith("ticks visible after 1.7 s")
    for now in range(40, 200, 10):
        said = control.decide(now, Sample(9.0, 0.5)).reason
    assert said == "held at 1.0 ×, the slowest: ticks visible after 9.0 s"
    assert SpeedControl(FASTEST).decide(0, Sample(0.1, 0.1)).reason == "20 ×, the fastest"


def test_without_ticks_the_speed_stays() -> None:
    control = SpeedControl(7.0)
    for now in range(100):
        decision = control.decide(now, Sample(None, 0.0))
    assert decision.speed == 7.0
    assert decision.reason == "7 ×: no ticks to measure"


def test_what_the_writer_waits_by_itself_does_not_hold_the_speed() -> None:
    """Of a small market, whose rows never fill a batch."""
    settings = Settings()
    waits = (settings.feed_gather_ms + settings.writer_gather_ms + settings.writer_few_rows_ms) / 1000
    assert SpeedControl(10.0).decide(0, Sample(waits + 0.1, 0.5)).reason == "10 ×, rising"
