"""The day of a simulated market: what schedules do by the wall clock, this does by the market's.

Does nothing on a live market. A day is finished when the market's clock has passed 15:30:30 or shows a later day.
"""

import json
from collections.abc import Sequence
from datetime import time
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.jobs import BEFORE_OPEN, END_OF_DAY, RECONCILE_DAY
from qmt_orchestration.orchestration.resources import RedisResource
from qmt_orchestration.stream.clock import read_clock

FINISHED = time(15, 30, 30)


def build_market_day_sensor(days: dg.DailyPartitionsDefinition, jobs: Sequence[Any]) -> dg.SensorDefinition:
    """The sensor ``market_day``. *jobs*: every job there is; it asks for those of a day."""
    of_a_day = [job for job in jobs if job.name in (BEFORE_OPEN, END_OF_DAY, RECONCILE_DAY)]

    @dg.sensor(
        name="market_day",
        jobs=of_a_day,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="On a simulated market: instruments before its open, the day's verdict after its close.",
    )
    def market_day(context: dg.SensorEvaluationContext, redis: RedisResource) -> Any:
        clock = read_clock(redis.connect())
        if not clock.simulated:
            return dg.SkipReason("the market is live: schedules follow the wall clock")
        now = clock.now()
        state: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"day": "", "finished": "", "n": 0}
        requests: list[dg.RunRequest] = []
        today = now.date().isoformat()

        def ask(job: str, day: str) -> None:
            state["n"] += 1  # a simulated day may come again: keys must not repeat
            requests.append(dg.RunRequest(run_key=f"{job}/{day}/{state['n']}", job_name=job, partition_key=day))

        def finish(day: str) -> None:
            ask(END_OF_DAY, day)
            ask(RECONCILE_DAY, day)
            state["finished"] = day

        if today != state["day"]:
            if state["day"] and state["finished"] != state["day"]:
                finish(state["day"])
            if days.has_partition_key(today):
                state["day"], state["finished"] = today, ""
                ask(BEFORE_OPEN, today)
        elif now.time() >= FINISHED and state["finished"] != today:
            finish(today)
        if not requests:
            return dg.SensorResult(skip_reason=f"simulated {now:%Y-%m-%d %H:%M}", cursor=json.dumps(state))
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(state))

    return market_day
