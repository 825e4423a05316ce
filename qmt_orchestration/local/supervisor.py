"""Keeping the embedded engines running: one that has died, or that hangs, is started again on its port.

An engine hangs when for QMT_SERVICE_STALE_SECONDS it has answered nothing and done nothing either: none of its threads
ran or waited for the disk, and it used next to no processor time (a process that was stopped, a deadlock). An
engine that works while it does not answer (a long merge, a machine under load, a slow disk) is left alone for two
minutes. While this process itself was stopped nobody could be heard, so silence is counted anew.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from qmt_orchestration.local.engines import NAMES, Engine, EngineError, Name, start
from qmt_orchestration.settings import Settings

_PERIOD_SECONDS: Final = 0.3
_ANSWER_SECONDS: Final = 1.0
_SLEPT_SECONDS: Final = 3.0
_BUSY_SECONDS: Final = 120.0
_IDLE_SHARE: Final = 0.05  # of one processor: what the threads of a deadlocked engine may still use
_ASK: Final[dict[Name, bytes]] = {
    "redis": b"PING\r\n",
    "clickhouse": b"GET /ping HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
}

log = logging.getLogger("qmt.engines")


@contextmanager
def supervised(settings: Settings) -> Iterator[Settings]:
    """As `engines.ensure`, but the engines are ours, on their preferred ports, and start again after death or hang."""
    wanted = [name for name in NAMES if not getattr(settings, f"{name}_url")]
    stop = threading.Event()
    engines: dict[Name, Engine] = {}
    threads: list[threading.Thread] = []
    try:
        for name in wanted:
            engines[name] = start(name, settings)
        for name in wanted:
            thread = threading.Thread(
                target=_keep, args=(engines, name, settings, stop), name=f"keep-{name}", daemon=True
            )
            thread.start()
            threads.append(thread)
        yield settings.model_copy(update={f"{name}_url": engine.url for name, engine in engines.items()})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for engine in engines.values():
            engine.stop()


def _keep(engines: dict[Name, Engine], name: Name, settings: Settings, stop: threading.Event) -> None:
    """Start the engine again on its port whenever its process has ended or hangs, with a growing pause."""
    pause = _PERIOD_SECONDS
    watch = Watch(engines[name], settings.service_stale_seconds)
    while not stop.wait(pause):
        engine = engines[name]
        if engine.process is None:
            return
        if engine.process.poll() is None:
            pause = _PERIOD_SECONDS
            if reason := watch.hangs():
                log.error("%s (process %d) hangs: %s; killed", name, engine.pid, reason)
                engine.process.kill()
                engine.process.wait()
            else:
                continue
        log.warning("%s (process %d) ended with %s: starting it again", name, engine.pid, engine.process.returncode)
        try:
            engines[name] = start(name, settings, engine.port)
            watch = Watch(engines[name], settings.service_stale_seconds)
        except EngineError as error:
            pause = min(pause * 2, 10.0)
            log.error("%s", error)


class Watch:
    """Tells an engine that hangs from one that is busy. *stale_seconds*: silence of an idle engine that is a hang."""

    def __init__(self, engine: Engine, stale_seconds: float) -> None:
        self._engine, self._stale = engine, stale_seconds
        self._looked = time.monotonic()
        self._heard()

    def hangs(self) -> str:
        """Why the engine must be killed; "" while it answers or may still do. Takes at most about a second."""
        if time.monotonic() - self._looked > _SLEPT_SECONDS:
            self._heard()
        answered = self._answers()
        before, self._looked = self._looked, time.monotonic()
        if answered:
            self._heard()
            return ""
        if self._busy(self._looked - before):
            self._worked = self._looked
        silent, idle = self._looked - self._answered, self._looked - max(self._answered, self._worked)
        if silent > _BUSY_SECONDS:
            return f"no answer for {silent:.0f} s"
        if idle > self._stale:
            return f"no answer for {silent:.0f} s, and it does nothing"
        return ""

    def _heard(self) -> None:
        self._answered = self._worked = time.monotonic()
        self._used = self._processor_seconds()

    def _answers(self) -> bool:
        """Whether it says anything at all: "still loading" or "no password given" is an answer."""
        try:
            with socket.create_connection(("127.0.0.1", self._engine.port), _ANSWER_SECONDS) as line:
                line.sendall(_ASK[self._engine.name])
                return bool(line.recv(1))
        except OSError:
            return False

    def _busy(self, seconds: float) -> bool:
        """Whether it has worked in the *seconds* since the last look, or would like to now."""
        before, self._used = self._used, self._processor_seconds()
        return self._used - before > _IDLE_SHARE * seconds or bool(self._states() & {"R", "D"})

    def _processor_seconds(self) -> float:
        try:
            times = psutil.Process(self._engine.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _states(self) -> set[str]:
        """States of its threads as of proc(5): R runs or would like to, D waits for the disk. Told by Linux only."""
        if sys.platform != "linux":
            return set()
        out = set()
        for path in Path(f"/proc/{self._engine.pid}/task").glob("*/stat"):
            try:
                out.add(path.read_text().rpartition(")")[2].split()[0])
            except (OSError, IndexError):
                continue  # a thread that has just ended
        return out
