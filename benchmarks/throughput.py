"""How much the two ends of the tick stream take: callback → Arrow → Redis, then Redis → ClickHouse.

The subscriber is the real one (`feed.subscriber.Subscriber`: queue, edge checks, Arrow, own ids, lease) behind a
terminal that only calls back, with pushes made beforehand, so the processor time is the subscriber's alone. What it
published is then drained by the real writer service in a process of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil

from benchmarks.common import WHOLE_MARKET, cpu_seconds, engine_process, fresh, pushes, wait_until
from benchmarks.report import Figure
from qmt_orchestration.feed.outbox import Outbox
from qmt_orchestration.feed.spool import Spool
from qmt_orchestration.feed.subscriber import LEASE, LEASE_TTL_MS, Subscriber
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.feed.xt import Terminal
from qmt_orchestration.services.replay import spawn_service
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.lease import Lease, process_owner
from qmt_orchestration.stream.producer import Producer

CHUNK_TICKS = 60_000  # made at once: pushes hold about 1 KB a tick


class CallingBack:
    """As much of xtdata as the subscriber needs, without a market behind it."""

    def __init__(self) -> None:
        self.callback: Callable[[Any], None] | None = None
        self.market_ms = 0

    def get_client(self) -> Any:
        """A connection that stands."""
        return SimpleNamespace(is_connected=lambda: True)

    def subscribe_whole_quote(self, codes: list[str], callback: Callable[[Any], None]) -> int:
        """Subscription 1."""
        self.callback = callback
        return 1

    def unsubscribe_quote(self, number: int) -> None:
        """Nothing to end."""

    def terminal(self) -> Terminal:
        """A `Terminal` over it, whose clock is that of the last push."""
        return Terminal(
            self,
            clock=lambda: (self.market_ms, 1.0) if self.market_ms else None,
            now_ms=lambda: self.market_ms,
            finished=lambda: False,
            failed=lambda: False,
        )


def run(quick: bool) -> list[Figure]:
    """Ticks a second of subscriber and writer; the whole market's ticks from 10:00 on."""
    ticks = 120_000 if quick else 1_200_000
    with fresh() as settings:
        return [*_subscriber(settings, ticks), *_writer(settings)]


def _subscriber(settings: Settings, ticks: int) -> list[Figure]:
    client = connect(settings, retries=0)
    lease = Lease(client, LEASE, process_owner(settings.host), LEASE_TTL_MS)
    spool = Spool(settings.data_dir / "feed" / "spool", settings.spool_max_mb)
    outbox = Outbox(Producer(client, lease=(LEASE, lease.owner)), spool, lease, settings.host)
    outbox.keep_lease()
    xtdata = CallingBack()
    members = Universe(list(universe(WHOLE_MARKET).shares), settings.stream_shards)
    subscriber = Subscriber(settings, client, outbox, xtdata.terminal(), members)
    stop = threading.Event()
    thread = threading.Thread(target=subscriber.run, args=(stop,))
    redis_process = engine_process(settings, "redis")
    sent = 0
    cpu = wall = 0.0
    chunk: list[tuple[int, Any]] = []
    try:
        thread.start()
        wait_until(lambda: xtdata.callback, 20, "the subscriber to subscribe")
        redis_before = cpu_seconds(redis_process)
        known = set(members.symbols)
        for moment, push in pushes(WHOLE_MARKET, 600, ticks + CHUNK_TICKS):
            chunk.append((moment, {symbol: tick for symbol, tick in push.items() if symbol in known}))
            if sum(len(p) for _, p in chunk) < CHUNK_TICKS:
                continue
            before = subscriber.stats.published
            wanted = before + sum(len(p) for _, p in chunk)
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for xtdata.market_ms, one in chunk:
                xtdata.callback(one)  # type: ignore[misc]
            _wait_published(subscriber, wanted)
            if sent or before:  # the first chunk fills caches: price limits of every symbol
                cpu += time.process_time() - cpu_start
                wall += time.perf_counter() - wall_start
                sent += wanted - before
            chunk.clear()
        redis_cpu = cpu_seconds(redis_process) - redis_before
    finally:
        stop.set()
        thread.join(20)
        spool.close()
    rate = sent / cpu
    size = int(client.memory_usage(keys.ticks(0)) or 0)
    client.close()
    return [
        Figure("subscriber, callback → Redis", rate, "ticks/s a core", "≥ 400,000", rate >= 400_000, "publish"),
        Figure("  the same by the wall clock", sent / wall, "ticks/s"),
        Figure("  processor time of Redis", redis_cpu / sent * 1e6, "s per million ticks"),
        Figure("  memory of the stream in Redis", size / (sent + CHUNK_TICKS), "bytes a tick"),
    ]


def _wait_published(subscriber: Subscriber, wanted: int) -> None:
    wait_until(lambda: subscriber.stats.published >= wanted, 120, f"{wanted} ticks published", 0.005)


def _writer(settings: Settings) -> list[Figure]:
    client: Any = connect(settings)
    totals = keys.WRITER_TOTALS.format(stream=keys.ticks(0))
    wanted = sum(int(fields[b"rows"]) for _, fields in client.xrange(keys.ticks(0)))

    def stored() -> int:
        return int(client.hget(totals, "rows") or 0)

    engine = engine_process(settings, "clickhouse")
    service = spawn_service(settings, "writer")
    try:
        wait_until(stored, 60, "the writer's first insert", 0.005)
        process = psutil.Process(service.pid)
        started, first = time.perf_counter(), stored()
        cpu, engine_cpu = cpu_seconds(process), cpu_seconds(engine)
        wait_until(lambda: stored() >= wanted, 300, f"{wanted} ticks stored", 0.005)
        seconds = time.perf_counter() - started
        cpu, engine_cpu = cpu_seconds(process) - cpu, cpu_seconds(engine) - engine_cpu
    finally:
        service.terminate()
        service.wait(20)
        client.close()
    count = wanted - first
    rate = count / seconds
    return [
        Figure("writer, Redis → ClickHouse", rate, "ticks/s", "≥ 350,000", rate >= 350_000, "store"),
        Figure("  processor time of the writer", cpu / count * 1e6, "s per million ticks"),
        Figure("  processor time of ClickHouse", engine_cpu / count * 1e6, "s per million ticks"),
    ]
