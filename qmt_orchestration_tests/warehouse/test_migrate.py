"""The schema: applied once, brought over from the first edition, refused where the tables are those of nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from qmt_orchestration.feed.recorded import checked
from qmt_orchestration.market.sessions import at
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars, upgrade
from qmt_orchestration.warehouse.client import connect, statements
from qmt_orchestration.warehouse.migrate import OldSchema, UpgradeError, migrate
from qmt_orchestration.warehouse.recordings import read_ticks
from qmt_orchestration_tests.helpers import recordings
from qmt_orchestration_tests.warehouse.market_day import DAY, bar, baseline, made, rows, store, tick

NEXT, HISTORY_DAY = DAY + timedelta(days=1), date(2025, 6, 4)
TABLES = ("bars_1m", "bars_5m", "bars_30m", "bars_1d")
FIRST_EDITION = statements(Path(__file__).with_name("first_edition.sql").read_text())
#: A process that migrates until it is killed, after so many lines of progress.
KILLED = """
import os, signal, sys
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.migrate import migrate
def line(text, left=[int(sys.argv[2])]):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
migrate(Settings.model_validate_json(sys.argv[1]), line)
"""


@pytest.fixture(scope="module")
def now(engine_settings: Settings) -> Iterator[Any]:
    """This version's tables with two days of ticks, a gap repaired from history in one, and a day of history alone."""
    settings = engine_settings.model_copy(update={"clickhouse_database": "qmt_now"})
    migrate(settings)
    client = connect(settings)
    session = [(f"{h}:{m:02d}:30", 100 * (h * 60 + m - 560)) for h in (9, 10, 13, 14) for m in range(31, 58)]
    for day in (DAY, NEXT):
        for symbol in ("000001.SZ", "600519.SH"):
            store(client, [tick(t, 10 + v % 7 / 10, v, symbol=symbol, day=day) for t, v in session])
    last = [tick("15:00:03", 10.2, 99_900), tick("15:00:03", 10.2, 99_900, day=NEXT)]
    store(client, [baseline("14:59:10", 10.3, 99_000), *last])
    names = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    found = [(DAY, 13 * 60 + m) for m in range(5, 20)] + [(HISTORY_DAY, 570 + m) for m in range(30)]
    rows_of_qmt = [["1m", "000001.SZ", at(d, m), 10.0, 10.4, 9.9, 10.1, 300 + m, 3000.0 + m] for d, m in found]
    client.insert("qmt_bars", rows_of_qmt, column_names=names)
    for day in (HISTORY_DAY, DAY, NEXT):
        bars.finalize(client, day)
        bars.fill_from_history(client, day)
        for period in ("5m", "30m", "1d"):
            bars.roll_up(client, day, period)
    yield client
    client.command("DROP DATABASE qmt_now SYNC")


@pytest.fixture
def old(settings: Settings, now: Any) -> Iterator[Settings]:
    """Settings of a database of the first edition that holds the same ticks and bars as *now*."""
    before = make_first_edition(settings, now)
    yield before
    now.command(f"DROP DATABASE {before.clickhouse_database} SYNC")


def make_first_edition(settings: Settings, source: Any) -> Settings:
    """A database with the first edition's tables, filled from those of this version."""
    chosen = settings.model_copy(update={"clickhouse_database": f"{settings.clickhouse_database}_old"})
    source.command(f"CREATE DATABASE {chosen.clickhouse_database}")
    with connect(chosen) as client:
        for statement in FIRST_EDITION:
            client.command(statement)
        for table in ("ticks", *TABLES, "qmt_bars"):
            names = ", ".join(upgrade.COLUMNS.get(table) or columns(client, table))
            client.command(f"INSERT INTO {table} ({names}) SELECT {names} FROM {source.database}.{table}")
    return chosen


def columns(client: Any, table: str) -> list[str]:
    return [row[0] for row in client.query(f"DESCRIBE TABLE {table}").result_rows]


def contents(client: Any) -> dict[str, Any]:
    """Every bar, and every tick by its key of this version."""
    found: dict[str, Any] = {table: rows(client, table) for table in TABLES}
    found["ticks"] = client.query("SELECT * EXCEPT stored_at FROM ticks ORDER BY time, symbol, volume").result_rows
    found["minutes"] = client.query("SELECT * EXCEPT version FROM bars_1m ORDER BY symbol, frame").result_rows
    return found


def tables_left(client: Any) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows if "state" in row[0] or row[0].endswith("_v1")}


def test_migrating_again_changes_nothing(settings: Settings) -> None:
    assert migrate(settings)
    assert migrate(settings) == []


def test_the_first_editions_days_are_brought_over_with_the_bars_they_had(now: Any, old: Settings) -> None:
    told: list[str] = []
    migrate(old, told.append)
    with connect(old) as client:
        assert contents(client) == contents(now)
        assert not tables_left(client)
        assert bars.pending(client, old, 0) == [], "what was final is final"
        late = tick("10:40:59", 10.9, 6100, day=DAY)
        store(client, [late])
        assert bars.pending(client, old, 0)[0].first_frame == at(DAY, 641)
    assert [line.split(":")[0] for line in told[1:]] == [
        f"ticks of {DAY:%Y%m%d}", f"ticks of {NEXT:%Y%m%d}", f"bars of {DAY}", f"bars of {NEXT}",
    ]  # fmt: skip
    assert migrate(old) == []


def test_recorded_days_have_the_same_bars_of_every_period(clickhouse: Any, settings: Settings) -> None:
    days = [date(2022, 6, 1), date(2023, 2, 1)]
    for day in days:
        clickhouse.insert_arrow("ticks", checked(read_ticks(recordings() / f"ticks_{day:%Y%m%d}.parquet").table)[0])
        bars.finalize(clickhouse, day)
        for period in ("5m", "30m", "1d"):
            bars.roll_up(clickhouse, day, period)
    before = make_first_edition(settings, clickhouse)
    try:
        migrate(before)
        with connect(before) as client:
            assert contents(client) == contents(clickhouse)
    finally:
        clickhouse.command(f"DROP DATABASE {before.clickhouse_database} SYNC")


@pytest.mark.parametrize("lines", [2, 4])
def test_killed_between_two_days_it_goes_on(now: Any, old: Settings, lines: int) -> None:
    given = [old.model_dump_json(exclude={"redis_password", "clickhouse_password"}), str(lines)]
    env = {"QMT_CLICKHOUSE_PASSWORD": old.engine_password("clickhouse"), "PYTHONPATH": ":".join(sys.path), "PATH": ""}
    killed = subprocess.run([sys.executable, "-c", KILLED, *given], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    migrate(old)
    with connect(old) as client:
        assert contents(client) == contents(now)
        assert not tables_left(client)


class Stopped(Exception):
    """The process is gone."""


def test_stopped_before_any_of_its_statements_it_goes_on(
    now: Any, old: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run stops one statement later than the one before it."""
    left, stops = [0], 0

    def stopping(method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return method(*args, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("command", "insert"):
            patched.setattr(type(now), name, stopping(getattr(type(now), name)))
        while True:
            left[0] = stops
            try:
                migrate(old)
                break
            except Stopped:
                stops += 1
    assert stops > 10
    with connect(old) as client:
        assert contents(client) == contents(now)
        assert not tables_left(client)


def test_a_disk_too_full_for_a_day_is_said_before_anything_is_changed(
    now: Any, old: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "_DISK_PER_DAY", 1e12)
    with pytest.raises(UpgradeError, match=r"GB free .* found .* run `qmt migrate`"):
        migrate(old)
    with connect(old) as client:
        assert "bar_states_1m" in tables_left(client)


def test_a_newer_version_is_refused(clickhouse: Any, settings: Settings) -> None:
    clickhouse.insert("schema_versions", [["099_future.sql", "x"]], column_names=["name", "digest"])
    with pytest.raises(OldSchema, match=r"newer version, with 099_future\.sql: use that version"):
        migrate(settings)


@pytest.mark.parametrize(
    ("by_hand", "found"),
    [
        ("ALTER TABLE bars_1m ADD COLUMN note String", "bars_1m with the column note besides"),
        ("ALTER TABLE ticks DROP COLUMN transactionNum", "ticks without transactionNum"),
        ("ALTER TABLE bars_1d DROP COLUMN suspended", "bars_1d without suspended"),
    ],
)
def test_tables_changed_by_hand_are_refused_with_the_command_that_mends_them(
    clickhouse: Any, settings: Settings, by_hand: str, found: str
) -> None:
    made(clickhouse, [tick("09:25:00", 10.0, 1000), tick("09:40:00", 10.0, 2000)])
    clickhouse.command(by_hand)
    with pytest.raises(OldSchema, match=found) as refused:
        migrate(settings)
    clickhouse.command(str(refused.value).split('--write "')[1].split('"`')[0])
    assert migrate(settings) == []
    bars.finalize(clickhouse, DAY)
    assert bar(clickhouse, "09:30")


def test_a_dropped_table_is_made_again_and_said_to_be(
    clickhouse: Any, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    made(clickhouse, [tick("09:25:00", 10.0, 1000), tick("09:40:00", 10.0, 2000)])
    before = rows(clickhouse)
    clickhouse.command("DROP TABLE instruments SYNC")
    clickhouse.command("DROP TABLE ticks SYNC")
    migrate(settings)
    assert "instruments, ticks: dropped, and made again empty" in caplog.text
    assert rows(clickhouse) == before, "the others are as they were"
    store(clickhouse, [tick("09:25:00", 10.0, 1000)])
    assert clickhouse.query("SELECT kind, decimals FROM instruments").result_rows == []
    assert migrate(settings) == []


def test_tables_of_nobody_are_refused_and_left_alone(raw_clickhouse: Any, settings: Settings) -> None:
    raw_clickhouse.command("CREATE TABLE ticks (symbol String, note String) ENGINE = MergeTree ORDER BY symbol")
    with pytest.raises(OldSchema, match="ticks with the column note besides"):
        migrate(settings)
    assert columns(raw_clickhouse, "ticks") == ["symbol", "note"]
