"""The console against requests that are too long, too slow, malformed or from another site's page, over real sockets.

No engine runs: what is refused or bounded here does not depend on one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr

from qmt_orchestration.console import connections, service
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.helpers import free_port, wait_until

TOKEN = "open sesame"
BODY_TO_COME = (
    f"POST /api/services/writer HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Console-Token: {TOKEN}\r\nContent-Length: 9\r\n\r\n"
).encode()
SOON = 10.0  # seconds; what hangs takes minutes


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a running console whose engines are away."""
    away = free_port()
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("console"),
        redis_url=f"redis://127.0.0.1:{away}/0",
        clickhouse_url=f"http://127.0.0.1:{away}",
        console_port=free_port(),
        console_token=SecretStr(TOKEN),
    )
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(settings, stop))
    thread.start()
    wait_until(lambda: _answers(settings.console_port), 30, "the console answers")
    yield settings.console_port
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def _answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/api/about")[0] == 200
    except OSError:
        return False


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def send(port: int, data: bytes) -> bytes:
    """The raw answer to raw bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=SOON) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        out = b""
        while block := line.recv(65_536):
            out += block
        return out


def test_a_path_of_60000_characters_is_refused_and_the_console_goes_on(port: int) -> None:
    target = b"/" + b"a" * 60_000
    began = time.monotonic()
    answer = send(port, b"POST " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.split(b" ")[1] in (b"400", b"414"), answer[:100]  # by how the bytes arrive
    assert ask(port, "POST", "/api/services/" + "a" * 1900, b"{}")[0] == 401, "its path goes to the log"
    assert ask(port, "GET", "/api/quote?symbol=" + "a" * 3000)[0] == 414
    assert ask(port, "GET", "/api/about")[0] == 200
    assert time.monotonic() - began < SOON


def test_headers_and_bodies_have_bounds(port: int) -> None:
    token = {"X-Console-Token": TOKEN}
    stop = "/api/services/writer"
    assert ask(port, "GET", "/", headers={f"X-{i}": "a" for i in range(100)})[0] == 431
    assert ask(port, "GET", "/", headers={"X-Long": "a" * 15_000, "X-Longer": "a" * 3_000})[0] in (400, 431)
    assert ask(port, "POST", stop, b'{"action": "' + b"a" * 5_000 + b'"}', token)[0] == 413
    assert ask(port, "POST", stop, b"[" * 4_000, token)[0] == 400
    assert ask(port, "POST", stop, b'{"action": NaN}', token)[0] == 400
    chunk = b"400\r\n" + b"a" * 0x400 + b"\r\n"
    head = f"POST {stop} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Console-Token: {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in send(port, head.encode() + chunk * 20).split(b"\r\n")[0]


def test_500_half_open_requests_keep_nobody_out(port: int) -> None:
    lines = [socket.create_connection(("127.0.0.1", port), timeout=SOON) for _ in range(500)]
    try:
        for line in lines:
            try:
                line.sendall(b"GET /api/about HTTP/1.1\r\nHost: 127.")
            except OSError:
                continue  # closed already: the oldest waiting ones make room
        for _ in range(3):
            assert ask(port, "GET", "/api/about")[0] == 200
    finally:
        for line in lines:
            line.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        BODY_TO_COME + b"{",
    ],
    ids=["nothing", "half the headers", "half the body"],
)
def test_a_request_that_does_not_become_complete_is_ended(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=SOON) as line:
        line.sendall(begun)
        with contextlib.suppress(ConnectionResetError):
            while line.recv(1024):
                continue


def test_a_reader_that_takes_nothing_is_disconnected(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    path = "/static/vendor/lightweight-charts-5.2.1.js"
    size = len(ask(port, "GET", path)[1])
    asked = 200  # more than the buffers of both ends hold
    with socket.create_connection(("127.0.0.1", port), timeout=SOON) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * asked)
        ended = threading.Event()
        ended.wait(1.5)  # reads nothing
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while block := line.recv(1 << 20):
                got += len(block)
    assert 0 < got < asked * size


def test_other_sites_pages_are_refused_links_to_the_page_are_not(port: int) -> None:
    assert ask(port, "GET", "/api/state", headers={"Origin": "https://evil.example"})[0] == 403
    assert ask(port, "GET", "/api/state", headers={"Origin": "http://["})[0] == 403
    assert (
        ask(port, "GET", "/api/state", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})[0] == 403
    )
    assert (
        ask(port, "POST", "/api/login", headers={"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"})[0] == 403
    )
    assert ask(port, "GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert ask(port, "GET", "/api/state", headers={"Sec-Fetch-Site": "same-origin"})[0] == 200
    assert b" 400 " in send(port, b"GET / HTTP/1.0\r\n\r\n").split(b"\r\n")[0], "no Host"


@examples(max_examples=150)
@given(
    st.sampled_from([b"GET", b"POST", b"PUT", b"\xff", b""]),
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=60).map(lambda text: b"/api/quote?symbol=" + text.encode()),
        st.sampled_from(
            [b"/api/services/%00", b"/api/clients/%ff%fe", b"/static/..%2f..%2fguard.py", b"http://[", b"*"]
        ),
    ),
    st.binary(max_size=100),
)
def test_whatever_is_sent_is_answered_or_closed(port: int, method: bytes, target: bytes, body: bytes) -> None:
    head = (
        b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Console-Token: %s\r\nContent-Length: %d\r\n\r\n"
    )
    answer = send(port, head % (method, target, TOKEN.encode(), len(body)) + body)
    status = int(answer.split(b" ")[1]) if answer else 0
    assert status in (0, 200, 204, 400, 401, 404, 405, 413, 414, 431, 503), answer[:200]
    if b"application/json" in answer:
        json.loads(answer.partition(b"\r\n\r\n")[2], parse_constant=lambda word: pytest.fail(word))
