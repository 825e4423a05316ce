"""Faults strike the whole pipeline: nothing is lost, nothing doubled, no bar wrong; and the account can fail.

How fast it recovers depends on the machine: `make chaos` judges that, here it is only shown (``pytest -s``).
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.chaos import session
from benchmarks.chaos.faults import BY_NAME, PAST_THE_CHECKS, Fault
from benchmarks.chaos.world import Market

pytestmark = pytest.mark.timeout(900)

#: One of each kind: every process that keeps something, a reply lost after the deed, and bad or repeated input.
TELLING = (
    "reply dropped, ClickHouse to writer",
    "SIGKILL writer",
    "SIGKILL redis",
    "batches published twice",
    "SIGKILL subscriber",
    "poison batches",
    "malformed entries",
    "wrong values in hashes",
    "SIGKILL clickhouse",
    "SIGKILL publisher",
    "reply dropped, ClickHouse to publisher",
    "disk of clickhouse full",
    "disk of redis full",
    "parts limit",
)


def run(names: tuple[str | Fault, ...], careless: str = "", ticks: int = 0, **more: Any) -> session.Outcome:
    # Retention: longer than a subscriber's checkpoint (5 s) and restart together, or its next run could not read in
    # the stream what it had published.
    market = Market(symbols=300, speed=15.0, retention_seconds=15.0, careless=careless, **more)
    outcome = session.run(
        market,
        [BY_NAME[name] if isinstance(name, str) else name for name in names],
        seed=5,
        ticks=ticks,
        pause=(0.5, 1.5),
        say=print,
    )
    print(session.table(outcome))  # noqa: T201
    return outcome


@pytest.mark.slow
def test_faults_lose_nothing_and_double_nothing() -> None:
    outcome = run(TELLING, ticks=36_000)  # long enough for entries to be older than the retention
    told = "\n".join([session.table(outcome), *outcome.problems, *outcome.verdict.examples])
    assert (outcome.lost, outcome.doubled, sum(outcome.verdict.bars_wrong.values())) == (0, 0, 0), told
    assert not outcome.problems, told
    assert all(line.struck and line.seconds >= 0 for line in outcome.lines), told
    assert outcome.verdict.produced >= 36_000
    assert outcome.verdict.trimmed > 0  # the stream was trimmed under the living writer
    assert outcome.verdict.bars_compared > 300
    assert outcome.verdict.published_compared > 300


@pytest.mark.slow
def test_wrong_snapshots_are_in_no_bar_whoever_is_killed() -> None:
    outcome = run(("SIGKILL subscriber", "SIGKILL writer", "SIGKILL publisher"), ticks=40_000, wrong_snapshots=True)
    told = "\n".join([session.table(outcome), *outcome.problems, *outcome.verdict.examples])
    assert (outcome.lost, outcome.doubled, sum(outcome.verdict.bars_wrong.values())) == (0, 0, 0), told
    assert not outcome.problems, told


@pytest.mark.slow
def test_the_account_finds_wrong_snapshots_that_are_accepted() -> None:
    outcome = run((PAST_THE_CHECKS,), ticks=40_000)
    assert outcome.verdict.believed > 0, session.table(outcome)
    assert sum(outcome.verdict.bars_wrong.values()) > 0, session.table(outcome)


@pytest.mark.slow
@pytest.mark.parametrize(("mistake", "number"), [("ack-first", "lost"), ("no-token", "doubled"), ("unstored", "lost")])
def test_the_account_finds_a_faulty_writer(mistake: str, number: str) -> None:
    outcome = run(("SIGKILL writer", "SIGKILL writer"), careless=mistake)
    assert getattr(outcome, number) > 0, session.table(outcome)
    assert not outcome.good
