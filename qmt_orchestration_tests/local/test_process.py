"""Process groups: never two of one record, whoever was killed before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from qmt_orchestration.local import process
from qmt_orchestration_tests.helpers import wait_until

#: As `dagster dev`: a leader whose two children go on without it. One of them ignores SIGTERM.
LEADER = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
for program in (deaf, "print('x', flush=True); import time; time.sleep(600)"):
    child = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE)
    child.stdout.readline()
print('ready', flush=True)
time.sleep(600)
"""
STARTER = (
    "import sys; from pathlib import Path; from qmt_orchestration_tests.local.test_process import start\n"
    "start(sys.argv[1], Path(sys.argv[2]), sys.stdout).wait()"
)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run" / "dagster.json"
    yield path
    process.end_group(path, 0.1)


def start(program: str, record: Path, stdout: Any) -> subprocess.Popen[bytes]:
    """As the agent does: what an earlier start left is ended first."""
    process.end_group(record, 0.3)
    options = {"start_new_session": True, "preexec_fn": process.die_with_parent}
    group = process.spawn([sys.executable, "-c", program], stdout=stdout, **options)
    process.record_group(record, group.pid)
    return group


def started(record: Path) -> subprocess.Popen[bytes]:
    group = start(LEADER, record, subprocess.PIPE)
    assert group.stdout is not None
    assert group.stdout.readline() == b"ready\n"
    return group


def test_what_a_killed_leader_left_is_ended_before_the_next_start(record: Path):
    first = started(record)
    old = process.group_members(record)
    assert len(old) == 3
    first.kill()
    first.wait()
    assert len(process.group_members(record)) == 2, "the children go on without their leader"
    second = started(record)
    assert not any(one.is_running() and one.status() != "zombie" for one in old)
    assert {one.pid for one in process.group_members(record)} >= {second.pid}
    assert record.stat().st_mode & 0o077 == 0
    assert process.end_group(record, 0.3) == 3
    assert process.group_members(record) == []
    assert not record.exists()


def test_it_is_ended_also_after_the_program_that_started_it_was_killed(record: Path):
    with subprocess.Popen([sys.executable, "-c", STARTER, LEADER, str(record)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        left = wait_until(lambda: process.group_members(record), message="the group is recorded")
        starter.kill()
        starter.wait()
        leader = json.loads(record.read_text())["pid"]
        wait_until(lambda: not psutil.pid_exists(leader), message="the leader dies with its parent")
        assert process.group_members(record), "and its children do not"
        assert process.end_group(record, 0.3) > 0
    assert not any(one.is_running() and one.status() != "zombie" for one in left)


@pytest.mark.parametrize("wrong", [{"create_time": 5.0}, {"boot_time": 5.0}, {"pid": "x"}], ids=lambda w: next(iter(w)))
def test_a_pid_that_belongs_to_another_process_today_is_left_alone(record: Path, wrong: dict[str, object]):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        process.record_group(record, other.pid)
        record.write_text(json.dumps({**json.loads(record.read_text()), **wrong}))
        assert process.end_group(record, 0.1) == 0
        assert other.poll() is None
        os.kill(other.pid, signal.SIGKILL)
