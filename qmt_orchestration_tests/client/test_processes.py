"""Clients as real processes, killed and restarted: every bar, in order, never again once acknowledged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmt_orchestration.client import registry
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.client.market import FRAMES, SYMBOLS, minute, publish
from qmt_orchestration_tests.helpers import wait_until

Spawn = Callable[..., "Member"]


class Member:
    """One member process and its file."""

    def __init__(self, settings: Settings, folder: Path, client_id: str, mode: str, group: str) -> None:
        self.path = folder / f"{client_id}.log"
        self._args = [sys.executable, "-m", "qmt_orchestration_tests.client.member", client_id, mode, group]
        self._env = {**os.environ, **settings.environment()}
        self.kills = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([*self._args, str(self.path)], env=self._env, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def lines(self) -> list[tuple[str, str, int, int]]:
        """(h|a, symbol, frame, ns) in the order written; a line cut off by the kill is left out."""
        if not self.path.exists():
            return []
        rows = [line.split() for line in self.path.read_text().splitlines()]
        return [(r[0], r[1], int(r[2]), int(r[3])) for r in rows if len(r) == 4]

    def handled(self) -> set[tuple[str, int]]:
        return {(symbol, frame) for what, symbol, frame, _ in self.lines() if what == "h"}


@pytest.fixture
def spawn(settings: Settings, redis_client: Any, tmp_path: Path) -> Iterator[Spawn]:
    members: list[Member] = []

    def make(client_id: str, mode: str = "broadcast", group: str = "") -> Member:
        members.append(Member(settings, tmp_path, client_id, mode, group))
        return members[-1]

    yield make
    for member in members:
        member.process.kill()
        member.process.wait()


def check(members: list[Member], expected: set[tuple[str, int]], *, frozen: Member | None = None) -> None:
    """The oracle for members that together see *expected*: nothing lost, in order, nothing again after its ack.

    A *frozen* process that wakes up inside its handler finishes that one call, and nobody can stop it: one is allowed.
    """
    woken = {line for line in frozen.lines() if line[0] == "h"} if frozen else set()
    lines = sorted((line for m in members for line in m.lines()), key=lambda line: line[3])
    handled = [(symbol, frame) for what, symbol, frame, _ in lines if what == "h"]
    assert set(handled) == expected, f"lost {len(expected - set(handled))}, invented {len(set(handled) - expected)}"
    repeats = len(handled) - len(expected)
    assert repeats <= sum(m.kills for m in members), f"{repeats} repeats: more than the bars in hand at the kills"
    acknowledged: set[tuple[str, int]] = set()
    last: dict[str, int] = defaultdict(int)
    for what, symbol, frame, when in lines:
        if what == "a":
            acknowledged.add((symbol, frame))
            continue
        if (symbol, frame) in acknowledged and (what, symbol, frame, when) in woken:
            woken = set()
            continue
        assert (symbol, frame) not in acknowledged, f"{symbol} {frame} was handled again after its acknowledgement"
        assert frame >= last[symbol], f"{symbol}: {frame} came after {last[symbol]}"
        last[symbol] = frame


def test_five_broadcast_clients_get_every_bar_though_they_are_killed(redis_client: Any, spawn: Spawn) -> None:
    rng = random.Random(5)
    members = [spawn(f"broadcast_{i}") for i in range(5)]
    expected: set[tuple[str, int]] = set()
    for number, frame in enumerate(FRAMES[:30]):
        publish(redis_client, minute(frame))
        expected |= {(symbol, int(frame.timestamp())) for symbol in SYMBOLS}
        if number in (5, 12, 20):
            victim = rng.choice(members)
            wait_until(victim.handled, 90, "the victim to have begun")
            victim.kill()
            victim.start()
    for member in members:
        wait_until(lambda member=member: member.handled() == expected, 90, f"all bars at {member.path.stem}")
        check([member], expected)
    assert sum(m.kills for m in members) == 3


def test_shards_of_a_killed_member_move_within_ten_seconds(redis_client: Any, spawn: Spawn) -> None:
    members = [spawn(f"shard_{i}", "shard") for i in range(3)]

    def shards() -> dict[str, tuple[str, ...]]:
        return {c.client_id: c.shards for c in registry.list_clients(redis_client) if c.state == "running"}

    wait_until(lambda: sorted(len(s) for s in shards().values()) == [2, 3, 3], 90, "three members share 8 shards")
    expected: set[tuple[str, int]] = set()

    def go_on(first: int, last: int) -> None:
        for frame in FRAMES[first:last]:
            publish(redis_client, minute(frame))
            expected.update((symbol, int(frame.timestamp())) for symbol in SYMBOLS)

    go_on(0, 40)
    wait_until(lambda: len(members[1].lines()) > 20, 90, "the victim to have begun")
    members[1].kill()
    go_on(40, 50)
    wait_until(
        lambda: sorted(len(s) for c, s in shards().items() if c != "shard_1") == [4, 4], 10, "its shards have moved"
    )
    wait_until(lambda: set.union(*(m.handled() for m in members)) == expected, 90, "nothing is lost")
    check(members, expected)

    members[1].start()  # and it may come back
    wait_until(lambda: sorted(len(s) for s in shards().values()) == [2, 3, 3], 90, "shared by three again")
    go_on(50, 60)
    wait_until(lambda: set.union(*(m.handled() for m in members)) == expected, 90, "nothing is lost")
    check(members, expected)


def test_a_member_that_was_frozen_cannot_finish_what_has_moved(redis_client: Any, spawn: Spawn) -> None:
    members = [spawn(f"frozen_{i}", "hybrid", "freezer") for i in range(2)]

    def held(client_id: str) -> int:
        return next((len(c.shards) for c in registry.list_clients(redis_client) if c.client_id == client_id), 0)

    wait_until(lambda: held("frozen_0") == held("frozen_1") == 4, 90, "two members share 8 shards")
    for frame in FRAMES[:60]:
        publish(redis_client, minute(frame))
    wait_until(lambda: len(members[0].lines()) > 20, 90, "the victim to have begun")
    members[0].process.send_signal(signal.SIGSTOP)
    members[0].kills += 1  # what it had in hand may be repeated, once
    wait_until(lambda: held("frozen_1") == 8, 60, "its shards have moved")
    expected = {(symbol, int(frame.timestamp())) for symbol in SYMBOLS for frame in FRAMES[:60]}
    wait_until(lambda: members[0].handled() | members[1].handled() == expected, 90, "nothing is lost")
    members[0].process.send_signal(signal.SIGCONT)
    wait_until(lambda: held("frozen_0") == 4, 90, "the frozen member is one of two again")
    for frame in FRAMES[60:70]:
        publish(redis_client, minute(frame))
    expected |= {(symbol, int(frame.timestamp())) for symbol in SYMBOLS for frame in FRAMES[60:70]}
    wait_until(lambda: members[0].handled() | members[1].handled() == expected, 90, "nothing is lost")
    check(members, expected, frozen=members[0])


def test_hybrid_groups_each_get_everything_and_share_it_inside(redis_client: Any, spawn: Spawn) -> None:
    groups = {name: [spawn(f"{name}_{i}", "hybrid", name) for i in range(2)] for name in ("alpha", "beta")}
    expected: set[tuple[str, int]] = set()
    for frame in FRAMES[:20]:
        publish(redis_client, minute(frame))
        expected |= {(symbol, int(frame.timestamp())) for symbol in SYMBOLS}
    for name, members in groups.items():
        wait_until(
            lambda members=members: set.union(*(m.handled() for m in members)) == expected, 90, f"all bars in {name}"
        )
        check(members, expected)
