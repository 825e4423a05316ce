"""One stream entry = one Arrow batch: lz4 Arrow IPC with the facts needed to account for it.

Fields of an entry: ``session, seq, rows, first_ms, last_ms, sent_ms, payload``. (session, seq) is gap-free per feed
session and shard, so loss is counted, not estimated.

Payloads are not trusted. Before anything is decompressed, the size and the declared sizes of all buffers are checked
(lz4 can hold 250 times its own size); after it, every offset and every text is validated, because a wrong offset would
crash whatever reads the table next.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.quality import shares_of
from qmt_orchestration.market.schema import BOOK_LEVELS, TICK_SCHEMA, TICK_SCHEMA_V1, SchemaError, check_schema

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)  # a batch is small: threads cost four times its decoding
_END: Final = b"\xff\xff\xff\xff\0\0\0\0"  # end of an Arrow IPC stream
_MAX_BATCHES: Final = 1000  # record batches of a payload: each costs memory of its own, however small (ours have one)
_MAX_BUFFER: Final = 1 << 40  # bytes: so that the sum of 10,000 is still exact
_EXPANSION: Final = 8  # a decoded table may be this many times the payload limit; market data compresses 3-6 times
#: What reading a stream that is none raises.
_MALFORMED: Final = (pa.ArrowException, OSError, ValueError, IndexError, struct.error, OverflowError)


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


def decode(payload: bytes, *, max_bytes: int, expected: pa.Schema | None = TICK_SCHEMA) -> pa.Table:
    """The table in *payload*, see `read_payload`."""
    return read_payload(payload, max_bytes=max_bytes, expected=expected)[0]


def read_payload(payload: bytes, *, max_bytes: int, expected: pa.Schema | None) -> tuple[pa.Table, bytes]:
    """The table in *payload*, and the payload; `PayloadError` if it is larger than *max_bytes* or not as *expected*.

    *expected* None accepts any schema (replies of the gateway). Fields that *expected* calls not nullable must
    hold no nulls. Ticks of the schema before ``total_volume`` get that column computed, as the feed does, in both.
    """
    if len(payload) > max_bytes:
        raise PayloadError(f"payload of {len(payload)} bytes, at most {max_bytes} accepted (QMT_STREAM_MAX_PAYLOAD_MB)")
    try:
        size, _ = declared(payload)
        if size > max_bytes * _EXPANSION:
            raise PayloadError(
                f"payload of {len(payload)} bytes declares {size} bytes, at most {max_bytes * _EXPANSION} accepted "
                "(QMT_STREAM_MAX_PAYLOAD_MB)"
            )
        with pa.ipc.open_stream(payload, options=_READ) as reader:
            previous = expected is TICK_SCHEMA and reader.schema.names == TICK_SCHEMA_V1.names
            if expected is not None:
                check_schema(reader.schema, TICK_SCHEMA_V1 if previous else expected)
            table = reader.read_all()
        table.validate(full=True)
    except SchemaError as error:
        raise PayloadError(f"schema refused: {error}") from error
    except PayloadError:
        raise
    except _MALFORMED as error:
        raise PayloadError(f"not an Arrow IPC stream: {error}") from error
    if expected is not None:
        _check_nulls(table, TICK_SCHEMA_V1 if previous else expected)
    if previous:
        table = with_total_volume(table)
        payload = encode(table)
    return table, payload


def cut_book(table: pa.Table, levels: int) -> pa.Table:
    """*table* with at most *levels* entries in each list of its order book (`QMT_BOOK_LEVELS`).

    The feed cuts, before it encodes: what is cut takes no room on the way, and the writer still passes payloads on as
    they are. Measured: 66 % of a batch's bytes with one level, 44 % without the book.
    """
    if levels >= BOOK_LEVELS:
        return table
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            column = table.column(index).combine_chunks()
            if levels:
                cut = pc.list_slice(column, 0, levels, return_fixed_size_list=False)
            else:
                cut = pa.ListArray.from_arrays(pa.array([0] * (len(column) + 1), pa.int32()), column.values[:0])
            table = table.set_column(index, field, cut.cast(field.type))
    return table


def with_total_volume(table: pa.Table) -> pa.Table:
    """Ticks of TICK_SCHEMA_V1 as TICK_SCHEMA."""
    volume, pvolume = (table.column(name).to_numpy() for name in ("volume", "pvolume"))
    total = pa.array(shares_of(volume, pvolume)[0], pa.int64())
    arrays = [total if name == "total_volume" else table.column(name) for name in TICK_SCHEMA.names]
    return pa.table(arrays, schema=TICK_SCHEMA)


def splice(payloads: list[bytes]) -> bytes | None:
    """One Arrow IPC stream with the record batches of all *payloads*, without decoding them.

    None if their schema messages or ends differ in form. The messages in between are not looked at.
    """
    source = pa.BufferReader(payloads[0])
    pa.ipc.read_message(source)
    head = payloads[0][: source.tell()]
    if not all(p.startswith(head) and p.endswith(_END) for p in payloads):
        return None
    return b"".join([head, *(p[len(head) : -len(_END)] for p in payloads), _END])


def decode_together(payloads: list[bytes], *, max_bytes: int) -> list[pa.RecordBatch] | None:
    """The batches of *payloads* of TICK_SCHEMA, one each, decoded as one stream: a tenth of the time for small ones.

    None if one of them is not accepted by `decode`, or not as it is (of the previous schema, or not of one record
    batch): they are to be decoded one by one.
    """
    try:
        for payload in payloads:
            if len(payload) > max_bytes:
                return None
            size, count = declared(payload)
            if count != 1 or size > max_bytes * _EXPANSION:
                return None
        stream = splice(payloads)
        if stream is None:
            return None
        with pa.ipc.open_stream(stream, options=_READ) as reader:
            check_schema(reader.schema)
            batches = list(reader)
        table = pa.Table.from_batches(batches)
        table.validate(full=True)
        _check_nulls(table, TICK_SCHEMA)
    except (PayloadError, SchemaError, *_MALFORMED):
        return None
    return batches


def declared(payload: bytes) -> tuple[int, int]:
    """Bytes that the record batches of an Arrow IPC stream will take, and their number, from their headers alone."""
    total = count = 0
    source = pa.BufferReader(payload)
    while True:
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            if source.tell() != len(payload):
                raise ValueError(f"{len(payload) - source.tell()} bytes after its end") from None
            return total, count
        if message.type == "record batch":
            count += 1
            if count > _MAX_BATCHES:
                raise ValueError(f"more than {_MAX_BATCHES} record batches")
            total += _batch_size(memoryview(message.metadata), memoryview(message.body))
        elif message.type != "schema":
            raise ValueError(f"a message of type {message.type!r}; only record batches are accepted")


def _check_nulls(table: pa.Table, expected: pa.Schema) -> None:
    for index, name, lists in _not_nullable(expected):
        column = table.column(index)
        if column.null_count:
            raise PayloadError(f"column {name}: {column.null_count} nulls, none accepted")
        if lists and (inner := sum(chunk.values.null_count for chunk in column.chunks)):
            raise PayloadError(f"column {name}: {inner} nulls inside its lists, none accepted")


@lru_cache
def _not_nullable(schema: pa.Schema) -> list[tuple[int, str, bool]]:
    """(position, name, is a list) of the columns that may hold no nulls."""
    return [(i, field.name, pa.types.is_list(field.type)) for i, field in enumerate(schema) if not field.nullable]


def _batch_size(meta: memoryview, body: memoryview) -> int:
    """Uncompressed bytes of a RecordBatch message, read from its flatbuffer (format: Arrow's Message.fbs).

    Message: 2 header. RecordBatch: 2 buffers (structs offset i64, length i64), 3 compression. A compressed buffer
    starts with its uncompressed length (i64, -1 = stored as it is).
    """
    header = _offset(meta, struct.unpack_from("<I", meta, 0)[0], 2)
    buffers = _offset(meta, header, 2)
    compressed = _slot(meta, header, 3) != 0
    count = struct.unpack_from("<I", meta, buffers)[0]
    if count > 10_000:
        raise ValueError(f"{count} buffers in one record batch")
    places = np.frombuffer(meta, "<i8", 2 * count, buffers + 4)
    starts, lengths = places[::2], places[1::2]
    if ((starts < 0) | (lengths < 0) | (starts % 8 != 0) | (starts > len(body) - lengths)).any():
        raise ValueError("a buffer lies outside its message")
    if not compressed:
        return int(lengths.sum())
    long = lengths >= 8
    sizes = lengths.copy()
    sizes[long] = np.frombuffer(body, "<i8", len(body) // 8)[starts[long] // 8]
    sizes = np.where(sizes == -1, lengths, sizes)
    if (sizes < 0).any() or (sizes > _MAX_BUFFER).any():
        raise ValueError("a buffer of negative or absurd size")
    return int(sizes.sum())


def _slot(meta: Any, table: int, index: int) -> int:
    """Offset of a flatbuffer table's field in the table, 0 when absent."""
    vtable = table - struct.unpack_from("<i", meta, table)[0]
    if 4 + 2 * index + 2 > struct.unpack_from("<H", meta, vtable)[0]:
        return 0
    return int(struct.unpack_from("<H", meta, vtable + 4 + 2 * index)[0])


def _offset(meta: Any, table: int, index: int) -> int:
    """Where the table or vector in field *index* begins."""
    slot = _slot(meta, table, index)
    if not slot:
        raise ValueError("a record batch without its parts")
    return int(table + slot + struct.unpack_from("<I", meta, table + slot)[0])
