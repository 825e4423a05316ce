"""Closed days: what was deleted or changed later is found, what was rightly written later is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars, verify
from qmt_orchestration_tests.warehouse.market_day import DAY, made, store, tick

TODAY = DAY + timedelta(days=3)
OTHER = "600000.SH"
DAMAGE = {
    "ticks": "DELETE FROM ticks WHERE symbol = '600000.SH' AND time < '2025-06-05 09:26:00'",
    "bars_1m": "ALTER TABLE bars_1m UPDATE vol = vol + 1 WHERE symbol = '600000.SH' AND frame = '2025-06-05 10:07:00'",
    "bars_5m": "DELETE FROM bars_5m WHERE symbol = '600000.SH' AND frame = '2025-06-05 10:05:00'",
    "bars_1d": "DELETE FROM bars_1d WHERE symbol = '600000.SH'",
}


def day(client: Any) -> None:
    ticks = [tick("09:25:00", 10.0, 1000), tick("09:30:30", 10.2, 1500), tick("15:00:03", 10.1, 9000)]
    made(client, [*ticks, *({**t, "symbol": OTHER} for t in ticks)])
    for period in ("5m", "30m", "1d"):
        bars.roll_up(client, DAY, period)


@pytest.mark.parametrize("table", DAMAGE)
def test_what_was_deleted_or_changed_is_found_the_next_night_and_until_the_day_is_made_again(
    clickhouse: Any, settings: Settings, table: str
) -> None:
    day(clickhouse)
    chosen = settings.model_copy(update={"ticks_ttl_days": 30})
    assert verify.watch(clickhouse, chosen, TODAY) == [], "the first night records"
    assert verify.verify(clickhouse, chosen, [DAY], TODAY) == ([], [])
    clickhouse.command(DAMAGE[table])
    for _ in range(2):
        (found,) = verify.watch(clickhouse, chosen, TODAY)
        assert (found.day, found.table, found.symbols, found.first[0][0]) == (DAY, table, 1, OTHER)
    verify.record(clickhouse, chosen, DAY)
    assert verify.watch(clickhouse, chosen, TODAY) == []


def late_tick(client: Any) -> None:
    store(client, [tick("10:07:20", 10.1, 2000)])
    bars.finalize(client, DAY)
    bars.roll_up(client, DAY, "5m")


def merged(client: Any) -> None:
    for table in ("ticks", "bars_1m", "bars_5m"):
        client.command(f"OPTIMIZE TABLE {table} FINAL")


@pytest.mark.parametrize("change", [late_tick, merged, day])
def test_what_was_rightly_written_later_is_no_finding(
    clickhouse: Any, settings: Settings, change: Callable[[Any], None]
) -> None:
    day(clickhouse)
    chosen = settings.model_copy(update={"ticks_ttl_days": 30})
    verify.watch(clickhouse, chosen, TODAY)
    change(clickhouse)
    assert verify.watch(clickhouse, chosen, TODAY) == []


def test_a_day_that_was_never_recorded_is_named_and_today_is_left_alone(clickhouse: Any, settings: Settings) -> None:
    day(clickhouse)
    assert verify.verify(clickhouse, settings, [DAY], TODAY) == ([], [DAY])
    assert verify.watch(clickhouse, settings, DAY) == []
    assert clickhouse.query("SELECT count() FROM day_sums").first_row[0] == 0
