"""Commands to the gateway beside QMT, and its replies, over Redis Streams.

A request is an entry of `keys.RPC`: ``id, method, params (JSON), deadline_ms (epoch ms)``. The gateway reads them in a
consumer group, so a request survives the gateway's restart and is then served again from its beginning. Replies
are entries of `keys.RPC_REPLY`: ``kind, attempt`` and

* ``progress``: ``data`` (JSON object);
* ``chunk``: ``n`` (from 0), ``payload`` (Arrow IPC);
* ``done``: ``chunks`` and ``rows``;
* ``error``: ``message``.

A higher ``attempt`` voids what came before. The caller removes chunks as it reads them and the server waits while some
of them are unread, so a long history never fills Redis. A caller that gives up removes its request, and the server
stops working on it. The reply stream expires an hour after its last entry. `rpc_server` is the other side.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from qmt_orchestration.stream import fields as parse
from qmt_orchestration.stream import heartbeat, keys
from qmt_orchestration.stream.batch import PayloadError, decode

SERVICE: Final = "gateway"
_BLOCK_MS: Final = 1000
_MOST_CHUNKS: Final = 1_000_000


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
    :raises RpcError: the handler failed, the method is unknown, or the request is beyond a limit (`rpc_request`).
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
    entry_id = client.xadd(keys.RPC, request)
    try:
        return _Answer(method, max_payload_mb << 20, on_progress).collect(client, reply, deadline, timeout_seconds)
    finally:
        client.xdel(keys.RPC, entry_id)  # whoever still works on it stops
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
                try:
                    table = self._take(fields)
                except (parse.FieldError, pa.ArrowException) as error:
                    raise RpcError(f"{self._method}: the reply cannot be read: {error}") from error
                if table is not None:
                    return table
                client.xdel(reply, id_)

    def _take(self, fields: Mapping[bytes, bytes]) -> pa.Table | None:
        attempt = parse.require_integer(fields, "attempt", 0)
        if attempt < self._attempt:
            return None
        if attempt > self._attempt:
            self._attempt = attempt
            self._chunks.clear()
        kind = parse.require_text(fields, "kind", 16)
        if kind == "progress":
            if self._on_progress:
                self._on_progress(parse.require_json_object(fields, "data"))
        elif kind == "chunk":
            try:
                table = decode(fields.get(b"payload", b""), max_bytes=self._max_bytes, expected=None)
            except PayloadError as error:
                raise RpcError(f"{self._method}: chunk refused: {error}") from error
            self._chunks[parse.require_integer(fields, "n", 0, _MOST_CHUNKS)] = table
        elif kind == "error":
            raise RpcError(f"{self._method}: {parse.text(fields, 'message', 'no message')}")
        elif kind == "done":
            chunks = parse.require_integer(fields, "chunks", 1, _MOST_CHUNKS)
            return self._whole(chunks, parse.require_integer(fields, "rows", 0))
        return None

    def _whole(self, chunks: int, rows: int) -> pa.Table:
        if len(self._chunks) != chunks or max(self._chunks) != chunks - 1:
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
