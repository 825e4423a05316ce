"""Heartbeats: each service reports about once a second that it runs, and its numbers.

`keys.HEARTBEAT` is a hash that expires 15 s after the last beat: absent means dead. About every 30 s the numbers also
go to the stream `keys.STATS` of the service, about a day of them, for plots.

A thread keeps the beat going while the service is busy with one long step (a slow query), for at most a minute: a
service that hangs, or a process that is stopped, falls silent all the same.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import psutil
import redis

from qmt_orchestration.redaction import Redactor
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields as parse
from qmt_orchestration.stream import keys, threads

TTL_SECONDS: Final = 15
STATS_SECONDS: Final = 30.0
STATS_MAXLEN: Final = 4000
PULSE_SECONDS: Final = 2.0
BUSY_SECONDS: Final = 60.0
#: Upper bounds of the writer's histogram of delays: for each a field `delay_le_<ms>` (services/metrics.py).
DELAY_BUCKETS_MS: Final = (50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000, 30_000)
_TEXT: Final = 2000  # characters of one value

log = logging.getLogger("heartbeat")

Number = int | float | str


class Heartbeat:
    """The heartbeat of *service* on this host. `beat` may raise `redis.RedisError`."""

    def __init__(self, client: redis.Redis, settings: Settings, service: str) -> None:
        self._client: Any = client
        self._service = service
        self._key = keys.HEARTBEAT.format(host=settings.host, service=service)
        self._identity = {
            "host": settings.host,
            "service": service,
            "pid": os.getpid(),
            "started_ms": int(time.time() * 1000),
        }
        self._redact = Redactor.of(settings)
        self._process = psutil.Process()
        self._next_stats = 0.0
        self._last_beat = 0.0
        self._stopped = threading.Event()
        self._pulse: threading.Thread | None = None

    def beat(self, numbers: Mapping[str, Number] | None = None) -> None:
        """Publish the numbers (text or numbers; times in epoch ms, units in the names) and the process's memory."""
        said = {name: self._redact(n)[:_TEXT] if isinstance(n, str) else n for name, n in (numbers or {}).items()}
        used = {
            "memory_mb": round(self._process.memory_info().rss / 1e6, 1),
            "beat_ms": int(time.time() * 1000),
            "skipped_fields": parse.skipped(),
            "thread_errors": threads.errors(),
        }
        fields = {**self._identity, "state": "running", **used, **said}
        pipe = self._client.pipeline(transaction=True)
        pipe.delete(self._key)  # what an earlier beat said and this one does not must not linger
        pipe.hset(self._key, mapping=fields)
        pipe.expire(self._key, TTL_SECONDS)
        if time.monotonic() >= self._next_stats:
            self._next_stats = time.monotonic() + STATS_SECONDS
            pipe.xadd(keys.STATS.format(service=self._service), fields, maxlen=STATS_MAXLEN, approximate=True)
        pipe.execute()
        self._last_beat = time.monotonic()
        if self._pulse is None:
            self._pulse = threads.start("pulse", self._keep_beating, self._stopped, PULSE_SECONDS)

    def _keep_beating(self) -> None:
        if not PULSE_SECONDS / 2 < time.monotonic() - self._last_beat < BUSY_SECONDS:
            return
        try:
            if self._client.hset(self._key, "beat_ms", int(time.time() * 1000)) == 0:
                self._client.expire(self._key, TTL_SECONDS)
            else:  # it had expired: half a heartbeat would mislead
                self._client.delete(self._key)
        except redis.RedisError as error:
            log.debug("no pulse while Redis is away: %s", error)

    def stop(self) -> None:
        """Mark a clean stop: the heartbeat says ``state=stopped`` until it expires. Never raises for a dead server."""
        self._stopped.set()
        try:
            self._client.hset(self._key, mapping={"state": "stopped", "beat_ms": int(time.time() * 1000)})
            self._client.expire(self._key, TTL_SECONDS)
        except redis.RedisError:
            return  # the server is away: the heartbeat expires by itself


def read_all(client: Any) -> list[dict[str, str]]:
    """Every heartbeat that has not expired, by host and service; all values are text.

    A key of another type and a hash without ``host``, ``service`` or a readable ``beat_ms`` are skipped.
    """
    pattern = keys.HEARTBEAT.format(host="*", service="*")
    found = sorted(client.scan_iter(match=pattern, count=1000))
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.hgetall(key)
    beats = [beat for row in pipe.execute(raise_on_error=False) if row and (beat := _beat_of(row))]
    return sorted(beats, key=lambda b: (b["host"], b["service"]))


def _beat_of(row: Any) -> dict[str, str]:
    """A heartbeat as text, {} when it is none."""
    try:
        if isinstance(row, Exception):
            raise parse.FieldError(f"heartbeat: {row}")
        for name in ("host", "service"):
            parse.require_text(row, name, 256)
        parse.require_integer(row, "beat_ms", parse.FIRST_MS, parse.LAST_MS)
    except parse.FieldError as error:
        parse.skip("heartbeat", f"heartbeat: {error}")
        return {}
    return parse.decoded_hash(row)


def reported(beat: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What an agent's heartbeat says of each of its services: ``state``, ``pid``, ``restarts`` …; of any other, {}."""
    names = filter(None, beat.get("services", "").split(",")) if beat["service"] == "agent" else ()
    return {n: {k.removeprefix(f"{n}."): v for k, v in beat.items() if k.startswith(f"{n}.")} for n in names}


def is_alive(client: Any, service: str) -> bool:
    """Whether some host's *service* beats and has not said that it stopped."""
    return any(b["service"] == service and b.get("state") == "running" for b in read_all(client))
