"""The console as a service: uvicorn on the configured port until it is stopped."""

from __future__ import annotations

import logging
import threading

import redis
import uvicorn

from qmt_orchestration.console import connections
from qmt_orchestration.console.app import make_app
from qmt_orchestration.console.live import Live
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat

log = logging.getLogger(__name__)


def run(settings: Settings, stop: threading.Event) -> int:
    """Serve until *stop*. Returns 1 if the port (``QMT_CONSOLE_PORT``) cannot be used."""
    live = Live(settings)
    app = make_app(settings, live, stop.is_set)
    config = uvicorn.Config(
        app,
        host=settings.console_bind,
        port=settings.console_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        http=connections.BoundedProtocol,
        ws="none",
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=connections.MAX_HEADER_BYTES,
        limit_concurrency=connections.MAX_CONNECTIONS + connections.MAX_REQUESTS,
        backlog=512,
    )
    server = uvicorn.Server(config)  # in a thread it leaves the signals to the service's process
    thread = threading.Thread(target=server.run, name="console-http", daemon=True)
    live.start()
    thread.start()
    client = connect(settings, retries=1)
    beat = Heartbeat(client, settings, "console")
    while thread.is_alive() and not stop.wait(1.0):
        try:
            beat.beat({"port": settings.console_port})
        except redis.RedisError as error:
            log.warning("no heartbeat while Redis is away: %s", error)
    failed = not thread.is_alive() and not stop.is_set()
    if failed:
        log.error(
            "cannot listen on %s:%d; choose another QMT_CONSOLE_PORT", settings.console_bind, settings.console_port
        )
    server.should_exit = True
    thread.join(6)
    beat.stop()
    live.stop()
    client.close()
    return 1 if failed else 0
