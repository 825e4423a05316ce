"""The soak: one simulated trading day at high speed without faults, and what grows in it.

Sampled all the time: resident memory of each service and engine, active parts of `ticks`, keys of Redis, entries of the
tick stream. Flat means: the last third is not above the second by more than a tenth and a small amount (keys of
Redis: by the small amount alone). The first third is left out: caches and stream retention fill.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from statistics import fmean

import psutil
import redis

from benchmarks.chaos.faults import STREAM
from benchmarks.chaos.session import wait_until
from benchmarks.chaos.world import HOST_OF, Market, World, world

_KEYS = "keys in Redis"
_END = "15:29"  # the last after-hours trades; no tick is younger
#: Series -> growth from the second to the last third that is still flat, besides a tenth (MB, or a number).
_ALLOWED = {
    "subscriber MB": 25,
    "writer MB": 25,
    "publisher MB": 25,
    "redis MB": 20,
    "clickhouse MB": 150,
    "parts of ticks": 10,
    _KEYS: 3,
    "entries of the tick stream": 100,
}
_LIMIT_MB = {"subscriber MB": 500, "writer MB": 500}


def run(market: Market, *, say: Callable[[str], None]) -> int:
    """Run the day; 0 when everything is flat."""
    series: dict[str, list[float]] = {name: [] for name in _ALLOWED}
    with world(market) as there:
        wait_until(lambda: there.newest_received_ms() > 0, 120, "the start")
        say(f"the day begins: {market.symbols} symbols at speed {market.speed:g}, until {_END}")
        told, began, clock = 0.0, time.monotonic(), ""
        while clock < _END:
            time.sleep(1.0)
            with contextlib.suppress(redis.RedisError, OSError, psutil.Error, ValueError):
                _sample(there, series)
                clock = str(there.command("SELECT formatDateTime(max(time), '%H:%i') FROM ticks", 10)).strip()
            if time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"{clock}: " + ", ".join(f"{name} {values[-1]:g}" for name, values in series.items() if values))
            if time.monotonic() - began > 4 * 3600:
                raise RuntimeError(f"the day did not end within 4 hours; it is {clock}")
        [[ticks]] = there.ask("SELECT count() FROM ticks")
        restarts = {name: there.beat("agent:" + host).get(f"{name}.restarts", "?") for name, host in HOST_OF.items()}
    say(f"{int(ticks):,} ticks in {time.monotonic() - began:.0f} s; restarts {restarts}")
    print(f"\n{'':28} {'start':>10} {'middle':>10} {'end':>10} {'most':>10}")
    flat = [_judge(name, values) for name, values in series.items()]
    good = all(flat) and set(restarts.values()) == {"0"}
    print("FLAT" if good else "NOT FLAT")
    return 0 if good else 1


def _sample(there: World, series: dict[str, list[float]]) -> None:
    now: dict[str, float] = {}
    for name in (*HOST_OF, "redis", "clickhouse"):
        now[f"{name} MB"] = round(psutil.Process(there.pid(name)).memory_info().rss / 2**20, 1)
    [[parts]] = there.ask("SELECT count() FROM system.parts WHERE active AND table = 'ticks'", 10)
    now["parts of ticks"] = float(parts)
    now[_KEYS] = float(there.redis.dbsize())
    now["entries of the tick stream"] = float(there.redis.xlen(STREAM))
    for name, value in now.items():
        series[name].append(value)


def _judge(name: str, values: list[float]) -> bool:
    third = max(len(values) // 3, 1)
    start, middle, end = fmean(values[:third]), fmean(values[third : 2 * third]), fmean(values[2 * third :])
    tenth = 0.0 if name == _KEYS else middle / 10  # a key is a thing of its own: there is no share that may come
    limit = min(middle + tenth + _ALLOWED[name], _LIMIT_MB.get(name, float("inf")))
    good = end <= limit
    said = "" if good else f"  grows: expected at most {limit:.0f}"
    print(f"{name:28} {start:10.1f} {middle:10.1f} {end:10.1f} {max(values):10.1f}{said}")
    return good
