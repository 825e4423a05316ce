"""A market minute closes → its bars are final and checked in ClickHouse: the real Dagster daemon at real speed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.common import DAY, fresh, percentile
from benchmarks.delay import SERVICES
from benchmarks.live import LEAD_SECONDS, at_real_speed, services
from benchmarks.report import Figure
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.orchestration.backfill import instance_of
from qmt_orchestration.services.dagster_processes import dagster_home
from qmt_orchestration.services.processes import spawn, stop_group
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.warehouse.client import connect

START, START_LABEL = "09:59:30", 600
FINAL = "SELECT toUnixTimestamp(frame) * 1000 AS frame_ms FROM bars_1m WHERE toDate(frame) = {day:Date} GROUP BY frame"


def run(quick: bool) -> list[Figure]:
    """Minutes from 10:01 on: the first ones are behind, because Dagster's daemon takes a while to come up."""
    minutes = 2 if quick else 8
    with fresh() as engines:
        settings = at_real_speed(engines, START)
        home = dagster_home(settings)
        command = [str(Path(sys.executable).with_name("dagster-daemon")), "run"]
        daemon = spawn([*command, "-w", _workspace(home)], settings, "daemon.log", {"DAGSTER_HOME": str(home)})
        try:
            with services(settings, SERVICES):
                rows = _rows_seen(settings, minutes)
            runs = _runs_ended(settings)
        finally:
            stop_group(daemon, 20)
    clock = SimClock(settings)
    wanted = [to_ms(at(DAY, START_LABEL + n)) for n in range(1 if quick else 2, minutes + 1)]
    missing = [frame for frame in wanted if frame not in rows]
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {len(wanted)} minutes did not become final; {len(runs)} frames had runs that ended"
        )
    seen = [(rows[frame] - clock.wall_ms_of(frame)) / 1000 for frame in wanted]
    checked = [(runs[frame] - clock.wall_ms_of(frame)) / 1000 for frame in wanted if frame in runs]
    p95 = percentile(checked or seen, 0.95)
    return [
        Figure("minute's end → rows in bars_1m, p50", percentile(seen, 0.5), "s"),
        Figure("minute's end → rows in bars_1m, p95", percentile(seen, 0.95), "s"),
        Figure("minute's end → rows checked, run ended, p50", percentile(checked or seen, 0.5), "s"),
        Figure("minute's end → rows checked, run ended, p95", p95, "s", "≤ 15 s", p95 <= 15),
        Figure("minutes measured", float(len(checked)), "minutes"),
    ]


def _workspace(home: Path) -> str:
    path = home / "workspace.yaml"
    path.write_text("load_from:\n  - python_module: qmt_orchestration.definitions\n")
    return str(path)


def _rows_seen(settings: Settings, minutes: int) -> dict[int, float]:
    """Frame (epoch ms) -> wall time (epoch ms) at which its rows were first seen."""
    client = connect(settings)
    seen: dict[int, float] = {}
    end = time.time() + LEAD_SECONDS + 30 + minutes * 60 + 60
    while time.time() < end:
        for (frame,) in client.query(FINAL, parameters={"day": DAY}).result_rows:
            seen.setdefault(int(frame), time.time() * 1000)
        time.sleep(0.2)
    return seen


def _runs_ended(settings: Settings) -> dict[int, float]:
    """Frame -> wall time at which the first run that made it final had ended; runs carry the frames as a tag."""
    ended: dict[int, float] = {}
    with instance_of(settings) as instance:
        chosen = dg.RunsFilter(job_name="finalize_minutes", statuses=[dg.DagsterRunStatus.SUCCESS])
        records: list[Any] = list(instance.get_run_records(chosen, ascending=True))
    for record in records:
        first, last = record.dagster_run.tags["qmt/frames"].split("-")
        for label in range(_label(first), _label(last) + 1):
            ended.setdefault(to_ms(at(DAY, label)), float(record.end_time) * 1000)
    return ended


def _label(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
