"""`qmt validate`: recorded data comes out right, and planted damage does not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from qmt_orchestration.market.schema import RECORDED_COLUMNS
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.validate import RecordingError, Report, command, validate
from qmt_orchestration_tests.helpers import recordings
from qmt_orchestration_tests.warehouse.market_day import table, tick

DAY = [
    tick("09:25:00", 10.0, 1000),
    tick("10:00:30", 10.4, 1500),
    tick("15:00:03", 10.1, 9000, high=10.4),
    tick("15:20:00", 10.1, 9900),
]


def write_ticks(folder: Path, name: str = "ticks_day.parquet") -> Path:
    found = table(DAY).select([column for column, _ in RECORDED_COLUMNS])
    found = found.set_column(1, "time", found.column("time").cast("int64"))
    pq.write_table(found, folder / name)
    return folder


def write_vendor(folder: Path, damage: float = 0.0) -> Path:
    stamps = [
        *pd.date_range("2025-06-05 09:31", "2025-06-05 11:30", freq="min"),
        *pd.date_range("2025-06-05 13:01", "2025-06-05 15:00", freq="min"),
    ]
    minute = pd.DataFrame(
        {
            "symbol": "000001.SZ",
            "frame": stamps,
            "open": 10.0,
            "high": 10.2,
            "low": 9.9,
            "close": 10.1,
            "vol": 100,
            "amount": 1000.0,
        }
    )
    half = minute.groupby(minute.index // 30).agg(
        {
            "symbol": "first",
            "frame": "last",
            "open": "first",
            "high": "max",
            "low": "min",
            "close": "last",
            "vol": "sum",
            "amount": "sum",
        }
    )
    half.loc[3, "high"] += damage
    minute.to_csv(folder / "bars_1m_made.csv", index=False)
    half.to_csv(folder / "bars_30m_made.csv", index=False)
    day = {
        "symbol": "000001.SZ",
        "frame": "2025-06-05",
        "open": 10.0,
        "high": 10.3,
        "low": 9.9,
        "close": 10.1,
        "vol": 24_050,
        "amount": 240_100.0,
    }
    pd.DataFrame([day]).to_csv(folder / "bars_1d_made.csv", index=False)
    return folder


def rates(report: Report) -> dict[str, tuple[int, int]]:
    return {rate.name: (rate.matched, rate.total) for rate in report.rates}


@pytest.mark.data
def test_the_recordings_come_out_right(settings: Settings) -> None:
    report = validate(recordings(), settings)
    wrong = [(rate.name, rate.worst) for rate in report.rates if rate.matched != rate.total]
    assert wrong == []
    assert report.ok


def test_ticks_alone_are_checked_and_the_absence_of_vendor_bars_is_told(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_ticks(tmp_path), settings)
    assert report.ok
    assert set(rates(report).values()) == {(1, 1)}
    assert ["bars_1m_*" in text for text in report.absent] == [True]


def test_vendor_bars_of_three_periods_are_compared_row_for_row(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_vendor(tmp_path), settings)
    assert report.ok
    assert rates(report)["vendor 1m → our 30m = vendor 30m (rows)"] == (8, 8)
    assert rates(report)["vendor 1m → 1d: open, close"] == (1, 1)


def test_one_wrong_vendor_bar_fails_with_its_evidence(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_vendor(tmp_path, damage=0.01), settings)
    assert not report.ok
    (rate,) = [rate for rate in report.rates if "30m" in rate.name]
    assert (rate.matched, rate.total) == (7, 8)
    assert "11:30:00" in rate.worst[0]


def test_a_day_high_that_no_bar_can_have_fails(settings: Settings, tmp_path: Path) -> None:
    """The last snapshot's high falls below an earlier one: the oracle is able to fail."""
    right = DAY[2]["high"]
    DAY[2]["high"] = 10.2
    try:
        report = validate(write_ticks(tmp_path), settings)
    finally:
        DAY[2]["high"] = right
    assert not report.ok
    assert rates(report)["ticks: high"] == (0, 1)


def test_a_missing_column_is_named(settings: Settings, tmp_path: Path) -> None:
    pd.DataFrame({"symbol": ["000001.SZ"], "time": [1]}).to_csv(tmp_path / "ticks_bad.csv", index=False)
    with pytest.raises(RecordingError, match=r"ticks_bad.csv: columns \['lastPrice'"):
        validate(tmp_path, settings)


def test_a_folder_that_is_not_there_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "nowhere") == 2
    assert "RECORDINGS=folder" in capsys.readouterr().err
