"""What several benchmarks share: engines of their own, ticks of the simulated market, processor time, percentiles."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from qmt_orchestration.local import engines
from qmt_orchestration.market.calendar import is_trading_day, trading_days
from qmt_orchestration.market.running_time import DAY_MS, running_ms
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.simulator.faults import Push
from qmt_orchestration.simulator.source import MarketSource
from qmt_orchestration.warehouse.migrate import migrate

DAY = date(2025, 6, 5)
WHOLE_MARKET = 5150


@contextmanager
def fresh(**chosen: Any) -> Iterator[Settings]:
    """Settings with empty embedded engines in a temporary folder. Configured servers are never touched."""
    with TemporaryDirectory(prefix="qmt-benchmark-", ignore_cleanup_errors=True) as folder:
        values = {"data_dir": Path(folder), "redis_url": "", "clickhouse_url": "", "feed": "simulator", **chosen}
        with engines.ensure(Settings(**values)) as settings:
            migrate(settings)
            yield settings


def wall_ms_of(clock: SimClock, market_ms: int) -> float:
    """The wall time (epoch ms) at which market time reaches *market_ms* at the clock's last speed; skipped times map to
    their break's end."""
    last = clock.schedule.segments[-1]
    if not clock.schedule.skips_breaks:
        return last.wall_ms + (market_ms - last.market_ms) / last.speed
    passed = _running_since(clock.first_day, market_ms) - _running_since(clock.first_day, last.market_ms)
    return last.wall_ms + passed / last.speed


def _running_since(first_day: date, market_ms: int) -> int:
    """Running time from the beginning of *first_day* to a market time, ms."""
    day = from_ms(market_ms).date()
    days = len(trading_days(first_day, day))
    return (days - 1) * DAY_MS + running_ms(market_ms) if is_trading_day(day) else days * DAY_MS


def engine_process(settings: Settings, name: engines.Name) -> psutil.Process:
    """The process of an embedded engine of *settings*."""
    engine = engines.find(settings, name)
    if engine is None:
        raise RuntimeError(f"expected a running {name} of {settings.data_dir}, found none; see its folder logs/")
    return psutil.Process(engine.pid)


def pushes(symbols: int, start_minute: int, ticks: int) -> Iterator[tuple[int, Push]]:
    """(market time in epoch ms, whole-quote push) of the simulated market from *start_minute* on."""
    source = MarketSource(Settings(feed="simulator", sim_symbols=symbols, sim_date=DAY.isoformat()))
    source.seek(to_ms(at(DAY, start_minute)))
    given = 0
    for moment, push in source.pushes(to_ms(at(DAY, 900))):
        yield moment, push
        given += len(push)
        if given >= ticks:
            return


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of *process* so far (user and system)."""
    times = process.cpu_times()
    return float(times.user + times.system)


def resident_mb(process: psutil.Process) -> float:
    """Resident memory, MB; 0 when the process is gone."""
    with suppress(psutil.NoSuchProcess):
        return float(process.memory_info().rss) / 2**20
    return 0.0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that *share* (0 … 1) of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def wait_until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.02) -> None:
    """Return when *condition* holds. RuntimeError, naming *what*, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s for: {what}")
        time.sleep(every)
