"""A small market for the tests: ticks of three symbols over a whole day, consistent in every field, always the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from qmt_orchestration.market.schema import BOOK_LEVELS, TICK_SCHEMA, TZ
from qmt_orchestration.market.sessions import at, to_ms

DAY = date(2025, 6, 5)
SYMBOLS = ("000001.SZ", "300750.SZ", "600000.SH")
SESSION = "test-replay-1"
BATCH_ROWS = 100
PRE_CLOSE = 10.0
FRAMES = 241 * len(SYMBOLS)


def _seconds() -> np.ndarray[Any, Any]:
    """Seconds since midnight of the snapshots: the auction, two halves every 3 s, the closing price."""
    morning = np.arange(34200, 41400, 3)
    afternoon = np.arange(46800, 53820, 3)
    return np.concatenate([[33900], morning, [41400], afternoon, [54000]])


def ticks(day: date = DAY, symbols: Sequence[str] = SYMBOLS, session: str = SESSION, delay_ms: int = 200) -> pa.Table:
    """Ticks in time order with gap-free batch numbers of BATCH_ROWS rows, received *delay_ms* after their time."""
    seconds, midnight = _seconds(), to_ms(at(day, 0))
    columns: dict[str, list[Any]] = {name: [] for name in ("symbol", "ms", "price", "high", "low", "shares", "amount")}
    for n, symbol in enumerate(symbols):
        rng = np.random.default_rng(1000 + n)
        price = np.round(PRE_CLOSE + np.clip(np.cumsum(rng.integers(-1, 2, len(seconds))) * 0.01, -0.9, 0.9), 2)
        price[-1] = price[-2]
        traded = rng.integers(1, 20, len(seconds)) * 100
        columns["symbol"].append(np.full(len(seconds), symbol))
        columns["ms"].append(midnight + seconds * 1000 + n)
        columns["price"].append(price)
        columns["high"].append(np.maximum.accumulate(price))
        columns["low"].append(np.minimum.accumulate(price))
        columns["shares"].append(np.cumsum(traded))
        columns["amount"].append(np.round(np.cumsum(traded * price), 2))
    flat = {name: np.concatenate(parts) for name, parts in columns.items()}
    flat = {name: values[np.argsort(flat["ms"], kind="stable")] for name, values in flat.items()}
    rows = len(flat["ms"])
    opening = dict(zip(flat["symbol"][: len(symbols)], flat["price"][: len(symbols)], strict=True))
    book = pa.array([[0.0] * BOOK_LEVELS] * rows, pa.list_(pa.float64()))
    lots = pa.array([[0] * BOOK_LEVELS] * rows, pa.list_(pa.int64()))
    zero = np.zeros(rows, dtype=np.int64)
    data = {
        "symbol": flat["symbol"],
        "time": pa.array(flat["ms"]).cast(pa.timestamp("ms", TZ)),
        "lastPrice": flat["price"],
        "open": np.array([opening[s] for s in flat["symbol"]]),
        "high": flat["high"],
        "low": flat["low"],
        "lastClose": np.full(rows, PRE_CLOSE),
        "amount": flat["amount"],
        "volume": flat["shares"] // 100,
        "pvolume": flat["shares"],
        "total_volume": flat["shares"],
        "stockStatus": zero,
        "openInt": zero + 13,
        "transactionNum": zero,
        "askPrice": book,
        "bidPrice": book,
        "askVol": lots,
        "bidVol": lots,
        "received_at": pa.array(flat["ms"] + delay_ms).cast(pa.timestamp("ms", TZ)),
        "session": np.full(rows, session),
        "seq": np.arange(rows) // BATCH_ROWS,
        "flags": zero,
        "quality_score": np.ones(rows),
    }
    arrays = [pa.array(data[f.name]).cast(f.type) for f in TICK_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=TICK_SCHEMA)


def insert_ticks(client: Any, table: pa.Table | None = None) -> pa.Table:
    """Put ticks into the warehouse as the writer does; the table inserted."""
    chosen = ticks() if table is None else table
    client.insert_arrow("ticks", chosen)
    return chosen


def make_bars(client: Any, day: date = DAY) -> None:
    """All bars of a day from its ticks, by the functions that the assets call."""
    from qmt_orchestration.warehouse import bars

    bars.finalize(client, day)
    for period in ("5m", "30m", "1d"):
        bars.roll_up(client, day, period)


def insert_qmt_bars(client: Any, day: date = DAY) -> None:
    """QMT's own bars of a day, equal to ours: 1m and 1d."""
    columns = "symbol, frame, open, high, low, close, vol, amount"
    for period in ("1m", "1d"):
        client.command(
            f"INSERT INTO qmt_bars (period, {columns}) SELECT '{period}', {columns} FROM bars_{period} "
            "WHERE toDate(frame) = {day:Date}",
            parameters={"day": day},
        )


def insert_instruments(client: Any, day: date = DAY, symbols: Sequence[str] = SYMBOLS) -> None:
    """The instrument list of a day, every symbol listed and trading, limits of 10 %."""
    rows = [[day, s, s[:6], "sz_main", PRE_CLOSE, PRE_CLOSE * 1.1, PRE_CLOSE * 0.9, 0, 1] for s in symbols]
    names = ["day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended", "listed"]
    client.insert("instruments", rows, column_names=names)
