"""Exports: a Qlib folder read back by the documented format, start labels, vn.py's own classes over the warehouse."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from qmt_orchestration import client as api
from qmt_orchestration.cli.main import app
from qmt_orchestration.client.errors import BadRange, NoDataInRange, QueryError
from qmt_orchestration.export.qlib import export
from qmt_orchestration.export.start_labels import start_bars
from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.settings import Settings, get_settings
from qmt_orchestration_tests.client import filled, simulated
from qmt_orchestration_tests.client.filled import DAYS, SYMBOLS
from qmt_orchestration_tests.orchestration import market

A, B, C = SYMBOLS
DR = 1.03  # of A on the second day


@pytest.fixture(scope="module")
def world(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Any]]:
    with filled.warehouse(engine_settings, tmp_path_factory.mktemp("export")) as found:
        yield found


@pytest.fixture
def daily(engine_settings: Settings, tmp_path: Path) -> Iterator[tuple[Settings, Any]]:
    """A warehouse of daily bars alone, for tests that change it."""
    with filled.database(engine_settings, tmp_path / "data") as (settings, client):
        simulated.insert_daily(client, 7, SYMBOLS, DAYS)
        yield settings, client


def read(folder: Path, symbol: str, feature: str, freq: str) -> pd.Series:
    """A feature by label, as Qlib reads it: index of the first label, then the values."""
    calendar = (folder / "calendars" / f"{freq}.txt").read_text().split()
    if freq == "1min":
        calendar = (folder / "calendars" / f"{freq}.txt").read_text().strip().split("\n")
    raw = np.fromfile(folder / "features" / f"{symbol[7:].lower()}{symbol[:6]}" / f"{feature}.{freq}.bin", dtype="<f4")
    first = int(raw[0])
    return pd.Series(raw[1:], index=calendar[first : first + len(raw) - 1])


def test_days_in_qlibs_format_adjusted_with_their_factor(world: tuple[Settings, Any], tmp_path: Path) -> None:
    settings, _ = world
    folder = tmp_path / "qlib"
    done = export(folder, "day", DAYS[0], DAYS[1], settings=settings)
    assert (done.symbols, done.labels, done.bars, done.first, done.last) == (3, 2, 6, *DAYS)
    assert (folder / "instruments" / "all.txt").read_text().splitlines() == [
        "SH600000\t2025-06-04\t2025-06-05", "SZ000001\t2025-06-04\t2025-06-05", "SZ300750\t2025-06-04\t2025-06-05",
    ]  # fmt: skip
    days = api.bars(A, None, None, "1d", settings=settings)
    assert read(folder, A, "factor", "day").tolist() == pytest.approx([1.0, DR])
    close = read(folder, A, "close", "day")
    assert close.index.tolist() == ["2025-06-04", "2025-06-05"]
    assert (close / read(folder, A, "factor", "day")).tolist() == pytest.approx(days.close.tolist())
    assert (read(folder, A, "volume", "day") * read(folder, A, "factor", "day")).tolist() == pytest.approx(
        days.vol.tolist()
    )
    assert read(folder, A, "amount", "day").tolist() == pytest.approx(days.amount.tolist())
    assert read(folder, B, "change", "day").tolist() == pytest.approx(
        (api.bars(B, None, None, "1d", settings=settings).close / market.PRE_CLOSE - 1).tolist()
    )
    assert read(folder, A, "vwap", "day").iloc[1] == pytest.approx(days.amount[1] / days.vol[1] * DR)


def test_240_minutes_labelled_by_their_start_with_the_opening_call(world: tuple[Settings, Any], tmp_path: Path) -> None:
    settings, _ = world
    folder = tmp_path / "qlib"
    done = export(folder, "1min", DAYS[1], DAYS[1], settings=settings)
    assert (done.labels, done.bars) == (240, 720)
    minutes = api.bars(B, DAYS[1], DAYS[1], settings=settings)
    volume = read(folder, B, "volume", "1min")
    labels = volume.index.tolist()
    assert (labels[0], labels[119], labels[120], labels[239]) == tuple(
        f"2025-06-05 {text}:00" for text in ("09:30", "11:29", "13:00", "14:59")
    )
    assert volume.tolist() == pytest.approx([minutes.vol[0] + minutes.vol[1], *minutes.vol[2:]])
    assert read(folder, B, "open", "1min").iloc[0] == pytest.approx(minutes.open[0])
    assert read(folder, B, "close", "1min").tolist() == pytest.approx(minutes.close[1:].tolist())


@pytest.mark.parametrize("freq", ["day", "1min"])
def test_a_folder_that_grows_day_by_day_equals_one_written_at_once(
    world: tuple[Settings, Any], tmp_path: Path, freq: str
) -> None:
    settings, _ = world
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    for first, last in ((DAYS[0], DAYS[0]), (DAYS[1], DAYS[1]), (DAYS[0], DAYS[0])):
        export(grown, freq, first, last, settings=settings)
    export(whole, freq, DAYS[0], DAYS[1], settings=settings)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(grown) for path in grown.rglob("*") if path.is_file())
    assert len(files) == 2 + 3 * (9 if freq == "day" else 8)
    for path in files:
        assert (grown / path).read_bytes() == (whole / path).read_bytes(), path


def test_a_changed_event_of_the_past_renews_the_symbol(daily: tuple[Settings, Any], tmp_path: Path) -> None:
    settings, client = daily
    folder = tmp_path / "qlib"
    export(folder, "day", *DAYS, settings=settings)
    assert read(folder, B, "factor", "day").tolist() == [1.0, 1.0]
    client.insert("adjust_factors", [[B, DAYS[0], 2.0]], column_names=["symbol", "ex_date", "dr"])
    export(folder, "day", DAYS[1], DAYS[1], settings=settings)
    assert read(folder, B, "factor", "day").tolist() == [2.0, 2.0]
    assert read(folder, A, "factor", "day").tolist() == [1.0, 1.0]


def test_a_listing_later_begins_where_it_begins(daily: tuple[Settings, Any], tmp_path: Path) -> None:
    settings, client = daily
    client.command(f"DELETE FROM bars_1d WHERE symbol = '{B}' AND toDate(frame) = '{DAYS[0]}'")
    folder = tmp_path / "qlib"
    export(folder, "day", *DAYS, settings=settings)
    raw = np.fromfile(folder / "features" / "sz300750" / "close.day.bin", dtype="<f4")
    assert (raw[0], len(raw)) == (1.0, 2)
    assert "SZ300750\t2025-06-05\t2025-06-05" in (folder / "instruments" / "all.txt").read_text()


def test_what_cannot_be_exported_is_said(world: tuple[Settings, Any], tmp_path: Path) -> None:
    settings, _ = world
    with pytest.raises(QueryError, match="day, 1min"):
        export(tmp_path / "a", "5min", *DAYS, settings=settings)
    with pytest.raises(NoDataInRange, match="bars_1d holds 2025-06-04 … 2025-06-05"):
        export(tmp_path / "a", "day", "20200101", "20200131", settings=settings)
    export(tmp_path / "b", "day", DAYS[1], DAYS[1], settings=settings)
    with pytest.raises(BadRange, match="begins on 2025-06-05 and grows forward only"):
        export(tmp_path / "b", "day", DAYS[0], DAYS[1], settings=settings)


def test_the_command_exports_and_says_what_it_wrote(
    world: tuple[Settings, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world[0].environment().items():
        monkeypatch.setenv(name, value)
    options = ["export", "qlib", "--from", "2025-06-04", "--to", "2025-06-05", "--target", str(tmp_path / "q")]
    done = CliRunner().invoke(app, [*options, "--freq", "1min"])
    assert done.exit_code == 0, done.output
    assert "1,440 bars of 3 symbols, 2025-06-04 … 2025-06-05" in done.output
    refused = CliRunner().invoke(app, [*options, "--freq", "2min"])
    assert refused.exit_code == 2
    assert "expected a freq of day, 1min, found '2min'" in refused.output


def test_start_labels_of_minutes_hours_days_and_weeks(world: tuple[Settings, Any]) -> None:
    settings, _ = world

    def starts(period: str, first: datetime | None = None, last: datetime | None = None) -> list[str]:
        return [f"{bar.start:%m%d %H:%M}" for bar in start_bars(settings, A, period, first, last)]

    assert len(starts("1m")) == 480
    assert starts("1m", at(DAYS[1], 570), at(DAYS[1], 572)) == ["0605 09:30", "0605 09:31", "0605 09:32"]
    assert starts("1m", at(DAYS[1], 899), None) == ["0605 14:59"]
    assert starts("60m", at(DAYS[1], 0), None) == ["0605 09:30", "0605 10:30", "0605 13:00", "0605 14:00"]
    assert starts("1d") == ["0604 00:00", "0605 00:00"]
    assert starts("1w") == ["0602 00:00"]
    (day,) = start_bars(settings, A, "1d", at(DAYS[1], 0), at(DAYS[1], 0))
    assert day.vol == api.bars(A, DAYS[1], DAYS[1], "1d", settings=settings).vol[0]


# -- vn.py's own classes, where the package is installed (.ci/run) ---------------------------------------------------


@pytest.fixture
def vnpy(
    world: tuple[Settings, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ModuleType, Settings]]:
    pytest.importorskip("talib")
    (tmp_path / ".vntrader").mkdir()  # vn.py keeps its settings there instead of the home folder
    monkeypatch.chdir(tmp_path)
    database = pytest.importorskip("vnpy.trader.database")
    for name, value in world[0].environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    from vnpy.trader.setting import SETTINGS

    monkeypatch.setitem(SETTINGS, "database.name", "qmt_orchestration")
    monkeypatch.setitem(SETTINGS, "datafeed.name", "qmt_orchestration")
    monkeypatch.setattr(database, "database", None)
    yield database, world[0]
    get_settings.cache_clear()


def test_vnpys_database_reads_the_warehouse_and_refuses_to_write(vnpy: tuple[ModuleType, Settings]) -> None:
    module, settings = vnpy
    from vnpy.trader.constant import Exchange, Interval
    from vnpy.trader.setting import SETTINGS

    database = module.get_database()
    assert type(database).__module__ == "qmt_orchestration.export.vnpy"
    day = datetime(2025, 6, 5, tzinfo=SHANGHAI)
    bars = database.load_bar_data("000001", Exchange.SZSE, Interval.MINUTE, day, day + timedelta(days=1))
    assert len(bars) == 240
    assert bars[0].datetime == at(DAYS[1], 570)
    assert (bars[0].vt_symbol, bars[0].interval, bars[0].gateway_name) == ("000001.SZSE", Interval.MINUTE, "DB")
    minutes = api.bars(A, DAYS[1], DAYS[1], settings=settings)
    assert (bars[0].volume, bars[0].open_price) == (minutes.vol[0] + minutes.vol[1], minutes.open[0])
    assert bars[-1].close_price == minutes.close.iloc[-1]
    assert bars[-1].turnover == pytest.approx(minutes.amount.iloc[-1])
    SETTINGS["qmt_orchestration.volume"] = "lots"
    try:
        (daily,) = database.load_bar_data("000001", Exchange.SZSE, Interval.DAILY, day, day)
    finally:
        del SETTINGS["qmt_orchestration.volume"]
    assert daily.volume == pytest.approx(minutes.vol.sum() / 100)
    ticks = database.load_tick_data("600000", Exchange.SSE, day, day + timedelta(hours=10))
    stored = api.ticks(C, day, day + timedelta(hours=10), settings=settings)
    assert [t.last_price for t in ticks] == stored.lastPrice.tolist()
    assert (ticks[-1].volume, ticks[-1].datetime) == (stored.total_volume.iloc[-1], stored.time.iloc[-1])
    overview = {(o.symbol, o.interval): o for o in database.get_bar_overview()}
    assert len(overview) == 6
    whole = overview[("300750", Interval.MINUTE)]
    assert (whole.count, whole.start, whole.end) == (480, at(DAYS[0], 570), at(DAYS[1], 899))
    assert {o.count for o in database.get_tick_overview()} == {2 * len(market.ticks()) // 3}
    for call in (
        lambda: database.save_bar_data(bars),
        lambda: database.save_tick_data(ticks),
        lambda: database.delete_bar_data("000001", Exchange.SZSE, Interval.MINUTE),
        lambda: database.delete_tick_data("000001", Exchange.SZSE),
    ):
        with pytest.raises(RuntimeError, match=r"vn\.py only reads it"):
            call()
    with pytest.raises(QueryError, match="SSE, SZSE, BSE"):
        database.load_bar_data("rb", Exchange.SHFE, Interval.DAILY, day, day)


def test_vnpys_datafeed_answers_requests_and_says_why_not(vnpy: tuple[ModuleType, Settings]) -> None:
    from vnpy.trader import datafeed as module
    from vnpy.trader.constant import Exchange, Interval
    from vnpy.trader.object import HistoryRequest

    feed = module.get_datafeed()
    assert feed.init() is True
    start = datetime(2025, 6, 4)  # noqa: DTZ001 - as vn.py's own programs give it
    request = HistoryRequest("600000", Exchange.SSE, start, start + timedelta(days=2), Interval.DAILY)
    assert [f"{bar.datetime.astimezone(SHANGHAI):%Y%m%d}" for bar in feed.query_bar_history(request)][-1] == "20250605"
    assert feed.query_tick_history(HistoryRequest("600000", Exchange.SSE, start, start + timedelta(days=3)))
    messages: list[str] = []
    assert (
        feed.query_bar_history(HistoryRequest("rb", Exchange.SHFE, start, start, Interval.DAILY), messages.append) == []
    )
    assert "expected an exchange of SSE, SZSE, BSE" in messages[0]


READ_BACK = """
import json, sys
import qlib
from qlib.data import D
qlib.init(provider_uri=sys.argv[1], region="cn", joblib_backend="threading", kernels=1)
found = D.features(["SZ000001"], ["$close/$factor", "$volume*$factor"], "2025-06-04", "2025-06-05")
print(json.dumps([[str(day.date()) for day in D.calendar()], *(found[name].tolist() for name in found)]))
"""


def test_pyqlib_reads_the_folder(world: tuple[Settings, Any], tmp_path: Path) -> None:
    python = os.environ.get("PYQLIB_PYTHON")  # of an environment of its own: it pins other versions than ours
    if not python:
        pytest.skip("needs PYQLIB_PYTHON, a Python with pyqlib")
    settings, _ = world
    export(tmp_path / "q", "day", *DAYS, settings=settings)
    command = [python, "-c", READ_BACK, str(tmp_path / "q")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calendar, close, volume = json.loads(done.stdout.splitlines()[-1])
    days = api.bars(A, None, None, "1d", settings=settings)
    assert calendar == [day.isoformat() for day in DAYS]
    assert close == pytest.approx(days.close.tolist())
    assert volume == pytest.approx(days.vol.tolist())
