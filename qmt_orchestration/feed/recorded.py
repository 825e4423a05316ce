"""Recorded ticks through the checks of the feed, as a live market would give them, without engines and xtquant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.feed.edge import Edge, Received
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.feed.payload import BOOKS
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market import quality
from qmt_orchestration.market.schema import BOOK_LEVELS, TICK_SCHEMA

_CHUNK_ROWS: Final = 5000
_NO_BOOK: Final = {name: [0] * BOOK_LEVELS for name in BOOKS}


def checked(recording: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The ticks of *recording* that are accepted (TICK_SCHEMA, those withdrawn too), and rows of the rejected ones.

    *recording*: RECORDED_COLUMNS with times as epoch ms, in any order (`warehouse.recordings.read_ticks`).
    """
    symbols = sorted(recording.column("symbol").unique().to_pylist())
    edge = Edge(Memory(Universe(symbols), 60.0), by_first_tick=True)
    now = int(time.time() * 1000)
    outcomes = [edge.process([Received(now, push)], None) for push in _pushes(recording)]
    outcomes.append(edge.flush())
    tables = [_stamped(outcome.table) for outcome in outcomes if outcome.table is not None]
    return pa.concat_tables(tables or [TICK_SCHEMA.empty_table()]), [row for o in outcomes for row in o.rejected]


def _pushes(recording: pa.Table) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The rows in the order of a replay, a few thousand of one day at a time: the ticks of each symbol."""
    columns = [recording.column(name).to_numpy() for name in ("amount", "pvolume", "volume", "time")]
    order = np.lexsort(columns)
    ordered, days = recording.take(pa.array(order)), quality.local_day(columns[-1][order])
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for begin, end in pairwise(bounds):
        for start in range(begin, end, _CHUNK_ROWS):
            push: dict[str, list[dict[str, Any]]] = {}
            for row in ordered.slice(start, min(_CHUNK_ROWS, end - start)).to_pylist():
                push.setdefault(row.pop("symbol"), []).append({**_NO_BOOK, **row, "transactionNum": 0})
            yield push


def _stamped(table: pa.Table) -> pa.Table:
    rows = table.num_rows
    ours = {"session": pa.repeat("recorded", rows), "seq": pa.repeat(pa.scalar(0, pa.uint64()), rows)}
    columns = [ours[name] if name in ours else table.column(name) for name in TICK_SCHEMA.names]
    return pa.table(columns, schema=TICK_SCHEMA)
