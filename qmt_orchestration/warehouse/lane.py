"""One stream into one table, each entry exactly once: the loop of the writer for one shard.

How a crash at any moment neither loses nor doubles:

* Entries read together become one insert with one token. Which entries those are is written to `keys.WRITER_PLAN`
  before the insert, so a retry, by this process or the next, forms the same insert with the same token.
* ClickHouse refuses a token it knows. A redelivered entry, or a sequence number seen before, is first looked up
  (`entries_stored.sql`): its token may have left ClickHouse's window.
* The acknowledgement, the sequence numbers and the counters change in one Redis transaction, after the insert.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import redis
from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError, decode, encode, is_current, splice
from qmt_orchestration.stream.groups import Entry, GroupReader
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.warehouse.client import INSERT_SETTINGS

log = logging.getLogger("writer")

#: Rows of one insert at most (one entry is never split). Few large inserts when behind: 250,000 rows at once cost
#: ClickHouse under half the processor time a row of 60,000 (parts to write and to merge).
_GROUP_ROWS: Final = 250_000
_READ_BYTES: Final = 32 << 20  # of one read: about that many rows
_BUSY_ROWS: Final = 5_000  # a read of fewer rows means that the lane keeps up: it may wait for company
_MAX_DAYS: Final = 100  # an entry over more days than this is no honest batch: one part per day
_DAY_MS: Final = 86_400_000
_SHANGHAI_MS: Final = 8 * 3_600_000  # UTC+8 all year
_SESSIONS_KEPT: Final = 200
_BACKOFF_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_TICK_KEY: Final = ["symbol", "time", "pvolume", "amount"]
#: Errors of the data itself; everything else (network, memory, too many parts, …) is an outage and is waited out.
_MESSAGE_ERRORS: Final = frozenset({6, 26, 27, 33, 41, 53, 70, 117, 321, 349, 636})


class Stopping(Exception):
    """The service stops during an outage: the entries stay pending for the next start."""


class Refused(Exception):
    """ClickHouse refuses the data itself."""


@dataclass(frozen=True)
class Part:
    """An entry with its decoded rows. ``seq`` is None for streams without sequence accounting."""

    entry: Entry
    payload: bytes
    table: pa.Table
    session: str
    seq: int | None


@dataclass
class Counters:
    """What a lane counted since it started; rates and heartbeats come from here."""

    rows: int = 0
    entries: int = 0
    inserts: int = 0
    skipped: int = 0  # entries that were already stored
    retries: int = 0
    last_stored_ms: int = 0
    last_tick_ms: int = 0
    insert_seconds: float = 0.0
    error: str = ""


class Lane(threading.Thread):
    """Stores the entries of *stream* in *table* until *stop*.

    :param connect_redis: makes the lane's own Redis client; *connect_clickhouse* likewise: clients are not shared
        between threads.
    :param shard: the shard of a tick stream; None for streams without sequence accounting.
    """

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        *,
        stream: str,
        table: str,
        schema: pa.Schema,
        shard: int | None,
        connect_redis: Callable[[], redis.Redis],
        connect_clickhouse: Callable[[], Any],
        stored_sql: str,
    ) -> None:
        super().__init__(name=f"lane {stream}", daemon=True)
        self._settings, self._stop_event = settings, stop
        self.stream, self._table, self._schema, self._shard = stream, table, schema, shard
        self._connect_clickhouse, self._stored_sql = connect_clickhouse, stored_sql
        self._clickhouse: Any = None
        self._redis: Any = connect_redis()
        self.reader = GroupReader(
            self._redis,
            stream,
            keys.WRITER_GROUP,
            settings.host,
            block_ms=settings.redis_block_ms,
            max_entries=4096,
            target_bytes=_READ_BYTES,
        )
        self._next_read = 0.0  # monotonic: not before, while the lane keeps up
        self._plan_key = keys.WRITER_PLAN.format(stream=stream)
        self._sequences_key = keys.WRITER_SEQUENCES.format(stream=stream)
        self._totals_key = keys.WRITER_TOTALS.format(stream=stream)
        self.counters = Counters()
        self.delays = np.zeros(60_001, dtype=np.int64)  # rows by delay callback -> stored, ms
        self.failure: BaseException | None = None

    # -- the loop -------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                try:
                    self._handle(self._read())
                except Stopping:
                    break
                except redis.RedisError as error:
                    self._away("Redis", error)
                    self.reader.reset()  # what is in hand and not acknowledged must be read again
                    self._stop_event.wait(0.2)
            self._leave()
        except BaseException as error:  # a defect: the service must end with it, not live on without this lane
            self.failure = error
            log.exception("lane of %s failed", self.stream)
            self._stop_event.set()

    def _read(self) -> list[Entry]:
        """New entries, or all recovered ones together, so that the inserts under way before are formed again whole.

        While the lane keeps up, reads are QMT_WRITER_GATHER_MS apart, so that ClickHouse sees about ten inserts a
        second however small the feed's batches are. Not in the second before a tick closes the last minute: its bars
        wait for that tick.
        """
        if not self._may_close_a_minute():
            self._stop_event.wait(max(self._next_read - time.monotonic(), 0.0))
        entries = self.reader.read()
        self._next_read = time.monotonic() + self._settings.writer_gather_ms / 1000
        while entries and entries[-1].recovered:
            more = self.reader.read()
            entries += more
            if not more or not more[-1].recovered:
                break
        return entries

    def _may_close_a_minute(self) -> bool:
        since_end = self.counters.last_tick_ms % 60_000  # stamps may be whole seconds
        return since_end < self._settings.close_grace_ms

    def _handle(self, entries: list[Entry]) -> None:
        if not entries:
            return
        parts = [part for entry in entries if (part := self._decode(entry)) is not None]
        if sum(part.table.num_rows for part in parts) >= _BUSY_ROWS:
            self._next_read = 0.0
        done, missing = self._already_stored(parts)
        if done:
            self.counters.skipped += len(done)
            self._commit(done, stored=False)
        for token, group in self._groups(missing):
            self._store(group, token)

    def _leave(self) -> None:
        try:
            self.reader.close()
        finally:
            self._redis.close()
            if self._clickhouse is not None:
                self._clickhouse.close()

    # -- decoding -------------------------------------------------------------------------------------------

    def _decode(self, entry: Entry) -> Part | None:
        """The rows of *entry*, or None after it went to the dead letters: what is malformed now stays so."""
        try:
            return self._checked(entry)
        except PayloadError as error:
            self.reader.reject(entry, str(error))
            return None

    def _checked(self, entry: Entry) -> Part:
        payload = entry.fields.get(b"payload")
        if payload is None:
            raise PayloadError(f"no field payload; fields are {sorted(entry.fields)[:10]}")
        table = decode(payload, max_bytes=self._settings.stream_max_payload_mb << 20, expected=self._schema)
        if not table.num_rows:
            raise PayloadError("a batch without rows")
        days = len(np.unique((table.column("time").cast(pa.int64()).to_numpy() + _SHANGHAI_MS) // _DAY_MS))
        if days > _MAX_DAYS:
            raise PayloadError(f"rows of {days} days in one batch, at most {_MAX_DAYS} accepted")
        session = pc.unique(table.column("session")).to_pylist()
        if self._shard is not None and not is_current(payload):
            payload = encode(table)
        if self._shard is None:
            return Part(entry, payload, table, session[0], None)
        seqs = pc.unique(table.column("seq")).to_pylist()
        if len(session) != 1 or len(seqs) != 1:
            raise PayloadError(f"expected one session and seq in a batch, found {session[:3]} and {seqs[:3]}")
        for name, found in ((b"session", session[0]), (b"seq", str(seqs[0])), (b"rows", str(table.num_rows))):
            said = entry.fields.get(name, b"").decode(errors="replace")
            if said != found:
                raise PayloadError(f"field {name.decode()} says {said!r}, its rows say {found!r}")
        return Part(entry, payload, table, session[0], seqs[0])

    # -- what is stored already -----------------------------------------------------------------------------

    def _already_stored(self, parts: list[Part]) -> tuple[list[Part], list[Part]]:
        """(stored, not stored): redelivered entries and numbers that came before are looked up, the rest is new."""
        if self._shard is None or not parts:
            return [], parts
        seen: dict[str, Sequence] = {}
        for session in {part.session for part in parts}:
            seen[session] = Sequence.load(self._redis.hget(self._sequences_key, session))
        doubtful: dict[str, list[Part]] = {}
        twice: list[Part] = []
        met: set[tuple[str, int]] = set()
        for part in parts:
            assert part.seq is not None
            if (part.session, part.seq) in met:
                twice.append(part)
            elif part.entry.recovered or part.seq in seen[part.session]:
                doubtful.setdefault(part.session, []).append(part)
            met.add((part.session, part.seq))
        stored = {part.entry.id for session, some in doubtful.items() for part in self._look_up(session, some)}
        stored |= {part.entry.id for part in twice}
        return [p for p in parts if p.entry.id in stored], [p for p in parts if p.entry.id not in stored]

    def _look_up(self, session: str, parts: list[Part]) -> list[Part]:
        times = pa.chunked_array([c for p in parts for c in p.table.column("time").cast(pa.int64()).chunks])
        bounds = pc.min_max(times).as_py()
        parameters = {
            "session": session,
            "seqs": [part.seq for part in parts],
            "first_ms": bounds["min"],
            "last_ms": bounds["max"],
            "shards": self._settings.stream_shards,
            "shard": self._shard,
        }
        rows = self._patiently(lambda client: client.query(self._stored_sql, parameters=parameters).result_rows)
        stored = {int(seq): int(n) for seq, n in rows}
        return [part for part in parts if stored.get(part.seq or 0, 0) >= _distinct(part.table)]

    # -- inserting ------------------------------------------------------------------------------------------

    def _groups(self, parts: list[Part]) -> list[tuple[str, list[Part]]]:
        """(token, entries) of each insert: those planned before a crash as they were planned, the rest anew."""
        groups: list[list[Part]] = []
        by_id = {part.entry.id: part for part in parts}
        if any(part.entry.recovered for part in parts):
            for plan in self._redis.hgetall(self._plan_key).values():
                ids = plan.decode().split(",")
                if all(id_ in by_id for id_ in ids):
                    groups.append([by_id.pop(id_) for id_ in ids])
        recovered = [[part] for part in by_id.values() if part.entry.recovered]
        fresh: list[list[Part]] = []
        rows = 0
        for part in (p for p in by_id.values() if not p.entry.recovered):
            if not fresh or rows + part.table.num_rows > _GROUP_ROWS:
                fresh.append([])
                rows = 0
            fresh[-1].append(part)
            rows += part.table.num_rows
        return [(self._token(group), group) for group in groups + recovered + fresh]

    def _token(self, group: Many[Part]) -> str:
        first, last = group[0].entry.id, group[-1].entry.id
        return f"{self.stream}:{first}" if len(group) == 1 else f"{self.stream}:{first}..{last}:{len(group)}"

    def _store(self, group: list[Part], token: str) -> None:
        if len(group) > 1:
            self._redis.hset(self._plan_key, group[0].entry.id, ",".join(part.entry.id for part in group))
            payload = splice([part.payload for part in group]) or encode(pa.concat_tables([p.table for p in group]))
        else:
            payload = group[0].payload
        try:
            self._insert(payload, token)
        except Refused as error:
            if len(group) > 1:  # find the guilty one: each on its own
                log.warning("an insert of %d entries was refused, trying each alone: %s", len(group), error)
                self._redis.hdel(self._plan_key, group[0].entry.id)
                for part in group:
                    self._store([part], self._token([part]))
            else:
                self.reader.failed(group[0].entry, str(error))
            return
        self.counters.inserts += 1
        self._commit(group, stored=True)

    def _insert(self, payload: bytes, token: str) -> None:
        settings = {**INSERT_SETTINGS, "max_partitions_per_insert_block": 0, "insert_deduplication_token": token}
        columns = self._schema.names

        def insert(client: Any) -> None:
            client.raw_insert(self._table, columns, insert_block=payload, settings=settings, fmt="ArrowStream")

        began = time.monotonic()
        self._patiently(insert)
        self.counters.insert_seconds += time.monotonic() - began

    def _patiently(self, action: Callable[[Any], Any]) -> Any:
        """Do *action* with a ClickHouse client; an outage is waited out with the same token, as long as it takes.

        :raises Refused: the data is at fault.  :raises Stopping: the service stops meanwhile.
        """
        tries = 0
        while True:
            try:
                if self._clickhouse is None:
                    self._clickhouse = self._connect_clickhouse()
                result = action(self._clickhouse)
                self.counters.error = ""
                return result
            except (ClickHouseError, OSError) as error:
                code = getattr(error, "code", None)
                if code in _MESSAGE_ERRORS:
                    raise Refused(str(error)[:1000]) from error
                self._away("ClickHouse", error)
                if code is None:  # a broken connection: make a new one
                    self._clickhouse = None
                self.counters.retries += 1
                if self._stop_event.wait(_BACKOFF_SECONDS[min(tries, len(_BACKOFF_SECONDS) - 1)]):
                    raise Stopping from error
                tries += 1
                self.reader.touch()

    # -- acknowledging --------------------------------------------------------------------------------------

    def _commit(self, group: list[Part], *, stored: bool) -> None:
        """Acknowledge, and record numbers and totals, in one transaction that can be repeated without harm."""
        ids = [part.entry.id for part in group]
        mark = f"{ids[0]}..{ids[-1]}:{len(ids)}"
        rows = sum(part.table.num_rows for part in group) if stored else 0

        def transaction(pipe: Any) -> None:
            known = pipe.hget(self._totals_key, "last") == mark.encode()
            sequences: dict[str, Sequence] = {}
            for part in group if not known else []:
                if part.seq is not None:
                    if part.session not in sequences:
                        sequences[part.session] = Sequence.load(pipe.hget(self._sequences_key, part.session))
                    sequences[part.session].add(part.seq)
            pipe.multi()
            for session, sequence in sequences.items():
                pipe.hset(self._sequences_key, session, sequence.dump())
            if not known:
                pipe.hincrby(self._totals_key, "rows", rows)
                pipe.hincrby(self._totals_key, "entries", len(ids))
                pipe.hset(self._totals_key, "last", mark)
            pipe.hdel(self._plan_key, *ids)
            pipe.xack(self.stream, keys.WRITER_GROUP, *ids)

        self._redis.transaction(transaction, self._totals_key, self._sequences_key)
        self.reader.acked(*ids)
        now_ms = int(time.time() * 1000)
        self.counters.entries += len(ids)
        self.counters.rows += rows
        if stored:
            self.counters.last_stored_ms = now_ms
            for part in group:
                self._measure(part.table, now_ms)

    def _measure(self, table: pa.Table, now_ms: int) -> None:
        received = table.column("received_at").cast(pa.int64()).to_numpy()
        delays = np.clip(now_ms - received, 0, len(self.delays) - 1)
        self.delays += np.bincount(delays, minlength=len(self.delays))
        self.counters.last_tick_ms = max(self.counters.last_tick_ms, pc.max(table.column("time")).value)

    def _away(self, what: str, error: BaseException) -> None:
        text = f"{what}: {str(error)[:300]}"
        if text != self.counters.error:
            log.warning("%s is away or refuses for now, trying again: %s", what, text)
        self.counters.error = text


def _distinct(table: pa.Table) -> int:
    """Distinct ticks of a batch: rows of equal key are one tick in the table."""
    return int(table.select(_TICK_KEY).group_by(_TICK_KEY).aggregate([]).num_rows)


def forget_old_sessions(client: Any, stream: str) -> None:
    """Keep the sequence numbers of the newest sessions; the losses and repeats of older ones stay in the totals."""
    sequences_key = keys.WRITER_SEQUENCES.format(stream=stream)
    if client.hlen(sequences_key) <= _SESSIONS_KEPT:
        return

    def transaction(pipe: Any) -> None:
        every = {name: Sequence.load(text) for name, text in pipe.hgetall(sequences_key).items()}
        old = sorted(every, key=_started)[: max(len(every) - _SESSIONS_KEPT, 0)]
        pipe.multi()
        for name in old:
            pipe.hdel(sequences_key, name)
            pipe.hincrby(keys.WRITER_TOTALS.format(stream=stream), "old_lost", every[name].lost)
            pipe.hincrby(keys.WRITER_TOTALS.format(stream=stream), "old_repeats", every[name].repeats)

    client.transaction(transaction, sequences_key)


def _started(session: bytes) -> int:
    """Start (epoch ms) in a session's name ``<host>-<feed>-<start ms>``; 0 where there is none."""
    tail = session.rpartition(b"-")[2]
    return int(tail) if tail.isdigit() else 0
