"""A simulated week left alone: five sessions with their nights and the weekend, everything that `make up` runs.

What must not grow is read every ten seconds; the median of the last session is compared with that of the second (the
first fills caches and stream retention). Memory and descriptors of each process are printed beside it.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from benchmarks.report import Figure
from benchmarks.up import family, memory_mb, on_free_ports, started
from qmt_orchestration.cli.services import state_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_warehouse

SPEED: Final = 20
SYMBOLS: Final = 300
SESSIONS: Final = 5
_SAMPLE_SECONDS: Final = 10.0
#: Series -> unit, and the growth from the second session to the last that is still flat, besides a tenth.
_FLAT: Final = {
    "memory, all processes": ("MB", 100.0),
    "open descriptors, all processes": ("", 40.0),
    "processes": ("", 2.0),
    "active parts, all tables": ("parts", 30.0),
    "keys in Redis": ("keys", 5.0),
    "memory of Redis": ("MB", 20.0),
}
#: A part of the command line -> the process.
_NAMES: Final = {
    "clickhouse_server": "clickhouse",
    "redis-server": "redis",
    "run subscriber": "subscriber",
    "run writer": "writer",
    "run publisher": "publisher",
    "run gateway": "gateway",
    "run console": "console",
    "dagster._daemon": "dagster-daemon",
    "api grpc": "code server",
    "webserver": "dagster-webserver",
    "run_server": "run server and runs",
}


def run(quick: bool) -> list[Figure]:
    """Figures of a week (quick: two sessions of ten symbols)."""
    sessions = 2 if quick else SESSIONS
    with TemporaryDirectory(prefix="qmt-benchmark-", ignore_cleanup_errors=True) as folder:
        settings = on_free_ports(folder, sim_symbols=10 if quick else SYMBOLS)
        with started(settings, "--speed", str(SPEED)) as process:
            seen: dict[str, dict[str, list[float]]] = {}
            logs: dict[str, float] = {}
            unhealthy = 0
            end = time.monotonic() + sessions * 1800
            while time.monotonic() < end:
                if process.poll() is not None:
                    raise RuntimeError(f"qmt up ended: {(settings.data_dir / 'up.log').read_text()[-500:]}")
                code, state = state_of(settings)
                day = str(state.get("market_time", ""))[:10]
                if day and day not in seen and len(seen) == sessions:
                    break
                if day:
                    unhealthy += code != 0
                    now = seen.setdefault(day, defaultdict(list))
                    with suppress(Exception):  # a value that is missing once is read ten seconds later
                        for name, value in _sample(settings, family(process)).items():
                            now[name].append(value)
                    logs[day] = _size_mb(settings.data_dir / "dagster")
                time.sleep(_SAMPLE_SECONDS)
        middle = {day: {name: round(median(values), 1) for name, values in of.items()} for day, of in seen.items()}
        print(json.dumps({"median of each session": middle, "Dagster's storage, MB": logs}))
        if len(seen) < sessions:
            raise RuntimeError(f"expected {sessions} sessions within {sessions * 30} minutes, found {len(seen)}")
        return [
            *_flat(list(middle.values())),
            *_storage(list(logs.values())),
            Figure("states not healthy", unhealthy, ""),
        ]


def _sample(settings: Settings, processes: list[psutil.Process]) -> dict[str, float]:
    redis_client = connect(settings, retries=0)
    try:
        keys, memory = float(redis_client.dbsize()), float(redis_client.info("memory")["used_memory"]) / 2**20
    finally:
        redis_client.close()
    warehouse = connect_warehouse(settings, connect_timeout=3, send_receive_timeout=5)
    try:
        parts = float(warehouse.query("SELECT count() FROM system.parts WHERE active").result_rows[0][0])
    finally:
        warehouse.close()
    memory_of: dict[str, float] = defaultdict(float)
    descriptors_of: dict[str, float] = defaultdict(float)
    for one in processes:
        with suppress(psutil.Error):
            name = _name(one.cmdline())
            memory_of[f"MB {name}"] += memory_mb(one)
            descriptors_of[f"fds {name}"] += one.num_fds()
    values = (sum(memory_of.values()), sum(descriptors_of.values()), len(processes), parts, keys, memory)
    return {**dict(zip(_FLAT, map(float, values), strict=True)), **memory_of, **descriptors_of}


def _name(command: list[str]) -> str:
    """What a process of `qmt up` is, by its command line; runs of Dagster are forks of the run server."""
    words = " ".join(command)
    return next((name for part, name in _NAMES.items() if part in words), "up")


def _size_mb(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total / 2**20


def _flat(middle: list[dict[str, float]]) -> list[Figure]:
    figures = []
    for name, (unit, allowed) in _FLAT.items():
        second, last = middle[1][name], middle[-1][name]
        limit = 1.1 * second + allowed
        figures.append(Figure(f"{name}, second session", second, unit))
        figures.append(Figure(f"{name}, last session", last, unit, f"≤ {limit:,.0f}", last <= limit))
    return figures


def _storage(sizes: list[float]) -> list[Figure]:
    grown = (sizes[-1] - sizes[0]) / max(len(sizes) - 1, 1)
    return [Figure("Dagster's storage, at the end", sizes[-1], "MB"), Figure("grown a session", grown, "MB")]
