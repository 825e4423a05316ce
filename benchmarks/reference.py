"""Reference data of every kind of instrument through the gateway: instruments, dividend factors, members of sectors."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.common import DAY, fresh, wait_until
from benchmarks.live import services
from benchmarks.report import Figure
from qmt_orchestration.simulator.kinds import COUNTS
from qmt_orchestration.stream import heartbeat, rpc
from qmt_orchestration.stream.connection import connect

SECTORS = ("沪深A股", "京市A股", "沪深ETF", "沪深基金", "沪深指数", "沪深转债", "沪深债券")


def run(quick: bool) -> list[Figure]:
    """Each call once, in the order in which a day asks for them: the first includes the terminal's lists."""
    symbols = 300 if quick else sum(COUNTS.values())
    kinds = tuple(kind.value for kind in COUNTS)
    chosen: dict[str, Any] = {"sim_symbols": symbols, "sim_kinds": kinds, "feed_sectors": SECTORS, "sim_speed": 1.0}
    with fresh(
        **chosen, sim_date=f"{DAY}", sim_start_time="10:00:00", sim_anchor_ms=int(time.time() * 1000)
    ) as settings:
        client: Any = connect(settings)
        with services(settings, ("gateway",)):
            wait_until(lambda: heartbeat.is_alive(client, rpc.SERVICE), 120, "the gateway", 0.1)
            listed, found, steps = _timed(client, "instruments", {})
            names = found.column("symbol").to_pylist()
            size = settings.history_chunk_symbols
            parts = [names[at : at + size] for at in range(0, len(names), size)]
            paid = [_timed(client, "adjust_factors", {"symbols": part}) for part in parts]
            member, _, member_steps = _timed(client, "sector_members", {"sectors": list(SECTORS), "day": f"{DAY}"})
        client.close()
    factors = sum(seconds for seconds, _, _ in paid)
    total = listed + factors + member
    steps += member_steps + sum(reports for _, _, reports in paid)
    return [
        Figure("reference data of all kinds through the gateway", total, "s", "≤ 10 s", total <= 10),
        Figure("  instruments", float(len(names)), "symbols"),
        Figure("  of it instruments", listed, "s"),
        Figure("  of it dividend factors", factors, "s"),
        Figure("  of it members of sectors", member, "s"),
        Figure("  reports of progress", float(steps), "reports"),
    ]


def _timed(client: Any, method: str, params: dict[str, Any]) -> tuple[float, Any, int]:
    reports: list[dict[str, Any]] = []
    started = time.perf_counter()
    found = rpc.call(client, method, params, timeout_seconds=300, on_progress=reports.append)
    return time.perf_counter() - started, found, len(reports)
