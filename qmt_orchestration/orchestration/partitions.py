"""Trading days as Dagster partitions: one daily definition, weekends and exchange holidays excluded.

Minutes are rows in ClickHouse, not in partitions (Dagster advises against more than 100,000 partitions an asset;
minutes would pass that in two years). A partition key is a trading day, ``YYYY-MM-DD``, Asia/Shanghai, never
``now().date()``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime
from importlib.metadata import version

import dagster as dg

from qmt_orchestration.files import replace_file
from qmt_orchestration.market import calendar
from qmt_orchestration.market.schema import TZ
from qmt_orchestration.settings import Settings

WEEKENDS = "0 0 * * 0,6"  # cron: midnight of Saturdays and Sundays


def trading_day_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Every trading day from ``settings.first_day`` on; today's partition exists from midnight on
    (``end_offset=1``)."""
    first = settings.first_day
    return dg.DailyPartitionsDefinition(
        start_date=first.isoformat(),
        timezone=TZ,
        end_offset=1,
        exclusions=[WEEKENDS, *(datetime(d.year, d.month, d.day) for d in holidays(settings) if d >= first)],  # noqa: DTZ001 (Dagster adds the zone)
    )


def holidays(settings: Settings) -> list[date]:
    """Weekdays on which the exchanges are closed, as far as the calendar reaches.

    Reading the calendar costs a second and a half (it imports pandas) and every run imports this code, so the list is
    kept in ``data_dir/cache``, named after the calendar's version. The cache is an aid: without write access it is
    computed again. Holidays of the settings come on top.
    """
    cache = settings.data_dir / "cache" / f"holidays-{version('exchange-calendars')}.json"
    try:
        found = [date.fromisoformat(text) for text in json.loads(cache.read_text())]
    except (OSError, ValueError):
        found = calendar.closed_weekdays(date(2005, 1, 4))
        with suppress(OSError):
            replace_file(cache, json.dumps([str(d) for d in found]))
    return [*found, *(day for day in settings.holidays if day > found[-1])]


def require_partition(partitions: dg.DailyPartitionsDefinition, day: date) -> str:
    """The partition key of *day*.

    Raises ValueError for a holiday or a day outside the partitions: Dagster itself would silently take the next window.
    """
    key = day.isoformat()
    if not partitions.has_partition_key(key):
        raise ValueError(
            f"{key} is no partition: it is no trading day, or lies before QMT_FIRST_DATE "
            f"({partitions.start.date()}) or after tomorrow"
        )
    return key


def days_of_tags(tags: Mapping[str, str], partitions: dg.DailyPartitionsDefinition) -> list[date]:
    """The days a run is for, from its partition tags: one day or a range (holidays inside it left out)."""
    single = tags.get("dagster/partition")
    if single:
        return [date.fromisoformat(single)]
    first, last = tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")
    if not first or not last:
        raise ValueError("the run has no partition: launch it for a trading day or a range of them")
    keys = partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    return [date.fromisoformat(key) for key in keys]
