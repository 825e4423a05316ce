"""Silent and flapping services from heartbeats."""

from __future__ import annotations

from typing import Any

from qmt_orchestration.alerts.services import watch

NOW = 1_750_000_000_000


def _beat(service: str, host: str = "h1", **fields: str) -> dict[str, str]:
    return {"service": service, "host": host, "state": "running", **fields}


def _failing(found: Any) -> list[str]:
    return [f.key for f in found if f.failed]


def test_an_expected_service_that_never_beats_is_announced_after_thirty_seconds() -> None:
    memory: dict[str, dict[str, Any]] = {}
    assert _failing(watch(memory, [], {}, ["writer"], NOW)) == []
    assert _failing(watch(memory, [], {}, ["writer"], NOW + 29_000)) == []
    assert _failing(watch(memory, [], {}, ["writer"], NOW + 30_000)) == ["service:writer"]
    assert _failing(watch(memory, [_beat("writer")], {}, ["writer"], NOW + 45_000)) == []


def test_a_service_seen_once_is_missed_when_it_vanishes_and_forgotten_after_a_day() -> None:
    memory: dict[str, dict[str, Any]] = {}
    watch(memory, [_beat("console")], {}, [], NOW)
    assert _failing(watch(memory, [], {}, [], NOW + 60_000)) == ["service:console"]
    watch(memory, [], {}, [], NOW + 90_000_000)
    assert "console" not in memory


def test_what_should_not_run_is_not_missed() -> None:
    memory: dict[str, dict[str, Any]] = {}
    watch(memory, [_beat("writer")], {}, ["writer"], NOW)
    found = watch(memory, [], {"writer": "stopped"}, ["writer"], NOW + 60_000)
    assert _failing(found) == []
    assert [f.key for f in found if not f.failed] == ["service:writer"], "its incident, if any, is over"


def test_a_service_asked_to_stop_cleanly_is_not_missed_unless_expected() -> None:
    memory: dict[str, dict[str, Any]] = {}
    watch(memory, [_beat("console")], {}, [], NOW)
    assert _failing(watch(memory, [_beat("console", state="stopped")], {}, [], NOW + 60_000)) == []
    watch(memory, [_beat("writer")], {}, ["writer"], NOW)
    assert _failing(watch(memory, [_beat("writer", state="stopped")], {}, ["writer"], NOW + 60_000)) == [
        "service:writer"
    ]


def test_three_restarts_in_ten_minutes_flap_and_calm_ends_it() -> None:
    memory: dict[str, dict[str, Any]] = {}

    def look(restarts: int, at: int) -> Any:
        beats = [_beat("agent", services="writer", **{"writer.restarts": str(restarts), "writer.reason": "code 3"})]
        return watch(memory, [*beats, _beat("writer")], {}, [], NOW + at)

    assert _failing(look(7, 0)) == [], "restarts before the first look are history"
    assert _failing(look(9, 60_000)) == []
    found = look(10, 120_000)
    assert _failing(found) == ["flapping:writer#h1"]
    assert "code 3" in next(f.text for f in found if f.failed)
    assert _failing(look(0, 180_000)) == ["flapping:writer#h1"], "a new run of the agent counts from 0"
    assert _failing(look(0, 800_000)) == []
