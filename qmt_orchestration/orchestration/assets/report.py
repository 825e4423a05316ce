"""The report of a day: how many checks failed, and the link to its page in the console."""

from datetime import date
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.assets.columns import OWNER
from qmt_orchestration.orchestration.assets.making import Materialized
from qmt_orchestration.orchestration.resources import ClickHouseResource
from qmt_orchestration.warehouse.client import load_sql


def build_report_assets(days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """``quality_report``."""

    @dg.asset(
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=["bars_1d", "bars_5m", "bars_30m", "qmt_bars_1m"],
        group_name="quality",
        kinds={"clickhouse"},
        owners=[OWNER],
        description=(
            "The report of a trading day, a page of the console: all checks, what was expected and found, plots of"
            " completeness, delay and volume against QMT, and the worst symbols. Here: how many checks failed, and the"
            " link."
        ),
    )
    def quality_report(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> Materialized:
        client, base = clickhouse.connect(), clickhouse.settings.console_url
        last: dict[str, Any] = {}
        for key in context.partition_keys:
            last = _account(client, date.fromisoformat(key), base)
            if len(context.partition_keys) > 1:
                context.add_asset_metadata(last, asset_key="quality_report", partition_key=key)
        return dg.MaterializeResult(metadata=last if len(context.partition_keys) == 1 else {})

    return [quality_report]


def _account(client: Any, day: date, base: str) -> dict[str, Any]:
    verdicts = list(client.query(load_sql("report/verdicts"), parameters={"day": day}).named_results())
    failed = [verdict["severity"] for verdict in verdicts if not verdict["passed"]]
    return {
        "report": dg.MetadataValue.url(f"{base}/report?day={day}"),
        "checks": len(verdicts),
        "failed": len(failed),
        "failed_with_error": failed.count("ERROR"),
    }
