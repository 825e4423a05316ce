"""Price limits against the dated records of marina-rules, and the facts that are easy to get wrong."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal

import marina_rules as mr
import pytest

from qmt_orchestration.market.instruments import instrument_of
from qmt_orchestration.market.limits import is_st_name, limit_rates, limits_of, price_limits
from qmt_orchestration.market.symbols import Board, fund_of

#: (board, ST, trading day since listing) → scope and market of the oracle; None where it knows none on that date.
CASES = [
    (Board.SH_MAIN, False, 0, "main_board", "XSHG"),
    (Board.SZ_MAIN, False, 0, "main_board", "XSHE"),
    (Board.SH_MAIN, True, 0, "st_main", "XSHG"),
    (Board.SZ_MAIN, True, 0, "st_main", "XSHE"),
    (Board.CHINEXT, False, 0, "chinext", "XSHE"),
    (Board.CHINEXT, True, 0, "st_chinext", "XSHE"),
    (Board.STAR, False, 0, "star", "XSHG"),
    (Board.STAR, True, 0, "st_star", "XSHG"),
    (Board.BSE, False, 0, "bse", "BJSE"),
    (Board.SH_MAIN, False, 1, "ipo_day1_main", "XSHG"),
    (Board.SZ_MAIN, False, 1, "ipo_day1_main", "XSHE"),
    (Board.SH_MAIN, False, 1, "ipo_first5_main", "XSHG"),
    (Board.SZ_MAIN, False, 5, "ipo_first5_main", "XSHE"),
    (Board.CHINEXT, False, 3, "ipo_first5_chinext", "XSHE"),
    (Board.STAR, False, 5, "ipo_first5_star", "XSHG"),
    (Board.BSE, False, 1, "ipo_day1_bse", "BJSE"),
]


@pytest.mark.parametrize(("board", "st", "listed_day", "scope", "market"), CASES)
def test_limits_equal_the_dated_rules(board: Board, st: bool, listed_day: int, scope: str, market: str) -> None:
    rng = random.Random(f"{scope}{market}")
    compared = 0
    for _ in range(400):
        day = date(2011, 3, 1) + timedelta(days=rng.randrange(0, 5_700))
        close = rng.choice([rng.randrange(5, 100), rng.randrange(100, 50_000)]) / 100
        try:
            oracle = mr.limit_price(close, scope, day.isoformat(), market=market)
        except KeyError:
            continue  # no such rule on that date
        ours = price_limits(board, day, close, st=st, listed_day=listed_day)
        found = None if ours is None else (float(ours.up), float(ours.down))
        assert found == oracle, (close, day)
        compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    ("symbol", "scope"),
    [
        ("510300.SH", "etf"),
        ("184001.SZ", "etf"),
        ("588000.SH", "etf_20pct"),
        ("159915.SZ", "etf_20pct"),
        ("508000.SH", "reits"),
        ("180101.SZ", "reits"),
    ],
)
def test_limits_of_funds_have_three_decimals(symbol: str, scope: str) -> None:
    market = "XSHG" if symbol.endswith("SH") else "XSHE"
    rng = random.Random(f"{scope}{market}")
    for _ in range(200):
        close = rng.randrange(300, 150_000) / 1000
        ours = limits_of(instrument_of(symbol), date(2025, 6, 5), close)
        assert ours is not None
        assert (float(ours.up), float(ours.down)) == mr.limit_price(close, scope, "2025-06-05", market=market), close


@pytest.mark.parametrize(
    ("symbol", "fund"),
    [("510050.SH", False), ("588000.SH", True), ("159915.SZ", True), ("508000.SH", False), ("180101.SZ", False)]
    + [(other, None) for other in ("600000.SH", "000001.SH", "113050.SH", "204001.SH", "123001.SZ", "920002.BJ")],
)
def test_funds_by_code_and_nothing_else(symbol: str, fund: bool | None) -> None:
    assert fund_of(symbol) is fund


def test_half_up_in_decimals_not_in_floats() -> None:
    limits = price_limits(Board.SH_MAIN, date(2024, 1, 2), 1.15)
    assert limits is not None
    assert limits.up == Decimal("1.27")
    assert round(1.15 * 1.1, 2) == 1.26  # what floats would say


def test_st_on_the_main_board_is_ten_percent_from_2026_07_06() -> None:
    before = limit_rates(Board.SZ_MAIN, date(2026, 7, 3), st=True)
    after = limit_rates(Board.SZ_MAIN, date(2026, 7, 6), st=True)
    assert (before, after) == ((Decimal("0.05"),) * 2, (Decimal("0.10"),) * 2)


def test_sixth_day_after_listing_has_limits_again() -> None:
    assert price_limits(Board.STAR, date(2024, 1, 2), 10, listed_day=5) is None
    assert price_limits(Board.STAR, date(2024, 1, 2), 10, listed_day=6) is not None


@pytest.mark.parametrize(
    ("name", "st"), [("ST康美", True), ("*ST 信威", True), ("S*ST前锋", True), ("平安银行", False)]
)
def test_st_by_name(name: str, st: bool) -> None:
    assert is_st_name(name) is st


def test_no_limits_without_a_previous_close() -> None:
    with pytest.raises(ValueError, match="above 0"):
        price_limits(Board.SH_MAIN, date(2024, 1, 2), 0)
