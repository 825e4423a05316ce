"""Starting, finding and ending the engines, and what happens when they or their parent are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
import pytest
import redis

from qmt_orchestration.local import engines, redis_server
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.helpers import free_port, wait_until

START = {"redis": engines.start_redis, "clickhouse": engines.start_clickhouse}
both = pytest.mark.parametrize("name", engines.NAMES)


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """A data folder without engines."""
    return Settings(data_dir=tmp_path / "data", redis_port=free_port(), clickhouse_port=free_port())


def asking(engine: engines.Engine, **options: Any) -> Any:
    """A client of its own of the engine."""
    password = engine.settings.engine_password(engine.name, engine.url)
    if engine.name == "redis":
        return redis.Redis(port=engine.port, password=password, **options)
    return clickhouse_connect.get_client(host="127.0.0.1", port=engine.port, password=password, **options)


def write(engine: engines.Engine) -> None:
    client = asking(engine)
    if engine.name == "redis":
        client.set("kept", "yes")
    else:
        client.command("CREATE DATABASE d")
        client.command("CREATE TABLE d.t (a Int8) ENGINE = MergeTree ORDER BY a")
        client.insert("d.t", [[7]])


def kept(engine: engines.Engine) -> bool:
    client = asking(engine)
    if engine.name == "redis":
        return client.get("kept") == b"yes"
    return client.query("SELECT a FROM d.t").result_rows == [(7,)]


@both
def test_data_survive_an_orderly_end_and_a_kill(own: Settings, name: engines.Name):
    engine = START[name](own, 0)
    write(engine)
    if name == "redis":
        assert asking(engine).info("persistence")["aof_enabled"] == 1
    engine.stop()
    assert engine.process is not None
    assert engine.process.returncode == 0
    assert engines.find(own, name) is None
    again = START[name](own, 0)
    assert kept(again)
    os.kill(again.pid, signal.SIGKILL)
    wait_until(lambda: not again.alive(), message="the kill is noticed")
    assert engines.find(own, name) is None
    third = START[name](own, 0)
    try:
        assert kept(third)
    finally:
        third.stop()


@both
def test_a_second_start_on_the_same_folder_is_refused(own: Settings, name: engines.Name):
    engine = START[name](own, 0)
    try:
        with pytest.raises(engines.EngineBusy, match=f"runs already: process {engine.pid} on port {engine.port}"):
            START[name](own, 0)
        found = engines.find(own, name)
        assert found is not None
        assert (found.pid, found.port) == (engine.pid, engine.port)
    finally:
        engine.stop()


@both
def test_a_taken_port_names_its_holder_and_the_setting(own: Settings, name: engines.Name):
    port = getattr(own, f"{name}_port")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(engines.EngineError, match=f"port {port} .*QMT_{name.upper()}_PORT") as told:
            START[name](own)
    assert f"process {os.getpid()}" in str(told.value)


@both
def test_a_run_file_of_a_stranger_is_no_engine(own: Settings, name: engines.Name):
    """A process id is used again after a crash; a port is taken by another program."""
    own.run_dir.mkdir(parents=True)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        (own.run_dir / f"{name}.json").write_text(f'{{"pid": {os.getpid()}, "port": {holder.getsockname()[1]}}}')
        assert engines.find(own, name) is None
    (own.run_dir / f"{name}.json").write_text("half a fi")
    assert engines.find(own, name) is None
    engine = START[name](own, 0)
    engine.stop()


def test_the_engines_of_a_killed_program_end_with_it(own: Settings):
    program = (
        "import sys, time; from pathlib import Path; from qmt_orchestration.settings import Settings; "
        "from qmt_orchestration.local import engines\n"
        f"with engines.ensure(Settings(data_dir=Path({str(own.data_dir)!r}))):\n"
        "    print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        found = [engines.find(own, name) for name in engines.NAMES]
        pids = [engine.pid for engine in found if engine is not None]
        assert len(pids) == 2
        parent.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 15, "both engines ended")
    engines.start_redis(own, 0).stop()


def test_ensure_uses_what_runs_and_leaves_it_running(own: Settings):
    engine = engines.start_redis(own, 0)
    try:
        with engines.ensure(own, names=("redis",)) as ready:
            assert ready.redis_url == engine.url
            assert ready.clickhouse_url == ""
        assert engine.alive()
        configured = own.model_copy(update={"redis_url": "redis://elsewhere:1/0"})
        with engines.ensure(configured, names=("redis",)) as ready:
            assert ready.redis_url == "redis://elsewhere:1/0"
    finally:
        engine.stop()


def test_a_stopped_engine_is_ended_all_the_same(own: Settings):
    engine = engines.start_redis(own, 0)
    os.kill(engine.pid, signal.SIGSTOP)
    assert not engine.alive()
    engine.stop()
    assert not psutil.pid_exists(engine.pid)


def test_the_password_of_the_settings_is_the_engines(own: Settings):
    locked = own.model_copy(update={"redis_password": "s3cret \"'\\", "clickhouse_password": "pa:ss"})
    locked = Settings(**{**locked.model_dump(exclude_unset=True), "data_dir": own.data_dir})
    with engines.ensure(locked) as ready:
        redis_port, clickhouse_port = (
            int(url.split(":")[2].split("/")[0]) for url in (ready.redis_url, ready.clickhouse_url)
        )
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=redis_port).ping()
        assert redis.Redis(port=redis_port, password="s3cret \"'\\").ping()
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="AUTHENTICATION_FAILED"):
            clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port)
        client = clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port, password="pa:ss")
        assert client.command("SELECT 1") == 1


def test_no_redis_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(redis_server.NoRedisBinary, match=r"is 6\.0.*make install"):
        redis_server.find_binary()


def test_an_owner_waits_for_those_who_found_its_engine_running(own: Settings):
    """`qmt sql` during a `qmt replay` of the same folder must not lose its engine half-way."""
    left = threading.Event()
    owner_in, owner_out = threading.Event(), threading.Event()

    def owner() -> None:
        with engines.ensure(own, names=("redis",)):
            owner_in.set()
            left.wait(30)
        owner_out.set()

    thread = threading.Thread(target=owner)
    thread.start()
    assert owner_in.wait(30)
    with engines.ensure(own, names=("redis",)) as ready:
        left.set()
        assert not owner_out.wait(0.5)
        assert connect(ready).ping()
    thread.join(30)
    assert owner_out.is_set()
    assert engines.find(own, "redis") is None


def test_an_orderly_end_lets_running_requests_finish(own: Settings):
    engine = engines.start_clickhouse(own, 0)
    answers: list[object] = []

    def slow() -> None:
        client = asking(engine)
        answers.append(client.command("SELECT sum(sleepEachRow(0.5)) FROM numbers(4) SETTINGS max_block_size = 1"))

    def running() -> bool:
        query = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%'"
        return asking(engine).command(query) > 1

    thread = threading.Thread(target=slow)
    thread.start()
    wait_until(running, message="the slow query runs")
    engine.stop()
    thread.join(10)
    assert answers == [0]
    assert engine.process is not None
    assert engine.process.returncode == 0
