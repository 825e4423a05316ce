"""Who may do what with the embedded engines: other users of the machine nothing, clients nothing beyond their data."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from clickhouse_connect.driver.exceptions import DatabaseError
from pydantic import SecretStr

from qmt_orchestration.local import engines
from qmt_orchestration.local.clickhouse_protocol import ClickHouseError, refuse_host_access
from qmt_orchestration.settings import SECRETS, Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration_tests.helpers import free_port


def test_passwords_are_made_at_the_first_start_and_found_as_ports_are(tmp_path: Path):
    """Also in a data folder of an earlier version, which has none and is open to everybody."""
    data = tmp_path / "data"
    for folder in ("run", "redis", "clickhouse", "logs"):
        (data / folder).mkdir(parents=True, mode=0o755)
        (data / folder).chmod(0o755)
    own = Settings(
        data_dir=data,
        redis_port=free_port(),
        clickhouse_port=free_port(),
        console_token=SecretStr("console-token-1"),
        alert_urls=SecretStr("json://alert-host"),
    )
    with engines.ensure(own) as ready:
        assert connect(own).ping(), "with settings that name no address"
        assert connect(ready).ping(), "with the address that was found"
        for settings in (own, ready):
            with connect_clickhouse(settings, database="default") as client:
                assert client.command("SELECT 1") == 1
        first = {name: ready.engine_password(name) for name in engines.NAMES}
        assert min(map(len, first.values())) >= 24
        stranger = Settings(redis_url=ready.redis_url, clickhouse_url=ready.clickhouse_url, data_dir=tmp_path / "none")
        with pytest.raises(redis.AuthenticationError):
            connect(stranger).ping()
        with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
            connect_clickhouse(stranger, database="default")
        for name in engines.NAMES:
            engine = engines.find(own, name)
            assert engine is not None
            process = psutil.Process(engine.pid)
            told = " ".join([*process.cmdline(), *process.environ().values()])
            for secret in (*first.values(), "console-token-1", "alert-host"):
                assert secret not in told, f"{name} was told a secret that it does not need"
    with engines.ensure(own) as ready:
        assert {name: ready.engine_password(name) for name in engines.NAMES} == first
    for folder in ("run", "redis", "clickhouse", "logs"):
        assert stat.S_IMODE((data / folder).stat().st_mode) == 0o700
    made = [path for path in data.rglob("*") if not path.is_symlink()]
    assert [
        path for path in made if path.name.endswith((".password", ".conf", ".aof")) and path.stat().st_mode & 0o077
    ] == []


def test_a_child_gets_only_the_secrets_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMT_CONSOLE_TOKEN", "from-the-shell")
    settings = Settings(redis_password=SecretStr("r"), clickhouse_password=SecretStr("c"))
    told = settings.child_environment(secrets=("redis_password",))
    assert {name for name in SECRETS if f"QMT_{name.upper()}" in told} == {"redis_password"}
    assert told["PATH"] == os.environ["PATH"]
    assert set(SECRETS) == {"redis_password", "clickhouse_password", "console_token", "alert_urls"}


@pytest.mark.parametrize(
    "command",
    [
        ("CONFIG", "SET", "dir", "/tmp"),
        ("CONFIG", "GET", "*"),
        ("DEBUG", "SLEEP", "0"),
        ("MODULE", "LOAD", "/tmp/x.so"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("SAVE",),
        ("BGREWRITEAOF",),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("SLAVEOF", "127.0.0.1", "1"),
        ("MIGRATE", "127.0.0.1", "1", "k", "0", "10"),
        ("RESTORE", "k", "0", "x"),
        ("MONITOR",),
    ],
    ids=lambda command: command[0],
)
def test_a_client_of_redis_cannot_change_the_server(redis_client: Any, command: tuple[str, ...]):
    with pytest.raises(redis.ResponseError, match=r"no permissions|not allowed"):  # 7 refuses DEBUG and MODULE itself
        redis_client.execute_command(*command)
    assert redis_client.set("data", "of our own")


# -- ClickHouse ----------------------------------------------------------------------------------------------

FORBIDDEN = [
    "SELECT * FROM file('{secret}', 'LineAsString')",
    "SELECT file('{secret}')",
    "SELECT `file`('{secret}')",
    r"SELECT `fi\x6ce`('{secret}')",
    "SELECT \"file\" /* x */ ('{secret}')",
    "SELECT * APPLY(file) FROM (SELECT '{secret}' AS p)",
    "SELECT * APPLY file FROM (SELECT '{secret}' AS p)",
    "SELECT $a$'$a$, file('{secret}'), $b$'$b$",
    "SELECT ‘'’, file('{secret}'), ‘'’",
    "SELECT 1 -- '\n, file('{secret}') --'",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM `{secret}`",
    "DESCRIBE file('{secret}')",
    "SELECT 1 INTO OUTFILE '{target}'",
    "SELECT 1 INTO /* x */ OUTFILE '{target}' FORMAT CSV",
    "INSERT INTO t FROM INFILE '{secret}' FORMAT LineAsString",
    "INSERT INTO FUNCTION file('{target}', 'CSV', 'a String') VALUES ('x')",
    "INSERT INTO t VALUES (file('{secret}'))",
    "INSERT INTO t SELECT file('{secret}')",
    "CREATE VIEW v AS SELECT file('{secret}') AS a",
    "CREATE FUNCTION f AS x -> file(x)",
    "CREATE TABLE x (a String) ENGINE = File(CSV, '{target}')",
    "CREATE TABLE x (a String) ENGINE = URL('http://127.0.0.1:1/', CSV)",
    "CREATE TABLE x (a String) ENGINE = Executable('id', 'CSV')",
    "CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/tmp/x/')",
    "CREATE DATABASE x ENGINE = Filesystem('/etc')",
    "CREATE DATABASE x ENGINE = SQLite('{target}')",
    "CREATE DICTIONARY x (a String) PRIMARY KEY a SOURCE(EXECUTABLE(command 'id' format 'CSV')) LAYOUT(FLAT())",
    "CREATE DICTIONARY x (a String) PRIMARY KEY a SOURCE(FILE(path '{secret}' format 'CSV')) LAYOUT(FLAT())",
    "CREATE NAMED COLLECTION x AS a = 1",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV', 'a String')",
    "SELECT * FROM sqlite('{target}', 't')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM Python(os)",
    "BACKUP TABLE t TO File('{target}')",
    "BACKUP TABLE t TO Disk('default', 'x')",
    "RESTORE TABLE t FROM File('{secret}')",
    "SELECT a FROM t FORMAT CapnProto SETTINGS format_schema = '{secret}:M'",
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "CREATE USER x",
    "GRANT ALL ON *.* TO default",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_a_client_of_clickhouse_reaches_no_file_program_or_host(raw_clickhouse: Any, tmp_path: Path, statement: str):
    """While inserts, which the server itself hands to the engine as files, go on working."""
    secret, target = tmp_path / "token", tmp_path / "written"
    secret.write_text("the-console-token")
    raw_clickhouse.command("CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(DatabaseError) as told:
        raw_clickhouse.raw_query(statement.replace("{secret}", str(secret)).replace("{target}", str(target)))
    assert "the-console-token" not in str(told.value)
    assert not target.exists()
    assert raw_clickhouse.raw_insert("t", ["a"], b"file('x') INTO OUTFILE\n", fmt="CSV").written_rows == 1
    raw_clickhouse.command("INSERT INTO t VALUES ('a file(x) of python(y)')")
    assert raw_clickhouse.command("SELECT count() FROM t") == 2


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT profile(1) FROM files WHERE file = 'x'",
        "SELECT 'INTO OUTFILE', 'it''s a file(x)', 'a \\' file(x)'",
        "SELECT filesystemAvailable() -- INTO OUTFILE\n",
        "SELECT $$ file(x) $$, 1 AS file, file + (1)",
        "SELECT arrayMap(x -> x, [1]) AS `a file (x)`",
    ],
)
def test_what_only_looks_like_it_is_served(statement: str):
    refuse_host_access(statement.encode())
    with pytest.raises(ClickHouseError, match="switched off"):
        refuse_host_access(statement.encode() + b" , file ('x')")
