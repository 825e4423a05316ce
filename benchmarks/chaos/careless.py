"""Negative controls: writers with the mistakes that the account must find.

``ack-first`` acknowledges before it inserts: killed in between, it loses. ``no-token`` inserts without a lasting token,
looks up nothing, and lets time pass before it acknowledges: killed in between, it doubles. ``unstored`` believes in
inserts that were never made, as an engine acknowledged them whose disk was full: it loses.

    python -m benchmarks.chaos.careless MISTAKE      an agent whose writer makes it
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import wait
from dataclasses import replace
from itertools import count
from typing import Any

from qmt_orchestration.services.agent import run_agent
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.services.registry import SERVICES
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import lane, writer
from qmt_orchestration.warehouse.ingest.entries import Part

MISTAKES = ("ack-first", "no-token", "unstored")
_VARIABLE = "CHAOS_MISTAKE"
_WINDOW_SECONDS = 0.4  # how long each insert stays vulnerable


class _AckFirst(lane.WriterLane):
    def store(self, group: list[Part]) -> None:
        self.committer.commit(group, stored=True)
        self._stop.wait(_WINDOW_SECONDS)
        super().store(group)


class _NoToken(lane.WriterLane):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        forgetful: Any = self.plan
        lasting = self.plan.token
        forgetful.already_stored = lambda parts: ([], parts)
        forgetful.token = lambda group: f"{lasting(group)}:{os.getpid()}"

    def _finish(self) -> None:
        if self._running is not None:
            wait([self._running[1]])
            self._stop.wait(_WINDOW_SECONDS)
        super()._finish()


class _Unstored(lane.WriterLane):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        real, made = self.inserter.insert, count()
        believing: Any = self.inserter
        believing.insert = lambda group, token: None if next(made) % 3 == 2 else real(group, token)


def run(settings: Settings, stop: threading.Event) -> int:
    """The writer, with the mistake named in the environment."""
    replaced: Any = {"ack-first": _AckFirst, "no-token": _NoToken, "unstored": _Unstored}[os.environ[_VARIABLE]]
    setattr(writer, "Lane", replaced)  # noqa: B010 - the module does not export it
    return writer.run(settings, stop)


def main() -> int:
    os.environ[_VARIABLE] = sys.argv[1]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = Settings()
    set_up_logging(settings, "agent")
    careless = replace(SERVICES["writer"], module="benchmarks.chaos.careless")
    return run_agent(settings, [careless, SERVICES["publisher"]], stop)


if __name__ == "__main__":
    sys.exit(main())
