"""The agent's line to Redis, in a thread of its own: desired state and heartbeats in, the agent's report out.

Redis may hang or be away; the agent's loop then reads the last known values here and goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from qmt_orchestration.services.desired import Desired, read_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat

PERIOD_SECONDS: Final = 0.5
_FRESH_SECONDS: Final = 2.5
CLOCKS_APART_MS: Final = 1000

log = logging.getLogger("agent")


class Link:
    """Reads and writes once per `PERIOD_SECONDS`. Attributes are replaced whole, so readers need no lock."""

    def __init__(self, settings: Settings, services: Sequence[str] = ()) -> None:
        self.desired: dict[str, Desired] = {}  #: by service, the last that was readable
        self.beats: dict[str, tuple[str, str]] = {}  #: service → (pid, beat_ms), as text
        self.report: dict[str, str | int | float] = {}  #: set by the agent, sent as its heartbeat
        self.skew_ms = 0  #: this host's clock minus that of the host of Redis
        self.first_answer = threading.Event()
        self.services = tuple(services)  #: whose heartbeats are read
        self._settings = settings
        self._answered = 0.0
        self._apart = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="link", daemon=True)

    @property
    def up(self) -> bool:
        """Whether Redis has answered within the last moments (monotonic clock)."""
        return time.monotonic() - self._answered < _FRESH_SECONDS

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Send the last report, mark the heartbeat as stopped, and end (at most 3 s, Redis may be away)."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(3.0)

    def _work(self) -> None:
        client: Any = None
        heartbeat: Heartbeat | None = None
        complained = False
        while True:
            last = self._stop.is_set()
            try:
                if client is None or heartbeat is None:
                    # the embedded server may come back on another port: its address is read again each time
                    client = connect(self._settings, retries=0)
                    heartbeat = Heartbeat(client, self._settings, "agent")
                self._exchange(client, heartbeat)
                if complained:
                    log.info("Redis is back")
                complained = False
                if last:
                    heartbeat.stop()
            except Exception as error:  # the agent must not become blind, whatever somebody wrote into Redis
                client = None
                if not complained:
                    away = isinstance(error, redis.RedisError)
                    log.warning(
                        "Redis is away (%s): going on with the last known desired state",
                        error,
                        exc_info=None if away else error,
                    )
                complained = True
            if last:
                return
            self._stop.wait(PERIOD_SECONDS)

    def _exchange(self, client: Any, heartbeat: Heartbeat) -> None:
        self.desired = read_desired(client)
        pipe, services = client.pipeline(transaction=False), self.services
        for name in services:
            pipe.hmget(keys.HEARTBEAT.format(host=self._settings.host, service=name), "pid", "beat_ms")
        found = pipe.execute()
        self.beats = {
            name: (fields.decoded(pid or b"", 20), fields.decoded(beat or b"", 20))
            for name, (pid, beat) in zip(services, found, strict=True)
        }
        self._compare_clocks(client)
        heartbeat.beat({**self.report, "clock_skew_ms": self.skew_ms})
        self._answered = time.monotonic()
        self.first_answer.set()

    def _compare_clocks(self, client: Any) -> None:
        """Delays, trading hours and deadlines compare times of different hosts: say so when their clocks disagree."""
        before = _now_ms()
        seconds, micro = client.time()
        after = _now_ms()
        self.skew_ms = round((before + after) / 2 - (seconds * 1000 + micro / 1000))
        apart = abs(self.skew_ms) > CLOCKS_APART_MS + (after - before)
        if apart and not self._apart:
            log.warning(
                "this machine's clock is %.1f s %s that of Redis' host: set it right (w32tm /resync; chronyc makestep)",
                abs(self.skew_ms) / 1000,
                "ahead of" if self.skew_ms > 0 else "behind",
            )
        self._apart = apart


def _now_ms() -> float:
    return time.time() * 1000
