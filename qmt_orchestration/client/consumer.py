"""What `BarConsumer` and `TickConsumer` share: lanes by lease, reading, acknowledging, retries, commands, iteration.

One thread reads; a second one renews leases, writes the registration and learns commands, so that a slow handler does
not cost the client its lanes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, Generic

import redis

from qmt_orchestration.client import registry
from qmt_orchestration.client.lanes import Counters, ItemT, Lane
from qmt_orchestration.client.leases import TTL_MS, LeaseLost
from qmt_orchestration.client.membership import Membership
from qmt_orchestration.client.outages import is_outage
from qmt_orchestration.settings import Settings, get_settings
from qmt_orchestration.stream import connection, dead_letters, keys

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
LAG_SECONDS: Final = 3.0  # how often the lag is asked for
POLL_SECONDS: Final = 0.05  # between looks at several lanes that had nothing


class ClientInUse(RuntimeError):
    """Another process runs under this client id; the message says what to do."""


class Evicted(RuntimeError):
    """The client was evicted by a person (``qmt clients evict``): its position is gone, it must end."""


class Consumer(ABC, Generic[ItemT]):
    """See `BarConsumer` and `TickConsumer`. Use it as a context manager, from one thread (or one event loop)."""

    kind = "items"

    def __init__(self, client_id: str, mode: str, group: str, settings: Settings | None, max_in_flight: int) -> None:
        _check_name("client id", client_id)
        _check_name("group", group)
        self.settings = settings or get_settings()
        self.client_id, self.mode, self.group = client_id, mode, group
        self.max_in_flight = max_in_flight
        self.redis: Any = connection.connect(self.settings)
        self.counters = Counters()
        self._lanes: list[Lane[ItemT]] = []
        self._membership = Membership(self.redis, client_id)
        self._command: registry.Command = "run"
        self._stopping = False
        self._reading = threading.Lock()  # a cancelled `async for` leaves its read to a worker thread
        self._started_ms = int(time.time() * 1000)
        self._marks: deque[tuple[float, int]] = deque(maxlen=12)
        self._next_lag = 0.0
        self._lag: dict[str, str | int | float] = {}
        self._next_lane = 0

    # -- start and end -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the client's lease (waits for that of an earlier run to expire) and begin. Done by ``with``."""
        if not self._membership.enter(TTL_MS / 1000 + 2):
            raise ClientInUse(
                f"client {self.client_id!r} runs elsewhere: stop that process, or choose another client id"
            )
        self.redis.delete(keys.CLIENT_COMMAND.format(client_id=self.client_id))
        self._beat()
        self._membership.every(BEAT_SECONDS, self._beat)

    def close(self) -> None:
        """Give everything back; what was not acknowledged comes again, here or at another member."""
        self._stopping = True
        self._membership.leave()
        try:
            with self._reading:  # what is read after the shards are free would lie about unseen by their next holder
                self._let_go(self._lanes)
            if self._command != "evict":
                registry.publish(self.redis, self.client_id, {**self._registration(), "state": "stopped"})
        except redis.RedisError as error:
            log.warning("client %s closed without Redis: %s", self.client_id, error)
        self.redis.close()

    def stop(self) -> None:
        """End the iteration (of another thread) after the present item."""
        self._stopping = True

    def __enter__(self) -> Any:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Any:
        await asyncio.to_thread(self.open)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, timeout_seconds: float = 1.0) -> list[ItemT]:
        """The next items of one lane, in order; [] after *timeout_seconds*, or while `max_in_flight` wait for `ack`.

        `redis.RedisError` passes through (call again); `Evicted` and `ClientInUse` are final.
        """
        with self._reading:
            return self._read(timeout_seconds)

    def _read(self, timeout_seconds: float) -> list[ItemT]:
        deadline = time.monotonic() + timeout_seconds
        while not self._stopping:
            self._balance()
            waiting = sum(len(lane.in_flight) for lane in self._lanes)
            lanes = [lane for lane in self._lanes if not lane.draining] if waiting < self.max_in_flight else []
            left = deadline - time.monotonic()
            block_ms = int(max(min(left * 1000, self.settings.redis_block_ms), 0)) if len(lanes) == 1 else 0
            for step in range(len(lanes)):
                lane = lanes[(self._next_lane + step) % len(lanes)]
                items = lane.read(block_ms)
                if items:
                    self._next_lane = (self._next_lane + step + 1) % len(lanes)
                    return items
            if time.monotonic() >= deadline:
                return []
            if len(lanes) != 1 or waiting:
                self._membership.wait(min(POLL_SECONDS, max(deadline - time.monotonic(), 0)))
        return []

    def ack(self, items: Sequence[ItemT]) -> None:
        """These items are done and never come again. `LeaseLost` if their shard has moved meanwhile."""
        by_lane: dict[str, list[ItemT]] = {}
        for item in items:
            by_lane.setdefault(item.origin.lane, []).append(item)
        for name, part in by_lane.items():
            lane = self._lane(name)
            if lane is None:
                self.counters.handed_over += len(part)
                raise LeaseLost(
                    f"{self.client_id} no longer holds the shard of these {len(part)} items (group {self.group})"
                )
            lane.acknowledge(part)
            self.counters.handled += len(part)

    def holds(self, item: ItemT) -> bool:
        """Whether *item* is still ours to handle: false once its shard has moved to another member."""
        lane = self._lane(item.origin.lane)
        return lane is not None and lane.lease.valid

    def batches(self) -> Iterator[list[ItemT]]:
        """Batches of items, without end; one is acknowledged when the next is asked for. Outages are waited out."""
        while not self._stopping:
            items = self._patiently(self.read) or []
            if items:
                yield items
                self._finish(items)

    def __iter__(self) -> Iterator[ItemT]:
        """Items one by one, without end; each is acknowledged when the next one is asked for."""
        for items in self._batches_unfinished():
            for item in items:
                if self._stopping:
                    return
                if not self.holds(item):
                    self.counters.handed_over += 1
                    continue
                yield item
                self._finish([item])

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        """The same for ``async for``: waits happen in a worker thread."""
        iterator = iter(self)
        end: Any = object()
        while (item := await asyncio.to_thread(next, iterator, end)) is not end:
            yield item

    async def abatches(self) -> AsyncIterator[list[ItemT]]:
        """`batches` for ``async for``."""
        iterator = self.batches()
        end: Any = object()
        while (items := await asyncio.to_thread(next, iterator, end)) is not end:
            yield items

    def run(self, handler: Callable[[ItemT], object], *, attempts: int = 3, pause_seconds: float = 0.2) -> None:
        """Call *handler* with every item until `stop`. An item that fails *attempts* times goes to the dead letters.

        Outages (`outages.is_outage`: `RetryLater`, OSError, a lost connection) are no failures: the same item is tried
        until it works, with longer and longer pauses (to 5 s). Retries happen in place, so the order per symbol holds.
        """
        for items in self._batches_unfinished():
            done: list[ItemT] = []
            for item in items:
                if self._stopping or not self.holds(item):
                    self.counters.handed_over += 0 if self._stopping else 1
                    continue
                if self._handle(handler, item, attempts, pause_seconds):
                    done.append(item)
            self._finish(done)

    # -- parts --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _make_lanes(self) -> None:
        """Take and give lanes as the leases and the group ask for; `_lanes` is what is held now."""

    def _balance(self) -> None:
        if self._command == "evict":
            raise Evicted(f"client {self.client_id!r} was evicted (qmt clients evict)")
        if self._membership.taken:
            raise ClientInUse(f"client {self.client_id!r} was taken over by another process while this one was away")
        self._lanes = [lane for lane in self._lanes if lane.lease.valid]
        self._let_go([lane for lane in self._lanes if lane.draining and not lane.in_flight])
        if self._command == "stop":
            self._membership.pause()
            for lane in self._lanes:
                lane.draining = True
        else:
            self._make_lanes()
        self._membership.watch([lane.lease for lane in self._lanes if lane.lease is not self._membership.lease])

    def _let_go(self, lanes: list[Lane[ItemT]]) -> None:
        for lane in lanes:
            if lane.lease is not self._membership.lease:
                lane.lease.release()
        self._lanes = [lane for lane in self._lanes if lane not in lanes]

    def _lane(self, name: str) -> Lane[ItemT] | None:
        return next((lane for lane in self._lanes if lane.name == name), None)

    def _batches_unfinished(self) -> Iterator[list[ItemT]]:
        while not self._stopping:
            if items := self._patiently(self.read):
                yield items

    def _finish(self, items: list[ItemT]) -> None:
        def acknowledge() -> None:
            if items:
                self.ack(items)

        try:
            self._patiently(acknowledge)
        except LeaseLost as error:
            log.warning("%d items were handled but not acknowledged: %s", len(items), error)

    def _patiently(self, action: Callable[[], Any]) -> Any:
        """Do it, however long Redis is away; gives up only when the client is stopped."""
        pause = 0.1
        while True:
            try:
                return action()
            except redis.ResponseError:
                raise
            except (redis.RedisError, OSError) as error:
                self.counters.last_error = f"{type(error).__name__}: {error}"
                log.warning("client %s waits for Redis: %s", self.client_id, error)
                if self._stopping:
                    return None
                self._membership.wait(pause)
                pause = min(pause * 2, 2.0)

    def _handle(self, handler: Callable[[ItemT], object], item: ItemT, attempts: int, pause_seconds: float) -> bool:
        """True when handled; False when it was moved to the dead letters, or is left for the next run or owner."""
        tries, pause = 0, pause_seconds
        while True:
            try:
                handler(item)
                return True
            except Exception as error:
                outage = is_outage(error)
                self.counters.last_error = f"{'outage: ' if outage else ''}{type(error).__name__}: {error}"
                if not outage:
                    tries += 1
                    self.counters.errors += 1
                    log.warning("client %s, try %d of %s: %s", self.client_id, tries, item, error)
                if tries >= attempts:
                    self._patiently(lambda: self._bury(item, attempts))
                    return False
            self._membership.wait(pause)
            pause = min(pause * 2, 5.0)
            if self._stopping or not self.holds(item):
                return False

    def _bury(self, item: ItemT, tries: int) -> None:
        lane = self._lane(item.origin.lane)
        if lane is None:
            return
        reason = f"client {self.client_id}: {self.counters.last_error}"
        fields = {k.encode(): v for k, v in self._fields(item).items()}
        id_ = item.origin.entry_id or "0-0"
        dead_letters.add(self.redis, lane.reader.stream, lane.group, id_, fields, reason, tries)
        lane.acknowledge([item])
        self.counters.dead += 1

    @abstractmethod
    def _fields(self, item: ItemT) -> dict[str, bytes]:
        """The entry of *item*, for the dead letters."""

    # -- what the client says of itself (second thread) --------------------------------------------------------------

    def _beat(self) -> None:
        try:
            self._command = registry.publish(self.redis, self.client_id, self._registration())
        except redis.RedisError as error:
            log.warning("client %s cannot report: %s", self.client_id, error)

    def _registration(self) -> dict[str, str | int | float]:
        now, c = time.monotonic(), self.counters
        lanes = list(self._lanes)
        self._marks.append((now, c.handled))
        seconds = now - self._marks[0][0]
        if now >= self._next_lag:
            self._next_lag = now + LAG_SECONDS
            lags = [lane.reader.lag() for lane in lanes]
            self._lag = {
                "lag_entries": sum(lag.entries for lag in lags),
                "lag_at_least": int(any(lag.at_least for lag in lags)),
                "lag_seconds": max((round(lag.seconds, 3) for lag in lags), default=0.0),
            }
        gaps = sum(lane.catch_up.gaps for lane in lanes if lane.catch_up)
        return {
            "client_id": self.client_id,
            "mode": self.mode,
            "group": self.group,
            "kind": self.kind,
            "state": "paused" if self._command == "stop" else "running",
            "shards": ",".join(lane.label for lane in lanes),
            "groups": ",".join(f"{stream}|{group}" for stream, group in self._groups()),
            **self._lag,
            "pending": sum(len(lane.in_flight) for lane in lanes),
            "rate": round((c.handled - self._marks[0][1]) / seconds, 2) if seconds > 0 else 0.0,
            **{name: value for name, value in asdict(c).items() if name != "last_error"},
            "gaps": c.gaps + gaps,
            "last_error": c.last_error[:300],
            "host": self.settings.host,
            "pid": self._membership.pid,
            "seen_ms": int(time.time() * 1000),
            "started_ms": self._started_ms,
        }

    @abstractmethod
    def _groups(self) -> list[tuple[str, str]]:
        """Every (stream, consumer group) of this client, held now or not."""


def _check_name(what: str, text: str) -> None:
    if not text or not all(ch.isalnum() or ch in "_-." for ch in text) or len(text) > 64:
        raise ValueError(f"expected as {what} 1 to 64 letters, digits, '_', '-' or '.', found {text!r}")
