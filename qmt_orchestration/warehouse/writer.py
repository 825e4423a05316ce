"""The writer: tick batches and rejected ticks, from Redis Streams into ClickHouse, each exactly once.

One thread (`WriterLane`) per shard of the tick stream and one for `keys.REJECTED`; this module starts them, beats,
trims the streams and adds up the numbers. Memory does not depend on how far behind it is: a lane reads about 32 MiB
at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import numpy as np
import redis

from qmt_orchestration.market.schema import REJECTED_SCHEMA, TICK_SCHEMA
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, fields, keys, threads
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.groups import group_lag
from qmt_orchestration.stream.heartbeat import DELAY_BUCKETS_MS, Heartbeat
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.stream.trim import trim_all
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.client import load_sql
from qmt_orchestration.warehouse.ingest.commit import forget_old_sessions
from qmt_orchestration.warehouse.lane import WriterLane

log = logging.getLogger("writer")

_TRIM_SECONDS = 10.0
_ANSWER_SECONDS = 60  # a server that no longer answers must not hold an insert for ten minutes
_WINDOW_BEATS = 10  # delay percentiles cover the last 10 beats (about 10 s)


def run(settings: Settings, stop: threading.Event) -> int:
    """Write until *stop*. Survives the absence of Redis and of ClickHouse; returns 1 after a defect in a lane."""
    client: Any = connect(settings)
    lanes = make_lanes(settings, stop)
    for lane in lanes:
        lane.start()
    heartbeat = Heartbeat(client, settings, "writer")
    report = Heartbeats(lanes)
    next_trim = time.monotonic() + _TRIM_SECONDS

    def step() -> None:
        nonlocal next_trim
        try:
            heartbeat.beat(report.numbers(client))
            if time.monotonic() >= next_trim:
                next_trim = time.monotonic() + _TRIM_SECONDS
                removed = sum(trim_all(client, settings).values())
                for lane in lanes:
                    forget_old_sessions(client, lane.stream)
                log.debug("trimmed %d entries", removed)
        except redis.RedisError as error:
            log.warning("Redis is away (%s), trying again", error)

    threads.repeat(step, stop, 1.0)
    for lane in lanes:
        lane.join(timeout=9)
    heartbeat.stop()
    client.close()
    return 1 if any(lane.failure for lane in lanes) else 0


def make_lanes(settings: Settings, stop: threading.Event) -> list[WriterLane]:
    """A lane per stream, not started."""
    common: dict[str, Any] = {
        "connect_redis": lambda: connect(settings),
        "connect_clickhouse": lambda: connect_clickhouse(settings, send_receive_timeout=_ANSWER_SECONDS),
        "stored_sql": load_sql("entries_stored"),
    }
    ticks = [
        WriterLane(settings, stop, stream=keys.ticks(shard), table="ticks", schema=TICK_SCHEMA, shard=shard, **common)
        for shard in range(settings.stream_shards)
    ]
    rejected = WriterLane(
        settings, stop, stream=keys.REJECTED, table="ticks_rejected", schema=REJECTED_SCHEMA, shard=None, **common
    )
    return [*ticks, rejected]


class Heartbeats:
    """The numbers of a heartbeat: this process's own, and the totals kept in Redis."""

    def __init__(self, lanes: list[WriterLane]) -> None:
        self._lanes = lanes
        self._windows: list[np.ndarray[Any, Any]] = []
        self._last_rows, self._last_time = 0, time.monotonic()

    def numbers(self, client: Any) -> dict[str, int | float | str]:
        """Ticks stored and per second, entries, lag, delay percentiles, lost, duplicates, dead letters, last error.

        ``delay_*_ms`` is callback -> stored over about the last 10 s; -1 while nothing was stored. ``lost`` and
        ``duplicates`` count batches, exactly, over all feed sessions.
        """
        out: dict[str, int | float | str] = dict(self._totals(client))
        ticks = [lane for lane in self._lanes if lane.stream != keys.REJECTED]
        rows, now = sum(lane.counters.rows for lane in ticks), time.monotonic()
        out["ticks_per_second"] = round((rows - self._last_rows) / max(now - self._last_time, 1e-3), 1)
        self._last_rows, self._last_time = rows, now
        p50, p99 = self._percentiles(ticks)
        lags = [group_lag(client, lane.stream, keys.WRITER_GROUP) for lane in self._lanes]
        out |= {
            "stored": rows,
            "entries": sum(lane.counters.entries for lane in self._lanes),
            "inserts": sum(lane.counters.inserts for lane in self._lanes),
            "insert_seconds": round(sum(lane.counters.insert_seconds for lane in self._lanes), 3),
            **delay_histogram(ticks),
            "already_stored": sum(lane.counters.skipped for lane in self._lanes),
            "refused_rows": sum(lane.counters.refused_rows for lane in self._lanes),
            "retries": sum(lane.counters.retries for lane in self._lanes),
            "delay_p50_ms": p50,
            "delay_p99_ms": p99,
            "lag_entries": sum(lag.entries for lag in lags),
            "lag_seconds": max((lag.seconds for lag in lags), default=0.0),
            "pending": sum(lag.pending for lag in lags),
            "trimmed_unread": sum(lane.reader.lost for lane in self._lanes),
            "groups_recreated": sum(lane.reader.recreated for lane in self._lanes),
            "dead_letters": sum(int(client.xlen(dead_letters.key_of(lane.stream))) for lane in self._lanes),
            "last_tick_ms": max((lane.counters.last_tick_ms for lane in ticks), default=0),
            "error": next((lane.counters.error for lane in self._lanes if lane.counters.error), ""),
        }
        return out

    def _totals(self, client: Any) -> dict[str, int]:
        lost = repeats = total = 0
        for lane in self._lanes:
            totals = client.hgetall(keys.WRITER_TOTALS.format(stream=lane.stream))
            lost += fields.integer(totals, "old_lost", low=0)
            repeats += fields.integer(totals, "old_repeats", low=0)
            total += fields.integer(totals, "rows", low=0) if lane.stream != keys.REJECTED else 0
            for text in client.hvals(keys.WRITER_SEQUENCES.format(stream=lane.stream)):
                sequence = Sequence.load(text)
                lost += sequence.lost
                repeats += sequence.repeats
        return {"lost": lost, "duplicates": repeats, "stored_total": total}

    def _percentiles(self, lanes: list[WriterLane]) -> tuple[int, int]:
        self._windows.append(sum((lane.counters.delays for lane in lanes), np.zeros(60_001, dtype=np.int64)).copy())
        del self._windows[: -_WINDOW_BEATS - 1]
        window = self._windows[-1] - self._windows[0]
        cumulative = np.cumsum(window)
        if not cumulative[-1]:
            return -1, -1
        p50, p99 = (int(np.searchsorted(cumulative, cumulative[-1] * share)) for share in (0.5, 0.99))
        return p50, p99


def delay_histogram(lanes: list[WriterLane]) -> dict[str, int | float]:
    """Rows by delay callback -> stored since the start, as services/metrics.py reads them: `delay_le_<ms>`."""
    counts = sum((lane.counters.delays for lane in lanes), np.zeros(60_001, dtype=np.int64))
    cumulative = np.cumsum(counts)
    out: dict[str, int | float] = {f"delay_le_{bound}": int(cumulative[bound]) for bound in DELAY_BUCKETS_MS}
    out["delay_count"] = int(cumulative[-1])
    out["delay_sum_seconds"] = round(float(counts @ np.arange(len(counts))) / 1000, 3)
    return out
