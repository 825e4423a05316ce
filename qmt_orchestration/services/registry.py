"""The services there are, and how each is started and watched.

A new service of ours is one line here: a name, the module with ``run(settings, stop) -> int``, and whether only one may
run. Modules are imported only in the process that runs them. Dagster's processes and the embedded engines are services
too, for the agent (`services.dagster_processes`, `services.engine_processes`).
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event
from typing import Final, cast

from qmt_orchestration.services.watch import Probe
from qmt_orchestration.settings import Settings

Run = Callable[[Settings, Event], int]


#: Secrets of what talks to both engines.
ENGINES: Final = ("redis_password", "clickhouse_password")


class UnknownService(ValueError):
    """The name is no service; the message lists those that are."""


@dataclass(frozen=True)
class Service:
    """How one service is started and watched.

    *lease*: name of the fenced lease that lets only one instance of all hosts work ("" = none; the subscriber
    takes its own, 'feed'). *beats*: whether it writes heartbeats, so that silence means it hangs; *probe*: how one that
    does not beat is watched. *command*: a whole command line instead of ``services run NAME``, with *environment* on
    top of the agent's. *launch*: called instead, in a thread; returns when the process works; *clean_up*: called
    after its last end. *needs*: services that must work before it starts, and that are stopped after it. *once*:
    exit code 0 means finished, not died. *secrets*: settings that are secrets and that it needs; it gets no other.
    """

    name: str
    module: str = ""
    lease: str = ""
    beats: bool = True
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    launch: Callable[[], subprocess.Popen[bytes]] | None = None
    clean_up: Callable[[], None] | None = None
    probe: Probe | None = None
    needs: tuple[str, ...] = ()
    once: bool = False
    secrets: tuple[str, ...] = ("redis_password",)

    def needing(self, names: tuple[str, ...]) -> Service:
        """The same service, started after *names* and stopped before them."""
        return replace(self, needs=names)

    def argv(self, log_dir: str) -> list[str]:
        """The command line of its process."""
        if self.command:
            return list(self.command)
        out = [sys.executable, "-m", "qmt_orchestration.services", "run", self.name]
        out += ["--supervised", "--log-dir", log_dir]
        known = SERVICES.get(self.name)
        if known is None or known.module != self.module:
            out += ["--module", self.module, "--lease", self.lease]
        return out


SERVICES: Final[dict[str, Service]] = {
    service.name: service
    for service in (
        Service("subscriber", "qmt_orchestration.feed.subscriber"),
        Service("gateway", "qmt_orchestration.feed.gateway"),
        Service("writer", "qmt_orchestration.warehouse.writer", secrets=ENGINES),
        Service("publisher", "qmt_orchestration.warehouse.publisher", lease="publisher", secrets=ENGINES),
        Service("console", "qmt_orchestration.console.service", secrets=(*ENGINES, "console_token")),
    )
}

#: Dagster's processes, under the same agent: built by `services.dagster_processes`.
DAGSTER: Final = ("dagster-code", "dagster-daemon", "dagster-webserver")


def require_service(name: str) -> str:
    """*name*, if it is that of a service that can be started and stopped; `UnknownService` otherwise."""
    if name not in SERVICES and name not in DAGSTER:
        raise UnknownService(f"expected one of {', '.join((*SERVICES, *DAGSTER))}, found {name!r}")
    return name


def get_service(name: str) -> Service:
    """The service of ours of this name; `UnknownService` otherwise."""
    try:
        return SERVICES[name]
    except KeyError:
        raise UnknownService(f"expected one of {', '.join(SERVICES)}, found {name!r}") from None


def load_run(service: Service) -> Run:
    """Import the service's module and return its ``run``."""
    return cast(Run, importlib.import_module(service.module).run)
