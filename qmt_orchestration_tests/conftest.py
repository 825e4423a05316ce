"""Engines and settings of the tests: real ones, started once, on free ports, in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import clickhouse_connect
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings, get_settings

# "thorough" is that of .ci/run (--hypothesis-profile=thorough)
for _profile, _examples in (("qmt", 25), ("thorough", 200)):
    hypothesis_settings.register_profile(
        _profile,
        max_examples=_examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
hypothesis_settings.load_profile("qmt")

# A developer's own settings must not reach the tests (nor their servers); only the recordings do.
for _name in [name for name in os.environ if name.startswith("QMT_") and name != "QMT_RECORDINGS_DIR"]:
    del os.environ[_name]
get_settings.cache_clear()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module run in one worker, in their order (--dist loadgroup)."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009
        if any(found[-1].scope == "module" for found in fixtures if found):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with the URLs of one Redis and one ClickHouse that live as long as the test session."""
    with engines.ensure(Settings(data_dir=tmp_path_factory.mktemp("engines"), redis_maxmemory_mb=1024)) as ready:
        passwords = {f"{name}_password": SecretStr(ready.engine_password(name)) for name in engines.NAMES}
        yield ready.model_copy(update=passwords)  # tests have data folders of their own


@pytest.fixture
def redis_admin(engine_settings: Settings) -> Iterator[Any]:
    """The session's Redis as its administrator, who may CONFIG."""
    with engines.redis_admin(engine_settings) as client:
        yield client


@pytest.fixture
def settings(engine_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings of one test: a data folder and a ClickHouse database of its own, the session's engines."""
    database = f"qmt_{uuid4().hex[:12]}"
    yield engine_settings.model_copy(update={"data_dir": tmp_path / "data", "clickhouse_database": database})
    with _client(engine_settings) as client:
        client.command("DROP DATABASE IF EXISTS {db:Identifier} SYNC", {"db": database})


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """The session's Redis, emptied."""
    from qmt_orchestration.stream.connection import connect

    client = connect(settings)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def clickhouse(settings: Settings) -> Iterator[Any]:
    """A clickhouse-connect client on the test's own database, with the project's tables in it."""
    from qmt_orchestration.warehouse.client import connect
    from qmt_orchestration.warehouse.migrate import migrate

    migrate(settings)
    with connect(settings) as client:
        yield client


def _client(settings: Settings) -> Any:
    port = int(settings.clickhouse_url.rsplit(":", 1)[1])
    password = settings.engine_password("clickhouse")
    return clickhouse_connect.get_client(host="127.0.0.1", port=port, password=password, autogenerate_session_id=False)


@pytest.fixture
def raw_clickhouse(settings: Settings) -> Iterator[Any]:
    """A plain client on the test's own, empty database: for tests of the engine itself."""
    with _client(settings) as client:
        client.command(f"CREATE DATABASE {settings.clickhouse_database} ENGINE = Atomic")
        client.database = settings.clickhouse_database
        yield client
