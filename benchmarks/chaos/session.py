"""One session: the market runs, faults are injected one by one at seeded moments, then everything is counted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks.chaos.faults import POISON, STREAM, Fault
from benchmarks.chaos.oracle import Ledger, Verdict, judge
from benchmarks.chaos.world import HOST_OF, WAREHOUSE, Market, World, world
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.services.desired import set_desired
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.groups import group_lag

RECOVERY_SECONDS = 10.0
_PATIENCE = 90.0  # a recovery is waited for this long, so that the measure says how bad it is
_LUNCH_SOON = 11 * 60 + 25  # minute of the market's day: in the break nothing flows, so no recovery could be seen
_ATTRIBUTION_MS = 1500  # what goes wrong shortly before a fault is its doing: it was under way

Say = Callable[[str], None]


@dataclass
class Line:
    """A line of the table: one fault, what it cost, and how long until rows flowed again (-1: not within _PATIENCE).

    *services*: seconds until each service worked again, without an error.
    """

    name: str
    at_ms: int
    market_ms: int
    seconds: float = 0.0
    struck: bool = True
    lost: int = 0
    doubled: int = 0
    bars_wrong: int = 0
    services: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        quick = all(0 <= seconds <= RECOVERY_SECONDS for seconds in (self.seconds, *self.services.values()))
        return self.struck and quick and not self.lost + self.doubled + self.bars_wrong


@dataclass
class Outcome:
    """All lines and the verdict; *problems* besides the lines' own."""

    lines: list[Line]
    verdict: Verdict
    seconds: float
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(self.verdict.lost.values())

    @property
    def doubled(self) -> int:
        return sum(self.verdict.doubled.values())

    @property
    def good(self) -> bool:
        return all(line.good for line in self.lines) and not self.problems


def run(
    market: Market,
    faults: Sequence[Fault],
    *,
    seed: int,
    ticks: int,
    say: Say,
    pause: tuple[float, float] = (2.5, 4.0),
    keep: Path | None = None,
) -> Outcome:
    """Break the pipeline with *faults*, in this order, then let it run until *ticks* are produced; account for all.

    *keep*: an empty folder for data and logs, kept afterwards.
    """
    chance, began = random.Random(seed), time.monotonic()
    with world(market, keep=keep) as there:
        ledger = Ledger(there)
        ledger.start()
        wait_until(lambda: there.newest_received_ms() > 0 and _beating(there, 0, tuple(HOST_OF)), 120, "the start")
        say(f"the market runs: {market.symbols} symbols at speed {market.speed:g}, data below {there.folder}")
        lines, left = [Line("(before the first fault)", 0, 0)], 0
        for number, fault in enumerate(faults, 1):
            time.sleep(chance.uniform(*pause))
            clock = from_ms(ledger.market_ms)
            if clock.hour * 60 + clock.minute >= _LUNCH_SOON:
                left = len(faults) - number + 1
                break
            if fault.needs_disk and not there.own_disk:
                say(f"{number:2}/{len(faults)} {fault.name}: left out, no small disk can be mounted here")
                continue
            lines.append(_strike(there, ledger, fault))
            told = f"{lines[-1].seconds:.1f} s" if lines[-1].seconds >= 0 else f"not back after {_PATIENCE:g} s"
            say(f"{number:2}/{len(faults)} {fault.name}: {told}; {ledger.ticks:,} ticks so far")
        quiet = time.monotonic() + 600
        while ledger.ticks < ticks and time.monotonic() < quiet:
            time.sleep(0.5)
        say(f"{ledger.ticks:,} ticks produced; the feed stops, the writer finishes, then everything is counted")
        problems = settle(there, ledger)
        if left:
            problems.append(f"{left} faults were not injected: the market came to its lunch break; lower --speed")
        verdict = judge(there, ledger)
    outcome = Outcome(lines, verdict, time.monotonic() - began, problems)
    _attribute(outcome)
    if ledger.ticks < ticks:
        outcome.problems.append(f"expected {ticks:,} ticks, only {ledger.ticks:,} were produced in time")
    if verdict.believed:
        outcome.problems.append(f"{verdict.believed} wrong snapshots were stored as ticks")
    poison = POISON * sum(fault.name == "poison batches" for fault in faults)
    if verdict.dead_letters != poison:
        outcome.problems.append(f"expected {poison} dead letters, found {verdict.dead_letters}")
    return outcome


def _strike(there: World, ledger: Ledger, fault: Fault) -> Line:
    before = {name: there.pid(name) for name in fault.back}
    market_ms = ledger.market_ms
    fault.strike(there)
    begun, at_ms = time.monotonic(), int(time.time() * 1000)
    time.sleep(fault.lasts)
    struck = _eventually(lambda: fault.struck(there), 20)
    fault.lift(there)

    services = dict.fromkeys(HOST_OF, -1.0)

    def back() -> bool:
        for name in [name for name, seconds in services.items() if seconds < 0]:
            fresh = not fault.fresh or name not in before or there.pid(name) not in (0, before[name])
            if fresh and _beating(there, at_ms, (name,)):
                services[name] = round(time.monotonic() - begun, 1)
        return min(services.values()) >= 0 and there.newest_received_ms() > at_ms

    recovered = _eventually(back, _PATIENCE)
    seconds = time.monotonic() - begun if recovered else -1.0
    return Line(fault.name, at_ms, market_ms, round(seconds, 1), struck, services=services)


def _beating(there: World, since_ms: int, services: Sequence[str]) -> bool:
    """Whether all *services* have beaten after *since_ms*, working and without an error."""
    for name in services:
        beat = there.beat(name)
        if int(beat.get("beat_ms", 0)) <= since_ms or beat.get("state") != "running" or beat.get("error"):
            return False
    return True


def settle(there: World, ledger: Ledger) -> list[str]:
    """The subscriber stops as a person would stop it; then nothing may be left to do."""
    set_desired(there.redis, "subscriber", "stopped")
    problems = []
    if not _eventually(lambda: there.beat("subscriber").get("state") != "running", 60):
        problems.append("the subscriber did not stop within 60 s")
    ledger.end()

    def done() -> bool:
        lag = group_lag(there.redis, STREAM, keys.WRITER_GROUP)
        # what a dead second writer had in hand is claimed after a minute
        return lag.entries == 0 and lag.pending == 0

    if not _eventually(done, 180):
        lag = group_lag(there.redis, STREAM, keys.WRITER_GROUP)
        problems.append(f"the writer has work left after 180 s: {lag}; {there.beat('writer').get('error', '')}")
    # the publisher's last frame: quiet for a while
    seen = ("", time.monotonic())
    while time.monotonic() - seen[1] < 3.0:
        frame = there.beat("publisher").get("last_frame_ms", "")
        seen = (frame, time.monotonic()) if frame != seen[0] else seen
        time.sleep(0.2)
    stopped = [name for name in ("writer", "publisher") if not there.pid(name)]
    return problems + [f"no {name} runs at the end; see its log on host {WAREHOUSE}" for name in stopped]


def _attribute(outcome: Outcome) -> None:
    """Put what went wrong onto the line of the fault that came last before it."""

    def line_of(moment: int, moments: list[int]) -> Line:
        index = max((i for i, begin in enumerate(moments) if begin <= moment), default=0)
        return outcome.lines[index]

    walls = [line.at_ms - _ATTRIBUTION_MS for line in outcome.lines]
    markets = [line.market_ms for line in outcome.lines]
    for moment, count in outcome.verdict.lost.items():
        line_of(moment, walls).lost += count
    for moment, count in outcome.verdict.doubled.items():
        line_of(moment, walls).doubled += count
    for moment, count in outcome.verdict.bars_wrong.items():
        line_of(moment, markets).bars_wrong += count


def _eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return True
        except (redis.RedisError, OSError, ValueError):
            pass  # what is asked is being broken
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when *condition* holds. RuntimeError naming *what* when it does not in time."""
    if not _eventually(condition, seconds):
        raise RuntimeError(f"waited {seconds:g} s for {what}")


def table(outcome: Outcome) -> str:
    """The table: fault x (lost, doubled, seconds to recover, bars wrong, seconds of each service)."""
    names = " ".join(f"{name:>10}" for name in HOST_OF)
    rows = [f"{'fault':36} {'lost':>8} {'doubled':>8} {'seconds':>8} {'bars wrong':>11} {names}"]
    for line in outcome.lines:
        seconds = f"{line.seconds:.1f}" if line.seconds >= 0 else f"> {_PATIENCE:g}"
        note = "" if line.struck else "  had no effect"
        bad = "" if line.good or note else "  <-"
        each = " ".join(f"{line.services[name]:10.1f}" for name in HOST_OF if name in line.services)
        rows.append(
            f"{line.name:36} {line.lost:8} {line.doubled:8} {seconds:>8} {line.bars_wrong:11} {each}{note}{bad}"
        )
    return "\n".join(rows)
