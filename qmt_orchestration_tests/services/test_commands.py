"""``qmt status | start | stop | restart`` and ``qmt alerts`` from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from qmt_orchestration.cli import services as commands
from qmt_orchestration.cli.alerts import alerts_app
from qmt_orchestration.services.desired import Desired, read_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.alerts.conftest import receiver as receiver  # the fixture

app = typer.Typer()
for command in (commands.agent, commands.status, commands.start, commands.stop, commands.restart):
    app.command()(command)


@pytest.fixture
def qmt(calm: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line in the test's own deployment."""
    for name, value in calm.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *argv: CliRunner().invoke(app, argv)


def test_desired_state_from_the_command_line(qmt: Any, client: Any) -> None:
    assert qmt("stop", "writer").exit_code == 0
    assert read_desired(client)["writer"] == Desired("stopped", 0)
    assert qmt("restart", "writer").exit_code == 0
    assert read_desired(client)["writer"] == Desired("running", 1)
    assert qmt("start", "writer").exit_code == 0
    wrong = qmt("stop", "wirter")
    assert wrong.exit_code == 2
    assert "expected one of" in wrong.output


def test_status_shows_services_agents_and_what_is_absent(qmt: Any, client: Any, calm: Settings) -> None:
    Heartbeat(client, calm, "writer").beat({"rate": 1234.5, "delay_p99_ms": 87, "lag_entries": 3, "memory_mb": 210.4})
    Heartbeat(client, calm, "agent").beat(
        {
            "services": "writer,publisher",
            "writer.state": "running",
            "writer.restarts": 2,
            "publisher.state": "waiting",
            "clock_skew_ms": -3400,
        }
    )
    shown = qmt("status")
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line for line in shown.output.split("\n") if line.strip()}
    assert "h1" in lines["writer"]
    for cell in ("1,23", "87 ms", "210 MB", "running"):
        assert cell in lines["writer"], lines["writer"]
    assert "waiting" in lines["publisher"]
    assert "clock 3.4 s behind Redis' host" in lines["agent"]
    assert "absent" in lines["gateway"]


def test_status_without_redis_says_what_mends_it(qmt: Any, server: Any) -> None:
    server.kill()
    shown = qmt("status")
    assert shown.exit_code == 1
    assert "QMT_REDIS_URL" in shown.output
    assert "Traceback" not in shown.output


def test_agent_refuses_unknown_services(qmt: Any) -> None:
    wrong = qmt("agent", "--services", "writer,typo")
    assert wrong.exit_code == 1
    assert "'typo'" in wrong.output


def test_alerts_without_channels_say_so(qmt: Any) -> None:
    shown = CliRunner().invoke(alerts_app, ["test"])
    assert shown.exit_code == 1
    assert "QMT_ALERT_URLS" in shown.output
    assert "nothing open" in CliRunner().invoke(alerts_app, ["list"]).output


def test_a_dead_channel_is_reported_without_its_url(qmt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMT_ALERT_URLS", "ops=json://user:hunter2@127.0.0.1:9/hook-secret")
    shown = CliRunner().invoke(alerts_app, ["test"])
    assert shown.exit_code == 1
    assert "channel 1 (json, ops): FAILED" in shown.output
    assert "hunter2" not in shown.output


def _command(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "qmt_orchestration.cli", *argv]
    return subprocess.run(line, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_refused_settings_are_named_without_their_values() -> None:
    shown = _command("status", QMT_REDIS_URL="redis://user:hunter2@host:6379/0", QMT_FEED="hunter2")
    assert shown.returncode == 2
    assert "QMT_REDIS_URL" in shown.stderr
    assert "QMT_FEED" in shown.stderr
    assert "hunter2" not in shown.stderr + shown.stdout
    assert "Traceback" not in shown.stderr


def test_a_settings_file_that_is_missing_is_an_error_and_a_mark_at_its_start_is_none(tmp_path: Path) -> None:
    """Without its file the agent would run on an embedded Redis of its own; Notepad begins a file with a mark."""
    path = tmp_path / "qmt.env"
    missing = _command("status", QMT_ENV_FILE=str(path))
    assert missing.returncode == 2
    assert str(path) in missing.stderr
    path.write_text("\ufeffQMT_REDIS_URL=redis://127.0.0.1:9/0\r\nQMT_FEED=simulator\r\n", encoding="utf-8")
    assert "redis://127.0.0.1:9/0" in _command("status", QMT_ENV_FILE=str(path)).stderr


def test_a_channel_that_works_gets_its_test_message(qmt: Any, monkeypatch: pytest.MonkeyPatch, receiver: Any) -> None:
    monkeypatch.setenv("QMT_ALERT_URLS", f"feed={receiver.url}")
    shown = CliRunner().invoke(alerts_app, ["test"])
    assert (shown.exit_code, shown.output) == (0, "channel 1 (json, feed): took the message\n")
    assert receiver.titles() == ["[TEST] qmt alerts"]
