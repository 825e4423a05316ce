"""Engines and settings of the tests: real ones, started once, on free ports, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
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

# Started with "&" by a script, SIGINT is ignored; Dagster in this process would then leave SIGTERM ignored too, and
# children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files whose tests take longest, longest first: workers take whole files in this order, so that both end together.
LONGEST = (
    "orchestration/test_days.py", "services/test_agent.py", "services/test_up.py", "feed/test_subscriber.py",
    "orchestration/test_minutes.py", "orchestration/test_plugins.py", "client/test_xtdata.py",
    "orchestration/test_history.py", "orchestration/test_launcher.py", "client/test_processes.py", "client/test_api.py",
    "ops/test_backup.py", "simulator/test_market.py", "orchestration/test_checks.py", "feed/test_doubts.py",
    "console/test_console.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order."""
    rank = {f"qmt_orchestration_tests/{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with the URLs of one Redis and one ClickHouse that live as long as the test session."""
    # the days of the tests lie years back: their ticks must not expire on arrival
    chosen = Settings(data_dir=tmp_path_factory.mktemp("engines"), redis_maxmemory_mb=1024, ticks_ttl_days=20_000)
    with engines.ensure(chosen) as ready:
        passwords = {f"{name}_password": SecretStr(ready.engine_password(name)) for name in engines.NAMES}
        yield ready.model_copy(update=passwords)  # tests have data folders of their own


@pytest.fixture
def redis_admin(engine_settings: Settings) -> Iterator[Any]:
    """The session's Redis as its administrator, who may CONFIG."""
    with engines.redis_admin(engine_settings) as client:
        yield client


@dataclass
class Databases:
    """The databases of one worker's tests. Migrating costs ten times what emptying does, so a test that asks for
    `clickhouse` gets the one of the test before it, emptied, unless that test changed its tables."""

    admin: Any
    spare: str = ""
    migrated: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)  # as `migrate` left them

    def tables(self, database: str) -> dict[str, tuple[str, int]]:
        """Table → definition, rows."""
        query = "SELECT name, create_table_query, ifNull(total_rows, 0) FROM system.tables WHERE database = {db:String}"
        return {row[0]: (row[1], row[2]) for row in self.admin.query(query, {"db": database}).result_rows}

    def take(self, *, migrated: bool) -> str:
        """A database for one test; the empty one of the test before it, if the test wants its tables."""
        name, self.spare = (self.spare, "") if migrated and self.spare else (f"qmt_{uuid4().hex[:12]}", self.spare)
        return name

    def give_back(self, database: str) -> None:
        """Empty it for the next test, or drop it when the tables that `migrate` made have changed."""
        found, fresh = self.tables(database), self.migrated.get(database, {})
        if fresh and not self.spare and all(found.get(name, ("",))[0] == fresh[name][0] for name in fresh):
            for name, (_, rows) in found.items():
                if name not in fresh:
                    self.admin.command("DROP TABLE {db:Identifier}.{t:Identifier} SYNC", {"db": database, "t": name})
                elif rows and not fresh[name][1]:
                    self.admin.command(
                        "TRUNCATE TABLE {db:Identifier}.{t:Identifier} SYNC", {"db": database, "t": name}
                    )
            if self.tables(database) == fresh:
                self.spare = database
                return
        self.migrated.pop(database, None)
        self.admin.command("DROP DATABASE IF EXISTS {db:Identifier} SYNC", {"db": database})


@pytest.fixture(scope="session")
def databases(engine_settings: Settings) -> Iterator[Databases]:
    """The databases of this worker's tests."""
    with _client(engine_settings) as client:
        yield Databases(client)


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, engine_settings: Settings, databases: Databases, tmp_path: Path
) -> Iterator[Settings]:
    """Settings of one test: a data folder and a ClickHouse database of its own, the session's engines."""
    database = databases.take(migrated="clickhouse" in request.fixturenames)
    yield engine_settings.model_copy(update={"data_dir": tmp_path / "data", "clickhouse_database": database})
    databases.give_back(database)


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """The session's Redis, emptied."""
    from qmt_orchestration.stream.connection import connect

    client = connect(settings)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def clickhouse(settings: Settings, engine_settings: Settings, databases: Databases) -> Iterator[Any]:
    """A clickhouse-connect client on the test's own database, with the project's tables in it."""
    from qmt_orchestration.warehouse.client import connect
    from qmt_orchestration.warehouse.migrate import migrate, template_words

    database = settings.clickhouse_database
    usual, own = ((template_words(chosen), chosen.rollup_periods) for chosen in (engine_settings, settings))
    plain = own == usual  # another test can have its database
    if database not in databases.migrated or not plain:
        migrate(settings)
        if plain:
            databases.migrated[database] = databases.tables(database)
    with connect(settings) as client:
        yield client


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Dagster with its databases and no run, to be copied: Dagster takes ten times as long to make one."""
    import dagster as dg

    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(home)) as made:
        assert made.get_runs_count() == 0
        assert made.all_instigator_state() == []
        assert made.get_asset_keys() == []
    return home


@pytest.fixture
def instance(empty_home: Path, tmp_path: Path) -> Iterator[Any]:
    """A Dagster instance on SQLite, as `make up` has it: the in-memory instance of tests hides its limits."""
    import dagster as dg

    from qmt_orchestration.orchestration.sqlite import kept_open

    home, quiet = shutil.copytree(empty_home, tmp_path / "home"), {"telemetry": {"enabled": False}}
    with kept_open(), dg.DagsterInstance.local_temp(str(home), overrides=quiet) as made:
        yield made


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
