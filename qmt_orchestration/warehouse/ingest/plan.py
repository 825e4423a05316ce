"""Which entries form an insert, noted before it is made, so that a retry by any process forms the same one."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.warehouse.ingest.entries import Part

#: Rows of one insert at most (one entry is never split over inserts). Few large inserts when behind: 250,000 rows at
#: once cost ClickHouse under half the processor time a row of 60,000 (parts to write and to merge).
GROUP_ROWS: Final = 250_000
_PLAN_CHARACTERS: Final = 1 << 22  # of a note: ids of entries
_TICK_KEY: Final = ["symbol", "time", "volume", "pvolume", "amount"]

Query = Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]


class Plan:
    """Groups the entries of one stream. *query* reads from ClickHouse and waits while it is away."""

    def __init__(
        self, redis: Any, settings: Settings, stream: str, shard: int | None, stored_sql: str, query: Query
    ) -> None:
        self._redis, self._settings, self._stream, self._shard = redis, settings, stream, shard
        self._stored_sql, self._query = stored_sql, query
        self._key = keys.WRITER_PLAN.format(stream=stream)
        self._sequences_key = keys.WRITER_SEQUENCES.format(stream=stream)

    # -- what is stored already -----------------------------------------------------------------------------

    def already_stored(self, parts: list[Part]) -> tuple[list[Part], list[Part]]:
        """(stored, not stored): redelivered entries and numbers that came before are looked up, the rest is new."""
        if self._shard is None or not parts:
            return [], parts
        seen: dict[str, Sequence] = {}
        for session in {part.session for part in parts}:
            seen[session] = Sequence.load(self._redis.hget(self._sequences_key, session))
        doubtful: dict[str, list[Part]] = {}
        stored: set[str] = set()
        met: set[tuple[str, int]] = set()
        for part in parts:
            assert part.seq is not None
            if (part.session, part.seq) in met or not part.table.num_rows:
                stored.add(part.entry.id)
            elif part.entry.recovered or part.seq in seen[part.session]:
                doubtful.setdefault(part.session, []).append(part)
            met.add((part.session, part.seq))
        for session, some in doubtful.items():
            stored |= self._look_up(session, some)
        return [p for p in parts if p.entry.id in stored], [p for p in parts if p.entry.id not in stored]

    def _look_up(self, session: str, parts: list[Part]) -> set[str]:
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
        stored = {int(seq): int(n) for seq, n in self._query(self._stored_sql, parameters)}
        return {part.entry.id for part in parts if stored.get(part.seq or 0, 0) >= _distinct(part.table)}

    # -- what goes together ---------------------------------------------------------------------------------

    def groups(self, parts: list[Part]) -> list[list[Part]]:
        """The inserts: those planned before a crash as they were planned, the rest formed now."""
        groups: list[list[Part]] = []
        by_id = {part.entry.id: part for part in parts}
        if any(part.entry.recovered for part in parts):
            for plan in self._redis.hgetall(self._key).values():
                ids = fields.decoded(plan, _PLAN_CHARACTERS).split(",")
                if all(id_ in by_id for id_ in ids):
                    groups.append([by_id.pop(id_) for id_ in ids])
        recovered = [[part] for part in by_id.values() if part.entry.recovered]
        fresh: list[list[Part]] = []
        rows = 0
        for part in (p for p in by_id.values() if not p.entry.recovered):
            if not fresh or rows + part.table.num_rows > GROUP_ROWS:
                fresh.append([])
                rows = 0
            fresh[-1].append(part)
            rows += part.table.num_rows
        return groups + recovered + fresh

    def note(self, group: Many[Part]) -> None:
        """Write down which entries form the next insert; one entry alone needs no note."""
        if len(group) > 1:
            self._redis.hset(self._key, group[0].entry.id, ",".join(part.entry.id for part in group))

    def forget(self, group: Many[Part]) -> None:
        """The group will not be inserted as it was noted."""
        self._redis.hdel(self._key, group[0].entry.id)

    def token(self, group: Many[Part]) -> str:
        """The insert's de-duplication token: the same for the same rows, another when other rows were refused."""
        first, last = group[0].entry.id, group[-1].entry.id
        name = f"{self._stream}:{first}" if len(group) == 1 else f"{self._stream}:{first}..{last}:{len(group)}"
        refused = sum(part.refused for part in group)
        return f"{name}-{refused}" if refused else name


def _distinct(table: pa.Table) -> int:
    """Distinct ticks of a batch: rows of equal key are one tick in the table."""
    return int(table.select(_TICK_KEY).group_by(_TICK_KEY).aggregate([]).num_rows)
