"""`qmt up` as a person runs it. One system is shared: first minutes, its state, every process killed, then itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from typer.testing import CliRunner

from qmt_orchestration.cli.main import app
from qmt_orchestration.orchestration.backfill import instance_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.helpers import free_port, wait_until

DAGSTER = ("dagster-code", "dagster-daemon")
ALL = ("redis", "clickhouse", "subscriber", "gateway", "writer", "publisher", *DAGSTER)


@dataclass
class System:
    """A `qmt up --no-ui` on its own folder and ports."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("redis_port", "clickhouse_port", "console_port", "dagster_port"):
            self.settings.setdefault(name, free_port())

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        own = {f"QMT_{name.upper()}": str(value) for name, value in self.settings.items()}
        return {k: v for k, v in os.environ.items() if not k.startswith("QMT_")} | own

    def start(self, *options: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "qmt_orchestration.cli", "up", "--no-ui", "--symbols", "40", *options]
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir)], env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "qmt_orchestration.cli", "status", "--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        return {"code": done.returncode, **json.loads(done.stdout)}

    def pids(self) -> list[int]:
        """Processes that it started, directly or not."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("QMT_DATA_DIR") == str(self.data_dir) and process.status() != "zombie":
                    found.append(process.pid)
        return found

    def pid(self, name: str) -> int:
        """The process of a service, 0 while there is none."""
        with suppress(OSError, ValueError):
            return int(json.loads((self.data_dir / "run/services" / f"{name}.json").read_text())["pid"])
        return 0

    def bars(self) -> set[tuple[object, ...]]:
        """Which bars are in bars_1m (a late tick may still change one)."""
        own = Settings(data_dir=self.data_dir, clickhouse_port=int(str(self.settings["clickhouse_port"])))
        with connect(own) as client:
            return {tuple(row) for row in client.query("SELECT symbol, frame FROM bars_1m").result_rows}

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def system_of(folder: Path, *options: str, **settings: object) -> Iterator[System]:
    system = System(folder, settings)
    system.start(*options)
    try:
        yield system
    finally:
        assert system.process is not None
        if system.process.poll() is None:
            system.stop()
        for pid in system.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for this module; the tests are in the order in which they use it up."""
    with system_of(tmp_path_factory.mktemp("up")) as out:
        wait_until(lambda: re.search(r"final to \d\d:\d\d", out.log), 180, "a minute is final")
        yield out


def market_times(log: str) -> list[str]:
    return re.findall(r"market (\S+ \S+) ", log)


@pytest.mark.timeout(300)
def test_the_first_minutes_are_whole_and_the_speed_explains_itself(system: System) -> None:
    assert market_times(system.log)[0] == "2025-06-05 09:29:20", "it waits there until all is ready"
    assert "the market waits for" in system.log
    state = system.status()
    assert state["code"] in (0, 1), state
    assert state["instruments"] == 40
    assert 1 <= state["speed"] <= 20
    assert re.search("rising|held|fastest", state["speed_reason"])
    assert set(ALL) <= set(state["services"])
    assert not [reason for reason in state["reasons"] if "console" in reason or "webserver" in reason]
    assert {frame for _, frame in system.bars()}
    assert min(frame for _, frame in system.bars()).strftime("%H:%M") == "09:30"
    feed = (system.data_dir / "logs" / "subscriber.log").read_text()
    assert "subscribing again" not in feed, "a feed that flows is left alone"


def test_final_minutes_are_checked_and_dagster_knows_their_runs_and_the_stream(system: System) -> None:
    own = Settings(data_dir=system.data_dir, clickhouse_port=int(str(system.settings["clickhouse_port"])))
    chosen = dg.RunsFilter(job_name="finalize_minutes", statuses=[dg.DagsterRunStatus.SUCCESS])
    with instance_of(own) as instance:
        wait_until(lambda: instance.get_runs_count(chosen), 60, "a run ends with success")
        observed = lambda: instance.fetch_observations(dg.AssetKey("tick_stream"), limit=1).records  # noqa: E731
        wait_until(observed, 60, "the stream's statistics are observed without a run")
    with connect(own) as client:
        checks = "SELECT uniqExact(check) FROM quality_results WHERE asset = 'bars_1m' AND passed"
        assert client.query(checks).first_row[0] >= 5


def test_a_second_one_on_the_folder_is_refused(system: System) -> None:
    second = System(system.folder.parent / "second", system.settings)
    done = CliRunner(env=second.environment).invoke(app, ["up", "--no-ui", "--data-dir", str(system.data_dir)])
    assert done.exit_code == 1
    assert "in use by another `qmt up`" in done.output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_process_comes_back_after_kill_and_hang(system: System) -> None:
    """How fast depends on the machine: it is shown (``pytest -s``)."""
    took = {}
    for number, names in ((signal.SIGKILL, ALL), (signal.SIGSTOP, ("clickhouse", "dagster-daemon", "publisher"))):
        before, struck = {name: system.pid(name) for name in names}, time.monotonic()
        for pid in before.values():
            os.kill(pid, number)
        for name, old in before.items():
            wait_until(lambda name=name, old=old: system.pid(name) not in (0, old), 60, f"{name} is back")
            wait_until(lambda old=old: not psutil.pid_exists(old), 10, f"the old {name} is gone")
            took[f"{number.name} {name}"] = round(time.monotonic() - struck, 1)
    before = system.status()
    for name, what in (("last_published", "published"), ("last_final", "final")):
        since = before.get(name) or "09:30"
        wait_until(lambda name=name, since=since: (system.status().get(name) or "") > since, 150, f"minutes are {what}")
        took[f"minutes {what} after the hang"] = round(time.monotonic() - struck, 1)
    print(took, "load", os.getloadavg()[0])  # noqa: T201


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_of_everything_loses_nothing_and_no_process_runs_beside_the_new_ones(system: System) -> None:
    final, last = system.bars(), market_times(system.log)[-1]
    old = set(system.pids())
    assert system.process is not None
    os.kill(system.pid("dagster-daemon"), signal.SIGSTOP)  # it cannot hear that its parent has ended
    os.kill(system.pid("writer"), signal.SIGSTOP)
    system.process.kill()
    system.process.wait()
    (system.folder / "log").write_text("")
    system.start()
    wait_until(lambda: market_times(system.log), 120, "the market goes on")
    wait_until(lambda: system.pid("dagster-daemon") not in (0, *old), 60, "a daemon of the new system")
    assert not old & set(system.pids())
    daemons = [p for p in system.pids() if "dagster._daemon" in psutil.Process(p).cmdline()]
    assert len(daemons) == 1
    assert market_times(system.log)[0] >= last
    wait_until(lambda: system.status().get("last_published"), 60, "minutes are published")
    assert final <= system.bars()


@pytest.mark.timeout(120)
def test_ctrl_c_ends_everything(system: System) -> None:
    assert system.stop() == 0
    assert system.pids() == []
    code = system.status()
    assert code["code"] == 2


@pytest.mark.parametrize("name", ["redis_port", "clickhouse_port"])
def test_a_port_in_use_is_named_with_its_setting_and_nothing_is_left_running(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with system_of(tmp_path, **{name: port}) as system:
            assert system.process is not None
            assert system.process.wait(60) == 1
            assert str(port) in system.log
            assert f"QMT_{name.upper()}" in system.log
            assert "Traceback" not in system.log
            assert system.pids() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--date", "2025-06-07"], "2025-06-07 is no trading day; nearest are 2025-06-06 and 2025-06-09"),
        (["--date", "soon"], "expected a date like 2025-06-05, found 'soon'"),
        (["--fault", "price-spike"], "expected NAME[=NUMBER]@HH:MM[-HH:MM]"),
        (["--fault", "earthquake@10:15"], "unknown fault 'earthquake'; known are"),
        (["--speed", "0"], "speed 0 plays one day at once and ends"),
        (["--speed", "inf"], "expected market seconds per second above 0"),
    ],
)
def test_what_makes_no_market_is_refused_before_anything_starts(tmp_path: Path, options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["up", "--no-ui", "--data-dir", str(tmp_path / "data"), *options])
    assert done.exit_code == 1
    assert words in done.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("speed", ["-1", "fast", "nan"])
def test_a_speed_that_is_no_positive_number_is_refused(tmp_path: Path, speed: str) -> None:
    done = CliRunner().invoke(app, ["up", "--no-ui", "--data-dir", str(tmp_path / "data"), "--speed", speed])
    assert done.exit_code == 2
    assert "--speed" in done.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("layout", ["3", "nonsense"])
def test_a_folder_of_a_later_version_is_refused_and_nothing_starts(tmp_path: Path, layout: str) -> None:
    (tmp_path / "LAYOUT").write_text(layout)
    done = CliRunner().invoke(app, ["up", "--no-ui", "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "was written by another version of qmt" in done.output
    assert not (tmp_path / "redis").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = CliRunner().invoke(app, ["up", "--no-ui", "--data-dir", str(tmp_path / "data")])
    assert done.exit_code == 1
    assert str(tmp_path / "data") in done.output
    assert not isinstance(done.exception, OSError)
