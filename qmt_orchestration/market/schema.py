"""The tick: its columns, types and units, in one Arrow schema shared by feed, stream and warehouse.

The first block carries xtdata's own field names (Level-1 snapshot, xtquant ``doc/xtdata.md``); the second is ours.
Anything that is not exactly this schema is refused (`check_schema`): ClickHouse would silently turn an
int64 into a far date, a null into 0 and a missing column into its default.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import pyarrow as pa

TZ: Final = "Asia/Shanghai"
BOOK_LEVELS: Final = 5

TICK_SCHEMA: Final = pa.schema(
    [
        # -- xtdata's fields --
        pa.field("symbol", pa.string(), nullable=False),  # 000001.SZ
        pa.field("time", pa.timestamp("ms", TZ), nullable=False),  # exchange time of the snapshot
        pa.field("lastPrice", pa.float64(), nullable=False),  # yuan; 0 before the first trade
        pa.field("open", pa.float64(), nullable=False),  # of the day
        pa.field("high", pa.float64(), nullable=False),  # of the day
        pa.field("low", pa.float64(), nullable=False),  # of the day
        pa.field("lastClose", pa.float64(), nullable=False),
        pa.field("amount", pa.float64(), nullable=False),  # cumulative yuan
        pa.field("volume", pa.int64(), nullable=False),  # cumulative lots, rounded
        pa.field("pvolume", pa.int64(), nullable=False),  # cumulative shares, as sent (can be 0 or lots)
        pa.field("stockStatus", pa.int32(), nullable=False),
        pa.field("openInt", pa.int32(), nullable=False),  # trading phase for stocks
        pa.field("transactionNum", pa.int64(), nullable=False),
        pa.field("askPrice", pa.list_(pa.float64()), nullable=False),  # 5 levels
        pa.field("bidPrice", pa.list_(pa.float64()), nullable=False),
        pa.field("askVol", pa.list_(pa.int64()), nullable=False),  # lots
        pa.field("bidVol", pa.list_(pa.int64()), nullable=False),
        # -- ours --
        pa.field("total_volume", pa.int64(), nullable=False),  # cumulative, the instrument's own unit
        pa.field("received_at", pa.timestamp("ms", TZ), nullable=False),  # wall clock at the callback
        pa.field("session", pa.string(), nullable=False),  # feed session that published it
        pa.field("seq", pa.uint64(), nullable=False),  # batch number in the session, gap-free
        pa.field("flags", pa.uint32(), nullable=False),  # TickFlag
        pa.field("quality_score", pa.float32(), nullable=False),  # [0, 1]
    ]
)

#: The schema before ``total_volume``: entries of it may still be in Redis or in a spool (`stream.batch.decode`).
TICK_SCHEMA_V1: Final = pa.schema([field for field in TICK_SCHEMA if field.name != "total_volume"])

#: What a recording must carry (``qmt replay``); the other columns are filled with zeros / empty books.
RECORDED_COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("symbol", "string"),
    ("time", "integer, epoch ms"),
    ("lastPrice", "number"),
    ("open", "number"),
    ("high", "number"),
    ("low", "number"),
    ("lastClose", "number"),
    ("amount", "number"),
    ("volume", "integer"),
    ("pvolume", "integer"),
    ("stockStatus", "integer"),
    ("openInt", "integer"),
)

#: Bars as a terminal's history or another source gives them: end labels, vol in units, amount in yuan, not adjusted.
BAR_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("frame", pa.timestamp("s", TZ), nullable=False),  # end label; of a daily bar the day's 15:00
        pa.field("open", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("vol", pa.int64(), nullable=False),  # the instrument's own unit
        pa.field("amount", pa.float64(), nullable=False),  # yuan
    ]
)

#: Bars as clients get them: closed minutes on the stream, files of a sink.
PUBLISHED_SCHEMA: Final = pa.schema(
    [
        *BAR_SCHEMA,
        pa.field("quality_score", pa.float64(), nullable=False),  # [0, 1]
        pa.field("source", pa.string(), nullable=False),  # live, history, filled
        pa.field("revision", pa.int64(), nullable=False),  # 0 = first publication of (symbol, frame)
    ]
)

REJECTED_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("ms", TZ), nullable=False),  # of the tick; received_at when unreadable
        pa.field("received_at", pa.timestamp("ms", TZ), nullable=False),
        pa.field("session", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # market.quality.Reason value
        pa.field("detail", pa.string(), nullable=False),  # expected … found …
        pa.field("payload", pa.string(), nullable=False),  # the tick as JSON, cut at 4 KiB
    ]
)


class TickFlag(IntFlag):
    """Bits of the ``flags`` column; each lowers ``quality_score`` or changes how a bar uses the tick."""

    BASELINE = 1  # first snapshot of a symbol after a coverage gap: sets the base, never a trade of its minute
    LOTS_GUARD = 2  # |volume×100 − pvolume| > 100: shares are volume×100
    OUTSIDE_LIMITS = 4  # lastPrice outside the day's price limits
    UNIT_MISMATCH = 8  # amount/shares outside the day's [low, high]
    OUTSIDE_SESSION = 16  # time outside every trading phase of the day
    CLOCK_SKEW = 32  # time ahead of the local clock by more than the tolerance
    SNAPSHOT = 64  # came with a full snapshot or a re-seed, not as a change
    WITHDRAWN = 128  # proved wrong later: its key is published again with this bit, and bars ignore it
    CARRIED = 256  # the terminal's counters began again in mid-session: volume and amount go on from before


class SchemaError(ValueError):
    """A table is not of the expected schema; the message names column, expected type and what came."""


def check_schema(actual: pa.Schema, expected: pa.Schema = TICK_SCHEMA) -> None:
    """Raise `SchemaError` unless *actual* has exactly the columns and types of *expected*, in order."""
    if actual.equals(expected):
        return
    if actual.names != expected.names:
        missing = [n for n in expected.names if n not in actual.names]
        extra = [n for n in actual.names if n not in expected.names]
        raise SchemaError(f"columns differ: missing {missing}, unexpected {extra}, expected in order {expected.names}")
    for want, got in zip(expected, actual, strict=True):
        if not got.type.equals(want.type):
            raise SchemaError(f"column {want.name}: expected {want.type}, found {got.type}")
