"""What Dagster runs: jobs over the assets, and the few that are no asset (night work, self-test, control of services).

All run in one process each: a step of its own process would cost seconds, and the work is ClickHouse's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage

from qmt_orchestration.market.periods import intraday, rollups
from qmt_orchestration.orchestration.assets.plugins import follows_minutes, source_keys
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource, ServicesResource
from qmt_orchestration.plugins import Plugins, Processor
from qmt_orchestration.quality.names import CHECKS, RECONCILIATION, checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.rpc import call
from qmt_orchestration.stream.trim import trim_all
from qmt_orchestration.warehouse.client import load_sql
from qmt_orchestration.warehouse.verify import watch

FINALIZE_MINUTES = "finalize_minutes"
MAKE_DAY = "make_day"
RECONCILE_DAY = "reconcile_day"
END_OF_DAY = "end_of_day"
BEFORE_OPEN = "before_open"
SOURCES = "sources"


def minute_assets(settings: Settings) -> tuple[str, ...]:
    """What a run of ``finalize_minutes`` makes: the minutes and the rollups that follow them during the session."""
    return ("bars_1m", *(f"bars_{period}" for period in intraday(settings.rollup_periods)))


def bar_assets(settings: Settings) -> tuple[str, ...]:
    """Every table of bars."""
    return ("bars_1m", *(f"bars_{period}" for period in rollups(settings.rollup_periods)))


def with_own_checks(*assets: str) -> dg.AssetSelection:
    """These assets with the checks they compute themselves (not the reconciliation, which is a step of its own)."""
    keys = [dg.AssetCheckKey(dg.AssetKey(a), c.name) for a in assets for c in checks_of(a)]
    return dg.AssetSelection.assets(*assets).without_checks() | dg.AssetSelection.checks(*keys)


def processed(processors: Sequence[Processor]) -> dg.AssetSelection:
    """The assets of *processors* with their checks."""
    return dg.AssetSelection.assets(*(p.name for p in processors))


def reconciliation() -> dg.AssetSelection:
    """The checks of our bars against QMT's."""
    keys = [dg.AssetCheckKey(dg.AssetKey(c.asset), c.name) for c in CHECKS if c.name in RECONCILIATION]
    return dg.AssetSelection.checks(*keys)


class ServiceAction(dg.Config):
    """What to do with which service."""

    service: str = "subscriber"
    action: Literal["start", "stop", "restart"] = "restart"


@dg.op(tags={"kind": "control"})
def control_service(context: dg.OpExecutionContext, config: ServiceAction, services: ServicesResource) -> None:
    """Ask for a service to be started, stopped or restarted; the agents on the hosts act on it within seconds."""
    services.ask(config.service, config.action)
    context.log.info(f"asked for {config.action} of {config.service}; desired now: {services.desired()}")


@dg.job(description="Start, stop or restart an always-on service (subscriber, gateway, writer, publisher, console).")
def services_control() -> None:
    control_service()


@dg.op
def connectivity(
    context: dg.OpExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource, services: ServicesResource
) -> None:
    """Redis, ClickHouse and the services answer, before the market opens; fails with all that do not."""
    problems: list[str] = []

    def attempt(what: str, action: Any) -> None:
        try:
            action()
            context.log.info(f"{what} answers")
        except Exception as error:  # every kind of failure is a finding; all of them end in one message
            problems.append(f"{what}: {error}")

    server = redis.connect()
    attempt("Redis", server.ping)
    attempt("ClickHouse", lambda: clickhouse.connect().query("SELECT 1"))
    attempt("the gateway", lambda: call(server, "full_tick", {"symbols": ["000001.SZ"]}, timeout_seconds=30))
    alive = {beat["service"] for beat in services.beats()} if not problems else set()
    for name in ("subscriber", "writer", "publisher"):
        if alive and name not in alive and services.desired().get(name) != "stopped":
            problems.append(f"no heartbeat of the {name}: start `qmt agent` on its host")
    if problems:
        raise dg.Failure("not ready for the open: " + "; ".join(problems))


@dg.job(description="Connectivity self-test before the open: Redis, ClickHouse, gateway, heartbeats.")
def self_test() -> None:
    connectivity()


@dg.op
def purge_minute_runs(context: dg.OpExecutionContext, clickhouse: ClickHouseResource) -> int:
    """Delete finished runs of ``finalize_minutes`` after some days: about 240 a day, and nothing else removes them."""
    keep = clickhouse.settings.minute_runs_keep_days
    done = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    old = dg.RunsFilter(
        job_name=FINALIZE_MINUTES,
        statuses=done,
        created_before=datetime.now(timezone.utc) - timedelta(days=keep),
    )
    deleted = 0
    while runs := context.instance.get_runs(old, limit=200):
        for run in runs:
            delete_with_files(context.instance, run.run_id)
        deleted += len(runs)
    context.log.info(f"deleted {deleted} runs of {FINALIZE_MINUTES} older than {keep} days (QMT_MINUTE_RUNS_KEEP_DAYS)")
    return deleted


def delete_with_files(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with all that it has on disk; Dagster's own deletion leaves its output and, on SQLite, its file."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    if isinstance(instance.event_log_storage, SqliteEventLogStorage):
        path = instance.event_log_storage.path_for_shard(run_id)
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)


@dg.op
def tidy_warehouse(context: dg.OpExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource) -> None:
    """Merge the closed days of the last week, so that reading them costs no merging; expired days go by TTL."""
    client, today = clickhouse.connect(), read_clock(redis.connect()).today()
    parts = client.query(load_sql("closed_partitions"), parameters={"today": today}).result_rows
    for table, partition in parts:
        client.command(
            "OPTIMIZE TABLE {table:Identifier} PARTITION ID {partition:String} FINAL",
            parameters={"table": table, "partition": partition},
        )
        context.log.info(f"merged partition {partition} of {table}")


@dg.op
def trim_streams(context: dg.OpExecutionContext, redis: RedisResource) -> None:
    """Trim what everyone has read; the writer does so all day, this is for when it does not run."""
    context.log.info(f"trimmed: {trim_all(redis.connect(), redis.settings)}")


@dg.op
def verify_closed_days(context: dg.OpExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource) -> None:
    """Compare closed days that were written to since with what was recorded of them; fails with all that changed."""

    changed = watch(clickhouse.connect(), clickhouse.settings, read_clock(redis.connect()).today())
    if changed:
        days = sorted({found.day for found in changed})
        raise dg.Failure(
            "closed days do not hold what they held: "
            + "; ".join(str(found) for found in changed[:20])
            + f": make them again with `qmt backfill --from {days[0]} --to {days[-1]}`"
        )
    context.log.info("closed days hold what was recorded of them")


@dg.job(description="Night work: old minute runs deleted, closed days verified and merged, streams trimmed.")
def night() -> None:
    purge_minute_runs()
    verify_closed_days()
    tidy_warehouse()
    trim_streams()


def build_jobs(settings: Settings, plugins: Plugins) -> list[Any]:
    """Every job, by name; `SOURCES` only where there are sources. Processors are made with their bars."""
    minutes, every = minute_assets(settings), bar_assets(settings)
    of_minutes = processed([p for p in plugins.processors if follows_minutes(p)])
    of_all = processed(plugins.processors)
    sources = [
        dg.define_asset_job(
            SOURCES,
            dg.AssetSelection.assets(*source_keys(plugins)),
            description="Bars and ticks of other sources (plug-ins), compared with ours.",
        )
    ]
    return [
        *(sources if plugins.sources else []),
        dg.define_asset_job(
            FINALIZE_MINUTES,
            with_own_checks(*minutes) | of_minutes,
            description="The minutes that have just closed: 1m, the 5m and 30m windows closed with them, checks.",
            # its sensor alone asks again: a retry by Dagster would be a second run beside the sensor's
            tags={"dagster/priority": "10", "dagster/max_retries": "0"},
        ),
        dg.define_asset_job(
            MAKE_DAY,
            with_own_checks("ticks", *every) | of_all,
            description="A whole day from scratch, from its ticks or, without any, from QMT's bars; with checks.",
        ),
        dg.define_asset_job(
            END_OF_DAY,
            with_own_checks("ticks", *every) | of_all | dg.AssetSelection.assets("quality_report"),
            description="After the close: the account of the ticks, the day's bars, and the quality report.",
        ),
        dg.define_asset_job(
            RECONCILE_DAY,
            with_own_checks("qmt_bars_1m", *every)
            | of_all
            | dg.AssetSelection.assets("quality_report")
            | reconciliation(),
            description="QMT's own bars of the day: gaps of ours filled from them (marked), differences reported.",
        ),
        dg.define_asset_job(
            BEFORE_OPEN,
            with_own_checks("instruments", "sector_members", "adjust_factors"),
            description="Before the open: the day's instruments with price limits, sector members, dividend factors.",
        ),
        services_control,
        self_test,
        night,
    ]
