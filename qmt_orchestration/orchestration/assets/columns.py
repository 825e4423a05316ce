"""What Dagster's pages show of each table: its columns as the DDL has them, with their meaning; owners."""

from __future__ import annotations

from typing import Any, Final

import dagster as dg

from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.tables import column_types

OWNER: Final = "team:market-data"
FEED_OWNER: Final = "team:feed"

#: By column, where needed by table and column.
_MEANING: Final = {
    **dict.fromkeys(("open", "high", "low", "close", "pre_close", "amount", "after_hours_amount"), "yuan"),
    **dict.fromkeys(("ticks.open", "ticks.high", "ticks.low"), "of the day, yuan"),
    **dict.fromkeys(("cum_volume", "cum_amount"), "the day's volume and amount in its ticks up to the frame"),
    **dict.fromkeys(("day_open", "day_high", "day_low"), "the day's values in its ticks up to the frame, yuan"),
    **dict.fromkeys(("askPrice", "bidPrice", "askVol", "bidVol"), "five levels"),
    **dict.fromkeys(("interest", "allot_price"), "yuan per share held"),
    **dict.fromkeys(("stock_bonus", "stock_gift", "allot_num"), "shares per share held"),
    **dict.fromkeys(("event_a", "event_b"), "front: prices before the day become event_a · p + event_b"),
    "symbol": "000001.SZ",
    "frame": "end label of the bar",
    "vol": "shares",
    "source": "live = from ticks, history = from QMT's bars, filled = no trade in the minute",
    "ticks": "snapshots seen",
    "quality_score": "0 to 1, from its ticks",
    "version": "grows with each rewrite; the highest is read",
    "last_price": "of the newest tick up to the frame, yuan",
    "after_hours_vol": "shares of fixed-price trading after 15:05, in no minute bar",
    "suspended": "1 = no trade all day",
    "time": "exchange time of the snapshot",
    "lastPrice": "yuan; 0 before the first trade",
    "lastClose": "previous close, yuan",
    "ticks.amount": "cumulative yuan",
    "volume": "cumulative lots, rounded",
    "pvolume": "cumulative shares, as sent",
    "total_volume": "cumulative volume in the instrument's own unit",
    "openInt": "trading phase",
    "received_at": "wall clock at the callback",
    "session": "feed session",
    "seq": "number of the batch in its session, without gaps",
    "flags": "what the checks at ingestion noticed (market.schema.TickFlag)",
    "stored_at": "when ClickHouse stored it",
    "rank": "of equal keys the highest counts: withdrawn, seen, baseline, the lower score",
    "day": "trading day",
    "kind": "stock, fund, index, convertible, bond, repo or other",
    "exchange": "SH, SZ or BJ",
    "board": "decides limits and after-hours trading",
    "name": "as QMT shows it",
    "lot_size": "units per lot: shares, fund units, bonds",
    "price_tick": "smallest step of the price",
    "decimals": "of the price",
    "up_stop": "upper price limit of the day, yuan",
    "down_stop": "lower price limit of the day, yuan",
    "open_date": "day of listing",
    "expire_date": "last day",
    "float_volume": "units in free float",
    "issued_volume": "units issued",
    "suspended_days": "days suspended so far",
    "instruments.source": "the feed that it comes from",
    "listed": "1 = listed this day",
    "kind_doubt": "what the terminal's types and sectors say against the kind",
    "sector": "the terminal's name of it",
    "ex_date": "ex-dividend day",
    "dr": "QMT's adjustment ratio of that day",
}


def table_metadata(settings: Settings, table: str) -> dict[str, Any]:
    """Table name and column schema under the keys that Dagster's pages know."""
    columns = [
        dg.TableColumn(name, kind, description=_MEANING.get(f"{table}.{name}", _MEANING.get(name)))
        for name, kind in column_types(table).items()
    ]
    return {
        "dagster/table_name": f"{settings.clickhouse_database}.{table}",
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/relation_identifier": f"{settings.clickhouse_database}.{table}",
    }
