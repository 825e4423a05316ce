"""Publishing with ids of our own, so that a repeat is recognised instead of doubled.

Ids are `<ms>-<n>`, monotonic per stream. An XADD whose reply was lost is sent again with the same id: Redis refuses it
as "equal or smaller", and `Producer` then looks whether the entry is there (`_settle`). redis-py's own retries are safe
for the same reason. Several entries go in one pipeline; with a lease, in one transaction that Redis drops when the
lease is no longer ours.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from qmt_orchestration.stream import keys
from qmt_orchestration.stream.fields import decoded

log = logging.getLogger("stream.producer")

RECENT_ENTRIES: Final = 64  # kept in memory: sent again if a restarted Redis has lost its last moments
_LOOK_BACK: Final = 64


class NotOwner(RuntimeError):
    """Another process holds the lease: nothing was published."""


@dataclass(frozen=True)
class NewEntry:
    """An entry that is to be published: its stream, id ``<ms>-<n>``, fields as of `stream.batch.Batch.fields`."""

    stream: str
    id: str
    fields: dict[str, Any]


def _parts(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n or 0)


class Producer:
    """Gives ids and publishes. *lease*: (name, owner): publish only while that owner holds it (`NotOwner` otherwise).

    `ConnectionError`, `TimeoutError` and out-of-memory (`ResponseError`) pass through; `send` may then be called again
    with the same entries. Not thread-safe.
    """

    def __init__(self, client: Any, *, lease: tuple[str, str] | None = None) -> None:
        self.client, self._lease = client, lease
        self._last: dict[str, tuple[int, int]] = {}
        self._confirmed: dict[str, tuple[int, int]] = {}
        self._recent: dict[str, deque[NewEntry]] = {}
        self._check_tail = False
        self.repeats = 0  #: entries that had arrived although their reply was lost
        self.renumbered = 0  #: entries that needed a newer id

    def next_id(self, stream: str, now_ms: int) -> str:
        """The next id of *stream*: at *now_ms*, or just after the last one if the clock went back."""
        ms, n = self._last.get(stream, (0, -1))
        self._last[stream] = (now_ms, 0) if now_ms > ms else (ms, n + 1)
        return f"{self._last[stream][0]}-{self._last[stream][1]}"

    def seen(self, stream: str, entry_id: str) -> None:
        """*entry_id* is taken: later ids lie above it."""
        self._last[stream] = max(self._last.get(stream, (0, -1)), _parts(entry_id))

    def learn(self, streams: Sequence[str]) -> None:
        """Ask Redis for the newest id ever given in each stream, so that ours lie above them."""
        for stream in streams:
            top = self._top(stream)
            if top is not None:
                self.seen(stream, top)

    def confirmed(self) -> dict[str, str]:
        """The last id known to be in each stream."""
        return {stream: f"{ms}-{n}" for stream, (ms, n) in self._confirmed.items()}

    def send(self, entries: Sequence[NewEntry]) -> None:
        """Publish *entries* in order; returns when all are in their streams, each once."""
        if self._check_tail:
            self._restore_tail()
        try:
            replies = self._execute(entries)
        except (redis.ConnectionError, redis.TimeoutError):
            self._check_tail = True
            raise
        for entry, reply in zip(entries, replies, strict=True):
            if isinstance(reply, redis.ResponseError) and "equal or smaller" in str(reply):
                entry = self._settle(entry)
            elif isinstance(reply, Exception):
                raise reply
            self._confirm(entry)

    def _confirm(self, entry: NewEntry) -> None:
        self.seen(entry.stream, entry.id)
        self._confirmed[entry.stream] = max(self._confirmed.get(entry.stream, (0, -1)), _parts(entry.id))
        self._recent.setdefault(entry.stream, deque(maxlen=RECENT_ENTRIES)).append(entry)

    def _execute(self, entries: Sequence[NewEntry]) -> list[Any]:
        if self._lease is None:
            pipe = self.client.pipeline(transaction=False)
            return self._add_all(pipe, entries)
        name, owner = self._lease
        key = keys.LEASE.format(name=name)
        while True:
            with self.client.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(key)
                    holder = pipe.get(key)
                    if holder is None or decoded(holder) != owner:
                        raise NotOwner(f"expected lease {name} to be held by {owner}, found {holder!r}")
                    pipe.multi()
                    return self._add_all(pipe, entries)
                except redis.WatchError:
                    continue  # renewed or lost in between: look again
                except redis.exceptions.ExecAbortError as error:
                    raise redis.ResponseError(f"transaction refused: {error}") from error

    @staticmethod
    def _add_all(pipe: Any, entries: Sequence[NewEntry]) -> list[Any]:
        for entry in entries:
            pipe.xadd(entry.stream, entry.fields, id=entry.id)
        return list(pipe.execute(raise_on_error=False))

    def _settle(self, entry: NewEntry) -> NewEntry:
        """Refused as "equal or smaller": was it an earlier attempt of ours (then done), or is a newer id needed?

        When it was trimmed meanwhile that is unknown; then it is published again, because a repeat is recognised
        by (session, seq) and by the tick's key, while a loss could not be mended.
        """
        found = self.client.xrange(entry.stream, entry.id, entry.id)
        found = found or self.client.xrevrange(entry.stream, "+", entry.id, count=_LOOK_BACK)
        if any(_same(fields, entry.fields) for _, fields in found):
            self.repeats += 1
            return entry
        self.learn([entry.stream])
        renewed = NewEntry(entry.stream, self.next_id(entry.stream, int(time.time() * 1000)), entry.fields)
        self.renumbered += 1
        reply = self._execute([renewed])[0]
        if isinstance(reply, Exception):
            raise reply
        return renewed

    def _restore_tail(self) -> None:
        """After a broken connection: a Redis that came back without its last moments gets them again."""
        for stream, recent in self._recent.items():
            top = self._top(stream)
            have = _parts(top) if top else (0, -1)
            missing = [entry for entry in recent if _parts(entry.id) > have]
            if missing:
                log.warning("%s lost its last %d entries: sending them again", stream, len(missing))
                for reply in self._execute(missing):
                    if isinstance(reply, Exception) and "equal or smaller" not in str(reply):
                        raise reply
        self._check_tail = False

    def _top(self, stream: str) -> str | None:
        try:
            info = self.client.xinfo_stream(stream)
        except redis.ResponseError as error:
            if "no such key" in str(error).lower():
                return None
            raise
        top = info["last-generated-id"]
        return top.decode() if isinstance(top, bytes) else str(top)


def _same(fields: Any, wanted: dict[str, Any]) -> bool:
    """Whether a stored entry is the same batch: equal session and sequence number."""
    stored = {decoded(name): decoded(value) for name, value in fields.items()}
    return all(stored.get(name) == str(wanted[name]) for name in ("session", "seq"))
