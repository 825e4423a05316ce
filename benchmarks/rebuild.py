"""The warehouse's arithmetic at full size: one day of 24 M ticks to bars and rollups, one minute late in the day."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

from benchmarks.report import Figure
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect

DAY = date(2025, 6, 5)
SYMBOLS, SNAPSHOTS, CHUNK = 5150, 4660, 515


def fill_day(client: object, day: date) -> float:
    """Insert the synthetic day; rows a second, with the states' view attached."""
    sql = Path(__file__).with_name("day.sql").read_text()
    started = time.perf_counter()
    for first in range(0, SYMBOLS, CHUNK):
        parameters = {"symbols": CHUNK, "snapshots": SNAPSHOTS, "first_symbol": first, "day": day}
        client.command(sql, parameters=parameters)  # type: ignore[attr-defined]
    return SYMBOLS * SNAPSHOTS / (time.perf_counter() - started)


def run(settings: Settings) -> list[Figure]:
    """Figures of the rebuild."""
    client = connect(settings)
    insert_rate = fill_day(client, DAY)
    timings: dict[str, float] = {}

    def timed(name: str, call: object) -> object:
        started = time.perf_counter()
        result = call()  # type: ignore[operator]
        timings[name] = time.perf_counter() - started
        return result

    timed("states", lambda: bars.rebuild_states(client, DAY))
    written = timed("bars", lambda: bars.finalize(client, DAY))
    for period in ("5m", "30m", "1d"):
        timed(period, lambda period=period: bars.roll_up(client, DAY, period))
    frames = [row[0] for row in client.query("SELECT DISTINCT frame FROM bars_1m ORDER BY frame").result_rows]
    timed("minute", lambda: bars.finalize(client, DAY, frames[-3], frames[-3]))
    day_seconds = timings["states"] + timings["bars"]
    rollups = timings["5m"] + timings["30m"] + timings["1d"]
    return [
        Figure("in-engine insert of a day's ticks, states attached", insert_rate, "ticks/s"),
        Figure("rebuild a day: 24 M ticks to bars_1m", day_seconds, "s", "≤ 5 s", day_seconds <= 5),
        Figure("  of it states from ticks", timings["states"], "s"),
        Figure("  of it bars from states", timings["bars"], "s"),
        Figure("  bars of that day", float(written.rows), "rows"),  # type: ignore[attr-defined]
        Figure("a day's 1m to 5m, 30m, 1d", rollups, "s", "≤ 0.5 s", rollups <= 0.5),
        Figure("one minute of the whole market, late in the day", timings["minute"], "s"),
    ]
