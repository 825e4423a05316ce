"""The agent: the one supervisor. It makes what runs on a host equal to what is desired, and reports it.

`qmt up`, systemd and the Windows task run the same agent over services of ours, Dagster's processes and the embedded
engines. One loop for processes; a second thread (`Link`) talks to Redis, so that an absent Redis never delays a
restart: the agent then goes on with the last desired state it knew. A service of ours is a child with a pipe as its
standard input: the pipe's end makes it stop, on every platform, also when this agent is killed. What a killed
agent leaves behind is ended by the next one before it starts anything: each child's process group is on record.
(supervisord and circus do not run on Windows, and neither takes its desired state from Redis.)
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from qmt_orchestration.exit_codes import EXIT_ALREADY
from qmt_orchestration.local.process import end_group, record_group
from qmt_orchestration.services.child import Child, ServiceState
from qmt_orchestration.services.desired import Desired
from qmt_orchestration.services.link import Link
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.services.metrics import start_metrics_server
from qmt_orchestration.services.processes import kill_group, spawn, tell_systemd
from qmt_orchestration.services.registry import Service
from qmt_orchestration.services.watch import Watcher
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import threads

TICK_SECONDS: Final = 0.2
_MEMORY_SECONDS: Final = 5.0
_OUTPUT_BYTES: Final = 5_000_000
_SLEPT_SECONDS: Final = 3.0  # a loop that took this long was itself stopped: its measurements of others mean nothing

_WAITS: Final = "waits for "

log = logging.getLogger("agent")


class Agent:
    """Keeps *services* of this host in their desired state. `step` once per tick; `close` stops everything."""

    def __init__(self, settings: Settings, services: Sequence[Service] = ()) -> None:
        self.settings = settings
        self.children: dict[str, Child] = {}
        self.log_dir = settings.data_dir / "logs"
        self.record_dir = settings.run_dir / "services"
        self.link = Link(settings)
        self._launcher = ThreadPoolExecutor(4, thread_name_prefix="launch")
        self._random = random.Random()
        self._last_step = time.monotonic()
        self._next_memory = 0.0
        self._was_up = False
        self.add(services)

    def add(self, services: Sequence[Service], settings: Settings | None = None) -> None:
        """Keep these too; they start with the next `step`. *settings*: what they get, instead of the agent's."""
        self.settings = settings or self.settings
        desired = self.link.desired
        added = {s.name: Child(s, generation=desired.get(s.name, Desired()).generation) for s in services}
        self.children = {**self.children, **added}
        self.link.services = tuple(c.service.name for c in self.children.values() if c.service.beats)

    def open(self) -> None:
        """End what an earlier agent left behind."""
        self.record_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        grace = self.settings.service_stop_seconds / 2
        list(self._launcher.map(lambda record: end_group(record, grace), list(self.record_dir.glob("*.json"))))

    def listen(self) -> None:
        """Begin to read desired states and heartbeats from Redis, and to report."""
        self.link.start()
        # A service stopped by a person must not run for a moment at the agent's start; without Redis it starts.
        self.link.first_answer.wait(3.0)
        for name, wanted in self.link.desired.items():
            if name in self.children:
                self.children[name].generation = wanted.generation

    def ready(self, names: Sequence[str]) -> bool:
        """Whether all of *names* work."""
        return all(self.children[name].ready for name in names)

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
            self._take_launched(child, now)
            self._reap(child, now)
            self._steer(child, self.link.desired.get(child.service.name, Desired()), now)
        self.link.report = self.report()

    def close(self) -> None:
        """Stop every service gracefully, those that others need after them; mark the agent's heartbeat as stopped."""
        while any(child.active for child in self.children.values()):
            now = time.monotonic()
            needed = {need for child in self.children.values() if child.active for need in child.service.needs}
            for child in self.children.values():
                self._take_launched(child, now)
                if child.service.name not in needed:
                    self._ask_to_stop(child, "the agent stops", now)
                self._reap(child, now)
                self._kill_if_due(child, now)
            time.sleep(TICK_SECONDS / 4)
        self._launcher.shutdown()
        for child in self.children.values():
            if child.service.clean_up is not None:
                child.service.clean_up()
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
            if child.state is ServiceState.FINISHED:
                child.state = ServiceState.STOPPED
            if child.process is not None:
                self._ask_to_stop(child, "restart asked for", now)
        if child.launching is not None:
            return
        if child.process is None:
            if wanted.state == "stopped":
                child.state, child.failures, child.not_before = ServiceState.STOPPED, 0, now
            elif child.state is not ServiceState.FINISHED and now >= child.not_before:
                self._start_if_possible(child, now)
        elif child.state is ServiceState.STOPPING:
            self._kill_if_due(child, now)
        elif wanted.state == "stopped":
            self._ask_to_stop(child, "stop asked for", now)
        else:
            self._judge(child, now)

    def _start_if_possible(self, child: Child, now: float) -> None:
        needs = [n for n in child.service.needs if n in self.children and not self.children[n].ready]
        if needs:
            child.state, child.reason = ServiceState.WAITING, _WAITS + ", ".join(needs)
            return
        try:
            if child.service.launch is not None:
                child.state = ServiceState.STARTING
                child.launching = self._launcher.submit(child.service.launch)
                return
            self._started(child, self._spawn(child.service), now)
        except OSError as error:
            self._not_started(child, error, now)

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        stdin = subprocess.DEVNULL if service.command else subprocess.PIPE
        argv, output = service.argv(str(self.log_dir)), f"{service.name}.out"
        return spawn(argv, self.settings, output, dict(service.environment), stdin=stdin, secrets=service.secrets)

    def _take_launched(self, child: Child, now: float) -> None:
        """The process of a launch that has ended."""
        if child.launching is None or not child.launching.done():
            return
        launched, child.launching = child.launching, None
        error = launched.exception()
        if error is None:
            self._started(child, launched.result(), now)
        else:
            self._not_started(child, error, now)

    def _started(self, child: Child, process: subprocess.Popen[bytes], now: float) -> None:
        child.process, child.state, child.verdict = process, ServiceState.RUNNING, ""
        if child.reason.startswith(_WAITS):
            child.reason = ""
        child.started, child.beat_seen, child.memory_mb, child.beat_ms = now, now, 0.0, ""
        if child.service.probe is not None:
            child.watcher = Watcher(process.pid, child.service.probe, self.settings.service_stale_seconds)
        log.info("%s started, pid %d", child.service.name, process.pid)
        try:
            record_group(self._record_of(child), process.pid)
        except OSError as error:  # a full disk is no reason to run nothing
            log.error("%s cannot be written (%s): the next agent would not know it", self._record_of(child), error)

    def _not_started(self, child: Child, error: BaseException, now: float) -> None:
        log.error("%s cannot be started: %s", child.service.name, error)
        child.reason = f"cannot be started: {error}"
        child.started = now
        self._pause(child, now)

    def _judge(self, child: Child, now: float) -> None:
        """Kill a child that is silent; restart one that has grown too large."""
        limit = self.settings.service_memory_mb
        if limit and child.memory_mb > limit and child.service.launch is None:  # engines have limits of their own
            child.memory_mb, child.restarts = 0.0, child.restarts + 1
            self._ask_to_stop(child, f"memory above {limit} MB (QMT_SERVICE_MEMORY_MB)", now)
            return
        if reason := self._hangs(child, now):
            child.verdict = reason
            log.error("%s: %s, killed", child.service.name, reason)
            self._kill(child)

    def _hangs(self, child: Child, now: float) -> str:
        """Why a child must be killed, by its heartbeat or its watcher."""
        if child.watcher is not None:
            late = now - child.started - self.settings.service_start_seconds
            return "never answered" if late > 0 and not child.watcher.ready else child.watcher.reason
        if not child.service.beats or not self.link.up or child.process is None:
            return ""
        pid, beat_ms = self.link.beats.get(child.service.name, ("", ""))
        if pid == str(child.process.pid) and beat_ms != child.beat_ms:
            child.beat_ms, child.beat_seen = beat_ms, now
        silent = now - child.beat_seen
        allowed = self.settings.service_stale_seconds if child.beat_ms else self.settings.service_start_seconds
        return f"no heartbeat for {silent:.0f} s" if silent > allowed else ""

    def _reap(self, child: Child, now: float) -> None:
        """Take note of an ended process and decide when its successor may start."""
        if child.process is None or child.process.poll() is None:
            return
        code, asked = child.process.returncode, child.state is ServiceState.STOPPING
        self._kill(child)  # what it may have left in its group
        child.process = None
        if child.watcher is not None:
            child.watcher.close()
            child.watcher = None
        self._record_of(child).unlink(missing_ok=True)
        child.last_exit = code
        log.log(logging.INFO if asked else logging.ERROR, "%s ended with code %d", child.service.name, code)
        if asked:
            child.state, child.failures, child.not_before = ServiceState.STOPPED, 0, now
        elif child.service.once and code == 0:
            child.state = ServiceState.FINISHED
        else:
            child.reason = child.verdict or f"ended with code {code}"
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
        child.state = ServiceState.WAITING

    def _ask_to_stop(self, child: Child, reason: str, now: float) -> None:
        """Graceful: the pipe ends and SIGTERM comes; it has `service_stop_seconds` to flush."""
        if child.process is None or child.state is ServiceState.STOPPING:
            return
        log.info("%s: %s", child.service.name, reason)
        child.state, child.reason = ServiceState.STOPPING, reason
        child.kill_at = now + self.settings.service_stop_seconds
        if child.process.stdin:
            child.process.stdin.close()
        if sys.platform != "win32":  # there, terminate() would be a kill; the pipe's end is the request
            child.process.send_signal(signal.SIGCONT)  # a stopped process cannot hear SIGTERM
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

    def _record_of(self, child: Child) -> Path:
        return self.record_dir / f"{child.service.name}.json"

    def _bound_outputs(self) -> None:
        """What libraries print: keep the last `_OUTPUT_BYTES` beside the file and empty it (held open for months)."""
        for child in self.children.values():
            output = self.log_dir / f"{child.service.name}.out"
            with suppress(OSError):
                if output.stat().st_size > _OUTPUT_BYTES:
                    shutil.copyfile(output, output.with_suffix(".out.1"))
                    os.truncate(output, 0)


@contextmanager
def running(settings: Settings) -> Iterator[Agent]:
    """An agent without services at first (`Agent.add`), stepping in a thread of its own; closed at the end."""
    agent, stop = Agent(settings), threading.Event()
    agent.open()
    thread = threads.start("agent", agent.step, stop, TICK_SECONDS)
    try:
        yield agent
    finally:
        stop.set()
        thread.join()
        agent.close()


def run_agent(settings: Settings, services: Sequence[Service], stop: threading.Event) -> int:
    """Keep *services* in their desired state until *stop* is set. 0, or 73 when another agent works on the same
    data_dir."""
    with only_one(settings.run_dir / "agent.lock") as alone:
        if not alone:
            log.error("an agent already works on data_dir %s: stop it first, or choose another", settings.data_dir)
            return EXIT_ALREADY
        agent = Agent(settings, services)
        agent.open()
        agent.listen()
        stop_metrics = start_metrics_server(settings)
        tell_systemd("READY=1")
        log.info("agent of %s starts: %s", settings.host, ", ".join(agent.children))
        try:
            while not stop.wait(TICK_SECONDS):
                agent.step()
        finally:
            agent.close()
            stop_metrics()
        log.info("agent ends")
        return 0
