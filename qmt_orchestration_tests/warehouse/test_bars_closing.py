"""What is pending when: closing on market time and by the clock, lost runs, days apart."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import pytest

from qmt_orchestration.market.periods import intraday
from qmt_orchestration.market.sessions import at
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import DAY, clock, made, rows, store, tick

OPENING = [tick("09:25:00", 10.0, 1000), tick("09:29:57", 10.0, 1000)]


def last_closed(client: Any, settings: Any, now: str, day: date = DAY) -> str | None:
    found = bars.closed_watermark(client, settings, day, clock(now))
    return f"{found:%H:%M}" if found else None


def test_a_minute_closes_when_any_tick_is_the_grace_past_its_end(clickhouse: Any, settings: Any) -> None:
    store(clickhouse, [*OPENING, tick("09:31:00.9", 10.0, 1000)])
    assert last_closed(clickhouse, settings, "09:31:01") == "09:30"
    store(clickhouse, [tick("09:31:01", 10.0, 1000, symbol="600000.SH")])
    assert last_closed(clickhouse, settings, "09:31:02") == "09:31"


@pytest.mark.parametrize(
    ("newest", "now", "closed"), [("11:29:59", "11:30:30", "11:30"), ("14:59:59", "15:00:30", "15:00")]
)
def test_the_ends_of_the_sessions_close_without_a_later_tick(
    clickhouse: Any, settings: Any, newest: str, now: str, closed: str
) -> None:
    store(clickhouse, [*OPENING, tick(newest, 10.0, 1000)])
    before = {"11:30": "11:29", "15:00": "14:59"}[closed]
    assert last_closed(clickhouse, settings, now[:-2] + "29") == before
    assert last_closed(clickhouse, settings, now) == closed


def test_ticks_that_are_late_in_mid_session_hold_their_minute_open(clickhouse: Any, settings: Any) -> None:
    """A stalled feed: what the clock closed without its ticks went out as half a bar, and again as a revision."""
    store(clickhouse, [*OPENING, tick("10:00:00.5", 10.0, 1000)])
    assert last_closed(clickhouse, settings, "10:20:00") == "09:59"
    assert last_closed(clickhouse, settings, "11:30:30") == "11:30", "the session is over: what is missing is a gap"


def test_minutes_of_the_closing_call_close_by_the_clock_because_the_market_is_silent(
    clickhouse: Any, settings: Any
) -> None:
    store(clickhouse, [*OPENING, tick("14:57:00.5", 10.0, 1000)])
    assert last_closed(clickhouse, settings, "14:57:29") == "14:56"
    assert [last_closed(clickhouse, settings, f"14:{m}:30") for m in (57, 58, 59)] == ["14:57", "14:58", "14:59"]


def test_the_clock_waits_seconds_of_the_wall_in_a_faster_market(clickhouse: Any, settings: Any) -> None:
    store(clickhouse, [*OPENING, tick("11:29:59", 10.0, 1000)])
    closed = [
        bars.closed_watermark(clickhouse, settings, DAY, clock(now), speed=20.0) for now in ("11:39:59", "11:40:00")
    ]
    assert closed == [at(DAY, 689), at(DAY, 690)]


def test_the_clock_closes_nothing_of_another_day(clickhouse: Any, settings: Any) -> None:
    store(clickhouse, [*OPENING, tick("10:29:58", 10.0, 1000)])
    other_day = clock("16:00:00", date(2025, 6, 6))
    (found,) = bars.pending(clickhouse, settings, other_day)
    assert (found.day, found.last_frame) == (DAY, at(DAY, 629))


def test_nothing_is_pending_before_the_first_minute_has_closed_or_without_ticks(clickhouse: Any, settings: Any) -> None:
    assert bars.pending(clickhouse, settings, clock("10:00:00")) == []
    store(clickhouse, [tick("09:20:00", 10.0, 0)])
    assert bars.pending(clickhouse, settings, clock("09:20:01")) == []


def test_a_lost_run_is_pending_again_and_so_is_a_run_killed_before_the_rollups(clickhouse: Any, settings: Any) -> None:
    store(clickhouse, [*OPENING, tick("09:40:02", 10.0, 2000)])
    now = clock("09:40:03")
    (found,) = bars.pending(clickhouse, settings, now)
    assert (found.first_frame, found.last_frame, found.frames) == (at(DAY, 570), at(DAY, 580), 11)
    bars.finalize(clickhouse, DAY, found.first_frame, found.last_frame)
    assert bars.pending(clickhouse, settings, now), "the 5m and 30m bars have not followed"
    bars.roll_up(clickhouse, DAY, "5m", found.first_frame, found.last_frame)
    bars.roll_up(clickhouse, DAY, "30m", found.first_frame, found.last_frame)
    assert bars.pending(clickhouse, settings, now) == []
    assert [f"{r[1]:%H:%M}" for r in rows(clickhouse, "bars_5m")] == ["09:35", "09:40"]
    assert rows(clickhouse, "bars_30m") == [], "10:00 has not closed"


def test_a_rollup_catches_up_with_minutes_that_an_earlier_run_left(clickhouse: Any, settings: Any) -> None:
    store(clickhouse, [*OPENING, tick("09:40:02", 10.0, 2000)])
    bars.finalize(clickhouse, DAY, at(DAY, 570), at(DAY, 580))
    store(clickhouse, [tick("09:46:02", 10.0, 2100)])
    bars.finalize(clickhouse, DAY, at(DAY, 581), at(DAY, 585))
    bars.roll_up(clickhouse, DAY, "5m", at(DAY, 581), at(DAY, 585))
    assert [f"{r[1]:%H:%M}" for r in rows(clickhouse, "bars_5m")] == ["09:35", "09:40", "09:45"]


def test_days_are_pending_oldest_first_and_a_late_tick_reopens_an_old_day(clickhouse: Any, settings: Any) -> None:
    old = date(2025, 6, 4)
    for day in (DAY, old):
        ticks = [tick("09:25:00", 10.0, 1000, day=day), tick("15:00:03", 10.0, 2000, day=day)]
        store(clickhouse, ticks)
    now = clock("15:10:00")
    assert [p.day for p in bars.pending(clickhouse, settings, now)] == [old, DAY]
    for day in (old, DAY):
        bars.finalize(clickhouse, day)
        for period in intraday(Settings().rollup_periods):
            bars.roll_up(clickhouse, day, period)
    assert bars.pending(clickhouse, settings, now) == []
    store(clickhouse, [tick("10:00:03", 10.0, 1500, day=old)])
    assert [(p.day, p.first_frame) for p in bars.pending(clickhouse, settings, now)] == [(old, at(old, 601))]


def test_repeating_a_run_writes_nothing(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, tick("15:00:03", 10.0, 2000)])
    before = clickhouse.query("SELECT max(version) FROM bars_1m").first_row
    assert bars.finalize(clickhouse, DAY).rows == 0
    assert clickhouse.query("SELECT max(version) FROM bars_1m").first_row == before


def test_a_day_computed_once_more_repairs_bars_that_differ_from_their_ticks_and_counts_them(clickhouse: Any) -> None:
    made(clickhouse, [*OPENING, tick("10:00:20", 10.2, 3000), tick("15:00:03", 10.0, 4000)])
    whole = rows(clickhouse)
    assert bars.recompute(clickhouse, DAY, at(DAY, 900)).rows == 0
    clickhouse.command(
        "INSERT INTO bars_1m SELECT * REPLACE (cum_volume + 7 AS cum_volume, version + 1 AS version) FROM bars_1m "
        "WHERE frame = '2025-06-05 10:01:00'"
    )
    assert bars.recompute(clickhouse, DAY, at(DAY, 900)).rows == 1, "a difference of the carry is one"
    differed = "SELECT argMax(differed, at) FROM rolled_up WHERE period = '1m'"
    assert clickhouse.query(differed).first_row == (1,)
    assert rows(clickhouse) == whole
    assert bars.recompute(clickhouse, DAY, at(DAY, 900)).rows == 0
    assert clickhouse.query(differed).first_row == (0,)


def test_market_time_is_that_of_the_k_th_symbol_not_of_one_clock_that_is_ahead(clickhouse: Any, settings: Any) -> None:
    market = [tick("09:40:00", 10.0, 1000, symbol=f"{600000 + n}.SH") for n in range(250)]
    store(clickhouse, [*market, tick("09:48:00", 10.0, 1000, symbol="000001.SZ")])
    assert last_closed(clickhouse, settings, "09:41:00") == "09:39"
    store(clickhouse, [tick("09:48:01", 10.0, 1100, symbol="000002.SZ")])
    assert last_closed(clickhouse, settings, "09:41:00") == "09:47", "two of 252 are 1 %"


def test_frames_asked_for_alone_are_computed_with_those_that_are_missing_before_them(clickhouse: Any) -> None:
    store(clickhouse, [*OPENING, tick("09:40:20", 10.2, 3000), tick("09:46:02", 10.2, 3100)])
    bars.finalize(clickhouse, DAY, at(DAY, 581), at(DAY, 585))
    assert [r[6] for r in rows(clickhouse)] == [1000, *[0] * 10, 2000, *[0] * 4]


def test_rows_of_the_rule_before_anything_is_final_equal_the_final_ones(clickhouse: Any) -> None:
    store(clickhouse, [*OPENING, tick("09:40:20", 10.2, 3000), tick("15:00:03", 10.2, 3100)])
    live = bars.live_bars(clickhouse, DAY, at(DAY, 580), at(DAY, 590)).to_pylist()
    bars.finalize(clickhouse, DAY)
    final = [dict(zip(live[0], r, strict=True)) for r in rows(clickhouse) if at(DAY, 580) <= r[1] <= at(DAY, 590)]
    assert [tuple(r.values()) for r in live] == [tuple(r.values()) for r in final]
    again = bars.live_bars(clickhouse, DAY, at(DAY, 580), at(DAY, 590), "000001.SZ").to_pylist()
    assert again == live
    assert bars.live_bars(clickhouse, DAY, at(DAY, 580), at(DAY, 590), "600000.SH").num_rows == 0


def test_a_day_without_ticks_is_empty_not_an_error(clickhouse: Any) -> None:
    assert bars.recompute(clickhouse, DAY, None).rows == 0
    assert bars.finalize(clickhouse, DAY).rows == 0
    assert [bars.roll_up(clickhouse, DAY, p).rows for p in ("5m", "30m", "1d")] == [0, 0, 0]
    assert bars.fill_from_history(clickhouse, DAY).rows == 0


def test_a_late_tick_is_noticed_by_when_it_was_stored(clickhouse: Any) -> None:
    store(clickhouse, [tick("09:25:00", 10.0, 1000), tick("09:40:10", 10.1, 2000)], seconds_ago=100)
    now = time.time()
    closed = clock("09:40:00")
    assert not bars.stored_late(clickhouse, closed, now - 50), "its ticks were stored before"
    store(clickhouse, [tick("09:40:20", 10.1, 2100)])
    assert not bars.stored_late(clickhouse, closed, now - 50), "of a frame that has not closed"
    store(clickhouse, [tick("09:35:20", 10.1, 1500)])
    assert bars.stored_late(clickhouse, closed, now - 50)
    assert bars.stored_late(clickhouse, clock("09:31:00") + 86_400_000, now - 50), "a day of the past"
