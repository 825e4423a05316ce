"""A Redis of its own for each test here (it is killed and stopped), and a runner of agents as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from qmt_orchestration.local.redis_server import find_binary
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.helpers import free_port, wait_until


@dataclass
class RedisServer:
    """A killable Redis process on a fixed port."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [find_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=self.port)
        wait_until(lambda: _answers(client), 10, "Redis to answer")
        client.close()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test alone."""
    out = RedisServer(tmp_path / "redis", free_port())
    out.start()
    yield out
    out.kill()


def calm_settings(server: RedisServer, folder: Path) -> Settings:
    """Settings with short times, on this Redis."""
    return Settings(
        data_dir=folder / "data",
        host_name="h1",
        redis_url=f"redis://127.0.0.1:{server.port}/0",
        service_stale_seconds=4.0,
        service_start_seconds=90.0,
        service_stop_seconds=8.0,
        service_backoff_max_seconds=2.0,
    )


@pytest.fixture
def calm(server: RedisServer, tmp_path: Path) -> Settings:
    """Settings with short times, on the test's own Redis."""
    return calm_settings(server, tmp_path)


@pytest.fixture
def client(calm: Settings) -> Iterator[Any]:
    """A client of the test's Redis."""
    out = connect(calm, retries=0)
    yield out
    out.close()


_AGENT = """
import signal, sys, threading
from qmt_orchestration.services.agent import run_agent
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.services.registry import Service
from qmt_orchestration.settings import Settings
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = Settings()
set_up_logging(settings, "agent")
name, module, lease, once = sys.argv[1:]
service = Service(name, "qmt_orchestration_tests.services." + module, lease=lease, once=once == "1")
sys.exit(run_agent(settings, [service], stop))
"""


@dataclass
class AgentProcess:
    """An agent in a process of its own, with one tiny service."""

    settings: Settings
    module: str = "tiny"
    lease: str = ""
    once: bool = False
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start (again)."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.settings.data_dir / "agent.log").open("ab") as log:
            argv = [sys.executable, "-c", _AGENT, "tiny", self.module, self.lease, "1" if self.once else "0"]
            env = {**os.environ, **self.settings.environment()}
            self.processes.append(subprocess.Popen(argv, env=env, stderr=log))

    def kill(self) -> None:
        """SIGKILL to the agent, not to its service."""
        self.processes[-1].kill()
        self.processes[-1].wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.processes[-1].terminate()
        return self.processes[-1].wait(90)

    def end(self) -> None:
        """Kill whatever is left."""
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in self.events("start"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)

    def events(self, kind: str) -> list[int]:
        """Pids of this kind of event (start, flush) in the service's log, in order."""
        path = self.settings.data_dir / "tiny.log"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(kind)]


@pytest.fixture
def agents() -> Iterator[Callable[..., AgentProcess]]:
    """Makes `AgentProcess`es; whatever is left of them after the test is killed."""
    made: list[AgentProcess] = []

    def make(settings: Settings, **options: Any) -> AgentProcess:
        made.append(AgentProcess(settings, **options))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.end()
