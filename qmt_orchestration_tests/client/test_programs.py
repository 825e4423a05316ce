"""Five programs in the public style run unchanged on the real xtdata and on ours, and print the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration_tests.client import filled, simulated
from qmt_orchestration_tests.client.programs import ARGUMENTS, FOLDER

DAY = date(2025, 6, 5)
MARKET: dict[str, Any] = {"sim_symbols": 60, "sim_speed": 1.0, "sim_date": "2025-06-05", "sim_start_time": "15:40:00"}


def output(side: str, path: Path, environment: dict[str, str]) -> dict[str, str]:
    command = [sys.executable, "-m", "qmt_orchestration_tests.client.programs", side, str(path)]
    base = {name: value for name, value in os.environ.items() if not name.startswith("QMT_")}
    done = subprocess.run(
        command, env={**base, **environment}, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_the_programs_print_the_same_on_both(engine_settings: Settings, tmp_path: Path) -> None:
    market = engine_settings.model_copy(update=MARKET)
    shares = universe(market.sim_symbols).shares
    with filled.database(market, tmp_path) as (settings, client):
        simulated.fill(client, settings, shares, date(2025, 5, 19), DAY, since="14:55")
        with connect_redis(settings) as server:
            publish_clock(server, to_ms(at(DAY, 15 * 60 + 40)), 0.0)
        ours = output("ours", tmp_path / "ours.json", {**settings.environment(), "TZ": "America/New_York"})
    real = {f"QMT_{name.upper()}": str(value) for name, value in MARKET.items()}
    theirs = output("real", tmp_path / "real.json", {**real, "QMT_FEED": "simulator", "TZ": "Asia/Shanghai"})
    for name in ARGUMENTS:
        assert ours[name] == theirs[name], name
        assert ours[name].strip(), name


def test_a_program_is_run_by_the_command_and_ends_with_one_line(settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qmt_orchestration.client.xtdata", str(FOLDER / "sector_breadth.py")]
    done = subprocess.run(
        command,
        env={**os.environ, "QMT_DATA_DIR": str(tmp_path), "QMT_REDIS_PORT": "9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("WarehouseAway: ")
    assert "holds no warehouse: make one with `qmt up`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_every_program_is_run(program: Path) -> None:
    assert program.stem in ARGUMENTS
    assert "qmt_orchestration" not in program.read_text("utf-8")
