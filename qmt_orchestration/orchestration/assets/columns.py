"""What Dagster's pages show of each table: columns with types and meaning, kinds, owners, tags."""

from __future__ import annotations

from typing import Any, Final

import dagster as dg

from qmt_orchestration.settings import Settings

OWNER: Final = "team:market-data"
FEED_OWNER: Final = "team:feed"

_BAR: Final = (
    ("symbol", "LowCardinality(String)", "000001.SZ"),
    ("frame", "DateTime('Asia/Shanghai')", "end label of the bar"),
    ("open", "Float64", "yuan"),
    ("high", "Float64", "yuan"),
    ("low", "Float64", "yuan"),
    ("close", "Float64", "yuan"),
    ("vol", "Int64", "shares"),
    ("amount", "Float64", "yuan"),
    ("source", "Enum8", "live = from ticks, history = from QMT's bars, filled = no trade in the minute"),
    ("ticks", "UInt32", "snapshots seen"),
    ("quality_score", "Float32", "0 to 1, from its ticks"),
)
_CARRY: Final = (
    ("cum_volume, cum_amount", "Int64, Float64", "the day's volume and amount in its ticks up to the frame"),
    ("day_open, day_high, day_low", "Float64", "the day's values in its ticks up to the frame, yuan"),
    ("last_price, pre_close", "Float64", "of the newest tick up to the frame, yuan"),
)
_VERSION: Final = (("version", "UInt64", "grows with each rewrite; the highest is read"),)
_DAILY: Final = (
    *_BAR,
    ("pre_close", "Float64", "yuan, previous close"),
    ("after_hours_vol", "Int64", "shares of fixed-price trading after 15:05, in no minute bar"),
    ("after_hours_amount", "Float64", "yuan"),
    ("suspended", "UInt8", "1 = did not trade all day"),
    *_VERSION,
)
_TICKS: Final = (
    ("symbol", "LowCardinality(String)", "000001.SZ"),
    ("time", "DateTime64(3, 'Asia/Shanghai')", "exchange time of the snapshot"),
    ("lastPrice", "Float64", "yuan; 0 before the first trade"),
    ("open, high, low", "Float64", "of the day, yuan"),
    ("lastClose", "Float64", "previous close, yuan"),
    ("amount", "Float64", "cumulative yuan"),
    ("volume", "Int64", "cumulative lots, rounded"),
    ("pvolume", "Int64", "cumulative shares, as sent"),
    ("total_volume", "Int64", "cumulative volume in the instrument's own unit"),
    ("openInt", "Int32", "trading phase"),
    ("askPrice, bidPrice, askVol, bidVol", "Array", "five levels"),
    ("received_at", "DateTime64(3, 'Asia/Shanghai')", "wall clock at the callback"),
    ("session, seq", "String, UInt64", "feed session and its gap-free batch number"),
    ("flags", "UInt32", "what the edge noticed (market.schema.TickFlag)"),
    ("quality_score", "Float32", "0 to 1"),
    ("stored_at", "DateTime64(6)", "when ClickHouse took it"),
    ("rank", "UInt16", "of equal keys the highest counts: withdrawn, seen, baseline, the lower score"),
)
_INSTRUMENTS: Final = (
    ("day", "Date", "trading day of the list"),
    ("symbol", "LowCardinality(String)", "000001.SZ"),
    ("kind", "LowCardinality(String)", "stock, fund, index, convertible, bond, repo or other"),
    ("exchange", "LowCardinality(String)", "SH, SZ or BJ"),
    ("board", "LowCardinality(String)", "decides limits and after-hours trading"),
    ("name", "String", "as QMT shows it"),
    ("lot_size", "UInt32", "units per lot: shares, fund units, bonds"),
    ("price_tick", "Float64", "smallest step of the price"),
    ("decimals", "UInt8", "of the price"),
    ("pre_close", "Float64", "yuan"),
    ("up_stop", "Float64", "upper price limit of the day, yuan"),
    ("down_stop", "Float64", "lower price limit of the day, yuan"),
    ("open_date", "Nullable(Date32)", "day of listing"),
    ("expire_date", "Nullable(Date32)", "last day"),
    ("float_volume", "Nullable(Float64)", "units in free float"),
    ("issued_volume", "Nullable(Float64)", "units issued"),
    ("suspended", "UInt8", "1 = suspended this day"),
    ("suspended_days", "Nullable(UInt32)", "days suspended so far"),
    ("source", "LowCardinality(String)", "the feed that it comes from"),
    ("listed", "UInt8", "1 = listed this day"),
    ("kind_doubt", "String", "what the terminal's types and sectors say against the kind"),
)
_MEMBERS: Final = (
    ("day", "Date", "trading day"),
    ("sector", "LowCardinality(String)", "the terminal's name of it"),
    ("symbol", "LowCardinality(String)", "000001.SZ"),
)
_FACTORS: Final = (
    ("symbol", "LowCardinality(String)", "000001.SZ"),
    ("ex_date", "Date", "ex-dividend day"),
    ("interest, stock_bonus, stock_gift, allot_num, allot_price", "Float64", "yuan, shares and yuan per share held"),
    ("dr", "Float64", "QMT's adjustment ratio of that day"),
    ("event_a, event_b", "Float64", "front: prices before the day become event_a · p + event_b"),
)

COLUMNS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "ticks": _TICKS,
    "bars_1m": (*_BAR, *_CARRY, *_VERSION),
    "bars_5m": (*_BAR, *_VERSION),
    "bars_30m": (*_BAR, *_VERSION),
    "bars_1d": _DAILY,
    "instruments": _INSTRUMENTS,
    "sector_members": _MEMBERS,
    "adjust_factors": _FACTORS,
}


def table_metadata(settings: Settings, table: str, *, columns_of: str = "") -> dict[str, Any]:
    """Table name and column schema under the keys that Dagster's pages know."""
    columns = [dg.TableColumn(n, t, description=d) for n, t, d in COLUMNS[columns_of or table]]
    return {
        "dagster/table_name": f"{settings.clickhouse_database}.{table}",
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/relation_identifier": f"{settings.clickhouse_database}.{table}",
    }
