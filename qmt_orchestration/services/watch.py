"""Telling a process that hangs from one that is busy, for processes without a heartbeat of ours.

A process hangs when for QMT_SERVICE_STALE_SECONDS it has answered nothing and done nothing either: none of its threads
ran or waited for the disk, and it used next to no processor time (a process that was stopped, a deadlock). One that
works while it does not answer (a long merge, a machine under load, a slow disk) is left alone for two minutes. While
this process itself was stopped it could not listen, so silence counts from then on.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from qmt_orchestration.stream import threads

_PERIOD_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 1.0
_SLEPT_SECONDS: Final = 3.0
_BUSY_SECONDS: Final = 120.0
_IDLE_SHARE: Final = 0.05  # of one processor: what the threads of a deadlocked process may still use


@dataclass(frozen=True)
class Probe:
    """How a process is asked whether it runs: *question* is sent to *address* (a port of this host, or the path of a
    Unix socket), and any answer is one. Without an address only its work is looked at."""

    address: int | str = 0
    question: bytes = b""

    def answers(self) -> bool:
        """Whether it says anything at all: "still loading" or "no password given" is an answer."""
        try:
            with self._connect() as line:
                line.sendall(self.question)
                return bool(line.recv(1))
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), _ANSWER_SECONDS)
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(_ANSWER_SECONDS)
        try:
            line.connect(self.address)
        except OSError:
            line.close()
            raise
        return line


def http_probe(port: int, path: str = "/") -> Probe:
    """A question that any HTTP server answers."""
    return Probe(port, f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())


class Watch:
    """Looks at one process. *stale_seconds*: silence of an idle process that is a hang."""

    def __init__(self, pid: int, probe: Probe, stale_seconds: float) -> None:
        self._pid, self._probe, self._stale = pid, probe, stale_seconds
        self._allowed = _IDLE_SHARE if probe.address else 0.0  # of a mute process any work counts
        self.ready = not probe.address  #: it has answered at least once
        self._looked = time.monotonic()
        self._heard()

    def hangs(self) -> str:
        """Why the process must be killed; "" while it answers or may still do. Takes at most about a second."""
        if time.monotonic() - self._looked > _SLEPT_SECONDS:
            self._heard()
        answered = bool(self._probe.address) and self._probe.answers()
        before, self._looked = self._looked, time.monotonic()
        if answered:
            self.ready = True
            self._heard()
            return ""
        if self._busy(self._looked - before):
            self._worked = self._looked
        silent, idle = self._looked - self._answered, self._looked - max(self._answered, self._worked)
        if self._probe.address and silent > _BUSY_SECONDS:
            return f"no answer for {silent:.0f} s"
        if idle > self._stale:
            return f"no answer for {silent:.0f} s, and it does nothing"
        return ""

    def _heard(self) -> None:
        self._answered = self._worked = time.monotonic()
        self._used = self._processor_seconds()

    def _busy(self, seconds: float) -> bool:
        """Whether it has worked in the *seconds* since the last look, or would like to now."""
        before, self._used = self._used, self._processor_seconds()
        return self._used - before > self._allowed * seconds or bool(self._states() & {"R", "D"})

    def _processor_seconds(self) -> float:
        try:
            times = psutil.Process(self._pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _states(self) -> set[str]:
        """States of its threads as of proc(5), on Linux: R runs or would like to, D waits for the disk."""
        if sys.platform != "linux":
            return set()
        out = set()
        for path in Path(f"/proc/{self._pid}/task").glob("*/stat"):
            try:
                out.add(path.read_text().rpartition(")")[2].split()[0])
            except (OSError, IndexError):
                continue  # a thread that has just ended
        return out


class Watcher:
    """A thread that keeps looking; the agent's loop reads `ready` and `reason` and never waits."""

    def __init__(self, pid: int, probe: Probe, stale_seconds: float) -> None:
        self._watch = Watch(pid, probe, stale_seconds)
        self.reason = ""  #: why the process must be killed
        self._stop = threading.Event()
        threads.start(f"watch-{pid}", self._look, self._stop, _PERIOD_SECONDS)

    @property
    def ready(self) -> bool:
        """Whether the process has answered since its start."""
        return self._watch.ready

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()

    def _look(self) -> None:
        self.reason = self._watch.hangs()
