"""One snapshot of the whole market into ClickHouse over HTTP, as the writer inserts it: token, settings."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from benchmarks.common import WHOLE_MARKET, cpu_seconds, engine_process, fresh, percentile, pushes
from benchmarks.report import Figure
from qmt_orchestration.feed.payload import to_columns
from qmt_orchestration.market.quality import shares_of
from qmt_orchestration.market.schema import TICK_SCHEMA, TZ
from qmt_orchestration.stream.batch import encode
from qmt_orchestration.warehouse.client import INSERT_SETTINGS, connect
from qmt_orchestration.warehouse.ingest.insert import SETTINGS


def snapshots(count: int) -> list[pa.Table]:
    """*count* tables of TICK_SCHEMA with one tick of nearly every symbol each, 3 s apart."""
    merged: list[dict[str, Any]] = [{}]
    for _, push in pushes(WHOLE_MARKET, 600, WHOLE_MARKET * (count + 1) * 2):
        if len(merged[-1]) + len(push) > WHOLE_MARKET:
            merged.append({})
        merged[-1].update(push)
        if len(merged) > count:
            break
    return [table_of(push, seq) for seq, push in enumerate(merged[:count])]


def table_of(push: dict[str, Any], seq: int) -> pa.Table:
    """The table that a subscriber would publish for *push*."""
    columns, _, failed = to_columns(list(push.values()))
    if failed:
        raise RuntimeError(f"the simulated market gave {len(failed)} unreadable ticks: {failed[0][1]}")
    rows = len(push)
    stamp = pa.timestamp("ms", TZ)
    total, _ = shares_of(columns["volume"].to_numpy(), columns["pvolume"].to_numpy())
    ours = {
        "total_volume": pa.array(total),
        "symbol": pa.array(list(push)),
        "time": columns["time"].cast(stamp),
        "received_at": pa.repeat(pa.scalar(int(time.time() * 1000)), rows).cast(stamp),
        "session": pa.repeat("benchmark", rows),
        "seq": pa.repeat(pa.scalar(seq, pa.uint64()), rows),
        "flags": pa.repeat(pa.scalar(0, pa.uint32()), rows),
        "quality_score": pa.repeat(pa.scalar(1.0, pa.float32()), rows),
    }
    return pa.table([ours.get(n, columns.get(n)) for n in TICK_SCHEMA.names], schema=TICK_SCHEMA).combine_chunks()


def run(quick: bool) -> list[Figure]:
    """Latency of single inserts, one after the other."""
    tables = snapshots(20 if quick else 150)
    with fresh() as settings:
        client = connect(settings)
        engine = engine_process(settings, "clickhouse")
        times: list[float] = []
        for seq, table in enumerate(tables):
            if seq == 10:  # the first ones make parts, caches and threads
                before = cpu_seconds(engine)
                times.clear()
            chosen = {**INSERT_SETTINGS, **SETTINGS, "insert_deduplication_token": f"benchmark:{seq}"}
            block = encode(table)
            started = time.perf_counter()
            client.raw_insert("ticks", TICK_SCHEMA.names, insert_block=block, settings=chosen, fmt="ArrowStream")
            times.append((time.perf_counter() - started) * 1000)
        cpu = (cpu_seconds(engine) - before) / len(times) * 1000
        rows = sum(table.num_rows for table in tables) // len(tables)
        stored = int(client.query("SELECT count() FROM ticks").first_row[0])
        if stored != sum(table.num_rows for table in tables):
            raise RuntimeError(f"expected {sum(t.num_rows for t in tables)} ticks stored, found {stored}")
    p50 = percentile(times, 0.5)
    return [
        Figure(f"insert of {rows:,} ticks over HTTP, p50", p50, "ms", "≤ 20 ms", p50 <= 20),
        Figure("  p99", percentile(times, 0.99), "ms"),
        Figure("  processor time of ClickHouse", cpu, "ms an insert"),
    ]
