"""``python -m benchmarks [NAME…] [--quick | --list | --markdown]``: measure, print, keep in results.json.

``--quick`` runs everything small, to see that it runs: its figures mean little and are not kept.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib import import_module

from benchmarks import baseline, report
from benchmarks.common import fresh

#: Name -> what it measures; each is a module with ``run(quick) -> list[Figure]``, in the order in which they run.
BENCHMARKS = {
    "throughput": "subscriber and writer, ticks a second",
    "edge": "the checks of the feed, processor time a tick",
    "insert": "one snapshot of the market into ClickHouse",
    "delay": "end to end at real speed, and minutes onto minute_bar_stream",
    "session_ends": "11:30 and 15:00 onto minute_bar_stream",
    "final": "minutes made final by Dagster's daemon",
    "up": "the default make up, pages open: delay, final bars, speed, processor, memory",
    "recovery": "kill and hang of Dagster's daemon, ClickHouse, the publisher: back after",
    "week": "five sessions with nights and a weekend, few symbols: what grows",
    "runs": "a run of Dagster by itself, on SQLite and PostgreSQL; memory over 500 runs",
    "clients": "50 broadcast clients at real speed",
    "reference": "reference data of all kinds through the gateway",
    "rebuild": "a day of 24 M ticks to bars and rollups",
    "peers": "the same recorded ticks through other aggregators (their packages in .venv/peers)",
    "month": "20 days of the whole market through Dagster's backfill",
    "day": "a whole session as fast as it goes: loss, parts, memory",
    "backup": "a day to a backup and back into an empty folder",
}


def main() -> int:
    """Run the chosen benchmarks; 1 when one of them failed to run (a missed target is no failure)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing kept")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and what they measure")
    parser.add_argument("--markdown", action="store_true", help="print the kept results as a table, run nothing")
    args = parser.parse_args()
    if args.markdown:
        print(report.markdown())
        return 0
    if args.list:
        for name, meaning in BENCHMARKS.items():
            print(f"{name:14} {meaning}")
        return 0
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"expected names of {', '.join(BENCHMARKS)}; found {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends services and engines on the way out
    about = report.machine()
    print(f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB, Python {about['python']}")
    with fresh() as settings:
        rates = baseline.run(settings, 2000 if args.quick else 20_000)
    report.show("baseline", baseline.figures(rates), f"load of the machine {report.load():g}")
    failed = [name for name in args.names or BENCHMARKS if not _run(name, args.quick, rates)]
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, quick: bool, rates: dict[str, float]) -> bool:
    load, started = report.load(), time.perf_counter()
    try:
        figures = import_module(f"benchmarks.{name}").run(quick)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    figures, seconds = report.with_ratios(figures, rates), time.perf_counter() - started
    note = f"load of the machine before {load:g}, after {report.load():g}; {seconds:.0f} s"
    report.show(name, figures, note + (" (quick: not kept)" if quick else ""))
    if not quick:
        report.keep(name, figures, rates=rates, seconds=seconds, load_before=load)
    return True


if __name__ == "__main__":
    sys.exit(main())
