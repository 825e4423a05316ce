"""What a backup and a restore share: the account of what was done, the warehouse in use, where Dagster's data are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.backup.manifest import BackupError, Manifest
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect, error_code

_UNKNOWN_DATABASE: Final = 81
NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
Say = Callable[[str], None]


@dataclass
class Summary:
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


@contextmanager
def warehouse(settings: Settings, *, database: str | None = None) -> Iterator[tuple[Settings, Any]]:
    """A client of the warehouse in use; its embedded engine runs for the moment when none does."""
    try:
        with (
            engines.ensure(settings, names=("clickhouse",)) as ready,
            connect(ready, database=database, send_receive_timeout=7200) as client,
        ):
            yield ready, client
    except (engines.EngineError, ClickHouseError) as error:
        if error_code(error) == _UNKNOWN_DATABASE:
            raise BackupError(
                f"{settings.clickhouse_url or settings.data_dir} has no database {settings.clickhouse_database}: "
                "choose its folder with --data-dir (QMT_DATA_DIR), or its server with QMT_CLICKHOUSE_URL"
            ) from error
        raise BackupError(f"ClickHouse: {str(error)[:500]}") from error


def on_disk(place: str) -> str:
    """``disk:name`` as ClickHouse's statements take it; both parts are words."""
    disk, _, name = place.partition(":")
    if not (NAME.fullmatch(disk) and NAME.fullmatch(name)):
        raise BackupError(f"expected disk:name as the server's own backup, found {place!r}")
    return f"Disk('{disk}', '{name}')"


def rows_of(saved: Manifest) -> dict[str, int]:
    return {name: sum(part.rows for part in table.partitions.values()) for name, table in saved.tables.items()}
