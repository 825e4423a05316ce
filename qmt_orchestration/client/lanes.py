"""A lane: one consumer group on one stream, read by whoever holds the lane's lease.

Broadcast is one lane per client. A sharded group has one consumer group per shard,
``minute_bar_consumers:<group>:<shard>``; the holder of a shard reads the whole stream in that group and passes over
entries of other shards. That costs one reading of the stream per shard, and buys what is otherwise hard: each shard has
its own acknowledged position in Redis, so moving a shard is moving a lease. All holders use the same consumer name, so
what the last one left pending is simply "our own pending entries" to the next, oldest first: order per symbol holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from qmt_orchestration.client.bar import Origin
from qmt_orchestration.client.catch_up import DONE_SEQ, CatchUp
from qmt_orchestration.client.leases import ReaderLease
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.groups import Entry, GroupReader

CONSUMER = "owner"
_NUMBERS = count(1)


class Item(Protocol):
    """What a lane hands out: it knows where it came from."""

    @property
    def origin(self) -> Origin: ...


ItemT = TypeVar("ItemT", bound=Item)

#: The items of an entry, None for each that this client does not want; `ValueError` when it has the wrong form.
Decode = Callable[[Entry, Origin], "Sequence[ItemT | None]"]


@dataclass
class Counters:
    """What a client has done since it started; numbers of items unless the name says otherwise."""

    handled: int = 0
    passed_over: int = 0  # entries of other shards, other symbols, or before the start
    caught_up: int = 0  # from ClickHouse
    errors: int = 0  # handler errors, retried or not
    dead: int = 0  # moved to the dead letters
    lost: int = 0  # trimmed while pending; caught up from ClickHouse where that is on
    gaps: int = 0  # holes found: retention passed the client, or numbers of a feed session missing
    handed_over: int = 0  # items not handled here, because their shard had moved
    last_error: str = ""


@dataclass
class Lane(Generic[ItemT]):
    """See the module. *label* is the shard; *draining* lanes are not read, only finished.

    *name* is new for every holding of the shard: items of an earlier holding (a lease that was lost and taken again)
    come again from the server, so the copies still in a buffer must not pass for ours.
    """

    label: str
    reader: GroupReader
    lease: ReaderLease
    decode: Decode[ItemT]
    counters: Counters
    catch_up: CatchUp | None = None
    draining: bool = False
    in_flight: dict[Origin, ItemT] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)  # entry -> items of it in flight
    name: str = field(default_factory=lambda: f"lane-{next(_NUMBERS)}")

    @property
    def group(self) -> str:
        """Name of the consumer group."""
        return self.reader.group

    def read(self, block_ms: int) -> list[ItemT]:
        """What the stream no longer has, from ClickHouse, then the stream; [] after *block_ms* (0: at once)."""
        if self.catch_up is not None:
            missed = self.catch_up.next(self.name, waiting=bool(self.in_flight))
            if missed is not None:
                self.counters.caught_up += len(missed)
                return self._taken(missed)  # type: ignore[arg-type]  # only lanes of bars have a catch-up
        # Redis looks at short time-outs ten times a second only: "at once" must be no BLOCK at all.
        self.reader.block_ms = block_ms or None  # type: ignore[assignment]
        lost, recreated = self.reader.lost, self.reader.recreated
        entries = self.reader.read()
        if self.reader.lost > lost or self.reader.recreated > recreated:
            self.counters.lost += self.reader.lost - lost
            self.counters.gaps += 1
            if self.catch_up is not None:
                self.catch_up.look_again()
        return self._wanted(entries)

    def acknowledge(self, items: Sequence[ItemT]) -> None:
        """*items* are done, for good. `LeaseLost` when the lane has moved."""
        done = {item.origin: item for item in items if item.origin in self.in_flight}
        rows = Counter(origin.entry_id for origin in done if origin.entry_id)
        ids = [id_ for id_, count in rows.items() if count == self.rows[id_]]
        progress: dict[str, int] = {}
        if self.catch_up is not None:
            left = [item for key, item in self.in_flight.items() if key not in done]
            progress = self.catch_up.progress(items, left)  # type: ignore[arg-type]
        oldest = next((item for key, item in self.in_flight.items() if key not in done), None)
        if (
            oldest is not None and oldest.origin.entry_id and oldest.origin.row
        ):  # the rest of an entry, of which the bars before are done
            progress[DONE_SEQ] = oldest.origin.seq - 1
        self.lease.acknowledge(self.reader.stream, self.group, ids, keys.PROGRESS.format(group=self.group), progress)
        for key in done:
            del self.in_flight[key]
        self.rows -= rows  # of entries that are acknowledged nothing is left
        self.reader.acked(*ids)

    def _wanted(self, entries: list[Entry]) -> list[ItemT]:
        items: list[ItemT] = []
        foreign: list[str] = []
        for entry in entries:
            try:
                found = self.decode(entry, Origin(self.name, entry.id, entry.deliveries))
            except ValueError as error:
                self.reader.reject(entry, str(error))
                self.counters.dead += 1
                self.counters.last_error = str(error)
                continue
            wanted = [item for item in found if item is not None]
            items += wanted
            self.counters.passed_over += len(found) - len(wanted)
            if wanted:
                self.rows[entry.id] = len(wanted)
            else:
                foreign.append(entry.id)
        if foreign:
            self.reader.ack(*foreign)
        return self._taken(items)

    def _taken(self, items: list[ItemT]) -> list[ItemT]:
        self.in_flight.update((item.origin, item) for item in items)
        return items
