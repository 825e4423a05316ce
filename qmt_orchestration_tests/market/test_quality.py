"""The score's formula and the vectorised rules."""

from __future__ import annotations

import numpy as np
import pytest

from qmt_orchestration.market import quality
from qmt_orchestration.market.schema import TickFlag


@pytest.mark.parametrize(
    ("flags", "score"),
    [
        (TickFlag(0), 1.0),
        (TickFlag.BASELINE | TickFlag.SNAPSHOT, 1.0),
        (TickFlag.LOTS_GUARD, 0.9),
        (TickFlag.OUTSIDE_LIMITS | TickFlag.UNIT_MISMATCH, 0.2),
        (TickFlag.OUTSIDE_LIMITS | TickFlag.UNIT_MISMATCH | TickFlag.OUTSIDE_SESSION | TickFlag.CLOCK_SKEW, 0.0),
    ],
)
def test_score_is_one_minus_the_penalties(flags: TickFlag, score: float) -> None:
    assert quality.quality_score(np.array([flags], np.uint32))[0] == pytest.approx(score)


def test_lots_guard_takes_lots_where_shares_cannot_be_right() -> None:
    shares, guarded = quality.shares_of(np.array([758613, 157398, 5701929]), np.array([75861284, 0, 5701929]))
    assert shares.tolist() == [75861284, 15739800, 570192900]
    assert guarded.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("clock", "outside"),
    [
        ("08:45", True),
        ("09:15", False),
        ("11:30", False),
        ("12:00", True),
        ("13:00", False),
        ("15:30", False),
        ("15:40", True),
    ],
)
def test_session_of_the_day(clock: str, outside: bool) -> None:
    hour, minute = map(int, clock.split(":"))
    time_ms = np.array([1_749_052_800_000 + (hour * 60 + minute) * 60_000])  # 2025-06-05 00:00 in Shanghai
    assert quality.outside_session(time_ms)[0] == outside


def test_average_price_outside_the_day_s_range_is_a_unit_mismatch() -> None:
    amount, low, high = np.array([1_139_000.0, 11_390.0]), np.array([11.3, 11.3]), np.array([11.4, 11.4])
    found = quality.unit_mismatch(amount, np.array([100_000, 100_000]), high, low, np.array([False, False]))
    assert found.tolist() == [False, True]
