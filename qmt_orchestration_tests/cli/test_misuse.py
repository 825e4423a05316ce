"""The `qmt` command where nothing runs, nothing is there, or the line is wrong: one message and an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.cli import days
from qmt_orchestration.cli.access import Misuse
from qmt_orchestration.cli.main import main
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.cli.conftest import Run

#: A command line, and its exit code in a folder of a stopped system; {folder} is that folder.
READING = {
    "sql": (["sql", "SELECT 1", "--data-dir", "{folder}"], 0),
    "bars": (["bars", "000001.SZ", "--date", "2025-06-05", "--data-dir", "{folder}"], 1),
    "quality": (["quality", "--data-dir", "{folder}"], 1),
    "quality of a day": (["quality", "--date", "2025-06-05", "--data-dir", "{folder}"], 1),
    "quote": (["quote", "--data-dir", "{folder}"], 1),
    "status": (["status", "--data-dir", "{folder}"], 1),
    "top": (["top", "--data-dir", "{folder}"], 1),
    "top once": (["top", "--once", "--data-dir", "{folder}"], 1),
    "clients": (["clients", "--data-dir", "{folder}"], 1),
    "clients list": (["clients", "--data-dir", "{folder}", "list"], 1),
    "clients stats": (["clients", "--data-dir", "{folder}", "stats", "c1"], 1),
    "clients stop": (["clients", "--data-dir", "{folder}", "stop", "c1"], 1),
    "clients evict": (["clients", "--data-dir", "{folder}", "evict", "c1", "--yes"], 1),
    "dead-letters list": (["dead-letters", "list", "--data-dir", "{folder}"], 1),
    "dead-letters show": (["dead-letters", "show", "qmt:ticks:{0}", "1-0", "--data-dir", "{folder}"], 1),
    "dead-letters replay": (["dead-letters", "replay", "qmt:ticks:{0}", "--all", "--data-dir", "{folder}"], 1),
    "alerts list": (["alerts", "list", "--data-dir", "{folder}"], 1),
    "alerts test": (["alerts", "test", "--data-dir", "{folder}"], 1),
    "start": (["start", "writer", "--data-dir", "{folder}"], 1),
    "restart": (["restart", "writer", "--data-dir", "{folder}"], 1),
}
NO_PATH = ("alerts list", "alerts test")  # they speak of no engine

WRONG = {
    "bars of a future day": ["bars", "000001.SZ", "--date", "2999-01-04"],
    "bars in the wrong order": ["bars", "000001.SZ", "--date", "2025-06-05", "--to", "2025-06-04"],
    "bars of no date": ["bars", "000001.SZ", "--date", "yesterday"],
    "bars to nowhere": ["bars", "000001.SZ", "--date", "2025-06-05", "--output", "a.xls"],
    "bars adjusted": ["bars", "000001.SZ", "--date", "2025-06-05", "--adjust", "sideways"],
    "quality of a weekend": ["quality", "--date", "2025-06-07"],
    "quality of a future day": ["quality", "--date", "2999-01-04"],
    "backfill of a weekend": ["backfill", "--from", "2025-06-07", "--to", "2025-06-08"],
    "backfill of a future day": ["backfill", "--from", "2025-06-05", "--to", "2999-01-04"],
    "backfill in the wrong order": ["backfill", "--from", "2025-06-05", "--to", "2025-06-04"],
    "backfill of no date": ["backfill", "--from", "x", "--to", "2025-06-04"],
    "quote of no symbol": ["quote", "'; DROP TABLE ticks"],
    "dead letters of nothing": ["dead-letters", "drop", "qmt:ticks:{0}"],
    "dead letters, none": ["dead-letters", "list", "--limit", "0"],
    "validate nowhere": ["validate", "/nowhere"],
    "replay of no file": ["replay", "/nowhere.parquet"],
    "no such command": ["frobnicate"],
    "no such option": ["sql", "SELECT 1", "--frobnicate"],
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a system with a warehouse, nothing of which runs."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("stopped") / "data")
    with engines.ensure(settings, names=("clickhouse",)) as ready:
        migrate(ready)
    return settings.data_dir


@pytest.mark.parametrize("name", READING)
def test_in_the_folder_of_a_stopped_system(name: str, qmt: Run, stopped: Path) -> None:
    argv, expected = READING[name]
    code, out, err = qmt(*(word.replace("{folder}", str(stopped)) for word in argv))
    assert (code, bool(out)) == (expected, expected == 0), err
    if code and name not in NO_PATH:
        assert str(stopped) in err or "no tick" in err or "no verdicts" in err or "no 1m bars" in err, err


@pytest.mark.parametrize("name", READING)
def test_in_an_empty_folder_from_another_working_directory(
    name: str, qmt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = qmt(*(word.replace("{folder}", "none") for word in READING[name][0]))
    assert (code, out) == (1, ""), err
    assert list(tmp_path.iterdir()) == [], "reading creates nothing"
    if name not in NO_PATH:
        assert str(tmp_path / "none") in err, "an absolute path"
        assert "qmt up" in err


def test_backfill_of_an_empty_folder_is_refused(qmt: Run, tmp_path: Path) -> None:
    code, _, err = qmt("backfill", "--from", "2025-06-05", "--to", "2025-06-05", "--data-dir", str(tmp_path / "none"))
    assert (code, "holds no warehouse" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_misuse(name: str, qmt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = qmt(*WRONG[name])
    assert (code, out) == (2, ""), err
    assert err.strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["QMT_REDIS_PORT=many", "QMT_ROLLUP_PERIODS=5m", "QMT_ENV_FILE=/nowhere"])
def test_a_wrong_setting_is_misuse_of_every_command(setting: str, qmt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = setting.split("=")
    monkeypatch.setenv(name, value)
    for argv in (["clients"], ["quality"], ["alerts", "list"], ["sql", "SELECT 1"]):
        code, _, err = qmt(*argv)
        assert (code, name.removeprefix("QMT_").lower() in err.lower()) == (2, True), err


def test_a_server_that_is_away_is_named(qmt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMT_REDIS_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("QMT_CLICKHOUSE_URL", "http://127.0.0.1:9")
    for argv in (["clients"], ["dead-letters", "list"], ["top", "--once"], ["status"], ["restart", "writer"]):
        code, _, err = qmt(*argv)
        assert (code, "redis://127.0.0.1:9/0" in err) == (1, True), err
    for argv in (["sql", "SELECT 1"], ["quote"], ["quality"], ["bars", "000001.SZ", "--date", "2025-06-05"]):
        code, _, err = qmt(*argv)
        assert (code, "127.0.0.1" in err, "QMT_CLICKHOUSE_URL" in err) == (1, True, True), err


def test_a_piped_table_is_plain_lines_and_json_is_json(
    qmt: Run, settings: Settings, clickhouse: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    clickhouse.insert(
        "quality_results",
        [[date(2025, 6, 5), "bars_1m", "a_check", "run", 1, "ERROR", "2 < 3", "a\tb\nc" * 40, "[]", 0]],
        column_names=["day", "asset", "check", "run_id", "passed", "severity", "expected", "found", "evidence", "at"],
    )
    code, out, _ = qmt("quality")
    assert (code, len(out.splitlines())) == (0, 2)
    assert out.splitlines()[0].split("\t") == ["day", "verdict", "table", "check", "expected", "found", "checked_at"]
    assert len(out.splitlines()[1].split("\t")) == 7
    ((row),) = json.loads(qmt("quality", "--json")[1])
    assert (row["verdict"], row["check"]) == ("passed", "a_check")
    redis_client.sadd("qmt:clients", "c1")
    redis_client.hset("qmt:client:c1", mapping={"mode": "broadcast", "group": "c1", "lag_seconds": "nan"})
    ((client),) = json.loads(qmt("clients", "--json")[1])
    assert (client["client_id"], client["state"], client["seen_seconds"]) == ("c1", "down", None)
    assert qmt("clients")[1].splitlines()[1].split("\t")[0] == "c1"
    assert json.loads(qmt("dead-letters", "list", "--json")[1]) == []


def test_a_broken_state_of_the_alerts_is_named_and_left_alone(qmt: Run, tmp_path: Path) -> None:
    (tmp_path / "alerts").mkdir()
    for text in ("{", "[1]", '{"incidents": {"a": 1}}', "[" * 5000):
        (tmp_path / "alerts/state.json").write_text(text)
        code, _, err = qmt("alerts", "list", "--data-dir", str(tmp_path))
        assert (code, "state.json cannot be read" in err) == (1, True)
        assert [path.name for path in (tmp_path / "alerts").iterdir()] == ["state.json"]


@given(st.one_of(st.text(max_size=12), st.dates().map(str), st.from_regex(r"\d{4}-?\d{2}-?\d{2}", fullmatch=True)))
def test_any_text_is_a_day_that_has_begun_or_misuse(text: str) -> None:
    with contextlib.suppress(Misuse):
        assert days.day(text) <= date.today() + timedelta(days=1)  # noqa: DTZ011


def test_a_bug_is_one_line_that_names_its_place(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(_: Path) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("qmt_orchestration.cli.alerts.read", broken)
    monkeypatch.setattr(sys, "argv", ["qmt", "alerts", "list", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"):
        main()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("qmt: ZeroDivisionError: a bug (unexpected, at ")
    assert "test_misuse.py" in line
