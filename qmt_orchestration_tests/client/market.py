"""A small market for the tests: bars whose every value follows from symbol and frame."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from zlib import crc32

from qmt_orchestration.client.bar import Bar
from qmt_orchestration.market.sessions import minute_frames
from qmt_orchestration.stream import keys

DAY = date(2025, 6, 5)
FRAMES = minute_frames(DAY)
SYMBOLS = [f"{600000 + i}.SH" for i in range(12)] + [f"{i:06}.SZ" for i in range(1, 13)] + ["300001.SZ", "830001.BJ"]


def bar(symbol: str, frame: datetime, revision: int = 0) -> Bar:
    """The one true bar of (symbol, frame)."""
    price = 10 + crc32(f"{symbol}{frame:%H%M}".encode()) % 500 / 100
    vol = crc32(symbol.encode()) % 900 * 100
    low, high = round(price - 0.01, 2), round(price + 0.02, 2)
    return Bar(symbol, frame, price, high, low, price, vol, vol * price, 1.0, "live", revision)


def publish(client: Any, bars: Iterable[Bar], *, stream: str = keys.BARS) -> list[str]:
    """Put bars on the stream, as the publisher does (ids carry the frame); returns their ids."""
    pipe = client.pipeline(transaction=False)
    top = client.xinfo_stream(stream)["last-generated-id"].decode() if client.exists(stream) else "0-0"
    ms, n = (int(part) for part in top.split("-"))
    for item in bars:
        ms, n = (item.timestamp * 1000, 0) if item.timestamp * 1000 > ms else (ms, n + 1)
        pipe.xadd(stream, item.fields(), id=f"{ms}-{n}")
        pipe.hset(keys.PUBLISHED, item.frame.date().isoformat(), item.timestamp * 1000)
    return [id_.decode() for id_ in pipe.execute()[::2]]


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
