"""The default `make up` with both pages open, left alone: does it keep up, at which speed, at what cost.

`qmt status --json`'s own figures, read every ten seconds from the first published minute on; a whole session (to
15:02) or, quick, three minutes of wall time with few symbols.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.common import WHOLE_MARKET, cpu_seconds, free_port, percentile
from benchmarks.report import Figure
from qmt_orchestration.cli.services import state_of
from qmt_orchestration.services.speed import BEHIND_LIMIT_MINUTES, DELAY_LIMIT_S
from qmt_orchestration.settings import Settings

PERIOD_SECONDS: Final = 10.0
FIRST_BAR_SECONDS: Final = 300.0
_QUERY: Final = json.dumps(
    {"query": "{ runsOrError(limit: 25) { ... on Runs { results { runId status } } } }"}
).encode()


def run(quick: bool) -> list[Figure]:
    """Figures of one start on an empty folder."""
    with tempfile.TemporaryDirectory(prefix="qmt-benchmark-", ignore_cleanup_errors=True) as folder:
        settings = on_free_ports(folder, sim_symbols=200 if quick else WHOLE_MARKET)
        begun = time.monotonic()
        with started(settings) as process, _pages(settings):
            first = _first_bar(settings, process, begun)
            before, since = _used(process), time.monotonic()
            states, memory = _watch(settings, process, 180.0 if quick else 4 * 3600.0)
            cores = _used(process) - before
            return _figures(first, states, cores / (time.monotonic() - since), memory)


def _figures(first: float, states: list[dict[str, Any]], cores: float, memory: list[float]) -> list[Figure]:
    measured = [s["delay_p99_s"] for s in states if s["delay_p99_s"] is not None]
    behind = [s["final_behind_minutes"] for s in states]
    in_time = sum(delay <= DELAY_LIMIT_S for delay in measured) / max(len(measured), 1)
    speed = sum(s["speed"] for s in states) / max(len(states), 1)
    return [
        Figure("start → first bar published", first, "s", "≤ 60 s", first <= 60),
        Figure("10 s windows with delay p99 ≤ 1 s", 100 * in_time, "%", "≥ 99 %", in_time >= 0.99),
        Figure("delay p99 of 10 s, worst", max(measured, default=0.0), "s"),
        Figure("final bars behind, p99", percentile(behind, 0.99), "market minutes"),
        Figure("final bars behind, worst", max(behind), "market minutes", "≤ 2", max(behind) <= BEHIND_LIMIT_MINUTES),
        Figure("speed, average", speed, "×", "≥ 5 ×", speed >= 5),
        Figure("processor, all processes", 100 * cores, "% of a core"),
        Figure("memory, all processes, at most", max(memory), "MB", "≤ 2,000 MB", max(memory) <= 2000),
    ]


def on_free_ports(folder: str, **chosen: Any) -> Settings:
    """Settings of a simulated market in *folder*, its servers on free ports."""
    ports = {f"{name}_port": free_port() for name in ("redis", "clickhouse", "dagster", "console")}
    return Settings(data_dir=Path(folder), feed="simulator", **(ports | chosen))


@contextmanager
def started(settings: Settings, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``qmt up`` with *settings* and *options*, ended after the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QMT_")}
    chosen = {name: value for name, value in settings.environment().items() if name != "QMT_SIM_SPEED"}
    with (settings.data_dir / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qmt_orchestration.cli", "up", *options], env=clean | chosen, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _pages(settings: Settings) -> Iterator[None]:
    """Ask as the open pages do: the console's snapshots every second, Dagster's runs every five."""
    stop = threading.Event()

    def ask(url: str, body: bytes | None, every: float) -> None:
        while not stop.wait(every):
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
            with suppress(OSError), urllib.request.urlopen(request, timeout=30) as reply:
                reply.read()

    console, dagster = (f"http://127.0.0.1:{port}" for port in (settings.console_port, settings.dagster_port))
    pages = ((f"{console}/api/state", None, 1.0), (f"{dagster}/graphql", _QUERY, 5.0))
    readers = [threading.Thread(target=ask, args=page, daemon=True) for page in pages]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        stop.set()


def _first_bar(settings: Settings, process: subprocess.Popen[bytes], begun: float) -> float:
    while time.monotonic() - begun < FIRST_BAR_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"qmt up ended: {(settings.data_dir / 'up.log').read_text()[-500:]}")
        if state_of(settings)[1].get("last_published"):
            return time.monotonic() - begun
        time.sleep(0.5)
    raise RuntimeError(f"no bar within {FIRST_BAR_SECONDS:g} s: {state_of(settings)[1]}")


def _watch(
    settings: Settings, process: subprocess.Popen[bytes], seconds: float
) -> tuple[list[dict[str, Any]], list[float]]:
    """States every ten seconds until 15:02 of the market's day, at most *seconds*; and the memory of all processes."""
    states: list[dict[str, Any]] = []
    memory: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        code, state = state_of(settings)
        if code == 2:
            raise RuntimeError(f"the system cannot be reached: {state['error']}")
        if state["market_time"][11:16] >= "15:02":
            break
        states.append(state)
        memory.append(sum(memory_mb(one) for one in family(process)))
        time.sleep(PERIOD_SECONDS)
    return states, memory


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """*process* and all that it started."""
    up = psutil.Process(process.pid)
    return [up, *up.children(recursive=True)]


def memory_mb(process: psutil.Process) -> float:
    """Memory of a process, pages that it shares divided among those that share them (Linux)."""
    with suppress(psutil.Error):
        full = process.memory_full_info()
        return float(getattr(full, "pss", full.rss)) / 2**20
    return 0.0


def _used(process: subprocess.Popen[bytes]) -> float:
    """Processor seconds of all processes so far, ended children that were waited for included."""
    total = 0.0
    for one in family(process):
        with suppress(psutil.Error):
            times = one.cpu_times()
            total += cpu_seconds(one) + float(times.children_user + times.children_system)
    return total
