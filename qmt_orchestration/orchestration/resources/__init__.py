"""What the assets, checks and sensors use: ClickHouse, Redis, and the managed services.

Each resource reads the settings when it is used, not when the code loads, so that definitions load with nothing
running. Passwords come from the environment alone: they are no part of a resource's configuration, which Dagster
stores and shows.
"""

from __future__ import annotations

from typing import Any, Literal

import dagster as dg
from pydantic import Field, SecretStr

from qmt_orchestration.services import desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.warehouse.client import connect as connect_warehouse


class _WithSettings(dg.ConfigurableResource):  # type: ignore[type-arg]
    overrides: dict[str, Any] = Field(
        default={}, description="Settings that win over the environment, by name (data_dir, redis_url, …); no secrets"
    )

    @property
    def settings(self) -> Settings:
        """The settings of this process with the overrides on top."""
        return Settings(**self.overrides)


class ClickHouseResource(_WithSettings):
    """The warehouse in use: the configured server, or the embedded engine of ``data_dir``."""

    def connect(self) -> Any:
        """A clickhouse-connect client that reads final rows (`warehouse.client.connect`)."""
        return connect_warehouse(self.settings)


class RedisResource(_WithSettings):
    """The Redis in use: the configured server, or the embedded engine of ``data_dir``."""

    def connect(self) -> Any:
        """A redis-py client whose replies are bytes (`stream.connection.connect`)."""
        return connect_redis(self.settings)


class ServicesResource(_WithSettings):
    """The always-on services (subscriber, gateway, writer, publisher, console): what should run, and what does.

    Nothing is started from here. The desired state is written to Redis and the agent on each host makes it so, which is
    why no inbound port is needed on the machine beside QMT.
    """

    def beats(self) -> list[dict[str, str]]:
        """The newest heartbeat of each service on each host; one without a heartbeat for 15 s is left out."""
        return read_all(connect_redis(self.settings))

    def desired(self) -> dict[str, str]:
        """Service → ``running`` or ``stopped``, as last asked for; one that is absent should run."""
        return {name: wanted.state for name, wanted in desired.read_desired(connect_redis(self.settings)).items()}

    def ask(self, service: str, action: Literal["start", "stop", "restart"]) -> None:
        """Ask for *action* on *service*; the agents act within seconds."""
        desired.ask(connect_redis(self.settings), service, action)


def build_resources(settings: Settings | None = None) -> dict[str, Any]:
    """The resources by their keys. *settings* (tests, a second deployment) win over the environment, secrets
    excepted."""
    overrides = _plain(settings) if settings is not None else {}
    return {
        "clickhouse": ClickHouseResource(overrides=overrides),
        "redis": RedisResource(overrides=overrides),
        "services": ServicesResource(overrides=overrides),
    }


def _plain(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in values.items() if not isinstance(getattr(settings, name), SecretStr)}
