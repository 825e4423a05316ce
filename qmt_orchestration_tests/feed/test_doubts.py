"""No single snapshot is believed: a day of true ticks with planted wrong ones, through the real edge.

What must come out: every true tick accepted and not withdrawn, every planted one rejected or withdrawn, each counted
once; however the feed is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from qmt_orchestration.feed.edge import Edge, Outcome, Received
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.schema import TickFlag
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


def net(outcomes: Sequence[Outcome]) -> tuple[list[tuple[Any, ...]], int]:
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


@pytest.mark.parametrize(("length", "cut"), [(1, 1), (2, 100), (5, 1), (5, 100)])
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
