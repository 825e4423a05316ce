"""The manifest of a backup: what it holds, of which schema, with size and checksum of every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from qmt_orchestration.files import replace_file

NAME: Final = "manifest.json"
FORMAT: Final = 1
_BLOCK: Final = 1 << 20


class BackupError(RuntimeError):
    """A backup or a restore cannot be done; the message says why and what mends it."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Model):
    """One file of the backup. *state*: of what it was made from; equal means that it need not be made again."""

    path: str
    size: int
    sha256: str
    state: str = ""


class Partition(_Model):
    """One partition. *digest*: sum of a hash over all columns; "" when rows came in while it was read."""

    state: str
    rows: int
    raw_bytes: int
    digest: str
    files: list[File] = []  # none: it is in the server's own backup


class Table(_Model):
    """One table: the statement that makes it, and its partitions by ClickHouse's partition id."""

    create: str
    partitions: dict[str, Partition]


class Manifest(_Model):
    """Everything a restore needs."""

    format: int = FORMAT
    version: str
    created_ms: int
    database: str
    applied: dict[str, str]  # files of warehouse/schema → digest: the version of the schema
    versions: str  # the statement that makes the table in which `applied` is kept
    tables: dict[str, Table]
    views: dict[str, str] = {}
    functions: dict[str, str] = {}
    server_backup: str = ""  # name of ClickHouse's own BACKUP, "" = Parquet files
    dagster: dict[str, File] = {}
    settings: File | None = None

    def files(self) -> Iterator[File]:
        """Every file it names."""
        for table in self.tables.values():
            for part in table.partitions.values():
                yield from part.files
        yield from self.dagster.values()
        if self.settings:
            yield self.settings


def read(folder: Path) -> Manifest | None:
    """The manifest of *folder*; None where there is none. Raises `BackupError` for one that cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError, OSError) as error:
        raise BackupError(
            f"{path} is damaged or of another version ({_first_line(error)}): use another folder"
        ) from None
    if found.format != FORMAT:
        raise BackupError(f"{path}: expected format {FORMAT}, found {found.format}: use the version that wrote it")
    return found


def write(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step, and remove files that it does not name."""
    replace_file(folder / NAME, manifest.model_dump_json(indent=1), durable=True)
    named = {file.path for file in manifest.files()} | {NAME, LOCK}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in named:
            path.unlink()


LOCK: Final = ".lock"


def sealed(folder: Path, path: Path, state: str = "") -> File:
    """The `File` of *path*, which is made private and flushed to the disk."""
    path.chmod(0o600)
    digest = hashlib.sha256()
    with path.open("rb+") as data:
        while block := data.read(_BLOCK):
            digest.update(block)
        os.fsync(data.fileno())
    relative = path.relative_to(folder).as_posix()
    return File(path=relative, size=path.stat().st_size, sha256=digest.hexdigest(), state=state)


def problems(folder: Path, manifest: Manifest) -> list[str]:
    """What is missing, truncated or changed; [] when every file is as it was written."""
    out = []
    for file in manifest.files():
        path = folder / file.path
        if folder.resolve() not in path.resolve().parents:
            out.append(f"{file.path}: lies outside the backup")
        elif not path.is_file():
            out.append(f"{file.path}: missing")
        elif path.stat().st_size != file.size:
            out.append(f"{file.path}: expected {file.size:,} bytes, found {path.stat().st_size:,}")
        elif sealed(folder, path).sha256 != file.sha256:
            out.append(f"{file.path}: its content has changed (checksum)")
    return out


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
