"""A sensor evaluated as Dagster's daemon does it, on a market that the test moves on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market.sessions import to_ms
from qmt_orchestration.orchestration.resources import build_resources
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.orchestration import market


class Bench:
    """One sensor, evaluated as the daemon does: its cursor kept, its runs executed or failed."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
        self.defs = build_defs(settings=settings)
        self.sensor = self.defs.resolve_sensor_def(name)
        self.instance, self.cursor = instance, ""
        self.resources = build_resources(settings)

    def tick(self) -> dg.SensorExecutionData | Any:
        """One evaluation; its cursor is kept."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor or None, resources=self.resources, definitions=self.defs
        )
        with context:
            result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor or self.cursor
        return result

    def until_nothing_is_late(self) -> None:
        """Evaluate until ticks that were stored a moment ago are no late ones any more."""
        wait_until(lambda: "is due in" in (self.tick().skip_message or ""), 20, "nothing pending, nothing late", 0.5)

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a requested run to its end."""
        job = self.defs.resolve_job_def(request.job_name or self.sensor.job_name)
        if request.asset_selection:
            checks = request.asset_check_keys
            job = job.get_subset(
                asset_selection=set(request.asset_selection), asset_check_selection=set(checks) if checks else None
            )
        return job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags=dict(request.tags),
            raise_on_error=False,
        )


def set_clock(client: Any, moment: datetime) -> None:
    """The market's clock stands at *moment*."""
    publish_clock(client, to_ms(moment), 0.0)


def until(client: Any, moment: datetime) -> None:
    """Ticks of DAY up to *moment*, and the market's clock there."""
    table = market.ticks()
    market.insert_ticks(client, table.filter(pc.less(table["time"], moment)))


def beat(settings: Settings, client: Any, **numbers: float) -> None:
    """Heartbeats of the four services."""
    for name in ("subscriber", "writer", "publisher", "gateway"):
        Heartbeat(client, settings, name).beat(numbers)
