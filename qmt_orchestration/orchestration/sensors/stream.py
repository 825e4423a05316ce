"""What flows: statistics of the stream as observations of ``tick_stream`` (plotted over time), and its checks,
without a run.

An observation costs milliseconds. The set of keys is always the same, so that the plots have no holes; a service that
is silent counts 0. A check is reported when its verdict changes and otherwise every ten minutes, so that the event
log stays small.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.checks import evaluate
from qmt_orchestration.orchestration.checks.evaluate import Outcome
from qmt_orchestration.orchestration.checks.live import ASSET, live_outcomes, newest_tick_ms
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource, ServicesResource
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.fields import number

REPEAT_SECONDS = 600


def build_stream_sensor(days: dg.DailyPartitionsDefinition, interval_seconds: int) -> dg.SensorDefinition:
    """The sensor ``stream``."""

    @dg.sensor(
        name="stream",
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Observes the tick stream: rate, delay, success, buffer, lag, memory; and checks that it flows.",
    )
    def stream(
        context: dg.SensorEvaluationContext,
        clickhouse: ClickHouseResource,
        redis: RedisResource,
        services: ServicesResource,
    ) -> dg.SensorResult:
        settings, server = redis.settings, redis.connect()
        beats, desired = services.beats(), services.desired()
        trading_day = days.has_partition_key(read_clock(server).today().isoformat())
        outcomes = live_outcomes(settings, server, beats, desired, trading_day=trading_day)
        due, cursor = _due(outcomes, context.cursor)
        evaluate.record(clickhouse.connect(), due, run_id=f"sensor-{int(time.time() * 1000)}")
        observation = dg.AssetObservation(asset_key=ASSET, metadata=statistics(settings, server, beats))
        return dg.SensorResult(asset_events=[observation, *(_evaluation(o) for o in due)], cursor=cursor)

    return stream


def statistics(settings: Settings, server: Any, beats: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The numbers of one observation; the keys never change."""
    of = {name: [b for b in beats if b["service"] == name] for name in ("subscriber", "writer", "publisher", "gateway")}

    def total(service: str, name: str) -> float:
        return round(sum(number(b, name) for b in of[service]), 3)

    def highest(service: str, name: str) -> float:
        return round(max((number(b, name) for b in of[service]), default=0.0), 3)

    clock = read_clock(server)
    newest = newest_tick_ms(server, settings.stream_shards)
    numbers = {
        "rate_ticks_per_second": total("subscriber", "rate"),
        "success_percent": highest("subscriber", "success_percent"),
        "symbols": highest("subscriber", "symbols"),
        "published": total("subscriber", "published"),
        "rejected": total("subscriber", "rejected"),
        "buffer_rows": total("subscriber", "buffer"),
        "spool_batches": total("subscriber", "spool_entries"),
        "delay_market_p99_ms": highest("subscriber", "market_delay_p99_ms"),
        "delay_published_p99_ms": highest("subscriber", "delay_p99_ms"),
        "delay_stored_p99_ms": highest("writer", "delay_p99_ms"),
        "stored": total("writer", "stored"),
        "lag_entries_writer": total("writer", "lag_entries"),
        "lag_seconds_writer": highest("writer", "lag_seconds"),
        "lag_entries_bar_clients": float(_bar_clients_lag(server)),
        "lost_batches": total("writer", "lost"),
        "dead_letters": float(sum(dead_letters.streams(server).values())),
        "stream_entries": float(sum(server.xlen(keys.ticks(s)) for s in range(settings.stream_shards))),
        "redis_memory_mb": round(server.info("memory")["used_memory"] / 1e6, 1),
        "seconds_since_newest_tick": round(max(clock.now_ms() - newest, 0) / 1000, 1) if newest else 0.0,
        **{f"memory_mb_{name}": _memory(beats, name) for name in of},
    }
    return {"market_time": clock.now().strftime("%Y-%m-%d %H:%M:%S"), **numbers}


def _memory(beats: Sequence[Mapping[str, str]], service: str) -> float:
    """Memory of a service in MB, as its agent measures it, else from its own heartbeat."""
    of_agents = [number(b, f"{service}.memory_mb") for b in beats if b["service"] == "agent"]
    of_itself = [number(b, "memory_mb") for b in beats if b["service"] == service]
    return max([*of_agents, *of_itself], default=0.0)


def _bar_clients_lag(server: Any) -> int:
    """Entries, bars or minutes, that the slowest group of clients has to read (before Redis 7: pending ones)."""
    groups = [g for stream in (keys.BARS, keys.MINUTES) if server.exists(stream) for g in server.xinfo_groups(stream)]
    return max((int(g.get("lag") or g.get("pending") or 0) for g in groups), default=0)


def _due(outcomes: Sequence[Outcome], cursor: str | None) -> tuple[list[Outcome], str]:
    """Which verdicts to report now: those that changed, and all when the last report is old."""
    known: dict[str, Any] = json.loads(cursor) if cursor else {"at": 0.0, "verdicts": {}}
    now = {o.check.name: f"{o.passed}/{o.severity.value if not o.passed else ''}" for o in outcomes}
    all_due = time.time() - known["at"] >= REPEAT_SECONDS
    due = [o for o in outcomes if all_due or known["verdicts"].get(o.check.name) != now[o.check.name]]
    return due, json.dumps({"at": time.time() if all_due else known["at"], "verdicts": now})


def _evaluation(outcome: Outcome) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(outcome.check.asset),
        check_name=outcome.check.name,
        passed=outcome.passed,
        severity=outcome.severity,
        description=f"expected {outcome.expected}, found {outcome.found}",
        metadata=evaluate.metadata(outcome, [outcome], []),
    )
