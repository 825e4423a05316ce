"""After an insert: acknowledgement, sequence numbers, totals and dead letters in one transaction; the counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.fields import LAST_MS, integer
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.warehouse.ingest.entries import Part

log = logging.getLogger("writer")

_SESSIONS_KEPT: Final = 200
_LONGEST_MS: Final = 60_000  # delays are counted up to here


@dataclass
class LaneCounters:
    """What a lane counted since it started; rates and heartbeats come from here."""

    rows: int = 0
    entries: int = 0
    inserts: int = 0
    skipped: int = 0  # entries that were already stored
    refused_rows: int = 0  # in the dead letters, see `checks`
    retries: int = 0
    last_tick_ms: int = 0
    insert_seconds: float = 0.0
    error: str = ""
    delays: np.ndarray[Any, Any] = field(  # rows by delay callback -> stored, ms
        default_factory=lambda: np.zeros(_LONGEST_MS + 1, dtype=np.int64)
    )

    def away(self, what: str, error: BaseException) -> None:
        """*what* does not answer or rejects the insert: recorded, and logged when the error is a new one."""
        text = f"{what}: {str(error)[:300]}"
        if text != self.error:
            log.warning("%s does not answer or rejects the request, trying again: %s", what, text)
        self.error = text

    def measure(self, group: Many[Part]) -> None:
        """Add the rows of an insert that has just ended."""
        now_ms = int(time.time() * 1000)
        table = pa.concat_tables([part.table.select(["time", "received_at"]) for part in group])
        times, received = (table.column(name).cast(pa.int64()).to_numpy() for name in ("time", "received_at"))
        if len(times):
            delays, counts = np.unique(np.clip(now_ms - received, 0, _LONGEST_MS), return_counts=True)
            self.delays[delays] += counts
            self.last_tick_ms = max(self.last_tick_ms, int(times.max()))


class Committer:
    """Acknowledges entries of one stream. All of it can be repeated without harm."""

    def __init__(self, redis: Any, stream: str, counters: LaneCounters) -> None:
        self._redis, self._stream, self._counters = redis, stream, counters
        self._plan_key = keys.WRITER_PLAN.format(stream=stream)
        self._sequences_key = keys.WRITER_SEQUENCES.format(stream=stream)
        self._totals_key = keys.WRITER_TOTALS.format(stream=stream)

    def commit(self, group: Many[Part], *, stored: bool) -> list[str]:
        """Acknowledge the entries of *group*; their ids. *stored*: the insert was made now."""
        ids = [part.entry.id for part in group]
        mark = f"{ids[0]}..{ids[-1]}:{len(ids)}"
        rows = sum(part.table.num_rows for part in group) if stored else 0
        split = [part for part in group if part.refused]

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
                for part in split:
                    pipe.hincrby(self._totals_key, "refused", part.refused)
                    entry = part.entry
                    dead_letters.add(
                        pipe, self._stream, keys.WRITER_GROUP, entry.id, entry.fields, part.reason, entry.deliveries
                    )
            pipe.hdel(self._plan_key, *ids)
            pipe.xack(self._stream, keys.WRITER_GROUP, *ids)

        self._redis.transaction(transaction, self._totals_key, self._sequences_key)
        if split:
            first = split[0]
            text = "%d entries of %s go to the dead letters for rows that are not stored, first %s: %s"
            log.error(text, len(split), self._stream, first.entry.id, first.reason[:500])
        self._counters.refused_rows += sum(part.refused for part in split)
        self._counters.entries += len(ids)
        self._counters.rows += rows
        if stored:
            self._counters.measure(group)
        return ids


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
    return integer({"started": tail}, "started", low=0, high=LAST_MS)
