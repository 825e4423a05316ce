"""Sensors: what closes, what flows, what should run, and the day of a simulated market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.sensors.alerts import build_alert_sensor
from qmt_orchestration.orchestration.sensors.market_day import build_market_day_sensor
from qmt_orchestration.orchestration.sensors.minutes import build_minutes_sensor
from qmt_orchestration.orchestration.sensors.services import build_services_sensor
from qmt_orchestration.orchestration.sensors.stream import build_stream_sensor
from qmt_orchestration.plugins import Plugins
from qmt_orchestration.settings import Settings


def build_sensors(
    days: dg.DailyPartitionsDefinition, settings: Settings, jobs: Sequence[Any], plugins: Plugins
) -> list[dg.SensorDefinition]:
    """Every sensor; that of the alerts is `sensors.alerts`."""
    return [
        build_minutes_sensor(days, settings, plugins),
        build_stream_sensor(days, settings.observe_seconds),
        build_services_sensor(days),
        build_market_day_sensor(days, jobs),
        build_alert_sensor(),
    ]
