"""`TickConsumer`: the ticks as the feed published them, in Arrow batches; its shards are those of the tick stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from qmt_orchestration.client.bar import Origin
from qmt_orchestration.client.consumer import Consumer
from qmt_orchestration.client.lanes import Lane
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.batch import decode
from qmt_orchestration.stream.groups import Entry, GroupReader, create_group


@dataclass(frozen=True)
class TickBatch:
    """One batch of ticks (columns of `market.schema.TICK_SCHEMA`) with its number in the feed session."""

    table: pa.Table = field(repr=False)
    session: str
    seq: int
    sent_ms: int
    origin: Origin = field(repr=False)
    payload: bytes = field(repr=False, compare=False, default=b"")


class TickConsumer(Consumer[TickBatch]):
    """Every batch of ticks, once after acknowledgement, in order per symbol.

    The tick stream keeps what the slowest group has not read: a tick client that goes away for good must be evicted, or
    it fills Redis. *start* as in `BarConsumer`, without a time. Holes in a session's numbers are counted (``gaps``).
    """

    kind = "ticks"

    def __init__(
        self,
        client_id: str,
        *,
        start: Literal["beginning", "now"] = "now",
        max_in_flight: int = 64,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(client_id, "broadcast", client_id, settings, max_in_flight)
        self._start = start
        self._seen: dict[tuple[str, str], int] = {}

    def open(self) -> None:
        """Also makes the consumer groups."""
        super().open()
        for stream, group in self._groups():
            create_group(self.redis, stream, group, "$" if self._start == "now" else "0")

    def _groups(self) -> list[tuple[str, str]]:
        group = f"{keys.TICK_GROUP_PREFIX}:{self.client_id}"
        return [(keys.ticks(shard), group) for shard in range(self.settings.stream_shards)]

    def _make_lanes(self) -> None:
        if self._lanes or not self._membership.lease.valid:
            return
        for shard, (stream, group) in enumerate(self._groups()):
            reader = GroupReader(self.redis, stream, group, self.client_id, max_entries=16, min_idle_ms=3_600_000)
            self._lanes.append(Lane(str(shard), reader, self._membership.lease, self._decode, self.counters))

    def _decode(self, entry: Entry, origin: Origin) -> list[TickBatch]:
        payload = entry.fields.get(b"payload", b"")
        session = fields.require_text(entry.fields, "session", 256)
        seq = fields.require_integer(entry.fields, "seq", low=0)
        sent_ms = fields.require_integer(entry.fields, "sent_ms", low=0)
        table = decode(payload, max_bytes=self.settings.stream_max_payload_mb << 20)
        last = self._seen.get((origin.lane, session))
        if last is not None and seq > last + 1:
            self.counters.gaps += 1
            self.counters.lost += seq - last - 1
        self._seen[(origin.lane, session)] = max(seq, last or 0)
        return [TickBatch(table, session, seq, sent_ms, origin, payload)]

    def _fields(self, item: TickBatch) -> dict[str, bytes]:
        told = {"session": item.session, "seq": item.seq, "sent_ms": item.sent_ms}
        return {**{name: str(value).encode() for name, value in told.items()}, "payload": item.payload}
