"""The warehouse's arithmetic at full size: one day of 24 M ticks to bars and rollups, one minute late in the day."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import DAY, WHOLE_MARKET, fresh
from benchmarks.report import Figure
from qmt_orchestration.client import bars as bars_of
from qmt_orchestration.client import reading, snapshot
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect

SYMBOLS, SNAPSHOTS, CHUNK = WHOLE_MARKET, 4660, 515
ONE_SYMBOL = (
    "SELECT * FROM ticks WHERE symbol = {symbol:String} AND toYYYYMMDD(time) = toYYYYMMDD({day:Date}) ORDER BY time"
)
SIZE = """SELECT sum(bytes_on_disk) FROM system.parts
WHERE active AND database = currentDatabase() AND table = 'bars_1m'"""


def fill_day(client: Any, day: date, symbols: int = SYMBOLS) -> float:
    """Insert the synthetic day of *symbols*; rows a second."""
    sql = Path(__file__).with_name("day.sql").read_text()
    chunk = min(CHUNK, symbols)
    started = time.perf_counter()
    for first in range(0, symbols, chunk):
        parameters = {"symbols": chunk, "snapshots": SNAPSHOTS, "first_symbol": first, "day": day}
        client.command(sql, parameters=parameters)
    return symbols * SNAPSHOTS / (time.perf_counter() - started)


def run(quick: bool) -> list[Figure]:
    """Each step's best of two, as a day is rebuilt again and again with the same outcome."""
    symbols = 103 if quick else SYMBOLS
    with fresh() as settings:
        client = connect(settings)
        insert_rate = fill_day(client, DAY, symbols)
        client.command("OPTIMIZE TABLE ticks FINAL")  # as the night leaves a day; live, most of it is merged too
        finalize, written = _timed(lambda: bars.finalize(client, DAY))
        again = _best(lambda: bars.finalize(client, DAY))
        rollups = {period: _timed(partial(bars.roll_up, client, DAY, period))[0] for period in ("5m", "30m", "1d")}
        last = client.query("SELECT DISTINCT frame FROM bars_1m ORDER BY frame DESC LIMIT 1 OFFSET 2").first_row[0]
        minute = _best(lambda: bars.finalize(client, DAY, last, last))
        one = _best(lambda: client.query_arrow(ONE_SYMBOL, parameters={"day": DAY, "symbol": "000007.SZ"}))
        size = client.query(SIZE).first_row[0]
        arrow = _best(lambda: bars_of(None, DAY, DAY, as_="arrow", settings=settings))
        first_quotes, _ = _timed(lambda: snapshot(as_="arrow", settings=settings))
        quotes = 1000 * _best(lambda: snapshot(as_="arrow", settings=settings))
        reading.close()
    if written.symbols != symbols:
        raise RuntimeError(f"expected bars of {symbols} symbols, found {written.symbols}")
    all_rollups = sum(rollups.values())
    return [
        Figure("in-engine insert of a day's ticks", insert_rate, "ticks/s", "", None, "store"),
        Figure(f"rebuild a day: {symbols * SNAPSHOTS / 1e6:.1f} M ticks to bars_1m, compared, with carry", finalize,
               "s", "≤ 2.5 s", finalize <= 2.5),
        Figure("  when nothing changed", again, "s"),
        Figure("  bars of that day", float(written.rows), "rows"),
        Figure("  bars_1m on disk", size / written.rows, "bytes a bar", "≤ 6", size / written.rows <= 6),
        Figure("a day's 1m to 5m, 30m, 1d", all_rollups, "s", "≤ 0.4 s", all_rollups <= 0.4),
        *(Figure(f"  of it {period}", seconds, "s") for period, seconds in rollups.items()),
        Figure("one minute of the whole market, late in the day", minute, "s", "≤ 0.1 s", minute <= 0.1),
        Figure("client: a day's 1m of the market to Arrow", arrow, "s", "≤ 1.5 s", arrow <= 1.5),
        Figure("client: quotes of the market, the first of a process", 1000 * first_quotes, "ms"),
        Figure("  after it", quotes, "ms", "≤ 50 ms", quotes <= 50),
        Figure("one symbol's day, all columns", 1000 * one, "ms", "≤ 60 ms", one <= 0.06),
    ]  # fmt: skip


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _best(call: Callable[[], Any]) -> float:
    return min(_timed(call)[0] for _ in range(2))
