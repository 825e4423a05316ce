"""The embedded engines as services of the agent: on one port, started again after death or hang."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from qmt_orchestration.local import engines
from qmt_orchestration.services.agent import Agent, running
from qmt_orchestration.services.registry import Service
from qmt_orchestration.services.watch import Probe, http_probe
from qmt_orchestration.settings import Settings


class EngineLaunch:
    """Starts an engine, always on the same port, and waits until it answers. `EngineError` when the port is taken."""

    def __init__(self, name: engines.Name, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.port: int = getattr(settings, f"{name}_port") or engines.free_port()
        self._engine: engines.Engine | None = None

    @property
    def url(self) -> str:
        """Its address, the same after each restart."""
        return engines.Engine(self.name, 0, self.port, self.settings).url

    @property
    def probe(self) -> Probe:
        """How it is watched."""
        return Probe(self.port, b"PING\r\n") if self.name == "redis" else http_probe(self.port, "/ping")

    def __call__(self) -> subprocess.Popen[bytes]:
        self._engine = engines.start(self.name, self.settings, self.port)
        assert self._engine.process is not None
        return self._engine.process

    def clean_up(self) -> None:
        """After its end: nobody is to look for it on its port."""
        if self._engine is not None:
            self._engine.stop()


@contextmanager
def supervised(settings: Settings) -> Iterator[Settings]:
    """The engines alone, under an agent: as `local.engines.ensure`, but started again after death or hang."""
    with running(settings) as agent:
        yield start_engines(settings, agent)


def start_engines(settings: Settings, agent: Agent) -> Settings:
    """Settings with both URLs, once *agent* has started the engines that are not configured as servers elsewhere.

    Raises `EngineError`; what was started so far ends with the agent.
    """
    found = {name: EngineLaunch(name, settings) for name in engines.NAMES if not getattr(settings, f"{name}_url")}
    agent.add(
        [
            Service(name, beats=False, launch=launch, clean_up=launch.clean_up, probe=launch.probe)
            for name, launch in found.items()
        ]
    )
    _wait_ready(agent, found)
    return settings.model_copy(update={f"{name}_url": launch.url for name, launch in found.items()})


def _wait_ready(agent: Agent, found: dict[engines.Name, EngineLaunch]) -> None:
    """Until all engines answer. `EngineError` with the reason of one that cannot be started."""
    while not agent.ready(tuple(found)):
        for name in found:
            child = agent.children[name]
            if child.failures and child.process is None:
                raise engines.EngineError(child.reason)
        time.sleep(0.05)
