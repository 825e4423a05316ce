"""The hand-made cases of QMT_RECORDINGS_DIR (``hard_ticks``): one symbol a case, each with one planted defect or one
kind of instrument, through the whole path: subscriber, stream, writer, warehouse, bars.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
import redis

from qmt_orchestration.services.replay import replay
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.helpers import recordings

DAY_COLUMNS = ("high", "low", "close", "vol", "amount", "after_hours_vol")


def materialize(settings: Settings, days: Sequence[date], progress: Any) -> dict[str, Any]:
    """Bars of the days, without Dagster."""
    client = connect(settings)
    for day in days:
        bars.finalize(client, day)
        bars.roll_up(client, day, "1d", day_over=True)
    return {"bars": {}, "checks": {}, "failed_runs": 0, "errors": []}


@pytest.mark.data
def test_every_hand_made_case_is_right(settings: Settings, redis_client: redis.Redis) -> None:
    folder = recordings()
    cases = json.loads((folder / "hard_ticks.json").read_text())
    account = replay(
        settings, [folder / "hard_ticks.parquet"], speed=0, materialize=materialize, progress=lambda _: None
    )
    assert account.complete, account
    client = connect(settings)

    def rows(text: str) -> dict[Any, Any]:
        return {row[0]: row[1:] for row in client.query(text).result_rows}

    days = rows(f"SELECT symbol, {', '.join(DAY_COLUMNS)} FROM bars_1d")
    minutes = rows(
        "SELECT concat(symbol, ' ', formatDateTime(frame, '%H:%i', 'Asia/Shanghai')), open, high, low, close, vol "
        "FROM bars_1m WHERE source != 'filled'"
    )
    rejected = rows("SELECT symbol, count() FROM ticks_rejected GROUP BY symbol")
    wrong = []
    for case in cases:
        symbol, expect = case["symbol"], case["expect"]
        found = {"day": days.get(symbol), "rejected": rejected.get(symbol, (0,))[0]}
        found["bars"] = {label: minutes.get(f"{symbol} {label}") for label in expect.get("bars", {})}
        for what, value in expect.items():
            if not _equal(found[what], value):
                wrong.append(f"{symbol} ({case['what']}): {what}: expected {value}, found {found[what]}")
    assert not wrong, "\n".join(wrong)


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(_equal(found[key], expected[key]) for key in expected)
    return bool(found == pytest.approx(expected))
