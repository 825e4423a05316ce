"""Tables of plug-ins: made from what they declare, written with a version, read back as bars for a processor."""

from __future__ import annotations

import time
from datetime import datetime
from string import Template
from typing import Any, Literal

import pyarrow as pa

from qmt_orchestration.market.schema import TZ
from qmt_orchestration.plugins import TYPES, PluginError
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import load_sql
from qmt_orchestration.warehouse.migrate import template_words


def make_like(client: Any, settings: Settings, table: str, like: Literal["qmt_bars", "ticks"]) -> None:
    """Create *table* as *like*, one of ours (the server takes no parameter there), if it is not there."""
    statement = Template(load_sql("table_like")).substitute(template_words(settings), like=like)
    client.command(statement, {"table": table})


def make_processor_table(client: Any, settings: Settings, table: str, schema: pa.Schema) -> None:
    """Create the table of a processor. Raises `PluginError` when one of other columns is there."""
    wanted = [(column.name, TYPES[column.type]) for column in schema]  # names and types were checked when it was loaded
    columns = ", ".join(f"`{name}` {kind} CODEC(ZSTD(1))" for name, kind in wanted)
    statement = Template(load_sql("processor_table")).substitute(template_words(settings), columns=columns)
    client.command(statement, {"table": table})
    there = client.query(load_sql("table_columns"), {"table": table}).result_rows
    own = [(name, kind) for name, kind in there if name not in ("symbol", "frame", "version")]
    if own != wanted:
        raise PluginError(
            f"table {table}: expected the columns {wanted} of its processor, found {own}: drop or rename the table, or "
            "give the processor another name"
        )


def bars_made(client: Any, table: str, first: datetime, last: datetime) -> pa.Table:
    """The bars of *table* from *first* to *last*, all columns, ordered by symbol and frame."""
    text = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (first, last)]
    parameters = {"table": table, "first": text[0], "last": text[1]}
    found = client.query_arrow(load_sql("bars_made"), parameters, use_strings=True)
    place = found.schema.get_field_index("frame")
    seconds = found.column(place).cast(pa.int64()).cast(pa.timestamp("s", TZ))
    return found.set_column(place, "frame", seconds)


def write(client: Any, table: str, rows: pa.Table, *, versioned: bool) -> int:
    """Insert *rows*; the newest of a symbol and frame is read."""
    if rows.num_rows and versioned:
        version = pa.array([time.time_ns() // 1000] * rows.num_rows, pa.uint64())
        rows = rows.append_column("version", version)
    if rows.num_rows:
        client.insert_arrow(table, rows)
    return int(rows.num_rows)
