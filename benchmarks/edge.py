"""The feed's checks in processor time per tick, beside all that the subscriber does with a tick but the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import fresh, pushes
from benchmarks.report import Figure
from qmt_orchestration.feed.checks import Checks
from qmt_orchestration.feed.edge import Edge, Received
from qmt_orchestration.feed.entries import Entries
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration.stream.producer import Producer

SYMBOLS = 2000
ROWS = 50  # 30 ms of the whole market at real speed


def run(quick: bool) -> list[Figure]:
    """Ordinary ticks in batches as they come live: no doubt, no rejection."""
    batches: list[tuple[int, dict[str, Any]]] = []
    for now, push in pushes(SYMBOLS, 600, 20_000 if quick else 120_000):
        rows = list(push.items())
        batches += [(now, dict(rows[at : at + ROWS])) for at in range(0, len(rows), ROWS)]
    shares = list(universe(SYMBOLS).shares)
    spent = {"compared with before": 0.0, "all checks": 0.0}
    # the comparisons with what is known, and all checks together
    originals: dict[str, tuple[str, Callable[..., Any]]] = {
        "_follows": ("compared with before", Checks._follows),
        "_contradicts": ("compared with before", Checks._contradicts),
        "run": ("all checks", Checks.run),
    }
    for attribute, (name, function) in originals.items():
        setattr(Checks, attribute, _timed(function, spent, name))
    try:
        with fresh() as settings:
            members = Universe(shares, settings.stream_shards)
            edge = Edge(Memory(members, 60.0))
            entries = Entries("benchmark", settings, Producer(None))
            ticks, started = 0, time.process_time()
            for number, (now, push) in enumerate(batches):
                if number == SYMBOLS // ROWS:  # the full snapshot, in which each symbol's limits are looked up
                    ticks, started = 0, time.process_time()
                    spent.update(dict.fromkeys(spent, 0.0))
                outcome = edge.process([Received(now, push)], now)
                entries.of(outcome, members)
                ticks += 0 if outcome.table is None else outcome.table.num_rows
            total = time.process_time() - started
    finally:
        for attribute, (_, function) in originals.items():
            setattr(Checks, attribute, function)
    share = 100 * spent["compared with before"] / total
    return [
        Figure("a tick through the edge into its entry", total / ticks * 1e6, "µs of processor time"),
        Figure("  of it all checks", 100 * spent["all checks"] / total, "%"),
        Figure(
            "  of it the comparison with the tick before, the day and its limits", share, "%", "≤ 10 %", share <= 10
        ),
    ]


def _timed(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **more)
        finally:
            spent[name] += time.process_time() - started

    return call
