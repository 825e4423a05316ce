"""The way out of the subscriber: to Redis while it answers, to the spool while it does not, always in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from qmt_orchestration.feed.spool import Spool
from qmt_orchestration.stream.lease import Lease, owner_is_dead
from qmt_orchestration.stream.producer import NewEntry, NotOwner, Producer

log = logging.getLogger("feed.outbox")

_RETRY_SECONDS: Final = 0.5
_REPLAY_ENTRIES: Final = 32  # per transaction: a few MB


class Outbox:
    """Publishes entries in order under *lease*; what Redis does not take waits on disk.

    Only the owner of the lease publishes; while Redis is away nobody can, so entries are spooled and the lease is
    taken again before they leave. `NotOwner`: another subscriber works now; what is spooled stays for our next turn.
    """

    def __init__(self, producer: Producer, spool: Spool, lease: Lease, host: str) -> None:
        self.producer, self.spool, self.lease, self._host = producer, spool, lease, host
        self.away_since = 0.0  #: monotonic time since which Redis does not answer; 0 = it does
        self.refused = False  #: while away: it answers, but takes nothing (out of memory, no permission)
        self._next_try = 0.0
        self._renewed = 0.0

    def keep_lease(self) -> None:
        """Renew or retake the lease (about once a second is enough). Raises `NotOwner`, `redis.RedisError`."""
        now = time.monotonic()
        if self.lease.valid and now - self._renewed < self.lease.ttl_ms / 5000:
            return
        if not (self.lease.token and self.lease.renew()):
            holder = self.lease.holder()
            dead = holder if owner_is_dead(holder, self._host) else ""
            if not self.lease.acquire(instead_of=dead):
                raise NotOwner(f"lease {self.lease.name} is held by {self.lease.holder() or 'another'}")
        self._renewed = now

    def put(self, entries: Sequence[NewEntry]) -> None:
        """Take over *entries*: published, or on disk, when this returns. Raises `SpoolFull` (nothing taken)."""
        if not self.spool and not self.away_since:
            try:
                self.keep_lease()
                self.producer.send(entries)
                return
            except redis.RedisError as error:
                self._mark_away(error)
            except NotOwner:
                self.spool.append(entries)
                raise
        self.spool.append(entries)

    def drain(self, seconds: float = 0.5) -> None:
        """Replay the spool for about *seconds*, as far as Redis takes it. Raises `NotOwner`."""
        deadline = time.monotonic() + seconds
        if time.monotonic() < self._next_try:
            return
        try:
            self.keep_lease()
            while self.spool and time.monotonic() < deadline:
                waiting = self.spool.peek(_REPLAY_ENTRIES)
                self.producer.send([entry for entry, _ in waiting])
                self.spool.advance(waiting)
        except redis.RedisError as error:
            self._mark_away(error)
            return
        if self.away_since:
            away = time.monotonic() - self.away_since
            log.warning("Redis is back after %.1f s; %d entries still to replay", away, len(self.spool))
            self.away_since = 0.0

    def _mark_away(self, error: Any) -> None:
        self._next_try = time.monotonic() + _RETRY_SECONDS
        self.refused = isinstance(error, redis.ResponseError)
        if not self.away_since:
            self.away_since = time.monotonic()
            log.error(
                "Redis does not take entries (%s: %s): spooling to %s", type(error).__name__, error, self.spool.folder
            )
