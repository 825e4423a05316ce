"""A minute bar as clients see it, and its two forms on the streams: an entry a bar, and an entry a closed minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from math import isfinite
from typing import Final, Literal, NamedTuple

import pyarrow.compute as pc

from qmt_orchestration.market.schema import PUBLISHED_SCHEMA
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.stream.batch import decode
from qmt_orchestration.stream.fields import require_integer

#: Where a client that was never seen before begins; one that was goes on where it stopped.
Start = Literal["beginning", "now"] | datetime

_ENTRY_BYTES: Final = 4096
_MINUTE_BYTES: Final = 16 << 20
FRAME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


class Origin(NamedTuple):
    """Where an item came from, so that it can be acknowledged. An empty *entry_id* means: from ClickHouse.

    *row* tells the bars of one entry apart, and those from ClickHouse. Of a bar in an entry with many: *seq*, its
    number on ``minute_bar_stream``, and whether the entry holds the *complete* frame, as it closed.
    """

    lane: str
    entry_id: str
    deliveries: int = 1
    row: int = 0
    seq: int = -1
    complete: bool = False


@dataclass(slots=True, unsafe_hash=True)  # frozen, 5,150 of them take three times as long to make
class Bar:
    """One minute of one symbol; not to be changed. *frame* is the end label (Asia/Shanghai), *vol* shares, prices and
    *amount* yuan.

    *revision* is 0 for the first publication of (symbol, frame), then 1, 2 … for corrections. *source* is live,
    history or filled (no trade in the minute). *deliveries* in *origin* above 1: it may have been seen before a crash.
    """

    symbol: str
    frame: datetime
    open: float
    high: float
    low: float
    close: float
    vol: int
    amount: float
    quality_score: float = 1.0
    source: str = ""
    revision: int = 0
    origin: Origin = field(default=Origin("", ""), compare=False, repr=False)

    @property
    def timestamp(self) -> int:
        """Epoch seconds of *frame*."""
        return int(self.frame.timestamp())

    @property
    def caught_up(self) -> bool:
        """Whether it came from ClickHouse, because the stream no longer had it."""
        return not self.origin.entry_id

    def fields(self) -> dict[str, str]:
        """The stream entry of this bar, all values text."""
        return {
            "symbol": self.symbol,
            "frame": self.frame.strftime(FRAME_FORMAT),
            "open": repr(self.open),
            "high": repr(self.high),
            "low": repr(self.low),
            "close": repr(self.close),
            "vol": str(self.vol),
            "amount": repr(self.amount),
            "timestamp": str(self.timestamp),
            "quality_score": f"{self.quality_score:g}",
            "source": self.source,
            "revision": str(self.revision),
        }


def parse_bar(fields: Mapping[bytes, bytes], origin: Origin) -> Bar:
    """The bar in a stream entry. `ValueError` names the field that is missing, or says why the entry is none.

    ``quality_score, source, revision`` may be absent: the user's first publisher did not send them.
    """
    if sum(map(len, fields.values())) > _ENTRY_BYTES:
        raise ValueError(f"expected the fields of a minute bar, found more than {_ENTRY_BYTES} bytes")
    try:
        bar = Bar(
            fields[b"symbol"].decode(),
            frame_of(fields[b"frame"].decode()),
            float(fields[b"open"]),
            float(fields[b"high"]),
            float(fields[b"low"]),
            float(fields[b"close"]),
            round(float(fields[b"vol"])),
            float(fields[b"amount"]),
            float(fields.get(b"quality_score", b"1")),
            fields.get(b"source", b"").decode(),
            int(fields.get(b"revision", b"0")),
            origin,
        )
        if not isfinite(bar.open + bar.high + bar.low + bar.close + bar.amount + bar.quality_score):
            raise ValueError("a value is not finite")
        return bar
    except KeyError as error:
        raise ValueError(f"expected the fields of a minute bar, field {error.args[0].decode()} is missing") from None
    except (ValueError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"expected the fields of a minute bar, one cannot be read: {error}") from None


def bars_of(fields: Mapping[bytes, bytes], origin: Origin) -> list[Bar]:
    """The bars of an entry of either form. `ValueError` says why the entry holds none."""
    if b"payload" not in fields:
        return [parse_bar(fields, origin)]
    first, complete = require_integer(fields, "first", low=0), fields.get(b"complete") == b"1"
    table = decode(fields[b"payload"], max_bytes=_MINUTE_BYTES, expected=PUBLISHED_SCHEMA)
    for name in ("open", "high", "low", "close", "amount", "quality_score"):
        if not pc.all(pc.is_finite(table.column(name)), min_count=0).as_py():
            raise ValueError(f"expected bars of finite values, found another in {name}")
    seconds = table.column("frame").cast("int64").to_numpy().tolist()
    try:
        frames = {second: datetime.fromtimestamp(second, SHANGHAI) for second in set(seconds)}
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"expected bars of a trading day, found a frame of {error}") from None
    symbols = table.column("symbol").to_numpy().tolist()
    columns = [column.to_numpy().tolist() for column in table.columns[2:]]  # a third of the time of to_pylist
    lane, entry_id, deliveries = origin[:3]
    bars = []
    for row, (symbol, second, *values) in enumerate(zip(symbols, seconds, *columns, strict=True)):
        place = Origin(lane, entry_id, deliveries, row, first + row, complete)
        bars.append(Bar(*[symbol, frames[second], *values, place]))
    return bars


@lru_cache(maxsize=1024)
def frame_of(text: str) -> datetime:
    """A frame as written on the stream, ``2025-06-05 10:30:00``, as an aware time. `ValueError` if it is none."""
    return datetime.strptime(text, FRAME_FORMAT).replace(tzinfo=SHANGHAI)
