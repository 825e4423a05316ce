"""End to end at real speed with the whole market: callback → Redis → ClickHouse, and minute → minute_bar_stream."""

from __future__ import annotations

from benchmarks.common import fresh, percentile
from benchmarks.live import Seen, at_real_speed, observe, services, whole_minutes
from benchmarks.report import Figure

SERVICES = ("writer", "publisher", "subscriber")


def run(quick: bool) -> list[Figure]:
    """From 09:59:40 market time; at least two minutes close while everything is warm."""
    with fresh() as engines:
        settings = at_real_speed(engines, "09:59:40")
        with services(settings, SERVICES) as running:
            seen = observe(settings, running, 60 if quick else 150)
        return [*ticks(seen), *minutes(whole_minutes(seen, settings)), *memory(seen)]


def ticks(seen: Seen) -> list[Figure]:
    """Delays of batches: each counts from the callback of its oldest tick."""
    stream, visible = percentile(seen.on_stream, 0.99), percentile(seen.visible, 0.99)
    return [
        Figure("ticks of the whole market at real speed", seen.rows / seen.seconds, "ticks/s"),
        Figure("callback → read from Redis, p50", percentile(seen.on_stream, 0.5), "ms"),
        Figure("callback → read from Redis, p99", stream, "ms", "≤ 50 ms", stream <= 50),
        Figure("callback → visible in ClickHouse, p50", percentile(seen.visible, 0.5), "ms"),
        Figure("callback → visible in ClickHouse, p99", visible, "ms", "≤ 300 ms", visible <= 300),
        Figure("callback → visible in ClickHouse, max", max(seen.visible), "ms"),
        Figure("active parts of `ticks`, most", float(max(seen.parts)), "parts"),
        Figure("active parts of `ticks`, at the end", float(seen.parts[-1]), "parts"),
    ]


def minutes(delays: list[float]) -> list[Figure]:
    """Delays of bars: each counts from the end of its minute on the market's clock."""
    if not delays:
        raise RuntimeError("expected closed minutes on minute_bar_stream, found none")
    p99 = percentile(delays, 0.99)
    return [
        Figure("bars read from minute_bar_stream", float(len(delays)), "bars"),
        Figure("minute's end → its bars read, p50", percentile(delays, 0.5), "ms"),
        Figure("minute's end → its bars read, p99", p99, "ms", "≤ 1,500 ms", p99 <= 1500),
    ]


def memory(seen: Seen) -> list[Figure]:
    """Memory and processor time; the targets are those of subscriber and writer."""
    figures = []
    for name, used in seen.processes.items():
        limited = name in ("subscriber", "writer")
        target, met = ("≤ 500 MB", used.peak <= 500) if limited else ("", None)
        figures.append(Figure(f"memory of {name}, most", used.peak, "MB", target, met))
        figures.append(Figure("  grown since it was warm", used.last - used.warm, "MB"))
        figures.append(Figure("  processor time", used.cores * 100, "% of a core"))
    return figures
