"""`BarConsumer`: minute bars, in broadcast, shard or hybrid mode.

Broadcast reads `keys.MINUTES`, an Arrow entry a closed minute; members of a group that shares the market, and a
broadcast client whose group of an earlier version is still there, read ``minute_bar_stream``, an entry a bar. Either
form is understood on any stream.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from qmt_orchestration.client import catch_up as catching
from qmt_orchestration.client.bar import Bar, Origin, Start, bars_of
from qmt_orchestration.client.consumer import Consumer
from qmt_orchestration.client.lanes import CONSUMER, Lane
from qmt_orchestration.client.leases import ReaderLease
from qmt_orchestration.client.rules import ShardRule, by_hash
from qmt_orchestration.client.symbols import normalize_all
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.fields import decoded, integer
from qmt_orchestration.stream.groups import Entry, GroupReader, create_group
from qmt_orchestration.warehouse.client import connect

Mode = Literal["broadcast", "shard", "hybrid"]
SHARED_GROUP: Final = "shared"
_BALANCE_SECONDS: Final = 1.0
_MIN_IDLE_MS: Final = 3_600_000  # pending entries move with the lease, not by idleness


class RuleMismatch(ValueError):
    """The members of the group cut the market by another rule."""


@dataclass(frozen=True)
class Minute:
    """The bars of *frame*: when *complete*, all of them, as the minute closed; else late ones and corrections."""

    frame: datetime
    bars: Sequence[Bar]
    complete: bool


class BarConsumer(Consumer[Bar]):
    """Minute bars, each once after acknowledgement.

    :param client_id: names the client for good: a restart goes on where it stopped.
    :param mode: *broadcast*: this client gets every bar. *shard*: the clients of this mode share the market
        among them. *hybrid*: the members of *group* share it, and every group gets every bar.
    :param rule: how a sharded group cuts the market (default ``by_hash(8)``); the same for all members.
    :param symbols: only these, as people write them (None = all).
    :param start: for a client or group that is new: ``"now"``, the ``"beginning"`` of the stream, or a time
        (frames from then on).
    :param catch_up: take from ClickHouse what the stream no longer has.
    :param max_in_flight: `read` waits while this many bars are not acknowledged.
    """

    kind = "bars"

    def __init__(
        self,
        client_id: str,
        *,
        mode: Mode = "broadcast",
        group: str = "",
        rule: ShardRule | None = None,
        symbols: str | Iterable[str] | None = None,
        start: Start = "now",
        catch_up: bool = False,
        batch_bars: int = 500,
        max_in_flight: int = 5000,
        stream: str = "",
        settings: Settings | None = None,
    ) -> None:
        if mode == "hybrid" and not group:
            raise ValueError("hybrid mode needs the name of a group: BarConsumer(…, mode='hybrid', group='strategies')")
        if mode == "broadcast" and (group or rule):
            raise ValueError("group and rule belong to the modes shard and hybrid; broadcast has a group per client")
        if mode not in ("broadcast", "shard", "hybrid"):
            raise ValueError(f"expected a mode of broadcast, shard, hybrid, found {mode!r:.40}")
        if start not in ("now", "beginning") and not (isinstance(start, datetime) and start.tzinfo):
            raise ValueError(f"expected a start of 'now', 'beginning' or an aware time, found {start!r:.60}")
        super().__init__(
            client_id,
            mode,
            group or (client_id if mode == "broadcast" else SHARED_GROUP),
            settings,
            max_in_flight,
        )
        self.rule = None if mode == "broadcast" else rule or by_hash()
        self._symbols = None if symbols is None else frozenset(normalize_all(symbols))
        self._start, self._catch_up, self._batch = start, catch_up, batch_bars
        self._stream = stream or (keys.MINUTES if mode == "broadcast" else keys.BARS)
        self._choose_stream = mode == "broadcast" and not stream
        self._since: dict[str, int] = {}
        self._warehouse: Any = None
        self._next_balance = 0.0

    def open(self) -> None:
        """Also makes the consumer groups, all of them, so that every shard has the same beginning."""
        super().open()
        try:
            if self.rule is not None:
                self._agree(self.rule)
            elif self._choose_stream:
                self._stream = catching.broadcast_stream(self.redis, f"{keys.BAR_GROUP_PREFIX}:{self.group}")
            for _, group in self._groups():
                if catching.group_of(self.redis, self._stream, group) is None:
                    create_group(
                        self.redis, self._stream, group, catching.begin(self.redis, self._stream, group, self._start)
                    )
                self._since[group] = catching.since(self.redis, group)
        except BaseException:
            self.close()
            raise

    def minutes(self) -> Iterator[Minute]:
        """Whole minutes, without end, in mode broadcast: each when it has closed, then what came late or was corrected.

        One is acknowledged when the next is asked for. A frame in which none of *symbols* has a bar gives nothing.
        """
        if self.rule is not None:
            raise ValueError(f"minutes() is for broadcast: in mode {self.mode} a member has a part of each minute")
        for bars in self.batches():
            frames: dict[datetime, list[Bar]] = {}
            for bar in bars:
                frames.setdefault(bar.frame, []).append(bar)
            for frame in sorted(frames):
                yield Minute(frame, frames[frame], frames[frame][0].origin.complete)

    def _agree(self, rule: ShardRule) -> None:
        key = keys.SHARD_RULE.format(group=self.group)
        self.redis.set(key, rule.spec, nx=True)
        agreed = decoded(self.redis.get(key))
        if agreed != rule.spec:
            raise RuleMismatch(
                f"group {self.group} is cut by {agreed!r}, this member wants {rule.spec!r}: use the same rule, "
                "another group, or evict all members first (qmt clients evict ID)"
            )

    def _groups(self) -> list[tuple[str, str]]:
        base = f"{keys.BAR_GROUP_PREFIX}:{self.group}"
        labels = self.rule.labels if self.rule else ()
        return [(self._stream, f"{base}:{label}") for label in labels] or [(self._stream, base)]

    def _make_lanes(self) -> None:
        if self.rule is None:
            if not self._lanes and self._membership.lease.valid:
                self._lanes = [self._lane_of("", self._membership.lease)]
            return
        if time.monotonic() < self._next_balance:
            return
        self._next_balance = time.monotonic() + _BALANCE_SECONDS
        self._membership.join(self.group)
        members, labels = self._membership.members(self.group), self.rule.labels
        place = members.index(self.client_id) if self.client_id in members else 0
        share = len(labels) // max(len(members), 1) + (place < len(labels) % max(len(members), 1))
        held = [lane for lane in self._lanes if not lane.draining]
        for lane in held[share:]:  # another member came: finish what is in our hands, then let go
            lane.draining = True
        for label in labels:
            if len(held) >= share:
                break
            if any(lane.label == label for lane in self._lanes):
                continue
            lease = ReaderLease(
                self.redis, keys.SHARD_LEASE.format(group=self.group, shard=label), self._membership.token
            )
            if lease.acquire():
                lane = self._lane_of(label, lease)
                self._lanes.append(lane)
                held.append(lane)

    def _lane_of(self, label: str, lease: ReaderLease) -> Lane[Bar]:
        group = f"{keys.BAR_GROUP_PREFIX}:{self.group}" + (f":{label}" if label else "")
        reader = GroupReader(
            self.redis, self._stream, group, CONSUMER if label else self.client_id,
            max_entries=1 if self._stream == keys.MINUTES else self._batch, min_idle_ms=_MIN_IDLE_MS,
        )  # fmt: skip
        symbols, rule, since = self._symbols, self.rule, self._since.get(group, 0)
        done = integer({"seq": self.redis.hget(keys.PROGRESS.format(group=group), catching.DONE_SEQ)}, "seq", -1, low=0)

        def wanted(symbol: str) -> bool:
            return (symbols is None or symbol in symbols) and (rule is None or rule.of(symbol) == label)

        def decode(entry: Entry, origin: Origin) -> list[Bar | None]:
            if b"symbol" in entry.fields and not wanted(entry.fields[b"symbol"].decode(errors="replace")):
                return [None]
            found = bars_of(entry.fields, origin)
            if symbols is None and rule is None and not since and origin.deliveries == 1:
                return list(found)
            again = done if origin.deliveries > 1 else -1
            return [
                bar if wanted(bar.symbol) and bar.timestamp >= since and not 0 <= bar.origin.seq <= again else None
                for bar in found
            ]

        search = None
        if self._catch_up:
            late = self.settings.publish_revision_frames
            search = catching.CatchUp(self.redis, self._stream, group, self._open_warehouse, wanted, late)
        return Lane(label, reader, lease, decode, self.counters, search)

    def _open_warehouse(self) -> Any:
        if self._warehouse is None:
            self._warehouse = connect(self.settings)
        return self._warehouse

    def _fields(self, item: Bar) -> dict[str, bytes]:
        return {name: value.encode() for name, value in item.fields().items()}
