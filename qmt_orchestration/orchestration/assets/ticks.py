"""Ticks: the stream they come on (observed, not made here) and the table they are in (accounted for, not made here).

The always-on services move ticks within milliseconds; Dagster shows what flows (observations of ``tick_stream``) and
checks each day of ``ticks``: nothing lost, nothing doubled, in time, few rejected.
"""

from datetime import date

import dagster as dg

from qmt_orchestration.orchestration.assets.columns import FEED_OWNER, table_metadata
from qmt_orchestration.orchestration.assets.making import Made, Materialized, daily_asset, make_days, settled
from qmt_orchestration.orchestration.checks.evaluate import Window, specs
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.warehouse.client import load_sql


def build_tick_assets(
    days: dg.DailyPartitionsDefinition, settings: Settings
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """``tick_stream`` (external) and ``ticks``. *settings*: for what is shown only (names)."""
    tick_stream = dg.AssetSpec(
        "tick_stream",
        group_name="feed",
        kinds={"redis"},
        owners=[FEED_OWNER],
        tags={"always-on": "true"},
        description=(
            "Level-1 snapshots from QMT's whole-market push, Arrow batches on Redis Streams. Written by the subscriber "
            "beside QMT, read by the writer; its statistics are observed about twice a minute: rate, delay, success, "
            "buffer, lag, memory."
        ),
    )

    @daily_asset(
        days,
        "feed",
        deps=["tick_stream"],
        check_specs=specs(checks_of("ticks")),
        metadata=table_metadata(settings, "ticks"),
        description=(
            "All ticks of a trading day (Beijing time). The writer service inserts them as they come; materializing a "
            "day here counts and checks them, and changes nothing. A day made from QMT's history has none."
        ),
    )
    def ticks(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource) -> Materialized:
        client = clickhouse.connect()
        now = settled(read_clock(redis.connect()), clickhouse.settings)

        def make(day: date) -> Made:
            row = client.query(load_sql("day_of_ticks"), parameters={"day": day}).first_row
            facts = {
                "dagster/partition_row_count": int(row[0]),
                "symbols": int(row[1]),
                "sessions": int(row[2]),
                "first_tick": str(row[3]),
                "last_tick": str(row[4]),
                "mean_quality_score": float(row[5]),
            }
            return Made(0, Window.whole(day, now), facts)

        return make_days(context, client, clickhouse.settings, "ticks", make)

    return [tick_stream, ticks]
