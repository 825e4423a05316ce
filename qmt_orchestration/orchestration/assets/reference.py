"""QMT's own data, fetched through the gateway: instruments, dividend factors, and its own bars of a day.

The gateway runs beside QMT and answers over Redis; without one these assets fail and say so. Whatever is fetched is
stored as it came; comparing and repairing happen elsewhere.
"""

from datetime import date
from typing import Any, Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from qmt_orchestration.market import calendar
from qmt_orchestration.orchestration.assets.columns import FEED_OWNER, table_metadata
from qmt_orchestration.orchestration.assets.making import Made, Materialized, daily_asset, make_days
from qmt_orchestration.orchestration.checks.evaluate import Outcome, Window, find, judge, specs, table
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource
from qmt_orchestration.quality import names
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import rpc
from qmt_orchestration.warehouse.client import load_sql


class SymbolsConfig(dg.Config):
    """Whose history to fetch; empty: that of all."""

    symbols: list[str] = Field(default_factory=list)


def build_reference_assets(days: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """``instruments``, ``sector_members``, ``adjust_factors`` and ``qmt_bars_1m``. *settings*: names
    that are shown."""
    daily = (_instruments, _sector_members, _qmt_bars)
    return [*(build(days, settings) for build in daily), _adjust_factors(settings)]


_RETRIES: Final = dg.RetryPolicy(max_retries=2, delay=20)


def _instruments(days: dg.DailyPartitionsDefinition, settings: Settings) -> dg.AssetsDefinition:
    @daily_asset(
        days,
        "reference",
        FEED_OWNER,
        check_specs=specs(checks_of("instruments")),
        metadata=table_metadata(settings, "instruments"),
        retry_policy=_RETRIES,
        description=(
            "The instruments of a trading day with names, boards, previous close, price limits and suspensions. QMT "
            "has today's only: a past day can be fetched from a simulated market, not from QMT."
        ),
    )
    def instruments(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        chosen, server, client = clickhouse.settings, redis.connect(), clickhouse.connect()

        def make(day: date) -> Made:
            table = _ask(context, server, chosen, "instruments", {"day": day.isoformat()})
            rows = _store(client, "instruments", table, day=day)
            return Made(rows, Window.whole(day), {"dagster/partition_row_count": rows}, [calendar_horizon(chosen, day)])

        return make_days(context, client, chosen, "instruments", make)

    return instruments


def _sector_members(days: dg.DailyPartitionsDefinition, settings: Settings) -> dg.AssetsDefinition:
    @daily_asset(
        days,
        "reference",
        FEED_OWNER,
        deps=["instruments"],
        metadata=table_metadata(settings, "sector_members"),
        retry_policy=_RETRIES,
        description="Members of the sectors of QMT_MEMBER_SECTORS on a trading day; who joined and left since then.",
    )
    def sector_members(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        chosen, server, client = clickhouse.settings, redis.connect(), clickhouse.connect()

        def make(day: date) -> Made:
            asked = {"day": day.isoformat(), "sectors": list(chosen.member_sectors)}
            return _store_members(context, client, _ask(context, server, chosen, "sector_members", asked), day)

        return make_days(context, client, chosen, "sector_members", make)

    return sector_members


def _adjust_factors(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        deps=["instruments"],
        group_name="reference",
        kinds={"clickhouse", "table"},
        owners=[FEED_OWNER],
        metadata=table_metadata(settings, "adjust_factors"),
        retry_policy=_RETRIES,
        description=(
            "QMT's dated dividend factors. Prices are stored raw; clients adjust what they read (`bars(…, adjust=…)`)."
        ),
    )
    def adjust_factors(
        context: dg.AssetExecutionContext, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        chosen, server, client = clickhouse.settings, redis.connect(), clickhouse.connect()
        rows = 0
        for chunk in _chunks(_universe(client), chosen.history_chunk_symbols):
            table = _ask(context, server, chosen, "adjust_factors", {"symbols": chunk})
            rows += _store(client, "adjust_factors", table)
        return dg.MaterializeResult(metadata={"dagster/row_count": rows})

    return adjust_factors


def _qmt_bars(days: dg.DailyPartitionsDefinition, settings: Settings) -> dg.AssetsDefinition:
    @daily_asset(
        days,
        "reference",
        FEED_OWNER,
        deps=["instruments"],
        metadata={"dagster/table_name": f"{settings.clickhouse_database}.qmt_bars"},
        description=(
            "QMT's own bars of the day, 1m and 1d, as its history gives them (no padding rows). Ours are compared "
            "with them, and minutes that ours lack are filled from them."
        ),
    )
    def qmt_bars_1m(
        context: dg.AssetExecutionContext, config: SymbolsConfig, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        chosen, server, client = clickhouse.settings, redis.connect(), clickhouse.connect()

        def make(day: date) -> Made:
            rows = {p: _history(context, client, server, chosen, day, p, config.symbols) for p in ("1m", "1d")}
            facts = {"dagster/partition_row_count": rows["1m"], "daily_rows": rows["1d"]}
            return Made(sum(rows.values()), Window.whole(day), facts)

        return make_days(context, client, chosen, "qmt_bars_1m", make)

    return qmt_bars_1m


def calendar_horizon(settings: Settings, day: date) -> Outcome:
    """Whether the exchange calendar has the coming trading days: next year's holidays must be known before the year
    starts."""
    wanted, last = settings.quality_calendar_days, calendar.horizon()
    known = len(calendar.trading_days(day, last)) - 1
    return judge(
        find("instruments", names.CALENDAR_HORIZON),
        settings,
        day,
        float(max(wanted - known, 0)),
        f"{wanted} trading days known after {day}",
        f"known up to {last}"
        + ("" if known >= wanted else ": install a newer exchange-calendars or give QMT_HOLIDAYS, and restart"),
    )


def _store_members(context: dg.AssetExecutionContext, client: Any, found: Any, day: date) -> Made:
    """Store the members of a day, without those of an earlier fetch of it; sectors without any are named and left."""
    members = found.filter(pc.is_valid(found["symbol"]))
    empty = sorted(set(found["sector"].to_pylist()) - set(members["sector"].to_pylist()))
    if empty:
        context.log.warning(f"sector_members: {day}: empty or unknown to QMT: {', '.join(empty)} (QMT_MEMBER_SECTORS)")
    rows = _store(client, "sector_members", members, day=day)
    keys = list(zip(members["sector"].to_pylist(), members["symbol"].to_pylist(), strict=True))
    sectors = sorted({sector for sector, _ in keys})
    client.command(load_sql("sector_outdated"), {"day": day, "sectors": sectors, "keys": keys})
    changes = [
        {"sector": sector, "members": count, "since": before, "joined": " ".join(joined), "left": " ".join(left)}
        for sector, count, before, _, _, joined, left in client.query(
            load_sql("sector_changes"), {"day": day}
        ).result_rows
    ]
    facts = {
        "dagster/partition_row_count": rows,
        "joined": sum(len(c["joined"].split()) for c in changes),
        "left": sum(len(c["left"].split()) for c in changes),
        "empty_sectors": ", ".join(empty) or "none",
    }
    return Made(rows, Window.whole(day), {**facts, "changes": table(changes)} if changes else facts)


def _ask(
    context: dg.AssetExecutionContext, server: Any, settings: Settings, method: str, params: dict[str, Any]
) -> Any:
    """A table from the gateway; its errors say whether none runs, it timed out, or QMT rejected the request."""
    return rpc.call(
        server,
        method,
        params,
        timeout_seconds=settings.history_timeout_seconds,
        on_progress=lambda progress: context.log.debug(f"{method}: {progress}"),
    )


def _history(
    context: dg.AssetExecutionContext,
    client: Any,
    server: Any,
    settings: Settings,
    day: date,
    period: str,
    chosen: list[str],
) -> int:
    symbols = chosen or _known_symbols(client, day)
    if not symbols:  # a first backfill: no list and no ticks yet
        symbols = sorted(_ask(context, server, settings, "instruments", {}).column("symbol").to_pylist())
    chunks = _chunks(symbols, settings.history_chunk_symbols)
    rows, text = 0, day.strftime("%Y%m%d")
    for n, chunk in enumerate(chunks, 1):
        table = _ask(
            context, server, settings, "history", {"symbols": chunk, "period": period, "start": text, "end": text}
        )
        rows += _store(client, "qmt_bars", table, period=period)
        context.log.info(f"qmt_bars_1m: {day} {period}: {n} of {len(chunks)} requests, {rows:,} rows")
    return rows


def _universe(client: Any) -> list[str]:
    """Symbols of the newest instrument list."""
    found = _known_symbols(client, date(2149, 6, 6))
    if not found:
        raise dg.Failure("no instrument list to take symbols from: materialize instruments first")
    return found


def _known_symbols(client: Any, day: date) -> list[str]:
    """Symbols of the day's instruments, else of the list nearest to it, else those that sent ticks."""
    return [row[0] for row in client.query(load_sql("universe"), parameters={"day": day}).result_rows]


def _chunks(symbols: list[str], size: int) -> list[list[str]]:
    return [symbols[i : i + size] for i in range(0, len(symbols), size)]


def _store(client: Any, table: str, rows: Any, **constant: Any) -> int:
    """Insert an Arrow table, with constant columns added. Columns that the warehouse does not keep are left out by
    name only if the gateway sends more than it needs; a column the warehouse needs and the gateway lacks is an
    error."""
    if rows.num_rows == 0:
        return 0
    for name, value in constant.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.array([value] * rows.num_rows))
    described = client.query("DESCRIBE TABLE {table:Identifier}", parameters={"table": table}).result_rows
    wanted = [row[0] for row in described]
    required = [row[0] for row in described if not row[2]]  # no default
    missing = [name for name in required if name not in rows.column_names]
    if missing:
        raise dg.Failure(f"{table}: the gateway sent {rows.column_names}, but {missing} are needed too")
    client.insert_arrow(table, rows.select([name for name in wanted if name in rows.column_names]))
    return int(rows.num_rows)
