"""No single snapshot is believed: a day of true ticks with planted wrong ones, through the real edge.

What must come out: every true tick accepted and not withdrawn, every planted one rejected or withdrawn, each counted
once; however the feed is cut into batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmt_orchestration.feed import checkpoint
from qmt_orchestration.feed.edge import Checked, Edge, Received, rejected_table
from qmt_orchestration.feed.memory import Memory, number_day
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.feed.test_edge import EMPTY_BOOK, MIDNIGHT

Tick = dict[str, Any]
Change = Callable[[Tick], Tick]

#: symbol, price, units per 手, yuan per unit and price point (an index and repo are no prices)
KINDS = {
    "600005.SH": (9.4, 100, 1.0),
    "000001.SZ": (11.38, 100, 1.0),
    "510300.SH": (4.012, 100, 1.0),
    "113050.SH": (120.5, 10, 1.0),
    "123219.SZ": (131.2, 10, 1.0),
    "900901.SH": (0.423, 100, 1.0),
    "204001.SH": (2.035, 10, 0.0),
    "000300.SH": (3900.12, 1, 0.0),
}


def day(symbol: str, count: int = 24, seed: int = 1) -> list[Tick]:
    """True ticks of a day: an opening call, then snapshots that trade within a range of one per cent."""
    base, lot, _ = KINDS[symbol]
    random = np.random.default_rng(seed)
    volume, amount, high, low, opened = 0, 0.0, 0.0, 1e9, 0.0
    times = np.sort(random.choice(np.arange(34_200, 41_400, 3), count - 2, replace=False))
    ticks = [snapshot(33_400, base, symbol, 0, 0.0, 0.0, 0.0, 0.0)]
    for second in (33_900, *times.tolist()):
        price = round(base * (1 + 0.005 * float(random.uniform(-1, 1))), 3)
        lots = int(random.integers(50, 400))
        high, low, opened = max(high, price), min(low, price), opened or price
        volume += lots * lot
        amount += lots * lot * (100.0 if symbol == "204001.SH" else 7.1e3 if symbol == "000300.SH" else price)
        ticks.append(snapshot(int(second), price, symbol, volume, amount, opened, high, low))
    return ticks


def snapshot(
    second: int, price: float, symbol: str, volume: int, amount: float, opened: float, high: float, low: float
) -> Tick:
    base, lot, _ = KINDS[symbol]
    return {
        "time": MIDNIGHT + second * 1000,
        "lastPrice": price,
        "open": opened,
        "high": high,
        "low": low,
        "lastClose": base,
        "amount": round(amount, 2),
        "volume": volume // lot,
        "pvolume": 0 if symbol == "000300.SH" else volume,
        "stockStatus": 3,
        "openInt": 13,
        "transactionNum": 0,
        **dict.fromkeys(("askPrice", "bidPrice"), EMPTY_BOOK),
        **dict.fromkeys(("askVol", "bidVol"), [0] * 5),
    }


def times(factor: float, *names: str) -> Change:
    return lambda t: {**t, **{n: type(t[n])(t[n] * factor) for n in names}}


def put(**values: Any) -> Change:
    return lambda t: {**t, **values}


def later(seconds: int) -> Change:
    return lambda t: {**t, "time": t["time"] + seconds * 1000}


DEFECTS: dict[str, Change] = {
    "amount ×100": times(100, "amount"),
    "amount ×10": times(10, "amount"),
    "amount ÷100": times(0.01, "amount"),
    "amount 0": put(amount=0.0),
    "volume ×10": times(10, "volume", "pvolume"),
    "volume ÷10": times(0.1, "volume", "pvolume"),
    "lots given as shares": times(0.01, "volume", "pvolume"),
    "shares given as lots": times(100, "volume", "pvolume"),
    "only the lots ×100": times(100, "volume"),
    "volume and amount ×10": times(10, "volume", "pvolume", "amount"),
    "volume and amount ÷10": times(0.1, "volume", "pvolume", "amount"),
    "volume jumps, amount does not": times(1.5, "volume", "pvolume"),
    "all prices ×10": times(10, "lastPrice", "open", "high", "low"),
    "price and high ×10": times(10, "lastPrice", "high"),
    "price ×10": times(10, "lastPrice"),
    "high ×10": times(10, "high"),
    "low 0.01": put(low=0.01),
    "low 0": put(low=0.0),
    "previous close ×10": times(10, "lastClose"),
    "volume 2^40": put(volume=2**40, pvolume=2**40),
    "NaN": put(lastPrice=float("nan")),
}


def net(outcomes: Sequence[Checked]) -> tuple[list[tuple[Any, ...]], int]:
    """(keys accepted and not withdrawn, how many are rejected)."""
    names = ("time", "volume", "pvolume", "amount", "flags")
    rows = [
        row
        for o in outcomes
        if o.table is not None
        for row in zip(
            o.table.column("time").cast("int64").to_pylist(),
            *(o.table.column(n).to_pylist() for n in names[1:]),
            strict=True,
        )
    ]
    gone = {row[:-1] for row in rows if row[-1] & TickFlag.WITHDRAWN}
    kept = [row[:-1] for row in rows if row[:-1] not in gone]
    assert len(kept) == len(set(kept)), "a tick was published twice"
    rejected = sum(len(o.rejected) for o in outcomes)
    received = sum(o.received for o in outcomes)
    accepted = sum(o.table.num_rows for o in outcomes if o.table) - 2 * sum(o.withdrawn for o in outcomes)
    assert received == accepted + rejected
    return sorted(kept), rejected


def play(symbol: str, ticks: Sequence[Tick], cut: int, **details: Any) -> tuple[list[tuple[Any, ...]], int, Edge]:
    edge = Edge(Memory(Universe([symbol], details={symbol: details} if details else {}), 60.0), by_first_tick=True)
    ticks = sorted(ticks, key=lambda t: t["time"])
    pieces = [ticks[i : i + cut] for i in range(0, len(ticks), cut)]
    outcomes = [edge.process([Received(1, {symbol: t}) for t in piece], None) for piece in pieces]
    return *net([*outcomes, edge.flush()]), edge


def keys(ticks: Sequence[Tick]) -> list[tuple[Any, ...]]:
    return sorted((t["time"], t["volume"], t["pvolume"], t["amount"]) for t in ticks)


@pytest.mark.parametrize("cut", [1, 7, 100])
@pytest.mark.parametrize("symbol", KINDS)
def test_a_day_without_defects_is_accepted_whole(symbol: str, cut: int) -> None:
    ticks = day(symbol)
    kept, rejected, edge = play(symbol, ticks, cut)
    assert (kept, rejected) == (keys(ticks), 0)
    assert edge.doubts.overturned == 0


@pytest.mark.parametrize(
    ("length", "cut"),
    [(1, 1), (5, 100), pytest.param(2, 100, marks=pytest.mark.slow), pytest.param(5, 1, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("symbol", KINDS)
def test_wrong_snapshots_are_rejected_and_no_true_one_is(symbol: str, defect: str, length: int, cut: int) -> None:
    """A run of wrong snapshots in place of true ones in mid-session; later ones are true again."""
    ticks, change = day(symbol), DEFECTS[defect]
    wrong = [change(t) for t in ticks[9 : 9 + length]]
    kept, rejected, _ = play(symbol, [*ticks[:9], *wrong, *ticks[9 + length :]], cut)
    assert (kept, rejected) == (keys([*ticks[:9], *ticks[9 + length :]]), length)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("symbol", ["600005.SH", "113050.SH", "510300.SH"])
def test_a_wrong_beginning_of_the_day_does_not_block_it(symbol: str, defect: str, length: int) -> None:
    ticks, change = day(symbol), DEFECTS[defect]
    wrong = [change(t) for t in ticks[1 : 1 + length]]
    kept, rejected, _ = play(symbol, [ticks[0], *wrong, *ticks[1 + length :]], 1)
    if defect == "volume and amount ÷10":
        assert kept[-1] == keys(ticks)[-1]  # smaller than what follows: it cannot be told from a true one
    else:
        assert (kept, rejected) == (keys([ticks[0], *ticks[1 + length :]]), length)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("symbol", ["600005.SH", "113050.SH"])
def test_on_a_thin_day_fewer_wrong_snapshots_than_true_ones_never_win(symbol: str, defect: str) -> None:
    """Up to four wrong ones that agree, after one to six true ones, with none to six true ones after them."""
    if defect == "volume and amount ÷10":
        return  # as good a story as the true one, and sometimes the longer one
    ticks, change = day(symbol, seed=3), DEFECTS[defect]
    for before, length, after in itertools.product((1, 2, 3, 6), (1, 2, 3, 4), (0, 1, 2, 3, 6)):
        plausible = defect == "volume and amount ×10" and after == 0  # it may have traded so much
        if length >= before + after or plausible:
            continue
        use = ticks[1 : 1 + before + length + after]
        true = [ticks[0], *use[:before], *use[before + length :]]
        kept, rejected, _ = play(symbol, [*true, *map(change, use[before : before + length])], 1)
        assert (kept, rejected) == (keys(true), length), (before, length, after)


@pytest.mark.parametrize("seconds", [600, -600])
def test_a_wrong_time_stamp_costs_its_own_tick_only(seconds: int) -> None:
    ticks = day("600005.SH", 60)
    wrong = later(seconds)(ticks[20])
    passed = sum(abs(t["time"] - ticks[20]["time"]) < 600_000 for t in ticks) // 2
    kept, rejected, _ = play("600005.SH", [*ticks[:20], *ticks[21:], wrong], 1)
    assert passed > 3, "the stamp must pass some true ones"
    assert (kept, rejected) == (keys([*ticks[:20], *ticks[21:]]), 1)


def test_five_minutes_of_wrong_time_stamps_do_not_overrule_what_came_before() -> None:
    """Every tick of a stretch is stamped 330 s early: they agree with each other, but they are not the longer story."""
    ticks = [{**t, "time": MIDNIGHT + 36_000_000 + 3000 * n} for n, t in enumerate(day("600005.SH", 300)[2:])]
    edge = Edge(Memory(Universe(["600005.SH"]), 60.0), by_first_tick=True)
    shown = [later(-330)(t) if 150 <= n < 250 else t for n, t in enumerate(ticks)]
    outcomes = [edge.process([Received(1, {"600005.SH": t})], None) for t in shown]
    assert net([*outcomes, edge.flush()]) == (keys([*ticks[:150], *ticks[250:]]), 100)
    assert edge.doubts.overturned == 0


def test_days_without_limits_are_accepted() -> None:
    """An IPO in a recording, where nobody knows the listing date: the price is far beyond what the rule allows."""
    ticks = [put(lastClose=3.0)(t) for t in day("600005.SH")]
    kept, rejected, _ = play("600005.SH", ticks, 1)
    assert (kept, rejected) == (keys(ticks), 0)


def test_the_terminal_s_own_limits_are_never_overruled() -> None:
    ticks = day("600005.SH")
    wrong = [times(10, "high")(t) for t in ticks[9:20]]
    known = {"UpStopPrice": 10.34, "DownStopPrice": 8.46, "PreClose": 9.4, "TradingDay": "20250605"}
    kept, rejected, edge = play("600005.SH", [*ticks[:9], *wrong, *ticks[20:]], 1, **known)
    assert (kept, rejected, edge.doubts.overturned) == (keys([*ticks[:9], *ticks[20:]]), len(wrong), 0)


@pytest.mark.parametrize("lot", [1, 10])
def test_another_unit_all_day_is_found_by_amount(lot: int) -> None:
    """A stock whose lots are given as shares (or as tens) from the first trade on."""
    ticks = [{**t, "volume": t["pvolume"] // lot, "pvolume": 0} for t in day("600005.SH")]
    edge = Edge(Memory(Universe(["600005.SH"]), 60.0), by_first_tick=True)
    outcomes = [edge.process([Received(1, {"600005.SH": t})], None) for t in ticks]
    kept, rejected = net(outcomes)
    assert (kept, rejected) == (keys(ticks), 0)
    totals = [v for o in outcomes if o.table is not None for v in o.table.column("total_volume").to_pylist()]
    assert totals == [t["volume"] * lot for t in ticks]


def test_what_is_held_and_what_can_be_withdrawn_survive_a_restart(settings: Settings) -> None:
    symbol = "600005.SH"
    ticks = day(symbol)
    wrong = times(10, "volume", "pvolume", "amount")(ticks[9])
    before = Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True)
    outcomes = [before.process([Received(1, {symbol: t})], None) for t in [*ticks[:9], wrong, *ticks[10:12]]]
    assert len(before.memory.held[symbol]) == 2
    checkpoint.save(settings, before.memory, {})
    known = checkpoint.load(settings, number_day(before.memory.day))
    after = Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True)
    after.memory.restore(known.day, known.covered_ms, known.states, known.held, known.carry)
    after.memory.assess = False
    outcomes += [after.process([Received(1, {symbol: t})], None) for t in ticks[12:]]
    assert net(outcomes) == (keys([*ticks[:9], *ticks[10:]]), 1)


def test_the_tail_of_the_stream_is_learned_with_what_was_withdrawn(settings: Settings) -> None:
    """A checkpoint older than a withdrawal: the withdrawn tick is not what the next one is compared with."""
    symbol = "600005.SH"
    ticks = day(symbol)
    wrong = times(10, "volume", "pvolume", "amount")(ticks[9])
    edge = Edge(Memory(Universe([symbol]), 60.0), by_first_tick=True)
    outcomes = [edge.process([Received(1, {symbol: t})], None) for t in [*ticks[:9], wrong, *ticks[10:14]]]
    known = checkpoint.Known(number_day(edge.memory.day))
    for outcome in outcomes:
        if outcome.table is not None:
            known.apply(outcome.table)
    assert [seen.time for seen in known.states[symbol].recent] == [t["time"] for t in [*ticks[:9], *ticks[10:14]]][-9:]


def test_a_slow_clock_of_ours_is_told_from_a_tick_from_the_future() -> None:
    """All ticks ahead: our clock. One ahead: the tick."""
    symbols = [f"{600000 + i}.SH" for i in range(80)]
    base = day("600005.SH")[5]
    for slow, lonely, rejected in ((0, 60, 1), (30, 60, 1), (30, 0, 0)):
        edge = Edge(Memory(Universe(symbols), 60.0))
        payload = {s: later(slow)(base) for s in symbols}
        payload[symbols[7]] = later(slow + lonely)(base)
        outcome = edge.process([Received(1, payload)], base["time"] + 500)
        assert [r["symbol"] for r in outcome.rejected] == [symbols[7]] * rejected, (slow, lonely)


@pytest.mark.parametrize(
    ("now", "stamp"), [("23:59:59", "24:00:01"), ("23:59:00", "33:30:00"), ("15:00:00", "34:00:00")]
)
def test_no_tick_of_tomorrow_begins_its_day(now: str, stamp: str) -> None:
    edge = Edge(Memory(Universe(["600005.SH"]), 60.0))
    first = day("600005.SH")[5]
    edge.process([Received(1, {"600005.SH": first})], first["time"])
    seconds = sum(int(part) * unit for part, unit in zip(stamp.split(":"), (3600, 60, 1), strict=True))
    clock = sum(int(part) * unit for part, unit in zip(now.split(":"), (3600, 60, 1), strict=True))
    ahead = {**first, "time": MIDNIGHT + seconds * 1000}
    outcome = edge.process([Received(1, {"600005.SH": ahead})], MIDNIGHT + clock * 1000)
    assert [r["reason"] for r in outcome.rejected] == ["bad_time"]
    assert not outcome.new_day


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**400, -(10**400), "20250605 10:00:01", MIDNIGHT + 36_000_000, MIDNIGHT + 36_000_001]),
    st.lists(st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.none()), max_size=7),
    st.dictionaries(st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers())), st.integers(), max_size=2),
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["600005.SH", "113050.SH", "000300.SH", "nonsense", 7]),
            st.one_of(ODD, st.dictionaries(st.sampled_from([*day("600005.SH")[0], "timetag", "x"]), ODD, max_size=4)),
            max_size=3,
        ),
        max_size=6,
    )
)
@example([{"600005.SH": {"timetag": "20250605 10:00:01", "time": "20250605"}}])
@example([{"600005.SH": {"askPrice": [float("nan"), float("inf"), -1.0], "pvolume": float("nan")}}])
@example([{"600005.SH": {"x": "\ud800", "volume": 10**5000}}])
def test_no_payload_raises_and_each_tick_is_counted_once(payloads: list[dict[Any, Any]]) -> None:
    """Whatever a callback delivers: a complete tick with some values replaced, or nothing like one."""
    whole = {s: day(s)[5] for s in KINDS}
    edge = Edge(Memory(Universe(sorted(KINDS)), 60.0))
    outcomes = []
    for number, payload in enumerate(payloads):
        ticks = {
            s: {**later(number)(whole[s]), **changes} if isinstance(changes, dict) and s in whole else changes
            for s, changes in payload.items()
        }
        outcomes.append(edge.process([Received(1_749_085_200_000, ticks)], MIDNIGHT + 50_000_000))
    outcomes.append(edge.flush())
    for outcome in outcomes:
        rejected_table(outcome.rejected, "s")
    accepted = sum(o.table.num_rows for o in outcomes if o.table is not None) - 2 * sum(o.withdrawn for o in outcomes)
    counted = accepted + sum(len(o.rejected) for o in outcomes) + sum(sum(o.filtered.values()) for o in outcomes)
    assert sum(o.received for o in outcomes) == counted


def test_a_range_left_from_the_day_before_does_not_hold_up_the_open() -> None:
    """Before the first trade a terminal may still show yesterday's high and low."""
    ticks = day("600005.SH")
    early = [{**ticks[0], "time": ticks[0]["time"] + n, "high": 12.9, "low": 9.0, "open": 9.5} for n in range(4)]
    edge = Edge(Memory(Universe(["600005.SH"]), 60.0), by_first_tick=True)
    outcomes = [edge.process([Received(1, {"600005.SH": t})], None) for t in [*early, *ticks[1:]]]
    assert all(o.table is not None for o in outcomes)
    assert net(outcomes) == (keys([*early, *ticks[1:]]), 0)
