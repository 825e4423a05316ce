"""A backup restored into an empty folder is equal, per table and partition; what is damaged is never restored."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from qmt_orchestration.backup import dagster_home, manifest, partitions
from qmt_orchestration.backup.manifest import BackupError
from qmt_orchestration.backup.partitions import Mover
from qmt_orchestration.backup.restore import check, differences, restore
from qmt_orchestration.backup.save import backup
from qmt_orchestration.cli.main import app
from qmt_orchestration.local import engines
from qmt_orchestration.local.passwords import password_file
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.alerts.test_postgresql import postgres as postgres  # the fixture
from qmt_orchestration_tests.helpers import free_port, wait_until

_TICKS = """INSERT INTO ticks (symbol, time, lastPrice, high, low, volume, pvolume, total_volume, amount, askPrice,
    session, received_at, quality_score)
SELECT concat(toString(600000 + number % 40), '.SH'),
       toDateTime64({day:String} || ' 10:00:00', 3, 'Asia/Shanghai') + intDiv(number, 40) * 3,
       10 + number % 7, 17, 10, number, number * 100, number * 100, number * 1000., [10.1, 10.2], 's', now64(3), 1
FROM numbers({rows:UInt32})"""
_BARS = """INSERT INTO bars_1m
    (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
SELECT concat(toString(600000 + number), '.SH'), toDateTime({day:String} || ' 10:01:00', 'Asia/Shanghai'),
       1, 2, 1, 2, number, number, 'live', 1, 1, {version:UInt64}
FROM numbers(40)"""
DAYS = ("2025-06-05", "2025-06-06")


def silent(_: str) -> None:
    """Progress that nobody reads."""


def put(client: Any, day: str, rows: int = 400, version: int = 1) -> None:
    """Ticks and bars of a day."""
    client.command(_TICKS, parameters={"day": day, "rows": rows})
    client.command(_BARS, parameters={"day": day, "version": version})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settings of a small warehouse with its own engine, kept running, and a Dagster folder."""
    folder = tmp_path_factory.mktemp("source")
    settings = Settings(data_dir=folder, console_token=SecretStr("hunter2"), feed_gather_ms=31)
    with engines.ensure(settings, names=("clickhouse",)) as ready:
        migrate(ready)
        with connect(ready) as client:
            for day in DAYS:
                put(client, day)
        home = folder / "dagster" / "history"
        home.mkdir(parents=True)
        (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with closing(sqlite3.connect(home / "runs.db")) as runs:
            runs.execute("CREATE TABLE runs (id TEXT)")
            runs.execute("INSERT INTO runs VALUES ('r1')")
            runs.commit()
        yield settings


@pytest.fixture
def saved(source: Settings, tmp_path: Path) -> Path:
    """A backup of `source`."""
    backup(source, tmp_path / "backup", silent)
    return tmp_path / "backup"


def test_a_restore_into_an_empty_folder_is_equal_per_table_and_partition(
    source: Settings, saved: Path, tmp_path: Path
) -> None:
    empty = Settings(data_dir=tmp_path / "new")
    account = restore(empty, saved, silent)
    assert account["tables"]["ticks"] == 800
    assert account["tables"]["bars_1m"] == 80
    with engines.ensure(empty, names=("clickhouse",)) as there, connect(there) as new, connect(source) as old:
        query = "SELECT toDate(time) AS day, count(), sum(amount), sum(pvolume) FROM ticks GROUP BY day ORDER BY day"
        assert new.query(query).result_rows == old.query(query).result_rows
        query = "SELECT toDate(frame) AS day, count(), sum(vol), sum(amount) FROM minute_bars GROUP BY day ORDER BY day"
        assert new.query(query).result_rows == old.query(query).result_rows
        assert len(new.query(query).result_rows) == 2
        assert migrate(there) == [], "the schema is of this version"
        mover = Mover(new, "qmt", saved)
        found = manifest.read(saved)
        assert found is not None
        assert differences(mover, found) == []
        new.command("ALTER TABLE ticks DELETE WHERE symbol = '600001.SH' SETTINGS mutations_sync = 1")
        new.command("ALTER TABLE bars_1m UPDATE close = 3 WHERE symbol = '600002.SH' SETTINGS mutations_sync = 1")
        wrong = "\n".join(differences(mover, found))
        assert "ticks 20250605: expected 400 rows, found 390" in wrong
        assert "bars_1m 20250606: 40 rows as saved, but their content differs" in wrong
    with closing(sqlite3.connect(tmp_path / "new/dagster/history/runs.db")) as runs:
        assert runs.execute("SELECT id FROM runs").fetchall() == [("r1",)]


def test_only_what_changed_is_written_again(source: Settings, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    first = backup(source, target, silent)
    again = backup(source, target, silent)
    assert (again["written"], again["kept"]) == (0, first["partitions"])
    with connect(source) as client:
        client.command("OPTIMIZE TABLE ticks PARTITION 20250605 FINAL")
        assert backup(source, target, silent)["written"] == 0, "merged parts, the same rows"
        client.command("INSERT INTO bars_1m SELECT * REPLACE (9 AS close, 2 AS version) FROM bars_1m WHERE vol = 7")
        said: list[str] = []
        third = backup(source, target, said.append)
    assert third["written"] == 2
    assert {line.split(":")[0] for line in said} == {"bars_1m 20250605", "bars_1m 20250606"}
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    kept = manifest.read(target)
    assert kept is not None
    assert files == {file.path for file in kept.files()} | {"manifest.json", ".lock"}, "what nothing names is removed"


def test_files_are_private_and_hold_no_secret(saved: Path) -> None:
    for path in saved.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert b"hunter2" not in path.read_bytes(), path
    told = json.loads((saved / "settings.json").read_text())
    assert told["settings"]["QMT_FEED_GATHER_MS"] == "31"
    assert "QMT_CONSOLE_TOKEN" in told["left_out"]


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "manifest"])
def test_a_damaged_backup_is_refused_before_anything_is_changed(saved: Path, tmp_path: Path, damage: str) -> None:
    victim = next((saved / "clickhouse" / "ticks").iterdir())
    data = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(data[:-100])
    elif damage == "changed":
        victim.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    elif damage == "missing":
        victim.unlink()
    else:
        text = (saved / "manifest.json").read_text()
        (saved / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(BackupError, match="damaged"):
        restore(Settings(data_dir=tmp_path / "new"), saved, silent)
    assert not (tmp_path / "new" / "clickhouse").exists()


def test_a_manifest_that_names_files_elsewhere_is_refused(saved: Path, tmp_path: Path) -> None:
    path = saved / "manifest.json"
    (tmp_path / "passwd").write_text("x")
    path.write_text(path.read_text().replace('"settings.json"', '"../passwd"'))
    with pytest.raises(BackupError, match="outside"):
        check(saved)


def test_existing_data_are_kept_unless_asked(source: Settings, saved: Path, tmp_path: Path) -> None:
    there = Settings(data_dir=tmp_path / "new")
    restore(there, saved, silent)
    with pytest.raises(BackupError, match="--overwrite"):
        restore(there, saved, silent)
    with engines.ensure(there, names=("clickhouse",)) as ready, connect(ready) as client:
        put(client, "2025-06-09")
        with only_one(there.run_dir / "agent.lock"), pytest.raises(BackupError, match="stop it before"):
            restore(there, saved, silent, overwrite=True)
        account = restore(there, saved, silent, overwrite=True)
        assert account["rows"] > 0
        assert client.query("SELECT count() FROM ticks").first_row[0] == 800, (
            "as saved, without the day that came after"
        )


def test_a_newer_schema_and_another_database_are_refused(saved: Path, tmp_path: Path) -> None:
    there = Settings(data_dir=tmp_path / "new")
    with pytest.raises(BackupError, match="QMT_CLICKHOUSE_DATABASE=qmt"):
        restore(there.model_copy(update={"clickhouse_database": "other"}), saved, silent)
    path = saved / "manifest.json"
    name = next(iter(json.loads(path.read_text())["applied"]))
    path.write_text(path.read_text().replace(f'"{name}"', '"999_future.sql"'))
    with pytest.raises(BackupError, match=r"999_future\.sql"):
        restore(there, saved, silent)


def test_targets_that_cannot_be_written_or_are_too_small(
    source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="choose another --target"):
        backup(source, tmp_path / "file" / "backup", silent)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BackupError, match="free"):
        backup(source, tmp_path / "small", silent)
    assert not (tmp_path / "small" / "manifest.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a small file system")
def test_a_disk_that_fills_up_leaves_the_last_backup_whole(
    source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "small"
    target.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(target)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        backup(source, target, silent)
        before = (target / "manifest.json").read_bytes()
        usage = shutil.disk_usage(target)
        (target / "ballast").write_bytes(b"x" * (usage.free - 8192))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))  # it fills up meanwhile
        with connect(source) as client:
            put(client, "2025-06-10", rows=4000)
        with pytest.raises(BackupError, match=r"ticks|small"):
            backup(source, target, silent)
        assert (target / "manifest.json").read_bytes() == before
        check(target)
    finally:
        subprocess.run(["umount", str(target)], check=False)


def test_large_partitions_go_out_and_come_back_in_slices(
    source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(source) as client:
        put(client, "2025-06-11", rows=4000)  # five minutes
    monkeypatch.setattr(partitions, "SLICE_ROWS", 1000)
    account = backup(source, tmp_path / "backup", silent)
    kept = manifest.read(tmp_path / "backup")
    assert kept is not None
    day = kept.tables["ticks"].partitions["20250611"]
    assert len(day.files) >= 4
    assert day.rows == 4000
    assert day.digest
    assert restore(Settings(data_dir=tmp_path / "new"), tmp_path / "backup", silent)["rows"] == account["rows"]


def test_rows_that_arrive_while_a_server_is_read_do_not_spoil_the_backup(
    source: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = engines.find(source, "clickhouse")
    assert found is not None
    remote, target = source.model_copy(update={"clickhouse_url": found.url}), tmp_path / "backup"
    digest, asked = Mover.digest, [0]

    def busy(mover: Mover, table: str, partition: str) -> tuple[int, str]:
        rows, text = digest(mover, table, partition)
        asked[0] += table == "ticks"
        return (rows + asked[0], text) if table == "ticks" else (rows, text)

    monkeypatch.setattr(Mover, "digest", busy)
    backup(remote, target, silent)
    kept = manifest.read(target)
    assert kept is not None
    assert {part.digest for part in kept.tables["ticks"].partitions.values()} == {""}
    assert "" not in {part.digest for part in kept.tables["bars_1m"].partitions.values()}
    monkeypatch.undo()
    assert restore(Settings(data_dir=tmp_path / "new"), target, silent)["tables"]["bars_1m"] > 0
    again = backup(remote, target, silent)["written"]
    assert again == len(kept.tables["ticks"].partitions), "what is in doubt is read again"


def test_a_server_makes_its_own_backup_on_top_of_the_last_one(tmp_path: Path) -> None:
    port, disk = free_port(), tmp_path / "disk"
    disk.mkdir()
    argv = [sys.executable, "-m", "qmt_orchestration_tests.ops.serve_with_disk", str(disk)]
    url, password = f"http://127.0.0.1:{port}", SecretStr("of the server")
    settings = Settings(data_dir=tmp_path / "data", clickhouse_url=url, clickhouse_password=password)
    argv += ["--path", str(tmp_path / "clickhouse"), "--port", str(port)]
    argv += ["--password-file", str(password_file(settings, "clickhouse"))]
    server = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), 60, "ClickHouse with a disk")
        migrate(settings)
        with connect(settings) as client:
            put(client, DAYS[0])
            backup(settings, tmp_path / "backup", silent, server_disk="backups")
            put(client, DAYS[1])
            account = backup(settings, tmp_path / "backup", silent, server_disk="backups")
        assert account["tables"]["ticks"] == 800
        assert account["kept"] > 0, "a partition that has not changed is not counted again"
        assert len(list(disk.iterdir())) == 2
        assert not (tmp_path / "backup" / "clickhouse").exists(), "the rows stay on the server's disk"
        restore(settings, tmp_path / "backup", silent, overwrite=True)
        with connect(settings) as client:
            assert client.query("SELECT count() FROM ticks").first_row[0] == 800
            assert client.query("SELECT count() FROM minute_bars").first_row[0] == 80
        with pytest.raises(BackupError, match="--server-disk"):
            backup(settings, tmp_path / "backup", silent, server_disk="x'); DROP")
    finally:
        server.terminate()
        server.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_postgresql_of_dagster_goes_out_and_comes_back(tmp_path: Path, postgres: dict[str, Any]) -> None:
    psycopg2: Any = pytest.importorskip("psycopg2")
    home, target = tmp_path / "dagster", tmp_path / "backup"
    home.mkdir()
    target.mkdir()
    (home / "dagster.yaml").write_text(json.dumps({"storage": {"postgres": {"postgres_db": postgres}}}))
    where = {"host": postgres["hostname"], "port": postgres["port"], "user": postgres["username"], "dbname": "postgres"}
    with closing(psycopg2.connect(**where)) as server:
        server.autocommit = True
        server.cursor().execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
        files = dagster_home.save(home, target, {})
        server.cursor().execute("DROP TABLE kept")
        dagster_home.restore(home, target, files)
        cursor = server.cursor()
        cursor.execute("SELECT id FROM kept")
        assert cursor.fetchall() == [(7,)]


def test_the_commands_say_what_is_wrong(tmp_path: Path, saved: Path) -> None:
    wrong = CliRunner().invoke(app, ["restore", "--source", str(tmp_path / "nothing"), "--data-dir", str(tmp_path)])
    assert wrong.exit_code == 1
    assert "manifest.json" in wrong.output
    empty = CliRunner().invoke(app, ["backup", "--target", str(tmp_path / "b"), "--data-dir", str(tmp_path / "empty")])
    assert empty.exit_code == 1
    assert "has no database qmt" in empty.output
    right = CliRunner().invoke(app, ["restore", "--check", "--source", str(saved)])
    assert right.exit_code == 0
    assert json.loads(right.stdout)["files"] > 3
