"""Dagster's run launcher of this project: a run is a fork of a process that has the definitions imported.

Dagster's default launcher starts a process for each run, which imports everything again: about two seconds of
processor time, more than the work of a minute. `ForkedRunLauncher` keeps one `run_server` per code location, which is
replaced, after the runs in flight, when the code changes. Limits on concurrent runs stay with Dagster's queue.

Which process a run has stands on disk (DAGSTER_HOME/run_server), not in the server: so the webserver's Terminate and
the daemon's run monitoring work whichever process asks. Where forking is not possible (no Linux, a library that starts
threads when it is imported) Dagster's default launcher is used, and the log says so.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import dagster as dg
import psutil
from dagster._core.launcher import DefaultRunLauncher, LaunchRunContext
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value
from dagster._serdes.config_class import ConfigurableClassData

from qmt_orchestration.orchestration import run_server
from qmt_orchestration.orchestration.run_server import ENVIRONMENT, FINISH_SECONDS, GRACE_SECONDS, Worker

log = logging.getLogger("dagster.qmt.launcher")

IMPORT_SECONDS: Final = 120.0  # longest wait for the definitions to be imported
END_SECONDS: Final = FINISH_SECONDS + GRACE_SECONDS + 2  # for a server to end its runs and itself
_SOURCES: Final = (".py", ".sql")


class CannotFork(RuntimeError):
    """The server did not come up; the message says why."""


@cache
def forks_here() -> bool:
    """Whether this system can do it: Linux with pidfd_open (5.3, 2019)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        log.warning("runs are started by Dagster's default launcher: %s cannot fork them (%s)", sys.platform, error)
        return False
    return True


class _Server:
    """A running `run_server`, and the launcher's end of the channel to it."""

    def __init__(self, executable: str, root: Path, version: str) -> None:
        ours, theirs = socket.socketpair()
        command = [executable, "-m", run_server.__name__, str(theirs.fileno()), str(root / "runs")]
        with theirs, (root / "log").open("ab") as out:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._channel, self._answers, self.version = ours, ours.makefile("rb", buffering=0), version

    def ask(self, message: Mapping[str, Any], seconds: float = 30.0) -> dict[str, Any]:
        """The answer. ConnectionError when the server has ended, TimeoutError when it does not answer."""
        self._channel.settimeout(seconds)
        self._channel.sendall(json.dumps(message).encode() + b"\n")
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the run server has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    def close(self, wait_seconds: float = 0.0) -> None:
        """End it with its runs."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_seconds)


class _Servers:
    """The servers of this process for one DAGSTER_HOME."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_code: dict[str, _Server] = {}
        self.retired: list[_Server] = []


#: Two threads of the daemon that need the launcher first may each make one (Dagster does not lock): they share these,
#: and the servers do not end, with their runs, when one of the two is discarded.
_OF_HOME: Final[dict[Path, _Servers]] = {}


class ForkedRunLauncher(DefaultRunLauncher):
    """Configured in dagster.yaml. *preload_modules*: what the bodies of assets import, so that a run need not."""

    def __init__(self, inst_data: ConfigurableClassData | None = None, preload_modules: Sequence[str] = ()) -> None:
        super().__init__(inst_data)
        self._preload = list(preload_modules)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The configuration in dagster.yaml."""
        return {"preload_modules": dg.Field([str], is_required=False, default_value=[])}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> ForkedRunLauncher:
        """As Dagster makes it."""
        return cls(inst_data, **config_value)

    @property
    def _root(self) -> Path:
        root = Path(self._instance.root_directory) / "run_server"
        for folder in (root, root / "runs"):
            folder.mkdir(mode=0o700, exist_ok=True)
        return root

    @property
    def _servers(self) -> _Servers:
        return _OF_HOME.setdefault(self._root, _Servers())

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork the run's process; by Dagster's default launcher where that is not possible."""
        if not forks_here():
            super().launch_run(context)
            return
        run = context.dagster_run
        try:
            with self._servers.lock:
                self._fork(context)
        except CannotFork as error:
            log.warning("run %s is started by Dagster's default launcher: %s", run.run_id, error)
            self._instance.report_engine_event(f"Not forked, by Dagster's default launcher: {error}", run)
            super().launch_run(context)

    def _fork(self, context: LaunchRunContext) -> None:
        run, origin = context.dagster_run, context.job_code_origin
        if origin is None:
            raise CannotFork("the run does not name its code")
        args = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True)
        message = {"run": run.run_id, "args": args.get_command_args()[-1]}
        version = _version(context)
        for attempt in (1, 2):
            server = self._server(origin, version)
            try:
                server.ask(message)
                return
            except (ConnectionError, TimeoutError) as error:
                # what it may have forked ends with it: the run cannot run twice
                server.close(wait_seconds=END_SECONDS)
                log.warning("run server: %s; attempt %d of 2", error, attempt)
        raise ConnectionError(f"two run servers in a row did not start run {run.run_id}: see {self._root / 'log'}")

    def _server(self, origin: Any, version: str) -> _Server:
        """The server of this code, started when there is none or its code has changed."""
        key = f"{origin.executable_path} {origin.get_repo_pointer().describe()}"
        servers = self._servers
        server = servers.by_code.get(key)
        if server is not None and not server.has_ended() and server.version == version:
            return server
        servers.retired = [old for old in servers.retired if not old.has_ended()]
        if server is not None and not server.has_ended():
            with suppress(ConnectionError, TimeoutError):
                server.ask({"retire": True})  # ends after its runs in flight
                servers.retired.append(server)
        started = _Server(origin.executable_path, self._root, version)
        try:
            answer = started.ask({"origin": serialize_value(origin), "preload": self._preload}, IMPORT_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            answer = {"error": f"{error}; see {self._root / 'log'}"}
        if "error" in answer:
            started.close()
            raise CannotFork(answer["error"])
        servers.by_code[key] = started
        return started

    def terminate(self, run_id: str) -> bool:
        """End a run's process, with SIGKILL when it does not end by itself. From any process of this host."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        worker = Worker.read(self._root / "runs", run_id)
        if worker is None:
            self._instance.report_run_canceled(run, "Its process had ended already, or was not started yet")
            return True
        gone = worker.send(signal.SIGTERM)
        threading.Thread(target=self._see_it_end, args=(run_id, worker, gone), daemon=True).start()
        return True

    def _see_it_end(self, run_id: str, worker: Worker, gone: bool) -> None:
        if not gone and not worker.send(0, GRACE_SECONDS):
            worker.send(signal.SIGKILL, GRACE_SECONDS)
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, "Its process was ended")

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's run monitoring asks for the health of runs that have started."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is there."""
        if GRPC_INFO_TAG in run.tags:
            alive = self._said_pid_is_alive(run)
        else:
            worker = Worker.read(self._root / "runs", run.run_id)
            alive = worker is not None and worker.is_alive()
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the process of the run is gone")

    def _said_pid_is_alive(self, run: dg.DagsterRun) -> bool:
        """Of a run of the default launcher: the process that said in the event log that it had started."""
        events = self._instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
        for record in reversed(events):
            event = record.event_log_entry.dagster_event
            pid = event.engine_event_data.metadata.get("pid") if event else None
            if pid is not None:
                with suppress(psutil.NoSuchProcess):
                    return bool(psutil.Process(int(str(pid.value))).create_time() <= record.timestamp + 1)
                return False
        return False

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What the server's log says of the run."""
        path = self._root / "log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        of_run = [line for line in lines[-1000:] if run.run_id in line]
        return "\n".join(of_run[-10:]) or None

    def dispose(self) -> None:
        """End the servers with their runs."""
        servers = _OF_HOME.pop(self._root, _Servers())
        with servers.lock:
            for server in [*servers.by_code.values(), *servers.retired]:
                server.close(wait_seconds=END_SECONDS)


def _version(context: LaunchRunContext) -> str:
    """Changes when the code does: newest source file of the package, and the id of a code server that outlives the
    daemon (a reload of the code location in the pages gives it a new one; the daemon replaces its own each minute)."""
    origin = context.job_code_origin
    location = context.dagster_run.remote_job_origin
    pointer = origin.get_repo_pointer() if origin else None
    server_id = ""
    if location and context.workspace and isinstance(_location_origin(location), GrpcServerCodeLocationOrigin):
        server_id = context.workspace.get_code_location(location.location_name).server_id  # type: ignore[attr-defined]
    return f"{server_id}/{_newest_source(getattr(pointer, 'module', ''))}"


def _location_origin(location: Any) -> Any:
    return location.repository_origin.code_location_origin


def _newest_source(module: str) -> str:
    spec = importlib.util.find_spec(module.partition(".")[0]) if module else None
    found = [
        os.stat(os.path.join(folder, name)).st_mtime_ns
        for root in (spec.submodule_search_locations or [] if spec else [])
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(_SOURCES)
    ]
    return f"{len(found)}:{max(found, default=0)}"
