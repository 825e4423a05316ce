"""Finding and repairing wrong bars by command: `qmt verify`, `qmt backfill --symbols`, `qmt override-bar`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.cli.conftest import Run
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.test_history import gateway, keep_truth

DAY = ("--from", "2025-06-05", "--to", "2025-06-05")
BAR = "SELECT open, high, low, close, vol, amount, source, quality_score FROM bars_1m"
GONE = "toHour(frame) = 10 AND symbol IN ('000001.SZ', '600000.SH')"


@pytest.fixture
def warehouse(
    settings: Settings, clickhouse: Any, redis_client: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """ClickHouse with a day of ticks and bars; the command's environment names its engines."""
    shutil.copytree(empty_home, settings.data_dir / "dagster")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    market.insert_instruments(clickhouse)
    market.insert_ticks(clickhouse)
    market.make_bars(clickhouse)
    return clickhouse


def bar(client: Any) -> Any:
    return client.query(f"{BAR} WHERE symbol = '600000.SH' AND frame = '2025-06-05 10:31:00'").first_row


def test_verify_finds_rows_deleted_from_a_closed_day_until_it_is_made_again(warehouse: Any, qmt: Run) -> None:
    code, out, _ = qmt("verify", *DAY)
    assert (code, "2025-06-05: nothing recorded yet" in out) == (0, True)
    assert qmt("backfill", *DAY)[0] == 0
    code, out, _ = qmt("verify", *DAY)
    assert (code, out) == (0, "1 days verified, 0 tables changed\n")
    warehouse.command("DELETE FROM bars_1m WHERE symbol = '600000.SH' AND toHour(frame) = 10")
    code, out, _ = qmt("verify", *DAY)
    assert (code, "bars_1m" in out, "600000.SH" in out, "qmt backfill" in out) == (1, True, True, True)
    code, out, _ = qmt("verify", *DAY, "--json")
    (found,) = json.loads(out)["changed"]
    assert (code, found["table"], found["symbols"], found["first"][0][0]) == (1, "bars_1m", 1, "600000.SH")
    assert qmt("backfill", *DAY)[0] == 0
    assert qmt("verify", *DAY)[0] == 0


def test_backfill_of_some_symbols_repairs_these_alone(warehouse: Any, qmt: Run, settings: Settings) -> None:
    keep_truth(warehouse)
    whole = warehouse.query("SELECT sum(vol) FROM bars_1m WHERE symbol = '600000.SH'").first_row
    warehouse.command("DELETE FROM ticks WHERE toHour(time) = 10 AND symbol IN ('000001.SZ', '600000.SH')")
    warehouse.command(f"DELETE FROM bars_1m WHERE {GONE}")
    with gateway(settings):
        code, out, err = qmt("backfill", *DAY, "--symbols", "600000")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["sources"] == {"2025-06-05": "ticks and QMT history"}
    fetched = warehouse.query("SELECT DISTINCT symbol FROM qmt_bars WHERE period = '1m'").result_rows
    assert fetched == [("600000.SH",)]
    history = warehouse.query("SELECT DISTINCT symbol FROM bars_1m WHERE source = 'history'").result_rows
    assert history == [("600000.SH",)]
    assert warehouse.query("SELECT sum(vol) FROM bars_1m WHERE symbol = '600000.SH'").first_row == whole
    assert qmt("backfill", *DAY, "--symbols", "no symbol")[0] == 2
    code, _, err = qmt("backfill", *DAY, "--symbols", "600000,600009.SH")
    assert (code, "no instrument 600009.SH" in err, "600000.SH" in err) == (2, True, True)


def test_a_bar_is_replaced_by_hand_with_a_trace_and_taken_back(warehouse: Any, qmt: Run) -> None:
    before = bar(warehouse)
    line = ("override-bar", "600000", "2025-06-05 10:31", "--reason", "a wrong print")
    assert qmt(*line, "--from-qmt")[0] == 1, "QMT's bar is not here"
    assert bar(warehouse) == before
    market.insert_qmt_bars(warehouse)
    higher = "close = close + 0.5, high = high + 0.5 WHERE period = '1m'"
    warehouse.command(f"ALTER TABLE qmt_bars UPDATE {higher} SETTINGS mutations_sync = 1")
    assert qmt(*line, "--from-qmt")[0] == 0
    after = bar(warehouse)
    assert after[:5] == pytest.approx((before[0], before[1] + 0.5, before[2], before[3] + 0.5, before[4]))
    assert after[6:] == ("history", 0.5)
    five = "SELECT high FROM bars_5m WHERE symbol = '600000.SH' AND frame = '2025-06-05 10:35:00'"
    assert warehouse.query(five).first_row[0] >= after[1], "the periods follow"
    assert qmt(*line, "--undo")[0] == 0
    assert bar(warehouse) == before
    trace = warehouse.query("SELECT reason, author != '', active FROM bar_overrides ORDER BY at").result_rows
    assert trace == [("a wrong print", True, 1), ("a wrong print", True, 0)]


@pytest.mark.parametrize(
    "wrong",
    [
        ("2025-06-05 10:31",),
        ("2025-06-05 10:31", "--undo", "--from-qmt"),
        ("2025-06-05 12:31", "--undo"),
        ("2025-06-07 10:31", "--undo"),
        ("10:31", "--undo"),
        ("2025-06-05 10:31", "--values", "10,9,9.9,10.1,400,4020"),
        ("2025-06-05 10:31", "--values", "10,10,10,nan,400,4020"),
        ("2025-06-05 10:31", "--values", "10,10,10,10,400,0"),
    ],
)
def test_an_override_that_cannot_be_is_misuse(
    wrong: tuple[str, ...], qmt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert qmt("override-bar", "600000", *wrong, "--reason", "x")[:2] == (2, "")
    assert list(tmp_path.iterdir()) == [], "refused before anything is opened"
