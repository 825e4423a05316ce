"""ClickHouse without a server: chDB in one process, answering ClickHouse's HTTP protocol on loopback.

    python -m qmt_orchestration.local.clickhouse_server --path DIR --port N --password-file FILE

`clickhouse-connect`, `curl` and every other HTTP client of ClickHouse use it like a server, so that the same SQL
and the same client code serve both. What differs from a server: one host, no users besides the one of the settings, no
sessions (each request gets an engine handle of its own: a setting, a USE or a failure of one never reaches another), no
compression of replies, no external tables.

Defaults of the server: time zone Asia/Shanghai, ``final=1``.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from qmt_orchestration.local import clickhouse_protocol as protocol
from qmt_orchestration.local.clickhouse_config import EngineStartError
from qmt_orchestration.local.clickhouse_engine import TIME_ZONE, ChdbEngine
from qmt_orchestration.local.clickhouse_protocol import ClickHouseError, QueryRequest
from qmt_orchestration.local.process import exit_with_parent

MAX_BODY_BYTES: Final = 1 << 30
STOP_SECONDS: Final = 8.0
CONTENT_TYPES: Final = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "Parquet": "application/octet-stream",
}

LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))

log = logging.getLogger("qmt.clickhouse")


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive; requests on it run one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet
    timeout = 3600  # an idle connection is given up
    server: HttpServer

    def do_GET(self) -> None:
        self._serve(read_only=True)

    def do_HEAD(self) -> None:
        self._send(200, b"", {})

    def do_POST(self) -> None:
        self._serve(read_only=False)

    def _serve(self, *, read_only: bool) -> None:
        path = urlsplit(self.path).path
        try:
            body = self._body()  # the whole of it, before the engine is touched
            self._check_origin()
            nothing_asked = read_only and path == "/" and not urlsplit(self.path).query and not body
            if path == "/ping" or nothing_asked:
                self._send(200, b"Ok.\n", {})
            elif path not in ("", "/", "/query"):
                self._send(404, f"There is no handle {path}; use /, /query or /ping\n".encode(), {})
            else:
                self._check_user()
                request = protocol.parse_request(self.path, self.headers, body)
                del body
                with self.server.working():
                    self._answer(request, read_only)
        except ClickHouseError as error:
            self._send_error(error, path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # a bug of ours: the client gets the error, the server goes on
            log.exception("request failed")
            self._send_error(ClickHouseError(f"{type(error).__name__}: {error}"), path)

    def _answer(self, request: QueryRequest, read_only: bool) -> None:
        query_id = request.query_id or str(uuid.uuid4())
        with self.server.engine.run(request, read_only=read_only) as reply:
            head = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Summary": json.dumps(reply.summary)}
            if reply.format is not None:
                head["X-ClickHouse-Format"] = reply.format
                head["Content-Type"] = CONTENT_TYPES.get(reply.format, "text/plain; charset=UTF-8")
            if reply.blocks is None:
                self._send(200, reply.body, head)
            else:
                self._stream(reply.blocks, head)

    def _stream(self, blocks: Iterator[bytes], head: dict[str, str]) -> None:
        """Chunked: the result is never in memory as a whole. An error in the middle is written to the body."""
        tag = secrets.token_hex(8)
        self._head(200, {**head, "Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag})
        try:
            for block in blocks:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        except RuntimeError as error:
            text = protocol.mid_stream_error(ClickHouseError(str(error)), tag)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
            self.close_connection = True
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _body(self) -> bytes:
        limit = self.server.max_body_bytes
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            raw = self._chunked_body(limit)
        else:
            size = int(self.headers.get("Content-Length") or 0)
            if size > limit:
                self.close_connection = True
                raise _too_large(limit)
            raw = self.rfile.read(size) if size else b""
            if len(raw) < size:
                raise ConnectionResetError("the client went away in the middle of its body")
        return protocol.decompress(raw, self.headers.get("Content-Encoding") or "", limit)

    def _chunked_body(self, limit: int) -> bytes:
        out = bytearray()
        while True:
            line = self.rfile.readline(64)
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise ConnectionResetError("a chunked body broke off") from None
            if size == 0:
                while self.rfile.readline(65537) not in (b"\r\n", b"\n", b""):
                    pass
                return bytes(out)
            if len(out) + size > limit:
                self.close_connection = True
                raise _too_large(limit)
            out += self.rfile.read(size)
            self.rfile.readline(8)

    def _check_origin(self) -> None:
        """No web page may reach the engine through the user's browser (neither by its name nor by a form)."""
        host = urlsplit(f"//{self.headers.get('Host') or '127.0.0.1'}").hostname
        origin = self.headers.get("Origin")
        if host not in LOOPBACK or (origin and urlsplit(origin).hostname not in LOOPBACK):
            raise ClickHouseError("only programs of this host may use the embedded engine", code=497, status=403)

    def _check_user(self) -> None:
        wanted = self.server.credentials
        fields = parse_qs(urlsplit(self.path).query)
        user = self.headers.get("X-ClickHouse-User") or fields.get("user", [""])[0]
        key = self.headers.get("X-ClickHouse-Key") or fields.get("password", [""])[0]
        basic = self.headers.get("Authorization") or ""
        if basic.startswith("Basic "):
            user, _, key = base64.b64decode(basic[6:]).decode(errors="replace").partition(":")
        given = f"{user or 'default'}:{key}".encode()
        if not hmac.compare_digest(given, f"{wanted[0]}:{wanted[1]}".encode()):
            raise ClickHouseError(
                f"{user or 'default'}: Authentication failed: password is incorrect, or there is no such user "
                "(QMT_CLICKHOUSE_USERNAME, QMT_CLICKHOUSE_PASSWORD; generated: <data_dir>/run/clickhouse.password). "
                "(AUTHENTICATION_FAILED)",
                code=516,
            )

    def _send_error(self, error: ClickHouseError, path: str) -> None:
        log.debug("%s: %s", path, error.text)
        self._send(error.status, error.text.encode() + b"\n", {"X-ClickHouse-Exception-Code": str(error.code)})

    def _send(self, status: int, body: bytes, head: dict[str, str]) -> None:
        self._head(status, {"Content-Length": str(len(body)), **head})
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _head(self, status: int, head: dict[str, str]) -> None:
        if self.server.stopping.is_set():
            self.close_connection = True
        self.send_response_only(status)
        self.send_header("Connection", "close" if self.close_connection else "Keep-Alive")
        self.send_header("X-ClickHouse-Server-Display-Name", f"qmt-embedded-{os.getpid()}")
        self.send_header("X-ClickHouse-Timezone", TIME_ZONE)
        for name, value in {"Content-Type": "text/plain; charset=UTF-8", **head}.items():
            self.send_header(name, value)
        self.end_headers()


def _too_large(limit: int) -> ClickHouseError:
    return ClickHouseError(f"the body is larger than {limit} bytes; insert in smaller blocks", code=241, status=413)


class HttpServer(ThreadingHTTPServer):
    """A thread per connection; SIGTERM lets running requests finish."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, engine: ChdbEngine, credentials: tuple[str, str], max_body_bytes: int) -> None:
        self.engine = engine
        self.credentials = credentials
        self.max_body_bytes = max_body_bytes
        self.stopping = threading.Event()
        self._running = 0
        self._idle = threading.Condition()
        super().__init__(("127.0.0.1", port), Handler)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a running request; refuse new ones once the server is stopping."""
        with self._idle:
            if self.stopping.is_set():
                raise ClickHouseError("the server is stopping; try again", code=202, status=503)
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def drain(self, seconds: float) -> bool:
        """Take no more requests and wait for the running ones; False when some are left."""
        with self._idle:
            self.stopping.set()
            return self._idle.wait_for(lambda: self._running == 0, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is not logged; anything else is."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError, socket.timeout)):
            log.exception("connection failed")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the embedded ClickHouse in the foreground.")
    parser.add_argument("--path", type=Path, required=True, help="folder of its data")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, default=0, help="ceiling of the engine; 0 = half of the machine's")
    parser.add_argument("--max-body-mb", type=int, default=MAX_BODY_BYTES >> 20)
    parser.add_argument("--parent", type=int, default=0, help="end when this process, our parent, ends")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password-file", type=Path, required=True)
    args = parser.parse_args()
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if args.parent:
        exit_with_parent(args.parent)
    memory = (args.memory_mb << 20) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        engine = ChdbEngine(args.path, memory)
    except EngineStartError as error:
        log.error("%s", error)
        return 1
    credentials = args.user, args.password_file.read_text().removesuffix("\n")
    server = HttpServer(args.port, engine, credentials, args.max_body_mb << 20)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    log.info("ClickHouse (chDB) of %s on http://127.0.0.1:%d", args.path, server.server_port)
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    finished = server.drain(STOP_SECONDS)
    if finished:
        engine.close()
    else:
        log.warning("requests still run after %g s; ending without them", STOP_SECONDS)
    logging.shutdown()
    os._exit(0)  # idle connections' threads and the engine's own have nothing left to do


if __name__ == "__main__":
    sys.exit(main())
