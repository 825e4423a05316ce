"""Processes without a heartbeat of ours: busy ones are left alone, hanging ones are found out; engines come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qmt_orchestration.local import engines
from qmt_orchestration.services.engine_processes import supervised
from qmt_orchestration.services.watch import Probe, Watch
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration_tests.helpers import free_port, wait_until


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """A data folder without engines."""
    return Settings(data_dir=tmp_path / "data", redis_port=free_port(), clickhouse_port=free_port())


def test_supervised_engines_come_back_on_their_port_after_death_and_after_a_hang(own: Settings) -> None:
    quick = own.model_copy(update={"service_stale_seconds": 1.5})
    with supervised(quick) as ready:
        assert ready.redis_url == f"redis://127.0.0.1:{own.redis_port}/0"
        connect(own).set("kept", "yes")
        with connect_clickhouse(own, database="") as client:
            client.command("CREATE DATABASE d")
            client.command("CREATE TABLE d.t (a Int8) ENGINE = MergeTree ORDER BY a AS SELECT 7")
        for number in (signal.SIGKILL, signal.SIGSTOP):
            before = {name: engines.find(own, name) for name in engines.NAMES}
            for engine in before.values():
                assert engine is not None
                os.kill(engine.pid, number)
            for name, engine in before.items():
                assert engine is not None
                back = wait_until(
                    lambda name=name, old=engine.pid: (e := engines.find(own, name)) and e.pid != old and e, 60, name
                )
                assert back.port == engine.port
                wait_until(lambda old=engine.pid: not psutil.pid_exists(old), 10, "the old process is gone")
            assert connect(own).get("kept") == b"yes"
            with connect_clickhouse(own, database="") as client:
                assert client.query("SELECT a FROM d.t").result_rows == [(7,)]
    assert [engines.find(own, name) for name in engines.NAMES] == [None, None]
    assert not (own.run_dir / "redis.json").exists()


def test_an_engine_that_is_silent_because_it_works_is_left_alone(own: Settings) -> None:
    engine = engines.start_redis(own, 0)
    probe = Probe(engine.port, b"PING\r\n")
    try:
        client = connect(own)
        long = (
            "local t = redis.call('time')[1] while redis.call('time')[1] - t < 4 do end return 'done'"  # not yet "busy"
        )
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(client.eval(long, 0)))
        watch, silent = Watch(engine.pid, probe, stale_seconds=0.3), 0
        thread.start()
        while thread.is_alive():
            assert watch.hangs() == ""
            silent += not probe.answers()
        assert answers == [b"done"]
        assert silent, "it was silent for a second, which an idle engine may not be"
        os.kill(engine.pid, signal.SIGSTOP)
        assert "does nothing" in wait_until(watch.hangs, 60, "a stopped engine is found out")
    finally:
        engine.stop()


@pytest.fixture
def mute() -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers nobody and works a little all the time, like Dagster's daemon."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import threading\nwhile True:\n sum(range(300_000)); threading.Event().wait(0.05)"]
    )
    yield process
    process.kill()
    process.wait()


def test_a_process_without_an_address_is_judged_by_its_work(mute: subprocess.Popen[bytes]) -> None:
    watch = Watch(mute.pid, Probe(), stale_seconds=1.0)
    assert watch.ready
    looks = iter(range(10**6))
    wait_until(lambda: not watch.hangs() and next(looks) > 40, 30, "it is left alone while it works")
    os.kill(mute.pid, signal.SIGSTOP)
    assert "does nothing" in wait_until(watch.hangs, 30, "a stopped process is found out")
