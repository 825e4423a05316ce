"""The simulated market: fixed by (seed, date, symbol), true to its own bars, and shaped like a trading day."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.instruments import Kind, instrument_of, trading_of
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, from_ms, to_ms
from qmt_orchestration.market.symbols import Board, board_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.kinds import COUNTS
from qmt_orchestration.simulator.market import (
    HALTED,
    LIMIT_DOWN,
    LIMIT_UP,
    LOCKED_UP,
    SUSPENDED,
    MarketDay,
    limits,
)
from qmt_orchestration.simulator.source import MarketSource
from qmt_orchestration.simulator.universe import name_of, sectors, universe
from qmt_orchestration_tests.simulator.oracle import bars_of, minute_of, total_of
from qmt_orchestration_tests.simulator.true_bars import true_bars

DAY = date(2025, 6, 5)
SYMBOLS = 110
KINDS = tuple(kind.value for kind in COUNTS)
Ticks = dict[str, list[dict[str, Any]]]


def play(
    symbols: int = SYMBOLS,
    seed: int = 7,
    start: int = 554,
    end: int = 931,
    day: date = DAY,
    only: tuple[str, ...] | None = None,
) -> Ticks:
    """All pushed ticks of a stretch of a day (minutes since midnight), per symbol in order of arrival."""
    source = MarketSource(Settings(sim_symbols=symbols, sim_seed=seed, sim_kinds=KINDS), only)
    source.seek(to_ms(at(day, start)))
    out: Ticks = defaultdict(list)
    for _, push in source.pushes(to_ms(at(day, end))):
        for symbol, tick in push.items():
            out[symbol].append(tick)
    return out


@pytest.fixture(scope="module")
def ticks() -> Ticks:
    return play()


@pytest.fixture(scope="module")
def plan() -> MarketDay:
    return MarketDay(7, DAY, universe(SYMBOLS, KINDS).all)


def test_the_bars_of_the_pushed_ticks_are_the_true_bars(ticks: Ticks, plan: MarketDay) -> None:
    bars = plan.bars()
    paid = plan.traits.yuan(bars["amount"], bars["vol"])  # type: ignore[arg-type]
    names = ("open", "high", "low", "close", "vol")
    compared = 0
    for row, symbol in enumerate(plan.symbols):
        got = bars_of(ticks.get(symbol, []), repo=instrument_of(symbol).kind is Kind.REPO)
        traded = np.flatnonzero(bars["traded"][row])
        assert sorted(got) == [MINUTE_LABELS[i] for i in traded], symbol
        for i in traded:
            values = [bars[name][row, i].item() for name in names]
            expected = (*(v / plan.traits.scale[row] for v in values[:4]), values[4], paid[row, i])
            found = got[MINUTE_LABELS[i]]
            assert max(abs(f - e) for f, e in zip(found, expected, strict=True)) <= 1e-2, (symbol, found, expected)
            compared += 1
    assert compared > 15_000


def test_true_bars_tell_the_plans_bars(plan: MarketDay) -> None:
    bars = plan.bars()
    for row in (0, 30, 60):
        true = true_bars(DAY, plan.symbols[row])
        assert [b.vol for b in true] == bars["vol"][row, 241 - len(true) :].tolist()
        assert [b.filled for b in true] == (~bars["traded"][row, 241 - len(true) :]).tolist()
        assert [b.high for b in true] == (bars["high"][row, 241 - len(true) :] / 100).tolist()


def test_filled_minutes_repeat_the_close_and_nothing_stands_before_the_first_trade() -> None:
    plan = MarketDay(7, DAY, universe(1000).all)
    rare = [s for s, r, out in zip(plan.symbols, plan.rare, plan.suspended, strict=True) if r and not out][:12]
    for symbol in rare:
        bars = true_bars(DAY, symbol)
        assert not bars[0].filled
        for before, bar in pairwise(bars):
            if bar.filled:
                assert (bar.open, bar.high, bar.low, bar.close, bar.vol) == (*[before.close] * 4, 0)
    assert any(true_bars(DAY, s)[0].frame.hour >= 13 for s in rare if plan.empty_morning[plan.symbols.index(s)])


def test_a_symbol_is_the_same_in_any_market_and_from_any_start(ticks: Ticks) -> None:
    alone = play(symbols=40, start=600, end=640)
    for symbol in universe(40, KINDS).listed:
        first, last = to_ms(at(DAY, 600)), to_ms(at(DAY, 640))
        expected = [t for t in ticks.get(symbol, []) if first <= t["time"] < last]
        assert alone.get(symbol, []) == expected, symbol


def test_seed_and_date_change_the_market() -> None:
    assert true_bars(DAY, "000001.SZ") == true_bars(DAY, "000001.SZ", seed=7)
    assert true_bars(DAY, "000001.SZ") != true_bars(DAY, "000001.SZ", seed=8)
    closes = [true_bars(d, "000001.SZ")[-1].close for d in trading_days(date(2025, 6, 3), DAY)]
    assert len(set(closes)) > 1


def test_a_days_last_close_is_the_close_of_the_day_before_less_the_dividend() -> None:
    symbols = universe(2000).shares
    days = [MarketDay(7, d, symbols, reference_only=True) for d in trading_days(date(2026, 6, 25), date(2026, 7, 24))]
    kinds = {k for d in days for k in np.unique(d.kind).tolist()}
    assert kinds == {0, SUSPENDED, LIMIT_UP, LOCKED_UP, LIMIT_DOWN, HALTED}
    for before, day in pairwise(days):
        assert (day.previous_close == before.final).all()
        assert (day.last_close == before.final - day.dividend).all()
        assert (day.final <= day.up).all()
        assert (day.final >= day.down).all()
    assert any((d.dividend > 0).any() for d in days)


def test_price_limits_round_half_up_with_decimals() -> None:
    up, down = limits(np.array([115, 1632, 1005]), np.array([10, 10, 5]))
    assert up.tolist() == [127, 1795, 1055]  # 1.15 × 1.1 = 1.265 → 1.27, where binary floats give 1.26
    assert down.tolist() == [104, 1469, 955]


def test_prices_and_book_stay_inside_the_limits_and_cumulative_values_never_fall(ticks: Ticks, plan: MarketDay) -> None:
    for row, symbol in enumerate(plan.symbols):
        scale, lot, index = (array[row].item() for array in (plan.traits.scale, plan.traits.lot, plan.traits.index))
        up, down = plan.up[row] / scale, plan.down[row] / scale
        volume, amount, time = -1, -1.0, 0
        for tick in ticks.get(symbol, []):
            assert tick["lastPrice"] == 0 or down <= tick["lastPrice"] <= up
            assert all(p <= up + 1e-9 for p in tick["askPrice"])
            assert all(p == 0 or p >= down - 1e-9 for p in tick["bidPrice"])
            assert total_of(tick) >= volume
            assert not index or not any(map(any, (tick["askPrice"], tick["bidPrice"], tick["askVol"], tick["bidVol"])))
            assert tick["amount"] >= amount
            assert tick["time"] > time
            volume, amount, time = total_of(tick), tick["amount"], tick["time"]
            assert index or abs(tick["volume"] * lot - tick["pvolume"]) <= lot // 2
            if volume and instrument_of(symbol).kind is Kind.REPO:
                assert amount == volume * 100
            elif volume and not index:
                assert tick["low"] - 1e-6 <= amount / volume <= tick["high"] + 1e-6
            if volume:
                assert tick["low"] <= tick["lastPrice"] <= tick["high"]


def test_the_opening_call_shows_virtual_prices_and_phases(ticks: Ticks) -> None:
    for symbol, mine in ticks.items():
        call = [t for t in mine if t["openInt"] == 12]
        assert call, symbol
        assert all(t["pvolume"] == t["amount"] == t["open"] == t["high"] == t["low"] == 0 for t in call)
        assert all(555 <= minute_of(t) < 565 for t in call)
        after = [t for t in mine if minute_of(t) == 565]
        assert {t["openInt"] for t in after} == ({13} if symbol.endswith("SH") else {14})
    moving = [s for s, mine in ticks.items() if len({t["lastPrice"] for t in mine if t["openInt"] == 12}) > 3]
    assert len(moving) > 80


def test_closing_call_and_after_hours(ticks: Ticks, plan: MarketDay) -> None:
    for row, symbol in enumerate(plan.symbols):
        mine = ticks.get(symbol, [])
        late = [t for t in mine if minute_of(t) in (898, 899) and trading_of(symbol, DAY).closing_call]
        residual = [t for t in mine if minute_of(t) == 897]
        if late and residual:
            assert {total_of(t) for t in late} == {total_of(residual[-1])}
        after = [t for t in mine if minute_of(t) >= 905]
        assert bool(after) == bool(plan.after_hours[row, 4:].sum())
        if after:
            repo = instrument_of(symbol).kind is Kind.REPO
            assert repo or trading_of(symbol, DAY).after_hours
            assert repo or board_of(symbol) in (Board.STAR, Board.CHINEXT)
            assert total_of(after[-1]) == plan.cumulative[row, -1] + plan.after_hours[row].sum()
    at_three = [t for s, m in ticks.items() if s.endswith("SZ") for t in m if t["time"] == to_ms(at(DAY, 900))]
    assert at_three, "Shenzhen repeats the last price at 15:00:00"


@pytest.mark.parametrize("day", [DAY, date(2026, 7, 7)])
def test_what_has_no_closing_call_trades_until_1500_and_a_repo_until_1530(day: date) -> None:
    repos = ("204001.SH", "204007.SH", "131810.SZ", "131801.SZ")
    others = ("000300.SH", "113050.SH", "123219.SZ", "159915.SZ", "510050.SH", "600000.SH")
    ticks = play(start=895, day=day, only=tuple(sorted(repos + others)))
    growing = {
        symbol: {minute_of(b) for a, b in pairwise(mine) if total_of(b) > total_of(a)} for symbol, mine in ticks.items()
    }
    phases = {symbol: {t["openInt"] for t in mine if 897 <= minute_of(t) < 900} for symbol, mine in ticks.items()}
    for symbol in others:
        assert phases[symbol] == {18 if trading_of(symbol, day).closing_call else 13}, symbol
        assert trading_of(symbol, day).closing_call == (not growing[symbol] & {898, 899}), symbol
        assert trading_of(symbol, day).closing_call == (900 in growing[symbol]), symbol
    assert [phases[s] for s in ("113050.SH", "510050.SH")] == [{13}, {13 if day < date(2026, 7, 6) else 18}]
    for symbol in repos:
        late = [t for t in ticks[symbol] if minute_of(t) > 900]
        assert growing[symbol] & set(range(905, 930))
        assert len({t["lastPrice"] for t in late}) > 1
        assert all(t["low"] <= t["lastPrice"] <= t["high"] and t["openInt"] == 13 for t in late)
    assert any(growing[symbol] & set(range(901, 905)) for symbol in repos)


def test_snapshots_are_uneven_and_about_as_many_as_real_ones(ticks: Ticks, plan: MarketDay) -> None:
    busy = [len(ticks[s]) for s, dense, k in zip(plan.symbols, plan.dense, plan.kind, strict=True) if dense and k == 0]
    assert 4000 <= np.median(busy) <= 4800
    mine = [t["time"] for t in ticks["000001.SZ"] if t["openInt"] == 13]
    gaps = {(b - a) // 1000 for a, b in pairwise(mine)}
    assert {1, 2, 3, 4, 5} <= gaps


def test_suspended_symbols_come_stale_with_the_first_push_and_never_again() -> None:
    source = MarketSource(Settings(sim_symbols=1000))
    plan = MarketDay(7, DAY, source.members.all)
    suspended = {s for s, out in zip(plan.symbols, plan.suspended, strict=True) if out}
    assert suspended
    source.seek(to_ms(at(DAY, 600)))
    first = source.snapshot()
    assert set(first) == set(plan.symbols)
    for symbol in suspended:
        assert first[symbol]["openInt"] == 1
        assert from_ms(first[symbol]["time"]).date() < DAY
        assert true_bars(DAY, symbol) == []
    pushed = {s for _, push in source.pushes(to_ms(at(DAY, 603))) for s in push}
    assert len(pushed) > 900
    assert not suspended & pushed


def test_a_snapshot_is_the_last_tick_that_was_pushed(ticks: Ticks) -> None:
    source = MarketSource(Settings(sim_symbols=SYMBOLS, sim_kinds=KINDS))
    until = to_ms(at(DAY, 785)) + 30_000
    source.seek(until)
    snapshot = source.snapshot()
    for symbol, mine in ticks.items():
        before = [t for t in mine if t["time"] <= until - 1000]
        assert snapshot[symbol]["time"] >= before[-1]["time"]
        assert snapshot[symbol]["time"] <= until
        assert snapshot[symbol] in mine


def test_halted_symbols_stand_still_for_ten_minutes() -> None:
    symbols = universe(2000).shares
    plan = MarketDay(7, DAY, symbols)
    rows = np.flatnonzero(plan.kind == HALTED)
    assert len(rows)
    for row in rows:
        cell = plan.halt_cell[row]
        assert not plan.traded[row, cell : cell + 10].any()


def test_universe_has_the_boards_codes_and_the_rest() -> None:
    members = universe(5150)
    assert len(members.shares) == 5150
    assert all(board_of(s) for s in members.shares)
    assert {board_of(s) for s in members.shares} == set(Board)
    assert "000001.SZ" in members.shares
    assert name_of("000001.SZ") == "平安银行"
    assert not any(board_of(s) for s in members.others)
    assert not members.kinds


def test_a_market_of_all_kinds_is_a_mix_as_the_real_one() -> None:
    members = universe(6620, KINDS)
    counts = Counter(instrument_of(s).kind for s in members.listed)
    assert counts == COUNTS
    assert not set(members.listed) & set(members.others)
    small = Counter(instrument_of(s).kind for s in universe(66, KINDS).listed)
    assert set(small) == set(COUNTS)
    assert sum(small.values()) == 66
    found = sectors(members, DAY)
    assert {len(found[name]) for name in ("沪深指数", "沪深转债")} == {100, 350}
    assert "510300.SH" in found["沪深ETF"]
    assert "501018.SH" not in found["沪深ETF"]
    assert "501018.SH" in found["沪深基金"]


def test_a_smaller_market_is_a_part_of_a_larger_one() -> None:
    members = universe(5150)
    assert set(universe(300).shares) < set(members.shares)
