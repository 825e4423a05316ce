"""Commands to the gateway beside QMT, and its replies, over Redis Streams.

A request is an entry of `keys.RPC`: ``id, method, params (JSON), deadline_ms (epoch ms)``. The gateway reads them in a
consumer group, so a request survives the gateway's restart and is then served again from its beginning. Replies
are entries of `keys.RPC_REPLY`: ``kind, attempt`` and

* ``progress``: ``data`` (JSON object);
* ``chunk``: ``n`` (from 0), ``payload`` (Arrow IPC);
* ``done``: ``chunks`` and ``rows``;
* ``error``: ``message``.

A higher ``attempt`` voids what came before. The caller removes chunks as it reads them and the server waits while
`_AHEAD` of them are unread, so a long history never fills Redis. The reply stream expires an hour after its last entry.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import heartbeat, keys
from qmt_orchestration.stream.batch import PayloadError, decode, encode
from qmt_orchestration.stream.groups import Entry, GroupReader

log = logging.getLogger(__name__)

SERVICE: Final = "gateway"
_REPLY_TTL_SECONDS: Final = 3600
_AHEAD: Final = 16
_CHUNK_BYTES: Final = 4 << 20
_BLOCK_MS: Final = 1000


class NoGateway(RuntimeError):
    """No gateway is alive: nobody would answer."""


class RpcTimeout(TimeoutError):
    """The deadline passed before the answer was complete."""


class RpcError(RuntimeError):
    """The gateway answered with an error, or with something that is no valid answer."""


class Call:
    """A request being served, as its handler sees it."""

    def __init__(self, params: Mapping[str, Any], deadline_ms: int, send: Callable[[dict[str, Any]], None]) -> None:
        self.params = params
        self.deadline_ms = deadline_ms
        self._send = send

    def remaining_seconds(self) -> float:
        """Time left until the caller gives up; never negative."""
        return max(self.deadline_ms / 1000 - time.time(), 0.0)

    def progress(self, **data: Any) -> None:
        """Tell the caller how far it is (JSON values)."""
        self._send({"kind": "progress", "data": json.dumps(data)})


#: Serves one method: a table, or tables of one schema as they become ready. An exception is the caller's `RpcError`.
Handler = Callable[[Call], "pa.Table | Iterable[pa.Table]"]


# -- the caller ---------------------------------------------------------------------------------------------------


def call(
    client: Any,
    method: str,
    params: Mapping[str, Any],
    *,
    timeout_seconds: float,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    max_payload_mb: int = 32,
) -> pa.Table:
    """Ask the gateway and wait for the whole answer.

    :raises NoGateway: at once, if no gateway beats.
    :raises RpcTimeout: after *timeout_seconds*; the message says whether a gateway is still alive.
    :raises RpcError: the handler failed, or the method is unknown.
    """
    if not heartbeat.is_alive(client, SERVICE):
        raise NoGateway(
            "no gateway is alive (no heartbeat in Redis): start it beside QMT with `qmt start gateway`, "
            "or `python -m qmt_orchestration.services run gateway`"
        )
    request_id = uuid.uuid4().hex
    reply = keys.RPC_REPLY.format(request_id=request_id)
    deadline = time.time() + timeout_seconds
    request = {
        "id": request_id,
        "method": method,
        "params": json.dumps(dict(params), default=str),
        "deadline_ms": int(deadline * 1000),
    }
    client.xadd(keys.RPC, request)
    try:
        return _Answer(method, max_payload_mb << 20, on_progress).collect(client, reply, deadline, timeout_seconds)
    finally:
        client.delete(reply)


class _Answer:
    """What has come of an answer so far."""

    def __init__(self, method: str, max_bytes: int, on_progress: Callable[[dict[str, Any]], None] | None) -> None:
        self._method, self._max_bytes, self._on_progress = method, max_bytes, on_progress
        self._attempt = 0
        self._chunks: dict[int, pa.Table] = {}

    def collect(self, client: Any, reply: str, deadline: float, timeout_seconds: float) -> pa.Table:
        last = b"0-0"
        while True:
            left = deadline - time.time()
            if left <= 0:
                alive = "is alive" if heartbeat.is_alive(client, SERVICE) else "is no longer alive"
                raise RpcTimeout(
                    f"{self._method}: no complete answer within {timeout_seconds:g} s "
                    f"({len(self._chunks)} chunks came); the gateway {alive}"
                )
            block = max(1, min(_BLOCK_MS, int(left * 1000)))
            for id_, fields in _entries(client.xread({reply: last}, count=4, block=block)):
                last = id_
                table = self._take(fields)
                if table is not None:
                    return table
                client.xdel(reply, id_)

    def _take(self, fields: Mapping[bytes, bytes]) -> pa.Table | None:
        attempt = int(fields[b"attempt"])
        if attempt < self._attempt:
            return None
        if attempt > self._attempt:
            self._attempt = attempt
            self._chunks.clear()
        kind = fields[b"kind"]
        if kind == b"progress":
            if self._on_progress:
                self._on_progress(json.loads(fields[b"data"]))
        elif kind == b"chunk":
            try:
                table = decode(fields[b"payload"], max_bytes=self._max_bytes, expected=None)
            except PayloadError as error:
                raise RpcError(f"{self._method}: chunk refused: {error}") from error
            self._chunks[int(fields[b"n"])] = table
        elif kind == b"error":
            raise RpcError(f"{self._method}: {fields[b'message'].decode(errors='replace')}")
        elif kind == b"done":
            return self._whole(int(fields[b"chunks"]), int(fields[b"rows"]))
        return None

    def _whole(self, chunks: int, rows: int) -> pa.Table:
        if sorted(self._chunks) != list(range(chunks)):
            raise RpcError(f"{self._method}: expected {chunks} chunks, {len(self._chunks)} came")
        table = pa.concat_tables([self._chunks[n] for n in range(chunks)])
        if table.num_rows != rows:
            raise RpcError(f"{self._method}: expected {rows} rows, {table.num_rows} came")
        return table


def _entries(reply: Any) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Entries of an XREAD reply of one stream (RESP2 list or RESP3 dict)."""
    if isinstance(reply, dict):
        for pages in reply.values():
            for page in pages:
                yield from page
    else:
        for _, page in reply or ():
            yield from page


# -- the gateway --------------------------------------------------------------------------------------------------


class Server:
    """Serves requests with *handlers* (method name -> `Handler`), *workers* at a time.

    Handlers run in threads of this process. Each request is acknowledged after its last reply was written; a request
    that was under way when the process died is served again, until its deadline.
    """

    def __init__(
        self, client: redis.Redis, settings: Settings, handlers: Mapping[str, Handler], *, workers: int = 2
    ) -> None:
        self._client: Any = client
        self._settings = settings
        self._handlers = dict(handlers)
        self._workers = workers
        self._busy: dict[Future[None], Entry] = {}
        self.served = 0
        self.failed = 0

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self._busy)

    def serve(self, stop: threading.Event) -> None:
        """Serve until *stop*; survives a Redis that goes away. The caller beats (see `heartbeat`)."""
        reader = GroupReader(
            self._client,
            keys.RPC,
            keys.RPC_GROUP,
            self._settings.host,
            block_ms=min(self._settings.redis_block_ms, 250),
            max_entries=1,
            min_idle_ms=30_000,
        )
        with ThreadPoolExecutor(self._workers, thread_name_prefix="rpc") as pool:
            while not stop.is_set():
                try:
                    self._finish(reader)
                    if len(self._busy) >= self._workers:
                        reader.touch()
                        stop.wait(0.02)
                        continue
                    for entry in reader.read():
                        self._busy[pool.submit(self._serve_one, entry, stop)] = entry
                except redis.RedisError as error:
                    log.warning("gateway: Redis is away (%s), trying again", error)
                    stop.wait(0.5)
        try:
            self._finish(reader)
            reader.close()
        except redis.RedisError as error:
            log.warning("gateway: could not leave its group: %s", error)

    def _finish(self, reader: GroupReader) -> None:
        for future in [f for f in self._busy if f.done()]:
            entry = self._busy[future]
            error = future.exception()
            if error is None:
                reader.ack(entry.id)
                self._client.xdel(keys.RPC, entry.id)
                self.served += 1
            elif isinstance(error, _Interrupted | redis.RedisError):
                reader.release([entry])
            else:
                reader.reject(entry, f"{type(error).__name__}: {error}")
            del self._busy[future]

    def _serve_one(self, entry: Entry, stop: threading.Event) -> None:
        request_id = entry.fields[b"id"].decode()
        method = entry.fields[b"method"].decode()
        params = json.loads(entry.fields[b"params"])
        deadline_ms = int(entry.fields[b"deadline_ms"])
        reply = keys.RPC_REPLY.format(request_id=request_id)

        def send(fields: dict[str, Any]) -> None:
            pipe = self._client.pipeline(transaction=True)
            pipe.xadd(reply, {"attempt": entry.deliveries, **fields})
            pipe.expire(reply, _REPLY_TTL_SECONDS)
            pipe.execute()

        if time.time() * 1000 > deadline_ms:
            log.warning("request %s %s came after its deadline; nobody waits for it", method, request_id)
            return
        handler = self._handlers.get(method)
        try:
            if handler is None:
                raise RpcError(f"unknown method; this gateway has {sorted(self._handlers)}")
            self._answer(handler(Call(params, deadline_ms, send)), reply, deadline_ms, send, stop)
        except (_Interrupted, redis.RedisError):
            raise
        except Exception as error:  # the handler's own failure is the caller's to see
            log.exception("request %s %s failed", method, request_id)
            self.failed += 1
            send({"kind": "error", "message": f"{type(error).__name__}: {error}"[:4000]})

    def _answer(
        self,
        result: pa.Table | Iterable[pa.Table],
        reply: str,
        deadline_ms: int,
        send: Callable[[dict[str, Any]], None],
        stop: threading.Event,
    ) -> None:
        chunks = rows = 0
        limit = min(_CHUNK_BYTES, self._settings.stream_max_payload_mb << 20)
        for table in [result] if isinstance(result, pa.Table) else result:
            for payload in _payloads(table, limit):
                if stop.is_set():
                    raise _Interrupted
                while self._client.xlen(reply) >= _AHEAD:  # the caller reads slowly: do not fill Redis
                    if time.time() * 1000 > deadline_ms:
                        raise RpcTimeout("the deadline passed while the caller was not reading")
                    if stop.wait(0.05):
                        raise _Interrupted
                send({"kind": "chunk", "n": chunks, "payload": payload})
                chunks += 1
            rows += table.num_rows
        send({"kind": "done", "chunks": chunks, "rows": rows})


class _Interrupted(Exception):
    """The server stops: the request stays pending and is served again after the restart."""


def _payloads(table: pa.Table, limit: int) -> Iterator[bytes]:
    """*table* as payloads of at most *limit* bytes each; at least one, so that an empty answer has its columns."""
    payload = encode(table)
    if (len(payload) <= limit and table.nbytes <= 4 * limit) or table.num_rows <= 1:
        yield payload
        return
    half = table.num_rows // 2
    yield from _payloads(table.slice(0, half), limit)
    yield from _payloads(table.slice(half), limit)
