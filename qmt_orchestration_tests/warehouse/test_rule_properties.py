"""Bars do not depend on how ticks arrive: any order, repeats, batches, minute by minute or at once; and they
equal an independent derivation in plain Python."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from qmt_orchestration.market.periods import intraday
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import MINUTE_LABELS, at
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import DAY, Tick, clock, rows, store, tick
from qmt_orchestration_tests.warehouse.oracle import day_bars

TABLES = ("ticks", "qmt_bars", "bars_1m", "bars_5m", "bars_30m", "bars_1d", "final_frames", "rolled_up")
FEW = limits(max_examples=max(2, limits.default.max_examples // 40))  # an example is a day or two through ClickHouse


def session(seed: int, symbol: str = "000001.SZ", gap: bool = False) -> list[Tick]:
    """A seeded day: uneven snapshots, idle minutes, jumps of the day's range, repeated stamps, both kinds of close."""
    rng = random.Random(seed)
    fund, price, shares, high, low, out = rng.random() < 0.3, 10.0, 0, 0.0, 0.0, []
    moments = [clock("09:20:00"), clock("09:25:00")]
    while moments[-1] < clock("15:03:00"):
        step = rng.choice((3000, 3000, 3000, 0, 6000, 1000, 500, 61_000, 400_000, 1_500_000))
        moments.append(moments[-1] + step)
    moments = [m for m in moments if m < clock("15:03:00")] + [clock("15:03:00")]
    blind = rng.randrange(20, len(moments) - 20) if gap and len(moments) > 60 else -1
    for n, moment in enumerate(moments):
        calm = clock("14:57:03") < moment < clock("15:00:00") and not fund
        pause = clock("09:25:01") < moment < clock("09:30:00") or clock("11:30:02") < moment < clock("13:00:00")
        if not (calm or pause or moment < clock("09:25:00")) and rng.random() < 0.7:
            shares += rng.choice((1, 37, 100, 100, 2500))
            price = round(price + rng.choice((-0.02, -0.01, 0, 0, 0.01, 0.03)), 2)
            high = max(high, price, round(price + 0.05, 2) if rng.random() < 0.1 else 0)
            low = min(low or price, price, round(price - 0.05, 2) if rng.random() < 0.1 else price)
        flags = int(TickFlag.BASELINE) if n == blind else 0
        amount = round(shares * 10.01, 2)
        out.append(tick(moment, price, shares, symbol=symbol, high=high, low=low, amount=amount, flags=flags))
    if blind >= 0:
        out = out[: blind - 10] + out[blind:]
    keys = {(t["time"], t["pvolume"]): t for t in out}
    return list(keys.values())


def clear(client: Any) -> None:
    for name in TABLES:
        client.command(f"TRUNCATE TABLE {name}")


def expected(ticks: list[Tick]) -> list[tuple[Any, ...]]:
    return [(ticks[0]["symbol"], *b) for b in day_bars(ticks)]


def found(client: Any) -> list[tuple[Any, ...]]:
    return [r[:9] for r in rows(client)]


def carried(client: Any) -> list[tuple[Any, ...]]:
    columns = "symbol, frame, cum_volume, cum_amount, day_open, day_high, day_low, pre_close"
    columns += ", if(last_price > 0, last_price, close)"
    return [tuple(r) for r in client.query(f"SELECT {columns} FROM bars_1m ORDER BY symbol, frame").result_rows]


def copies(ticks: list[Tick], rng: random.Random) -> list[Tick]:
    """Some of *ticks* once more, with other flags and scores: as a re-seed, a baseline or a doubtful one."""
    kinds = ((int(TickFlag.BASELINE), 1.0), (int(TickFlag.SNAPSHOT), 1.0), (int(TickFlag.CLOCK_SKEW), 0.8))
    again = []
    for t in rng.sample(ticks, len(ticks) // 4):
        flags, score = rng.choice(kinds)
        again.append({**t, "flags": flags, "quality_score": score})
    return again


def everything(client: Any) -> list[list[tuple[Any, ...]]]:
    return [rows(client, name) for name in ("bars_1m", "bars_5m", "bars_30m", "bars_1d")]


def make_all(client: Any) -> list[list[tuple[Any, ...]]]:
    bars.finalize(client, DAY)
    for period in ("5m", "30m", "1d"):
        bars.roll_up(client, DAY, period)
    return everything(client)


@FEW
@given(seed=st.integers(0, 10**6))
def test_the_rule_equals_an_independent_derivation(clickhouse: Any, seed: int) -> None:
    clear(clickhouse)
    ticks = session(seed)
    store(clickhouse, ticks)
    bars.finalize(clickhouse, DAY)
    got, want = found(clickhouse), expected(ticks)
    assert [r[:7] for r in got] == [w[:7] for w in want]
    assert [r[7] for r in got] == pytest.approx([w[7] for w in want], abs=1e-4)
    assert [r[8] for r in got] == [w[8] for w in want]


@FEW
@given(seed=st.integers(0, 10**6), gap=st.booleans())
def test_any_order_repeats_and_batches_give_identical_bars_and_so_does_a_second_computation(
    clickhouse: Any, seed: int, gap: bool
) -> None:
    clear(clickhouse)
    rng = random.Random(seed)
    ticks = session(seed, gap=gap) + session(seed + 1, "600000.SH")
    ticks += copies(ticks, rng)
    store(clickhouse, ticks)
    first = [*make_all(clickhouse), carried(clickhouse)]
    clear(clickhouse)
    mixed = ticks + rng.sample(ticks, len(ticks) // 3)
    rng.shuffle(mixed)
    while mixed:
        n = rng.randint(1, len(mixed))
        store(clickhouse, mixed[:n])
        mixed = mixed[n:]
    assert [*make_all(clickhouse), carried(clickhouse)] == first
    assert bars.recompute(clickhouse, DAY, at(DAY, 900)).rows == 0, "computed once more, no row changes"
    assert [*everything(clickhouse), carried(clickhouse)] == first


@FEW
@given(seed=st.integers(0, 10**6), gap=st.booleans())
def test_withdrawn_ticks_leave_no_trace_in_bars(clickhouse: Any, seed: int, gap: bool) -> None:
    """Whatever comes first, the tick or its withdrawal, and whether or not its bar was made before."""
    rng = random.Random(seed)
    ticks = session(seed, gap=gap)
    wrong = [t for t in rng.sample(ticks, 8) if not t["flags"]] + [t for t in ticks if t["pvolume"] > 0][:1]
    taken_back = [{**t, "flags": int(TickFlag.WITHDRAWN)} for t in wrong]
    clear(clickhouse)
    store(clickhouse, [t for t in ticks if t not in wrong])
    without = [*make_all(clickhouse), carried(clickhouse)]
    clear(clickhouse)
    early = rng.sample(taken_back, len(taken_back) // 2)
    store(clickhouse, ticks + early)
    make_all(clickhouse)
    store(clickhouse, taken_back)
    assert [*make_all(clickhouse), carried(clickhouse)] == without


@FEW
@given(seed=st.integers(0, 10**6), gap=st.booleans(), with_history=st.booleans())
def test_a_chain_of_frame_ranges_equals_the_whole_day_also_around_rows_from_history(
    clickhouse: Any, seed: int, gap: bool, with_history: bool
) -> None:
    rng = random.Random(seed)
    ticks = session(seed, gap=gap) + session(seed + 1, "600000.SH")
    clear(clickhouse)
    store(clickhouse, ticks, seconds_ago=3600)
    bars.finalize(clickhouse, DAY)
    whole, reached = rows(clickhouse), carried(clickhouse)
    clear(clickhouse)
    if with_history:
        columns = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
        theirs = [["1m", r[0], r[1], 5.0, 5.2, 4.8, 5.1, 700, 3500.0] for r in rng.sample(whole, len(whole) // 2)]
        clickhouse.insert("qmt_bars", theirs, column_names=columns)
    store(clickhouse, ticks, seconds_ago=3600)
    first = 0
    while first < len(MINUTE_LABELS):
        last = min(first + rng.choice((0, 7, 40, 130)), len(MINUTE_LABELS) - 1)
        bars.finalize(clickhouse, DAY, at(DAY, MINUTE_LABELS[first]), at(DAY, MINUTE_LABELS[last]))
        if with_history and rng.random() < 0.5:
            bars.fill_from_history(clickhouse, DAY)
        first = last + 1
    ours = {r[:2]: r for r in whole}
    assert [r for r in rows(clickhouse) if r[8] != "history" and ours.get(r[:2]) != r] == []
    made = {r[:2]: r for r in carried(clickhouse)}
    assert [r for r in reached if made[r[:2]] != r] == []
    if not with_history:
        assert rows(clickhouse) == whole


@FEW
@given(seed=st.integers(0, 10**6), gap=st.booleans())
def test_minute_by_minute_with_late_ticks_equals_the_whole_day(
    clickhouse: Any, settings: Any, seed: int, gap: bool
) -> None:
    ticks = session(seed, gap=gap)
    clear(clickhouse)
    store(clickhouse, ticks)
    whole = make_all(clickhouse)
    clear(clickhouse)
    rng = random.Random(seed)
    late = [t for t in ticks if rng.random() < 0.05]
    rest = [t for t in ticks if t not in late]
    for cut in (clock("09:41:10"), clock("10:31:00"), clock("13:20:01"), clock("15:04:00")):
        store(clickhouse, [t for t in rest if t["time"] < cut] + [t for t in late if t["time"] < cut - 600_000])
        rest = [t for t in rest if t["time"] >= cut]
        for p in bars.pending(clickhouse, settings, cut):
            bars.finalize(clickhouse, p.day, p.first_frame, p.last_frame)
            for period in intraday(Settings().rollup_periods):
                bars.roll_up(clickhouse, p.day, period, p.first_frame, p.last_frame)
    store(clickhouse, ticks)
    for p in bars.pending(clickhouse, settings, clock("15:31:00")):
        bars.finalize(clickhouse, p.day, p.first_frame, p.last_frame)
        for period in intraday(Settings().rollup_periods):
            bars.roll_up(clickhouse, p.day, period, p.first_frame, p.last_frame)
    bars.roll_up(clickhouse, DAY, "1d")
    assert everything(clickhouse)[:3] == whole[:3]


@FEW
@given(seed=st.integers(0, 10**6), start=st.integers(1, 150))
def test_a_cold_start_in_mid_session_never_invents_volume(clickhouse: Any, seed: int, start: int) -> None:
    ticks = session(seed)
    start = min(start, len(ticks) - 2)
    seen = [{**ticks[start], "flags": int(TickFlag.BASELINE)}, *ticks[start + 1 :]]
    clear(clickhouse)
    store(clickhouse, seen)
    bars.finalize(clickhouse, DAY)
    got = rows(clickhouse)
    assert sum(r[6] for r in got) <= seen[-1]["pvolume"] - seen[0]["pvolume"]
    true = {b[0]: b for b in day_bars(ticks)}
    for r in got:
        assert r[6] <= true[r[1]][5]


@FEW
@given(seed=st.integers(0, 10**6))
def test_rollups_and_the_day_conserve_volume_amount_and_extremes(clickhouse: Any, seed: int) -> None:
    clear(clickhouse)
    ticks = session(seed)
    store(clickhouse, ticks)
    sums = []
    for made in make_all(clickhouse):
        sums.append(
            (
                sum(r[6] for r in made),
                round(sum(r[7] for r in made), 2),
                max(r[3] for r in made),
                min(r[4] for r in made),
            )
        )
    last = ticks[-1]
    assert sums[0] == (last["pvolume"], last["amount"], last["high"], last["low"])
    assert sums == [sums[0]] * 4


def test_the_grid_of_frames_is_the_one_of_the_calendar(clickhouse: Any) -> None:
    store(clickhouse, [tick("09:25:00", 10.0, 100), tick("15:00:03", 10.0, 200)])
    bars.finalize(clickhouse, DAY)
    assert [r[1] for r in rows(clickhouse)] == [at(DAY, m) for m in MINUTE_LABELS]
