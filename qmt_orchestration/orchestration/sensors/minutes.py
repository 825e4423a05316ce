"""The minute sensor: asks for one run that finalizes what has closed.

What is to do follows from ClickHouse's own state (`warehouse.bars.pending`), not from the sensor's memory: a lost or
failed run leaves its frames pending, so the next request covers them. There is never more than one such run in
flight, and one whose process was killed is ended; behind the market, one run takes all minutes that have closed
meanwhile. After a failed run the next request waits, longer each time.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.abandoned_runs import SILENT_SECONDS, is_silent
from qmt_orchestration.orchestration.jobs import FINALIZE_MINUTES, minute_assets
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource
from qmt_orchestration.settings import Settings

IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
LONGEST_PAUSE_SECONDS = 300


@dataclass(frozen=True)
class Cursor:
    """What the sensor remembers: a number per request (run keys are for ever), the newest ended run, failures in a
    row."""

    generation: int = 0
    run_id: str = ""
    failures: int = 0
    failed_at: float = 0.0  # epoch s

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """From the stored cursor, or new."""
        return cls(**json.loads(text)) if text else cls()

    def text(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    def pause_left(self, now: float) -> float:
        """Seconds to wait before the next request, after failures."""
        if not self.failures:
            return 0.0
        return max(self.failed_at + min(5.0 * 2.0**self.failures, LONGEST_PAUSE_SECONDS) - now, 0.0)


def build_minutes_sensor(days: dg.DailyPartitionsDefinition, settings: Settings) -> dg.SensorDefinition:
    """The sensor ``minutes``. *settings*: the periods that follow the minutes."""
    assets = minute_assets(settings)

    @dg.sensor(
        name="minutes",
        job_name=FINALIZE_MINUTES,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for one run that finalizes the minutes that have closed: 1m, 5m, 30m and their checks.",
    )
    def minutes(context: dg.SensorEvaluationContext, clickhouse: ClickHouseResource, redis: RedisResource) -> Any:
        from qmt_orchestration.stream.clock import read_clock
        from qmt_orchestration.warehouse.bars import pending

        cursor = _learn(context.instance, Cursor.read(context.cursor))
        running = context.instance.get_runs(dg.RunsFilter(job_name=FINALIZE_MINUTES, statuses=list(IN_FLIGHT)), limit=1)
        if (
            running
            and running[0].status != dg.DagsterRunStatus.QUEUED
            and is_silent(context.instance, running[0].run_id)
        ):
            context.instance.report_run_failed(running[0], f"no event for {SILENT_SECONDS:g} s: its process is gone")
            return dg.SensorResult(skip_reason=f"run {running[0].run_id} was abandoned", cursor=cursor.text())
        if running:
            return dg.SensorResult(skip_reason=f"run {running[0].run_id} is in flight", cursor=cursor.text())
        if (left := cursor.pause_left(time.time())) > 0:
            reason = f"{cursor.failures} runs failed in a row, the last was {cursor.run_id}: waiting {left:.0f} s more"
            return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
        clock = read_clock(redis.connect())
        found = pending(clickhouse.connect(), clickhouse.settings, clock.now_ms(), speed=clock.speed)
        chosen = [p for p in found if days.has_partition_key(p.day.isoformat())]
        if not chosen:
            return dg.SensorResult(skip_reason=_nothing(found, clickhouse.settings.first_date), cursor=cursor.text())
        generation = cursor.generation + 1
        advanced = Cursor(generation, cursor.run_id, cursor.failures, cursor.failed_at)
        turn = chosen[cursor.failures % len(chosen)]  # a day that fails again and again must not hold up the others
        return dg.SensorResult(run_requests=[request(turn, generation, assets)], cursor=advanced.text())

    return minutes


def _nothing(found: Sequence[Any], first_date: str) -> str:
    if found:
        day = found[0].day
        return f"{day} is pending but no partition: no trading day, or before QMT_FIRST_DATE ({first_date})"
    return "no minute has closed"


def _learn(instance: dg.DagsterInstance, cursor: Cursor) -> "Cursor":
    """Count failures in a row: look at the newest ended run, once."""
    ended = instance.get_run_records(dg.RunsFilter(job_name=FINALIZE_MINUTES, statuses=list(ENDED)), limit=1)
    if not ended or ended[0].dagster_run.run_id == cursor.run_id:
        return cursor
    run = ended[0].dagster_run
    if run.status != dg.DagsterRunStatus.FAILURE:  # success, or ended by a person or with Dagster itself
        return Cursor(cursor.generation, run.run_id)
    return Cursor(cursor.generation, run.run_id, cursor.failures + 1, ended[0].end_time or time.time())


def request(pending: Any, generation: int, assets: Sequence[str]) -> dg.RunRequest:
    """The run of *assets* for one `warehouse.bars.Pending`. *generation* makes its key a new one."""
    first, last = f"{pending.first_frame:%H:%M}", f"{pending.last_frame:%H:%M}"
    frames = {"config": {"first_frame": first, "last_frame": last}}
    day = pending.day.isoformat()
    return dg.RunRequest(
        run_key=f"{day}/{first}-{last}/{generation}",
        partition_key=day,
        run_config={"ops": dict.fromkeys(assets, frames)},
        tags={"qmt/frames": f"{first}-{last}", "qmt/minutes": str(pending.frames)},
    )
