"""A whole session of the whole market as fast as it goes: is anything lost, do parts and memory stay flat?

The simulated market makes its ticks in the subscriber's process, so this is no measure of the subscriber's speed.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import psutil

from benchmarks.common import DAY, WHOLE_MARKET, fresh, resident_mb, wait_until
from benchmarks.live import services
from benchmarks.report import Figure
from qmt_orchestration.services.replay import spawn_service
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_clickhouse

PARTS = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'ticks'"


def run(quick: bool) -> list[Figure]:
    """A day at speed 0; the writer drains while the subscriber publishes."""
    chosen: dict[str, Any] = {"sim_symbols": 60 if quick else WHOLE_MARKET, "sim_speed": 0.0, "sim_date": f"{DAY}"}
    sizes: dict[str, list[float]] = {"subscriber": [], "writer": []}
    parts: list[int] = []
    with fresh(**chosen, stream_retention_seconds=30.0) as settings:
        redis: Any = connect(settings)
        client = connect_clickhouse(settings)
        totals = keys.WRITER_TOTALS.format(stream=keys.ticks(0))
        started = time.perf_counter()
        with services(settings, ("writer",)) as running:
            subscriber = spawn_service(settings, "subscriber", stdout=subprocess.PIPE)
            processes = {"subscriber": psutil.Process(subscriber.pid), "writer": psutil.Process(running["writer"].pid)}

            def ended() -> bool:
                for name, process in processes.items():
                    if size := resident_mb(process):
                        sizes[name].append(size)
                parts.append(int(client.query(PARTS).first_row[0]))
                return subscriber.poll() is not None

            try:
                wait_until(ended, 120 if quick else 1800, "the subscriber's end of the day", 1.0)
                report = json.loads(subscriber.communicate()[0].splitlines()[-1])
            finally:
                subscriber.kill()
                subscriber.wait()
            published = int(report["published"])
            wait_until(lambda: int(redis.hget(totals, "rows") or 0) >= published, 300, f"{published} ticks stored", 0.1)
        seconds = time.perf_counter() - started
        rows = int(client.query("SELECT count() FROM ticks SETTINGS final = 0").first_row[0])
        distinct = int(client.query("SELECT count() FROM ticks").first_row[0])
        redis.close()
    figures = [
        Figure("a session's ticks, simulator → ClickHouse", published / seconds, "ticks/s"),
        Figure("  ticks published", float(published), "ticks"),
        Figure("  lost", float(published - distinct), "ticks", "0", published == distinct),
        Figure("  doubled", float(rows - distinct), "ticks", "0", rows == distinct),
        Figure("  active parts of `ticks`, most", float(max(parts)), "parts"),
    ]
    for name, measured in sizes.items():
        peak, quarter = max(measured), measured[len(measured) // 4]
        figures.append(Figure(f"  memory of {name}, most", peak, "MB", "≤ 500 MB", peak <= 500))
        figures.append(Figure("    grown since a quarter of the session", measured[-1] - quarter, "MB"))
    return figures
