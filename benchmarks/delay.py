"""End to end at real speed: the whole simulated market through the real processes, callback → row visible in ClickHouse.

A poller asks ClickHouse every 20 ms which batches it has not seen; a batch's delay is the moment it was seen minus the
callback time of its oldest tick (``received_at``), so the poll's own time is inside the figure.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

import psutil

from benchmarks.report import Figure
from qmt_orchestration.services.replay import spawn_service
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect

SEEN = Path(__file__).with_name("seen_batches.sql")


def run(settings: Settings, *, seconds: float = 150, symbols: int = 5150) -> list[Figure]:
    """Delay percentiles, parts, and memory of the services over *seconds* of wall time at speed 1."""
    chosen = settings.model_copy(
        update={
            "feed": "simulator",
            "sim_symbols": symbols,
            "sim_speed": 1.0,
            "sim_start_time": "09:59:30",
            "sim_anchor_ms": int(time.time() * 1000) + 4000,
        }
    )
    services = {name: spawn_service(chosen, name) for name in ("writer", "subscriber")}
    try:
        return _watch(chosen, services, seconds)
    finally:
        for process in services.values():
            process.terminate()
        for process in services.values():
            process.wait(15)


def _watch(settings: Settings, services: dict[str, subprocess.Popen[bytes]], seconds: float) -> list[Figure]:
    client = connect(settings)
    query = SEEN.read_text()
    delays: list[float] = []
    memory: dict[str, float] = {}
    rows = last_seq = 0
    warm_until = time.time() + 15  # the first full snapshot and the caches of both services
    end = warm_until + seconds
    last_seq = -1
    while time.time() < end:
        seen = client.query(query, parameters={"after": last_seq}).result_rows
        now_ms = time.time() * 1000
        for seq, oldest_ms, count in seen:
            last_seq = max(last_seq, int(seq))
            if time.time() > warm_until:
                delays.append(now_ms - oldest_ms)
                rows += count
        for name, process in services.items():
            resident = psutil.Process(process.pid).memory_info().rss / 2**20
            memory[name] = max(memory.get(name, 0.0), resident)
        time.sleep(0.02)
    parts = client.query("SELECT count() FROM system.parts WHERE active AND table = 'ticks'").first_row[0]
    delays.sort()
    p99 = delays[int(len(delays) * 0.99)]
    return [
        Figure("end to end, whole market at real speed", rows / seconds, "ticks/s"),
        Figure("  callback → visible in ClickHouse, p50", statistics.median(delays), "ms"),
        Figure("  callback → visible in ClickHouse, p99", p99, "ms", "≤ 300 ms", p99 <= 300),
        Figure("  callback → visible in ClickHouse, max", delays[-1], "ms"),
        Figure("  active parts of `ticks` at the end", float(parts), "parts"),
        *(
            Figure(f"  memory of the {name}, peak", peak, "MB", "≤ 500 MB", peak <= 500)
            for name, peak in sorted(memory.items())
        ),
    ]
