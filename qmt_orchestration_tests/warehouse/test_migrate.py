"""The schema: applied once, refused where the tables are those of another version."""

from __future__ import annotations

from typing import Any

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.migrate import OldSchema, migrate

OLD_TICKS = """CREATE TABLE ticks (symbol String, time DateTime64(3), pvolume Int64, amount Float64)
ENGINE = ReplacingMergeTree ORDER BY (symbol, time, pvolume, amount)"""


def test_migrating_again_changes_nothing(settings: Settings) -> None:
    assert migrate(settings)
    assert migrate(settings) == []


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (OLD_TICKS, r"ticks with the key \(symbol, time, pvolume, amount\)"),
        (
            "CREATE TABLE bars_1m (symbol String, frame DateTime) ENGINE = MergeTree ORDER BY (symbol, frame)",
            "bars_1m without the column cum_volume",
        ),
    ],
)
def test_tables_of_another_version_are_refused_and_left_alone(
    raw_clickhouse: Any, settings: Settings, table: str, found: str
) -> None:
    raw_clickhouse.command(table)
    with pytest.raises(OldSchema, match=found) as refused:
        migrate(settings)
    assert "QMT_CLICKHOUSE_DATABASE" in str(refused.value)
    assert raw_clickhouse.query("SHOW TABLES").row_count == 1
