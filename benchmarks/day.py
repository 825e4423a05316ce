"""A whole session of the whole market as fast as it goes: is anything lost, do parts and memory stay flat?

The simulated market makes its ticks in the subscriber's process, so this is no measure of the subscriber's speed.
"""

from __future__ import annotations

import time
from typing import Any

import psutil

from benchmarks.common import DAY, WHOLE_MARKET, fresh, resident_mb, wait_until
from benchmarks.live import services
from benchmarks.report import Figure
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.warehouse.client import connect as connect_clickhouse


def run(quick: bool) -> list[Figure]:
    """09:14 to 15:31 at speed 0; the writer drains while the subscriber publishes."""
    chosen: dict[str, Any] = {"sim_symbols": 100 if quick else WHOLE_MARKET, "sim_speed": 0.0, "sim_date": f"{DAY}"}
    with fresh(**chosen, stream_retention_seconds=30.0) as settings:
        redis, client = connect(settings), connect_clickhouse(settings)
        totals = keys.WRITER_TOTALS.format(stream=keys.ticks(0))
        sizes: dict[str, list[float]] = {"subscriber": [], "writer": []}
        parts: list[int] = []
        started = time.perf_counter()
        with services(settings, ("writer", "subscriber")) as running:
            processes = {name: psutil.Process(process.pid) for name, process in running.items()}

            def settled() -> bool:
                for name, process in processes.items():
                    sizes[name].append(resident_mb(process))
                parts.append(_parts(client))
                beat: Any = read_all(redis).get("subscriber")
                clock: Any = redis.hgetall(keys.CLOCK)
                return bool(beat and clock) and _ended(redis, clock, totals)

            wait_until(settled, 60 if quick else 1500, "the day's last tick to be stored", 1.0)
        seconds = time.perf_counter() - started
        stored: Any = redis.hgetall(totals)
        rows = int(stored[b"rows"])
        distinct = int(client.query("SELECT count() FROM ticks").first_row[0])
    figures = [
        Figure("a session's ticks, simulator → ClickHouse", rows / seconds, "ticks/s"),
        Figure("  ticks", float(rows), "ticks"),
        Figure("  lost or doubled", float(abs(rows - distinct)), "ticks", "0", rows == distinct),
        Figure("  active parts of `ticks`, most", float(max(parts)), "parts"),
    ]
    for name, measured in sizes.items():
        peak, quarter = max(measured), measured[len(measured) // 4]
        figures.append(Figure(f"  memory of {name}, most", peak, "MB", "≤ 500 MB", peak <= 500))
        figures.append(Figure("    grown since a quarter of the session", measured[-1] - quarter, "MB"))
    return figures
