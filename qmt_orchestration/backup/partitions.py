"""One partition of one table, from ClickHouse to Parquet files and back, over HTTP.

The engines reach no files of this host, and need not: a large partition goes out and comes back in slices of its time
column, so that neither side holds more than one slice in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.backup.manifest import BackupError, File, Partition, Table, sealed
from qmt_orchestration.warehouse.client import load_sql

#: Final rows only. lz4: a backup of each night has to be quick; the archive it goes to may compress it further.
_SETTINGS: Final[dict[str, Any]] = {
    "final": 1,
    "do_not_merge_across_partitions_select_final": 1,
    "output_format_parquet_compression_method": "lz4",
    "max_partitions_per_insert_block": 0,
    "max_insert_threads": 4,
    "insert_deduplicate": 0,
    "max_execution_time": 0,
}
_TRIES: Final = 3
_LAST: Final = "2106-01-01 00:00:00"  # after every minute: what DateTime holds ends in February of that year
SLICE_ROWS: Final = 2_000_000  # of a tick with its book about 200 MB of Parquet
FOLDER: Final = "clickhouse"


@dataclass(frozen=True)
class Found:
    """A partition as ClickHouse has it now."""

    table: str
    id: str
    rows: int
    bytes: int
    raw_bytes: int
    state: str


class Mover:
    """Moves partitions between a ClickHouse client and a folder."""

    def __init__(self, client: Any, database: str, folder: Path) -> None:
        self.client, self.database, self.folder = client, database, folder.resolve()

    def _query(self, name: str, **parameters: str) -> Any:
        return self.client.query(load_sql(name, "backup"), parameters=parameters, settings=_SETTINGS)

    def tables(self) -> dict[str, Table]:
        """Every table, without partitions."""
        rows = self._query("tables", db=self.database).result_rows
        return {str(name): Table(create=str(create), partitions={}) for name, create in rows}

    def partitions(self) -> list[Found]:
        """Every partition that has rows."""
        return [Found(*row) for row in self._query("partitions", db=self.database).result_rows]

    def digest(self, table: str, partition: str) -> tuple[int, str]:
        """(rows, sum over all columns) of a partition."""
        rows, digest = self._query("digest", table=table, partition=partition).first_row
        return int(rows), str(digest)

    def digests(self, table: str) -> dict[str, tuple[int, str]]:
        """`digest` of every partition of *table*."""
        found = self._query("digests", table=table).result_rows
        return {str(partition): (int(rows), str(digest)) for partition, rows, digest in found}

    def export(self, found: Found) -> Partition:
        """Write the partition to new files. Rows that arrive meanwhile are in the next backup."""
        digest, files = "", list[File]()
        for _ in range(_TRIES):
            before = self.digest(found.table, found.id)
            files = [self._write(found, i, *query) for i, query in enumerate(self._slices(found))]
            held = sum(pq.ParquetFile(self.folder / file.path).metadata.num_rows for file in files)
            rows, digest = self.digest(found.table, found.id)
            if before == (rows, digest) and held == rows:
                break
            digest = ""
        rows = held if not digest else rows
        return Partition(state=found.state, rows=rows, raw_bytes=found.raw_bytes, digest=digest, files=files)

    def _slices(self, found: Found) -> Iterator[tuple[str, dict[str, str]]]:
        """Statement and parameters of each slice."""
        where = {"table": found.table, "partition": found.id}
        columns = self._query("time_column", db=self.database, table=found.table).result_rows
        if found.rows <= SLICE_ROWS or not columns:
            yield "partition", where
            return
        where["column"] = columns[0][0]
        first, held = "", 0
        for minute, rows in self.client.query(
            load_sql("minutes", "backup"), parameters=where, settings=_SETTINGS
        ).result_rows:
            if first and held + rows > SLICE_ROWS:
                yield "slice", {**where, "first": first, "end": minute}
                first, held = minute, 0
            first, held = first or minute, held + rows
        yield "slice", {**where, "first": first, "end": _LAST}

    def _write(self, found: Found, number: int, statement: str, parameters: dict[str, str]) -> File:
        folder = self.folder / FOLDER / found.table
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{found.id}-{time.time_ns():x}-{number}.parquet"  # a name that no file had before
        try:
            blocks = self.client.raw_stream(
                load_sql(statement, "backup"), parameters=parameters, settings=_SETTINGS, fmt="Parquet"
            )
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out, blocks:
                while block := blocks.read(1 << 20):
                    out.write(block)
            return sealed(self.folder, path, found.state)
        except (ClickHouseError, OSError) as error:
            path.unlink(missing_ok=True)
            place = f"{found.table}, partition {found.id}"
            raise BackupError(f"{place}, cannot be written to {path}: {str(error)[:500]}") from error

    def load(self, name: str, file: File) -> None:
        """Insert the rows of a file into the table *name*."""
        with (self.folder / file.path).open("rb") as data:
            self.client.raw_insert(f"`{name}`", insert_block=data, settings=_SETTINGS, fmt="Parquet")
