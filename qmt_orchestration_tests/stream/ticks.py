"""Synthetic tick batches for tests of the transport: valid in form, plain in content."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from qmt_orchestration.market.calendar import previous_trading_day
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.market.sessions import SHANGHAI, at, to_ms
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import Batch

#: 10:00 in Shanghai of the last trading day before yesterday: recent, because old ticks fall to the TTL of the table.
START_MS = to_ms(at(previous_trading_day((datetime.now(SHANGHAI) - timedelta(days=1)).date()), 600))


def tick_table(rows: int, *, seq: int = 0, session: str = "host-test-1", start_ms: int = START_MS) -> pa.Table:
    """*rows* ticks, each of its own key: 100 symbols, 1 ms apart, later for higher *seq*."""
    base = start_ms + seq * 10
    columns: list[Any] = []
    for field in TICK_SCHEMA:
        kind = field.type
        if field.name == "symbol":
            column = pa.array([f"{600000 + i % 100}.SH" for i in range(rows)])
        elif field.name == "time" or field.name == "received_at":
            column = pa.array(np.full(rows, base)).cast(kind)
        elif field.name in ("pvolume", "total_volume"):
            column = pa.array(np.arange(rows) + seq * rows + 1, kind)
        elif field.name == "quality_score":
            column = pa.array(np.ones(rows), kind)
        elif field.name == "session":
            column = pa.array([session] * rows)
        elif field.name == "seq":
            column = pa.array([seq] * rows, kind)
        elif pa.types.is_list(kind):
            column = pa.array([[1, 2, 3, 4, 5]] * rows, kind)
        else:
            column = pa.array(np.full(rows, 10)).cast(kind)
        columns.append(column)
    return pa.table(columns, schema=TICK_SCHEMA)


def publish(
    client: Any, seqs: range | list[int], rows: int = 200, *, shard: int = 0, session: str = "host-test-1"
) -> int:
    """Publish one batch per sequence number; returns the ticks published."""
    for seq in seqs:
        fields: Any = Batch(session, seq, tick_table(rows, seq=seq, session=session), START_MS + seq).fields()
        client.xadd(keys.ticks(shard), fields)
    return len(seqs) * rows
