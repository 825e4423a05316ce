"""One test per fact of a minute bar (docs/bars.md), on hand-made ticks through the real tables."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from qmt_orchestration.market.periods import intraday
from qmt_orchestration.market.sessions import at
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import (
    DAY,
    SYMBOL,
    bar,
    baseline,
    clock,
    made,
    ohlcv,
    rows,
    store,
    tick,
    with_day_range,
)

OPENING = [tick("09:25:00", 10.0, 1000), tick("09:29:57", 10.0, 1000)]
END = [tick("15:00:03", 10.2, 9000, high=10.5, low=9.5)]


def test_virtual_prices_before_the_match_make_no_bar_and_the_opening_call_is_the_row_of_0930(clickhouse: Any) -> None:
    virtual = [tick("09:20:00", 11.0, 0, high=0.0, low=0.0), tick("09:24:57", 9.1, 0, high=0.0, low=0.0)]
    made(clickhouse, [*virtual, *OPENING, tick("09:31:03", 10.1, 1500)])
    assert ohlcv(bar(clickhouse, "09:30")) == (10.0, 10.0, 10.0, 10.0, 1000)
    assert bar(clickhouse, "09:30")["ticks"] == 2


def test_no_0930_row_without_an_opening_trade_and_nothing_before_the_first_trade(clickhouse: Any) -> None:
    made(clickhouse, [tick("09:20:00", 10.0, 0), tick("10:00:30", 10.1, 500), tick("10:02:30", 10.1, 500)])
    assert [f"{r[1]:%H:%M}" for r in rows(clickhouse)] == ["10:01", "10:02"]
    assert bar(clickhouse, "10:01")["vol"] == 500, "the first trade of the day is minus 0"


@pytest.mark.parametrize(
    ("when", "label"),
    [
        ("09:30:00", "09:31"),
        ("09:31:00", "09:32"),
        ("11:29:59.999", "11:30"),
        ("11:30:00", "11:30"),
        ("11:30:00.5", "11:30"),
        ("11:30:59", "11:30"),
        ("12:59:58", "11:30"),
        ("13:00:00", "13:01"),
        ("14:59:00", "15:00"),
        ("15:00:03", "15:00"),
        ("15:04:59", "15:00"),
    ],
)
def test_a_tick_at_a_boundary_belongs_to_the_minute_that_starts_there_except_at_the_ends(
    clickhouse: Any, when: str, label: str
) -> None:
    made(clickhouse, [*OPENING, tick(when, 10.3, 3000), tick("15:10:00", 10.3, 3000, symbol="600000.SH")])
    assert bar(clickhouse, label)["vol"] == 2000


def test_all_241_rows_from_the_first_trade_on(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, *END])
    assert len(rows(clickhouse)) == 241
    assert [r[8] for r in rows(clickhouse)].count("filled") == 239


def test_a_minute_without_a_trade_is_filled_with_the_previous_close(clickhouse: Any) -> None:
    made(
        clickhouse, [*OPENING, tick("09:30:30", 10.4, 2000), tick("09:31:30", 10.4, 2000), tick("09:33:30", 10.5, 2100)]
    )
    filled = bar(clickhouse, "09:32")
    assert ohlcv(filled) == (10.4, 10.4, 10.4, 10.4, 0)
    assert (filled["source"], filled["ticks"], filled["quality_score"]) == ("filled", 1, 1.0)
    unseen = bar(clickhouse, "09:33")
    assert (unseen["source"], unseen["ticks"], unseen["quality_score"]) == ("filled", 0, 0.5)


def test_a_high_reached_between_two_snapshots_belongs_to_the_minute_in_which_it_rose(clickhouse: Any) -> None:
    ticks = [tick("09:30:30", 10.1, 1500, high=10.1, low=10.0), tick("09:31:30", 10.2, 2000, high=10.9, low=9.7)]
    made(clickhouse, [*OPENING, *ticks, tick("09:32:30", 10.2, 2500, high=10.9, low=9.7), tick("09:33:30", 10.2, 2500)])
    assert ohlcv(bar(clickhouse, "09:32")) == (10.2, 10.9, 9.7, 10.2, 500)
    assert ohlcv(bar(clickhouse, "09:33")) == (10.2, 10.2, 10.2, 10.2, 500), "an old extreme is no part of it"


def test_the_closing_call_is_flat_although_snapshots_at_1500_repeat_the_last_price(clickhouse: Any) -> None:
    ticks = [tick("14:56:57", 10.0, 5000), tick("14:57:03", 10.0, 5200), tick("15:00:00", 10.0, 5200)]
    made(clickhouse, [*OPENING, *ticks, tick("15:00:03", 10.4, 9000)])
    assert bar(clickhouse, "14:58")["vol"] == 200
    assert bar(clickhouse, "14:59")["source"] == "filled"
    assert ohlcv(bar(clickhouse, "15:00")) == (10.4, 10.4, 10.4, 10.4, 3800)


def test_a_fund_that_trades_to_the_end_has_a_real_1500_bar(clickhouse: Any) -> None:
    ticks = [tick("14:58:57", 10.0, 5000), tick("14:59:03", 10.1, 5200), tick("14:59:57", 9.9, 5300)]
    made(clickhouse, [*OPENING, *ticks, tick("15:00:00", 10.2, 6000)])
    assert ohlcv(bar(clickhouse, "15:00")) == (10.1, 10.2, 9.9, 10.2, 1000)


DAILY = "SELECT vol, after_hours_vol, after_hours_amount, amount, close, source FROM bars_1d"


def test_after_hours_growth_never_reaches_the_1500_bar_and_has_its_own_columns(clickhouse: Any) -> None:
    ticks = [*OPENING, *END, tick("15:05:00", 10.2, 9400), tick("15:30:00", 10.2, 9900)]
    made(clickhouse, [{**t, "symbol": "300750.SZ"} for t in ticks])
    assert bar(clickhouse, "15:00", "300750.SZ")["vol"] == 8000
    bars.roll_up(clickhouse, DAY, "1d")
    assert clickhouse.query(DAILY).result_rows == [(9000, 900, 9000.0, 90000.0, 10.2, "live")]


@pytest.mark.parametrize(
    ("symbol", "day", "after"),
    [
        ("300750.SZ", date(2020, 8, 21), 0),
        ("300750.SZ", date(2020, 8, 24), 400),
        ("688981.SH", date(2019, 7, 22), 400),
        ("600000.SH", date(2026, 7, 3), 0),
        ("600000.SH", date(2026, 7, 6), 400),
        ("510300.SH", date(2026, 7, 6), 0),
    ],
)
def test_after_hours_volume_is_known_by_board_and_date_and_else_belongs_to_the_day(
    clickhouse: Any, symbol: str, day: date, after: int
) -> None:
    ticks = [("09:25:00", 1000), ("15:00:03", 9000), ("15:20:00", 9400)]
    made(clickhouse, [tick(when, 10.0, shares, symbol=symbol, day=day) for when, shares in ticks], day)
    bars.roll_up(clickhouse, day, "1d")
    assert clickhouse.query(DAILY).result_rows[0][:2] == (9400 - after, after)


def test_a_close_that_only_a_later_snapshot_shows_is_the_days_and_qmts_bar_decides_where_it_cannot_be_told_apart(
    clickhouse: Any,
) -> None:
    late = tick("15:06:00", 10.3, 5200)
    made(clickhouse, [*OPENING, late, *({**t, "symbol": "300750.SZ"} for t in (*OPENING, late))])
    bars.roll_up(clickhouse, DAY, "1d")
    assert clickhouse.query(DAILY).result_rows == [(5200, 0, 0.0, 52000.0, 10.3, "live")] * 2
    columns = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    theirs = [["1d", s, at(DAY, 900), 10.0, 10.2, 10.0, 10.2, 5000, 50000.0] for s in (SYMBOL, "300750.SZ")]
    clickhouse.insert("qmt_bars", theirs, column_names=columns)
    bars.roll_up(clickhouse, DAY, "1d")
    found = clickhouse.query(DAILY + " ORDER BY symbol").result_rows
    assert [(r[0], r[5]) for r in found] == [(5200, "live"), (5000, "history")]


def test_the_day_has_its_own_open_high_low_close_from_the_last_tick(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, *END])
    bars.roll_up(clickhouse, DAY, "1d")
    found = clickhouse.query(
        "SELECT open, high, low, close, vol, pre_close, suspended, source FROM bars_1d"
    ).result_rows
    assert found == [(10.0, 10.5, 9.5, 10.2, 9000, 10.0, 0, "live")]


@pytest.mark.parametrize(("pvolume", "volume"), [(0, 20), (20, 20), (2047, 20), (1953, 20)])
def test_shares_are_pvolume_unless_it_disagrees_with_the_lots(clickhouse: Any, pvolume: int, volume: int) -> None:
    made(clickhouse, [tick("09:30:30", 10.0, 2000, pvolume=pvolume, volume=volume), tick("09:32:00", 10.0, 0)])
    assert bar(clickhouse, "09:31")["vol"] == (pvolume if pvolume > 100 else 2000)


def test_a_start_in_mid_session_is_a_baseline_and_invents_no_volume(clickhouse: Any) -> None:
    ticks = [baseline("10:00:20", 10.3, 50_000, high=10.8, low=9.6), tick("10:00:40", 10.4, 50_700, high=10.8, low=9.6)]
    made(clickhouse, [*ticks, tick("10:02:00", 10.4, 50_700, high=10.8, low=9.6)])
    first = bar(clickhouse, "10:01")
    assert ohlcv(first) == (10.4, 10.4, 10.4, 10.4, 700), "neither volume nor extremes of the time before"
    assert first["quality_score"] == 0.5, "part of the minute was not seen"
    assert len(rows(clickhouse)) == 2


def test_a_baseline_alone_is_a_filled_minute_at_the_price_it_tells(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, baseline("10:00:20", 10.3, 50_000), tick("10:05:00", 10.3, 50_000)])
    assert ohlcv(bar(clickhouse, "10:01")) == (10.3, 10.3, 10.3, 10.3, 0)
    assert sum(r[6] for r in rows(clickhouse)) == 1000, "the gap is not booked to any minute"


def test_the_base_is_the_last_baseline_of_a_minute_with_two_gaps(clickhouse: Any) -> None:
    ticks = [tick("10:00:03", 10.0, 1100), baseline("10:00:20", 10.0, 1500), tick("10:00:23", 10.0, 1600)]
    made(clickhouse, [*OPENING, *ticks, baseline("10:00:40", 10.0, 2000), tick("10:00:43", 10.0, 2100), *END])
    assert bar(clickhouse, "10:01")["vol"] == 100


def test_a_snapshot_seen_before_the_restart_is_no_gap(clickhouse: Any) -> None:
    """A restarted feed gets the last snapshot of an illiquid symbol again: its minute keeps its volume."""
    seen = [*OPENING, tick("10:00:20", 10.3, 5000), tick("10:00:20", 10.3, 5000, symbol="000002.SZ")]
    made(clickhouse, [*seen, tick("10:30:00", 10.3, 0, symbol="600000.SH")])
    before = rows(clickhouse)
    made(clickhouse, [baseline("10:00:20", 10.3, 5000)])
    assert rows(clickhouse) == before
    assert bar(clickhouse, "10:01")["vol"] == 4000


def test_a_restart_with_state_before_the_first_trade_counts_that_trade_in_full(clickhouse: Any) -> None:
    made(clickhouse, [baseline("09:40:00", 10.0, 0), tick("10:00:20", 10.0, 700), tick("10:02:00", 10.0, 700)])
    assert bar(clickhouse, "10:01")["vol"] == 700


def test_a_suspended_symbol_has_no_minutes_and_one_daily_row_that_says_so(clickhouse: Any) -> None:
    made(clickhouse, [tick("09:15:00", 0.0, 0, openInt=1, symbol="000003.SZ"), *OPENING, *END])
    assert {r[0] for r in rows(clickhouse)} == {SYMBOL}
    bars.roll_up(clickhouse, DAY, "1d")
    found = clickhouse.query("SELECT close, vol, source, suspended FROM bars_1d WHERE symbol = '000003.SZ'").result_rows
    assert found == [(10.0, 0, "filled", 1)]


def test_a_suspension_known_from_the_instrument_list_alone_has_its_daily_row(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, *END])
    columns = ["day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended", "listed"]
    listed = [[DAY, "000004.SZ", "n", "sz_main", 7.5, 8.25, 6.75, 1, 1], [DAY, SYMBOL, "n", "sz_main", 10, 11, 9, 0, 1]]
    clickhouse.insert("instruments", listed, column_names=columns)
    bars.roll_up(clickhouse, DAY, "1d")
    found = clickhouse.query("SELECT symbol, close, suspended FROM bars_1d ORDER BY symbol").result_rows
    assert found == [(SYMBOL, 10.2, 0), ("000004.SZ", 7.5, 1)]


def test_a_halt_inside_the_day_is_filled_and_goes_on(clickhouse: Any) -> None:
    halt = [tick("10:00:20", 10.3, 5000), tick("10:00:30", 10.3, 5000, openInt=17), tick("10:30:10", 10.6, 6000)]
    made(clickhouse, [*OPENING, *halt, tick("10:32:00", 10.6, 6000)])
    assert ohlcv(bar(clickhouse, "10:15")) == (10.3, 10.3, 10.3, 10.3, 0)
    assert ohlcv(bar(clickhouse, "10:31")) == (10.6, 10.6, 10.6, 10.6, 1000)


def test_an_empty_morning_starts_in_the_afternoon(clickhouse: Any) -> None:
    made(clickhouse, [tick("09:30:00", 0.0, 0), tick("13:00:00", 10.0, 300), tick("15:00:03", 10.0, 300)])
    assert [f"{r[1]:%H:%M}" for r in rows(clickhouse)][:2] == ["13:01", "13:02"]
    assert len(rows(clickhouse)) == 120


def test_backward_volume_that_slipped_through_makes_no_negative_bar(clickhouse: Any) -> None:
    ticks = [tick("10:00:20", 10.3, 5000), tick("10:01:20", 10.2, 4000), tick("10:02:20", 10.4, 6000)]
    made(clickhouse, [*OPENING, *ticks, tick("10:04:00", 10.4, 6000)])
    assert [bar(clickhouse, label)["vol"] for label in ("10:01", "10:02", "10:03")] == [4000, 0, 1000]


def test_a_replay_of_yesterday_lands_on_yesterday(clickhouse: Any) -> None:
    yesterday = date(2025, 6, 4)
    made(clickhouse, [tick("14:59:57", 9.0, 77_000, day=yesterday), *OPENING, tick("09:32:00", 10.0, 1000)])
    assert [r[6] for r in rows(clickhouse)] == [1000, 0, 0][: len(rows(clickhouse))]


def test_a_late_tick_reopens_its_minute_and_the_next_with_a_new_version(clickhouse: Any, settings: Any) -> None:
    day = with_day_range(
        [*OPENING, tick("10:00:20", 10.3, 5000), tick("10:03:20", 10.4, 6000), tick("10:05:00", 10.4, 6000)]
    )
    store(clickhouse, day)
    now = clock("10:05:30")
    (first,) = bars.pending(clickhouse, settings, now)
    written = bars.finalize(clickhouse, first.day, first.first_frame, first.last_frame)
    for period in intraday(Settings().rollup_periods):
        bars.roll_up(clickhouse, DAY, period, first.first_frame, first.last_frame)
    assert bars.pending(clickhouse, settings, now) == []
    store(clickhouse, [tick("10:01:40", 10.2, 5400)])
    (again,) = bars.pending(clickhouse, settings, now)
    assert (again.first_frame, again.frames) == (at(DAY, 602), 1)
    patched = bars.finalize(clickhouse, again.day, again.first_frame, again.last_frame)
    assert patched.version > written.version
    assert patched.rows == 3, "10:02 trades now, 10:03 is filled at its close, 10:04 has less volume"
    assert [bar(clickhouse, m)["vol"] for m in ("10:01", "10:02", "10:03", "10:04")] == [4000, 400, 0, 600]
    assert bar(clickhouse, "10:03")["close"] == 10.2
