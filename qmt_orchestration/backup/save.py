"""A whole backup; what would make it fail is checked before anything is written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from qmt_orchestration.backup import dagster_home, manifest
from qmt_orchestration.backup.common import NAME, Say, Summary, on_disk, rows_of, warehouse
from qmt_orchestration.backup.manifest import BackupError, Manifest, Partition, Table
from qmt_orchestration.backup.partitions import Found, Mover
from qmt_orchestration.files import replace_file
from qmt_orchestration.services.dagster_processes import home_in_use
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import load_sql

_PARQUET_SHARE: Final = 1.6  # of the compressed size in ClickHouse: what is asked of the target's disk at the most


def backup(settings: Settings, target: Path, say: Say, *, server_disk: str = "") -> dict[str, Any]:
    """Bring the backup in *target* up to date; the account of it. Raises `BackupError`.

    *server_disk*: a disk for backups of a ClickHouse server; its own BACKUP statement then keeps the rows there.
    """
    began, report = time.monotonic(), Summary()
    if server_disk and (not settings.clickhouse_url or not NAME.fullmatch(server_disk)):
        raise BackupError(
            f"--server-disk {server_disk!r} needs QMT_CLICKHOUSE_URL and the name of a disk of that server"
        )
    with _alone(target), warehouse(settings) as (ready, client):
        before = manifest.read(target)
        mover = Mover(client, ready.clickhouse_database, target)
        tables, found = mover.tables(), mover.partitions()
        if not tables:
            raise BackupError(
                f"database {ready.clickhouse_database} has no tables: is this the right server or folder?"
            )
        known = before.tables if before and before.database == ready.clickhouse_database else {}
        _save_partitions(mover, tables, found, known, report, say, in_files=not server_disk)
        server_backup = ""
        if server_disk:
            server_backup = _server_backup(client, ready.clickhouse_database, server_disk, before)
            _forget_changing(mover, tables)
        home = home_in_use(settings)
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
    report.tables = rows_of(result)
    return report.done(began)


def _save_partitions(
    mover: Mover,
    tables: dict[str, Table],
    found: list[Found],
    known: dict[str, Table],
    report: Summary,
    say: Say,
    *,
    in_files: bool,
) -> None:
    """Put every partition into *tables*: those that changed written, the others as they are *known*."""
    found = [part for part in found if part.table in tables]
    same = {part for part in found if _unchanged(part, known, mover.folder, in_files=in_files)}
    if in_files:
        _require_space(mover.folder, [part for part in found if part not in same])
    for part in found:
        made = known[part.table].partitions[part.id] if part in same else None
        if made is None and in_files:
            made = _same_content(mover, part, known, mover.folder)
        report.kept += made is not None
        if made is None:
            say(f"{part.table} {part.id}: {part.rows:,} rows")
            made = mover.export(part) if in_files else _counted(mover, part)
            report.written, report.megabytes = report.written + 1, report.megabytes + part.raw_bytes / 1e6
        tables[part.table].partitions[part.id] = made
        report.partitions, report.rows = report.partitions + 1, report.rows + made.rows


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """The target made, private, writable and ours alone."""
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with only_one(target / manifest.LOCK) as alone:
            if not alone:
                raise BackupError(f"another backup works on {target}: wait for it, or choose another --target")
            yield
    except OSError as error:
        raise BackupError(
            f"target {target}: {error.strerror or error}; the last backup there is as it was. "
            "Mend it, or choose another --target"
        ) from error


def _unchanged(part: Found, known: dict[str, Table], target: Path, *, in_files: bool) -> bool:
    before = known[part.table].partitions.get(part.id) if part.table in known else None
    if before is None or before.state != part.state or not before.digest:
        return False
    return _present(before, target) if in_files else not before.files


def _present(before: Partition, target: Path) -> bool:
    held = [(target / file.path, file.size) for file in before.files]
    return bool(held) and all(path.is_file() and path.stat().st_size == size for path, size in held)


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

    The statement takes no parameters; all words in it are checked.
    """
    name = f"{database}-{time.time_ns() // 1_000_000}"
    base = ""
    if before and before.server_backup.startswith(f"{disk}:"):
        base = f" SETTINGS base_backup = {on_disk(before.server_backup)}"
    client.command(f"BACKUP DATABASE `{database}` TO {on_disk(f'{disk}:{name}')}{base}")
    return f"{disk}:{name}"


def _forget_changing(mover: Mover, tables: dict[str, Table]) -> None:
    """Partitions that changed between their digest and the end of the server's own backup are not compared later."""
    now = {(part.table, part.id): part.state for part in mover.partitions()}
    for name, table in tables.items():
        for id_, made in table.partitions.items():
            if now.get((name, id_)) != made.state:
                table.partitions[id_] = made.model_copy(update={"digest": ""})


def _applied(client: Any) -> dict[str, str]:
    query = "SELECT name, argMax(digest, at) FROM schema_versions GROUP BY name ORDER BY name"
    return dict(client.query(query).result_rows)


def _create_of(client: Any, database: str, table: str) -> str:
    query = "SELECT create_table_query FROM system.tables WHERE database = {db:String} AND name = {table:String}"
    return str(client.query(query, parameters={"db": database, "table": table}).first_row[0])


def _derived(client: Any, database: str) -> dict[str, dict[str, str]]:
    rows = client.query(load_sql("derived", "backup"), parameters={"db": database}).result_rows
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
    replace_file(path, text, durable=True)
    return manifest.sealed(target, path)
