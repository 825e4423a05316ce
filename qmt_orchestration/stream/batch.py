"""One stream entry = one Arrow batch: lz4 Arrow IPC with the facts needed to account for it.

Fields of an entry: ``session, seq, rows, first_ms, last_ms, sent_ms, payload``. (session, seq) is gap-free per feed
session and shard, so loss is counted, not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.schema import TICK_SCHEMA, SchemaError, check_schema

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


class PayloadError(ValueError):
    """A payload is refused: too large, no Arrow stream, or of another schema. Says which, and what was expected."""


@dataclass(frozen=True)
class Batch:
    """A batch of rows with its place in the feed session."""

    session: str
    seq: int
    table: pa.Table
    sent_ms: int

    def fields(self) -> dict[str, str | int | bytes]:
        """The stream entry of this batch (times are those of the ``time`` column, epoch ms)."""
        times = self.table.column("time").cast(pa.int64())
        bounds = pc.min_max(times).as_py()
        return {
            "session": self.session,
            "seq": self.seq,
            "rows": self.table.num_rows,
            "first_ms": bounds["min"],
            "last_ms": bounds["max"],
            "sent_ms": self.sent_ms,
            "payload": encode(self.table),
        }


def encode(table: pa.Table) -> bytes:
    """Arrow IPC stream of *table*, lz4-compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def decode(payload: bytes, *, max_bytes: int, expected: pa.Schema = TICK_SCHEMA) -> pa.Table:
    """The table in *payload*; `PayloadError` if it is larger than *max_bytes* or not exactly *expected*."""
    if len(payload) > max_bytes:
        raise PayloadError(f"payload of {len(payload)} bytes, at most {max_bytes} accepted (QMT_STREAM_MAX_PAYLOAD_MB)")
    try:
        with pa.ipc.open_stream(payload) as reader:
            check_schema(reader.schema, expected)
            table = reader.read_all()
    except SchemaError as error:
        raise PayloadError(f"schema refused: {error}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PayloadError(f"not an Arrow IPC stream: {error}") from error
    for name in expected.names:
        if table.column(name).null_count:
            raise PayloadError(f"column {name}: {table.column(name).null_count} nulls, none accepted")
    return table
