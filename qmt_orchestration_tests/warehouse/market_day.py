"""Hand-made ticks for the tests of bars: a tick at a clock time, a table of the schema, rows out again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from qmt_orchestration.market.schema import TICK_SCHEMA, TZ, TickFlag
from qmt_orchestration.market.sessions import SHANGHAI, at, to_ms
from qmt_orchestration.warehouse import bars

DAY = date(2025, 6, 5)
SYMBOL = "000001.SZ"
Tick = dict[str, Any]


def clock(text: str, day: date = DAY) -> int:
    """Epoch ms of a time like 09:30:03 or 11:30:00.5 on *day* in Shanghai."""
    hours, minutes, seconds = text.split(":")
    return to_ms(at(day, int(hours) * 60 + int(minutes))) + round(float(seconds) * 1000)


def tick(when: str | int, price: float, shares: int, *, symbol: str = SYMBOL, day: date = DAY, **changes: Any) -> Tick:
    """A snapshot: cumulative *shares*, amount 10 yuan a share, the day's range 9 … 11 unless said otherwise."""
    traded = shares > 0
    row: Tick = {
        "symbol": symbol,
        "time": when if isinstance(when, int) else clock(when, day),
        "lastPrice": price,
        "open": 10.0 if traded else 0.0,
        "high": changes.pop("high", max(price, 10.0) if traded else 0.0),
        "low": changes.pop("low", min(price, 10.0) if traded else 0.0),
        "lastClose": 10.0,
        "amount": changes.pop("amount", shares * 10.0),
        "volume": changes.pop("volume", shares // 100),
        "pvolume": changes.pop("pvolume", shares),
        "openInt": 13,
        "flags": 0,
        "quality_score": 1.0,
    }
    lots = int(row["volume"]) * 100
    total = row["pvolume"] if abs(lots - int(row["pvolume"])) <= 100 else lots
    return {**row, "total_volume": total, **changes}


def baseline(when: str, price: float, shares: int, **changes: Any) -> Tick:
    """The first snapshot after a gap of coverage."""
    return tick(when, price, shares, flags=int(TickFlag.BASELINE), **changes)


def with_day_range(ticks: Iterable[Tick]) -> list[Tick]:
    """The same ticks with the day's high and low as they run on from lastPrice of traded ticks."""
    high, low, out = 0.0, 1e9, []
    for row in ticks:
        if row["volume"] > 0:
            high, low = max(high, row["lastPrice"]), min(low, row["lastPrice"])
            row = {**row, "high": high, "low": low}
        out.append(row)
    return out


def table(ticks: Sequence[Tick]) -> pa.Table:
    """Ticks as an Arrow table of exactly TICK_SCHEMA."""
    now = to_ms(datetime.now(SHANGHAI))
    empty: dict[str, Any] = {"received_at": now, "session": "test", "seq": 0, "stockStatus": 0, "transactionNum": 0}
    arrays = []
    for field in TICK_SCHEMA:
        if pa.types.is_list(field.type):
            values: list[Any] = [[] for _ in ticks]
        else:
            values = [row.get(field.name, empty.get(field.name)) for row in ticks]
        arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=TICK_SCHEMA)


def store(client: Any, ticks: Sequence[Tick], *, seconds_ago: int = 0) -> None:
    """Insert ticks as the writer does: one block; *seconds_ago*: as if they had been stored that long before now."""
    found = table(ticks)
    if seconds_ago:
        stored = pa.array([to_ms(datetime.now(SHANGHAI)) - 1000 * seconds_ago] * len(ticks), pa.timestamp("ms", TZ))
        found = found.append_column("stored_at", stored)
    client.insert_arrow("ticks", found)


COLUMNS = "symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score"


def rows(client: Any, source: str = "bars_1m") -> list[tuple[Any, ...]]:
    """Rows of a table of bars without versions, ordered."""
    return [tuple(r) for r in client.query(f"SELECT {COLUMNS} FROM {source} ORDER BY symbol, frame").result_rows]


def bar(client: Any, label: str, symbol: str = SYMBOL, source: str = "bars_1m") -> dict[str, Any] | None:
    """One bar by its label (HH:MM), None when there is none."""
    found = [
        dict(zip(COLUMNS.split(", "), r, strict=True))
        for r in rows(client, source)
        if r[0] == symbol and f"{r[1].astimezone(SHANGHAI):%H:%M}" == label
    ]
    assert len(found) <= 1
    return found[0] if found else None


def ohlcv(found: dict[str, Any] | None) -> tuple[Any, ...] | None:
    """open, high, low, close, vol of a bar."""
    return tuple(found[k] for k in ("open", "high", "low", "close", "vol")) if found else None


def made(client: Any, ticks: Sequence[Tick], day: date = DAY) -> Any:
    """Store the ticks and make the day final; the client."""
    store(client, ticks)
    bars.finalize(client, day)
    return client
