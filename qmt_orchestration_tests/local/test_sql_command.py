"""`qmt sql` as a user types it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmt_orchestration.cli.warehouse import SqlError, copy_result
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings

PROGRAM = "import typer; from qmt_orchestration.cli.warehouse import sql; typer.run(sql)"


def qmt_sql(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, **environment},
    )


def test_it_prints_the_format_asked_for_and_exits_1_with_the_servers_words(settings: Settings, raw_clickhouse):
    where = settings.environment()
    asked = qmt_sql("-", "--format", "CSVWithNames", stdin="SELECT 1 AS a, currentDatabase() AS b", **where)
    assert asked.stdout == f'"a","b"\n1,"{settings.clickhouse_database}"\n'
    out = io.BytesIO()
    copy_result(settings, b"SELECT 1 AS a, 'x' AS b", "TabSeparated", out)
    assert out.getvalue() == b"1\tx\n"
    with pytest.raises(SqlError, match="UNKNOWN_IDENTIFIER"):
        copy_result(settings, b"SELECT nope", "TabSeparated", out)
    late = qmt_sql("SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_threads = 1", **where)
    assert late.returncode == 1
    assert "Code: 395" in late.stderr


def test_it_starts_the_engine_of_a_folder_for_the_moment(tmp_path: Path):
    settings = Settings(data_dir=tmp_path)
    with engines.ensure(settings, names=("clickhouse",)) as ready:
        made = {"QMT_CLICKHOUSE_URL": ready.clickhouse_url, "QMT_CLICKHOUSE_DATABASE": "default"}
        refused = qmt_sql("CREATE DATABASE qmt ENGINE = Atomic", "--data-dir", str(tmp_path), **made)
        assert refused.returncode == 1
        assert "--write" in refused.stderr
        assert (
            qmt_sql("CREATE DATABASE qmt ENGINE = Atomic", "--write", "--data-dir", str(tmp_path), **made).stderr == ""
        )
        assert qmt_sql("SELECT 2", "--data-dir", str(tmp_path)).stdout == "2\n", "uses the running engine"
    assert engines.find(settings, "clickhouse") is None
    assert qmt_sql("SELECT 3", "--data-dir", str(tmp_path)).stdout == "3\n"
    assert engines.find(settings, "clickhouse") is None


def test_a_folder_without_a_warehouse_is_left_alone(tmp_path: Path):
    failed = qmt_sql("SELECT 1", "--data-dir", str(tmp_path / "none"))
    assert failed.returncode == 1
    assert "holds no warehouse" in failed.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO kept VALUES (2)",
        "INSERT INTO kept SELECT 2",
        "/* SELECT */ ALTER TABLE kept DELETE WHERE 1",
        "TRUNCATE TABLE kept",
        "DROP TABLE kept",
        "CREATE TABLE other (a Int8) ENGINE = Memory",
        "OPTIMIZE TABLE kept",
        "INSERT INTO kept SETTINGS readonly = 0 VALUES (2)",
        "SET readonly = 0",
    ],
)
def test_it_only_reads_unless_write_is_given(settings: Settings, raw_clickhouse, statement: str):
    """The server decides, by its setting readonly: no text of a statement can get around it."""
    raw_clickhouse.command("CREATE TABLE kept (a Int8) ENGINE = MergeTree ORDER BY a")
    raw_clickhouse.command("INSERT INTO kept VALUES (1)")
    with pytest.raises(SqlError, match="READONLY"):
        copy_result(settings, statement.encode(), "TabSeparated", io.BytesIO())
    assert raw_clickhouse.query("SELECT a FROM kept").result_rows == [(1,)]
    out = io.BytesIO()
    copy_result(settings, b"SELECT a FROM kept SETTINGS max_threads = 1", "TabSeparated", out)
    assert out.getvalue() == b"1\n"
    copy_result(settings, b"INSERT INTO kept VALUES (3)", "TabSeparated", out, write=True)
    assert raw_clickhouse.command("SELECT count() FROM kept") == 2
