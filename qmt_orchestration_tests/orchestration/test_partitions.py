"""Trading days as partitions: holidays are none, and the cache of the calendar changes nothing."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.orchestration.partitions import days_of_tags, holidays, require_partition, trading_day_partitions
from qmt_orchestration.settings import Settings


def test_partitions_are_exactly_the_trading_days(tmp_path: Path) -> None:
    keys = trading_day_partitions(Settings(data_dir=tmp_path, first_date="2020-01-02")).get_partition_keys()
    expected = calendar.trading_days(date(2020, 1, 2), date.fromisoformat(keys[-1]))
    assert keys == [d.isoformat() for d in expected]


def test_a_holiday_and_a_weekend_are_refused_by_name(tmp_path: Path) -> None:
    """`time_window_for_partition_key` of a holiday silently returns the next window; this must not."""
    partitions = trading_day_partitions(Settings(data_dir=tmp_path))
    for day in (date(2025, 10, 1), date(2025, 6, 7), date(2014, 12, 31)):
        with pytest.raises(ValueError, match=f"{day} is no partition"):
            require_partition(partitions, day)
    assert require_partition(partitions, date(2025, 6, 5)) == "2025-06-05"


def test_the_cache_holds_what_the_calendar_says(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = holidays(settings)
    (cache,) = (tmp_path / "cache").iterdir()
    assert holidays(settings) == first
    cache.write_text("half a file")
    assert holidays(settings) == first, "a damaged cache is computed again"


def test_days_of_a_run_come_from_its_tags(tmp_path: Path) -> None:
    partitions = trading_day_partitions(Settings(data_dir=tmp_path))
    assert days_of_tags({"dagster/partition": "2025-06-05"}, partitions) == [date(2025, 6, 5)]
    span = {"dagster/asset_partition_range_start": "2025-09-30", "dagster/asset_partition_range_end": "2025-10-09"}
    assert days_of_tags(span, partitions) == [date(2025, 9, 30), date(2025, 10, 9)]
    with pytest.raises(ValueError, match="no partition"):
        days_of_tags({}, partitions)


def test_partitions_begin_a_year_back_or_where_the_data_begins(tmp_path: Path) -> None:
    simulated = Settings(data_dir=tmp_path, feed="simulator", sim_date="2025-06-05")
    assert trading_day_partitions(simulated).get_first_partition_key() == "2024-06-03"
    live = Settings(data_dir=tmp_path, feed="xtquant")
    today = datetime.now(SHANGHAI).date()
    assert live.first_day == date(today.year - 1, today.month, 1)
    assert len(trading_day_partitions(live).get_partition_keys()) < 280
    simulated.keep_first_day(date(2024, 3, 5))
    assert trading_day_partitions(simulated).get_first_partition_key() == "2024-03-05"
    simulated.keep_first_day(date(2024, 5, 6))
    assert simulated.first_day == date(2024, 3, 5), "a later day changes nothing"
    assert Settings(data_dir=tmp_path, first_date="2020-01-02").first_day == date(2020, 1, 2), "the setting wins"
