"""Dagster's database: SQLite files by SQLite's own online copy, PostgreSQL by pg_dump and pg_restore."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import yaml

from qmt_orchestration.backup.manifest import BackupError, File, sealed

FOLDER: Final = "dagster"
CONFIG: Final = "dagster.yaml"
DUMP: Final = "postgresql.dump"
_SECONDS: Final = 3600


def save(home: Path, target: Path, known: Mapping[str, File]) -> dict[str, File]:
    """Copy what *home* holds to *target*; files that have not changed since *known* are kept. {} without a home."""
    if not home.is_dir():
        return {}
    folder = target / FOLDER
    folder.mkdir(exist_ok=True, mode=0o700)
    out: dict[str, File] = {}
    config = home / CONFIG
    sources = [*([config] if config.is_file() else []), *sorted(home.rglob("*.db"))]
    for source in sources:
        name, state = source.relative_to(home).as_posix(), _state(source)
        before = known.get(name)
        if before and before.state == state and (target / before.path).is_file():
            out[name] = before
            continue
        draft = folder / "draft"
        draft.unlink(missing_ok=True)
        if source.suffix == ".db":
            _copy_database(source, draft)
        else:
            shutil.copyfile(source, draft)
        made = sealed(target, draft, state)
        final = folder / f"{made.sha256[:24]}{source.suffix}"
        draft.replace(final)
        out[name] = made.model_copy(update={"path": final.relative_to(target).as_posix()})
    if server := postgresql(home):
        out[DUMP] = _dump(server, folder, target)
    return out


def restore(home: Path, source: Path, files: Mapping[str, File]) -> None:
    """Put the saved files in their places; a PostgreSQL dump goes to the server that *home* names afterwards."""
    for name, file in files.items():
        path = home / name
        if home.resolve() not in path.resolve().parents:
            raise BackupError(f"{name}: lies outside Dagster's folder")
        if name == DUMP:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in ("", "-wal", "-shm"):  # the journal of another database would be applied to this one
            path.with_name(path.name + left).unlink(missing_ok=True)
        shutil.copyfile(source / file.path, path)
    if DUMP in files:
        server = postgresql(home)
        if server is None:
            raise BackupError(f"{home / CONFIG} names no PostgreSQL, the backup holds a dump of one")
        argv = ["pg_restore", "--clean", "--if-exists", "--no-owner", "-d", server["db_name"]]
        _run([*argv, *_address(server), str(source / files[DUMP].path)], server)


def has_data(home: Path) -> bool:
    """Whether there is a SQLite database in *home*."""
    return home.is_dir() and any(home.rglob("*.db"))


def postgresql(home: Path) -> dict[str, str] | None:
    """The server in the storage section of dagster.yaml, its variables resolved; None where there is none."""
    config = home / CONFIG
    known: Any = yaml.safe_load(config.read_text()) if config.is_file() else None
    found = (((known or {}).get("storage") or {}).get("postgres") or {}).get("postgres_db")
    if not found:
        return None
    out = {}
    for name, value in found.items():
        if isinstance(value, dict):
            value = os.environ.get(str(value.get("env")), "")
        out[name] = str(value)
    return {"port": "5432", "username": "", "password": "", "hostname": "127.0.0.1", "db_name": "dagster", **out}


def _dump(server: Mapping[str, str], folder: Path, target: Path) -> File:
    draft = folder / "draft.dump"
    draft.unlink(missing_ok=True)
    _run(["pg_dump", "-Fc", "--no-owner", "-f", str(draft), *_address(server), server["db_name"]], server)
    made = sealed(target, draft)
    final = folder / f"{made.sha256[:24]}.dump"
    draft.replace(final)
    return made.model_copy(update={"path": final.relative_to(target).as_posix()})


def _address(server: Mapping[str, str]) -> list[str]:
    return ["-h", server["hostname"], "-p", server["port"], "-U", server["username"]]


def _run(argv: list[str], server: Mapping[str, str]) -> None:
    try:
        environment = {**os.environ, "PGPASSWORD": server["password"]}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise BackupError(
            f"Dagster's storage is PostgreSQL and {argv[0]} is not on the PATH: install its client"
        ) from None
    if done.returncode:
        raise BackupError(f"{argv[0]} failed (exit code {done.returncode}): {done.stderr.strip()[:500]}")


def _copy_database(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    try:
        there = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)
        with closing(there), closing(sqlite3.connect(target)) as here:
            there.backup(here)
    except sqlite3.Error as error:
        raise BackupError(f"Dagster's database {source} cannot be copied: {error}") from error


def _state(path: Path) -> str:
    """Changes whenever the file or its write-ahead log does."""
    parts = []
    for name in (path, path.with_name(path.name + "-wal")):
        if name.exists() and (size := name.stat().st_size):
            parts.append(f"{size}:{name.stat().st_mtime_ns}")
    return "+".join(parts)
