"""`qmt up` as a person runs it: minutes become final, a kill loses nothing, Ctrl-C ends everything."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import clickhouse_connect
import psutil
import pytest
from typer.testing import CliRunner

from qmt_orchestration.cli.main import app
from qmt_orchestration_tests.helpers import free_port, wait_until


@contextmanager
def up(data_dir: Path, log: Path, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QMT_")}
    for name in ("redis_port", "clickhouse_port"):
        settings.setdefault(name, free_port())
    environment |= {f"QMT_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "qmt_orchestration.cli", "up", "--no-ui", "--symbols", "40", "--speed", "30"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def of_this_system(data_dir: Path) -> list[int]:
    """Processes that `qmt up` started on *data_dir*, directly or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("QMT_UP_DATA_DIR") == str(data_dir.resolve()):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def market_times(log: Path) -> list[str]:
    return re.findall(r"market (\S+ \S+) ", log.read_text())


def bars(data_dir: Path, port: int) -> set[tuple[object, ...]]:
    """Which bars stand in bars_1m (a late tick may still change one)."""
    password = (data_dir / "run" / "clickhouse.password").read_text().strip()
    with clickhouse_connect.get_client(host="127.0.0.1", port=port, password=password, database="qmt") as client:
        return {tuple(row) for row in client.query("SELECT symbol, frame FROM bars_1m").result_rows}


def runs_in_flight(data_dir: Path) -> int:
    """Runs of Dagster that have begun and not ended, as its own storage says."""
    with closing(sqlite3.connect(data_dir / "dagster" / "history" / "runs.db")) as runs:
        return int(runs.execute("SELECT count(*) FROM runs WHERE status = 'STARTED'").fetchone()[0])


def test_minutes_become_final_a_kill_loses_nothing_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    data_dir, first_log, second_log = tmp_path / "data", tmp_path / "first.log", tmp_path / "second.log"
    port = free_port()
    with up(data_dir, first_log, clickhouse_port=port) as process:
        wait_until(lambda: re.search(r"final \d\d:\d\d", first_log.read_text()), 150, "a minute is final")
        assert len(of_this_system(data_dir)) >= 6
        refused = tmp_path / "refused.log"
        with up(data_dir, refused) as second:
            assert second.wait(60) == 1
        assert "in use by another `qmt up`" in refused.read_text()
        final = bars(data_dir, port)
        assert final
        wait_until(lambda: runs_in_flight(data_dir), 60, "a run that the kill will interrupt")
        process.kill()
        for pid in of_this_system(data_dir):  # as in a power cut: nobody can put anything in order
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert runs_in_flight(data_dir)
        process.wait()
    with up(data_dir, second_log, clickhouse_port=port) as process:
        wait_until(lambda: market_times(second_log), 150, "the market flows again")
        wait_until(lambda: final < bars(data_dir, port), 60, "minutes become final again, although a run was killed")
    assert process.returncode == 0
    assert of_this_system(data_dir) == []
    assert market_times(second_log)[0] >= market_times(first_log)[-1]


def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        log = tmp_path / "log"
        with up(tmp_path / "data", log, redis_port=port) as process:
            assert process.wait(60) == 1
    assert str(port) in log.read_text()
    assert "QMT_REDIS_PORT" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--date", "2025-06-07"], "2025-06-07 is no trading day; nearest are 2025-06-06 and 2025-06-09"),
        (["--date", "soon"], "expected a date like 2025-06-05, found 'soon'"),
        (["--fault", "price-spike"], "expected NAME[=NUMBER]@HH:MM[-HH:MM]"),
        (["--fault", "earthquake@10:15"], "unknown fault 'earthquake'; known are"),
        (["--speed", "0"], "speed 0 plays one day at once and ends"),
    ],
)
def test_what_makes_no_market_is_refused_before_anything_starts(tmp_path: Path, options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["up", "--no-ui", "--data-dir", str(tmp_path / "data"), *options])
    assert done.exit_code == 1
    assert words in done.output
    assert not (tmp_path / "data").exists()
