"""Find, start and stop the embedded engines of a data directory.

The lock ``<data_dir>/run/<name>.lock`` is opened here and inherited by the engine, so the kernel holds it exactly as
long as the engine runs, however it ends (filelock hands no lock to a child, and has no shared one).
``<data_dir>/run/<name>.json`` (pid, port, started) says where it listens. An engine started here never outlives the
process that started it (`process.exit_with_parent`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from qmt_orchestration.files import replace_file
from qmt_orchestration.local import redis_server
from qmt_orchestration.local.passwords import ADMIN, password_file, private_folder
from qmt_orchestration.local.process import spawn
from qmt_orchestration.settings import Settings

Name = Literal["redis", "clickhouse"]
NAMES: Final[tuple[Name, ...]] = ("redis", "clickhouse")
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 12.0
USERS_SECONDS: Final = 30.0

log = logging.getLogger("qmt.engines")


class EngineError(RuntimeError):
    """An embedded engine cannot be started; the message says why and what mends it."""


class EngineBusy(EngineError):
    """Another process has the engine of this data directory."""


@dataclass
class Engine:
    """A running engine. *process* is set when this process started it."""

    name: Name
    pid: int
    port: int
    settings: Settings
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, for `redis_url` or `clickhouse_url`."""
        return f"redis://127.0.0.1:{self.port}/0" if self.name == "redis" else f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """What it prints."""
        return self.settings.data_dir / "logs" / f"{self.name}.log"

    def alive(self) -> bool:
        """True while its process runs and answers as itself."""
        if self.process is not None and self.process.poll() is not None:
            return False
        return _answers(self.name, self.port, self.settings) == self.pid

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it in order (running requests finish, everything on disk), by force after *seconds*."""
        if self.process is None:
            raise EngineError(f"the {self.name} of process {self.pid} was not started here and is not stopped here")
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a stopped process cannot hear SIGTERM
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                log.warning("%s (process %d) did not end in %g s: killed", self.name, self.pid, seconds)
                self.process.kill()
        self.process.wait()
        with suppress(OSError, ValueError, KeyError):
            if json.loads(_run_file(self.settings, self.name).read_text())["pid"] == self.pid:
                _run_file(self.settings, self.name).unlink()


def start_redis(settings: Settings, port: int | None = None) -> Engine:
    """Start the embedded Redis and wait until it answers; see :func:`_start`."""
    try:
        redis_server.find_binary()
    except redis_server.NoRedisBinary as error:
        raise EngineError(str(error)) from error
    argv = ["--dir", str(settings.data_dir / "redis"), "--maxmemory-mb", str(settings.redis_maxmemory_mb)]
    argv += ["--user", settings.redis_username, "--admin-password-file", str(password_file(settings, "redis.admin"))]
    return _start("redis", settings, port, argv)


def start_clickhouse(settings: Settings, port: int | None = None) -> Engine:
    """Start the embedded ClickHouse and wait until it answers; see :func:`_start`."""
    if sys.platform != "win32" and find_spec("chdb") is None:
        raise EngineError(
            "the embedded ClickHouse needs chdb: make install, or set QMT_CLICKHOUSE_URL to a running server"
        )
    argv = ["--path", str(warehouse_path(settings)), "--memory-mb", str(settings.clickhouse_memory_mb)]
    argv += ["--user", settings.clickhouse_username]
    return _start("clickhouse", settings, port, argv)


def start(name: Name, settings: Settings, port: int | None = None) -> Engine:
    """Start the engine of this name and wait until it answers; see :func:`_start`."""
    return start_redis(settings, port) if name == "redis" else start_clickhouse(settings, port)


def warehouse_path(settings: Settings) -> Path:
    """Folder of the embedded ClickHouse's data."""
    return settings.data_dir / "clickhouse"


def redis_admin(settings: Settings) -> Any:
    """A client of the embedded Redis of ``data_dir`` that may also CONFIG, SAVE and SHUTDOWN; for tests and repairs."""
    engine = find(settings, "redis")
    if engine is None:
        raise EngineError(f"no embedded Redis of {settings.data_dir} runs")
    password = password_file(settings, "redis.admin").read_text().strip()
    return redis.Redis(port=engine.port, username=ADMIN, password=password)


def find(settings: Settings, name: Name) -> Engine | None:
    """The running engine of ``data_dir``: its process runs and what answers on its port is that process."""
    try:
        known = json.loads(_run_file(settings, name).read_text())
        pid, port = int(known["pid"]), int(known["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Engine(name, pid, port, settings) if _answers(name, port, settings) == pid else None


@contextmanager
def ensure(settings: Settings, names: tuple[Name, ...] = NAMES) -> Iterator[Settings]:
    """Settings with both URLs (or those of *names*) filled, for the length of the context.

    Configured servers are used as they are, running embedded engines too; else they are started on free ports and
    stopped at the end (once others who found them running have finished, for at most 30 s).
    """
    with ExitStack() as stack:
        urls = {
            f"{name}_url": stack.enter_context(_borrowed(settings, name)).url
            for name in names
            if not getattr(settings, f"{name}_url")
        }
        yield settings.model_copy(update=urls)


@contextmanager
def _borrowed(settings: Settings, name: Name) -> Iterator[Engine]:
    """A running engine while its owner waits for us, or one of our own for the moment."""
    import fcntl

    _require_posix(name)
    private_folder(settings.run_dir)
    with (settings.run_dir / f"{name}.users").open("a+") as users:
        deadline = time.monotonic() + START_SECONDS
        while True:
            fcntl.flock(users, fcntl.LOCK_SH)  # waits while an owner is stopping its engine
            engine = find(settings, name)
            if engine is not None:
                yield engine
                return
            try:
                engine = start(name, settings, 0)
                break
            except EngineBusy:
                fcntl.flock(users, fcntl.LOCK_UN)
                if time.monotonic() > deadline:
                    raise
        try:
            yield engine
        finally:
            _wait_for(lambda: _lock(users), USERS_SECONDS)
            engine.stop()


def _lock(file: Any) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _start(name: Name, settings: Settings, port: int | None, argv: list[str]) -> Engine:
    """Start an engine. *port*: None = the preferred one of the settings, 0 = any free one.

    Raises `EngineBusy` when the data directory's engine runs already, `EngineError` when the port is taken or the
    engine does not come up; both say what to do. A run file left by an engine that was killed is cleaned up.
    """
    _require_posix(name)
    private_folder(settings.run_dir)
    lock = _take_lock(settings, name)
    try:
        if _run_file(settings, name).exists():
            log.info("an earlier %s of %s was killed; starting on its data", name, settings.data_dir)
            _run_file(settings, name).unlink()
        chosen = _choose_port(name, settings, port)
        logs = private_folder(settings.data_dir / "logs")
        private_folder(settings.data_dir / name)
        argv += ["--password-file", str(password_file(settings, name))]
        module = f"qmt_orchestration.local.{name}_server"
        command = [sys.executable, "-m", module, *argv, "--port", str(chosen), "--parent", str(os.getpid())]
        with (logs / f"{name}.log").open("ab") as out:
            process = spawn(
                command,
                env=settings.child_environment(secrets=()),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the services first
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)  # the engine holds it now
    engine = Engine(name, process.pid, chosen, settings, process)
    if not _wait_for(lambda: process.poll() is not None or engine.alive(), START_SECONDS) or process.poll() is not None:
        process.kill()
        code = process.wait()
        raise EngineError(
            f"the embedded {name} did not come up (exit code {code}); {engine.log_path} ends:\n{_tail(engine)}"
        )
    known = {"pid": process.pid, "port": chosen, "started": time.time()}
    replace_file(_run_file(settings, name), json.dumps(known))
    return engine


def _require_posix(name: Name) -> None:
    if sys.platform == "win32":
        variable = f"QMT_{name.upper()}_URL"
        raise EngineError(f"there is no embedded {name} on Windows: set {variable} to the server of the other host")


def _take_lock(settings: Settings, name: Name) -> int:
    """The data directory's lock as a file descriptor to hand to the engine. Raises :class:`EngineBusy`."""
    lock = os.open(settings.run_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    if _wait_for(lambda: _lock(lock), 3.0):  # an engine that is just ending is waited for
        return lock
    os.close(lock)
    running = find(settings, name)
    who = (
        f"process {running.pid} on port {running.port}"
        if running
        else "a process that does not answer (still starting?)"
    )
    raise EngineBusy(
        f"the {name} of {settings.data_dir} runs already: {who}; "
        "use it, stop the `qmt` that started it, or choose another folder with --data-dir"
    )


def port_problem(port: int) -> str:
    """Why this host cannot listen on *port* of loopback; "" when it can."""
    with socket.socket() as probe:
        if os.name != "nt":  # there the option lets two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def free_port() -> int:
    """A free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _choose_port(name: Name, settings: Settings, port: int | None) -> int:
    wanted = int(getattr(settings, f"{name}_port")) if port is None else port
    if wanted and port_problem(wanted):
        raise EngineError(
            f"port {wanted} for the embedded {name} is in use{_holder(wanted)}: "
            f"free it, or set QMT_{name.upper()}_PORT to another one"
        )
    return wanted or free_port()


def _holder(port: int) -> str:
    """`` by NAME (process PID)`` when the system says."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == "LISTEN" and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


def _run_file(settings: Settings, name: Name) -> Path:
    return settings.run_dir / f"{name}.json"


def _answers(name: Name, port: int, settings: Settings) -> int | None:
    """Process id of the engine that answers on *port*, None when nothing of ours does."""
    return _redis_pid(port, settings) if name == "redis" else _clickhouse_pid(port)


def _redis_pid(port: int, settings: Settings) -> int | None:
    client = redis.Redis(
        port=port,
        socket_timeout=2,
        username=settings.redis_username or None,
        password=settings.engine_password("redis", "") or None,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()  # fails while it still loads its file
        return int(client.info("server")["process_id"])
    except (redis.RedisError, OSError, KeyError):
        return None
    finally:
        client.close()


def _clickhouse_pid(port: int) -> int | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/ping", timeout=2) as reply:
            name = reply.headers.get("X-ClickHouse-Server-Display-Name") or ""
    except (OSError, ValueError):
        return None
    prefix, _, pid = name.rpartition("-")
    return int(pid) if prefix == "qmt-embedded" and pid.isdigit() else None


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _tail(engine: Engine, lines: int = 15) -> str:
    try:
        return "\n".join(engine.log_path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
