"""Outages of every kind, repaired from QMT's history: the day adds up, is the true one to a lot, and a second pass changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import MINUTE_LABELS, at
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import DAY, SYMBOL, Tick, clock, rows, store, tick
from qmt_orchestration_tests.warehouse.oracle import day_bars
from qmt_orchestration_tests.warehouse.test_rule_properties import clear, session

Q = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]


def lots(true: list[Any], symbol: str = SYMBOL) -> list[list[Any]]:
    """QMT's minutes of true bars: volumes in lots and amounts in yuan whose sums are the rounded sums of the day."""
    out, shares, amount, given, paid = [], 0, 0.0, 0, 0
    for frame, open_, high, low, close, vol, yuan, _ in true:
        shares, amount = shares + vol, amount + yuan
        whole, money = round(shares / 100) * 100, round(amount)
        out.append(["1m", symbol, frame, open_, high, low, close, whole - given, money - paid])
        given, paid = whole, money
    return out


def silent(ticks: list[Tick], begin: int, end: int) -> list[Tick]:
    """The subscription stays alive: nothing comes, and no snapshot says that something was missed."""
    return [t for t in ticks if not begin <= t["time"] < end]


def restarted(ticks: list[Tick], begin: int, end: int) -> list[Tick]:
    """The feed was away: its first snapshot is a baseline."""
    after = [t for t in ticks if t["time"] >= end]
    first = [{**after[0], "flags": int(TickFlag.BASELINE)}] if after else []
    return [t for t in ticks if t["time"] < begin] + first + after[1:]


def thin(ticks: list[Tick], begin: int, end: int) -> list[Tick]:
    """Silent, but each new subscription is answered by one snapshot."""
    lost = [t for t in ticks if begin <= t["time"] < end]
    return silent(ticks, begin, end) + lost[::40]


def repaired(client: Any) -> list[tuple[Any, ...]]:
    bars.recompute(client, DAY, at(DAY, 900))
    bars.fill_from_history(client, DAY)
    return rows(client)


@limits(max_examples=6)
@given(seed=st.integers(0, 10**6), outage=st.sampled_from([silent, restarted, thin]), length=st.integers(20, 3000))
def test_one_pass_equals_two_and_the_day_adds_up(
    clickhouse: Any, seed: int, outage: Callable[[list[Tick], int, int], list[Tick]], length: int
) -> None:
    clear(clickhouse)
    ticks = session(seed)
    begin = clock("09:40:00") + random.Random(seed).randrange(5000) * 1000
    kept = outage(ticks, begin, begin + length * 1000)
    true = day_bars(ticks)
    store(clickhouse, kept)
    clickhouse.insert("qmt_bars", lots(true), column_names=Q)
    first = repaired(clickhouse)
    assert repaired(clickhouse) == first
    assert sum(r[6] for r in first) == ticks[-1]["pvolume"]
    assert sum(r[7] for r in first) == pytest.approx(ticks[-1]["amount"], abs=0.01)
    assert len(first) == len(true)
    for r, t in zip(first, true, strict=True):
        assert r[6] == pytest.approx(t[5], abs=200), t[0]


def market(seconds: range, symbols: int = 60) -> list[Tick]:
    """A market of *symbols* that each send a snapshot every three seconds of 09:25, 09:30:00 + *seconds*, 15:00."""
    out = []
    for n in range(symbols):
        symbol, base = f"{600000 + n}.SH", clock("09:30:00")
        out.append(tick("09:25:00", 10.0, 1000, symbol=symbol))
        out += [tick(base + 1000 * s, 10.0, 1000 + 10 * s, symbol=symbol) for s in seconds if s % 3 == n % 3]
        out.append(tick("15:00:03", 10.0, 100_000, symbol=symbol))
    return out


def test_a_minute_in_which_a_feed_was_dead_for_a_part_never_scores_one(clickhouse: Any) -> None:
    """Dead from 09:32:40 to 09:36:20, no baseline, one full snapshot at 09:34:10 by a new subscription."""
    alive = [t for t in market(range(600)) if not clock("09:32:40") <= t["time"] < clock("09:36:20")]
    alive += [tick("09:34:10", 10.0, 3500, symbol=f"{600000 + n}.SH") for n in range(60)]
    store(clickhouse, alive)
    bars.finalize(clickhouse, DAY)
    scores = {f"{r[1]:%H:%M}": r[10] for r in rows(clickhouse) if r[0] == "600007.SH"}
    wrong = [label for label in ("09:33", "09:34", "09:35", "09:36", "09:37") if scores[label] > 0.5]
    assert wrong == []
    assert [scores[label] for label in ("09:31", "09:32", "09:38", "09:39")] == [1, 1, 1, 1]
    whole, step = rows(clickhouse), at(DAY, 575)
    clear(clickhouse)
    store(clickhouse, alive)
    bars.finalize(clickhouse, DAY, at(DAY, MINUTE_LABELS[0]), step)
    bars.finalize(clickhouse, DAY, step, at(DAY, 900))
    assert rows(clickhouse) == whole
