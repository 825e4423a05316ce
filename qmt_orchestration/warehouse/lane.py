"""One stream into one table, each entry exactly once: the loop of the writer for one shard.

How a crash at any moment neither loses nor doubles:

* Entries read together become one insert with one token. Which entries those are is written to `keys.WRITER_PLAN`
  before the insert, so a retry, by this process or the next, forms the same insert with the same token.
* ClickHouse skips an insert whose token it has seen. A redelivered entry, or a sequence number seen before, is first
  looked up (`entries_stored.sql`): its token may have left ClickHouse's window.
* The acknowledgement, the sequence numbers, the counters and the dead letters of refused rows change in one Redis
  transaction, after the insert.

The steps are in `warehouse.ingest`. While an insert runs, the next entries of a backlog are read and decoded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.groups import Entry, GroupReader
from qmt_orchestration.warehouse.ingest.commit import Committer, LaneCounters
from qmt_orchestration.warehouse.ingest.entries import Part, decode_entries, newest_ms, row_count, without_refused
from qmt_orchestration.warehouse.ingest.insert import Inserter, InsertRejected, Stopping
from qmt_orchestration.warehouse.ingest.plan import Plan

log = logging.getLogger("writer")

_READ_BYTES: Final = 32 << 20  # of one read: about that many rows
_MINUTE_MS: Final = 60_000
_STEP_MS: Final = 100  # between looks at what has come while few rows wait


class WriterLane:
    """Stores the entries of *stream* in *table* until *stop*, in a thread of its own.

    :param connect_redis: makes the lane's own Redis client; *connect_clickhouse* likewise: clients are not shared
        between lanes.
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
        self.stream, self.counters = stream, LaneCounters()
        self.failure: BaseException | None = None
        self._settings, self._stop, self._schema, self._shard = settings, stop, schema, shard
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
        self.inserter = Inserter(connect_clickhouse, table, schema, stop, self.counters)
        self.plan = Plan(self._redis, settings, stream, shard, stored_sql, self.inserter.query)
        self.committer = Committer(self._redis, stream, self.counters)
        self._inserts = ThreadPoolExecutor(1, thread_name_prefix=f"insert {stream}")
        self._running: tuple[list[Part], Future[None]] | None = None
        self._next_read = 0.0  # monotonic: not before, while the lane keeps up
        self._newest_ms = 0  # market time of the newest tick that was read
        self._thread = threading.Thread(target=self.run, name=f"lane {stream}", daemon=True)

    def start(self) -> None:
        """Begin, in the lane's own thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout)

    def run(self) -> None:
        """Store until *stop*. A defect ends the whole service: it must not go on without this lane."""
        try:
            while not self._stop.is_set():
                try:
                    self._take(self._gather())
                    if self._running is None:
                        self.counters.error = ""  # also where nothing comes that could be inserted
                except Stopping:
                    break
                except redis.RedisError as error:
                    self.counters.away("Redis", error)
                    self._forget_running()
                    self.reader.reset()  # what is in hand and not acknowledged must be read again
                    self._stop.wait(0.2)
            with suppress(Stopping):
                self._finish()
            self._leave()
        except BaseException as error:
            self.failure = error
            log.exception("lane of %s failed", self.stream)
            self._stop.set()

    def _leave(self) -> None:
        self._inserts.shutdown()
        try:
            self.reader.close()
        finally:
            self._redis.close()
            self.inserter.close()

    # -- reading --------------------------------------------------------------------------------------------

    def _gather(self) -> list[Entry]:
        """Entries for the next inserts, as few and as large ones as the delay allows.

        While the lane keeps up, reads are QMT_WRITER_GATHER_MS apart, and fewer than QMT_WRITER_FEW_ROWS rows wait for
        others for up to QMT_WRITER_FEW_ROWS_MS. Nothing waits once a tick closes a minute, whose bars wait for it.
        """
        settings = self._settings
        if not self._may_close_a_minute():
            self._stop.wait(max(self._next_read - time.monotonic(), 0.0))
        entries = self._read(block=self._running is None)
        began = time.monotonic()
        rows, known = sum(row_count(entry.fields) for entry in entries), self._closed()
        self._look_at(entries)
        while (
            entries
            and rows < settings.writer_few_rows
            and not any(entry.recovered for entry in entries)
            and not self._may_close_a_minute()
            and self._closed() == known
            and time.monotonic() - began < settings.writer_few_rows_ms / 1000
            and not self._stop.wait(min(_STEP_MS, settings.writer_gather_ms) / 1000)
        ):
            more = self._read(block=False)
            self._look_at(more)
            entries += more
            rows += sum(row_count(entry.fields) for entry in more)
        busy = rows >= settings.writer_gather_rows
        self._next_read = 0.0 if busy else time.monotonic() + settings.writer_gather_ms / 1000
        return entries

    def _read(self, *, block: bool) -> list[Entry]:
        """New entries, or all recovered ones together, so that the inserts under way before are formed again whole."""
        entries = self.reader.read(block=block)
        while entries and entries[-1].recovered:
            more = self.reader.read(block=block)
            entries += more
            if not more or not more[-1].recovered:
                break
        return entries

    def _look_at(self, entries: list[Entry]) -> None:
        self._newest_ms = max([self._newest_ms, *(newest_ms(entry.fields) for entry in entries)])

    def _may_close_a_minute(self) -> bool:
        """The newest tick lies less than the grace behind a minute's end: the next one may close it."""
        return self._newest_ms % _MINUTE_MS < self._settings.close_grace_ms  # stamps may be whole seconds

    def _closed(self) -> int:
        return (self._newest_ms - self._settings.close_grace_ms) // _MINUTE_MS

    # -- storing --------------------------------------------------------------------------------------------

    def _take(self, entries: list[Entry]) -> None:
        """Store *entries*; the last insert of a backlog may still run when this returns."""
        parts = self._decoded(entries)
        if parts:
            tolerance_ms = int(self._settings.writer_ahead_seconds * 1000)
            parts = without_refused(parts, read_clock(self._redis), tolerance_ms)
        done, missing = self.plan.already_stored(parts)
        if done:
            self.counters.skipped += sum(not part.refused for part in done)
            self.reader.acked(*self.committer.commit(done, stored=False))
        for group in self.plan.groups(missing):
            self.store(group)
        if self._next_read:  # no backlog: acknowledged as soon as stored
            self._finish()

    def _decoded(self, entries: list[Entry]) -> list[Part]:
        """The rows of *entries*; those malformed now stay so and go to the dead letters."""
        parts = []
        for entry, found in zip(entries, decode_entries(entries, self._settings, self._schema), strict=True):
            if isinstance(found, PayloadError):
                self.reader.reject(entry, str(found))
            else:
                parts.append(found)
        return parts

    def store(self, group: list[Part]) -> None:
        """Begin the insert of *group* once the one before it is acknowledged."""
        self._finish()
        self.plan.note(group)
        self._running = group, self._inserts.submit(self.inserter.insert, group, self.plan.token(group))

    def _finish(self) -> None:
        """Wait for the running insert and acknowledge its entries."""
        if self._running is None:
            return
        group, insert = self._running
        while True:
            try:
                insert.result(timeout=1.0)
                break
            except StillRunning:
                if insert.done():  # its own time-out, not ours
                    raise
                self.reader.touch()
            except InsertRejected as error:
                self._running = None
                self._refused(group, error)
                return
        self._running = None
        self.counters.inserts += 1
        self.reader.acked(*self.committer.commit(group, stored=True))

    def _refused(self, group: list[Part], error: InsertRejected) -> None:
        """ClickHouse rejects the data: find the entry at fault by inserting each on its own."""
        if len(group) == 1:
            self.reader.failed(group[0].entry, str(error))
            return
        log.warning("an insert of %d entries was refused, trying each alone: %s", len(group), error)
        self.plan.forget(group)
        for part in group:
            self.store([part])
            self._finish()

    def _forget_running(self) -> None:
        """Redis failed: let the running insert end; its entries are read again and found stored."""
        if self._running is not None:
            with suppress(InsertRejected, Stopping):
                self._running[1].result()
            self._running = None
