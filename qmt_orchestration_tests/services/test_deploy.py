"""The files of ``deploy/`` against real engines: roles may do their work and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.exceptions import DatabaseError
from pydantic import SecretStr

from qmt_orchestration.local.passwords import password_file
from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.services.desired import read_desired, set_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import publish_clock, read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat, read_all
from qmt_orchestration.stream.lease import Lease
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration.warehouse.publisher import Publisher
from qmt_orchestration.warehouse.writer import make_lanes
from qmt_orchestration_tests.helpers import free_port, redis_with_selectors, wait_until
from qmt_orchestration_tests.stream.ticks import START_MS, publish

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROLES = ("admin", "feed", "warehouse", "dagster", "client", "ticks")


def _password(role: str) -> str:
    return f"long-enough-{role}-0123456789"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a Redis with the ACL file as `make-acl.sh` writes it."""
    folder = tmp_path_factory.mktemp("acl")
    passwords = {f"{role.upper()}_PASSWORD": _password(role) for role in ROLES}
    made = subprocess.run([str(DEPLOY / "redis/make-acl.sh")], env={**os.environ, **passwords}, capture_output=True)
    assert made.returncode == 0, made.stderr.decode()
    (folder / "users.acl").write_bytes(made.stdout)
    port = free_port()
    argv = [redis_with_selectors(), "--port", str(port), "--bind", "127.0.0.1", "--aclfile", str(folder / "users.acl")]
    server = subprocess.Popen([*argv, "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL)
    wait_until(lambda: _authenticates(port), 10, "the server with its ACL file")
    yield port
    server.kill()
    server.wait()


def _authenticates(port: int) -> bool:
    try:
        with redis.Redis(port=port, username="admin", password=_password("admin")) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _settings(port: int, role: str) -> Settings:
    return Settings(
        redis_url=f"redis://127.0.0.1:{port}/0",
        redis_username=role,
        redis_password=SecretStr(_password(role)),
        host_name="h1",
    )


def _as(port: int, role: str) -> Any:
    return connect(_settings(port, role), retries=0)


def test_no_password_no_entry_and_the_file_holds_none(guarded: int) -> None:
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=guarded) as nobody:
        nobody.ping()
    text = (DEPLOY / "redis/users.acl").read_text()
    assert ">" not in text, "a password in clear"


def test_short_passwords_are_refused() -> None:
    env = {**os.environ, "ADMIN_PASSWORD": "short"}
    made = subprocess.run([str(DEPLOY / "redis/make-acl.sh")], env=env, capture_output=True, text=True)
    assert made.returncode == 1
    assert "ADMIN_PASSWORD" in made.stderr
    assert "short" not in made.stderr


def test_the_feed_publishes_and_reads_no_bars(guarded: int) -> None:
    feed = _as(guarded, "feed")
    Heartbeat(feed, _settings(guarded, "feed"), "subscriber").beat({"rate": 1})
    assert Lease(feed, "feed", "h1|1|1").acquire()
    feed.xadd(keys.ticks(0), {"session": "s"})
    publish_clock(feed, 1, 1.0)
    assert read_desired(feed) == {}
    feed.xgroup_create(keys.RPC, keys.RPC_GROUP, "0", mkstream=True)
    feed.xreadgroup(keys.RPC_GROUP, "h1", {keys.RPC: ">"})
    for forbidden in (
        lambda: feed.xrange(keys.BARS),
        lambda: feed.flushall(),
        lambda: feed.config_get("*"),
        lambda: feed.keys("*"),
        lambda: feed.execute_command("ACL", "LIST"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            forbidden()


def test_the_warehouse_writes_bars_and_trims_ticks(guarded: int) -> None:
    warehouse = _as(guarded, "warehouse")
    warehouse.xadd(keys.BARS, {"symbol": "000001.SZ"}, id="1-1")
    warehouse.xgroup_create(keys.ticks(0), keys.WRITER_GROUP, "0", mkstream=True)
    warehouse.xreadgroup(keys.WRITER_GROUP, "h1", {keys.ticks(0): ">"})
    warehouse.xtrim(keys.ticks(0), minid="0", approximate=False)
    assert Lease(warehouse, "publisher", "h1|1|1").acquire()
    with pytest.raises(redis.exceptions.NoPermissionError):
        warehouse.flushdb()


def test_dagster_says_what_should_run(guarded: int) -> None:
    dagster = _as(guarded, "dagster")
    set_desired(dagster, "writer", "stopped")
    assert read_desired(_as(guarded, "warehouse"))["writer"].state == "stopped"
    read_all(dagster)
    read_clock(dagster)
    dagster.xinfo_groups(keys.ticks(0)) if dagster.exists(keys.ticks(0)) else None
    with pytest.raises(redis.exceptions.NoPermissionError):
        dagster.execute_command("SHUTDOWN")


def test_a_client_reads_bars_and_cannot_steer(guarded: int) -> None:
    client = _as(guarded, "client")
    client.xgroup_create(keys.BARS, f"{keys.BAR_GROUP_PREFIX}:mac", "0", mkstream=True)
    client.xreadgroup(f"{keys.BAR_GROUP_PREFIX}:mac", "mac", {keys.BARS: ">"})
    client.hset(keys.CLIENT.format(client_id="mac"), "mode", "broadcast")
    read_clock(client)
    for forbidden in (
        lambda: set_desired(client, "subscriber", "stopped"),
        lambda: Lease(client, "feed", "x").acquire(),
        lambda: client.xadd(keys.RPC, {"method": "history"}),
        lambda: client.xtrim(keys.BARS, maxlen=0),
        lambda: client.xdel(keys.BARS, "1-1"),
    ):
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|NOPERM|access"):
            forbidden()


def test_clickhouse_statements_are_understood_by_the_engine(raw_clickhouse: Any) -> None:
    text = (DEPLOY / "clickhouse/users.sql").read_text()
    lines = [line for line in text.split("\n") if not line.startswith("--")]
    statements = [s.strip() for s in "\n".join(lines).split(";") if s.strip()]
    assert len(statements) > 10
    for statement in statements:
        raw_clickhouse.query("SELECT formatQuery({q:String})", parameters={"q": statement})
    assert "BY '" not in "\n".join(lines), "a password in clear"


@contextmanager
def served_as(role: str, settings: Settings) -> Iterator[Settings]:
    """ClickHouse on the settings' folder whose user has the privileges of *role*."""
    port = free_port()
    argv = [sys.executable, "-m", "qmt_orchestration_tests.services.serve_as", role]
    argv += ["--path", str(settings.data_dir / "clickhouse"), "--port", str(port)]
    argv += ["--password-file", str(password_file(settings, "clickhouse"))]
    server = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    out = settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{port}", "clickhouse_database": "qmt"})
    try:
        wait_until(lambda: _listens(port), 60, f"ClickHouse of {role}")
        yield out
    finally:
        server.terminate()
        server.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_clickhouse_roles_can_do_their_work_and_no_more(settings: Settings, redis_client: Any) -> None:
    """The engine itself enforces the grants of users.sql: the owner migrates, the services write, the analyst reads."""
    redis_client.flushall()
    with served_as("qmt_owner", settings) as owner:
        assert migrate(owner)
        assert migrate(owner) == []
    with served_as("qmt_service", settings) as service:
        ticks = publish(redis_client, [*range(20), 6200])  # the last one 62 s after the first: its minute is over
        stop = threading.Event()
        lanes = make_lanes(service, stop)
        for lane in lanes:
            lane.start()
        client = connect_clickhouse(service)
        count = lambda: client.query("SELECT count() FROM ticks").first_row[0]  # noqa: E731
        wait_until(lambda: count() == ticks, 30, "the writer to store")
        redis_client.xadd(keys.ticks(0), redis_client.xrange(keys.ticks(0), count=1)[0][1])  # looked up: known
        wait_until(lambda: lanes[0].counters.skipped == 1, 30, "the look-up of a repeat")
        stop.set()
        assert [lane.join(15) or lane.failure for lane in lanes] == [None, None]
        day = datetime.fromtimestamp(START_MS / 1000, SHANGHAI).date()
        publisher = Publisher(service, redis_client)
        publish_clock(redis_client, START_MS + 120_000, 1.0)
        assert publisher.step() > 0
        for forbidden in (
            "CREATE TABLE t (a Int8) ENGINE = Memory",
            "INSERT INTO bars_1m (symbol) VALUES ('x')",
            "ALTER TABLE ticks DELETE WHERE 1",
            "TRUNCATE TABLE ticks",
            "DROP TABLE ticks",
        ):
            with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
                client.command(forbidden)
    with served_as("qmt_owner", settings) as owner:
        client = connect_clickhouse(owner)
        assert bars.finalize(client, day, last_frame=at(day, 601)).rows > 0
        for period in ("5m", "30m", "1d"):
            assert bars.roll_up(client, day, period).version > 0
        assert bars.recompute(client, day, at(day, 601)).rows == 0
        with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
            client.command("CREATE USER stranger")
    with served_as("qmt_reader", settings) as reader:
        client = connect_clickhouse(reader)
        assert client.query("SELECT count() FROM minute_bars").first_row[0] > 0
        for forbidden in ("INSERT INTO ticks (symbol) VALUES ('x')", "DROP TABLE ticks", "OPTIMIZE TABLE ticks"):
            with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
                client.command(forbidden)


def test_files_for_windows_read_the_same_in_every_code_page() -> None:
    """Windows PowerShell takes a script without a mark for the machine's code page (936 where QMT runs)."""
    for path in (DEPLOY / "windows").iterdir():
        assert path.read_bytes().isascii(), path


def test_units_and_scripts_hold_no_secret() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            for line in path.read_text().split("\n"):
                assert "PASSWORD=" not in line or line.startswith("#") or line.split("=")[1] == "", f"{path}: {line}"
