"""A market minute closes → its bars are final and checked in ClickHouse: `dagster dev` at real
speed; what its processes cost for a minute's run and between runs, and the events that a run writes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from benchmarks.common import DAY, free_port, fresh, percentile, wall_ms_of
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

RUNS = "runs and their server"
START, START_LABEL = "09:59:30", 600
FINAL = "SELECT toUnixTimestamp(frame) * 1000 AS frame_ms FROM bars_1m WHERE toDate(frame) = {day:Date} GROUP BY frame"


def run(quick: bool) -> list[Figure]:
    """Minutes from 10:01 on: the first one is behind, because Dagster takes a while to come up."""
    minutes = 3 if quick else 12
    with fresh() as engines:
        settings = at_real_speed(engines, START, **({"sim_symbols": 300} if quick else {}))
        home = dagster_home(settings)
        command = [str(Path(sys.executable).with_name("dagster")), "dev", "-p", str(free_port())]
        dagster = spawn([*command, "-w", _workspace(home)], settings, "dagster.log", {"DAGSTER_HOME": str(home)})
        try:
            costs = Costs(psutil.Process(dagster.pid))
            with services(settings, SERVICES):
                rows = _rows_seen(settings, minutes, costs)
            runs, events = _runs_ended(settings)
        finally:
            stop_group(dagster, 20)
    clock = SimClock(settings)
    wanted = [to_ms(at(DAY, START_LABEL + n)) for n in range(2, minutes + 1)]
    missing = [frame for frame in wanted if frame not in rows]
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {len(wanted)} minutes did not become final; {len(runs)} frames had runs that ended"
        )
    ends = {frame: wall_ms_of(clock, frame) for frame in wanted}
    seen = [(rows[frame] - ends[frame]) / 1000 for frame in wanted]
    checked = [(runs[frame] - ends[frame]) / 1000 for frame in wanted if frame in runs]
    p95 = percentile(checked or seen, 0.95)
    idle = costs.share([(end / 1000 + 20, end / 1000 + 58) for end in ends.values()])
    busy = costs.share([(end / 1000, end / 1000 + 20) for end in ends.values()])
    of_a_run = (sum(busy.values()) - sum(idle.values())) / 100 * 20
    between = sum(idle.values())
    return [
        Figure("minute's end → rows in bars_1m, p50", percentile(seen, 0.5), "s"),
        Figure("minute's end → rows in bars_1m, p95", percentile(seen, 0.95), "s"),
        Figure("minute's end → rows checked, run ended, p50", percentile(checked or seen, 0.5), "s"),
        Figure("minute's end → rows checked, run ended, p95", p95, "s", "≤ 7 s", p95 <= 7),
        Figure("minutes measured", float(len(checked)), "minutes"),
        Figure("CPU of everything Dagster does for a minute's run", of_a_run, "s", "≤ 0.8 s", of_a_run <= 0.8),
        *(Figure(f"of it {role}", (busy[role] - idle.get(role, 0.0)) / 5, "s") for role in sorted(busy)),
        Figure("Dagster between runs", between, "% of a core", "≤ 8 %", between <= 8),
        *(Figure(f"between runs, {role}", idle[role], "% of a core") for role in sorted(idle)),
        Figure("events of a run without a rollup", percentile(events, 0.1), "events"),
        Figure("events of a run with 5m", percentile(events, 0.9), "events"),
    ]


class Costs:
    """Processor time of Dagster's processes by role, sampled as time goes on."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._spent: dict[tuple[str, int], float] = {}

    def look(self) -> None:
        """Take a sample, once a second. What an ended process had used stays counted."""
        now = time.time()
        if self._samples and now - self._samples[-1][0] < 1.0:
            return
        for process in [self._root, *self._root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                role, times, ended = _role(" ".join(process.cmdline())), process.cpu_times(), 0.0
                if role == RUNS:
                    above = process.parent()
                    if above is not None and _role(" ".join(above.cmdline())) == RUNS:
                        continue  # a run: its server counts it when it has ended
                    ended = times.children_user + times.children_system
                self._spent[role, process.pid] = times.user + times.system + ended
        totals: dict[str, float] = {}
        for (role, _), seconds in self._spent.items():
            totals[role] = totals.get(role, 0.0) + seconds
        self._samples.append((now, totals))

    def share(self, windows: Sequence[tuple[float, float]]) -> dict[str, float]:
        """Role -> share of one core (%) within *windows* (epoch s)."""
        used: dict[str, float] = {}
        seconds = 0.0
        for first, last in windows:
            inside = [sample for sample in self._samples if first <= sample[0] <= last]
            if len(inside) > 1:
                seconds += inside[-1][0] - inside[0][0]
                for role, total in inside[-1][1].items():
                    used[role] = used.get(role, 0.0) + total - inside[0][1].get(role, 0.0)
        return {role: 100 * total / max(seconds, 1.0) for role, total in used.items()}


def _role(command: str) -> str:
    if "run_server" in command:
        return RUNS
    for word, role in (("dagster_webserver", "webserver"), ("dagster._daemon", "daemon"), ("grpc", "code server")):
        if word in command:
            return role
    return "code server" if "code-server" in command else "dagster dev"


def _workspace(home: Path) -> str:
    path = home / "workspace.yaml"
    path.write_text("load_from:\n  - python_module: qmt_orchestration.definitions\n")
    return str(path)


def _rows_seen(settings: Settings, minutes: int, costs: Costs) -> dict[int, float]:
    """Frame (epoch ms) -> wall time (epoch ms) at which its rows were first seen."""
    client = connect(settings)
    seen: dict[int, float] = {}
    end = time.time() + LEAD_SECONDS + 30 + minutes * 60 + 60
    while time.time() < end:
        for (frame,) in client.query(FINAL, parameters={"day": DAY}).result_rows:
            seen.setdefault(int(frame), time.time() * 1000)
        costs.look()
        time.sleep(0.2)
    return seen


def _runs_ended(settings: Settings) -> tuple[dict[int, float], list[float]]:
    """Frame -> wall time at which the first run that made it final had ended (runs carry the frames as a tag); and
    the number of events of each run."""
    ended: dict[int, float] = {}
    with instance_of(settings) as instance:
        chosen = dg.RunsFilter(job_name="finalize_minutes", statuses=[dg.DagsterRunStatus.SUCCESS])
        records: list[Any] = list(instance.get_run_records(chosen, ascending=True))
        events = [float(len(instance.all_logs(r.dagster_run.run_id))) for r in records]
    for record in records:
        first, last = record.dagster_run.tags["qmt/frames"].split("-")
        for label in range(_label(first), _label(last) + 1):
            ended.setdefault(to_ms(at(DAY, label)), float(record.end_time) * 1000)
    return ended, events


def _label(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
