"""Every kind of the simulated market through the rule of bars in ClickHouse: the plan of the day is what comes out."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.client import filled, simulated

DAY = date(2025, 6, 5)
SYMBOLS = ("000300.SH", "113050.SH", "123219.SZ", "131810.SZ", "159915.SZ", "204001.SH", "510050.SH", "600000.SH")
BARS = "SELECT symbol, toHour(frame) * 60 + toMinute(frame), open, high, low, close, vol FROM bars_1m WHERE vol > 0"
DAYS = "SELECT symbol, close, vol, after_hours_vol FROM bars_1d ORDER BY symbol"


def test_bars_of_every_kind_follow_its_sessions(engine_settings: Settings, tmp_path_factory: Any) -> None:
    plan = MarketDay(7, DAY, SYMBOLS)
    true, scale = plan.bars(), plan.traits.scale
    with filled.database(engine_settings, tmp_path_factory.mktemp("kinds")) as (settings, client):
        client.insert_arrow("ticks", simulated.ticks(settings, SYMBOLS, DAY, "00:00"))
        bars.finalize(client, DAY)
        bars.roll_up(client, DAY, "1d", day_over=True)
        found = {(row[0], row[1]): row[2:] for row in client.query(BARS).result_rows}
        days = client.query(DAYS).result_rows
    labels = [570, *range(571, 691), *range(781, 901)]
    expected = {
        (symbol, labels[i]): (
            *(true[n][row, i] / scale[row] for n in ("open", "high", "low", "close")),
            true["vol"][row, i],
        )
        for row, symbol in enumerate(SYMBOLS)
        for i in np.flatnonzero(true["traded"][row]).tolist()
    }
    assert found.keys() == expected.keys()
    wrong = {key: (found[key], bar) for key, bar in expected.items() if not np.allclose(found[key], bar, atol=1e-6)}
    assert not wrong
    late = plan.after_hours.sum(axis=1)
    for row, (symbol, close, vol, after) in enumerate(days):
        assert (symbol, vol, after) == (SYMBOLS[row], plan.cumulative[row, -1], late[row])
        assert close == plan.close[row, -1] / scale[row]
    assert {symbol for symbol, after in zip(SYMBOLS, late.tolist(), strict=True) if after} == {"131810.SZ", "204001.SH"}
