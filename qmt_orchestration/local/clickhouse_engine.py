"""chDB behind a request: one engine per process and folder, one handle per request."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmt_orchestration.local import clickhouse_config as config
from qmt_orchestration.local import clickhouse_protocol as protocol
from qmt_orchestration.local.clickhouse_protocol import ClickHouseError, QueryRequest

TIME_ZONE: Final = "Asia/Shanghai"
MAX_CONCURRENT: Final = 8
#: The engine encodes each block by itself; only formats without a frame of their own may be sent block by block.
STREAMED_FORMATS: Final = frozenset(("Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"))
#: The engine's error for SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK: they read, but their short answers come whole.
NOT_STREAMED: Final = "Streaming query is not supported"


@dataclass
class Reply:
    """A result: its format, the numbers of the summary, and its body, whole or block by block."""

    format: str | None
    summary: dict[str, str]
    body: bytes = b""
    blocks: Iterator[bytes] | None = None


class ChdbEngine:
    """The chDB engine of one folder. One handle per request; at most :data:`MAX_CONCURRENT` at a time."""

    def __init__(self, path: Path, memory_bytes: int) -> None:
        os.environ["TZ"] = TIME_ZONE  # the engine takes the default zone of its process
        time.tzset()
        import chdb

        path.mkdir(parents=True, exist_ok=True)
        self._connect = chdb.connect
        self._target = f"{path.resolve()}?final=1"
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        # The first handle configures the engine and keeps it open between requests.
        config.require_readable(path)
        config.require_version(path, chdb.engine_version)
        try:
            self._keeper = self._connect(f"{self._target}&config-file={config.write(path, memory_bytes).resolve()}")
        except RuntimeError as error:
            raise config.EngineStartError(
                f"the ClickHouse data in {path} cannot be opened (the reason stands above; {error}): end the process "
                "that has them open, or choose another QMT_DATA_DIR; damaged data are restored from a copy"
            ) from error

    def close(self) -> None:
        """Close the engine; open handles must be gone."""
        self._keeper.close()

    @contextmanager
    def _handle(self, request: QueryRequest, read_only: bool) -> Iterator[Any]:
        with self._slots:
            handle = self._connect(self._target)
            try:
                if request.database:
                    name = request.database.replace("\\", "\\\\").replace("`", "\\`")
                    handle.query(f"USE `{name}`")
                settings = {**request.settings, **({"readonly": "2"} if read_only else {})}
                if settings:
                    pairs = (f"{name} = {protocol.quote(value)}" for name, value in settings.items())
                    handle.query(f"SET {', '.join(pairs)}")
                yield handle
            finally:
                handle.close()

    @contextmanager
    def run(self, request: QueryRequest, *, read_only: bool) -> Iterator[Reply]:
        """Run one request. The reply's blocks are valid inside the context. Raises :class:`ClickHouseError`."""
        try:
            insert = protocol.split_insert(request.statement)
            protocol.refuse_host_access(request.statement if insert is None else insert.head.encode())
            with self._handle(request, read_only) as handle:
                if insert is None:
                    yield _query(handle, request, request.statement.decode("utf-8", errors="strict"))
                else:
                    yield _insert(handle, insert, request)
        except UnicodeDecodeError as error:
            raise ClickHouseError(f"Syntax error: the statement is not UTF-8: {error}", code=62) from error
        except RuntimeError as error:  # chdb's ChdbError too
            raise ClickHouseError(str(error)) from error


def _insert(handle: Any, insert: protocol.Insert, request: QueryRequest) -> Reply:
    """Insert from a file: the engine's own streaming insert reports no error that happens when parts are written."""
    data = memoryview(request.statement)[insert.data_offset :]
    if insert.input_format == "Values":  # whose values are expressions
        protocol.refuse_host_access(bytes(data))
    try:
        with _as_file(data) as path:
            return _whole(handle, insert.from_file(path), "TabSeparated", request, None)
    except OSError as error:
        code = 243 if error.errno == errno.ENOSPC else 1001
        raise ClickHouseError(f"the data cannot be handed to the engine: {error}", code=code) from error


@contextmanager
def _as_file(data: memoryview) -> Iterator[str]:
    """Path of a file that only this process can read: in memory on Linux, temporary (0600) elsewhere."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("insert"), "wb", buffering=0) as file:
            _write(file.fileno(), data)
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="qmt-insert-") as temporary:
        _write(temporary.fileno(), data)
        yield temporary.name


def _write(descriptor: int, data: memoryview) -> None:
    while len(data):  # one call writes 2 GiB at most
        data = data[os.write(descriptor, data) :]


def _query(handle: Any, request: QueryRequest, statement: str) -> Reply:
    kind = handle._conn.classify_query(statement)
    selects = kind["query_class"].name == "READ_ONLY"
    if kind["statement_count"] > 1:
        raise ClickHouseError("Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)", code=62)
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
    reply = _whole(handle, statement, format_name, request, bare)
    return reply if selects else Reply(None, reply.summary, reply.body)


def _whole(handle: Any, statement: str, format_name: str, request: QueryRequest, described: str | None) -> Reply:
    """Run *statement* to its end. *described*: the SELECT whose columns' zones a Native result must name."""
    result = handle.query(statement, format_name, params=request.parameters)
    body = result.bytes() or b""
    if described is not None and format_name == "Native" and b"\x08DateTime" in body:
        body = protocol.name_zones(body, _described(handle, described, request.parameters))
    summary = _summary(
        result.storage_rows_read(),
        result.storage_bytes_read(),
        result.rows_written(),
        result.bytes_written(),
        result.rows_read(),
        result.elapsed(),
    )
    return Reply(format_name, summary, body)


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
