"""What the agent knows of one service: its process, its state, and when it may start again."""

from __future__ import annotations

import subprocess
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum

from qmt_orchestration.services.registry import Service
from qmt_orchestration.services.watch import Watcher


class ServiceState(str, Enum):
    """What a service of this host is doing, as shown by `qmt status`."""

    STARTING = "starting"  # its launch is under way
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    WAITING = "waiting"  # pauses before its next start, or for a service that it needs
    FINISHED = "finished"  # a service with an end (a replay) has reached it


@dataclass
class Child:
    """One service: its process, what is known of it, and when it may start again."""

    service: Service
    state: ServiceState = ServiceState.STOPPED
    process: subprocess.Popen[bytes] | None = None
    launching: Future[subprocess.Popen[bytes]] | None = None
    watcher: Watcher | None = None
    generation: int = 0
    restarts: int = 0
    failures: int = 0
    last_exit: int | None = None
    reason: str = ""  #: of its last end, or of its waiting
    verdict: str = ""  #: why it was killed, until its end is noted
    started: float = 0.0  # monotonic seconds, as all below
    not_before: float = 0.0
    kill_at: float = 0.0
    beat_ms: str = ""
    beat_seen: float = 0.0
    memory_mb: float = 0.0

    @property
    def active(self) -> bool:
        """Whether there is a process, or will be in a moment."""
        return self.process is not None or self.launching is not None

    @property
    def ready(self) -> bool:
        """Whether those that need it may start."""
        return (
            self.process is not None and self.state is ServiceState.RUNNING and (not self.watcher or self.watcher.ready)
        )
