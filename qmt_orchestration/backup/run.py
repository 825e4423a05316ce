"""A whole backup and a whole restore, with what may go wrong said before anything is changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import SecretStr

from qmt_orchestration.backup import dagster_home, manifest
from qmt_orchestration.backup.manifest import BackupError, Manifest, Partition, Table
from qmt_orchestration.backup.partitions import Found, Mover, sql
from qmt_orchestration.local import engines
from qmt_orchestration.services.lock import try_lock
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.migrate import migrate, schema_digests

_PARQUET_SHARE: Final = 1.6  # of the compressed size in ClickHouse: what is asked of the target's disk at the most
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
Say = Callable[[str], None]


@dataclass
class Report:
    """What was done. *megabytes*: data as ClickHouse holds them in memory, before compression."""

    partitions: int = 0
    written: int = 0
    kept: int = 0
    rows: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0
    mb_per_second: float = 0.0
    dagster_files: int = 0
    tables: dict[str, int] = field(default_factory=dict)  # rows

    def done(self, began: float) -> dict[str, Any]:
        """As a dictionary, with the times."""
        self.seconds = round(time.monotonic() - began, 2)
        self.mb_per_second = round(self.megabytes / max(self.seconds, 1e-3), 1)
        self.megabytes = round(self.megabytes, 1)
        return asdict(self)


# -- backup ------------------------------------------------------------------------------------------------------------


def backup(settings: Settings, target: Path, say: Say, *, server_disk: str = "") -> dict[str, Any]:
    """Bring the backup in *target* up to date; the account of it. Raises `BackupError`.

    *server_disk*: a disk for backups of a ClickHouse server; its own BACKUP statement then keeps the rows there.
    """
    began, report = time.monotonic(), Report()
    local = not settings.clickhouse_url
    if server_disk and (local or not _NAME.fullmatch(server_disk)):
        raise BackupError(
            f"--server-disk {server_disk!r} needs QMT_CLICKHOUSE_URL and the name of a disk of that server"
        )
    with _alone(target), _warehouse(settings) as (ready, client):
        before = manifest.read(target)
        mover = Mover(client, ready.clickhouse_database, target, local=local)
        tables, found = mover.tables(), mover.partitions()
        if not tables:
            raise BackupError(
                f"database {ready.clickhouse_database} has no tables: is this the right server or folder?"
            )
        known = before.tables if before and before.database == ready.clickhouse_database else {}
        found = [part for part in found if part.table in tables]
        same = {part for part in found if _unchanged(part, known, target, in_files=not server_disk)}
        if not server_disk:
            _require_space(target, [part for part in found if part not in same])
        for part in found:
            made = known[part.table].partitions[part.id] if part in same else None
            if made is None and not server_disk:
                made = _same_content(mover, part, known, target)
            report.kept += made is not None
            if made is None:
                say(f"{part.table} {part.id}: {part.rows:,} rows")
                made = _counted(mover, part) if server_disk else mover.export(part, tables[part.table])
                report.written, report.megabytes = report.written + 1, report.megabytes + part.raw_bytes / 1e6
            tables[part.table].partitions[part.id] = made
            report.partitions, report.rows = report.partitions + 1, report.rows + made.rows
        server_backup = ""
        if server_disk:
            server_backup = _server_backup(client, ready.clickhouse_database, server_disk, before)
        home = Path(os.environ.get("DAGSTER_HOME") or settings.data_dir / "dagster")
        result = Manifest(
            version=version("qmt-orchestration"),
            created_ms=int(time.time() * 1000),
            database=ready.clickhouse_database,
            applied=_applied(client),
            versions=_create_of(client, ready.clickhouse_database, "schema_versions"),
            tables=tables,
            **_derived(client, ready.clickhouse_database),
            server_backup=server_backup,
            dagster=dagster_home.save(home, target, before.dagster if before else {}),
            settings=_save_settings(settings, target),
        )
        manifest.write(target, result)
    report.dagster_files = len(result.dagster)
    report.tables = _rows_of(result)
    return report.done(began)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """The target made, private, writable and ours alone."""
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (target / manifest.LOCK).open("a+")
    except OSError as error:
        raise BackupError(f"target {target} cannot be written: {error.strerror}; choose another --target") from error
    with lock:
        if not try_lock(lock):
            raise BackupError(f"another backup works on {target}: wait for it, or choose another --target")
        try:
            yield
        except OSError as error:
            raise BackupError(f"{target}: {error.strerror or error}; the last backup there is as it was") from error


@contextmanager
def _warehouse(settings: Settings, *, database: str | None = None) -> Iterator[tuple[Settings, Any]]:
    """A client of the warehouse in use; its embedded engine runs for the moment when none does."""
    try:
        with (
            engines.ensure(settings, names=("clickhouse",)) as ready,
            connect(ready, database=database, send_receive_timeout=7200) as client,
        ):
            yield ready, client
    except (engines.EngineError, ClickHouseError) as error:
        raise BackupError(f"ClickHouse: {str(error)[:500]}") from error


def _unchanged(part: Found, known: dict[str, Table], target: Path, *, in_files: bool) -> bool:
    before = known[part.table].partitions.get(part.id) if part.table in known else None
    if before is None or before.state != part.state:
        return False
    return _present(before, target) if in_files else before.file is None


def _present(before: Partition, target: Path) -> bool:
    file = before.file
    return file is not None and (target / file.path).is_file() and (target / file.path).stat().st_size == file.size


def _same_content(mover: Mover, part: Found, known: dict[str, Table], target: Path) -> Partition | None:
    """The partition as it was saved, when its parts were merged but its rows are the same."""
    before = known[part.table].partitions.get(part.id) if part.table in known else None
    if before is None or not before.digest or not _present(before, target):
        return None
    if mover.digest(part.table, part.id) != (before.rows, before.digest):
        return None
    return before.model_copy(update={"state": part.state})


def _counted(mover: Mover, part: Found) -> Partition:
    rows, digest = mover.digest(part.table, part.id)
    return Partition(state=part.state, rows=rows, raw_bytes=part.raw_bytes, digest=digest)


def _require_space(target: Path, todo: list[Found]) -> None:
    needed, free = int(sum(part.bytes for part in todo) * _PARQUET_SHARE), shutil.disk_usage(target).free
    if needed > free:
        raise BackupError(
            f"target {target} has {free / 1e9:.1f} GB free; this backup may need {needed / 1e9:.1f} GB: free space or "
            "choose another --target"
        )


def _server_backup(client: Any, database: str, disk: str, before: Manifest | None) -> str:
    """Let the server make its own backup, on top of the last one on the same disk. `disk:name` of it.

    The statement takes no parameters; all that stands in it are checked words.
    """
    name = f"{database}-{time.time_ns() // 1_000_000}"
    base = ""
    if before and before.server_backup.startswith(f"{disk}:"):
        base = f" SETTINGS base_backup = {_on_disk(before.server_backup)}"
    client.command(f"BACKUP DATABASE `{database}` TO {_on_disk(f'{disk}:{name}')}{base}")
    return f"{disk}:{name}"


def _on_disk(place: str) -> str:
    """``disk:name`` as ClickHouse's statements take it; both parts are words."""
    disk, _, name = place.partition(":")
    if not (_NAME.fullmatch(disk) and _NAME.fullmatch(name)):
        raise BackupError(f"expected disk:name as the server's own backup, found {place!r}")
    return f"Disk('{disk}', '{name}')"


def _applied(client: Any) -> dict[str, str]:
    query = "SELECT name, argMax(digest, at) FROM schema_versions GROUP BY name ORDER BY name"
    return dict(client.query(query).result_rows)


def _create_of(client: Any, database: str, table: str) -> str:
    query = "SELECT create_table_query FROM system.tables WHERE database = {db:String} AND name = {table:String}"
    return str(client.query(query, parameters={"db": database, "table": table}).first_row[0])


def _derived(client: Any, database: str) -> dict[str, dict[str, str]]:
    rows = client.query(sql("derived"), parameters={"db": database}).result_rows
    return {
        "views": {name: text for kind, name, text in rows if kind == "view"},
        "functions": {name: text for kind, name, text in rows if kind == "function"},
    }


def _save_settings(settings: Settings, target: Path) -> manifest.File:
    """The settings that differ from their defaults; secrets are left out, by name."""
    secret = [name for name in type(settings).model_fields if isinstance(getattr(settings, name), SecretStr)]
    values = {k: v for k, v in settings.environment().items() if k.removeprefix("QMT_").lower() not in secret}
    text = json.dumps({"settings": values, "left_out": [f"QMT_{name.upper()}" for name in secret]}, indent=1)
    path = target / "settings.json"
    manifest.write_private(path, text.encode())
    return manifest.sealed(target, path)


# -- restore -----------------------------------------------------------------------------------------------------------


def check(source: Path) -> Manifest:
    """The manifest of the backup in *source*, every file of it compared with its checksum. Raises `BackupError`."""
    found = manifest.read(source)
    if found is None:
        raise BackupError(f"{source} holds no {manifest.NAME}: expected the folder that was --target of `qmt backup`")
    if wrong := manifest.problems(source, found):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BackupError(f"the backup in {source} is damaged: {'; '.join(wrong[:5])}{more}; nothing was restored")
    return found


def restore(settings: Settings, source: Path, say: Say, *, overwrite: bool = False) -> dict[str, Any]:
    """Make the warehouse and Dagster's database as they were saved, and compare every partition with its digest.

    Refused over existing data unless *overwrite*; refused for a schema newer than this version's. Tables are made as
    they were saved, then brought to this version by `qmt migrate`. Raises `BackupError`.
    """
    began, report = time.monotonic(), Report()
    say(f"checking {source}")
    saved = check(source)
    _require_schema(saved)
    if saved.database != settings.clickhouse_database:
        mend = f"set QMT_CLICKHOUSE_DATABASE={saved.database}"
        raise BackupError(f"the backup is of database {saved.database}, not {settings.clickhouse_database}: {mend}")
    home = Path(os.environ.get("DAGSTER_HOME") or settings.data_dir / "dagster")
    with _stopped(settings), _warehouse(settings, database="") as (ready, client):
        existing = _existing_rows(client, saved.database)
        if (existing or (saved.dagster and dagster_home.has_data(home))) and not overwrite:
            raise BackupError(
                f"there are data already ({existing:,} rows in database {saved.database}, Dagster's folder {home}): "
                "restore into an empty --data-dir, or say --overwrite to replace them"
            )
        client.command("DROP DATABASE IF EXISTS {db:Identifier} SYNC", parameters={"db": saved.database})
        if not saved.server_backup:
            client.command("CREATE DATABASE {db:Identifier}", parameters={"db": saved.database})
            client.database = saved.database
        mover = Mover(client, saved.database, source, local=not settings.clickhouse_url)
        _restore_tables(client, mover, saved, report, say)
        migrate(ready)
        dagster_home.restore(home, source, saved.dagster)
        if wrong := differences(mover, saved):
            raise BackupError("restored, but not equal to the backup: " + "; ".join(wrong[:10]))
    report.dagster_files, report.tables = len(saved.dagster), _rows_of(saved)
    return report.done(began)


def _restore_tables(client: Any, mover: Mover, saved: Manifest, report: Report, say: Say) -> None:
    for text in saved.functions.values():
        client.command(text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    if saved.server_backup:
        client.command(f"RESTORE DATABASE `{saved.database}` FROM {_on_disk(saved.server_backup)}")
        client.database = saved.database
        return
    for name, table in saved.tables.items():
        client.command(table.create)
        for part, partition in table.partitions.items():
            say(f"{name} {part}: {partition.rows:,} rows")
            if partition.file is not None:
                mover.load(name, table, partition.file)
            report.partitions, report.written = report.partitions + 1, report.written + 1
            report.rows, report.megabytes = report.rows + partition.rows, report.megabytes + partition.raw_bytes / 1e6
    for statement in saved.views.values():  # after the rows: they would be derived a second time
        client.command(statement)
    client.command(saved.versions)
    plain = [[name, digest] for name, digest in saved.applied.items() if not name.endswith(".view.sql")]
    if plain:  # views are made again by `migrate`
        client.insert("schema_versions", plain, column_names=["name", "digest"])


def differences(mover: Mover, saved: Manifest) -> list[str]:
    """Partitions whose rows or sums are not those of the backup; [] when all are equal."""
    out = []
    for name, table in saved.tables.items():
        now = mover.digests(name) if table.partitions else {}
        for part in sorted({*table.partitions, *now}):
            rows, digest = now.get(part, (0, ""))
            wanted = table.partitions.get(part)
            if wanted is None or wanted.rows != rows:
                out.append(f"{name} {part}: expected {wanted.rows if wanted else 0:,} rows, found {rows:,}")
            elif wanted.digest and wanted.digest != digest:
                out.append(f"{name} {part}: {rows:,} rows as saved, but their content differs")
    return out


def _require_schema(saved: Manifest) -> None:
    ours = schema_digests()
    unknown = sorted(set(saved.applied) - set(ours))
    if unknown:
        raise BackupError(
            f"the backup has the schema of version {saved.version}, with {', '.join(unknown)}, which this version "
            "does not know: install that version (or a newer one) and restore with it"
        )


@contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """Nothing of `qmt up` or an agent may write to the folder meanwhile."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with (settings.run_dir / "agent.lock").open("a+") as lock:
        if not try_lock(lock):
            raise BackupError(f"`qmt up` or an agent works on {settings.data_dir}: stop it before a restore")
        yield


def _existing_rows(client: Any, database: str) -> int:
    query = "SELECT sum(total_rows) FROM system.tables WHERE database = {db:String} AND name != 'schema_versions'"
    return int(client.query(query, parameters={"db": database}).first_row[0] or 0)


def _rows_of(saved: Manifest) -> dict[str, int]:
    return {name: sum(part.rows for part in table.partitions.values()) for name, table in saved.tables.items()}
