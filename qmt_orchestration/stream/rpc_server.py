"""The gateway's side of `rpc`: takes requests from the stream, runs their handlers, sends the replies.

What bounds it: the size and deadline of a request (`rpc_request`), the requests that wait (`MOST_WAITING`, more are
refused with the reason), the bytes of an answer, and the time a caller may leave chunks unread. Large requests leave
one worker free for small ones. A reply that Redis refuses to store is given up: asking QMT again would end the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys, rpc_request
from qmt_orchestration.stream.batch import encode
from qmt_orchestration.stream.fields import FieldError
from qmt_orchestration.stream.groups import Entry, GroupReader
from qmt_orchestration.stream.rpc import Call, Handler, RpcError
from qmt_orchestration.stream.rpc_request import Refused, Request

log = logging.getLogger(__name__)

MOST_WAITING: Final = 16  # small ones, and as many large ones
MOST_ANSWER_BYTES: Final = 1 << 30
UNREAD_SECONDS: Final = 30.0
_MOST_DELIVERIES: Final = 5  # a request that was begun this often and never ended may be what kills the gateway
_REPLY_TTL_SECONDS: Final = 3600
_AHEAD: Final = 16
_CHUNK_BYTES: Final = 4 << 20

Send = Callable[[dict[str, Any]], None]


class _Interrupted(Exception):
    """The server stops: the request stays pending and is served again after the restart."""


class _Abandoned(Exception):
    """The caller has given up: its deadline has passed, it removed its request, or it no longer reads."""


class RpcServer:
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
        self._waiting: deque[Request] = deque()
        self._busy: dict[Future[None], Request] = {}
        self.served = 0
        self.failed = 0
        self.refused = 0

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return len(self._waiting)

    def serve(self, stop: threading.Event) -> None:
        """Serve until *stop*; survives a Redis that goes away. The caller beats (see `heartbeat`)."""
        reader = GroupReader(
            self._client,
            keys.RPC,
            keys.RPC_GROUP,
            self._settings.host,
            block_ms=min(self._settings.redis_block_ms, 250),
            max_entries=16,
            min_idle_ms=30_000,
        )
        with ThreadPoolExecutor(self._workers, thread_name_prefix="rpc") as pool:
            while not stop.is_set():
                try:
                    self._finish(reader)
                    self._start(pool, stop)
                    reader.block_ms = 50 if self._waiting else min(self._settings.redis_block_ms, 250)
                    self._take(reader)
                except redis.RedisError as error:
                    log.warning("gateway: Redis is away (%s), trying again", error)
                    stop.wait(0.5)
        try:
            self._finish(reader)
            reader.close()
        except redis.RedisError as error:
            log.warning("gateway: could not leave its group: %s", error)

    # -- which request, and when --------------------------------------------------------------------------------

    def _take(self, reader: GroupReader) -> None:
        entries = reader.read()
        for n, entry in enumerate(entries):
            try:
                self._admit(entry, reader)
            except redis.RedisError:
                reader.release(entries[n:])
                raise

    def _admit(self, entry: Entry, reader: GroupReader) -> None:
        """Queue the request, or refuse it with the reason."""
        try:
            request = rpc_request.parse(entry)
        except FieldError as error:
            self._answer_malformed(entry, error)
            reader.reject(entry, f"no request: {error}")
            return
        if time.time() * 1000 > request.deadline_ms:
            log.warning("request %s %s came after its deadline; nobody waits for it", request.method, request.id)
            self._done(reader, request)
            return
        try:
            if entry.deliveries > _MOST_DELIVERIES:
                raise Refused(f"begun {entry.deliveries - 1} times and never ended: the gateway stopped each time")
            rpc_request.check(request, time.time() * 1000, self._settings.gateway_symbol_days)
            alike = sum(other.is_small == request.is_small for other in self._waiting)
            if alike >= MOST_WAITING:
                raise Refused(f"{alike} requests wait already: ask again later")
            self._waiting.append(request)
        except Refused as error:
            log.warning("request %s %s is refused: %s", request.method, request.id, error)
            self.refused += 1
            self._send(request, {"kind": "error", "message": f"refused: {error}"})
            self._done(reader, request)

    def _answer_malformed(self, entry: Entry, error: FieldError) -> None:
        try:
            reply = keys.RPC_REPLY.format(request_id=rpc_request.request_id(entry))
        except FieldError:
            return
        self._write(reply, entry, {"kind": "error", "message": f"refused: {error}"})

    def _start(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        """Give the free workers something to do, the oldest request first; large ones leave one worker free."""
        for request in list(self._waiting):
            if len(self._busy) >= self._workers:
                return
            large = sum(not other.is_small for other in self._busy.values())
            if request.is_small or large < max(self._workers - 1, 1):
                self._waiting.remove(request)
                self._busy[pool.submit(self._serve_one, request, stop)] = request

    def _finish(self, reader: GroupReader) -> None:
        for future in [f for f in self._busy if f.done()]:
            request, error = self._busy[future], future.exception()
            if error is None:
                self._done(reader, request)
                self.served += 1
            elif isinstance(error, _Abandoned):
                log.warning("request %s %s is given up: %s", request.method, request.id, error)
                self._done(reader, request)
            elif isinstance(error, redis.ResponseError):
                log.error("request %s %s: its reply cannot be written: %s", request.method, request.id, error)
                self.failed += 1
                self._done(reader, request)
            elif isinstance(error, _Interrupted | redis.RedisError):
                reader.release([request.entry])
            else:
                reader.reject(request.entry, f"{type(error).__name__}: {error}")
            del self._busy[future]

    def _done(self, reader: GroupReader, request: Request) -> None:
        reader.ack(request.entry.id)
        self._client.xdel(keys.RPC, request.entry.id)

    # -- one request ------------------------------------------------------------------------------------------------

    def _serve_one(self, request: Request, stop: threading.Event) -> None:
        handler = self._handlers.get(request.method)

        def send(fields: dict[str, Any]) -> None:
            self._require_caller(request)
            self._send(request, fields)

        try:
            self._require_caller(request)
            if handler is None:
                raise RpcError(f"unknown method; this gateway has {sorted(self._handlers)}")
            self._answer(handler(Call(request.params, request.deadline_ms, send)), request, send, stop)
        except (_Interrupted, _Abandoned, redis.RedisError):
            raise
        except Exception as error:  # the handler's own failure is the caller's to see
            log.exception("request %s %s failed", request.method, request.id)
            self.failed += 1
            send({"kind": "error", "message": f"{type(error).__name__}: {error}"[:4000]})

    def _answer(
        self, result: pa.Table | Iterable[pa.Table], request: Request, send: Send, stop: threading.Event
    ) -> None:
        chunks = rows = size = 0
        limit = min(_CHUNK_BYTES, self._settings.stream_max_payload_mb << 20)
        for table in [result] if isinstance(result, pa.Table) else result:
            for payload in _payloads(table, limit):
                size += len(payload)
                if size > MOST_ANSWER_BYTES:
                    raise RpcError(f"the answer is larger than {MOST_ANSWER_BYTES >> 20} MB: ask for less at once")
                self._wait_for_room(request, stop)
                send({"kind": "chunk", "n": chunks, "payload": payload})
                chunks += 1
            rows += table.num_rows
        send({"kind": "done", "chunks": chunks, "rows": rows})

    def _wait_for_room(self, request: Request, stop: threading.Event) -> None:
        """Wait until the caller has read enough that another chunk does not fill Redis."""
        reply = keys.RPC_REPLY.format(request_id=request.id)
        begun = time.monotonic()
        while True:
            if stop.is_set():
                raise _Interrupted
            if time.time() * 1000 > request.deadline_ms:
                raise _Abandoned("its deadline passed before the answer was complete")
            if self._client.xlen(reply) < _AHEAD:
                return
            if time.monotonic() - begun > UNREAD_SECONDS:
                raise _Abandoned(f"the caller has read nothing for {UNREAD_SECONDS:.0f} s")
            self._require_caller(request)
            stop.wait(0.05)

    def _require_caller(self, request: Request) -> None:
        """`_Abandoned` once the caller has removed its request."""
        if not self._client.xrange(keys.RPC, request.entry.id, request.entry.id):
            raise _Abandoned("the caller has removed it")

    def _send(self, request: Request, fields: dict[str, Any]) -> None:
        self._write(keys.RPC_REPLY.format(request_id=request.id), request.entry, fields)

    def _write(self, reply: str, entry: Entry, fields: dict[str, Any]) -> None:
        pipe = self._client.pipeline(transaction=True)
        pipe.xadd(reply, {"attempt": entry.deliveries, **fields})
        pipe.expire(reply, _REPLY_TTL_SECONDS)
        pipe.execute()


def _payloads(table: pa.Table, limit: int) -> Iterator[bytes]:
    """*table* as payloads of at most *limit* bytes each; at least one, so that an empty answer has its columns."""
    payload = encode(table)
    if (len(payload) <= limit and table.nbytes <= 4 * limit) or table.num_rows <= 1:
        yield payload
        return
    half = table.num_rows // 2
    yield from _payloads(table.slice(0, half), limit)
    yield from _payloads(table.slice(half), limit)
