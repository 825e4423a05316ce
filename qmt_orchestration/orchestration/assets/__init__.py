"""Assets: what there is, where it comes from, and how a trading day of it is made."""

from __future__ import annotations

from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.assets.bars import build_bar_assets
from qmt_orchestration.orchestration.assets.plugins import build_plugin_assets
from qmt_orchestration.orchestration.assets.reference import build_reference_assets
from qmt_orchestration.orchestration.assets.report import build_report_assets
from qmt_orchestration.orchestration.assets.ticks import build_tick_assets
from qmt_orchestration.plugins import Plugins
from qmt_orchestration.settings import Settings


def build_assets(days: dg.DailyPartitionsDefinition, settings: Settings, plugins: Plugins) -> list[Any]:
    """Every asset, partitioned by trading *days*. *settings*: names that are shown, nothing that is connected to."""
    return [
        *build_tick_assets(days, settings),
        *build_bar_assets(days, settings),
        *build_reference_assets(days, settings),
        *build_report_assets(days),
        *build_plugin_assets(days, settings, plugins),
    ]
