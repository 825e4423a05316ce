"""The real thing, short: Dagster's daemon as a process, ticks arriving, minutes becoming final by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.orchestration.backfill import instance_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def daemon(settings: Settings, clickhouse: Any, redis_client: Any) -> Iterator[Path]:
    """`dagster-daemon run` on the project's workspace and dagster.yaml; its log."""
    from qmt_orchestration.services.dagster_processes import dagster_home

    home = dagster_home(settings)
    log = home / "daemon.log"
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", str(ROOT / "workspace.yaml")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings.environment(), "DAGSTER_HOME": str(home)},
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def feed(client: Any, redis_client: Any, first: int, last: int) -> None:
    """Ticks of [first, last) minutes of the day arrive, and the market's clock goes on to 5 s past the last."""
    table = market.ticks()
    end = at(DAY, last) + timedelta(seconds=5)
    chosen = pc.and_(pc.greater_equal(table["time"], at(DAY, first)), pc.less(table["time"], end))
    market.insert_ticks(client, table.filter(chosen))
    publish_clock(redis_client, to_ms(end), 0.0)


@pytest.mark.slow
def test_minutes_become_final_by_themselves(
    settings: Settings, clickhouse: Any, redis_client: Any, daemon: Path
) -> None:
    """Ticks in, checked bars out, twice, with nobody asking; the runs are in Dagster with their checks."""

    def final(table: str = "bars_1m") -> int:
        return int(clickhouse.query(f"SELECT uniqExact(frame) FROM {table}").first_row[0])

    feed(clickhouse, redis_client, 565, 576)
    wait_until(lambda: final() == 7, 120, f"seven minutes final; see {daemon}", every=0.5)
    feed(clickhouse, redis_client, 576, 581)
    wait_until(lambda: final() == 12, 60, f"five more minutes final; see {daemon}", every=0.5)
    wait_until(lambda: final("bars_5m") == 2, 60, f"09:35 and 09:40 rolled up; see {daemon}", every=0.5)
    with instance_of(settings) as instance:
        wait_until(lambda: finished(instance) >= 2, 30, "both runs ended with success", every=0.5)
        observed = instance.fetch_observations(dg.AssetKey("tick_stream"), limit=1).records
        assert observed, "the stream's statistics are observed without a run"
    kept = clickhouse.query(
        "SELECT uniqExact(check) FROM quality_results WHERE asset = 'bars_1m' AND passed"
    ).first_row[0]
    assert kept >= 5


def finished(instance: dg.DagsterInstance) -> int:
    """Runs of finalize_minutes that succeeded."""
    chosen = dg.RunsFilter(job_name="finalize_minutes", statuses=[dg.DagsterRunStatus.SUCCESS])
    return instance.get_runs_count(chosen)
