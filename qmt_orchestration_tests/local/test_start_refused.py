"""An engine that cannot start says why, and what mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.helpers import free_port

HOLDER = """
import sys, chdb
held = chdb.connect(sys.argv[1])
print("held", flush=True)
input()
"""


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", redis_port=free_port(), clickhouse_port=free_port())


def test_data_of_a_newer_clickhouse_are_not_touched(own: Settings):
    (own.data_dir / "clickhouse").mkdir(parents=True)
    (own.data_dir / "clickhouse.version").write_text("99.3.1.1\n")
    with pytest.raises(engines.EngineError, match=r"were written by version 99\.3\.1\.1, and this is .*pip install -U"):
        engines.start_clickhouse(own, 0)
    assert list((own.data_dir / "clickhouse").iterdir()) == []
    (own.data_dir / "clickhouse.version").write_text("26.1.1.1\n")
    engines.start_clickhouse(own, 0).stop()
    assert not (own.data_dir / "clickhouse.version").read_text().startswith("26.1.")


def test_data_that_another_process_has_open_are_named(own: Settings):
    """By a program without our lock: a notebook with chdb on the same folder."""
    folder = own.data_dir / "clickhouse"
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(engines.EngineError, match="end the process that has them open") as told:
            engines.start_clickhouse(own, 0)
        assert "Cannot lock file" in str(told.value), "the engine's own words"
        assert str(folder) in str(told.value)
        holder.kill()
    engines.start_clickhouse(own, 0).stop()


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_data_of_another_user_are_named(own: Settings):
    folder = own.data_dir / "clickhouse"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    try:
        with pytest.raises(engines.EngineError, match="chown"):
            engines.start_clickhouse(own, 0)
    finally:
        folder.chmod(0o700)


def test_a_damaged_file_of_redis_is_named(own: Settings):
    """Not its truncated end, which is mended by itself: a part in the middle that is no command."""
    engine = engines.start_redis(own, 0)
    engine.stop()
    logs = [path for path in (own.data_dir / "redis").rglob("*.aof") if path.is_file()]
    assert logs
    for path in logs:
        path.write_bytes(b"this is no command\n" * 100)
    with pytest.raises(engines.EngineError, match=r"(?is)did not come up.*Bad file format.*redis-check-aof") as told:
        engines.start_redis(own, 0)
    assert str(own.data_dir) in str(told.value)
