"""A consumer group read so that nothing is lost: one class, used by the writer, the gateway and the client library.

The rules (Redis 6.2 is enough; no library has groups, trimming, lag and dead letters together):

* The group is created at 0, never at ``$``: a consumer that comes late still gets what was published before it.
* After every start and every broken connection the consumer's own pending entries are read again first; a reply lost
  on the way leaves entries pending, and nobody else would look at them.
* Entries left by a consumer that died are claimed once they were idle for *min_idle_ms*. Entries in our hands are
  kept from being claimed by `touch` (called by every `read`; call it too in a long wait).
* An entry that cannot be handled because of *itself* is retried, then goes to the dead letters (`failed`, `reject`).
  An outage is never the entry's fault: catch it, back off, and handle the same entry again.
* An entry trimmed while pending can only be counted: it is acknowledged and added to ``lost``.

A reader belongs to one thread. Every method can raise `redis.RedisError`; the reader stays usable: call again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from qmt_orchestration.stream import dead_letters
from qmt_orchestration.stream.fields import integer

log = logging.getLogger(__name__)

_PAGE: Final = 100  # entries per page when pending lists are walked
_LAG_LIMIT: Final = 1000  # entries counted at most where the server cannot tell the lag


@dataclass(frozen=True)
class Entry:
    """An entry handed to a consumer. ``deliveries`` is 1 the first time; ``recovered`` marks a redelivery."""

    id: str
    fields: Mapping[bytes, bytes]
    deliveries: int = 1
    recovered: bool = False

    @property
    def size(self) -> int:
        """Bytes of names and values."""
        return sum(len(k) + len(v) for k, v in self.fields.items())


@dataclass(frozen=True)
class Lag:
    """How far a group is behind: entries not yet delivered (a lower bound if ``at_least``), their age, entries pending.

    ``seconds`` is the distance between the stream's newest id and the last one delivered (ids are epoch ms).
    """

    entries: int
    seconds: float
    pending: int
    at_least: bool = False


class GroupReader:
    """Reads *stream* as *consumer* of *group*. *consumer* should be stable across restarts of a process.

    :param block_ms: longest wait of one `read`; must lie below the client's socket time-out.
    :param target_bytes: the reader asks for as many entries as fit in about this much memory, going by their sizes
        so far, and at most *max_entries*.
    :param min_idle_ms: above the longest handling time between two calls of `read` or `touch`.
    :param max_deliveries: an entry that `failed` this often becomes a dead letter.
    """

    def __init__(
        self,
        client: redis.Redis,
        stream: str,
        group: str,
        consumer: str,
        *,
        block_ms: int = 1000,
        max_entries: int = 256,
        target_bytes: int = 16 << 20,
        min_idle_ms: int = 60_000,
        max_deliveries: int = 5,
    ) -> None:
        self.client: Any = client
        self.stream, self.group, self.consumer = stream, group, consumer
        self.block_ms, self.min_idle_ms, self.max_deliveries = block_ms, min_idle_ms, max_deliveries
        self._max_entries, self._target_bytes, self._entry_bytes = max_entries, target_bytes, float(target_bytes)
        self._held: dict[str, float] = {}  # ids handed out, neither acknowledged nor given back
        self._created = False
        self._reread = True
        self._reread_after = "0"
        self._next_claim = 0.0
        self._next_touch = 0.0
        self.recreated = 0  # the group had vanished (a flushed server) and was made again at 0: raise an alarm
        self.lost = 0  # pending entries that were trimmed away: counted, because nothing else is left of them
        self.dead = 0  # entries moved to the dead letters by this reader

    # -- reading --------------------------------------------------------------------------------------------

    def read(self, *, block: bool = True) -> list[Entry]:
        """The next entries: own pending first, then those of dead consumers, then new ones; [] after *block_ms*.

        Not *block*: [] at once when there is nothing.

        Entries already in the caller's hands (read, not acknowledged, not given back) are not handed out twice.
        """
        try:
            self._ensure_group()
            self.touch()
            if self._reread:
                return self._read_own_pending()
            if time.monotonic() >= self._next_claim:
                self._next_claim = time.monotonic() + self.min_idle_ms / 2000
                if self._claim_idle():
                    self._reread, self._reread_after = True, "0"
                    return self._read_own_pending()
            return self._read_new(block)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self.recreated += 1
            log.error(
                "group %s of stream %s had vanished (server flushed?); reading it from the start",
                self.group,
                self.stream,
            )
            self.reset()
            self._created = False
            return []
        except redis.RedisError:
            self.reset(keep_held=True)
            raise

    def reset(self, *, keep_held: bool = False) -> None:
        """Read the own pending entries again; unless *keep_held*, also those handed out before."""
        if not keep_held:
            self._held.clear()
        self._reread, self._reread_after = True, "0"

    def release(self, entries: Iterable[Entry]) -> None:
        """Give entries back unhandled: the next reads hand them out again."""
        for entry in entries:
            self._held.pop(entry.id, None)
        self._reread, self._reread_after = True, "0"

    def touch(self) -> None:
        """Keep the entries in our hands from being claimed by others. Cheap: works a few times per *min_idle_ms*."""
        now = time.monotonic()
        if now < self._next_touch or not self._held:
            return
        self._next_touch = now + self.min_idle_ms / 4000
        ids = list(self._held)
        for start in range(0, len(ids), _PAGE):
            self.client.xclaim(self.stream, self.group, self.consumer, 0, ids[start : start + _PAGE], justid=True)

    # -- finishing ------------------------------------------------------------------------------------------

    def ack(self, *ids: str) -> None:
        """These entries are done."""
        if ids:
            self.client.xack(self.stream, self.group, *ids)
            self.acked(*ids)

    def acked(self, *ids: str) -> None:
        """These entries were acknowledged by the caller itself, in a transaction of its own (``XACK``)."""
        for id_ in ids:
            self._held.pop(id_, None)

    def reject(self, entry: Entry, reason: str) -> None:
        """Move *entry* to the dead letters now: it can never be handled (its form is wrong)."""
        dead_letters.move(self.client, self.stream, self.group, entry.id, entry.fields, reason, entry.deliveries)
        self._held.pop(entry.id, None)
        self.dead += 1
        log.error("entry %s of %s goes to the dead letters: %s", entry.id, self.stream, reason)

    def failed(self, entry: Entry, reason: str) -> bool:
        """Handling *entry* failed because of itself: it will be read again; after *max_deliveries* it is moved to
        the dead letters.

        Returns True when it was moved. Never call this for an outage.
        """
        if entry.deliveries >= self.max_deliveries:
            self.reject(entry, f"failed {entry.deliveries} times, last: {reason}")
            return True
        log.warning("entry %s of %s failed (try %d): %s", entry.id, self.stream, entry.deliveries, reason)
        self.release([entry])
        return False

    def close(self) -> None:
        """Leave the group. The consumer is deleted only when nothing is pending (else its entries would be lost)."""
        try:
            for row in self.client.xinfo_consumers(self.stream, self.group):
                if row["name"] == self.consumer.encode() and row["pending"] == 0:
                    self.client.xgroup_delconsumer(self.stream, self.group, self.consumer)
        except redis.RedisError as error:
            log.warning("could not leave group %s of %s: %s", self.group, self.stream, error)

    # -- how far behind -------------------------------------------------------------------------------------

    def lag(self) -> Lag:
        """How far the group is behind, see `group_lag`."""
        return group_lag(self.client, self.stream, self.group)

    # -- the parts of read ----------------------------------------------------------------------------------

    def _ensure_group(self) -> None:
        if self._created:
            return
        create_group(self.client, self.stream, self.group)
        self._created = True

    def _count(self) -> int:
        return int(min(max(self._target_bytes / self._entry_bytes, 1), self._max_entries))

    def _fetch(self, after: str, block: int | None) -> list[tuple[str, Mapping[bytes, bytes]]]:
        reply = self.client.xreadgroup(
            self.group, self.consumer, {self.stream: after}, count=self._count(), block=block
        )
        streams = reply.items() if isinstance(reply, dict) else reply
        for _, entries in streams or ():
            rows = entries[0] if isinstance(reply, dict) and entries and isinstance(entries[0], list) else entries
            out = [(id_.decode(), fields or {}) for id_, fields in rows]
            sizes = [sum(len(k) + len(v) for k, v in fields.items()) for _, fields in out] or [0]
            # fall at once, rise slowly: the next read must not bring more than the target
            self._entry_bytes = max(sum(sizes) / len(sizes), max(sizes) / 4, self._entry_bytes / 8, 1.0)
            return out
        return []

    def _read_own_pending(self) -> list[Entry]:
        rows = self._fetch(self._reread_after, None)
        if not rows:
            self._reread = False
            return []
        self._reread_after = rows[-1][0]
        gone = [id_ for id_, fields in rows if not fields]
        if gone:
            self.lost += len(gone)
            log.error("%d pending entries of %s were trimmed away unread: %s …", len(gone), self.stream, gone[0])
            self.ack(*gone)
        rows = [(id_, fields) for id_, fields in rows if fields and id_ not in self._held]
        if not rows:
            return []
        pending = self.client.xpending_range(
            self.stream,
            self.group,
            rows[0][0],
            rows[-1][0],
            count=len(rows) + len(self._held),
            consumername=self.consumer,
        )
        tries = {p["message_id"].decode(): int(p["times_delivered"]) for p in pending}
        return self._hand_out([Entry(id_, fields, tries.get(id_, 1), True) for id_, fields in rows])

    def _claim_idle(self) -> int:
        """Take over what others left idle; returns how many. The own pending list hands them out."""
        claimed = 0
        while True:
            rows = self.client.xpending_range(self.stream, self.group, "-", "+", count=_PAGE, idle=self.min_idle_ms)
            ids = [row["message_id"] for row in rows if row["message_id"].decode() not in self._held]
            if not ids:
                return claimed
            got = self.client.xclaim(self.stream, self.group, self.consumer, self.min_idle_ms, ids, justid=True)
            claimed += len(got)
            for id_ in set(ids) - set(got):  # Redis 7 drops trimmed entries here; 6.2 hands them on as empty ones
                if not self.client.xrange(self.stream, id_, id_, count=1):
                    self.lost += self.client.xack(self.stream, self.group, id_) or 1
            if len(rows) < _PAGE:
                return claimed

    def _read_new(self, block: bool) -> list[Entry]:
        rows = self._fetch(">", self.block_ms if block else None)
        return self._hand_out([Entry(id_, fields) for id_, fields in rows])

    def _hand_out(self, entries: list[Entry]) -> list[Entry]:
        now = time.monotonic()
        self._held.update((entry.id, now) for entry in entries)
        return entries


def create_group(client: Any, stream: str, group: str, start: str = "0") -> bool:
    """Make *group* at *start* (an id, ``0`` = everything there is); False if it exists already."""
    try:
        client.xgroup_create(stream, group, id=start, mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
        return False
    return True


def id_ms(id_: str | bytes) -> int:
    """Epoch milliseconds in an entry id."""
    return int((id_.decode() if isinstance(id_, bytes) else id_).partition("-")[0])


def group_lag(client: Any, stream: str, group: str) -> Lag:
    """How far *group* is behind on *stream*; zero for a stream or group that does not exist yet.

    Redis 7 gives the lag. On 6.2 it is the difference of ``seq`` where entries carry one (ours do: batches of ticks per
    session, bars over the whole stream), else a count that ends at 1,000 (``at_least``).
    """
    try:
        groups = [g for g in client.xinfo_groups(stream) if g["name"] == group.encode()]
        newest = client.xinfo_stream(stream)["last-generated-id"]
    except redis.ResponseError:
        return Lag(0, 0.0, 0)
    if not groups:
        return Lag(0, 0.0, 0)
    row = groups[0]
    delivered, pending = row["last-delivered-id"], int(row["pending"])
    if delivered == newest:
        return Lag(0, 0.0, pending)
    first = client.xrange(stream, b"(" + delivered, "+", count=1)
    last = client.xrevrange(stream, "+", "-", count=1)
    if not first or not last:
        return Lag(0, 0.0, pending)
    seconds = max(id_ms(newest) - max(id_ms(delivered), id_ms(first[0][0])), 0) / 1000
    if row.get("lag") is not None:
        return Lag(int(row["lag"]), seconds, pending)
    head, tail = first[0][1], last[0][1]
    if b"seq" in head and head.get(b"session") == tail.get(b"session"):
        entries = integer(tail, "seq", -1, low=0) - integer(head, "seq", low=0) + 1
        if entries > 0:  # else the numbers began again in between
            return Lag(entries, seconds, pending)
    ids = client.xrange(stream, b"(" + delivered, "+", count=_LAG_LIMIT)
    return Lag(len(ids), seconds, pending, at_least=len(ids) == _LAG_LIMIT)
