"""The alert sensor on PostgreSQL, as an always-on deployment has it. Skips, saying so, where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from qmt_orchestration.orchestration.sensors.alerts import look
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.alerts.conftest import Receiver
from qmt_orchestration_tests.alerts.test_sensor import DAY, VERDICT, _owner, _run
from qmt_orchestration_tests.helpers import free_port, wait_until


def _binaries() -> Path:
    found = shutil.which("initdb")
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found and not newest:
        pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql) and the package dagster-postgres")
    return Path(found).parent if found else newest[-1].parent


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, Any]]:
    """A PostgreSQL of our own on a free port, as the user `postgres` when we are root (it refuses root)."""
    pytest.importorskip("dagster_postgres", reason="needs the package dagster-postgres")
    psycopg2: Any = pytest.importorskip("psycopg2")
    binaries, port = _binaries(), free_port()
    account: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        if account:
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": folder, **account}
        initdb = [str(binaries / "initdb"), "-D", data, "-U", "dagster", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, **quiet)
        command = [str(binaries / "postgres"), "-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off"]
        process = subprocess.Popen(command, **quiet)
        where = {"username": "dagster", "password": "", "hostname": "127.0.0.1", "db_name": "postgres", "port": port}
        where["scheme"] = "postgresql+psycopg2"  # the driver of dagster-postgres; SQLAlchemy 2.1 takes another one

        def answers() -> bool:
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="dagster", dbname="postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        try:
            wait_until(answers, 60, "PostgreSQL answers")
            yield where
        finally:
            process.send_signal(2)  # fast shutdown
            process.wait(30)


@pytest.fixture
def instance(postgres: dict[str, Any], tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on it."""
    overrides = {"storage": {"postgres": {"postgres_db": postgres}}, "telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as out:
        yield out


@pytest.mark.slow
def test_failures_crashes_and_runless_verdicts_are_told_once_and_recover(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    assert "Postgres" in type(instance.event_log_storage).__name__

    def report(passed: bool) -> None:
        key = dg.AssetKey("bars")
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, "outside", passed, {}))

    now = int(time.time() * 1000)
    VERDICT["passed"] = False
    _run(instance, "make_bars", DAY)
    report(False)
    look(healthy, instance, _owner, now)
    assert receiver.messages == [], "the first look begins at now, it does not tell the past"
    for i in range(3):
        _run(instance, "make_bars", DAY)
        report(False)
        look(healthy, instance, _owner, now + (i + 1) * 120_000)
    _run(instance, "make_plain")
    VERDICT["passed"] = True
    _run(instance, "make_bars", DAY)
    report(True)
    look(healthy, instance, _owner, now + 500_000)
    assert sorted(receiver.titles()) == sorted(
        [
            f"[ERROR] bars / rows · {DAY}",
            "[ERROR] bars / outside",
            "[ERROR] run of make_plain failed",
            f"[RECOVERED] bars / rows · {DAY}",
            "[RECOVERED] bars / outside",
        ]
    )
    (crash,) = [m["message"] for m in receiver.messages if "make_plain" in m["title"]]
    assert "checks without a verdict: plain/boom" in crash
    assert "hunter2" not in crash
