"""The whole simulated market at real speed through the real processes, and what an observer beside them sees.

Callback times are in the ticks (``received_at``) and the simulated clock is a function of the wall clock, so every
delay is one wall time minus another. The observer polls; the pause between its looks is inside the figures.
"""

from __future__ import annotations

import math
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from benchmarks.common import DAY, WHOLE_MARKET, cpu_seconds, engine_process, resident_mb, wall_ms_of
from qmt_orchestration.services.processes import stop_group
from qmt_orchestration.services.replay import spawn_service
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import decode
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_clickhouse

SEEN = Path(__file__).with_name("seen_batches.sql")
LEAD_SECONDS = 6.0  # services start within this time on an idle machine; then the market begins to move
START_SECONDS = 120.0  # the first ticks must be in ClickHouse by then
WARM_SECONDS = 15.0  # after them: the first full snapshot and the caches of all services
_LOOK_SECONDS = 0.025


def at_real_speed(settings: Settings, start_time: str, **chosen: Any) -> Settings:
    """*settings* of a market that is at *start_time* (HH:MM:SS) when the services have started, and runs at speed 1."""
    update = {
        "sim_symbols": WHOLE_MARKET,
        "sim_speed": 1.0,
        "sim_date": DAY.isoformat(),
        "sim_start_time": start_time,
        "sim_anchor_ms": int((time.time() + LEAD_SECONDS) * 1000),
        **chosen,
    }
    return settings.model_copy(update=update)


@contextmanager
def services(settings: Settings, names: Sequence[str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """These services as processes, ended at the end."""
    with ExitStack() as stack:
        running = {}
        for name in names:
            running[name] = spawn_service(settings, name)
            stack.callback(stop_group, running[name], 20)
        yield running


@dataclass
class Process:
    """What a process used: memory (MB) when it was warm, at most and at the end, and its share of one core."""

    warm: float = 0.0
    peak: float = 0.0
    last: float = 0.0
    cores: float = 0.0


@dataclass
class Seen:
    """What the observer saw. Delays in ms, one a batch; *minutes*: frame (epoch ms) -> delays of its bars."""

    seconds: float = 0.0
    rows: int = 0
    visible: list[float] = field(default_factory=list)  # callback of the batch's oldest tick -> seen in ClickHouse
    on_stream: list[float] = field(default_factory=list)  # the same -> read from the tick stream
    minutes: dict[int, list[float]] = field(default_factory=dict)  # market's end of the minute -> bar read
    bars: dict[tuple[str, int], float] = field(default_factory=dict)  # (symbol, frame) -> wall time (epoch ms) read
    processes: dict[str, Process] = field(default_factory=dict)
    parts: list[int] = field(default_factory=list)  # active parts of `ticks`, once a second
    warm_at: float = math.inf  # wall time (epoch s) from which everything counts


def observe(settings: Settings, running: dict[str, subprocess.Popen[bytes]], seconds: float) -> Seen:
    """Watch for *seconds* after the market has been warm; raises RuntimeError when a service ended meanwhile."""
    seen = Seen(seconds=seconds)
    stop = threading.Event()
    readers = [
        threading.Thread(target=_read_ticks, args=(settings, seen, stop)),
        threading.Thread(target=_read_bars, args=(settings, seen, stop)),
        threading.Thread(target=_sample, args=(settings, running, seen, stop)),
    ]
    for reader in readers:
        reader.start()
    try:
        _look(settings, seen, seconds)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    ended = [name for name, process in running.items() if process.poll() is not None]
    if ended or not seen.visible:
        raise RuntimeError(f"expected ticks and running services, found {len(seen.visible)} batches; ended: {ended}")
    return seen


def _look(settings: Settings, seen: Seen, seconds: float) -> None:
    """Ask ClickHouse again and again which batches it has, until *seconds* after everything was warm."""
    client = connect_clickhouse(settings)
    query, last_seq, next_parts = SEEN.read_text(), -1, 0.0
    limit = time.time() + START_SECONDS
    while (now := time.time()) < min(seen.warm_at + seconds, limit):
        for seq, oldest_ms, count in client.query(query, parameters={"after": last_seq}).result_rows:
            if last_seq < 0:
                seen.warm_at, limit = now + WARM_SECONDS, math.inf
            last_seq = max(last_seq, int(seq))
            if now > seen.warm_at:
                seen.visible.append(time.time() * 1000 - oldest_ms)
                seen.rows += count
        if now > max(seen.warm_at, next_parts):
            next_parts = now + 1
            sql = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'ticks'"
            seen.parts.append(int(client.query(sql).first_row[0]))
        time.sleep(_LOOK_SECONDS)


def _read_ticks(settings: Settings, seen: Seen, stop: threading.Event) -> None:
    """Read the tick stream as a second consumer would; payloads are looked at when the clocks no longer matter."""
    client: Any = connect(settings)
    entries: list[tuple[float, bytes]] = []
    last: Any = "0"
    while not stop.is_set():
        for _, found in client.xread({keys.ticks(0): last}, block=500, count=200) or []:
            now = time.time()
            last = found[-1][0]
            entries += [(now * 1000, fields[b"payload"]) for _, fields in found if now > seen.warm_at]
    client.close()
    for arrived, payload in entries:
        received = decode(payload, max_bytes=64 << 20).column("received_at").cast(pa.int64()).to_numpy()
        seen.on_stream.append(arrived - float(received.min()))


def _read_bars(settings: Settings, seen: Seen, stop: threading.Event) -> None:
    """Read minute_bar_stream with plain XREAD."""
    client: Any = connect(settings)
    clock = SimClock(settings)
    last: Any = "0"
    while not stop.is_set():
        for _, found in client.xread({keys.BARS: last}, block=500, count=1000) or []:
            now = time.time() * 1000
            last = found[-1][0]
            for _, fields in found:
                if fields[b"revision"] == b"0":
                    frame = int(fields[b"timestamp"]) * 1000
                    seen.minutes.setdefault(frame, []).append(now - wall_ms_of(clock, frame))
                    seen.bars[(fields[b"symbol"].decode(), frame)] = now
    client.close()


def _sample(settings: Settings, running: dict[str, subprocess.Popen[bytes]], seen: Seen, stop: threading.Event) -> None:
    """Memory and processor time of the services and the engines."""
    processes = {name: psutil.Process(process.pid) for name, process in running.items()}
    processes |= {name: engine_process(settings, name) for name in ("redis", "clickhouse")}
    seen.processes = {name: Process() for name in processes}
    while time.time() < seen.warm_at:
        if stop.wait(0.2):
            return
    begun, used = time.monotonic(), {name: cpu_seconds(process) for name, process in processes.items()}
    while not stop.wait(1.0):
        for name, process in processes.items():
            one, size = seen.processes[name], resident_mb(process)
            one.warm, one.peak, one.last = one.warm or size, max(one.peak, size), size
            if process.is_running():
                one.cores = (cpu_seconds(process) - used[name]) / (time.monotonic() - begun)


def whole_minutes(seen: Seen, settings: Settings, symbols: int = WHOLE_MARKET) -> list[float]:
    """Delays of the bars of minutes that ended while everything was warm, most of the market in each."""
    clock = SimClock(settings)
    chosen = [
        delays
        for frame, delays in seen.minutes.items()
        if wall_ms_of(clock, frame) > seen.warm_at * 1000 and len(delays) > symbols // 2
    ]
    return [delay for delays in chosen for delay in delays]
