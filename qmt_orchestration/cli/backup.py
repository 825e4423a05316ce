"""`qmt backup` and `qmt restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.cli.access import DataDir, fail, settings_of
from qmt_orchestration.cli.terminal import say, say_json


def backup(
    target: Annotated[Path, typer.Option(help="Folder of the backup; the same one each day makes it incremental")],
    data_dir: DataDir = None,
    server_disk: Annotated[
        str, typer.Option(help="Disk of the ClickHouse server for its own BACKUP, instead of Parquet files")
    ] = "",
) -> None:
    """Save the warehouse, Dagster's database and the settings (without secrets); only what has changed is written.

    The last line is JSON. It may run beside everything else; an interrupted backup leaves the last one whole.
    """
    from qmt_orchestration.backup import save
    from qmt_orchestration.backup.manifest import BackupError

    try:
        done = save.backup(settings_of(data_dir), target, say, server_disk=server_disk)
    except BackupError as error:
        fail(f"backup: {error}")
    say_json(done)


def restore(
    source: Annotated[Path, typer.Option(help="Folder of the backup")],
    data_dir: DataDir = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data that are there already")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every file with its checksum, restore nothing")
    ] = False,
) -> None:
    """Put a backup back and compare rows and sums of every table and partition with it. The last line is JSON."""
    from qmt_orchestration.backup import restore as command
    from qmt_orchestration.backup.manifest import BackupError

    try:
        if check:
            found = command.check(source)
            done = {"files": sum(1 for _ in found.files()), "bytes": sum(file.size for file in found.files())}
        else:
            done = command.restore(settings_of(data_dir), source, say, overwrite=overwrite)
    except BackupError as error:
        fail(f"restore: {error}")
    say_json(done)
