"""Dagster's events on SQLite at less cost: it opens and closes the database for each of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@contextmanager
def kept_open() -> Iterator[None]:
    """Within it each SQLite database stays open, and a commit does not wait for the disk.

    The last connection that closes writes everything back and waits for the disk: so one stays open. A power cut may
    cost the newest events; the run is found killed all the same.
    """
    kept: dict[str, sqlite3.Connection] = {}

    def connected(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = NORMAL")
            path = connection.execute("PRAGMA database_list").fetchone()[2]
            if path and path not in kept:
                kept[path] = sqlite3.connect(path, check_same_thread=False)
                kept[path].execute("SELECT count(*) FROM sqlite_master").fetchone()

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in kept.values():
            connection.close()
