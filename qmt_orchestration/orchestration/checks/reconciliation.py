"""Our minute bars against QMT's own: a step that runs when both tables of the day are made.

Differences are reported, never overwritten; only minutes that ours lack are filled from QMT (asset ``bars_1m``,
`source` = history), and filled or history rows are not compared with what they were taken from.
"""

import dagster as dg

from qmt_orchestration.orchestration.checks.evaluate import CheckResults, Window, record, results, run_checks
from qmt_orchestration.orchestration.partitions import days_of_tags
from qmt_orchestration.orchestration.resources import ClickHouseResource
from qmt_orchestration.quality.names import reconciliation_checks


def build_reconciliation(days: dg.DailyPartitionsDefinition) -> dg.AssetChecksDefinition:
    """The checks of ``bars_1m`` against ``qmt_bars_1m``."""
    checks = reconciliation_checks()

    @dg.multi_asset_check(
        specs=[
            dg.AssetCheckSpec(
                c.name, asset=c.asset, description=c.description, additional_deps=["qmt_bars_1m", "bars_1d"]
            )
            for c in checks
        ],
        name="qmt_reconciliation",
    )
    def qmt_reconciliation(context: dg.AssetCheckExecutionContext, clickhouse: ClickHouseResource) -> CheckResults:
        client, settings = clickhouse.connect(), clickhouse.settings
        outcomes = []
        for day in days_of_tags(context.run.tags, days):
            found = run_checks(checks, client, settings, Window.whole(day))
            record(client, found, context.run.run_id)
            outcomes += found
        yield from results(outcomes)

    return qmt_reconciliation
