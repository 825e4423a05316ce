"""One function that puts everything that Dagster loads together.

Loading connects to nothing: with no engine running the graph is still complete. Production, the command line and
tests all come through `build_defs`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

with warnings.catch_warnings():
    # BackfillPolicy and owners are marked beta; they are used on purpose (docs/dagster.md). Nothing else is filtered.
    warnings.simplefilter("ignore", dg.BetaWarning)
    from qmt_orchestration.orchestration.assets import build_assets
    from qmt_orchestration.orchestration.assets.plugins import installed

from qmt_orchestration.orchestration.checks.live import build_live_checks
from qmt_orchestration.orchestration.checks.reconciliation import build_reconciliation
from qmt_orchestration.orchestration.jobs import build_jobs
from qmt_orchestration.orchestration.partitions import trading_day_partitions
from qmt_orchestration.orchestration.resources import build_resources
from qmt_orchestration.orchestration.schedules import build_schedules
from qmt_orchestration.orchestration.sensors import build_sensors
from qmt_orchestration.settings import Settings, get_settings


def build_defs(
    *, settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """All definitions. *settings* win over the environment; *resource_overrides* replace resources by key."""
    chosen = settings or get_settings()
    days, plugins = trading_day_partitions(chosen), installed(chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        jobs = build_jobs(chosen, plugins)
        return dg.Definitions(
            assets=build_assets(days, chosen, plugins),
            asset_checks=[build_live_checks(days), build_reconciliation(days)],
            jobs=jobs,
            schedules=build_schedules(days, plugins),
            sensors=build_sensors(days, chosen, jobs, plugins),
            resources={**build_resources(settings), **(resource_overrides or {})},
            executor=dg.in_process_executor,
        )
