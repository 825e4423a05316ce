"""Bars do not depend on how ticks arrive: any order, repeats, batches, a rebuild, minute by minute or at once; and they
equal an independent derivation in plain Python."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import MINUTE_LABELS, at
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import DAY, Tick, clock, rows, store, tick
from qmt_orchestration_tests.warehouse.oracle import day_bars

TABLES = ("ticks", "bar_states_1m", "bars_1m", "bars_5m", "bars_30m", "bars_1d", "final_frames", "rolled_up")
FEW = limits(max_examples=6)


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
def test_any_order_repeats_and_batches_give_identical_bars_and_so_does_a_rebuild(
    clickhouse: Any, seed: int, gap: bool
) -> None:
    clear(clickhouse)
    ticks = session(seed, gap=gap) + session(seed + 1, "600000.SH")
    store(clickhouse, ticks)
    first = make_all(clickhouse)
    rng = random.Random(seed)
    clear(clickhouse)
    mixed = ticks + rng.sample(ticks, len(ticks) // 3)
    rng.shuffle(mixed)
    while mixed:
        n = rng.randint(1, len(mixed))
        store(clickhouse, mixed[:n])
        mixed = mixed[n:]
    assert make_all(clickhouse) == first
    clickhouse.command("TRUNCATE TABLE bar_states_1m")
    assert bars.rebuild_states(clickhouse, DAY) > 0
    again = bars.finalize(clickhouse, DAY)
    assert again.rows == 0, "a rebuild changes no row"
    assert everything(clickhouse) == first


@limits(max_examples=3)
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
            for period in bars.INTRADAY_ROLLUPS:
                bars.roll_up(clickhouse, p.day, period, p.first_frame, p.last_frame)
    store(clickhouse, ticks)
    for p in bars.pending(clickhouse, settings, clock("15:31:00")):
        bars.finalize(clickhouse, p.day, p.first_frame, p.last_frame)
        for period in bars.INTRADAY_ROLLUPS:
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
