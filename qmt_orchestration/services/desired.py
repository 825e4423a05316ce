"""Desired state: what should run, as Dagster, the console and people say it. The agents of the hosts make it so.

One Redis hash (`keys.DESIRED`): ``service -> running | stopped``, and ``service#restart -> n``, a number that an agent
compares with the one it has acted on, so that a restart is asked for exactly once however many agents or readers
there are. A service without an entry should run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from qmt_orchestration.services.registry import require_service
from qmt_orchestration.stream import fields, keys

WantedState = Literal["running", "stopped"]
_RESTART: Final = "#restart"


@dataclass(frozen=True)
class Desired:
    """What is wanted of one service: its state, and how often a restart has been asked for."""

    state: WantedState = "running"
    generation: int = 0


def set_desired(client: Any, service: str, state: WantedState) -> None:
    """Say that *service* should be running or stopped. `UnknownService` if there is no such service."""
    require_service(service)
    if state not in ("running", "stopped"):
        raise ValueError(f"expected running or stopped, found {state!r}")
    client.hset(keys.DESIRED, service, state)


def ask_restart(client: Any, service: str) -> int:
    """Ask for one restart of *service*, which should run from then on. Returns the number of this request."""
    require_service(service)
    with client.pipeline() as pipe:
        pipe.hset(keys.DESIRED, service, "running")
        pipe.hincrby(keys.DESIRED, service + _RESTART, 1)
        return int(pipe.execute()[1])


def ask(client: Any, service: str, action: str) -> None:
    """Ask for *service* to be started, stopped or restarted; the agents act within seconds."""
    if action == "restart":
        ask_restart(client, service)
    elif action in ("start", "stop"):
        set_desired(client, service, "running" if action == "start" else "stopped")
    else:
        raise ValueError(f"expected start, stop or restart, found {action!r}")


def read_desired(client: Any) -> dict[str, Desired]:
    """What is wanted, by service; services nobody has spoken about are absent (they should run)."""
    raw = fields.decoded_hash(client.hgetall(keys.DESIRED))
    out: dict[str, Desired] = {}
    for name in {key.removesuffix(_RESTART) for key in raw}:
        state: WantedState = "stopped" if raw.get(name) == "stopped" else "running"
        out[name] = Desired(state, fields.integer(raw, name + _RESTART, low=0))
    return out
