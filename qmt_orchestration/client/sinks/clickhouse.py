"""Bars into a second ClickHouse: ``python -m qmt_orchestration.client.sinks.clickhouse URL [CLIENT_ID]``.

User and password come from ``SINK_CLICKHOUSE_USERNAME`` and ``SINK_CLICKHOUSE_PASSWORD``. The table replaces rows of
equal (symbol, frame) by the higher revision, so a batch that comes again after a crash changes nothing: read it with
FINAL.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from qmt_orchestration.client import Bar, BarConsumer
from qmt_orchestration.warehouse.client import with_retry

TABLE = """CREATE TABLE IF NOT EXISTS minute_bars_copy (
    symbol LowCardinality(String), frame DateTime('Asia/Shanghai'),
    open Float64, high Float64, low Float64, close Float64, vol Int64, amount Float64,
    quality_score Float64, source LowCardinality(String), revision UInt32
) ENGINE = ReplacingMergeTree(revision) PARTITION BY toYYYYMM(frame) ORDER BY (toDate(frame), symbol, frame)"""
COLUMNS = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount", "quality_score", "source", "revision")


def write(client: Any, bars: list[Bar]) -> None:
    """Insert *bars*; passing errors of the server are tried again for half a minute, others are raised."""
    rows = [[getattr(bar, name) for name in COLUMNS] for bar in bars]
    with_retry(lambda: client.insert("minute_bars_copy", rows, column_names=COLUMNS))


def open_client(url: str) -> Any:
    """A client of the second ClickHouse, with the table made."""
    import clickhouse_connect

    client = clickhouse_connect.get_client(
        dsn=url,
        username=os.environ.get("SINK_CLICKHOUSE_USERNAME", "default"),
        password=os.environ.get("SINK_CLICKHOUSE_PASSWORD", ""),
        autogenerate_session_id=False,
    )
    client.command(TABLE)
    return client


def main(url: str, client_id: str = "second_clickhouse") -> None:
    """Run until stopped. An outage beyond the retries ends the process: nothing is acknowledged, a restart goes on."""
    client = open_client(url)
    with BarConsumer(client_id, start="beginning", catch_up=True) as consumer:
        for bars in consumer.batches():
            write(client, bars)


if __name__ == "__main__":
    main(*sys.argv[1:3])
