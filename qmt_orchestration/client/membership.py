"""A client's place among the others: its own lease, its beat among the members of its group, its second thread."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from qmt_orchestration.client.leases import TTL_MS, ReaderLease
from qmt_orchestration.stream import keys, threads
from qmt_orchestration.stream.fields import decoded

log = logging.getLogger(__name__)


class Membership:
    """Holds the lease of *client_id* and renews it, and those given to `watch`, about once a second."""

    def __init__(self, client: Any, client_id: str) -> None:
        self.client, self.client_id = client, client_id
        self.pid = os.getpid()
        self.token = f"{client_id}#{secrets.token_hex(8)}"
        self.lease = ReaderLease(client, keys.LEASE.format(name=f"client:{client_id}"), self.token)
        self.taken = False  # another process has our client id now
        self._group = ""
        self._watched: Sequence[ReaderLease] = ()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, wait_seconds: float) -> bool:
        """Take the client's lease, waiting for one that may be running out."""
        deadline = time.monotonic() + wait_seconds
        while not self.lease.acquire():
            if time.monotonic() >= deadline or self._ended.wait(0.1):
                return False
        return True

    def join(self, group: str) -> None:
        """Count as a member of the sharded *group* from now on."""
        self._group = group
        self._mark()

    def pause(self) -> None:
        """Count as a member no longer, until `join`."""
        if self._group:
            self.client.zrem(keys.SHARD_MEMBERS.format(group=self._group), self.client_id)
            self._group = ""

    def members(self, group: str) -> list[str]:
        """Members seen within the duration of a lease, by name."""
        oldest = self._server_ms() - TTL_MS
        return sorted(
            decoded(m, 64) for m in self.client.zrangebyscore(keys.SHARD_MEMBERS.format(group=group), oldest, "+inf")
        )

    def watch(self, leases: Sequence[ReaderLease]) -> None:
        """Renew these, too."""
        self._watched = tuple(leases)

    def every(self, seconds: float, beat: Callable[[], None]) -> None:
        """Start the second thread: renew, then *beat*."""

        def step() -> None:
            try:
                self._renew()
            except redis.RedisError as error:
                log.warning("client %s cannot renew its leases: %s", self.client_id, error)
            beat()

        self._thread = threads.start(f"client-{self.client_id}", step, self._ended, seconds)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the client is closed."""
        self._ended.wait(seconds)

    def leave(self) -> None:
        """End the second thread and give up the client's lease."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)
        try:
            self.pause()
            self.lease.release()
        except redis.RedisError as error:
            log.warning("client %s left without Redis, its lease runs out by itself: %s", self.client_id, error)

    def _renew(self) -> None:
        for lease in self._watched:
            lease.renew()
        if not self.lease.renew() and not self.lease.acquire():
            self.taken = True
        self._mark()

    def _mark(self) -> None:
        if self._group:
            self.client.zadd(keys.SHARD_MEMBERS.format(group=self._group), {self.client_id: self._server_ms()})

    def _server_ms(self) -> int:
        seconds, micro = self.client.time()
        return int(seconds) * 1000 + int(micro) // 1000
