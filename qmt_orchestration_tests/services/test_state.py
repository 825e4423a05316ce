"""The state of the system, which `qmt status --json` prints and the live line shows."""

from __future__ import annotations

import json
import re
import time
from datetime import date
from typing import Any

import pytest

from qmt_orchestration.cli.services import state_of
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.services.desired import set_desired
from qmt_orchestration.services.live_line import LiveLine, line
from qmt_orchestration.services.state import NEEDED, SystemState, read_state
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import ClockPublisher, Schedule, Segment
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.helpers import free_port

DAY, LATER = date(2025, 6, 5), date(2025, 6, 6)


def set_time(client: Any, minute: float, speed: float = 0.0) -> None:
    """The market stands at this minute of LATER."""
    market_ms = to_ms(at(LATER, 0)) + int(minute * 60_000)
    schedule = Schedule((Segment(int(time.time() * 1000), market_ms, speed),))
    ClockPublisher(client, schedule).keep("held at 6 ×: final bars 2.4 minutes behind")


def beats(settings: Settings, client: Any, **more: dict[str, Any]) -> None:
    """Everything that is needed runs; *more*: numbers by service."""
    agent: dict[str, Any] = {"services": ",".join(NEEDED)}
    for name in (*NEEDED, "agent"):
        numbers = more.get(name, {}) | (agent | {f"{n}.state": "running" for n in NEEDED} if name == "agent" else {})
        Heartbeat(client, settings, name).beat(numbers)


def final(clickhouse: Any, day: date, minute: int) -> None:
    clickhouse.insert("final_frames", [[day, at(day, minute)]], column_names=["day", "frame"])


@pytest.mark.timeout(120)
def test_the_state_is_that_of_the_markets_own_day(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    """A folder may hold replayed days after the simulated one, and yesterday's last minute is no news this morning."""
    set_time(redis_client, 571)
    redis_client.hset(keys.PUBLISHED, DAY.isoformat(), to_ms(at(DAY, 905)))
    final(clickhouse, DAY, 900)
    final(clickhouse, date(2025, 6, 9), 900)
    beats(settings, redis_client, subscriber={"symbols": 5123, "rate": 1234.4})
    state = read_state(redis_client, clickhouse, settings)
    assert (state.last_published, state.last_final, state.delay_p99_s) == (None, None, None)
    assert state.reasons == ()
    beats(settings, redis_client, publisher={"error": "ResponseError: value is not an integer"})
    assert read_state(redis_client, clickhouse, settings).reasons == (
        "publisher: ResponseError: value is not an integer",
    )
    Heartbeat(redis_client, settings, "publisher").beat({"error": ""})
    redis_client.hset(keys.PUBLISHED, LATER.isoformat(), to_ms(at(LATER, 571)))
    final(clickhouse, LATER, 570)
    numbers = {"stored": 5, "stored_total": 20000, "delay_p50_ms": 80, "delay_p99_ms": 123.4, "lag_seconds": 0.0}
    beats(settings, redis_client, subscriber={"symbols": 5123, "rate": 1234.4}, writer=numbers)
    state = read_state(redis_client, clickhouse, settings)
    assert line(state) == (
        "market 2025-06-06 09:31:00 · held at 6 ×: final bars 2.4 minutes behind · 5,123 symbols · 1,234 ticks/s · "
        "20,000 stored · visible after 0.12 s (p99) · bars published to 09:31 · final to 09:30"
    )
    code, answer = state_of(settings)
    assert code == 0
    answered = json.loads(json.dumps(answer))
    assert answered["market_time"] == "2025-06-06T09:31:00+08:00"
    assert answered["services"]["writer"] == "running"
    wanted = ("last_published", "last_final", "final_behind_minutes", "delay_p50_s", "delay_p99_s", "stored", "speed")
    assert [answered[name] for name in wanted] == ["09:31", "09:30", 1.0, 0.08, 0.123, 20000, 0.0]


def test_what_is_wrong_is_a_reason_and_what_was_left_out_is_none(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    set_time(redis_client, 575)
    final(clickhouse, LATER, 570)
    beats(settings, redis_client, subscriber={"rate": 5.0}, writer={"delay_p99_ms": 2500, "lag_seconds": 9.5})
    state = read_state(redis_client, clickhouse, settings)
    assert state.reasons == (
        "ticks visible after 9.5 s, expected at most 1 s",
        "final bars 5.0 market minutes behind, expected at most 2",
    )
    assert state.exit_code == 1
    Heartbeat(redis_client, settings, "publisher").stop()
    assert "publisher is stopped" in read_state(redis_client, clickhouse, settings).reasons
    set_desired(redis_client, "publisher", "stopped")
    reasons = read_state(redis_client, clickhouse, settings).reasons
    assert not [r for r in reasons if "publisher" in r or "console" in r], "wanted so, and left out by --no-ui"


def test_lunch_is_no_delay_of_the_final_bars(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    final(clickhouse, LATER, 690)
    beats(settings, redis_client, subscriber={"rate": 5.0})
    for minute, behind in ((779, 0.0), (781.5, 1.5), (691, 0.0)):
        set_time(redis_client, minute)
        assert read_state(redis_client, clickhouse, settings).final_behind_minutes == behind


def test_an_absent_engine_is_a_reason_or_unreachable(settings: Settings, redis_client: Any) -> None:
    beats(settings, redis_client)
    code, answer = state_of(settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{free_port()}"}))
    assert code == 1
    assert any("ClickHouse does not answer" in reason for reason in answer["reasons"])
    code, answer = state_of(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"}))
    assert code == 2
    assert re.match("redis://.* does not answer", answer["error"])


def test_the_line_says_what_it_waits_for(settings: Settings) -> None:
    said: list[str] = []
    LiveLine(settings, ui=False, say=said.append).show(None)
    assert any(settings.clickhouse_url in text for text in said)
    assert said[-1] == "waiting for Redis"
    none = {"delay_p50_s": None, "delay_p99_s": None, "lag_s": 0.0, "last_published": None, "last_final": None}
    state = SystemState(
        "2025-06-06T09:29:20+08:00",
        True,
        0.0,
        "the market waits for writer",
        **none,
        **dict.fromkeys(("final_behind_minutes", "symbols", "ticks_per_s", "stored", "instruments"), 0),
        reasons=("writer is absent",),
    )
    assert line(state) == "market 2025-06-06 09:29:20 · the market waits for writer · waiting: writer is absent"
