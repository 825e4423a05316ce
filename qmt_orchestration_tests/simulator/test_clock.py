"""Market time: the same for all processes, breaks skipped, and back again to wall time."""

from __future__ import annotations

import time
from datetime import date, datetime
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.running_time import DAY_MS
from qmt_orchestration.market.sessions import SHANGHAI, at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.stream.clock import HOLD_MS, KEPT, LEAD_MS, Schedule, Segment

ANCHOR = 1_700_000_000_000


def clock(**settings: object) -> SimClock:
    values = {"sim_anchor_ms": ANCHOR, "sim_start_time": "09:14:00", **settings}
    return SimClock(Settings(**values))  # type: ignore[arg-type]


def text(ms: int) -> str:
    return from_ms(ms).strftime("%Y-%m-%d %H:%M:%S")


def test_lunch_and_night_are_skipped() -> None:
    c = clock(sim_speed=60)
    assert text(c.market_ms_of(ANCHOR)) == "2025-06-05 09:14:00"
    assert text(c.market_ms_of(ANCHOR + 136_000)) == "2025-06-05 11:30:00"
    assert text(c.market_ms_of(ANCHOR + 138_000)) == "2025-06-05 13:00:00"
    assert text(c.market_ms_of(ANCHOR + 288_000)) == "2025-06-05 15:30:00"
    assert text(c.market_ms_of(ANCHOR + 290_000)) == "2025-06-06 09:15:00"
    assert text(c.market_ms_of(ANCHOR + 2 * 289_000)) == "2025-06-09 09:14:00"  # the weekend too


def test_a_second_start_goes_on_in_the_afternoon() -> None:
    assert text(clock(sim_start_time="13:45:10", sim_speed=20).market_ms_of(ANCHOR)) == "2025-06-05 13:45:10"
    assert text(clock(sim_start_time="12:10:00", sim_speed=20).market_ms_of(ANCHOR)) == "2025-06-05 12:59:00"


def test_speed_one_runs_through_the_breaks() -> None:
    c = clock(sim_speed=1, sim_start_time="11:29:00")
    assert text(c.market_ms_of(ANCHOR + 3_600_000)) == "2025-06-05 12:29:00"


def test_today_at_speed_one_is_the_wall_clock() -> None:
    today = datetime.now(SHANGHAI).date()
    if not is_trading_day(today):
        with pytest.raises(ValueError, match="no trading day"):
            SimClock(Settings(sim_speed=1, sim_date=today.isoformat()))
        return
    c = SimClock(Settings(sim_speed=1, sim_date=today.isoformat()))
    assert abs(c.now_ms() - time.time() * 1000) < 60_000


def test_at_speed_zero_the_whole_day_may_be_asked_for() -> None:
    assert text(clock(sim_speed=0).now_ms()) == "2025-06-05 15:31:00"


def test_a_bad_start_time_is_named() -> None:
    with pytest.raises(ValueError, match="QMT_SIM_START_TIME"):
        clock(sim_start_time="quarter past nine")


def test_a_running_day_has_289_minutes() -> None:
    assert DAY_MS == 289 * 60_000


@given(
    start=st.sampled_from((9 * 60 + 20, 11 * 60 + 29, 14 * 60 + 58, 15 * 60 + 30)),
    changes=st.lists(st.tuples(st.integers(500, 20_000), st.floats(0, 20)), max_size=30),
    reads=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2_500)), min_size=2, max_size=60),
)
def test_market_time_is_monotonic_for_readers_that_refresh_at_different_moments(
    start: int, changes: list[tuple[int, float]], reads: list[tuple[int, int]]
) -> None:
    """Four readers, each with a copy of some age below `HOLD_MS`: together they never see time run back, and two that
    look at the same moment see the same time."""
    schedule = Schedule((Segment(ANCHOR, to_ms(at(date(2025, 6, 5), start)), 5.0),))
    history, wall = [(ANCHOR, schedule)], ANCHOR
    for pause, speed in changes:
        wall += pause
        schedule = schedule.then(wall + LEAD_MS, speed)
        history.append((wall, schedule))
    seen, now = 0, ANCHOR
    for age, pause in reads:
        now += pause
        copies = [
            next(s for written, s in reversed(history) if written <= max(now - back, ANCHOR))
            for back in (age * HOLD_MS / 3, 0.0)
        ]
        one, other = (copy.market_ms(now) for copy in copies)
        assert one == other
        assert one >= seen
        seen = one


def test_a_schedule_jumps_over_lunch_only() -> None:
    schedule = Schedule((Segment(ANCHOR, to_ms(at(date(2025, 6, 5), 690)), 20.0),)).then(ANCHOR + 6_000, 3.0)
    assert text(schedule.market_ms(ANCHOR + 2_999)) == "2025-06-05 11:30:59"
    assert text(schedule.market_ms(ANCHOR + 3_000)) == "2025-06-05 12:59:00"
    assert text(schedule.market_ms(ANCHOR + 7_000)) == "2025-06-05 13:00:03"
    assert len(reduce(lambda s, n: s.then(ANCHOR + n, 1.0), range(50), schedule).segments) == KEPT
