"""A terminal's counters that begin again in mid-session, or change their unit: the day goes on with what was known.

What must come out: every tick accepted, what is traded from tick to tick exact, one baseline at the restart, and no
tick after it of score 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from qmt_orchestration.feed import checkpoint
from qmt_orchestration.feed.edge import Checked, Edge, Received
from qmt_orchestration.feed.memory import Memory, number_day
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.feed.test_doubts import KINDS, Change, Tick, day, put, times

NAMES = ("symbol", "time", "total_volume", "amount", "high", "low", "flags", "quality_score")


def again(*names: str, keep: float = 0.0) -> Callable[[Tick], Change]:
    """The counters *names* count from 0 (or from a share of what they were) after the tick given."""

    def after(last: Tick) -> Change:
        taken = {name: type(last[name])(last[name] * (1 - keep)) for name in names}
        return lambda t: {**t, **{name: t[name] - taken[name] for name in names}}

    return after


RESTARTS: dict[str, Callable[[Tick], Change]] = {
    "volume and amount": again("volume", "pvolume", "amount"),
    "volume and amount, to a half": again("volume", "pvolume", "amount", keep=0.5),
    "volume": again("volume", "pvolume"),
    "amount": again("amount"),
    "volume and amount, pvolume 0": lambda last: lambda t: {**again("volume", "amount")(last)(t), "pvolume": 0},
}


def play(edge: Edge, pushes: Sequence[dict[str, Tick]]) -> list[Checked]:
    outcomes = [edge.process([Received(1, push)], None) for push in pushes]
    return [*outcomes, edge.flush()]


def published(outcomes: Sequence[Checked]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        for row in outcome.table.select(NAMES).to_pylist() if outcome.table is not None else ():
            found.setdefault(row["symbol"], []).append(row)
    return {symbol: sorted(rows, key=lambda row: row["time"]) for symbol, rows in found.items()}


def traded(ticks: Sequence[Tick], lot: int) -> list[tuple[int, float]]:
    """Units and yuan from tick to tick."""
    return [(b["volume"] * lot - a["volume"] * lot, b["amount"] - a["amount"]) for a, b in pairwise(ticks)]


def wrong(rows: list[dict[str, Any]], ticks: Sequence[Tick], at: int, lot: int) -> list[str]:
    """What is not as it must be of *rows*, published of *ticks* whose counters began again at number *at*."""
    found = [] if len(rows) == len(ticks) else [f"{len(rows)} of {len(ticks)} are published"]
    if found:
        return found
    for n, step in enumerate(traded(ticks, lot), start=1):
        mine = rows[n]["total_volume"] - rows[n - 1]["total_volume"], rows[n]["amount"] - rows[n - 1]["amount"]
        if n != at and mine != pytest.approx(step, abs=0.01):
            found.append(f"{n}: {mine}, expected {step}")
    baselines = [n for n, row in enumerate(rows) if row["flags"] & TickFlag.BASELINE]
    full = [n for n, row in enumerate(rows[at:], start=at) if row["quality_score"] > 0.95]
    last = ticks[-1]
    missed = (ticks[at]["volume"] - ticks[at - 1]["volume"]) * lot
    short = last["volume"] * lot - rows[-1]["total_volume"]
    return [
        *found,
        *([] if baselines == [at] else [f"baselines {baselines}"]),
        *([] if not full else [f"score 1 at {full[:3]}"]),
        *([] if -2 * lot <= short <= missed else [f"the day ends {short} short, missed {missed}"]),
        *([] if rows[-1]["high"] == last["high"] and rows[-1]["low"] == last["low"] else ["range"]),
        *(["a unit mismatch"] if any(row["flags"] & TickFlag.UNIT_MISMATCH for row in rows) else []),
    ]


@pytest.mark.parametrize("symbol", ["600005.SH", "113050.SH", "510300.SH", "204001.SH"])
@pytest.mark.parametrize("what", RESTARTS)
def test_the_counters_of_one_symbol_begin_again(symbol: str, what: str) -> None:
    for at, count in ((150, 300), (30, 60), (295, 300)):
        ticks, lot = day(symbol, count, seed=at), KINDS[symbol][1]
        changed = [*ticks[:at], *map(RESTARTS[what](ticks[at - 1]), ticks[at:])]
        outcomes = play(Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True), [{symbol: t} for t in changed])
        assert [o.rejected for o in outcomes if o.rejected] == []
        assert wrong(published(outcomes)[symbol], ticks, at, lot) == [], (at, count)


def test_the_range_of_the_day_is_kept_when_it_begins_again_too() -> None:
    ticks = day("600005.SH", 200)
    changed, prices = ticks[:100], []
    for t in map(RESTARTS["volume and amount"](ticks[99]), ticks[100:]):
        prices.append(t["lastPrice"])
        changed.append({**t, "high": max(prices), "low": min(prices), "open": prices[0]})
    outcomes = play(
        Edge(Memory(Universe(["600005.SH"]), 60.0), by_first_tick=True), [{"600005.SH": t} for t in changed]
    )
    rows = published(outcomes)["600005.SH"]
    assert (len(rows), rows[-1]["high"], rows[-1]["low"]) == (200, ticks[-1]["high"], ticks[-1]["low"])


@pytest.mark.parametrize("what", RESTARTS)
def test_the_counters_of_the_whole_market_begin_again(what: str) -> None:
    """Few in a row are believed where many symbols show the same: the terminal was restarted."""
    symbols = [f"{600000 + n}.SH" for n in range(40)]
    days = {symbol: day("600005.SH", 60, seed=n) for n, symbol in enumerate(symbols)}
    starts = [t["time"] for t in days[symbols[0]]]
    days = {s: [{**t, "time": starts[n]} for n, t in enumerate(ticks)] for s, ticks in days.items()}
    changes = {s: RESTARTS[what](ticks[29]) for s, ticks in days.items()}
    shown = {s: [*ticks[:30], *map(changes[s], ticks[30:36])] for s, ticks in days.items()}
    edge = Edge(Memory(Universe(symbols), 60.0), by_first_tick=True)
    outcomes = [edge.process([Received(1, {s: shown[s][n] for s in symbols})], None) for n in range(36)]
    assert edge.memory.held == {}, "six snapshots are enough"
    rows = published(outcomes)
    assert {s: found for s in symbols if (found := wrong(rows[s], days[s][:36], 30, 100))} == {}


def test_a_second_restart_and_the_return_of_the_true_counters() -> None:
    symbol, count = "600005.SH", again("volume", "pvolume", "amount")
    ticks = day(symbol, 300)
    first, second = count(ticks[99]), count(ticks[149])
    shown = [*ticks[:100], *map(first, ticks[100:150]), *map(second, ticks[150:200]), *ticks[200:]]
    outcomes = play(Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True), [{symbol: t} for t in shown])
    rows = published(outcomes)[symbol]
    assert [n for n, row in enumerate(rows) if row["flags"] & TickFlag.BASELINE] == [100, 150, 200]
    assert [n for n, row in enumerate(rows) if row["flags"] & TickFlag.CARRIED] == list(range(100, 200))
    assert (rows[-1]["total_volume"], rows[-1]["amount"]) == (ticks[-1]["pvolume"], ticks[-1]["amount"])


@pytest.mark.parametrize("defect", ["amount", "volume", "all"])
def test_single_wrong_snapshots_are_rejected_after_a_restart_too(defect: str) -> None:
    symbol = "600005.SH"
    ticks = day(symbol, 200)
    names = {"amount": ("amount",), "volume": ("volume", "pvolume"), "all": ("volume", "pvolume", "amount")}[defect]
    shown = [*ticks[:100], *map(RESTARTS["volume and amount"](ticks[99]), ticks[100:])]
    for n in (113, 150, 151):
        shown[n] = times(100, *names)(shown[n])
    outcomes = play(Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True), [{symbol: t} for t in shown])
    assert sum(len(o.rejected) for o in outcomes) == 3
    assert len(published(outcomes)[symbol]) - 2 * sum(o.withdrawn for o in outcomes) == 197


@pytest.mark.parametrize("names", [("volume", "pvolume"), ("volume",)])
def test_volume_a_hundred_times_as_large_from_some_tick_on_is_another_unit(names: tuple[str, ...]) -> None:
    symbol = "600005.SH"
    ticks = day(symbol, 200)
    shown = [*ticks[:100], *map(times(100, *names), ticks[100:150]), *ticks[150:]]
    outcomes = play(Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True), [{symbol: t} for t in shown])
    rows = published(outcomes)[symbol]
    assert len(rows) == 200
    assert all(0 <= t["pvolume"] - row["total_volume"] < 100 for t, row in zip(ticks, rows, strict=True))
    assert names == ("volume",) or all(row["quality_score"] < 0.95 for row in rows[100:150])
    assert sum(o.withdrawn for o in outcomes) == 0


def test_what_is_carried_survives_a_restart_of_the_subscriber(settings: Settings) -> None:
    symbol = "600005.SH"
    ticks = day(symbol, 200)
    shown = [*ticks[:100], *map(RESTARTS["volume and amount"](ticks[99]), ticks[100:])]
    before = Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True)
    outcomes = [before.process([Received(1, {symbol: t})], None) for t in shown[:150]]
    checkpoint.save(settings, before.memory, {})
    known = checkpoint.load(settings, number_day(before.memory.day))
    after = Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True)
    after.memory.restore(known.day, known.covered_ms, known.states, known.held, known.carry)
    after.memory.assess = False
    outcomes += play(after, [{symbol: t} for t in shown[149:]])
    assert [row["reason"] for o in outcomes for row in o.rejected] == ["duplicate"]
    assert wrong(published(outcomes)[symbol], ticks, 100, 100) == []


@pytest.mark.parametrize("change", [put(volume=0), put(pvolume=0)])
def test_volume_in_one_field_alone_is_enough(change: Change) -> None:
    """Lots of 0 beside good ``pvolume``, and the reverse; from the first trade on, which may be of one lot."""
    symbol = "600005.SH"
    ticks = day(symbol)
    ticks[1] |= {"amount": ticks[1]["lastPrice"] * 100, "volume": 1, "pvolume": 100}
    outcomes = play(Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True), [{symbol: change(t)} for t in ticks])
    assert [row["total_volume"] for row in published(outcomes)[symbol]] == [t["pvolume"] for t in ticks]
