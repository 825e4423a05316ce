"""A small market for the tests: bars whose every value follows from symbol and frame."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from itertools import groupby
from typing import Any
from zlib import crc32

import pyarrow as pa

from qmt_orchestration.client.bar import Bar
from qmt_orchestration.market.schema import PUBLISHED_SCHEMA
from qmt_orchestration.market.sessions import minute_frames
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import encode

DAY = date(2025, 6, 5)
FRAMES = minute_frames(DAY)
SYMBOLS = [f"{600000 + i}.SH" for i in range(12)] + [f"{i:06}.SZ" for i in range(1, 13)] + ["300001.SZ", "830001.BJ"]


def bar(symbol: str, frame: datetime, revision: int = 0) -> Bar:
    """The one true bar of (symbol, frame)."""
    price = 10 + crc32(f"{symbol}{frame:%H%M}".encode()) % 500 / 100
    vol = crc32(symbol.encode()) % 900 * 100
    low, high = round(price - 0.01, 2), round(price + 0.02, 2)
    return Bar(symbol, frame, price, high, low, price, vol, vol * price, 1.0, "live", revision)


def publish(client: Any, bars: Iterable[Bar]) -> list[str]:
    """Put bars on both streams, as the publisher does (ids carry the frame); returns the ids of single bars."""
    sent = list(bars)
    ids = _add(client, keys.BARS, [(item.timestamp * 1000, item.fields()) for item in sent])
    minutes = []
    for (ms, revised), group in groupby(sent, lambda item: (item.timestamp * 1000, item.revision > 0)):
        rows = [{name: getattr(item, name) for name in PUBLISHED_SCHEMA.names} for item in group]
        first = client.incrby(keys.BARS_SEQ, len(rows)) - len(rows)
        payload = encode(pa.Table.from_pylist(rows, schema=PUBLISHED_SCHEMA))
        minutes.append((ms, {"payload": payload, "first": first, "complete": int(not revised)}))
    _add(client, keys.MINUTES, minutes)
    for item in sent:
        client.hset(keys.PUBLISHED, item.frame.date().isoformat(), item.timestamp * 1000)
    return ids


def _add(client: Any, stream: str, entries: list[tuple[int, dict[str, Any]]]) -> list[str]:
    pipe = client.pipeline(transaction=False)
    top = client.xinfo_stream(stream)["last-generated-id"].decode() if client.exists(stream) else "0-0"
    ms, n = (int(part) for part in top.split("-"))
    for at, fields in entries:
        ms, n = (at, 0) if at > ms else (ms, n + 1)
        pipe.xadd(stream, fields, id=f"{ms}-{n}")
    return [id_.decode() for id_ in pipe.execute()]


def minute(frame: datetime, symbols: Iterable[str] = SYMBOLS) -> list[Bar]:
    """The bars of one minute."""
    return [bar(symbol, frame) for symbol in symbols]


def store(clickhouse: Any, bars: Iterable[Bar]) -> None:
    """Put bars into bars_1m, as the finalization does."""
    names = ["symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks", "quality_score"]
    rows = [
        [b.symbol, b.frame, b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, 20, b.quality_score, 1]
        for b in bars
    ]
    clickhouse.insert("bars_1m", rows, column_names=[*names, "version"])
