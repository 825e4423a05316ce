"""Planted faults: each does what its name says, in its minutes only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.engine import Simulation
from qmt_orchestration.simulator.faults import KINDS, Fault, FaultError, parse_fault
from qmt_orchestration_tests.simulator.oracle import minute_of

DAY = date(2025, 6, 5)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll *condition* until it holds; fail when the time is up."""
    deadline = time.monotonic() + seconds
    waiter = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        waiter.wait(0.02)


def received(*faults: str, start: str = "10:14:00", last_minute: int = 618) -> list[dict[str, dict[str, Any]]]:
    """The pushes of a market of 60 symbols from *start* until a tick of *last_minute*, without the first snapshot."""
    sim = Simulation(Settings(sim_symbols=60, sim_speed=0, sim_start_time=start, sim_faults=faults))
    pushes: list[dict[str, dict[str, Any]]] = []
    assert sim.subscribe(["SH", "SZ", "BJ"], "whole", pushes.append) > 0
    until(lambda: bool(pushes) and sim.source.position_ms > to_ms(at(DAY, last_minute)))
    sim.close()
    assert not sim.failed
    return pushes[1:]


def by_minute(pushes: list[dict[str, dict[str, Any]]]) -> dict[int, list[tuple[str, dict[str, Any]]]]:
    out: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for push in pushes:
        for symbol, tick in push.items():
            out.setdefault(minute_of(tick), []).append((symbol, tick))
    return out


def test_parsing() -> None:
    assert parse_fault("drop-symbols=20@10:15") == Fault("drop-symbols", 20, 615, 616)
    assert parse_fault("silent-feed@10:30-10:32") == Fault("silent-feed", 0, 630, 632)
    assert parse_fault("clock-back@09:31") == Fault("clock-back", KINDS["clock-back"][0], 571, 572)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("drop-symbol=20@10:15", "unknown fault 'drop-symbol'"),
        ("drop-symbols=20", "expected NAME"),
        ("drop-symbols=many@10:15", "expected NAME"),
        ("silent-feed@25:00", "no time of day"),
        ("silent-feed@10:30-10:29", "ends before it begins"),
    ],
)
def test_a_fault_that_cannot_be_read_stops_the_start(text: str, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        Simulation(Settings(sim_symbols=5, sim_faults=(text,)))


def test_unknown_faults_are_answered_with_the_known_ones() -> None:
    with pytest.raises(FaultError) as error:
        parse_fault("no-such@10:00")
    assert all(name in str(error.value) for name in KINDS)


def test_dropped_symbols_are_silent_in_their_minutes_only() -> None:
    minutes = by_minute(received("drop-symbols=20@10:15-10:17"))
    seen = {m: {s for s, _ in minutes[m]} for m in (614, 615, 616, 617)}
    gone = seen[614] - seen[615]
    assert 18 <= len(gone) <= 20
    assert not gone & seen[616]
    assert len(gone & seen[617]) >= 18


def test_spikes_and_falling_volumes_hit_so_many_symbols_once() -> None:
    clean, faulty = by_minute(received()), by_minute(received("price-spike=5@10:15", "volume-back=3@10:16"))
    spiked = [(s, t) for (s, t), (_, c) in zip(faulty[615], clean[615], strict=True) if t["lastPrice"] > c["lastPrice"]]
    assert len({s for s, _ in spiked}) == len(spiked) == 5
    fallen = [(s, t) for (s, t), (_, c) in zip(faulty[616], clean[616], strict=True) if t["pvolume"] < c["pvolume"]]
    assert len({s for s, _ in fallen}) == len(fallen) == 3
    assert faulty[617] == clean[617]


def test_the_feed_falls_silent_and_comes_back() -> None:
    minutes = by_minute(received("silent-feed@10:15"))
    assert 615 not in minutes
    assert minutes[614]
    assert minutes[616]


def test_batches_come_twice() -> None:
    clean, faulty = by_minute(received()), by_minute(received("duplicate-batches@10:15"))
    assert len(faulty[615]) == 2 * len(clean[615])
    assert faulty[614] == clean[614]


def test_time_stamps_jump_back() -> None:
    clean, faulty = received(), received("clock-back=5@10:15")
    shifts = {
        f["time"] - c["time"]
        for push, other in zip(faulty, clean, strict=False)
        for f, c in zip(push.values(), other.values(), strict=True)
    }
    assert shifts == {0, -5000}


def test_late_ticks_arrive_late_but_arrive() -> None:
    clean, faulty = received(), received("late-ticks=30@10:15")
    wanted = [t for push in clean for t in push.values() if minute_of(t) <= 616]
    got = [t for push in faulty for t in push.values() if minute_of(t) <= 616]
    assert sorted((t["time"], t["pvolume"], t["amount"]) for t in got) == sorted(
        (t["time"], t["pvolume"], t["amount"]) for t in wanted
    )
    times = [t["time"] for t in got]
    assert times != sorted(times)


def test_the_connection_breaks_and_a_new_subscription_begins_with_a_snapshot() -> None:
    settings = Settings(sim_symbols=30, sim_speed=0, sim_start_time="10:14:00", sim_faults=("drop-connection@10:15",))
    sim = Simulation(settings)
    line = sim.connect()
    first: list[Any] = []
    assert sim.subscribe(["SH", "SZ", "BJ"], "whole", first.append) > 0
    until(lambda: not sim.alive(line))
    broken_at = sim.source.position_ms
    assert from_ms(broken_at).strftime("%H:%M") == "10:15"
    count = len(first)
    line = sim.connect()
    again: list[Any] = []
    sim.subscribe(["SH", "SZ", "BJ"], "whole", again.append)
    until(lambda: len(again) > 20)
    assert sim.alive(line)
    assert len(again[0]) >= 30
    assert len(first) == count
    sim.close()


def test_subscriptions_fail_while_the_fault_lasts() -> None:
    settings = Settings(sim_symbols=5, sim_speed=1, sim_start_time="10:14:00", sim_faults=("subscribe-fails@10:14",))
    sim = Simulation(settings)
    assert sim.subscribe(["SH", "SZ"], "whole", print) == -1
    assert sim.subscribe(["000001.SZ"], "tick", lambda _: None) > 0
    sim.close()


def test_no_connection_is_made_while_the_line_is_down() -> None:
    down = Settings(sim_symbols=5, sim_speed=1, sim_start_time="10:14:00", sim_faults=("drop-connection@10:14-10:20",))
    assert Simulation(down).connect() is None
    assert Simulation(down.model_copy(update={"sim_start_time": "10:21:00"})).connect() is not None
