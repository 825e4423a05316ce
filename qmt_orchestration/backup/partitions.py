"""One partition of one table, from ClickHouse to a file and back.

The embedded engine writes and reads the file itself (it runs on this host); a server streams it over HTTP.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.backup.manifest import BackupError, File, Partition, Table, sealed

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
FOLDER: Final = "clickhouse"


@cache
def sql(name: str) -> str:
    """The statement in ``queries/<name>.sql``."""
    text = (resources.files("qmt_orchestration.backup") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


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
    """Moves partitions between a ClickHouse client and a folder. *local*: the engine sees the same folder."""

    def __init__(self, client: Any, database: str, folder: Path, *, local: bool) -> None:
        self.client, self.database, self.folder, self.local = client, database, folder.resolve(), local

    def tables(self) -> dict[str, Table]:
        """Every table, without partitions."""
        rows = self.client.query(sql("tables"), parameters={"db": self.database}).result_rows
        out = {}
        for name, create in rows:
            parameters = {"db": self.database, "table": name}
            structure = str(self.client.query(sql("structure"), parameters=parameters).first_row[0])
            # Parquet has no type for the states of aggregate functions
            kind = "Native" if " AggregateFunction(" in structure else "Parquet"
            out[str(name)] = Table(create=str(create), format=kind, structure=structure, partitions={})
        return out

    def partitions(self) -> list[Found]:
        """Every partition that has rows."""
        return [
            Found(*row) for row in self.client.query(sql("partitions"), parameters={"db": self.database}).result_rows
        ]

    def digest(self, table: str, partition: str) -> tuple[int, str]:
        """(rows, sum over all columns) of a partition."""
        parameters = {"table": table, "partition": partition}
        rows, digest = self.client.query(sql("digest"), parameters=parameters, settings=_SETTINGS).first_row
        return int(rows), str(digest)

    def digests(self, table: str) -> dict[str, tuple[int, str]]:
        """`digest` of every partition of *table*."""
        found = self.client.query(sql("digests"), parameters={"table": table}, settings=_SETTINGS).result_rows
        return {str(partition): (int(rows), str(digest)) for partition, rows, digest in found}

    def export(self, found: Found, table: Table) -> Partition:
        """Write the partition to a new file. Rows that arrive meanwhile are in the next backup."""
        path = self._path(found, table)
        for attempt in range(1, _TRIES + 1):
            path.unlink(missing_ok=True)
            try:
                rows, digest = self._write_here(found, table, path) if self.local else self._stream(found, table, path)
            except (ClickHouseError, OSError) as error:
                path.unlink(missing_ok=True)
                raise BackupError(
                    f"{found.table}, partition {found.id}, cannot be written to {path}: {str(error)[:500]}"
                ) from error
            if digest or attempt == _TRIES:
                break
        file = sealed(self.folder, path, found.state)
        return Partition(state=found.state, rows=rows, raw_bytes=found.raw_bytes, digest=digest, file=file)

    def _write_here(self, found: Found, table: Table, path: Path) -> tuple[int, str]:
        where = {"path": str(path), "format": table.format, "structure": table.structure}
        parameters = {**where, "table": found.table, "partition": found.id}
        self.client.command(sql("export"), parameters=parameters, settings=_SETTINGS)
        rows, digest = self.client.query(sql("digest_of_file"), parameters=where, settings=_SETTINGS).first_row
        return int(rows), str(digest)

    def _stream(self, found: Found, table: Table, path: Path) -> tuple[int, str]:
        """Over HTTP the file cannot be read back by the server: the partition is compared before and after."""
        before = self.digest(found.table, found.id)
        query = "SELECT * FROM {table:Identifier} WHERE _partition_id = {partition:String}"
        parameters = {"table": found.table, "partition": found.id}
        blocks = self.client.raw_stream(query, parameters=parameters, settings=_SETTINGS, fmt=table.format)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out, blocks:
            while block := blocks.read(1 << 20):
                out.write(block)
        after = self.digest(found.table, found.id)
        return after[0], after[1] if before == after else ""

    def load(self, name: str, table: Table, file: File) -> None:
        """Insert a partition's file into the table *name*."""
        path = self.folder / file.path
        if self.local:
            parameters = {"table": name, "path": str(path), "format": table.format, "structure": table.structure}
            self.client.command(sql("import"), parameters=parameters, settings=_SETTINGS)
            return
        with path.open("rb") as data:
            self.client.raw_insert(f"`{name}`", insert_block=data, settings=_SETTINGS, fmt=table.format)

    def _path(self, found: Found, table: Table) -> Path:
        folder = self.folder / FOLDER / found.table
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / f"{found.id}-{found.state[:16].lower()}.{table.format.lower()}"
