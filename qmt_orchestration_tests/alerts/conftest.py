"""A real HTTP receiver on loopback, which can be down, and which can refuse some messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.helpers import free_port


class Receiver:
    """Keeps what was posted. ``refuses``: a predicate on the message that is answered with 400."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[dict[str, str]] = []
        self.refuses: Callable[[dict[str, str]], bool] = lambda message: False
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its apprise URL."""
        return f"json://127.0.0.1:{self.port}/hook-0123456789abcdef"

    def up(self) -> None:
        """Listen."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = receiver.refuses(message)
                if not refused:
                    receiver.messages.append(message)
                self.send_response(400 if refused else 200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self) -> None:
        """Stop listening: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def titles(self) -> list[str]:
        """Titles of the messages, in order."""
        return [message["title"] for message in self.messages]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that listens."""
    out = Receiver()
    out.up()
    yield out
    out.down()


@pytest.fixture
def second() -> Iterator[Receiver]:
    """Another one."""
    out = Receiver()
    out.up()
    yield out
    out.down()


@pytest.fixture
def alerting(settings: Settings, receiver: Receiver) -> Settings:
    """The test's settings with the receiver as the only channel, and links with a known base."""
    return settings.model_copy(
        update={
            "alert_urls": SecretStr(receiver.url),
            "dagster_base_url": "http://dagster.example",
            "public_url": "https://m.example",
        }
    )


@pytest.fixture
def healthy(alerting: Settings, redis_client: Any) -> Settings:
    """All services beat and the market's clock stands on a Saturday: only Dagster's events speak, at any hour."""
    publish_clock(redis_client, to_ms(at(date(2025, 6, 7), 10 * 60)), speed=0)
    for service in ("subscriber", "gateway", "writer", "publisher"):
        Heartbeat(redis_client, alerting, service).beat({"lag_seconds": 0})
    return alerting
