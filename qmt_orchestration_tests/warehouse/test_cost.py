"""What a minute costs late in the day: the statements that run every minute read its ticks, not the day's."""

from datetime import date
from typing import Any

import pytest

from benchmarks.rebuild import SNAPSHOTS, fill_day
from qmt_orchestration.market.sessions import at
from qmt_orchestration.quality.names import CHECKS
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import load_sql

DAY = date(2025, 6, 5)
SYMBOLS = 100
TICKS = SYMBOLS * SNAPSHOTS
LAST = at(DAY, 895)
#: Minute bars are a twentieth of the ticks; a check may read those of its day a few times.
BARS = SYMBOLS * 241


@pytest.fixture
def late(clickhouse: Any) -> Any:
    """A day's ticks with bars up to 14:56, and its instruments."""
    fill_day(clickhouse, DAY, SYMBOLS)
    clickhouse.command("OPTIMIZE TABLE ticks FINAL")
    bars.finalize(clickhouse, DAY)
    symbols = "SELECT DISTINCT toDate(frame), symbol, 'stock', 1 FROM bars_1m"
    clickhouse.command(f"INSERT INTO instruments (day, symbol, kind, listed) {symbols}")
    return clickhouse


def _read(client: Any, sql: str, **values: Any) -> int:
    asked = {name: value for name, value in values.items() if f"{{{name}:" in sql}
    return int(client.query(sql, parameters=asked).summary["read_rows"])


def test_a_minutes_checks_and_the_console_do_not_read_the_days_ticks(late: Any, settings: Settings) -> None:
    window = {"day": DAY, "first": f"{LAST:%F %T}", "last": f"{LAST:%F %T}", "shards": settings.stream_shards}
    read = {
        check.name: _read(late, load_sql(f"checks/{check.sql}"), **window, **check.parameters)
        for check in CHECKS
        if check.sql and check.asset == "bars_1m"
    }
    read["flowing"] = _read(late, load_sql("flowing", "console"), day=DAY, frame=int(LAST.timestamp()))
    assert {"rows_present", "no_missing_frames", "symbols_keep_ticking"} <= read.keys()
    assert {name: rows for name, rows in read.items() if rows > 4 * BARS + TICKS / 6} == {}


def test_the_console_sees_a_symbol_that_fell_silent_and_one_that_never_sent(late: Any) -> None:
    late.command(
        "DELETE FROM ticks WHERE symbol = '000003.SZ' AND time >= toDateTime('2025-06-05 14:00:00', 'Asia/Shanghai')"
    )
    late.command(
        "DELETE FROM bars_1m WHERE symbol = '000003.SZ' AND frame > toDateTime('2025-06-05 14:00:00', 'Asia/Shanghai')"
    )
    late.command("INSERT INTO instruments (day, symbol, kind, listed) VALUES ('2025-06-05', '000999.SZ', 'stock', 1)")
    ((exchange, kind, expected, flowing, flowed, never, newest, missing),) = late.query(
        load_sql("flowing", "console"), parameters={"day": DAY, "frame": int(LAST.timestamp())}
    ).result_rows
    assert (exchange, kind, expected, flowing, flowed, never) == (
        "SZ",
        "stock",
        SYMBOLS + 1,
        SYMBOLS - 1,
        SYMBOLS - 1,
        1,
    )
    assert newest == int(LAST.timestamp())
    assert missing == [("000003.SZ", "", int(at(DAY, 840).timestamp())), ("000999.SZ", "", 0)]
