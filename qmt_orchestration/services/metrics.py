"""`/metrics` in Prometheus' text format: on the console for the whole system, on each agent for its own host.

A scrape reads heartbeats, the market's clock and the lag of consumer groups from Redis, and two small queries from
ClickHouse (console only), at most once in five seconds however many scrape. No label names a symbol; labels that come
from outside (reasons, groups) are bounded in number. A source that does not answer is `qmt_scrape_error`, and what the
others know is still shown.

Two definitions: `qmt_feed_delay_seconds` is from xtquant's callback to the row being stored in ClickHouse, as the
writer measures it (60 s and more are one bucket, their sum counts them as 60 s). `qmt_insert_seconds` is the time of
one insert request, retries included.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import psutil
import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from qmt_orchestration.client.registry import list_clients
from qmt_orchestration.services.registry import SERVICES
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.groups import group_lag
from qmt_orchestration.stream.heartbeat import DELAY_BUCKETS_MS, read_all, reported
from qmt_orchestration.warehouse.client import load_sql

CACHE_SECONDS: Final = 5.0
LABELS_AT_MOST: Final = 64

log = logging.getLogger("metrics")

Beat = Mapping[str, str]


class SystemCollector(Collector):
    """Every metric of the system. *host*: only services of that host; *warehouse*: makes a ClickHouse client.

    Without a *client* of Redis it connects at the first scrape, and again after an error: the embedded server may come
    back on another port.
    """

    def __init__(
        self, settings: Settings, client: Any = None, *, host: str = "", warehouse: Callable[[], Any] | None = None
    ) -> None:
        self._settings, self._host, self._warehouse = settings, host, warehouse
        self._given = self._redis = client
        self._lock = threading.Lock()
        self._cached: list[Metric] = []
        self._until = 0.0

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked when the collector is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The metrics, at most `CACHE_SECONDS` old."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._cached = list(self._read())
                self._until = time.monotonic() + CACHE_SECONDS
            return self._cached

    def _read(self) -> Iterator[Metric]:
        failed = GaugeMetricFamily(
            "qmt_scrape_error", "1: this source did not answer the last scrape", labels=["source"]
        )
        sources = {"redis": self._from_redis} | ({"clickhouse": self._from_warehouse} if self._warehouse else {})
        for source, read in sources.items():
            try:
                found = list(read())
            except (redis.RedisError, OSError, _clickhouse_error()) as error:
                log.warning("no metrics from %s: %s", source, str(error)[:300])
                found, self._redis = [], self._given
                failed.add_metric([source], 1)
            else:
                failed.add_metric([source], 0)
            yield from found
        yield failed

    # -- Redis -------------------------------------------------------------------------------------------------

    def _from_redis(self) -> Iterator[Metric]:
        if self._redis is None:
            self._redis = connect(self._settings, retries=0)
        beats = [beat for beat in read_all(self._redis) if self._host in ("", beat["host"])]
        yield from feed_metrics([beat for beat in beats if beat["service"] == "subscriber"])
        yield from writer_metrics([beat for beat in beats if beat["service"] == "writer"])
        yield from service_metrics(beats, self._expected(beats))
        now = read_clock(self._redis).now_ms() / 1000
        yield GaugeMetricFamily("qmt_market_time_timestamp_seconds", "The market's clock, epoch seconds", value=now)
        if not self._host:
            yield self._lags()

    def _expected(self, beats: Sequence[Beat]) -> set[str]:
        """Services that should be seen: all of the system, or those of this host's agent."""
        if not self._host:
            return set(SERVICES)
        return {name for beat in beats for name in reported(beat)}

    def _lags(self) -> Metric:
        lag = GaugeMetricFamily(
            "qmt_consumer_lag_entries", "Entries on the stream that a consumer group has not read", labels=["group"]
        )
        streams = [keys.ticks(shard) for shard in range(self._settings.stream_shards)]
        writer = sum(group_lag(self._redis, stream, keys.WRITER_GROUP).entries for stream in streams)
        lag.add_metric([keys.WRITER_GROUP], writer)
        groups: dict[str, int] = {}
        for info in list_clients(self._redis):
            name = info.group or info.client_id
            groups[name] = max(groups.get(name, 0), info.lag_entries)
        for name in sorted(groups, key=lambda name: -groups[name])[:LABELS_AT_MOST]:
            lag.add_metric([name], groups[name])
        return lag

    # -- ClickHouse --------------------------------------------------------------------------------------------

    def _from_warehouse(self) -> Iterator[Metric]:
        assert self._warehouse is not None
        client = self._warehouse()
        limits = {"max_execution_time": 5}
        final = GaugeMetricFamily(
            "qmt_bars_final_timestamp_seconds", "End of the newest final bar, epoch seconds", labels=["period"]
        )
        parameters = {"db": self._settings.clickhouse_database}
        known = {"1m", *self._settings.rollup_periods}
        for period, frame in client.query(
            load_sql("metrics/final_bars"), parameters=parameters, settings=limits
        ).result_rows:
            if period in known:
                final.add_metric([period], frame)
        yield final
        passed = GaugeMetricFamily(
            "qmt_check_passed", "1: the last verdict of this check was passed", labels=["asset", "check"]
        )
        for asset, check, verdict in client.query(load_sql("metrics/checks"), settings=limits).result_rows:
            passed.add_metric([asset, check], verdict)
        yield passed


# -- from heartbeats to metrics --------------------------------------------------------------------------------------


def feed_metrics(beats: Sequence[Beat]) -> Iterator[Metric]:
    """What the subscribers counted since they started."""
    received = CounterMetricFamily("qmt_ticks_received", "Ticks that xtquant handed to the subscriber", labels=["host"])
    rejected = CounterMetricFamily("qmt_ticks_rejected", "Ticks rejected at ingestion", labels=["reason", "host"])
    for beat in beats:
        if (count := number(beat, "received")) is not None:
            received.add_metric([beat["host"]], count)
        reasons = sorted(name for name in beat if name.startswith("rejected_"))[:LABELS_AT_MOST]
        for name in reasons:
            if (count := number(beat, name)) is not None:
                rejected.add_metric([name.removeprefix("rejected_"), beat["host"]], count)
    yield received
    yield rejected


def writer_metrics(beats: Sequence[Beat]) -> Iterator[Metric]:
    """Delays and inserts of the writers since they started."""
    delay = HistogramMetricFamily(
        "qmt_feed_delay_seconds", "From xtquant's callback to the row being stored in ClickHouse", labels=["host"]
    )
    inserts = SummaryMetricFamily("qmt_insert_seconds", "One insert into ClickHouse, retries included", labels=["host"])
    for beat in beats:
        counts = [number(beat, f"delay_le_{bound}") for bound in DELAY_BUCKETS_MS]
        total, seconds = number(beat, "delay_count"), number(beat, "delay_sum_seconds")
        if total is not None and seconds is not None and None not in counts:
            buckets = [(str(bound / 1000), count or 0.0) for bound, count in zip(DELAY_BUCKETS_MS, counts, strict=True)]
            delay.add_metric([beat["host"]], buckets=[*buckets, ("+Inf", total)], sum_value=seconds)
        count, spent = number(beat, "inserts"), number(beat, "insert_seconds")
        if count is not None and spent is not None:
            inserts.add_metric([beat["host"]], count_value=int(count), sum_value=spent)
    yield delay
    yield inserts


def service_metrics(beats: Sequence[Beat], expected: set[str]) -> Iterator[Metric]:
    """Which services run, and their memory."""
    up = GaugeMetricFamily("qmt_service_up", "1: the service runs on some host", labels=["service"])
    memory = GaugeMetricFamily(
        "qmt_process_resident_memory_bytes", "Resident memory of a service's process", labels=["service", "host"]
    )
    running = {beat["service"] for beat in beats if beat.get("state") in ("running", "standby")}
    for name in sorted(expected | running)[:LABELS_AT_MOST]:
        up.add_metric([name], float(name in running))
    for beat in beats:
        if (used := number(beat, "memory_mb")) is not None:
            memory.add_metric([beat["service"], beat["host"]], used * 1e6)
    yield up
    yield memory


def number(beat: Beat, name: str) -> float | None:
    """A statistic of a heartbeat; None when it is missing, no number, or below 0."""
    try:
        value = float(beat[name])
    except (KeyError, ValueError):
        return None
    return value if 0 <= value < float("inf") else None


# -- serving ---------------------------------------------------------------------------------------------------------


def make_registry(
    settings: Settings, client: Any = None, *, host: str = "", warehouse: Callable[[], Any] | None = None
) -> CollectorRegistry:
    """A registry with everything; `prometheus_client.generate_latest` renders it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SystemCollector(settings, client, host=host, warehouse=warehouse))
    return registry


class AgentProcess(Collector):
    """The agent's own process, whose heartbeat goes through Redis: here it is shown also when Redis is away."""

    def collect(self) -> Iterable[Metric]:
        """Memory and start time."""
        process = psutil.Process(os.getpid())
        yield GaugeMetricFamily(
            "qmt_agent_start_timestamp_seconds", "Start of this agent, epoch seconds", value=process.create_time()
        )


def start_metrics_server(settings: Settings, client: Any = None) -> Callable[[], None]:
    """Serve this host's metrics on `QMT_METRICS_BIND`:`QMT_METRICS_PORT` in a thread; returns what ends it.

    A port in use is a warning, not an end: the agent's work is more important than its metrics. Port 0 switches it off.
    """
    if not settings.metrics_port:
        return lambda: None
    registry = make_registry(settings, client, host=settings.host)
    registry.register(AgentProcess())
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_bind, registry)
    except OSError as error:
        log.warning(
            "no metrics: %s:%d cannot be used (%s); set QMT_METRICS_PORT to another one, or to 0",
            settings.metrics_bind,
            settings.metrics_port,
            error.strerror,
        )
        return lambda: None
    log.info("metrics: http://%s:%d/metrics", settings.metrics_bind, settings.metrics_port)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(3)

    return stop


def _clickhouse_error() -> type[Exception]:
    """The client's error, where the client is installed: the feed host has none."""
    try:
        from clickhouse_connect.driver.exceptions import ClickHouseError
    except ModuleNotFoundError:
        return OSError
    known: type[Exception] = ClickHouseError
    return known
