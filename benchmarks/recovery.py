"""How soon what was killed or hangs is back: Dagster's daemon by SIGKILL, engines and services by SIGSTOP.

A small market at four times real speed under `qmt up`. Killed: until a sensor has run again. Hung: until `qmt status`
is healthy and the final minutes are at most one and a half behind.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from benchmarks.common import wait_until
from benchmarks.report import Figure
from benchmarks.up import on_free_ports, started
from qmt_orchestration.cli.services import state_of
from qmt_orchestration.settings import Settings

KILLS: Final = 3
_DAEMON: Final = "dagster._daemon"
_ENGINE: Final = "clickhouse_server"
_CALM_SECONDS: Final = 15.0


def run(quick: bool) -> list[Figure]:
    """Seconds of each fault; wall clock."""
    with TemporaryDirectory(prefix="qmt-benchmark-", ignore_cleanup_errors=True) as folder:
        settings = on_free_ports(folder, sim_symbols=10 if quick else 300)
        with started(settings, "--speed", "4") as process:
            up = psutil.Process(process.pid)
            wait_until(lambda: _final(settings), 180, "the first final minute", 0.5)
            kills = []
            for _ in range(1 if quick else KILLS):
                time.sleep(_CALM_SECONDS)
                _find(up, _DAEMON).kill()
                kills.append(_until_sensors_run(settings, time.time()))
            hangs = {}
            for names in ((_ENGINE,), (_DAEMON,), (_ENGINE, _DAEMON, "run publisher")):
                time.sleep(_CALM_SECONDS)
                hangs[names] = _hang(settings, up, names)
    worst = max(kills)
    return [
        Figure("kill -9 of Dagster's daemon: its sensors run again, slowest", worst, "s", "≤ 10 s", worst <= 10),
        *(
            Figure(f"SIGSTOP of {' and '.join(names)}: healthy, minutes final", seconds, "s", "≤ 30 s", seconds <= 30)
            for names, seconds in hangs.items()
        ),
    ]


def _final(settings: Settings) -> bool:
    code, state = state_of(settings)
    behind = state.get("final_behind_minutes")
    return code == 0 and bool(state.get("last_final")) and behind is not None and behind <= 1.5


def _find(up: psutil.Process, part: str) -> psutil.Process:
    for one in [up, *up.children(recursive=True)]:
        with suppress(psutil.Error):
            if part in " ".join(one.cmdline()):
                return one
    raise RuntimeError(f"expected a process of qmt up with {part} in its command line")


def _until_sensors_run(settings: Settings, killed: float) -> float:
    wait_until(lambda: _newest_evaluation(settings.data_dir / "dagster") > killed + 1, 60, "a sensor to run", 0.1)
    return time.time() - killed


def _newest_evaluation(home: Path) -> float:
    """When Dagster last noted that it evaluates a sensor (epoch s, whole)."""
    newest = 0.0
    for path in home.rglob("schedules*.db"):
        with suppress(sqlite3.Error):
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)
            found = connection.execute("SELECT max(strftime('%s', timestamp)) FROM job_ticks").fetchone()[0]
            connection.close()
            newest = max(newest, float(found or 0))
    return newest


def _hang(settings: Settings, up: psutil.Process, names: tuple[str, ...]) -> float:
    for name in names:
        _find(up, name).suspend()
    stopped = time.monotonic()
    time.sleep(settings.service_stale_seconds)  # nobody can have noticed before
    wait_until(lambda: _final(settings), 120, f"a healthy system after a hang of {', '.join(names)}", 0.2)
    return time.monotonic() - stopped
