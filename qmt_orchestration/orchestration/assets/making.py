"""What all assets with one row set per trading day share: the loop over days, the checks, the metadata of each
partition.

A run is for one day or, in a backfill, for a range of days (one run for all of them). Each day is made on its own and
is idempotent, so a run that is interrupted is simply started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from qmt_orchestration.orchestration.assets.columns import OWNER
from qmt_orchestration.orchestration.checks import evaluate
from qmt_orchestration.orchestration.checks.evaluate import Outcome, Window
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import MarketClock
from qmt_orchestration.warehouse.client import load_sql

if TYPE_CHECKING:
    Materialized = dg.MaterializeResult[None]
else:
    Materialized = dg.MaterializeResult  # Dagster reads the annotation and accepts the bare class only


@dataclass(frozen=True)
class Made:
    """What was made of one day: rows written now, the frames the checks look at, and further metadata."""

    rows: int
    window: Window
    facts: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Sequence[Outcome] = ()  # checks that are no SQL


def daily_asset(
    days: dg.DailyPartitionsDefinition, group: str, owner: str = OWNER, **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The decorator of an asset with a partition per trading day; a range of days is one run. *options*: of
    `dg.asset`."""
    chosen: Any = {"kinds": {"clickhouse", "table"}, **options}
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run(), group_name=group, owners=[owner], **chosen
    )
    return decorate


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The trading days this run is for (holidays inside a range are no partitions and left out)."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def settled(clock: MarketClock, settings: Settings) -> datetime:
    """The market's time up to which everything has arrived and closed by now: checks of a live day look no further."""
    return clock.now() - timedelta(seconds=settings.close_fallback_seconds * max(clock.speed, 1.0))


def make_days(
    context: dg.AssetExecutionContext,
    client: Any,
    settings: Settings,
    asset: str,
    make: Callable[[date], Made],
    count_rows: str = "",
) -> Materialized:
    """Make *asset* day by day with *make*, then check each day; a range of days ends in one result with its totals.

    *count_rows*: name of the query that counts the rows of a day's partition.
    """
    days = days_of(context)
    outcomes: list[Outcome] = []
    total, started = 0, time.monotonic()
    metadata: dict[str, Any] = {}
    for n, day in enumerate(days, 1):
        begun = time.monotonic()
        made = make(day)
        total += made.rows
        found = [*evaluate.run_checks(checks_of(asset), client, settings, made.window), *made.outcomes]
        evaluate.record(client, found, context.run.run_id)
        outcomes += found
        metadata = {"rows_written": made.rows, "seconds": round(time.monotonic() - begun, 3), **made.facts}
        if count_rows:
            sql = load_sql(count_rows)
            rows = int(client.query(sql, parameters={"table": asset, "day": day}).first_row[0])
            metadata["dagster/partition_row_count"] = rows
        if len(days) > 1:
            context.add_asset_metadata(metadata, asset_key=asset, partition_key=day.isoformat())
            left = (time.monotonic() - started) / n * (len(days) - n)
            context.log.info(
                f"{asset}: {day} done, {made.rows:,} rows, {n} of {len(days)} days, about {left:,.0f} s left"
            )
    if len(days) > 1:
        metadata = {
            "days": len(days),
            "rows_written_in_all_days": total,
            "seconds_in_all_days": round(time.monotonic() - started, 3),
        }
    return dg.MaterializeResult(metadata=metadata, check_results=evaluate.results(outcomes))
