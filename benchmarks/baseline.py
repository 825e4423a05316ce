"""The user's present design, measured in the same run: one JSON LPUSH per row, BRPOP, batch insert of 1,000 rows."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.report import Figure
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.warehouse.client import connect as connect_clickhouse

BATCH = 1000


def row(i: int) -> dict[str, object]:
    """A tick as the present scripts send it."""
    return {
        "symbol": f"{i % 5150:06d}.SZ", "time": 1749087000000 + i, "lastPrice": 11.39, "open": 11.39, "high": 11.4,
        "low": 11.31, "lastClose": 11.38, "amount": 8.6e8 + i, "volume": 758613 + i, "pvolume": 75861284 + i * 100,
        "stockStatus": 3, "openInt": 13, "transactionNum": 37062,
        "askPrice": [11.4, 11.41, 11.42, 11.43, 11.44], "bidPrice": [11.39, 11.38, 11.37, 11.36, 11.35],
        "askVol": [10929, 12401, 6671, 4555, 6708], "bidVol": [2429, 7127, 7146, 9111, 12189],
    }  # fmt: skip


def run(settings: Settings, count: int) -> dict[str, float]:
    """Rows a second: ``publish`` (JSON + LPUSH) and ``store`` (BRPOP + JSON + batch insert), over *count* rows."""
    redis: Any = connect_redis(settings)
    client = connect_clickhouse(settings)
    columns = ["symbol", "time", "lastPrice", "volume", "amount"]
    client.command(
        "CREATE OR REPLACE TABLE baseline_rows (symbol String, time Int64, lastPrice Float64, volume Int64,"
        " amount Float64) ENGINE = MergeTree ORDER BY (symbol, time)"
    )
    redis.delete("baseline")
    rows = [row(i) for i in range(count)]
    started = time.perf_counter()
    for item in rows:
        redis.lpush("baseline", json.dumps(item))
    publish = count / (time.perf_counter() - started)
    started = time.perf_counter()
    batch: list[list[object]] = []
    for _ in range(count):
        popped = redis.brpop(["baseline"], timeout=1)
        item = json.loads(popped[1])
        batch.append([item[c] for c in columns])
        if len(batch) == BATCH:
            client.insert("baseline_rows", batch, column_names=columns)
            batch = []
    store = count / (time.perf_counter() - started)
    client.command("DROP TABLE baseline_rows")
    return {"publish": publish, "store": store}


def figures(rates: dict[str, float]) -> list[Figure]:
    """The baseline as rows of the report."""
    return [
        Figure("present design: JSON LPUSH a row", rates["publish"], "rows/s"),
        Figure("present design: BRPOP + insert of 1,000", rates["store"], "rows/s"),
    ]
