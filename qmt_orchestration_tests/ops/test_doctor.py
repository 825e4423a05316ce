"""`qmt doctor` finds what is planted, says what mends it, and ends in bounded time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import make_url
from typer.testing import CliRunner

from qmt_orchestration.cli.doctor import doctor
from qmt_orchestration.doctor import Diagnosis, Level, machine, servers, terminal
from qmt_orchestration.local.redis_server import find_binary
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.migrate import schema_digests
from qmt_orchestration_tests.helpers import free_port, wait_until

app = typer.Typer()
app.command()(doctor)


def only(findings: list[Diagnosis], check: str) -> Diagnosis:
    """The finding of this check."""
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def needs_mending(finding: Diagnosis, level: Level, *words: str) -> None:
    """The finding is of this level, says what mends it, and these words are in it."""
    assert finding.level is level, finding
    assert finding.mend, finding
    for word in words:
        assert word in finding.found + " " + finding.mend, finding


# -- the machine -------------------------------------------------------------------------------------------------------


def test_pythons_that_are_not_supported_are_refused() -> None:
    assert machine.python_version((3, 10)).level is Level.OK
    needs_mending(machine.python_version((3, 9)), Level.ERROR, "3.10 to 3.13")
    needs_mending(machine.python_version((3, 14)), Level.ERROR, "3.14")


def test_packages_missing_or_out_of_range_are_named_with_the_command_that_installs_them() -> None:
    assert [finding.level for finding in machine.packages("all")] == [Level.OK]
    found = machine.packages("all", ["redis>=99", "no-such-package>=1", "numpy", 'polars>=1; extra == "export"'])
    assert len(found) == 2
    needs_mending(found[0], Level.ERROR, "redis", ">=99", "pip install")
    needs_mending(found[1], Level.ERROR, "no-such-package")
    assert [f.level for f in machine.packages("feed", ["dagster>=99"])] == [Level.OK], "the feed host runs without it"


def test_a_port_held_by_another_program_names_the_setting() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        needs_mending(machine.port(number, "the console", "QMT_CONSOLE_PORT", ours=False), Level.ERROR, "in use")
        assert machine.port(number, "the console", "QMT_CONSOLE_PORT", ours=True).level is Level.OK
    assert machine.port(free_port(), "the console", "QMT_CONSOLE_PORT", ours=False).level is Level.OK


def test_folders_that_cannot_be_written_or_are_open_to_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    needs_mending(machine.data_dir(tmp_path / "file" / "data"), Level.ERROR, "cannot be written")
    assert machine.disk_speed(tmp_path / "file", probe_mb=1).level is Level.ERROR
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    needs_mending(machine.data_dir(folder), Level.WARNING, "chmod")
    secret = tmp_path / "qmt.env"
    secret.write_text("QMT_REDIS_PASSWORD=x")
    secret.chmod(0o644)
    needs_mending(machine.settings_file(str(secret)), Level.WARNING, "chmod 0600")
    secret.chmod(0o600)
    assert machine.settings_file(str(secret)).level is Level.OK


def test_disks_too_small_or_too_slow(tmp_path: Path) -> None:
    needs_mending(machine.disk_space(tmp_path, "warehouse", int(1e9)), Level.ERROR, "1.0 GB")
    needs_mending(machine.disk_space(tmp_path, "warehouse", int(20e9)), Level.WARNING, "QMT_TICKS_TTL_DAYS")
    assert machine.disk_space(tmp_path / "not" / "yet", "feed", int(20e9)).level is Level.OK
    needs_mending(machine.disk_speed(tmp_path, probe_mb=1, slow=1e9), Level.WARNING, "MB/s", "SSD")
    assert list(tmp_path.iterdir()) == [], "the probe is removed"


def test_the_time_zone_matters_beside_qmt_only() -> None:
    utc, shanghai = timedelta(0), timedelta(hours=8)
    needs_mending(machine.time_zone(Settings(feed="xtquant"), utc), Level.WARNING, "UTC+0", "UTC+08:00")
    assert machine.time_zone(Settings(feed="xtquant"), shanghai).level is Level.OK
    assert machine.time_zone(Settings(feed="simulator"), utc).level is Level.OK


# -- Redis -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare_redis(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a Redis as a package installs it: no append-only file, no limit of memory."""
    port = free_port()
    argv = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--appendonly", "no"]
    server = subprocess.Popen([*argv, "--maxmemory-policy", "allkeys-lru"], stdout=subprocess.DEVNULL)
    settings = Settings(data_dir=tmp_path / "data", redis_url=f"redis://127.0.0.1:{port}/0", host_name="h1")
    client = connect(settings, retries=0)
    wait_until(lambda: _pings(client), 10, "Redis to answer")
    client.close()
    yield settings
    server.kill()
    server.wait()


def _pings(client: Any) -> bool:
    try:
        return bool(client.ping())
    except OSError:
        return False
    except Exception as problem:
        return "refused" not in str(problem) and "loading" not in str(problem).lower()


def test_our_own_redis_is_all_right(settings: Settings, redis_client: Any) -> None:
    found = servers.redis_findings(settings, redis_client)
    assert [finding.level for finding in found] == [Level.OK] * 5, found


def test_a_redis_that_forgets_and_evicts_is_an_error(bare_redis: Settings) -> None:
    client = connect(bare_redis, retries=0)
    found = servers.redis_findings(bare_redis, client)
    needs_mending(only(found, "redis persistence"), Level.ERROR, "appendonly yes")
    needs_mending(only(found, "redis eviction"), Level.ERROR, "allkeys-lru", "noeviction")
    client.config_set("maxmemory-policy", "noeviction")
    needs_mending(only(servers.redis_findings(bare_redis, client), "redis eviction"), Level.WARNING, "maxmemory")
    client.close()


def test_redis_below_six_two_is_refused_by_name() -> None:
    assert servers.redis_version("6.2.14").level is Level.OK
    assert servers.redis_version("8.0.3").level is Level.OK
    for version in ("3.0.504", "5.0.14.1"):
        needs_mending(servers.redis_version(version), Level.ERROR, f"Redis {version}", "ports for Windows")
    needs_mending(servers.redis_version("6.0.20"), Level.ERROR, "6.2")
    needs_mending(servers.redis_version(""), Level.ERROR, "unknown version")


def test_an_absent_redis_and_a_refused_password_are_distinguished(tmp_path: Path, bare_redis: Settings) -> None:
    nobody = Settings(data_dir=tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    needs_mending(servers.redis_findings(nobody, connect(nobody, retries=0))[0], Level.ERROR, "QMT_REDIS_URL")
    assert time.monotonic() - began < 20
    client = connect(bare_redis, retries=0)
    client.config_set("requirepass", "secret-enough")
    client.close()
    stranger = connect(bare_redis, retries=0)
    needs_mending(
        servers.redis_findings(bare_redis, stranger)[0], Level.ERROR, "rejects the login", "QMT_REDIS_PASSWORD"
    )


def test_two_agents_for_one_service_are_a_warning(settings: Settings, redis_client: Any) -> None:
    for host, services in (("h1", "writer,publisher"), ("h2", "writer")):
        Heartbeat(redis_client, settings.model_copy(update={"host_name": host}), "agent").beat({"services": services})
    found = only(servers.redis_findings(settings, redis_client), "agents")
    needs_mending(found, Level.WARNING, "writer is run by the agents of h1, h2", "--services")


def test_clocks_apart_are_an_error_and_a_slow_answer_is_not() -> None:
    assert servers.clock("clock", (900.0, 10.0)).level is Level.OK
    assert servers.clock("clock", (2000.0, 4000.0)).level is Level.OK, "a slow line proves nothing"
    needs_mending(servers.clock("clock", (-3400.0, 10.0)), Level.ERROR, "3.4 s behind", "w32tm")
    skew, unsure = servers.clock_skew_ms(lambda: time.time() * 1000 - 5000)
    assert abs(skew - 5000) <= unsure + 5


# -- ClickHouse, Dagster, the terminal ---------------------------------------------------------------------------------


def test_clickhouse_with_and_without_its_tables(settings: Settings, clickhouse: Any) -> None:
    found = servers.clickhouse_findings(settings, lambda: connect_clickhouse(settings, database=""))
    assert {f.level for f in found if f.check != "clickhouse disk"} == {Level.OK}, found
    first = min(schema_digests())
    delete = "ALTER TABLE schema_versions DELETE WHERE name = {name:String} SETTINGS mutations_sync = 1"
    clickhouse.command(delete, parameters={"name": first})
    found = servers.clickhouse_findings(settings, lambda: connect_clickhouse(settings, database=""))
    needs_mending(only(found, "schema"), Level.ERROR, first, "qmt migrate")
    empty = settings.model_copy(update={"clickhouse_database": "nothing_here"})
    found = servers.clickhouse_findings(empty, lambda: connect_clickhouse(empty, database=""))
    needs_mending(only(found, "schema"), Level.WARNING, "qmt migrate")


def test_clickhouse_absent_too_old_or_full() -> None:
    nobody = Settings(clickhouse_url=f"http://127.0.0.1:{free_port()}")
    found = servers.clickhouse_findings(nobody, lambda: connect_clickhouse(nobody, database=""))
    needs_mending(found[0], Level.ERROR, "QMT_CLICKHOUSE_URL")
    needs_mending(servers.clickhouse_version("23.8.1.1"), Level.ERROR, "24.3")
    needs_mending(servers.clickhouse_version("25.8.2.29"), Level.WARNING, "QMT_CLICKHOUSE_REPLICATED")
    assert servers.clickhouse_version("26.9.1.1").level is Level.OK
    needs_mending(servers.clickhouse_disk("default", int(1e9), int(100e9)), Level.ERROR, "inserts fail")
    needs_mending(servers.clickhouse_disk("default", int(9e9), int(100e9)), Level.WARNING)


def test_engines_that_cannot_be_started_here_say_what_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {finding.level for finding in servers.embedded(Settings())} == {Level.OK}
    assert servers.embedded(Settings(redis_url="redis://h:1/0", clickhouse_url="http://h:1")) == []
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    redis, clickhouse = servers.embedded(Settings())
    needs_mending(redis, Level.ERROR, "6.2", "QMT_REDIS_URL")
    needs_mending(clickhouse, Level.ERROR, "[embedded]", "QMT_CLICKHOUSE_URL")


def test_dagster_storage_that_is_not_there_or_broken(tmp_path: Path) -> None:
    assert servers.dagster_storage(tmp_path / "no").level is Level.WARNING
    needs_mending(servers.dagster_storage(tmp_path), Level.WARNING, "dagster.yaml")
    project = Path(__file__).resolve().parents[2]
    (tmp_path / "dagster.yaml").write_text((project / "dagster.yaml").read_text())
    assert servers.dagster_storage(tmp_path).level is Level.OK
    postgres = {"username": "u", "password": "p", "hostname": "127.0.0.1", "db_name": "d", "port": free_port()}
    (tmp_path / "dagster.yaml").write_text(json.dumps({"storage": {"postgres": {"postgres_db": postgres}}}))
    old = make_url("postgresql://").get_dialect().driver == "psycopg2"  # SQLAlchemy 2.0, which Python 3.10 has
    said = "storage section" if old else "scheme: postgresql+psycopg2"
    needs_mending(servers.dagster_storage(tmp_path), Level.ERROR, said)
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "dagster.yaml").write_text(json.dumps({"storage": {"sqlite": {"base_dir": str(file / "storage")}}}))
    needs_mending(servers.dagster_storage(tmp_path), Level.ERROR, "storage section")


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal may run there")
def test_a_terminal_that_is_not_there_is_an_error() -> None:
    needs_mending(terminal.xtquant(Settings(feed="xtquant")), Level.ERROR, "MiniQMT")
    assert terminal.xtquant(Settings(feed="simulator")).level is Level.OK


def test_an_xtquant_that_hangs_is_ended_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "xtquant"
    package.mkdir()
    (package / "__init__.py").write_text("import threading\nthreading.Event().wait(600)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    began = time.monotonic()
    needs_mending(terminal.xtquant(Settings(feed="xtquant"), seconds=3.0), Level.ERROR, "no answer within 3 s")
    assert time.monotonic() - began < 20


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_one_on_an_error_and_prints_json(
    tmp_path: Path, settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "PROBE_MB", 1)
    healthy = CliRunner().invoke(app, ["--role", "feed", "--json"])
    document = json.loads(healthy.stdout)
    levels = {finding["level"] for finding in document["findings"]}
    checks = {finding["check"] for finding in document["findings"]}
    assert (healthy.exit_code, document["healthy"]) == (0, True), document
    assert levels <= {"ok", "warning"}
    assert {"python", "packages", "disk speed", "xtquant", "redis version"} <= checks
    monkeypatch.setenv("QMT_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    broken = CliRunner().invoke(app, ["--role", "feed"])
    assert broken.exit_code == 1
    assert "QMT_REDIS_URL" in broken.output
    assert CliRunner().invoke(app, ["--role", "typo"]).exit_code == 2
