"""A whole restore: checked before anything is changed, compared with the backup after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qmt_orchestration.backup import dagster_home, manifest
from qmt_orchestration.backup.common import Say, Summary, on_disk, rows_of, warehouse
from qmt_orchestration.backup.manifest import BackupError, Manifest
from qmt_orchestration.backup.partitions import Mover
from qmt_orchestration.services.dagster_processes import home_in_use
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import upgrade
from qmt_orchestration.warehouse.migrate import migrate, schema_digests


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
    began, report = time.monotonic(), Summary()
    say(f"checking {source}")
    saved = check(source)
    _require_schema(saved)
    if saved.database != settings.clickhouse_database:
        mend = f"set QMT_CLICKHOUSE_DATABASE={saved.database}"
        raise BackupError(f"the backup is of database {saved.database}, not {settings.clickhouse_database}: {mend}")
    home = home_in_use(settings)
    with _stopped(settings), warehouse(settings, database="") as (ready, client):
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
        mover = Mover(client, saved.database, source)
        _restore_tables(client, mover, saved, report, say)
        migrate(ready)
        dagster_home.restore(home, source, saved.dagster)
        if wrong := differences(mover, saved):
            raise BackupError("restored, but not equal to the backup: " + "; ".join(wrong[:10]))
    report.dagster_files, report.tables = len(saved.dagster), rows_of(saved)
    return report.done(began)


def _restore_tables(client: Any, mover: Mover, saved: Manifest, report: Summary, say: Say) -> None:
    for text in saved.functions.values():
        client.command(text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    if saved.server_backup:
        client.command(f"RESTORE DATABASE `{saved.database}` FROM {on_disk(saved.server_backup)}")
        client.database = saved.database
        return
    for name, table in saved.tables.items():
        client.command(table.create)
        for part, partition in table.partitions.items():
            say(f"{name} {part}: {partition.rows:,} rows")
            for file in partition.files:
                mover.load(name, file)
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
            if wanted is not None and not wanted.digest:
                continue  # rows came in while it was read: there is nothing exact to compare with
            if wanted is None or wanted.rows != rows:
                out.append(f"{name} {part}: expected {wanted.rows if wanted else 0:,} rows, found {rows:,}")
            elif wanted.digest != digest:
                out.append(f"{name} {part}: {rows:,} rows as saved, but their content differs")
    return out


def _require_schema(saved: Manifest) -> None:
    ours = schema_digests()
    unknown = sorted(set(saved.applied) - set(ours) - set(upgrade.FILES))
    if unknown:
        raise BackupError(
            f"the backup has the schema of version {saved.version}, with {', '.join(unknown)}, which this version "
            "does not know: install that version (or a newer one) and restore with it"
        )


@contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """Nothing of `qmt up` or an agent may write to the folder meanwhile."""
    with only_one(settings.run_dir / "agent.lock") as alone:
        if not alone:
            raise BackupError(f"`qmt up` or an agent works on {settings.data_dir}: stop it before a restore")
        yield


def _existing_rows(client: Any, database: str) -> int:
    query = "SELECT sum(total_rows) FROM system.tables WHERE database = {db:String} AND name != 'schema_versions'"
    return int(client.query(query, parameters={"db": database}).first_row[0] or 0)
