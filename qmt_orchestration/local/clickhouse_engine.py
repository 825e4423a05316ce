"""chDB behind a request: one engine per process and folder, one handle per request."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmt_orchestration.local import clickhouse_protocol as protocol
from qmt_orchestration.local.clickhouse_protocol import ClickHouseError, Request

TIME_ZONE: Final = "Asia/Shanghai"
MAX_CONCURRENT: Final = 8
#: The engine encodes each block by itself; only formats without a frame of their own may be sent block by block.
STREAMED_FORMATS: Final = frozenset(("Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"))
#: What the engine says of SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK: they read, but their short answers come whole.
NOT_STREAMED: Final = "Streaming query is not supported"


@dataclass
class Reply:
    """A result: its format, the numbers of the summary, and its body, whole or block by block."""

    format: str | None
    summary: dict[str, str]
    body: bytes = b""
    blocks: Iterator[bytes] | None = None


class Engine:
    """The chDB engine of one folder. One handle per request; at most :data:`MAX_CONCURRENT` at a time."""

    def __init__(self, path: Path, memory_bytes: int) -> None:
        os.environ["TZ"] = TIME_ZONE  # the engine takes the default zone of its process
        time.tzset()
        import chdb

        path.mkdir(parents=True, exist_ok=True)
        config = path.parent / f"{path.name}.config.xml"
        config.write_text(
            "<clickhouse>"
            f"<max_server_memory_usage>{memory_bytes}</max_server_memory_usage>"
            f"<mark_cache_size>{memory_bytes // 16}</mark_cache_size>"
            f"<uncompressed_cache_size>0</uncompressed_cache_size>"
            "</clickhouse>"
        )
        self._connect = chdb.connect
        self._target = f"{path.resolve()}?final=1"
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        # The first handle configures the engine and keeps it open between requests.
        self._keeper = self._connect(f"{path.resolve()}?final=1&config-file={config.resolve()}")

    def close(self) -> None:
        """Close the engine; open handles must be gone."""
        self._keeper.close()

    @contextmanager
    def _handle(self, request: Request) -> Iterator[Any]:
        with self._slots:
            handle = self._connect(self._target)
            try:
                if request.database:
                    name = request.database.replace("\\", "\\\\").replace("`", "\\`")
                    handle.query(f"USE `{name}`")
                if request.settings:
                    pairs = (f"{name} = {protocol.quote(value)}" for name, value in request.settings.items())
                    handle.query(f"SET {', '.join(pairs)}")
                yield handle
            finally:
                handle.close()

    @contextmanager
    def run(self, request: Request, *, read_only: bool) -> Iterator[Reply]:
        """Run one request. The reply's blocks are valid inside the context. Raises :class:`ClickHouseError`."""
        insert = protocol.split_insert(request.statement)
        try:
            with self._handle(request) as handle:
                if insert is None:
                    statement = request.statement.decode("utf-8", errors="strict")
                    yield _query(handle, request, statement, read_only)
                elif read_only:
                    raise ClickHouseError("Cannot execute an INSERT by GET; use POST. (READONLY)", code=164)
                else:
                    yield _insert(handle, insert, request.statement)
        except UnicodeDecodeError as error:
            raise ClickHouseError(f"Syntax error: the statement is not UTF-8: {error}", code=62) from error
        except RuntimeError as error:  # chdb's ChdbError too
            raise ClickHouseError(str(error)) from error


def _insert(handle: Any, insert: protocol.Insert, statement: bytes) -> Reply:
    data = memoryview(statement)[insert.data_offset :]
    writer = handle.send_insert(insert.head, insert.input_format)
    try:
        for start in range(0, len(data), 4 << 20):
            writer.append(bytes(data[start : start + (4 << 20)]))
        done = writer.finish()
    finally:
        writer.cancel()  # nothing to do after finish()
    return Reply(None, _summary(0, 0, done.rows_written, done.bytes_written, 0, done.elapsed))


def _query(handle: Any, request: Request, statement: str, read_only: bool) -> Reply:
    kind = handle._conn.classify_query(statement)
    selects = kind["query_class"].name == "READ_ONLY"
    if kind["statement_count"] > 1:
        raise ClickHouseError("Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)", code=62)
    if read_only and kind["statement_count"] and not selects:
        raise ClickHouseError("Cannot execute query in readonly mode: GET only reads; use POST. (READONLY)", code=164)
    if not statement.strip():
        raise ClickHouseError("Syntax error: the query is empty. (SYNTAX_ERROR)", code=62)
    format_name, bare = protocol.output_format(statement, request.default_format)
    if selects and format_name in STREAMED_FORMATS and not request.buffered:
        columns = _described(handle, bare, request.parameters) if format_name == "Native" else []
        blocks = _blocks(handle, bare, format_name, request.parameters)
        try:
            first = next(blocks, b"")  # errors of analysis come here, before the status line
        except RuntimeError as error:
            if NOT_STREAMED not in str(error):
                raise
        else:
            first = protocol.name_zones(first, columns)
            return Reply(format_name, _summary(0, 0, 0, 0, 0, 0), blocks=_chain(first, blocks))
    result = handle.query(statement, format_name, params=request.parameters)
    body = result.bytes() or b""
    if format_name == "Native" and b"\x08DateTime" in body:  # only such results pay for the description
        body = protocol.name_zones(body, _described(handle, bare, request.parameters))
    summary = _summary(
        result.storage_rows_read(),
        result.storage_bytes_read(),
        result.rows_written(),
        result.bytes_written(),
        result.rows_read(),
        result.elapsed(),
    )
    return Reply(format_name if selects else None, summary, body)


def _blocks(handle: Any, statement: str, format_name: str, parameters: dict[str, str]) -> Iterator[bytes]:
    stream = handle.send_query(statement, format_name, params=parameters)
    try:
        while (block := stream.fetch()) is not None:
            if data := block.bytes():
                yield data
    finally:
        stream.close()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _described(handle: Any, statement: str, parameters: dict[str, str]) -> list[tuple[str, str]]:
    """Names and full types of a SELECT's columns; nothing for other statements (see `protocol.name_zones`)."""
    if not statement.lstrip(" \t\r\n(").upper().startswith(("SELECT", "WITH")):
        return []
    try:
        text = handle.query(f"DESCRIBE TABLE ({statement}\n)", "JSONCompact", params=parameters).bytes()
    except RuntimeError:  # the statement itself will say what is wrong with it
        return []
    return [(row[0], row[1]) for row in json.loads(text)["data"]]


def _summary(read_rows: int, read_bytes: int, rows: int, size: int, result: int, seconds: float) -> dict[str, str]:
    return {
        "read_rows": str(read_rows),
        "read_bytes": str(read_bytes),
        "written_rows": str(rows),
        "written_bytes": str(size),
        "result_rows": str(result),
        "elapsed_ns": str(int(seconds * 1e9)),
    }
