"""Assets of plug-ins (`qmt_orchestration.plugins`): an asset per period of a source, one per processor.

Sources have a job of their own. A processor is made in the run that makes its bars, after everything of ours: when it
fails, its check does, not the run. A plug-in that cannot be loaded is an asset whose run fails with the reason.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.periods import minutes_of, rollups
from qmt_orchestration.market.schema import BAR_SCHEMA, TICK_SCHEMA, TZ
from qmt_orchestration.orchestration.assets.bars import Frames
from qmt_orchestration.orchestration.assets.making import Made, Materialized, daily_asset, days_of, make_days
from qmt_orchestration.orchestration.checks.evaluate import Window, judge, record, results, run_checks, specs
from qmt_orchestration.orchestration.resources import ClickHouseResource
from qmt_orchestration.plugins import PluginError, Plugins, Processor, Source, call, checked, load
from qmt_orchestration.quality.names import Check
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import plugin_tables
from qmt_orchestration.warehouse.client import load_sql

OWNER: Final = "team:plugins"
#: The settings' name of the limit of all checks of a source; never severity ERROR: the main path does not depend on it.
_WARN: Final = "source_mismatch_warn"
_LAST: Final = {"dagster/priority": "-10"}  # in a run of bars, after all of them


def installed(settings: Settings) -> Plugins:
    """The plug-ins of this environment, for the periods of bars that *settings* make."""
    return load(("1m", *rollups(settings.rollup_periods)))


def build_plugin_assets(days: dg.DailyPartitionsDefinition, settings: Settings, plugins: Plugins) -> list[Any]:
    """The assets of *plugins*."""
    sources = [a for s in plugins.sources for a in _source_assets(days, settings, s)]
    return [
        *sources,
        *(_processor_asset(days, settings, p) for p in plugins.processors),
        *(_broken_asset(name, why) for name, why in plugins.broken),
    ]


def source_keys(plugins: Plugins) -> list[str]:
    """Names of the assets of the sources."""
    bars = [f"{s.name}_bars_{period}" for s in plugins.sources for period in s.periods]
    return [*bars, *(f"{s.name}_ticks" for s in plugins.sources if hasattr(s, "snapshots"))]


def computed_check(processor: Processor) -> Check:
    """The check that is the verdict on a processor's own work."""
    return Check(processor.name, "computed", f"{processor.name} gave the rows it declares.", fatal=0.0)


# -- sources ----------------------------------------


def reconciliation_of(source: Source, period: str, settings: Settings) -> tuple[Check, ...]:
    """The checks of a source's bars against ours."""
    asset, table = f"{source.name}_bars_{period}", {"table": f"{source.name}_bars", "period": period}
    both = {**table, "ours": f"bars_{period}"}
    volume: dict[str, Any] = {**both, "what": "volume", "tolerance": settings.source_volume_tolerance}
    price: dict[str, Any] = {**both, "what": "price", "tolerance": settings.source_price_tolerance}
    found: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("rows_match", "Share of bars that only one side has.", "source_rows", both),
        ("volume_matches", "Share of bars whose volume differs.", "source_values", volume),
        ("ohlc_matches", "Share of bars with other prices.", "source_values", price),
    )
    return tuple(Check(asset, name, text, _WARN, None, sql, parameters=given) for name, text, sql, given in found)


def _source_assets(
    days: dg.DailyPartitionsDefinition, settings: Settings, source: Source
) -> Iterator[dg.AssetsDefinition]:
    made = ("1m", *rollups(settings.rollup_periods))
    for period in source.periods:
        yield _source_bars(days, settings, source, period, reconciled=period in made)
    if hasattr(source, "snapshots"):
        yield _source_ticks(days, source)


def _source_bars(
    days: dg.DailyPartitionsDefinition, settings: Settings, source: Source, period: str, *, reconciled: bool
) -> dg.AssetsDefinition:
    asset, table = f"{source.name}_bars_{period}", f"{source.name}_bars"
    checks = reconciliation_of(source, period, settings) if reconciled else ()

    @daily_asset(
        days,
        "sources",
        OWNER,
        name=asset,
        deps=[f"bars_{period}"] if reconciled else ["instruments"],
        check_specs=specs(checks),
        tags={"period": period, "source": source.name},
        metadata={"dagster/table_name": f"{settings.clickhouse_database}.{table}"},
        description=f"Bars of {period} from the plug-in {source.name}, in table {table}; ours are compared with them.",
    )
    def bars_of_source(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> Materialized:
        client, chosen = clickhouse.connect(), clickhouse.settings
        plugin_tables.make_like(client, chosen, table, "qmt_bars")

        def make(day: date) -> Made:
            symbols = _symbols(client, day)
            found = _ask(source.name, chosen, source.history, period, day, symbols, schema=BAR_SCHEMA)
            _within(source.name, found, "frame", day, symbols)
            found = found.append_column("period", pa.array([period] * found.num_rows, pa.string()))
            rows = plugin_tables.write(client, table, found, versioned=False)
            window = Window.whole(day)
            outcomes = run_checks(checks, client, chosen, window)
            return Made(rows, window, {"dagster/partition_row_count": rows}, outcomes)

        return make_days(context, client, chosen, asset, make)

    return bars_of_source


def _source_ticks(days: dg.DailyPartitionsDefinition, source: Source) -> dg.AssetsDefinition:
    table = f"{source.name}_ticks"

    @daily_asset(
        days,
        "sources",
        OWNER,
        name=table,
        deps=["instruments"],
        tags={"source": source.name},
        description=f"Ticks from the plug-in {source.name}, in a table of their own: no bar of ours is made of them.",
    )
    def ticks_of_source(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> Materialized:
        client, chosen = clickhouse.connect(), clickhouse.settings
        plugin_tables.make_like(client, chosen, table, "ticks")

        def make(day: date) -> Made:
            symbols, snapshots = _symbols(client, day), source.snapshots  # type: ignore[attr-defined]
            found = _ask(source.name, chosen, snapshots, day, symbols, schema=TICK_SCHEMA)
            _within(source.name, found, "time", day, symbols)
            rows = plugin_tables.write(client, table, found, versioned=False)
            return Made(rows, Window.whole(day), {"dagster/partition_row_count": rows})

        return make_days(context, client, chosen, table, make)

    return ticks_of_source


def _ask(name: str, settings: Settings, function: Any, *arguments: Any, schema: pa.Schema) -> pa.Table:
    """What a plug-in gives, checked; its failure is the step's, in one line."""
    try:
        return checked(name, call(name, settings.plugin_seconds, function, *arguments), schema)
    except PluginError as error:
        raise dg.Failure(str(error)) from error


def _within(name: str, found: pa.Table, column: str, day: date, symbols: Sequence[str]) -> None:
    """Raise `dg.Failure` for rows of other days or of symbols that were not asked for."""
    if not found.num_rows:
        return
    span = pc.min_max(found.column(column)).as_py()
    if span["min"].date() != day or span["max"].date() != day:
        raise dg.Failure(f"plug-in {name}: expected rows of {day}, found {span['min']} … {span['max']}")
    strange = sorted(set(found.column("symbol").unique().to_pylist()) - set(symbols))
    if strange:
        raise dg.Failure(f"plug-in {name}: expected symbols that were asked for, found {', '.join(strange[:5])}")


def _symbols(client: Any, day: date) -> list[str]:
    return [row[0] for row in client.query(load_sql("universe"), {"day": day}).result_rows]


# -- processors ----------------------------------------


def _processor_asset(
    days: dg.DailyPartitionsDefinition, settings: Settings, processor: Processor
) -> dg.AssetsDefinition:
    check, source = computed_check(processor), f"bars_{processor.period}"
    columns = [dg.TableColumn(c.name, str(c.type)) for c in processor.schema]
    spec = dg.AssetSpec(
        processor.name,
        deps=[source],
        skippable=True,
        group_name="processors",
        kinds={"clickhouse", "table"},
        owners=[OWNER],
        tags={"period": processor.period},
        metadata={
            "dagster/table_name": f"{settings.clickhouse_database}.{processor.name}",
            "dagster/column_schema": dg.TableSchema(columns=columns),
        },
        description=f"Computed from {source} by the plug-in {processor.name}.",
        partitions_def=days,
    )

    @dg.multi_asset(
        name=processor.name,
        specs=[spec],
        check_specs=specs([check]),
        backfill_policy=dg.BackfillPolicy.single_run(),
        op_tags=_LAST,
    )
    def processed(context: dg.AssetExecutionContext, config: Frames, clickhouse: ClickHouseResource) -> Any:
        client, chosen = clickhouse.connect(), clickhouse.settings
        rows, problem = 0, ""
        for day in days_of(context):
            try:
                rows += _process(client, chosen, processor, config.window(day))
            except PluginError as error:
                problem = str(error)
                context.log.error(problem)
            found = problem or f"{rows:,} rows"
            outcome = judge(check, chosen, day, float(bool(problem)), "the rows it declares", found)
            record(client, [outcome], context.run.run_id)
            if problem:
                break
        if not problem:
            yield dg.MaterializeResult(asset_key=processor.name, metadata={"rows_written": rows})
        yield from results([outcome])

    return processed


def _process(client: Any, settings: Settings, processor: Processor, window: Window) -> int:
    """Compute and store the rows of a window. Raises `PluginError`."""
    plugin_tables.make_processor_table(client, settings, processor.name, processor.schema)
    first, last = window.first, window.last
    bars = plugin_tables.bars_made(client, f"bars_{processor.period}", first, last)
    if not bars.num_rows:
        return 0
    keys = [pa.field("symbol", pa.string()), pa.field("frame", pa.timestamp("s", TZ))]
    wanted = pa.schema([*keys, *processor.schema]).remove_metadata()
    rows = checked(processor.name, call(processor.name, settings.plugin_seconds, processor.process, bars), wanted)
    strange = rows.join(bars.select(["symbol", "frame"]), ["symbol", "frame"], join_type="left anti")
    if strange.num_rows:
        key = strange.slice(0, 1).to_pylist()[0]
        raise PluginError(
            f"plug-in {processor.name}: expected rows for the bars given, found {strange.num_rows} others, the first "
            f"{key['symbol']} at {key['frame']}"
        )
    return plugin_tables.write(client, processor.name, rows, versioned=True)


def follows_minutes(processor: Processor) -> bool:
    """Whether a processor is made during the session: its bars close with the minutes."""
    return processor.period == "1m" or bool(minutes_of(processor.period))


# -- what cannot be loaded ----------------------------------------


def _broken_asset(name: str, why: str) -> dg.AssetsDefinition:
    asset = "broken_" + "".join(c if c.isalnum() else "_" for c in name)

    @dg.asset(name=asset, group_name="plugins", owners=[OWNER], description=f"A plug-in that cannot be loaded. {why}")
    def broken() -> None:
        raise dg.Failure(why)

    return broken
