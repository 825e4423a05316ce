"""`qmt up`: the whole system on one machine, with one command.

Starts the embedded engines (unless servers are configured), the agent with the always-on services, Dagster's
webserver and daemon; shows a live summary; restarts what dies; on Ctrl-C ends every process it started and leaves the
data. A second start goes on with the same data and, for the simulated market, at the market time where the first one
stopped.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings

SERVICES = ("subscriber", "gateway", "writer", "publisher")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


class UpError(RuntimeError):
    """The system cannot start; the message says why and what to do."""


@dataclass
class Child:
    """A process kept alive: started again with a growing pause when it ends by itself."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    not_before: float = field(default=0.0)
    started: float = field(default=0.0)

    def watch(self) -> None:
        """Start the process if it is not running and its pause is over."""
        if self.process is not None and self.process.poll() is None:
            return
        now = time.monotonic()
        if self.process is not None and self.not_before <= self.started:  # it has just ended
            self.restarts = 1 if now - self.started > 60 else self.restarts + 1
            self.not_before = now + min(0.5 * 2**self.restarts, 30.0)
        if now >= self.not_before:
            self.started = now
            self.process = self.start()

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the process group, then SIGKILL to what is left of it."""
        if self.process is None:
            return
        stop_group(self.process, grace_seconds)


def spawn(argv: list[str], settings: Settings, log: str, **extra: str) -> subprocess.Popen[bytes]:
    """Start *argv* in a process group of its own, its output to the log; it dies with us on Linux."""
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{log}.log").open("ab") as out:
        return subprocess.Popen(
            argv,
            env={**os.environ, **settings.environment(), **extra},
            cwd=PROJECT_ROOT if (PROJECT_ROOT / "workspace.yaml").exists() else None,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def stop_group(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a process and everything in its group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the lock of the data directory; a second `qmt up` on it is refused."""
    import fcntl

    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with (settings.run_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise UpError(
                f"{settings.data_dir} is in use by another `qmt up` (process {lock.read().strip() or 'unknown'}): "
                "stop it with Ctrl-C there, or choose another folder with --data-dir"
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def end_leftovers(settings: Settings, say: Callable[[str], None]) -> None:
    """End processes that an earlier start of this data directory left behind (it was killed, not stopped)."""
    import psutil

    wanted = str(settings.data_dir.resolve())
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            command = " ".join(process.info["cmdline"] or [])
            if process.pid != os.getpid() and ("qmt_orchestration" in command or "dagster" in command):
                environment = process.environ()
                if environment.get("QMT_UP_DATA_DIR") == wanted:
                    found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    if not found:
        return
    say(f"ending {len(found)} processes that an earlier start left behind")
    for process in found:
        with _ignore_gone():
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=10)
    for process in alive:
        with _ignore_gone():
            process.kill()


@contextmanager
def _ignore_gone() -> Iterator[None]:
    import psutil

    with suppress(psutil.NoSuchProcess):
        yield


def require_free_port(port: int, what: str, mend: str) -> None:
    """Raise `UpError` when something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UpError(f"port {port} for {what} is in use ({error.strerror}): free it or set {mend}") from error


def dagster_home(settings: Settings) -> Path:
    """``data_dir/dagster`` with the project's dagster.yaml in it (Dagster reads it from DAGSTER_HOME only)."""
    home = (settings.data_dir / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    source = PROJECT_ROOT / "dagster.yaml"
    if source.exists():
        (home / "dagster.yaml").write_text(source.read_text())
    return home


def require_a_market(settings: Settings, chosen_date: str | None) -> None:
    """Raise `UpError` or ValueError on a date, a speed or a fault that makes no market, before anything is started."""
    from qmt_orchestration.simulator.faults import parse_fault

    if settings.feed != "simulator":
        if chosen_date is not None or settings.sim_faults:
            raise UpError(f"--date and --fault belong to the simulated market, and QMT_FEED is {settings.feed}")
        return
    if settings.sim_speed == 0:
        raise UpError("speed 0 plays one day at once and ends: choose how fast the market is to go on, 1 = real time")
    calendar.require_trading_day(chosen_date or settings.sim_date)
    for text in settings.sim_faults:
        parse_fault(text)


def resume_market(settings: Settings, redis: Any, chosen_date: str | None) -> Settings:
    """Where the simulated market starts: the chosen date, else where an earlier start stopped, else the default."""
    update: dict[str, Any] = {
        "sim_anchor_ms": int(time.time() * 1000),
        # an hour of the market's time: at 25 times its speed an hour of ours would not fit into Redis
        "stream_retention_seconds": settings.stream_retention_seconds / max(settings.sim_speed, 1.0),
    }
    if chosen_date is not None:
        update["sim_date"] = str(calendar.require_trading_day(chosen_date))
    else:
        from qmt_orchestration.stream.clock import read_clock

        clock = read_clock(redis)
        if clock.simulated:
            stopped = from_ms(clock.market_ms)
            update |= {"sim_date": str(stopped.date()), "sim_start_time": stopped.strftime("%H:%M:%S")}
    day: date = calendar.require_trading_day(update.get("sim_date", settings.sim_date))
    return settings.model_copy(update={**update, "sim_date": str(day)})


def up(settings: Settings, *, chosen_date: str | None, ui: bool, say: Callable[[str], None]) -> int:
    """Run everything until SIGINT or SIGTERM; 0 after an orderly end."""
    from qmt_orchestration.local.supervisor import supervised
    from qmt_orchestration.services.summary import Summary
    from qmt_orchestration.stream.connection import connect
    from qmt_orchestration.warehouse.migrate import migrate

    require_a_market(settings, chosen_date)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with only_one(settings), ExitStack() as stack:
        end_leftovers(settings, say)
        if ui:
            require_free_port(settings.dagster_port, "the Dagster webserver", "QMT_DAGSTER_PORT")
            require_free_port(settings.console_port, "the console", "QMT_CONSOLE_PORT")
        os.environ["QMT_UP_DATA_DIR"] = str(settings.data_dir.resolve())
        say("starting Redis and ClickHouse")
        ready = stack.enter_context(supervised(settings))
        migrate(ready)
        redis = connect(ready)
        if ready.feed == "simulator":
            ready = resume_market(ready, redis, chosen_date)
        children = _children(ready, ui)
        stack.callback(_stop_all, children, say)
        for child in children:
            child.watch()
        summary = Summary(ready, redis, ui=ui, say=say)
        while not stop.wait(1.0):
            for child in children:
                child.watch()
            summary.show()
        summary.close()
        say("stopping; the data stays in " + str(settings.data_dir))
    return 0


def _children(settings: Settings, ui: bool) -> list[Child]:
    services = (*SERVICES, "console") if ui else SERVICES
    home = str(dagster_home(settings))
    workspace = ["-w", str(PROJECT_ROOT / "workspace.yaml")]
    if not (PROJECT_ROOT / "workspace.yaml").exists():
        workspace = ["-m", "qmt_orchestration.definitions"]
    dagster = str(Path(sys.executable).with_name("dagster"))
    if ui:
        address = ["-h", "127.0.0.1", "-p", str(settings.dagster_port)]
        control = [dagster, "dev", *workspace, *address, "--log-level", "warning"]
    else:
        control = [f"{dagster}-daemon", "run", *workspace, "--log-level", "warning"]
    agent = [sys.executable, "-m", "qmt_orchestration.cli", "agent", "--services", ",".join(services)]
    return [
        Child("agent", lambda: spawn(agent, settings, "agent")),
        Child("dagster", lambda: spawn(control, settings, "dagster", DAGSTER_HOME=home)),
    ]


def _stop_all(children: list[Child], say: Callable[[str], None]) -> None:
    for child in reversed(children):
        say(f"ending {child.name}")
        child.stop(grace_seconds=20)
