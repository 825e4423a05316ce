"""Runs as forks: real processes on a real instance with the project's dagster.yaml; each known hazard is a test."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext
from dagster._core.launcher.base import WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from qmt_orchestration.orchestration import launcher, run_server
from qmt_orchestration.orchestration.backfill import instance_of
from qmt_orchestration.orchestration.launcher import ForkedRunLauncher
from qmt_orchestration.orchestration.run_server import Worker, start_time
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.orchestration import tiny_runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Dagster's default launcher is used")


class World:
    """An instance, its launcher, and runs that say who they are."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path, module: str = tiny_runs.__name__) -> None:
        self.instance, self.folder = instance, folder
        pointer = ModuleCodePointer(module, "defs")
        self.origin = JobPythonOrigin("tiny", RepositoryPythonOrigin(sys.executable, pointer))
        target = LoadableTargetOrigin(executable_path=sys.executable, module_name=module)
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=module)
        self.remote_origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "tiny")

    @property
    def runs(self) -> Path:
        """Where the processes of runs are registered."""
        return Path(self.instance.root_directory) / "run_server" / "runs"

    def launch(self, wait: bool = False, workspace: Any = None, **config: Any) -> str:
        """Launch a run from this process; with *wait* it goes on until `finish`."""
        run_id = self.create(dg.DagsterRunStatus.STARTING, wait=wait, **config)
        self.instance.run_launcher.launch_run(LaunchRunContext(self.run(run_id), workspace))
        return run_id

    def create(
        self, status: dg.DagsterRunStatus = dg.DagsterRunStatus.QUEUED, *, wait: bool = False, **config: Any
    ) -> str:
        """A run as Dagster stores it before its launch."""
        until = str(self.folder / f"go-{time.monotonic_ns()}") if wait else ""
        begun = f"{until or self.folder / f'once-{time.monotonic_ns()}'}.begun"
        run = self.instance.create_run_for_job(
            tiny_runs.tiny,
            status=status,
            job_code_origin=self.origin,
            remote_job_origin=self.remote_origin,
            run_config={"ops": {"work": {"config": {"begun": begun, "until": until, **config}}}},
            tags={"begun": begun, "until": until, "dagster/max_retries": "0"},
        )
        return run.run_id

    def who(self, run_id: str) -> list[int]:
        """pid, parent's pid, OS threads and Python threads of the run, once it works."""
        run = self.run(run_id)
        text = wait_until(lambda: Path(run.tags["begun"]).exists() and Path(run.tags["begun"]).read_text(), 30)
        (line,) = text.splitlines()  # a second line would be a second process of the same run
        return [int(word) for word in line.split()]

    def run(self, run_id: str) -> dg.DagsterRun:
        """As stored."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def finish(self, run_id: str) -> None:
        """Let a waiting run end, and see that it does."""
        Path(self.run(run_id).tags["until"]).touch()
        self.ends_as(run_id, "SUCCESS")

    def ends_as(self, run_id: str, status: str) -> None:
        """Wait for the run's end."""
        wait_until(lambda: self.run(run_id).is_finished, 30, f"the end of {run_id}")
        assert self.run(run_id).status.value == status

    def health(self, run_id: str) -> WorkerStatus:
        """As Dagster's run monitoring asks."""
        return self.instance.run_launcher.check_run_worker_health(self.run(run_id)).status


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One instance and one run server for all tests here, apart from those that kill it."""
    folder = tmp_path_factory.mktemp("runs")
    with instance_of(Settings(data_dir=folder / "data")) as instance:
        assert isinstance(instance.run_launcher, ForkedRunLauncher)
        yield World(instance, folder)


def gone(pid: int) -> bool:
    return start_time(pid) == 0


def test_a_run_is_a_fork_of_one_process_with_one_thread_and_its_output_is_in_the_compute_logs(world: World) -> None:
    first, second = world.launch(), world.launch()
    ours, theirs = world.who(first), world.who(second)
    assert ours[0] != theirs[0]
    assert ours[1] == theirs[1], "both are children of the same server"
    assert ours[2:] == [1, 1], "no thread came along, none was started"
    for run_id in (first, second):
        world.ends_as(run_id, "SUCCESS")
    events = world.instance.all_logs(first, of_type=dg.DagsterEventType.LOGS_CAPTURED)
    (captured,) = [e.dagster_event.event_specific_data for e in events if e.dagster_event]
    logs = world.instance.compute_log_manager.get_log_data([first, "compute_logs", captured.file_key])
    assert logs.stdout == b"printed by the run\n"
    assert b"an error printed by the run" in (logs.stderr or b"")
    wait_until(lambda: not psutil.Process(ours[1]).children(recursive=True), 10, "nothing is left of them")
    assert not list(world.runs.iterdir())


def test_terminate_from_another_process_ends_the_run_and_its_process(world: World) -> None:
    """The webserver has a launcher of its own."""
    run_id = world.launch(wait=True)
    pid = world.who(run_id)[0]
    code = (
        "import sys, dagster as dg\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    assert instance.run_launcher.terminate(sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", code, world.instance.root_directory, run_id], check=True)
    world.ends_as(run_id, "CANCELED")
    wait_until(lambda: gone(pid), 10, "its process ends")


def test_terminate_ends_a_process_that_does_not_react_to_sigterm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.3)
    run_id = world.launch(wait=True, stubborn=True)
    pid = world.who(run_id)[0]
    assert world.instance.run_launcher.terminate(run_id)
    world.ends_as(run_id, "CANCELED")
    assert gone(pid)


def test_a_run_that_ended_before_it_could_be_terminated_is_canceled_at_once(world: World) -> None:
    run_id = world.launch(wait=True)
    os.kill(world.who(run_id)[0], signal.SIGKILL)
    wait_until(lambda: not Worker.read(world.runs, run_id), 10)
    assert world.instance.run_launcher.terminate(run_id)
    world.ends_as(run_id, "CANCELED")
    assert not world.instance.run_launcher.terminate(run_id), "it has ended"


def test_the_health_of_a_killed_run_says_what_killed_it(world: World) -> None:
    run_id = world.launch(wait=True)
    pid = world.who(run_id)[0]
    assert world.health(run_id) == WorkerStatus.RUNNING
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: world.health(run_id) == WorkerStatus.FAILED, 10)
    explain = world.instance.run_launcher.get_run_worker_debug_info
    wait_until(lambda: f"process {pid}: killed by SIGKILL" in (explain(world.run(run_id)) or ""), 10)


def test_a_run_is_never_executed_twice(world: World) -> None:
    """Asked for again (a lost reply, a restarted daemon), it is refused while it runs and after its end."""
    run_id = world.launch(wait=True)
    world.who(run_id)
    world.instance.run_launcher.launch_run(LaunchRunContext(world.run(run_id), None))
    world.finish(run_id)
    world.instance.run_launcher.launch_run(LaunchRunContext(world.run(run_id), None))
    wait_until(lambda: not Worker.read(world.runs, run_id), 30, "a second process ends by itself")
    world.who(run_id)  # one line still: one process has worked
    assert world.run(run_id).status == dg.DagsterRunStatus.SUCCESS


def test_a_second_launcher_of_the_process_has_the_same_server_and_its_end_ends_no_run(world: World) -> None:
    """Two threads of the daemon may each make a launcher at its start, and one of the two is discarded."""
    first = world.launch(wait=True)
    second = ForkedRunLauncher()
    second.register_instance(world.instance)
    run_id = world.create(dg.DagsterRunStatus.STARTING, wait=True)
    second.launch_run(LaunchRunContext(world.run(run_id), None))
    assert world.who(run_id)[1] == world.who(first)[1]
    del second
    gc.collect()
    for started in (first, run_id):
        assert world.health(started) == WorkerStatus.RUNNING
        world.finish(started)


def test_a_kill_of_the_server_ends_its_runs_and_the_next_run_has_a_new_server(world: World) -> None:
    run_id = world.launch(wait=True)
    pid, server, *_ = world.who(run_id)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: gone(pid), 5, "the kernel ends its runs")
    assert world.health(run_id) == WorkerStatus.FAILED
    following = world.launch()
    assert world.who(following)[1] != server
    world.ends_as(following, "SUCCESS")
    assert Worker.read(world.runs, run_id) is None, "what the dead server registered is removed"


def test_what_a_dead_server_left_behind_is_ended_before_a_new_one_serves(tmp_path: Path) -> None:
    """And nothing else: a process that got the same pid meanwhile started at another time."""
    with subprocess.Popen(["sleep", "60"]) as left, subprocess.Popen(["sleep", "60"]) as innocent:
        Worker(left.pid, start_time(left.pid), 1, 1).write(tmp_path, "left")
        Worker(innocent.pid, start_time(innocent.pid) - 1, 1, 1).write(tmp_path, "innocent")
        me = os.getpid(), start_time(os.getpid())
        Worker(innocent.pid, start_time(innocent.pid), *me).write(tmp_path, "served")
        run_server.end_leftovers(tmp_path)
        assert left.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
        innocent.kill()
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"], "runs of a living server are its own"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_the_launchers_process_ends_server_and_runs(world: World, tmp_path: Path, number: int) -> None:
    """The daemon is killed: nothing runs that nobody watches. The registered run is taken for what it is: gone."""
    code = (
        "import sys, pathlib, dagster as dg\n"
        "from qmt_orchestration_tests.orchestration.test_launcher import World\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    print(World(instance, pathlib.Path(sys.argv[2])).launch(wait=True), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, world.instance.root_directory, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        run_id = daemon.stdout.readline().strip()
        pid, server, *_ = world.who(run_id)
        daemon.send_signal(number)
        daemon.wait(20)
    wait_until(lambda: gone(pid) and gone(server), 15, "run and server end")
    assert world.run(run_id).is_finished, "it could write its end"
    assert Worker.read(world.runs, run_id) is None


@pytest.mark.slow
def test_changed_code_gets_a_new_server_after_the_run_in_flight(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "changing"
    package.mkdir()
    (package / "__init__.py").write_text(f"from {tiny_runs.__name__} import defs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    changing = World(world.instance, tmp_path, "changing")
    before = changing.launch(wait=True)
    old = changing.who(before)[1]
    unchanged = changing.launch()
    assert changing.who(unchanged)[1] == old
    (package / "more.py").write_text("")
    after = changing.launch()
    assert changing.who(after)[1] != old
    changing.ends_as(after, "SUCCESS")
    assert changing.health(before) == WorkerStatus.RUNNING, "the run in flight goes on"
    changing.finish(before)
    wait_until(lambda: gone(old), 10, "then its server ends")


@pytest.mark.slow
def test_a_reload_of_the_code_location_gets_a_new_server_after_the_run_in_flight(world: World, tmp_path: Path) -> None:
    """As the pages' Reload does it under `dagster dev`: the code may be the same, its settings may not."""
    socket = str(tmp_path / "code.sock")
    command = [str(Path(sys.executable).with_name("dagster")), "code-server", "start", "-m", tiny_runs.__name__]
    target = GrpcServerTarget(host="localhost", port=None, socket=socket, location_name="tiny")
    with subprocess.Popen([*command, "--socket", socket]) as code_server:
        try:
            wait_until(lambda: Path(socket).exists(), 60, "the code server")
            with WorkspaceProcessContext(world.instance, target) as workspace:
                served = World(world.instance, tmp_path)
                (origin,) = workspace.create_request_context().get_code_location_entries().values()
                served.remote_origin = RemoteJobOrigin(RemoteRepositoryOrigin(origin.origin, "__repository__"), "tiny")
                before = served.launch(wait=True, workspace=workspace.create_request_context())
                old = served.who(before)[1]
                same = served.launch(workspace=workspace.create_request_context())
                assert served.who(same)[1] == old
                workspace.reload_code_location("tiny")
                after = served.launch(workspace=workspace.create_request_context())
                assert served.who(after)[1] != old
                served.finish(before)
                wait_until(lambda: gone(old), 10, "the old server ends after its last run")
        finally:
            code_server.terminate()


def test_a_library_that_starts_a_thread_when_it_is_imported_is_not_forked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\n"
        f"from {tiny_runs.__name__} import defs\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    asked: list[str] = []
    monkeypatch.setattr(
        launcher.DefaultRunLauncher, "launch_run", lambda _, context: asked.append(context.dagster_run.run_id)
    )
    run_id = World(world.instance, tmp_path, "threaded").launch()
    assert asked == [run_id], "Dagster's default launcher is asked"
    (said,) = [e.message for e in world.instance.all_logs(run_id) if "Not forked" in e.message]
    assert "expected one thread after the import, found 2" in said


def test_without_fork_the_default_launcher_starts_runs_and_a_killed_one_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """macOS and Windows: the process is known from the event log, where the run has said its pid."""
    monkeypatch.delattr(os, "pidfd_open")
    launcher.forks_here.cache_clear()
    asked: list[str] = []
    monkeypatch.setattr(
        launcher.DefaultRunLauncher, "launch_run", lambda _, context: asked.append(context.dagster_run.run_id)
    )
    run_id = world.launch()
    assert asked == [run_id]
    assert "runs are started by Dagster's default launcher" in caplog.text
    monkeypatch.undo()
    launcher.forks_here.cache_clear()
    world.instance.add_run_tags(run_id, {".dagster/grpc_info": "{}"})
    with subprocess.Popen(["sleep", "60"]) as process:
        said = EngineEventData.in_process(process.pid)
        world.instance.report_engine_event("Started process for run", world.run(run_id), said)
        assert world.health(run_id) == WorkerStatus.RUNNING
        process.kill()
    assert world.health(run_id) == WorkerStatus.FAILED


@pytest.mark.slow
def test_memory_and_threads_stay_flat_over_many_runs(world: World) -> None:
    """The benchmark `runs` does it 500 times."""
    first = world.launch()
    server = psutil.Process(world.who(first)[1])
    world.ends_as(first, "SUCCESS")
    wait_until(lambda: not server.children(), 10)
    before, files = server.memory_info().rss, server.num_fds()
    for _ in range(10):
        world.ends_as(world.launch(), "SUCCESS")
    wait_until(lambda: not server.children(), 10)
    assert server.memory_info().rss - before < 2 << 20
    assert server.num_fds() <= files
    assert server.num_threads() == 1


def test_the_log_does_not_grow_without_bound(world: World) -> None:
    path = world.runs.parent / "log"
    with path.open("ab") as out:
        out.truncate(run_server.LOG_BYTES + 1)
    world.ends_as(world.launch(), "SUCCESS")
    assert path.stat().st_size < 1 << 20
    assert path.with_name("log.1").stat().st_size > run_server.LOG_BYTES
    path.with_name("log.1").unlink()


def test_only_the_owner_reaches_what_the_launcher_keeps(world: World) -> None:
    world.ends_as(world.launch(), "SUCCESS")
    assert world.runs.stat().st_mode & 0o777 == 0o700
    assert world.runs.parent.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def daemon(world: World) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts Dagster's daemon on the instance, with the tiny definitions."""
    started: list[subprocess.Popen[bytes]] = []
    root = world.instance.root_directory
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", tiny_runs.__name__]

    def start() -> subprocess.Popen[bytes]:
        with (world.folder / "daemon.log").open("ab") as out:
            process = subprocess.Popen(
                command, env={**os.environ, "DAGSTER_HOME": root}, stdout=out, stderr=subprocess.STDOUT
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_the_daemon_notices_killed_and_never_started_runs_and_a_kill_of_itself_leaves_none(
    world: World, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """With the intervals of the project's dagster.yaml. None is started a second time: `who` would find it."""
    first = daemon()
    killed, interrupted = world.create(wait=True), world.create(wait=True)
    never = world.create(dg.DagsterRunStatus.STARTING)
    begun = time.monotonic()
    world.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_STARTING", "tiny"), run_id=never)
    pid, server, *_ = world.who(killed)
    os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    world.ends_as(killed, "FAILURE")
    assert time.monotonic() - at < 30
    (said,) = [e for e in world.instance.all_logs(killed) if e.dagster_event and e.dagster_event.is_job_failure]
    assert "the process of the run is gone" in said.message
    assert "killed by SIGKILL" in said.message
    ours = world.who(interrupted)
    assert ours[1] == server
    world.ends_as(never, "FAILURE")
    assert time.monotonic() - begun < 60
    first.kill()
    wait_until(lambda: gone(ours[0]) and gone(server), 15, "runs and server end with the daemon")
    daemon()
    following = world.create()
    assert world.who(following)[1] != server
    world.ends_as(following, "SUCCESS")
    assert world.run(interrupted).is_finished
    world.who(interrupted)
    world.who(killed)


def test_no_run_outlives_the_instance(tmp_path: Path) -> None:
    with instance_of(Settings(data_dir=tmp_path / "data")) as instance:
        there = World(instance, tmp_path)
        run_id = there.launch(wait=True)
        pid, server, *_ = there.who(run_id)
    assert gone(pid)
    assert gone(server)
