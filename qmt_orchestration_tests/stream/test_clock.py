"""The market's clock in Redis: one schedule for every reader, and what becomes of writes in doubt."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import pytest
import redis

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.stream import clock, keys
from qmt_orchestration.stream.clock import ClockPublisher, Schedule, Segment, publish_clock, read_clock

START_MS = to_ms(at(date(2025, 6, 5), 600))


def schedule(speed: float = 10.0) -> Schedule:
    return Schedule((Segment(int(time.time() * 1000) - 1000, START_MS, speed),))


def test_a_new_speed_takes_effect_two_seconds_later(redis_client: Any) -> None:
    publisher = ClockPublisher(redis_client, schedule())
    publisher.keep("held at 10 ×")
    before = read_clock(redis_client)
    assert before.simulated
    assert (before.speed, before.reason) == (10.0, "held at 10 ×")
    assert before.market_ms - START_MS == pytest.approx(10_000, abs=5_000)
    assert publisher.set_speed(2.0, "slower")
    after = read_clock(redis_client)
    assert (after.speed, after.reason) == (10.0, "slower")
    assert after.schedule is not None
    soon = time.time() * 1000 + 1900
    assert before.schedule is not None
    assert after.schedule.market_ms(soon) == before.schedule.market_ms(soon)
    assert after.schedule.at(soon + 200).speed == 2.0


def test_the_clock_stands_still_without_its_supervisor_and_after_a_stop(redis_client: Any) -> None:
    publisher = ClockPublisher(redis_client, schedule())
    publisher.keep("")
    redis_client.hset(keys.CLOCK, "until_ms", int(time.time() * 1000) - 60_000)  # killed a minute ago
    assert read_clock(redis_client).now_ms() == START_MS
    publisher.keep("")
    assert read_clock(redis_client).now_ms() > START_MS
    publisher.stop()
    stopped = read_clock(redis_client)
    assert stopped.market_ms == read_clock(redis_client).now_ms()


def test_a_speed_that_is_written_too_late_is_refused(redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that was stopped between computing and writing would make time jump for those who read meanwhile."""
    publisher = ClockPublisher(redis_client, schedule())
    publisher.keep("")
    monkeypatch.setattr(clock, "_LATEST_MS", -5000)
    assert not publisher.set_speed(2.0, "slower")
    assert publisher.schedule.segments[-1].speed == 10.0
    assert read_clock(redis_client).schedule == publisher.schedule


@pytest.mark.parametrize("written", [True, False])
def test_a_write_without_an_answer_is_settled_by_what_redis_holds(redis_client: Any, written: bool) -> None:
    class LosesAnswers:
        """The connection breaks after (or before) the server has done its work."""

        def __getattr__(self, name: str) -> Any:
            return getattr(redis_client, name)

        def eval(self, *arguments: Any) -> Any:
            if float(arguments[3]) > 0:  # a change of speed
                if written:
                    redis_client.eval(*arguments)
                raise redis.TimeoutError("no answer")
            return redis_client.eval(*arguments)

    publisher = ClockPublisher(LosesAnswers(), schedule())
    publisher.keep("")
    with pytest.raises(redis.TimeoutError):
        publisher.set_speed(2.0, "slower")
    publisher.keep("")
    assert publisher.schedule.segments[-1].speed == (2.0 if written else 10.0)
    assert read_clock(redis_client).schedule == publisher.schedule


@pytest.mark.parametrize(
    "segments", ["[]", "[[1,2,3]]", '[["x",2,3]]', "[[1749088800000,1749088800000,-1]]", "nonsense"]
)
def test_a_schedule_that_cannot_be_read_is_skipped(redis_client: Any, segments: str) -> None:
    redis_client.hset(keys.CLOCK, mapping={"segments": segments, "until_ms": int(time.time() * 1000)})
    assert not read_clock(redis_client).simulated


def test_a_plain_reading_replaces_a_schedule(redis_client: Any) -> None:
    ClockPublisher(redis_client, schedule()).keep("")
    publish_clock(redis_client, START_MS, 0.0)
    assert read_clock(redis_client).now_ms() == START_MS
