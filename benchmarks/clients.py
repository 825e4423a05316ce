"""50 broadcast clients on the whole market at real speed: delay of each, and what they cost Redis.

The clients share this machine's processor with the pipeline, ten to a process; on machines of their own only the
part of Redis remains, which is measured apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import WHOLE_MARKET, fresh, percentile, wall_ms_of
from benchmarks.delay import SERVICES
from benchmarks.live import Seen, at_real_speed, observe, services
from benchmarks.report import Figure
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect

PER_PROCESS = 10


def run(quick: bool) -> list[Figure]:
    """The same minutes without and with the clients."""
    clients, seconds = (10, 60) if quick else (50, 135)
    start = "09:59:40"
    with fresh() as engines:
        settings = at_real_speed(engines, start)
        with services(settings, SERVICES) as running:
            alone = observe(settings, running, 30 if quick else 45)
    with fresh() as engines:
        settings = at_real_speed(engines, start)
        with ExitStack() as stack:
            files = stack.enter_context(_clients(settings, clients))
            running = stack.enter_context(services(settings, SERVICES))
            seen = observe(settings, running, seconds)
            stream_mb = _stream_mb(settings)
        reports = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return _figures(settings, alone, seen, reports, clients, stream_mb)


@contextmanager
def _clients(settings: Settings, count: int) -> Iterator[list[Path]]:
    """*count* clients in processes; their files are complete when the context has ended."""
    processes, files = [], []
    for first in range(0, count, PER_PROCESS):
        files.append(settings.data_dir / f"clients_{first}.jsonl")
        command = [sys.executable, "-m", "benchmarks.client_group", str(first), str(min(PER_PROCESS, count - first))]
        environment = {**os.environ, **settings.environment()}
        processes.append(subprocess.Popen([*command, str(files[-1])], env=environment))
    try:
        yield files
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(40)


def _stream_mb(settings: Settings) -> float:
    client: Any = connect(settings)
    size = float(client.memory_usage(keys.BARS) or 0) / 2**20
    client.close()
    return size


def _figures(
    settings: Settings, alone: Seen, seen: Seen, reports: list[dict[str, Any]], clients: int, stream_mb: float
) -> list[Figure]:
    clock = SimClock(settings)
    counts = {frame: len(delays) for frame, delays in seen.minutes.items()}
    frames = [f for f, n in counts.items() if wall_ms_of(clock, f) > seen.warm_at * 1000 and n > WHOLE_MARKET // 2]
    if len(reports) != clients or not frames:
        raise RuntimeError(f"expected {clients} clients and closed minutes, found {len(reports)} and {len(frames)}")
    p99s, lasts, spreads = [], [], []  # per client: p99 of its bars, its latest bar, the same after a plain reader's
    for client in reports:
        delays: list[float] = []
        spread = 0.0
        for frame in frames:
            arrivals = client["frames"].get(str(frame))
            if not arrivals:
                raise RuntimeError(f"{client['client']} got no bar of frame {frame}, others got {counts[frame]}")
            end = wall_ms_of(clock, frame)
            delays += [at - end for at, number in arrivals for _ in range(number)]
            spread = max(spread, arrivals[-1][0] - end - max(seen.minutes[frame]))
        p99s.append(percentile(delays, 0.99))
        lasts.append(max(delays))
        spreads.append(spread)
    least = min(client["bars"] for client in reports)
    cost = seen.processes["redis"].cores - alone.processes["redis"].cores
    return [
        Figure("broadcast clients", float(clients), "clients"),
        Figure("bars of the measured minutes", float(sum(counts[frame] for frame in frames)), "bars"),
        Figure("bars of the client that got the fewest", float(least), "bars"),
        Figure("minute's end → bar handled, p99 of the median client", percentile(p99s, 0.5), "ms"),
        Figure("minute's end → bar handled, p99 of the slowest client", max(p99s), "ms"),
        Figure("  its latest bar", max(lasts), "ms"),
        Figure("  latest bar of any client after a plain reader had the minute", max(spreads), "ms"),
        Figure("processor time of Redis, without clients", alone.processes["redis"].cores * 100, "% of a core"),
        Figure("processor time of Redis, because of the clients", cost * 100, "% of a core"),
        Figure("memory of Redis, most", seen.processes["redis"].peak, "MB"),
        Figure("  of it minute_bar_stream with its groups", stream_mb, "MB"),
    ]
