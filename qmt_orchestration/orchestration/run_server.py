"""The process whose forks are Dagster's runs: `launcher.ForkedRunLauncher` starts it and sends it requests.

It imports the definitions once and stays single-threaded. For each run it forks a child, which calls Dagster's own
command for a run. Messages are lines of JSON on a socket pair, so there is no path, no port and no access right to
guard; the socket's end means that the launcher's process ended, and then the runs end too. A child is killed by the
kernel when this process ends for whatever reason.

Each child stands on disk (`Worker`), so that any process of this host can ask for its health or end it. Linux only.
(multiprocessing's forkserver does neither: its children are known to its parent alone, and outlive it.)
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

FINISH_SECONDS: Final = 3.0  # for runs in flight to end by themselves: most minutes' runs do
GRACE_SECONDS: Final = 10.0  # for a run to write its end after SIGTERM
LOG_BYTES: Final = 8 << 20  # the log and the one before it
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_TO_END: Final = (signal.SIGTERM, signal.SIGINT)
#: Libraries read these when they load. Threads do not survive a fork: none may be started before it.
ENVIRONMENT: Final = {
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Worker:
    """The process of a run: its pid and start time (clock ticks since boot; pids are used again), and its server's."""

    pid: int
    started: int
    server_pid: int
    server_started: int

    @classmethod
    def read(cls, folder: Path, run_id: str) -> Worker | None:
        """As registered in *folder*; None when it has ended or was never started."""
        try:
            return cls(**json.loads((folder / run_id).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, folder: Path, run_id: str) -> None:
        """Register it; a reader sees all of it or nothing."""
        beside = folder / f".{run_id}"
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(folder / run_id)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return start_time(self.pid) == self.started

    def has_server(self) -> bool:
        """Whether the server it was forked from runs."""
        return start_time(self.server_pid) == self.server_started

    def send(self, number: int, wait_seconds: float = 0.0) -> bool:
        """Send a signal and wait for the end; whether the process is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if not self.is_alive():
                return True
            signal.pidfd_send_signal(handle, number)
            return bool(select.select([handle], [], [], wait_seconds)[0])
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of the process; 0 when there is none or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def end_leftovers(folder: Path) -> None:
    """End runs whose server is gone. The kernel has done so; this is for what it could not."""
    for entry in folder.iterdir():
        worker = Worker.read(folder, entry.name)
        if worker is None or not worker.has_server():
            if worker is not None:
                worker.send(signal.SIGKILL, GRACE_SECONDS)
            entry.unlink(missing_ok=True)


class RunServer:
    """Serves one launcher over *channel*; children are registered in *folder*."""

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        self._channel, self._folder = channel, folder
        self._messages = channel.makefile("rb", buffering=0)
        self._children: dict[int, tuple[int, str]] = {}  # pidfd -> pid, run id
        self._retired = False
        self._selector = selectors.DefaultSelector()
        self._me = os.getpid(), start_time(os.getpid())

    def serve(self) -> None:
        """Until the launcher's end of the channel closes, or the last run of a retired server has ended."""
        end_leftovers(self._folder)
        if not self._prepare():
            return
        self._selector.register(self._channel, selectors.EVENT_READ)
        try:
            while self._children or not self._retired:
                for key, _ in self._selector.select():
                    if key.fd in self._children:
                        self._reap(key.fd)
                    elif not self._answer():
                        return
        finally:
            self._end_children()

    def _prepare(self) -> bool:
        """Import what the first message names; False, and an answer with the reason, when a fork is not safe."""
        message = self._receive()
        if message is None:
            return False
        try:
            from dagster._cli.api import execute_run_command as _  # noqa: F401  what a run needs is imported here, once
            from dagster._core.origin import JobPythonOrigin
            from dagster._serdes import deserialize_value
            from dagster._utils.hosted_user_process import recon_job_from_origin

            for name in message["preload"]:
                importlib.import_module(name)
            recon_job_from_origin(deserialize_value(message["origin"], JobPythonOrigin)).get_definition()
            gc.collect()
            gc.freeze()  # the children must not touch, and so copy, pages of what was imported
        except BaseException:
            self._send({"error": traceback.format_exc()})
            return False
        threads = [Path(t, "comm").read_text().strip() for t in Path("/proc/self/task").iterdir()]
        if len(threads) > 1:
            text = f"expected one thread after the import, found {len(threads)} ({', '.join(threads)})"
            self._send({"error": f"{text}: a fork would lose them, with any lock they hold"})
            return False
        self._send({"pid": os.getpid()})
        return True

    def _receive(self) -> dict[str, Any] | None:
        line = self._messages.readline()
        return json.loads(line) if line else None

    def _send(self, answer: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the next read sees the end
            self._channel.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self) -> bool:
        message = self._receive()
        if message is None:
            return False
        if "retire" in message:
            self._retired = True
            self._send({"runs": len(self._children)})
        else:
            self._send({"pid": self._fork(message["run"], message["args"])})
        return True

    def _fork(self, run_id: str, args: str) -> int:
        """The pid of the run's process; of a run that is in flight already, the one it has."""
        for pid, known in self._children.values():
            if known == run_id:
                return pid
        self._rotate_log()
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_END)
        pid = os.fork()
        if pid == 0:
            self._run(args)
        Worker(pid, start_time(pid), *self._me).write(self._folder, run_id)
        handle = os.pidfd_open(pid)
        self._children[handle] = pid, run_id
        self._selector.register(handle, selectors.EVENT_READ)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_END)
        return pid

    def _rotate_log(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fstat(2).st_size > LOG_BYTES:
            path = self._folder.parent / "log"
            path.replace(path.with_name("log.1"))
            with path.open("ab") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)

    def _run(self, args: str) -> None:
        """The child: never returns."""
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._me[0]:  # it ended before the call above
                os._exit(1)
            self._channel.close()
            self._messages.close()
            for handle in self._children:
                os.close(handle)
            self._selector.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Dagster's command puts its own on top of these
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_END)
            _write_logs_directly()
            from dagster._cli.api import execute_run_command

            from qmt_orchestration.orchestration.sqlite import kept_open

            with kept_open():
                execute_run_command.main([args], standalone_mode=False)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self, handle: int) -> None:
        pid, run_id = self._children.pop(handle)
        self._selector.unregister(handle)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        (self._folder / run_id).unlink(missing_ok=True)
        if code:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            print(f"{time.strftime('%F %T')} run {run_id}, process {pid}: {how}", file=sys.stderr, flush=True)  # noqa: T201

    def _end_children(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_END)  # ending already
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._channel)
        self._channel.close()
        self._reap_until(time.monotonic() + FINISH_SECONDS)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for handle in self._children:
                signal.pidfd_send_signal(handle, number)
            self._reap_until(time.monotonic() + GRACE_SECONDS)

    def _reap_until(self, deadline: float) -> None:
        while self._children and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._reap(key.fd)


def _write_logs_directly() -> None:
    """Let a run's output go straight to its compute logs.

    Dagster's own way starts four processes per run, which copy that file to the server's output as well.
    """
    from dagster._core.execution.compute_logs import redirect_to_file
    from dagster._core.storage import local_compute_log_manager
    from dagster._utils import ensure_file

    @contextmanager
    def redirect(stream: Any, path: str) -> Iterator[None]:
        ensure_file(path)
        with redirect_to_file(stream, path):
            yield

    vars(local_compute_log_manager)["mirror_stream_to_file"] = redirect


def main() -> None:
    """``python -m … CHANNEL FOLDER``: the channel is an inherited file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the launcher's process decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    RunServer(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
