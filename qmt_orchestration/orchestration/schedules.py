"""What happens every trading day, by the wall clock of Shanghai. Holidays are skipped: a day is a partition or it is
not.

A simulated market has a clock of its own and passes a day in minutes; the sensor ``market_day`` follows it instead.
"""

from typing import Any

import dagster as dg

from qmt_orchestration.market.schema import TZ
from qmt_orchestration.orchestration import jobs
from qmt_orchestration.orchestration.resources import RedisResource
from qmt_orchestration.plugins import Plugins
from qmt_orchestration.stream.clock import read_clock


def build_schedules(days: dg.DailyPartitionsDefinition, plugins: Plugins) -> list[dg.ScheduleDefinition]:
    """Before the open, after the close, and at night; of the sources where there are any."""
    sources = [_daily(days, jobs.SOURCES, "20 16 * * 1-5", "Bars of other sources.")] if plugins.sources else []
    return [
        *sources,
        _daily(days, "self_test", "45 8 * * 1-5", "Connectivity self-test before the open.", partitioned=False),
        _daily(days, jobs.BEFORE_OPEN, "50 8 * * 1-5", "Instruments, price limits and dividend factors of the day."),
        _daily(days, jobs.END_OF_DAY, "35 15 * * 1-5", "The day's bars and its verdict, from the ticks."),
        _daily(days, jobs.RECONCILE_DAY, "50 15 * * 1-5", "Against QMT's own bars; gaps filled."),
        _daily(days, "night", "30 20 * * 1-5", "Old runs, merges, streams.", partitioned=False),
    ]


def _daily(
    days: dg.DailyPartitionsDefinition, job: str, cron: str, description: str, *, partitioned: bool = True
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone=TZ,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def daily(context: dg.ScheduleEvaluationContext, redis: RedisResource) -> Any:
        day = context.scheduled_execution_time.date().isoformat()
        if not days.has_partition_key(day):
            return dg.SkipReason(f"{day} is no trading day")
        if read_clock(redis.connect()).simulated:
            return dg.SkipReason("the market is simulated: the sensor market_day follows its clock")
        return dg.RunRequest(run_key=f"{job}/{day}", partition_key=day if partitioned else None)

    return daily
