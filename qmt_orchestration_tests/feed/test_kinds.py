"""Every kind of instrument at the edge: units, full scores, sectors."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any, ClassVar

import numpy as np
import pytest

from qmt_orchestration.feed import universe
from qmt_orchestration.feed.edge import Edge, Received
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.market.instruments import Kind, instrument_of, trading_of
from qmt_orchestration.market.limits import limits_of
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.kinds import COUNTS
from qmt_orchestration.simulator.reference import instrument
from qmt_orchestration.simulator.source import MarketSource

DAY = date(2025, 6, 5)


def test_a_simulated_market_of_all_kinds_passes_whole_with_the_right_units() -> None:
    source = MarketSource(Settings(sim_symbols=66, sim_kinds=tuple(kind.value for kind in COUNTS)))
    symbols = list(source.members.listed)
    details = {s: instrument(7, DAY, s, None) for s in symbols}
    edge = Edge(Memory(universe.Universe(symbols, details=details), 60.0))
    source.seek(to_ms(at(DAY, 554)))
    totals: dict[str, int] = {}
    scores: dict[str, float] = {}
    received = 0
    for due_ms, push in source.pushes(to_ms(at(DAY, 580))):
        wanted = {s: t for s, t in push.items() if s in edge.memory.universe.ids}
        outcome = edge.process([Received(due_ms, wanted)], due_ms)
        received += len(wanted)
        assert not outcome.rejected
        if outcome.table is None:
            continue
        for row in outcome.table.select(["symbol", "total_volume", "quality_score"]).to_pylist():
            totals[row["symbol"]] = row["total_volume"]
            scores[row["symbol"]] = min(row["quality_score"], scores.get(row["symbol"], 1.0))
    assert received > 5000
    assert edge.doubts.overturned == 0
    assert set(scores.values()) == {1.0}
    _, plan, _, _ = source._plan(DAY)
    for symbol, total in totals.items():
        row = plan.symbols.index(symbol)
        assert plan.cumulative[row, 9] <= total <= plan.cumulative[row, 12], symbol  # ten minutes of trade
    assert {instrument_of(s).kind for s in totals} == set(COUNTS)


class Terminal:
    """xtdata's sectors and details."""

    sectors: ClassVar = {"沪深A股": ["000001.SZ", "600000.SH"], "沪深ETF": ["510300.SH"], "空": []}

    def get_stock_list_in_sector(self, name: str, when: object = -1) -> list[str]:
        if name == "坏":
            raise Exception("no such sector")  # as xtquant does
        return self.sectors.get(name, [])

    def get_instrument_detail(self, symbol: str) -> dict[str, Any] | None:
        return None if symbol in ("600000.SH", "399999.SZ") else {"InstrumentID": symbol}

    def get_full_tick(self, markets: list[str]) -> dict[str, Any]:
        return {"300750.SZ": {}, "113050.SH": {}}


@pytest.mark.parametrize(
    ("settings", "expected", "named"),
    [
        ({"feed_sectors": ("沪深A股", "沪深ETF")}, {"000001.SZ", "600000.SH", "510300.SH"}, ""),
        ({"feed_sectors": ("沪深A股", "空", "北证A股", "坏")}, {"000001.SZ", "600000.SH"}, "3 of 4 sectors are empty"),
        ({"feed_sectors": ("沪深ETF",), "feed_symbols": ("000300.SH", "399999.SZ")}, {"510300.SH", "000300.SH"}, ""),
        ({"feed_sector": "沪深ETF", "feed_symbols": ("000300.SH",)}, {"510300.SH"}, ""),
        ({"feed_sectors": ("空",)}, {"300750.SZ"}, "no sector has members"),
    ],
)
def test_the_universe_is_the_members_of_the_sectors(
    settings: dict[str, Any], expected: set[str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = universe.load(Terminal(), Settings(**{"feed_symbols": (), **settings}))
    assert set(found.symbols) == expected
    assert named in caplog.text


@pytest.mark.parametrize(
    ("symbol", "kind", "board", "lot", "decimals"),
    [
        ("000001.SZ", Kind.STOCK, "sz_main", 100, 2),
        ("000001.SH", Kind.INDEX, "index", 1, 4),
        ("688981.SH", Kind.STOCK, "star", 100, 2),
        ("900901.SH", Kind.STOCK, "b_share", 100, 3),
        ("200011.SZ", Kind.STOCK, "b_share", 100, 2),
        ("920002.BJ", Kind.STOCK, "bse", 100, 2),
        ("899050.BJ", Kind.INDEX, "index", 1, 4),
        ("510300.SH", Kind.FUND, "etf", 100, 3),
        ("501018.SH", Kind.FUND, "lof", 100, 3),
        ("508000.SH", Kind.FUND, "reit", 100, 3),
        ("180101.SZ", Kind.FUND, "reit", 100, 3),
        ("113050.SH", Kind.CONVERTIBLE, "convertible", 10, 3),
        ("110801.SH", Kind.BOND, "bond", 10, 3),
        ("132018.SH", Kind.CONVERTIBLE, "exchangeable", 10, 3),
        ("123219.SZ", Kind.CONVERTIBLE, "convertible", 10, 3),
        ("124001.SZ", Kind.BOND, "bond", 10, 3),
        ("019547.SH", Kind.BOND, "treasury", 10, 3),
        ("204001.SH", Kind.REPO, "repo", 10, 3),
        ("131810.SZ", Kind.REPO, "repo", 10, 3),
        ("751000.SH", Kind.OTHER, "", 100, 2),
    ],
)
def test_what_a_symbol_is_follows_from_code_and_market(
    symbol: str, kind: Kind, board: str, lot: int, decimals: int
) -> None:
    about = instrument_of(symbol)
    assert (about.kind, about.board, about.lot_size, about.decimals) == (kind, board, lot, decimals)


@pytest.mark.parametrize(
    ("symbol", "day", "call", "end", "after_hours"),
    [
        ("600000.SH", date(2018, 8, 17), False, 900, False),
        ("600000.SH", date(2025, 6, 5), True, 897, False),
        ("600000.SH", date(2026, 7, 6), True, 897, True),
        ("688981.SH", date(2025, 6, 5), True, 897, True),
        ("300750.SZ", date(2020, 8, 21), True, 897, False),
        ("920002.BJ", date(2026, 7, 6), True, 897, False),
        ("510300.SH", date(2026, 7, 3), False, 900, False),
        ("510300.SH", date(2026, 7, 6), True, 897, False),
        ("159915.SZ", date(2025, 6, 5), True, 897, False),
        ("113050.SH", date(2026, 7, 6), False, 900, False),
        ("123219.SZ", date(2025, 6, 5), True, 897, False),
        ("204001.SH", date(2025, 6, 5), False, 930, False),
    ],
)
def test_sessions_by_kind_exchange_and_date(symbol: str, day: date, call: bool, end: int, after_hours: bool) -> None:
    trading = trading_of(symbol, day)
    assert (trading.closing_call, trading.continuous_end, trading.after_hours) == (call, end, after_hours)


@pytest.mark.parametrize(
    ("symbol", "day", "close", "listed", "limits"),
    [
        ("113050.SH", date(2022, 8, 1), "120.5", 0, ("144.600", "96.400")),
        ("113050.SH", date(2022, 7, 29), "120.5", 0, None),
        ("123219.SZ", date(2023, 6, 5), "100", 1, ("157.300", "56.700")),
        ("510300.SH", DAY, "4.003", 0, ("4.403", "3.603")),
        ("588000.SH", DAY, "1.001", 0, ("1.201", "0.801")),
        ("508000.SH", DAY, "2.5", 1, ("3.250", "1.750")),
        ("511880.SH", DAY, "0.001", 0, ("0.002", "0.000")),
        ("900901.SH", DAY, "0.425", 0, ("0.468", "0.383")),
        ("000300.SH", DAY, "3900", 0, None),
        ("204001.SH", DAY, "2.0", 0, None),
        ("600000.SH", DAY, "11.38", 0, ("12.52", "10.24")),
    ],
)
def test_limits_by_kind_and_date(
    symbol: str, day: date, close: str, listed: int, limits: tuple[str, str] | None
) -> None:
    found = limits_of(instrument_of(symbol), day, close, listed_day=listed)
    assert (found and (str(found.up), str(found.down))) == limits


def test_a_code_that_migrated_is_no_new_listing() -> None:
    assert universe.listed_day("20251009", date(2025, 10, 9)) == 0
    assert universe.listed_day("20251010", date(2025, 10, 10)) == 1


def test_without_limits_only_prices_far_from_the_previous_close_are_doubted() -> None:
    market = universe.Universe(["000300.SH"])
    assert market.day_limits("000300.SH", DAY, 3900.0) == (19_500.0, 780.0, False)
    assert np.isnan(market.day_limits("000300.SH", DAY, 0.0)[0])
