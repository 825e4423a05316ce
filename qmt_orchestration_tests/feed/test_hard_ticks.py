"""The hand-made cases of QMT_RECORDINGS_DIR (``hard_ticks``): one symbol a case, each with one planted defect or one
kind of instrument, through the whole path: subscriber, stream, writer, warehouse, bars.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from qmt_orchestration.services.replay import replay
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.feed import hard_cases
from qmt_orchestration_tests.feed.test_doubts import DEFECTS, KINDS, day, snapshot
from qmt_orchestration_tests.helpers import recordings

DAY_COLUMNS = ("high", "low", "close", "vol", "amount", "after_hours_vol")


def materialize(settings: Settings, days: Sequence[date], progress: Any) -> dict[str, Any]:
    """Bars of the days, without Dagster."""
    client = connect(settings)
    for trading_day in days:
        bars.finalize(client, trading_day)
        bars.roll_up(client, trading_day, "1d", day_over=True)
    return {"bars": {}, "checks": {}, "failed_runs": 0, "errors": []}


class Stored:
    """What a replay left in the warehouse."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self.account = replay(settings, [file], speed=0, materialize=materialize, progress=lambda _: None)
        self._client = connect(settings)
        self.days = self._rows(f"SELECT symbol, {', '.join(DAY_COLUMNS)} FROM bars_1d")
        self.minutes = self._rows(
            "SELECT concat(symbol, ' ', formatDateTime(frame, '%H:%i', 'Asia/Shanghai')), open, high, low, close, vol "
            "FROM bars_1m WHERE source != 'filled'"
        )
        self.rejected = self._rows("SELECT symbol, count() FROM ticks_rejected GROUP BY symbol")

    def _rows(self, text: str) -> dict[Any, Any]:
        return {row[0]: row[1:] for row in self._client.query(text).result_rows}

    def differs(self, symbol: str, expect: dict[str, Any]) -> list[str]:
        """What is not as expected of a symbol."""
        found = {"day": self.days.get(symbol), "rejected": self.rejected.get(symbol, (0,))[0]}
        found["bars"] = {label: self.minutes.get(f"{symbol} {label}") for label in expect.get("bars", {})}
        return [
            f"{what}: expected {v}, found {found[what]}" for what, v in expect.items() if not _equal(found[what], v)
        ]


@pytest.mark.data
def test_every_hand_made_case_is_right(settings: Settings, redis_client: redis.Redis) -> None:
    folder = recordings()
    stored = Stored(settings, folder / "hard_ticks.parquet")
    assert stored.account.complete, stored.account
    cases = json.loads((folder / "hard_ticks.json").read_text())
    wrong = {case["what"]: stored.differs(case["symbol"], case["expect"]) for case in cases}
    assert not {what: found for what, found in wrong.items() if found}


def test_hard_cases_are_right_in_every_bar(settings: Settings, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Errors at the ends of thin days, in runs, on boundaries; each kind's sessions by date."""
    made = list(hard_cases.cases())
    rows = sorted((row for case in made for row in case.rows), key=lambda row: row["time"])
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), tmp_path / "ticks.parquet")
    stored = Stored(settings, tmp_path / "ticks.parquet")
    assert stored.account.complete, stored.account
    wrong = {}
    for case in made:
        found = {key.partition(" ")[2] for key in stored.minutes if key.startswith(case.symbol)}
        extra = found - case.expect["bars"].keys()
        wrong[case.what] = [
            *stored.differs(case.symbol, case.expect),
            *(f"a bar of {label}" for label in sorted(extra)),
        ]
    assert not {what: found for what, found in wrong.items() if found}


def test_bars_are_those_of_the_true_ticks_alone(settings: Settings, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Each kind of defect in a run of five in mid-session, and in the first snapshot of the day, a symbol each."""
    close = snapshot(54_003, 9.4, "600005.SH", 1000, 9400.0, 9.4, 9.4, 9.4)  # of another symbol: the day is over
    rows: list[dict[str, Any]] = [{"symbol": "600099.SH", **close}]
    expected = {}
    for number, (defect, change) in enumerate(DEFECTS.items()):
        for first, length in ((9, 5), (1, 1)):
            symbol = f"{600100 + 2 * number + (first == 1)}.SH"
            ticks = day("600005.SH", seed=number)
            true = [*ticks[:first], *ticks[first + length :]]
            if (defect, first) == ("volume and amount ÷10", 1):
                continue  # smaller than what follows: it cannot be told from a true one
            rows += [{"symbol": symbol, **t} for t in [*true, *map(change, ticks[first : first + length])]]
            last = true[-1]
            values = (last["high"], last["low"], last["lastPrice"], last["pvolume"], last["amount"], 0)
            expected[symbol] = {"day": values, "rejected": length}
    names = ("symbol", "time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "pvolume")
    table = {name: [row[name] for row in rows] for name in (*names, "stockStatus", "openInt")}
    pq.write_table(pa.table(table), tmp_path / "ticks.parquet")
    stored = Stored(settings, tmp_path / "ticks.parquet")
    assert stored.account.complete, stored.account
    assert stored.account.rejected["withdrawn"] > 5
    wrong = {
        f"{symbol} {list(DEFECTS)[(int(symbol[:6]) - 600100) // 2]}": stored.differs(symbol, expect)
        for symbol, expect in expected.items()
    }
    assert not {what: found for what, found in wrong.items() if found}


@pytest.mark.slow
def test_every_kind_is_stored_in_its_own_unit(settings: Settings, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Shares, fund units, bonds, 100 yuan of a repo, an index as provided; with ``pvolume`` right, 0 and in lots."""
    close = snapshot(54_003, 9.4, "600005.SH", 1000, 9400.0, 9.4, 9.4, 9.4)
    rows: list[dict[str, Any]] = [{"symbol": "600099.SH", **close}]
    expected = {}
    for symbol, (_, lot, _) in KINDS.items():
        for number, pvolume in enumerate((lambda t: t["pvolume"], lambda _: 0, lambda t: t["volume"])):
            code = f"{int(symbol[:6]) + number:06d}{symbol[6:]}"
            ticks = [{**t, "pvolume": pvolume(t)} for t in day(symbol, seed=number)]
            rows += [{"symbol": code, **t} for t in ticks]
            last = ticks[-1]
            values = (last["high"], last["low"], last["lastPrice"], last["volume"] * lot, last["amount"], 0)
            expected[code] = {"day": values, "rejected": 0}
    names = ("symbol", "time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "pvolume")
    table = {name: [row[name] for row in rows] for name in (*names, "stockStatus", "openInt")}
    pq.write_table(pa.table(table), tmp_path / "ticks.parquet")
    stored = Stored(settings, tmp_path / "ticks.parquet")
    assert stored.account.complete, stored.account
    wrong = {symbol: stored.differs(symbol, expect) for symbol, expect in expected.items()}
    assert not {symbol: found for symbol, found in wrong.items() if found}


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(_equal(found[key], expected[key]) for key in expected)
    return bool(found == pytest.approx(expected))
