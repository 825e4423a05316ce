"""Bars into Parquet: ``python -m qmt_orchestration.client.sinks.parquet FOLDER [CLIENT_ID]``; a folder per trading day.

A file holds one batch and is called after its first and last stream id. It appears whole (written aside, then renamed)
or not at all. After a crash a batch can come again cut differently, so read a day with the newest revision per key, as
`read_day` does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qmt_orchestration.client import Bar, BarConsumer
from qmt_orchestration.market.schema import PUBLISHED_SCHEMA


def write(folder: Path, bars: list[Bar]) -> None:
    """Write *bars* (one file per trading day among them)."""
    for day in sorted({bar.frame.date() for bar in bars}):
        part = [bar for bar in bars if bar.frame.date() == day]
        name = f"{_name(part[0])}_{_name(part[-1])}.parquet"
        target = folder / f"day={day}" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = [{field: getattr(bar, field) for field in PUBLISHED_SCHEMA.names} for bar in part]
        pq.write_table(pa.Table.from_pylist(rows, schema=PUBLISHED_SCHEMA), target.with_suffix(".part"))
        os.replace(target.with_suffix(".part"), target)


def read_day(folder: Path, day: str) -> pa.Table:
    """The bars of one day, each (symbol, frame) once, in its newest revision."""
    table = pa.concat_tables(
        pq.read_table(file, schema=PUBLISHED_SCHEMA) for file in (folder / f"day={day}").glob("*.parquet")
    )
    newest = table.sort_by([("symbol", "ascending"), ("frame", "ascending"), ("revision", "ascending")])
    return newest.group_by(["symbol", "frame"], use_threads=False).aggregate(
        [(name, "last") for name in PUBLISHED_SCHEMA.names[2:]]
    ).rename_columns(PUBLISHED_SCHEMA.names)  # fmt: skip


def _name(bar: Bar) -> str:
    return bar.origin.entry_id or f"{bar.timestamp}-{bar.symbol}"


def main(folder: str, client_id: str = "parquet_sink") -> None:
    """Run until stopped."""
    with BarConsumer(client_id, start="beginning", catch_up=True) as consumer:
        for bars in consumer.batches():
            write(Path(folder), bars)


if __name__ == "__main__":
    main(*sys.argv[1:3])
