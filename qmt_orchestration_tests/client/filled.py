"""A small filled warehouse for the tests of queries: three symbols, two days of ticks and bars, factors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from qmt_orchestration.client import reading
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.orchestration import market

DAYS = (date(2025, 6, 4), date(2025, 6, 5))
SYMBOLS = market.SYMBOLS
EX_DATE = date(2025, 6, 5)
INTEREST = 0.3


@contextmanager
def database(engine_settings: Settings, data_dir: Path) -> Iterator[tuple[Settings, Any]]:
    """A migrated database of its own on the session's engines, dropped in the end."""
    name = f"qmt_{uuid4().hex[:12]}"
    settings = engine_settings.model_copy(update={"data_dir": data_dir, "clickhouse_database": name})
    migrate(settings)
    with connect(settings) as client:
        yield settings, client
        reading.close()
        client.command(f"DROP DATABASE IF EXISTS {name} SYNC")


@contextmanager
def warehouse(engine_settings: Settings, data_dir: Path) -> Iterator[tuple[Settings, Any]]:
    """`database`, filled."""
    with database(engine_settings, data_dir) as (settings, client):
        for day in DAYS:
            market.insert_ticks(client, market.ticks(day))
            market.make_bars(client, day)
            market.insert_instruments(client, day)
        factors = [[SYMBOLS[0], EX_DATE, INTEREST, 10.3 / 10.0]]
        client.insert("adjust_factors", factors, column_names=["symbol", "ex_date", "interest", "dr"])
        yield settings, client
