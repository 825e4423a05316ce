"""The two minutes that no later tick closes, 11:30 and 15:00, onto minute_bar_stream at real speed."""

from __future__ import annotations

from benchmarks.common import DAY, fresh, percentile
from benchmarks.delay import SERVICES
from benchmarks.live import at_real_speed, observe, services
from benchmarks.report import Figure
from qmt_orchestration.market.sessions import at, to_ms


def run(quick: bool) -> list[Figure]:
    """Each end of a session in a run of its own, begun half a minute before it."""
    figures = []
    for label, start in ((690, "11:29:30"), (900, "14:59:30")):
        with fresh() as engines:
            settings = at_real_speed(engines, start)
            with services(settings, SERVICES) as running:
                seen = observe(settings, running, 55)
        delays = seen.minutes.get(to_ms(at(DAY, label)))
        name = f"{label // 60}:{label % 60:02d}"
        if not delays:
            raise RuntimeError(f"expected bars of {name}, found frames {sorted(seen.minutes)}")
        wait_ms = settings.close_fallback_seconds * 1000
        p99 = percentile(delays, 0.99)
        after = p99 - wait_ms
        figures += [
            Figure(f"{name} on the market's clock → its bars read, p99", p99, "ms", "≤ 1,500 ms", p99 <= 1500),
            Figure(f"  of it after the {wait_ms / 1000:g} s of QMT_CLOSE_FALLBACK_SECONDS", after, "ms"),
            Figure(f"  bars of {name}", float(len(delays)), "bars"),
        ]
        if quick:
            break
    return figures
