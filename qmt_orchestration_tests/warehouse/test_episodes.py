"""Outages of every kind, repaired from QMT's history: the day adds up, and a second pass changes nothing."""

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
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.history import qmt_bars
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.source import MarketSource
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import load_sql
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


def test_a_silent_feed_with_resubscriptions_is_repaired_to_the_simulators_true_bars(clickhouse: Any) -> None:
    """Nothing from 09:50:20 to 10:04:40 but full snapshots of new subscriptions; one market dead for 40 s at 10:10."""
    chosen = Settings(sim_symbols=60, sim_seed=7)
    source = MarketSource(chosen)
    source.seek(clock("09:14:00"))
    ticks: list[Tick] = []
    latest: dict[str, Tick] = {}
    snapshots = [clock(t) for t in ("09:51:10", "09:53:30", "09:58:10")]
    for now, push in source.pushes(clock("10:31:30")):
        new = {
            s: {**t, "symbol": s, "total_volume": t["pvolume"], "flags": 0, "quality_score": 1.0}
            for s, t in push.items()
        }
        latest |= new
        if clock("10:10:30") <= now < clock("10:11:10"):
            ticks += [t for t in new.values() if t["symbol"].endswith(".SZ")]
        elif not clock("09:50:20") <= now < clock("10:04:40"):
            ticks += new.values()
        elif snapshots and now >= snapshots[0]:
            snapshots.pop(0)
            ticks += latest.values()
    store(clickhouse, ticks)
    day = MarketDay(7, DAY, tuple(sorted(latest)))
    true, theirs, scale, lot = day.bars(), qmt_bars(day, "1m"), day.traits.scale, day.traits.lot
    frames = [m for m in MINUTE_LABELS if m <= 630]
    for row, symbol in enumerate(day.symbols):
        columns = [theirs[name][row] for name in ("open", "high", "low", "close", "volume", "amount")]
        data = [["1m", symbol, at(DAY, m), *(c[i].item() for c in columns)] for i, m in enumerate(frames)]
        clickhouse.insert("qmt_bars", [[*d[:7], d[7] * lot[row].item(), d[8]] for d in data], column_names=Q)
    bars.finalize(clickhouse, DAY, at(DAY, 570), at(DAY, 630))
    before = rows(clickhouse)
    assert [
        r
        for r in before
        if f"{r[1]:%H:%M}" in ("09:51", "09:52", "09:54", "10:05") and r[10] > 0.5 and r[0][-2:] != "BJ"
    ] == []
    bars.fill_from_history(clickhouse, DAY)
    made = {(r[0], r[1]): r for r in rows(clickhouse)}
    wrong = []
    for row, symbol in enumerate(day.symbols):
        total = 0
        for i, minute in enumerate(frames):
            found = made.get((symbol, at(DAY, minute)))
            if found is None:
                assert not true["traded"][row, : i + 1].any(), (symbol, minute)
                continue
            total += found[6]
            prices = [true[name][row, i].item() / scale[row] for name in ("open", "high", "low", "close")]
            if true["traded"][row, i] and (
                list(found[2:6]) != pytest.approx(prices) or abs(found[6] - true["vol"][row, i]) > 300
            ):
                wrong.append((symbol, minute, found[2:9], prices, true["vol"][row, i]))
        assert total == true["vol"][row, : len(frames)].sum(), symbol
    assert wrong == []
    assert sum(r[8] == "history" for r in made.values()) < 30 * len(day.symbols), "no more than the outages"
    again = (
        bars.finalize(clickhouse, DAY, at(DAY, 570), at(DAY, 630)).rows + bars.fill_from_history(clickhouse, DAY).rows
    )
    assert again == 0


def test_a_day_from_history_adds_up_although_qmts_day_holds_after_hours_trade(clickhouse: Any) -> None:
    after, plain = "688001.SH", "600000.SH"
    for symbol in (after, plain):
        minutes = [["1m", symbol, at(DAY, m), 10.0, 10.0, 10.0, 10.0, 100, 1000.0] for m in MINUTE_LABELS]
        clickhouse.insert(
            "qmt_bars",
            [*minutes, ["1d", symbol, at(DAY, 900), 10.0, 10.0, 10.0, 10.0, 24_400, 244_000.0]],
            column_names=Q,
        )
    bars.fill_from_history(clickhouse, DAY)
    bars.roll_up(clickhouse, DAY, "1d")
    span = {"day": DAY, "first": "2025-06-05 09:30:00", "last": "2025-06-05 15:00:00"}
    (measure, _, _, worst) = clickhouse.query(load_sql("checks/daily_volume_adds_up"), span).first_row
    assert (measure, after in worst, plain in worst) == (1, False, True)


def test_a_bar_replaced_by_hand_stays_until_it_is_taken_back(clickhouse: Any) -> None:
    store(clickhouse, [tick("09:25:00", 10.0, 1000), tick("09:30:30", 10.2, 1500), tick("15:00:03", 10.1, 9000)])
    bars.finalize(clickhouse, DAY)
    before = rows(clickhouse)
    values = {"open": 10.0, "high": 10.1, "low": 10.0, "close": 10.1, "vol": 400, "amount": 4000.0, "from_qmt": 0}
    key = {"symbol": SYMBOL, "frame": "2025-06-05 09:31:00", "reason": "a wrong print", "author": "somebody"}
    clickhouse.command(load_sql("override_bar"), {**values, **key, "active": 1})
    for _ in range(2):
        bars.finalize(clickhouse, DAY)
        bars.fill_from_history(clickhouse, DAY)
        changed = [r for r, old in zip(rows(clickhouse), before, strict=True) if r != old]
        assert [r[2:] for r in changed] == [(10.0, 10.1, 10.0, 10.1, 400, 4000.0, "history", 1, 0.5)]
    clickhouse.command(load_sql("override_bar"), {**values, **key, "active": 0})
    bars.finalize(clickhouse, DAY)
    assert rows(clickhouse) == before
    assert clickhouse.query("SELECT count() FROM bar_overrides").first_row[0] == 2, "both stay on record"
