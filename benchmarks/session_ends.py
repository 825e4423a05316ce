"""The ends of the sessions, 11:30 and 15:00, onto minute_bar_stream at real speed.

A bar of these minutes waits for its symbol's own last snapshot: up to three seconds after the end in this market, up to
six for the closing auction. So two delays are given: from the end of the minute, and from the callback that completed
the bar (or the end of the minute, where that came before it), which is the one the target is about.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import DAY, fresh, percentile, wall_ms_of
from benchmarks.delay import SERVICES
from benchmarks.live import at_real_speed, observe, services
from benchmarks.report import Figure
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.warehouse.client import connect

SNAPSHOTS = Path(__file__).with_name("last_snapshots.sql")


def run(quick: bool) -> list[Figure]:
    """Each end of a session in a run of its own, begun half a minute before it."""
    figures = []
    for label, start in ((690, "11:29:30"), (900, "14:59:30")):
        frame = to_ms(at(DAY, label))
        with fresh() as engines:
            settings = at_real_speed(engines, start)
            with services(settings, SERVICES) as running:
                seen = observe(settings, running, 55)
            parameters = {"frame": frame // 1000, "traded": label == 900}
            complete = connect(settings).query(SNAPSHOTS.read_text(), parameters=parameters).result_rows
            end_ms = wall_ms_of(SimClock(settings), frame)
        since_end = seen.minutes.get(frame)
        since_tick = [
            seen.bars[(symbol, frame)] - max(received, end_ms)
            for symbol, received in complete
            if (symbol, frame) in seen.bars
        ]
        name = f"{label // 60}:{label % 60:02d}"
        if not since_end or not since_tick:
            raise RuntimeError(f"expected bars of {name}, found frames {sorted(seen.minutes)}")
        p99 = percentile(since_tick, 0.99)
        figures += [
            Figure(f"{name}: bar complete → bar read, p99", p99, "ms", "≤ 1,500 ms", p99 <= 1500),
            Figure("  p50", percentile(since_tick, 0.5), "ms"),
            Figure("  counted from the end of the minute, p50", percentile(since_end, 0.5), "ms"),
            Figure("  counted from the end of the minute, p99", percentile(since_end, 0.99), "ms"),
            Figure(f"  bars of {name}", float(len(since_end)), "bars"),
        ]
        if quick:
            break
    return figures
