"""Trading days beyond the end of the package's calendar: as the exchanges announced them, told by two settings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from qmt_orchestration.market import calendar
from qmt_orchestration.orchestration import partitions
from qmt_orchestration.settings import Settings, process_settings


@pytest.fixture
def end() -> Iterator[date]:
    """The last trading day that the package knows."""
    calendar.extend(None, ())
    yield calendar.horizon()
    calendar.extend(None, ())


def test_announced_days_follow_the_package(end: date, tmp_path: Path) -> None:
    weekdays = [day for i in range(1, 15) if (day := end + timedelta(days=i)).weekday() < 5]
    assert not any(calendar.is_trading_day(day) for day in weekdays)
    closed = weekdays[0]
    Settings(data_dir=tmp_path, calendar_until=weekdays[-1], holidays=(closed, end))
    assert calendar.horizon() == end, "reading settings changes nothing outside of them"
    settings = process_settings(data_dir=tmp_path, calendar_until=weekdays[-1], holidays=(closed, end))
    assert calendar.trading_days(end, weekdays[-1]) == [end, *weekdays[1:]], "within its range the package is right"
    assert calendar.horizon() == weekdays[-1]
    assert calendar.next_trading_day(end) == weekdays[1]
    with pytest.raises(calendar.NotATradingDay, match="QMT_HOLIDAYS"):
        calendar.next_trading_day(weekdays[-1])
    assert closed in partitions.holidays(settings)
    assert closed in partitions.holidays(settings), "from the cache, too"
    assert "QMT_CALENDAR_UNTIL" in settings.environment(), "services started by others know it"
    again = Settings(
        data_dir=tmp_path, **{name: settings.environment()[f"QMT_{name.upper()}"] for name in ("calendar_until",)}
    )
    assert again.calendar_until == weekdays[-1]


def test_holidays_alone_do_not_say_up_to_when_they_are_all(end: date) -> None:
    with pytest.raises(ValueError, match="QMT_CALENDAR_UNTIL"):
        Settings(holidays=(end + timedelta(days=1),))
    assert calendar.horizon() == end
