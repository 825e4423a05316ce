"""`qmt validate`: recorded data comes out right, and planted damage does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from qmt_orchestration.feed.recorded import checked
from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.market.schema import RECORDED_COLUMNS
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.services.validate import ACCEPTED, MatchRates, validate
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.recordings import VENDOR_COLUMNS, read_ticks
from qmt_orchestration_tests.helpers import recordings
from qmt_orchestration_tests.warehouse.market_day import Tick, table, tick
from qmt_orchestration_tests.warehouse.oracle import day_bars

ROLLUP = "vendor's finer bars → our 30m = vendor's 30m (rows)"
COLUMNS = ("lastPrice", "high", "low", "amount", "volume", "pvolume")
AGGREGATE = {
    "symbol": "first",
    "frame": "last",
    "open": "first",
    "high": "max",
    "low": "min",
    "close": "last",
    "vol": "sum",
    "amount": "sum",
}
AFTER_HOURS = "300750.SZ"  # ChiNext: what grows after 15:05 is after-hours trading
DAY = [
    tick("09:25:00", 10.0, 1000, symbol=AFTER_HOURS),
    tick("10:00:30", 10.4, 1500, symbol=AFTER_HOURS),
    tick("15:00:03", 10.1, 9000, high=10.4, symbol=AFTER_HOURS),
    tick("15:20:00", 10.1, 9900, high=10.4, symbol=AFTER_HOURS),
]


def write_ticks(folder: Path, name: str = "ticks_day.parquet", ticks: list[Tick] = DAY) -> Path:
    found = table(ticks).select([column for column, _ in RECORDED_COLUMNS])
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
    half = minute.groupby(minute.index // 30).agg(AGGREGATE)
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


def rates(report: MatchRates) -> dict[str, tuple[int, int]]:
    return {rate.name: (rate.matched, rate.total) for rate in report.rates}


def wrong(report: MatchRates) -> list[str]:
    return [rate.name for rate in report.rates if rate.exact and rate.matched != rate.total]


@pytest.mark.slow
@pytest.mark.data
def test_the_recordings_come_out_right(settings: Settings) -> None:
    report = validate(recordings(), settings)
    assert [(rate.name, rate.worst) for rate in report.rates if rate.exact and rate.matched != rate.total] == []
    assert report.ok


@pytest.mark.data
def test_recorded_bars_equal_the_independent_derivation_in_all_fields(clickhouse: Any) -> None:
    paths = sorted(recordings().glob("ticks_*.parquet"))
    for path in paths:
        found = checked(read_ticks(path).table)[0]
        clickhouse.insert_arrow("ticks", found)
        frame = found.select(["symbol", "time", *COLUMNS]).to_pandas()
        local = frame["time"]
        frame["time"] = local.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[ms]").astype("int64")
        for day in sorted(set(local.dt.date)):
            newest = bars.newest_frame(clickhouse, day)
            assert newest is not None
            bars.finalize(clickhouse, day, None, newest)
            for symbol, ticks in frame[local.dt.date == day].groupby("symbol"):
                want = day_bars(ticks.to_dict("records"), newest.hour * 60 + newest.minute)
                got = clickhouse.query(
                    "SELECT frame, open, high, low, close, vol, amount, toString(source) FROM bars_1m "
                    "WHERE symbol = {symbol:String} AND toDate(frame) = {day:Date} ORDER BY frame",
                    {"symbol": symbol, "day": day},
                ).result_rows
                assert [(r[0].astimezone(SHANGHAI), *r[1:6], r[7]) for r in got] == [(*w[:6], w[7]) for w in want]
                assert [r[6] for r in got] == pytest.approx([w[6] for w in want], abs=1e-3)


def test_ticks_alone_are_checked_and_the_absence_of_vendor_bars_is_told(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_ticks(tmp_path), settings)
    assert report.ok
    assert rates(report).pop(ACCEPTED) == (4, 4)
    assert {found for name, found in rates(report).items() if name != ACCEPTED} == {(1, 1)}
    assert any("rollups were not checked" in text for text in report.notes)


def test_parts_of_days_and_days_without_a_trade_are_told_apart_from_full_days(
    settings: Settings, tmp_path: Path
) -> None:
    """A morning, an afternoon (its first snapshot is only a base), a suspension and a whole day in one folder."""
    morning = [tick("09:25:00", 10.0, 1000, symbol="000002.SZ"), tick("10:29:58", 10.2, 2000, symbol="000002.SZ")]
    afternoon = [
        tick("13:00:03", 10.2, 500_000, symbol="000003.SZ", high=11.0, low=9.0),
        tick("13:05:00", 10.3, 500_700, symbol="000003.SZ", high=11.0, low=9.0),
        tick("15:00:03", 10.3, 500_900, symbol="000003.SZ", high=11.0, low=9.0),
    ]
    halted = [tick("09:15:00", 0.0, 0, symbol="000004.SZ", openInt=1)]
    report = validate(write_ticks(tmp_path, ticks=[*DAY, *morning, *afternoon, *halted]), settings)
    assert wrong(report) == []
    found = rates(report)
    assert found["ticks, full days: volume"] == (1, 1)
    assert found["ticks, parts of days: volume"] == (2, 2)
    assert found["ticks, no trade: no minute bars"] == (1, 1)
    assert any("09:25 to 10:29, 1 symbol" in note for note in report.notes)
    assert any("13:00 to 15:00, 1 symbol" in note for note in report.notes)


def test_rows_without_values_are_left_out_and_told_and_other_types_are_read(settings: Settings, tmp_path: Path) -> None:
    write_ticks(tmp_path)
    frame = pd.read_parquet(tmp_path / "ticks_day.parquet")
    frame["symbol"] = frame["symbol"].astype("category")
    frame["volume"] = frame["volume"].astype("float64")
    extra = frame.tail(1).assign(lastPrice=float("nan"))
    pd.concat([frame, extra]).to_parquet(tmp_path / "ticks_day.parquet")
    report = validate(tmp_path, settings)
    assert report.ok
    assert "ticks_day.parquet: 1 rows without a value were left out" in report.notes


def test_vendor_bars_of_three_periods_are_compared_row_for_row(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_vendor(tmp_path), settings)
    assert report.ok
    assert rates(report)[ROLLUP] == (8, 8)
    assert rates(report)["vendor's minutes → 1d: open, close"] == (1, 1)


def test_without_minutes_the_finest_bars_there_are_stand_for_them(settings: Settings, tmp_path: Path) -> None:
    write_vendor(tmp_path)
    (tmp_path / "bars_1m_made.csv").unlink()
    half = pd.read_csv(tmp_path / "bars_30m_made.csv")
    half.groupby(half.index // 2).agg(AGGREGATE).to_csv(tmp_path / "bars_60m_made.csv", index=False)
    report = validate(tmp_path, settings)
    assert report.ok
    assert rates(report)["vendor's finer bars → our 60m = vendor's 60m (rows)"] == (4, 4)
    assert rates(report)["vendor's minutes → 1d: open, close"] == (1, 1)


def test_windows_whose_minutes_are_not_all_there_are_not_compared_and_told(settings: Settings, tmp_path: Path) -> None:
    """Half a day of minutes beside a whole day of 30m, and minutes before the first trade: no failure, no silence."""
    write_vendor(tmp_path)
    minute = pd.read_csv(tmp_path / "bars_1m_made.csv").head(130)
    minute.loc[:2, ["vol", "amount"]] = 0
    minute.to_csv(tmp_path / "bars_1m_made.csv", index=False)
    report = validate(tmp_path, settings)
    assert wrong(report) == []
    assert rates(report)[ROLLUP] == (3, 3), "10:30, 11:00, 11:30"
    assert "30m: 5 rows not compared, their minutes are not all there" in report.notes
    assert any(note.startswith("1d: 1 days not compared") for note in report.notes)


def test_one_wrong_vendor_bar_fails_with_its_evidence(settings: Settings, tmp_path: Path) -> None:
    report = validate(write_vendor(tmp_path, damage=0.01), settings)
    assert wrong(report) == [ROLLUP]
    (rate,) = [rate for rate in report.rates if rate.name == ROLLUP]
    assert (rate.matched, rate.total) == (7, 8)
    assert "11:30:00" in rate.worst[0]


def test_a_daily_bar_beyond_the_rounding_of_its_minutes_fails(settings: Settings, tmp_path: Path) -> None:
    write_vendor(tmp_path)
    day = pd.read_csv(tmp_path / "bars_1d_made.csv").assign(vol=40_000, amount=241_000.0)
    day.to_csv(tmp_path / "bars_1d_made.csv", index=False)
    assert wrong(validate(tmp_path, settings)) == [
        "vendor's minutes → 1d: volume within the rounding of its minutes",
        "vendor's minutes → 1d: amount within the rounding of its minutes",
    ]


def test_ticks_that_a_live_feed_would_reject_are_named_and_spoil_no_bar(settings: Settings, tmp_path: Path) -> None:
    wrong_ones = [
        tick("10:00:33", 10.2, 1600, symbol=AFTER_HOURS),  # the day's high falls
        tick("10:00:36", 10.4, 160_000, symbol=AFTER_HOURS, amount=16_000.0),  # shares given as lots
        tick("10:00:30", 10.4, 1500, symbol=AFTER_HOURS),  # a repeat
    ]
    report = validate(write_ticks(tmp_path, ticks=[*DAY[:2], *wrong_ones, *DAY[2:]]), settings)
    assert wrong(report) == []
    assert report.ok
    assert rates(report)[ACCEPTED] == (5, 7)
    told = [note for note in report.notes if "rejected" in note]
    assert [("backward_range" in note, "amount_contradicts" in note) for note in told] == [(True, False), (False, True)]
    assert "300750.SZ 2025-06-05 10:00:33" in told[0]


def test_bars_go_on_where_the_counters_of_the_terminal_begin_again(settings: Settings, tmp_path: Path) -> None:
    """Volume and amount from 0 in the middle of the day: right minutes, what was traded at the restart is in none."""
    whole = [tick(f"10:{n:02d}:30", 10.0, 1000 + 300 * n, symbol=AFTER_HOURS) for n in range(40)]
    again = [
        {**t, "volume": t["volume"] - 67, "pvolume": t["pvolume"] - 6700, "amount": t["amount"] - 67_000.0}
        for t in whole[20:]
    ]
    end = {**again[-1], "time": DAY[2]["time"]}
    report = validate(write_ticks(tmp_path, ticks=[DAY[0], *whole[:20], *again, end]), settings)
    assert (wrong(report), rates(report)[ACCEPTED]) == ([], (42, 42))


def test_an_opening_call_that_moves_fails(settings: Settings, tmp_path: Path) -> None:
    """Nothing contradicts it, but a call has one price: the oracle is able to fail."""
    moves = tick("09:29:58", 10.2, 1200, high=10.2, low=10.0, symbol=AFTER_HOURS)
    report = validate(write_ticks(tmp_path, ticks=[DAY[0], moves, *DAY[1:]]), settings)
    assert wrong(report) == ["ticks, full days: 09:30 is the opening call alone"]


def test_files_that_cannot_be_read_are_named_and_the_others_checked(settings: Settings, tmp_path: Path) -> None:
    write_ticks(tmp_path)
    pd.DataFrame({"symbol": ["000001.SZ"], "time": [1]}).to_csv(tmp_path / "ticks_bad.csv", index=False)
    (tmp_path / "ticks_torn.parquet").write_bytes(b"PAR1")
    (tmp_path / "bars_1m_empty.csv").write_text("")
    (tmp_path / "bars_5m_odd.csv").write_text(",".join(VENDOR_COLUMNS) + "\n000001.SZ,soon,1,1,1,1,1,1\n")
    report = validate(tmp_path, settings)
    assert not report.ok
    assert wrong(report) == []
    assert rates(report)["ticks, full days: volume"] == (1, 1)
    names = (
        "bars_1m_empty.csv",
        "bars_5m_odd.csv: column frame",
        "ticks_bad.csv: columns missing: lastPrice",
        "ticks_torn",
    )
    for name, told in zip(names, report.unreadable, strict=True):
        assert told.startswith(name)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(RecordingError, match="RECORDINGS=folder"):
        validate(tmp_path / "nowhere", settings)
