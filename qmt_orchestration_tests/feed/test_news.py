"""A dead or thin feed is seen by what is new, per market and kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qmt_orchestration.feed.edge import Edge, Received
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.feed.news import News
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration_tests.feed.test_edge import at, tick

SH = [f"{600000 + i}.SH" for i in range(60)]
SZ = [f"{300001 + i}.SZ" for i in range(60)]


class Market:
    """An edge and its news; every 3 s the named symbols have a snapshot."""

    def __init__(self) -> None:
        universe = Universe(sorted([*SH, *SZ]))
        self.edge, self.news = Edge(Memory(universe, 60.0)), News(universe)
        self.now = at("10:00:00")
        self.shares = 100

    def run(self, seconds: int, payload: Any, *, snapshot: bool = False) -> None:
        for _ in range(seconds // 3):
            self.now += 3000
            self.shares += 100
            item = Received(self.now, payload(self), self.now if snapshot else 0)
            outcome = self.edge.process([item], self.now)
            self.news.take(outcome.table, outcome.ids, self.now)
            self.news.judge(self.now)

    def silent(self) -> float:
        return self.news.silent(self.now)[0]


def ticks(*symbols: str) -> Any:
    return lambda market: {s: {**tick(shares=market.shares), "time": market.now - 500} for s in symbols}


def test_a_market_that_flows_is_not_silent() -> None:
    market = Market()
    market.run(120, ticks(*SH, *SZ))
    assert market.silent() < 3
    assert json.loads(market.news.text(market.now))["SH.stock"]["advanced"] == 60


@pytest.mark.parametrize("kind", ["empty", "repeated", "snapshots"])
def test_empty_payloads_repeated_frames_and_snapshots_are_no_news(kind: str) -> None:
    market = Market()
    market.run(60, ticks(*SH, *SZ))
    last = ticks(*SH, *SZ)(market)
    payloads: dict[str, Any] = {"empty": lambda _: {}, "repeated": lambda _: last, "snapshots": ticks(*SH, *SZ)}
    market.run(60, payloads[kind], snapshot=kind == "snapshots")
    assert 40 <= market.silent() <= 60


def test_one_silent_market_among_others_is_named() -> None:
    market = Market()
    market.run(60, ticks(*SH, *SZ))
    market.run(60, ticks(*SZ))
    assert market.news.silent_groups(market.now, 30) == ["SH.stock"]
    assert 40 <= market.silent() <= 60


def test_a_thin_feed_is_silent_although_some_symbols_talk() -> None:
    market = Market()
    market.run(60, ticks(*SH, *SZ))
    market.run(60, ticks(*SH[:20], *SZ))
    assert market.news.silent_groups(market.now, 30) == ["SH.stock"]


def test_the_lunch_break_is_no_silence() -> None:
    market = Market()
    market.now = at("11:29:00")
    market.run(60, ticks(*SH, *SZ))
    market.run(300, lambda _: {})
    assert market.silent() == 0
