"""What should run, from the trading calendar: the feed and the publisher from before the open to after the
after-hours session.

The desired state is written once per change by the calendar, so that a stop asked for by a person lasts until
the next open. The gateway and the writer are always wanted; a simulated or replayed market has no closing time.
"""

from datetime import datetime, time
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.resources import RedisResource, ServicesResource
from qmt_orchestration.stream.clock import read_clock

OPEN_FROM, OPEN_UNTIL = time(9, 0), time(15, 35)
BY_CALENDAR = ("subscriber", "publisher")
ALWAYS = ("gateway", "writer")


def wanted(now: datetime, days: dg.DailyPartitionsDefinition, *, simulated: bool) -> str:
    """``open`` or ``closed``: whether the feed should run at *now* (Asia/Shanghai)."""
    if simulated:
        return "open"
    trading = days.has_partition_key(now.date().isoformat())
    return "open" if trading and OPEN_FROM <= now.time() < OPEN_UNTIL else "closed"


def build_services_sensor(days: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """The sensor ``services_by_calendar``."""

    @dg.sensor(
        name="services_by_calendar",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the feed to run from 09:00 to 15:35 of trading days; for gateway and writer always.",
    )
    def services_by_calendar(
        context: dg.SensorEvaluationContext, redis: RedisResource, services: ServicesResource
    ) -> Any:
        clock = read_clock(redis.connect())
        simulated = clock.simulated or services.settings.feed != "xtquant"
        state = wanted(clock.now(), days, simulated=simulated)
        if context.cursor == state:
            return dg.SkipReason(f"the market is {state}; asked for already")
        desired = services.desired()
        for name in ALWAYS:
            if name not in desired:
                services.ask(name, "start")
        for name in BY_CALENDAR:
            services.ask(name, "start" if state == "open" else "stop")
        return dg.SensorResult(skip_reason=f"the market is {state}: asked for {', '.join(BY_CALENDAR)}", cursor=state)

    return services_by_calendar
