"""The agent of a host: makes what runs equal to what is desired, and says so.

One loop for processes; a second thread (`Link`) talks to Redis, so that an absent Redis never delays a restart: the
agent then goes on with the last desired state it knew. A service is a child with a pipe as its standard input:
the pipe's end tells it to stop, on every platform, also when this agent dies by SIGKILL. What an agent killed in that
moment leaves behind is ended by its next life, known by pid files with the start time of the process.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import psutil

from qmt_orchestration.services.desired import Desired
from qmt_orchestration.services.link import Link
from qmt_orchestration.services.processes import (
    end_orphans,
    kill_group,
    own_group,
    tell_systemd,
    write_pid_file,
)
from qmt_orchestration.services.registry import EXIT_ALREADY, Service, get_service
from qmt_orchestration.settings import Settings

TICK_SECONDS: Final = 0.2
_MEMORY_SECONDS: Final = 5.0
_OUTPUT_BYTES: Final = 5_000_000
_SLEPT_SECONDS: Final = 3.0  # a loop that took this long was itself stopped: its measurements of others mean nothing

log = logging.getLogger("agent")


class State(str, Enum):
    """What a service of this host is doing, as shown by `qmt status`."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    WAITING = "waiting"  # ended by itself, pauses before its next start
    FINISHED = "finished"  # a service with an end (a replay) has reached it


@dataclass
class Child:
    """One service: its process, what is known of it, and when it may start again."""

    service: Service
    state: State = State.STOPPED
    process: subprocess.Popen[bytes] | None = None
    generation: int = 0
    restarts: int = 0
    failures: int = 0
    last_exit: int | None = None
    reason: str = ""
    started: float = 0.0  # monotonic seconds, as all below
    not_before: float = 0.0
    kill_at: float = 0.0
    beat_ms: str = ""
    beat_seen: float = 0.0
    memory_mb: float = 0.0


class Agent:
    """Keeps *services* of this host in their desired state. `step` once per tick; `close` stops everything."""

    def __init__(self, settings: Settings, services: Sequence[Service]) -> None:
        self.settings = settings
        self.children = {service.name: Child(service) for service in services}
        self.log_dir = settings.data_dir / "logs"
        self.pid_dir = settings.run_dir / "services"
        self.link = Link(settings, list(self.children))
        self._random = random.Random()
        self._last_step = time.monotonic()
        self._next_memory = 0.0
        self._was_up = False

    def open(self) -> None:
        """End what an earlier life left behind, then begin to listen to Redis."""
        self.pid_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        end_orphans(self.pid_dir, self.settings.service_stop_seconds / 2)
        self.link.start()
        # A service stopped by a person must not flash up at the agent's start; without Redis we do not wait for ever.
        self.link.first_answer.wait(3.0)
        for name, wanted in self.link.desired.items():
            if name in self.children:
                self.children[name].generation = wanted.generation

    def step(self) -> None:
        """One look at every service."""
        now = time.monotonic()
        slept = now - self._last_step > _SLEPT_SECONDS
        returned = self.link.up and not self._was_up
        self._last_step, self._was_up = now, self.link.up
        if slept or returned:
            for child in self.children.values():  # nobody could be heard: silence counts from now
                child.beat_seen = now
        if now >= self._next_memory:
            self._next_memory = now + _MEMORY_SECONDS
            self._measure_memory()
            self._bound_outputs()
            tell_systemd("WATCHDOG=1")  # WatchdogSec of the unit: an agent that hangs is killed and started again
        for child in self.children.values():
            self._reap(child, now)
            self._steer(child, self.link.desired.get(child.service.name, Desired()), now)
        self.link.report = self.report()

    def close(self) -> None:
        """Stop every service gracefully, then kill what is left; mark the agent's heartbeat as stopped."""
        for child in self.children.values():
            if child.process is not None:
                self._ask_to_stop(child, "the agent stops", time.monotonic())
        while any(child.process is not None for child in self.children.values()):
            now = time.monotonic()
            for child in self.children.values():
                self._reap(child, now)
                self._kill_if_due(child, now)
            time.sleep(TICK_SECONDS / 4)
        self.link.report = self.report()
        self.link.close()

    def report(self) -> dict[str, str | int | float]:
        """The agent's heartbeat: ``<service>.state, .pid, .restarts, .last_exit, .reason, .memory_mb``."""
        out: dict[str, str | int | float] = {"services": ",".join(self.children)}
        for name, child in self.children.items():
            out[f"{name}.state"] = child.state.value
            out[f"{name}.pid"] = child.process.pid if child.process else 0
            out[f"{name}.restarts"] = child.restarts
            out[f"{name}.last_exit"] = "" if child.last_exit is None else child.last_exit
            out[f"{name}.reason"] = child.reason
            out[f"{name}.memory_mb"] = round(child.memory_mb, 1)
        return out

    # -- one child ---------------------------------------------------------------------------------------------

    def _steer(self, child: Child, wanted: Desired, now: float) -> None:
        """Move *child* one step towards what is wanted."""
        if child.generation != wanted.generation:
            child.generation = wanted.generation
            child.failures, child.not_before = 0, now
            if child.state is State.FINISHED:
                child.state = State.STOPPED
            if child.process is not None:
                self._ask_to_stop(child, "restart asked for", now)
        if child.process is None:
            if wanted.state == "stopped":
                child.state, child.failures, child.not_before = State.STOPPED, 0, now
            elif child.state is not State.FINISHED and now >= child.not_before:
                self._start(child, now)
        elif child.state is State.STOPPING:
            self._kill_if_due(child, now)
        elif wanted.state == "stopped":
            self._ask_to_stop(child, "stop asked for", now)
        else:
            self._judge(child, now)

    def _start(self, child: Child, now: float) -> None:
        name = child.service.name
        try:
            with self._output_of(child).open("ab") as out:
                child.process = subprocess.Popen(
                    child.service.argv(str(self.log_dir)),
                    env={**os.environ, **self.settings.environment()},
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    **own_group(),
                )
        except OSError as error:
            log.error("%s cannot be started: %s", name, error)
            child.reason = f"cannot be started: {error}"
            self._pause(child, now)
            return
        child.state, child.started, child.beat_seen, child.memory_mb = State.RUNNING, now, now, 0.0
        child.beat_ms = ""
        write_pid_file(self.pid_dir / f"{name}.json", child.process.pid)
        log.info("%s started, pid %d", name, child.process.pid)

    def _judge(self, child: Child, now: float) -> None:
        """Kill a child that is silent; restart one that has grown too large."""
        limit = self.settings.service_memory_mb
        if limit and child.memory_mb > limit:
            child.memory_mb, child.restarts = 0.0, child.restarts + 1
            self._ask_to_stop(child, f"memory above {limit} MB (QMT_SERVICE_MEMORY_MB)", now)
            return
        if not child.service.beats or not self.link.up or child.process is None:
            return
        pid, beat_ms = self.link.beats.get(child.service.name, ("", ""))
        if pid == str(child.process.pid) and beat_ms != child.beat_ms:
            child.beat_ms, child.beat_seen = beat_ms, now
        silent = now - child.beat_seen
        allowed = self.settings.service_stale_seconds if child.beat_ms else self.settings.service_start_seconds
        if silent > allowed:
            child.reason = f"no heartbeat for {silent:.0f} s"
            log.error("%s: %s, killed", child.service.name, child.reason)
            self._kill(child)

    def _reap(self, child: Child, now: float) -> None:
        """Take note of an ended process and decide when its successor may start."""
        if child.process is None or child.process.poll() is None:
            return
        code, asked = child.process.returncode, child.state is State.STOPPING
        self._kill(child)  # what it may have left in its group
        child.process = None
        (self.pid_dir / f"{child.service.name}.json").unlink(missing_ok=True)
        child.last_exit = code
        log.log(logging.INFO if asked else logging.ERROR, "%s ended with code %d", child.service.name, code)
        if asked:
            child.state, child.failures, child.not_before = State.STOPPED, 0, now
        elif child.service.once and code == 0:
            child.state = State.FINISHED
        else:
            if not child.reason.startswith("no heartbeat"):
                child.reason = f"ended with code {code}"
            if now - child.started >= self.settings.service_stable_seconds:
                child.failures = 0
            self._pause(child, now)

    def _pause(self, child: Child, now: float) -> None:
        """The first restart is immediate; then 1, 2, 4 … seconds, ± 20 % so that hosts do not march in step."""
        seconds = 0.0
        if child.failures or child.last_exit == EXIT_ALREADY:
            seconds = min(2.0 ** max(child.failures - 1, 0), self.settings.service_backoff_max_seconds)
        child.not_before = now + seconds * self._random.uniform(0.8, 1.2)
        child.failures += 1
        child.restarts += 1
        child.state = State.WAITING

    def _ask_to_stop(self, child: Child, reason: str, now: float) -> None:
        """Graceful: the pipe ends and SIGTERM comes; it has `service_stop_seconds` to flush."""
        if child.process is None or child.state is State.STOPPING:
            return
        log.info("%s: %s", child.service.name, reason)
        child.state, child.reason = State.STOPPING, reason
        child.kill_at = now + self.settings.service_stop_seconds
        if child.process.stdin:
            child.process.stdin.close()
        if sys.platform != "win32":  # there, terminate() would be a kill; the pipe's end is the request
            child.process.terminate()

    def _kill_if_due(self, child: Child, now: float) -> None:
        if child.process is not None and child.process.poll() is None and now >= child.kill_at:
            log.error("%s did not stop within %g s, killed", child.service.name, self.settings.service_stop_seconds)
            self._kill(child)

    def _kill(self, child: Child) -> None:
        if child.process is None:
            return
        if child.process.stdin:
            child.process.stdin.close()
        kill_group(child.process.pid)
        if child.process.poll() is None:
            child.process.kill()

    def _measure_memory(self) -> None:
        for child in self.children.values():
            if child.process is not None:
                with suppress(psutil.Error):
                    child.memory_mb = psutil.Process(child.process.pid).memory_info().rss / 1e6

    def _output_of(self, child: Child) -> Path:
        """What a library prints goes there; the log proper is rotated by the service itself."""
        return self.log_dir / f"{child.service.name}.out"

    def _bound_outputs(self) -> None:
        """Keep the last `_OUTPUT_BYTES` beside the file and empty it: a service holds it open for months."""
        for child in self.children.values():
            output = self._output_of(child)
            with suppress(OSError):
                if output.stat().st_size > _OUTPUT_BYTES:
                    shutil.copyfile(output, output.with_suffix(".out.1"))
                    os.truncate(output, 0)


def run_agent(settings: Settings, services: Sequence[str | Service], stop: threading.Event) -> int:
    """Keep *services* (names of the registry, or `Service` objects) in their desired state until *stop* is set.

    Returns 0, or 73 when another agent works on the same data_dir. `UnknownService` for a name that is none.
    """
    from qmt_orchestration.services.__main__ import only_one

    wanted = [get_service(s) if isinstance(s, str) else s for s in services]
    with only_one(settings.run_dir / "agent.lock") as alone:
        if not alone:
            log.error("an agent already works on data_dir %s: stop it first, or choose another", settings.data_dir)
            return EXIT_ALREADY
        agent = Agent(settings, wanted)
        agent.open()
        tell_systemd("READY=1")
        log.info("agent of %s starts: %s", settings.host, ", ".join(agent.children))
        try:
            while not stop.wait(TICK_SECONDS):
                agent.step()
        finally:
            agent.close()
        log.info("agent ends")
        return 0
