"""``python -m benchmarks.chaos``: faults against the whole pipeline, and the account of every tick.

Ends with 1 on any loss, any doubling, a wrong bar, a fault that had no effect, or a recovery of more than 10 s.
``--control`` runs the negative controls instead: writers with a planted mistake, which the account must find.
``--line`` runs a market through a slow line.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

from benchmarks import report
from benchmarks.chaos import line, session
from benchmarks.chaos.careless import MISTAKES
from benchmarks.chaos.faults import BY_NAME, FAULTS
from benchmarks.chaos.world import Market


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="order of the faults and the pauses between them")
    parser.add_argument("--ticks", type=int, default=1_000_000, help="the session lasts at least this long")
    parser.add_argument("--symbols", type=int, default=0, help="of the market (2000; controls 500)")
    parser.add_argument("--speed", type=float, default=0.0, help="market seconds per second (6; controls 10)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose names contain one of a|b|c")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep data and logs there")
    parser.add_argument("--list", action="store_true", help="name the faults")
    parser.add_argument("--control", action="store_true", help="the negative controls")
    parser.add_argument("--line", action="store_true", help="a slow line with stalls, and its negative control")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # processes and disks are taken down then too
    for name in [name for name in os.environ if name.startswith("QMT_")]:
        del os.environ[name]  # never the servers of the shell's settings
    if args.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    about = report.machine()
    print(f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; load before {report.load():g}", flush=True)
    if args.line:
        market = Market(args.symbols or 2000, args.speed or 2.0, start="09:31:00")
        good = line.run(market, stalls=3, say=_say)
        blind = line.run(market, stalls=1, megabits=0.1, say=_say)
        print("control: " + ("NOT FOUND: the measurement misses it" if blind else "found, as it must be"))
        return 0 if good and not blind else 1
    if args.control:
        return _controls(args.symbols or 500, args.speed or 10.0, args.seed)
    chosen = [f for f in FAULTS if any(part in f.name for part in args.only.split("|"))]
    random.Random(args.seed).shuffle(chosen)
    market = Market(args.symbols or 2000, args.speed or 6.0)
    outcome = session.run(market, chosen, seed=args.seed, ticks=args.ticks, say=_say, keep=args.keep)
    _tell(outcome)
    print("PASSED" if outcome.good else "FAILED")
    return 0 if outcome.good else 1


def _controls(symbols: int, speed: float, seed: int) -> int:
    """Each mistake must be found by its own number: ack-first and unstored lose, no-token doubles."""
    found = True
    for mistake in MISTAKES:
        market = Market(symbols, speed, careless=mistake)
        outcome = session.run(market, [BY_NAME["SIGKILL writer"]] * 4, seed=seed, ticks=0, say=_say)
        _tell(outcome)
        caught = outcome.doubled > 0 if mistake == "no-token" else outcome.lost > 0
        print(f"control {mistake}: {'found, as it must be' if caught else 'NOT FOUND: the account misses it'}")
        found = found and caught
    return 0 if found else 1


def _tell(outcome: session.Outcome) -> None:
    verdict = outcome.verdict
    print()
    print(session.table(outcome))
    print(
        f"\n{verdict.produced:,} ticks produced, {outcome.lost} lost, {outcome.doubled} doubled; "
        f"{verdict.bars_compared:,} bars compared with the plan, {verdict.published_compared:,} published ones with "
        f"ClickHouse; {verdict.unseen:,} ticks of the market while no subscriber ran; "
        f"{verdict.trimmed:,} entries trimmed under the writer; {outcome.seconds:.0f} s, "
        f"load {report.load():g}"
    )
    for text in [*outcome.problems, *verdict.examples]:
        print("!", text)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
