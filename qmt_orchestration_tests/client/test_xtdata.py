"""Our xtdata beside the real one: the same calls, the same answers, from a warehouse filled from the same market."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qmt_orchestration.client import bars as bars_of
from qmt_orchestration.client import snapshot, xtdata
from qmt_orchestration.client.errors import UnknownSymbol
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.client import calls, filled, simulated
from qmt_orchestration_tests.helpers import free_port

DAY = date(2025, 6, 5)
MARKET = {"sim_symbols": 300, "sim_speed": 1.0, "sim_date": "2025-06-05", "sim_start_time": "15:40:00"}
#: Fields that the terminal gives and the warehouse does not hold (docs/xtdata.md).
BAR_LACKS = ["settelementPrice", "openInterest"]
TICK_LACKS = ["lastSettlementPrice", "settlementPrice"]
#: Ours are exact to 0.01 yuan, the terminal's are whole yuan.
YUAN = {"amount": 1.0}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers of the real Python layer, in a process of its own."""
    path = tmp_path_factory.mktemp("real") / "answers.pickle"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QMT_")}
    environment |= {f"QMT_{name.upper()}": str(value) for name, value in MARKET.items()}
    environment |= {"QMT_FEED": "simulator", "TZ": "Asia/Shanghai"}  # xtquant reckons in the machine's zone
    command = [sys.executable, "-m", "qmt_orchestration_tests.client.calls", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = pickle.loads(path.read_bytes())
    return found


@pytest.fixture(scope="module")
def world(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A warehouse filled from the market that the simulator shows."""
    market = engine_settings.model_copy(update={**MARKET, "dagster_port": free_port()})
    with filled.database(market, tmp_path_factory.mktemp("xtdata")) as (settings, client):
        first = date(int(calls.FIRST[:4]), int(calls.FIRST[4:6]), int(calls.FIRST[6:]))
        simulated.fill(client, settings, calls.ALL, first, DAY)
        with connect_redis(settings) as server:
            publish_clock(server, to_ms(at(DAY, 15 * 60 + 40)), 0.0)
        xtdata.use(settings)
        yield settings
        xtdata.use(None)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Shanghai"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def same_frame(name: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert list(ours.columns) == list(theirs.columns), name
    assert list(ours.index) == list(theirs.index), name
    assert ours.dtypes.tolist() == theirs.dtypes.tolist(), name
    for column in ours.columns:
        mine, other = ours[column].to_numpy(), theirs[column].to_numpy()
        if mine.dtype == object:
            assert [list(v) for v in mine] == [list(v) for v in other], (name, column)
        else:
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=YUAN.get(column, 1e-9), err_msg=f"{name} {column}")


@pytest.fixture(scope="module")
def ours(world: Settings) -> dict[str, Any]:
    return calls.answers(xtdata)


def test_every_call_is_compared(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert set(ours) == set(theirs) - {"progress"}


def test_bars_of_every_period_range_count_and_adjustment(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    compared = 0
    for name in (n for n in ours if n.startswith(("ex ", "local "))):
        assert list(ours[name]) == list(theirs[name]), name
        for code, frame in ours[name].items():
            other = theirs[name][code]
            other = other.drop(columns=[c for c in BAR_LACKS if c in other.columns])
            same_frame(f"{name} {code}", frame, other)
            compared += len(frame)
    assert compared > 10_000
    assert len(ours["ex 1m filled"][calls.HALTED]) == 482
    assert not np.allclose(ours["ex 1d front"]["000082.SZ"].close, ours["ex 1d none"]["000082.SZ"].close)


def test_tables_by_field(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in ("plain 1d", "plain 1m count", "plain 1m gaps filled True", "plain 1m gaps filled False", "full kline"):
        assert list(ours[name]) == list(theirs[name]), name
        for field, frame in ours[name].items():
            same_frame(f"{name} {field}", frame, theirs[name][field])


def test_ticks_of_the_past_and_the_newest(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in ("ticks ex", "ticks ex count"):
        for code in calls.SYMBOLS:
            same_frame(f"{name} {code}", ours[name][code], theirs[name][code])
    for code in calls.SYMBOLS:
        mine, other = ours["ticks"][code], theirs["ticks"][code]
        for field in mine.dtype.names:
            assert mine[field].dtype == other[field].dtype, field
            assert mine[field].tolist() == other[field].tolist(), field
    assert set(ours["full tick"]) == set(theirs["full tick"]) == set(calls.SYMBOLS)
    for code, tick in ours["full tick"].items():
        other = theirs["full tick"][code]
        assert set(tick) == set(other) - set(TICK_LACKS)
        for field, value in tick.items():
            assert type(value) is type(other[field]), field
            assert value == pytest.approx(other[field]), (code, field)
        with pytest.raises(NotImplementedError, match="'settlementPrice'"):
            tick["settlementPrice"]
    assert ours["full tick unknown"] == {}


def test_reference_data(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for code, detail in ours["detail"].items():
        other = theirs["detail"][code]
        assert (detail is None) == (other is None), code
        if detail is not None:
            assert set(detail) < set(other)
            assert {name: other[name] for name in detail} == detail
            with pytest.raises(NotImplementedError, match="'FloatVolume'"):
                detail["FloatVolume"]
    stocks = calls.SYMBOLS
    assert {c: ours["type"][c] for c in stocks} == {c: theirs["type"][c] for c in stocks}
    assert ours["type"]["510050.SH"].items() >= theirs["type"]["510050.SH"].items()
    assert set(ours["sectors"]) < set(theirs["sectors"])
    for name in ("members", "dates", "calendar", "holidays", "no factors", "text of a time", "time of a text"):
        assert ours[name] == theirs[name], name
    for code in calls.SYMBOLS:
        other = theirs["factors"][code]
        mine = ours["factors"][code]
        same_frame(f"factors {code}", mine, other.reindex(columns=mine.columns) if len(other) else mine.iloc[:0])


def test_downloads_say_what_is_there(theirs: dict[str, Any], world: Settings) -> None:
    progress = calls.download(xtdata)
    assert [{**t, "message": ""} for t in progress] == theirs["progress"]
    assert {t["message"] for t in progress} == {"already there"}
    assert xtdata.download_history_data("600000.SH", "1d") is None
    with pytest.raises(
        xtdata.HistoryMissing,
        match=r"of 2 trading days \(2025-05-15, 2025-05-16\).*qmt backfill --from 2025-05-15 --to 2025-05-16",
    ):
        xtdata.download_history_data("600000.SH", "1d", "20250515", "20250605")


def test_a_download_of_days_that_are_missing_has_them_made_and_shows_how_far_that_is(world: Settings) -> None:
    """Against the words of Dagster's API (test_webserver.py asks the real one); the run brings the days."""
    told: list[dict[str, Any]] = []
    days = [date(2025, 5, 15), date(2025, 5, 16)]
    with api(world.dagster_port, world) as asked:
        xtdata.download_history_data2(calls.SYMBOLS[:4], "1d", "20250515", "20250605", told.append)
        assert [day for day, _ in asked] == list(map(str, days))
        assert {job for _, job in asked} == {"reconcile_day"}
    assert [(t["finished"], t["message"]) for t in told] == [
        (0, "2025-05-15: 0 of 2 steps"),
        (1, "2025-05-15: 1 of 2 steps"),
        (2, "2025-05-16: 0 of 2 steps"),
        (3, "2025-05-16: 1 of 2 steps"),
        (4, "fetched"),
    ]
    assert {t["total"] for t in told} == {4}
    with (
        api(world.dagster_port, world, ends="FAILURE"),
        pytest.raises(
            xtdata.HistoryMissing,
            match=r"2025-05-13.*run of 2025-05-13 ended with FAILURE: http://127.0.0.1:\d+/runs/r",
        ),
    ):
        xtdata.download_history_data("600000.SH", "1d", "20250513", "20250605")


@contextmanager
def api(port: int, settings: Settings, ends: str = "SUCCESS") -> Iterator[list[tuple[str, str]]]:
    """A GraphQL endpoint that starts runs; one that ends well has put daily bars of its day in place."""
    asked: list[tuple[str, str]] = []
    steps: list[tuple[str, int]] = []

    def answer(query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "launchRun" in query:
            params = variables["params"]
            day = next(t["value"] for t in params["executionMetadata"]["tags"] if t["key"] == "dagster/partition")
            asked.append((day, params["selector"]["jobName"]))
            steps[:] = [("STARTED", 0), ("STARTED", 1), (ends, 2)]
            return {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}}
        if "runOrError" in query:
            status, done = steps.pop(0)
            if status == "SUCCESS":
                with connect(settings) as client:
                    made = [date.fromisoformat(asked[-1][0])]
                    simulated.insert_daily(client, settings.sim_seed, calls.SYMBOLS[:4], made)
            plan = {"steps": [{"key": "a"}, {"key": "b"}]}
            stats = [{"stepKey": "ab"[n], "status": "SUCCESS"} for n in range(done)]
            return {"runOrError": {"__typename": "Run", "status": status, "stepStats": stats, "executionPlan": plan}}
        node = {"name": "__repository__", "location": {"name": "qmt"}, "jobs": [{"name": "reconcile_day"}]}
        return {"repositoriesOrError": {"nodes": [node]}}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = json.dumps({"data": answer(body["query"], body["variables"])}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        with connect(settings) as client:
            client.command("ALTER TABLE bars_1d DELETE WHERE frame < '2025-05-17'", settings={"mutations_sync": 1})


def test_the_same_answers_in_every_time_zone(theirs: dict[str, Any], world: Settings, zone: str) -> None:
    found = xtdata.get_market_data_ex([], calls.SYMBOLS, "1d", calls.DAYS[0], calls.DAYS[1], fill_data=False)
    for code in calls.SYMBOLS:
        same_frame(zone, found[code], theirs["ex 1d"][code].drop(columns=BAR_LACKS))
    assert found["000001.SZ"].time.iloc[-1] == to_ms(at(DAY, 0))
    assert xtdata.get_trading_dates("SH", "20250501", "20250605") == theirs["dates"][0]
    assert xtdata.timetag_to_datetime(1749087000000, "%Y%m%d %H:%M:%S") == "20250605 09:30:00"
    assert xtdata.get_full_tick(["600000.SH"])["600000.SH"]["timetag"] == theirs["full tick"]["600000.SH"]["timetag"]


def test_weeks_and_months_come_from_days(world: Settings) -> None:
    days = xtdata.get_market_data_ex([], ["000082.SZ"], "1d", "20250519", "20250605")["000082.SZ"]
    weeks = xtdata.get_market_data_ex([], ["000082.SZ"], "1w", "20250519", "20250605")["000082.SZ"]
    assert list(weeks.index) == ["20250523", "20250530", "20250605"]
    assert weeks.volume.tolist() == [days.volume[:5].sum(), days.volume[5:10].sum(), days.volume[10:].sum()]
    assert weeks.preClose.iloc[0] == days.preClose.iloc[0]
    months = xtdata.get_market_data_ex(["close"], ["000082.SZ"], "1mon", "", "20250605", 1)["000082.SZ"]
    assert (list(months.index), months.close.tolist()) == (["20250605"], [days.close.iloc[-1]])


def test_bad_calls_are_refused_by_name(world: Settings) -> None:
    ex = xtdata.get_market_data_ex
    for kind, words, arguments in (
        (xtdata.UnknownPeriod, "'2h'", ([], ["600000.SH"], "2h")),
        (NotImplementedError, "'l2quote'", ([], ["600000.SH"], "l2quote")),
        (xtdata.UnknownField, "'vol'", (["vol"], ["600000.SH"], "1d")),
        (NotImplementedError, "'openInterest'", (["openInterest"], ["600000.SH"], "1d")),
        (xtdata.BadSymbol, r"did you mean 600519\.SH", ([], ["600519"], "1d")),
        (xtdata.BadRange, "ends before it starts", ([], ["600000.SH"], "1d", "20250605", "20250604")),
        (xtdata.BadTime, "'2025'", ([], ["600000.SH"], "1d", "2025")),
        (xtdata.QueryError, "count", ([], ["600000.SH"], "1d", "", "", -5)),
        (xtdata.UnknownAdjustment, "'qfq'", ([], ["600000.SH"], "1d", "", "", -1, "qfq")),
    ):
        with pytest.raises(kind, match=words):
            ex(*arguments)
    one = ["600000.SH", "000001.SZ"]
    for kind, words, call in (
        (xtdata.BadSymbol, "found None", lambda: ex([], None, "1d")),
        (xtdata.BadSymbol, "found None", lambda: xtdata.get_full_tick(None)),  # type: ignore[arg-type]
        (xtdata.BadSymbol, "expected one code", lambda: xtdata.get_instrument_detail(one)),  # type: ignore[arg-type]
        (xtdata.BadSymbol, "expected one code", lambda: xtdata.get_divid_factors([])),  # type: ignore[arg-type]
        (xtdata.QueryError, "count", lambda: xtdata.get_trading_dates("SH", count="5")),  # type: ignore[arg-type]
        (xtdata.QueryError, "callback", lambda: xtdata.download_history_data2(one, "tick", callback=5)),  # type: ignore[arg-type]
        (xtdata.QueryError, "callback", lambda: xtdata.subscribe_whole_quote(one, 5)),  # type: ignore[arg-type]
        (xtdata.BadTime, "milliseconds", lambda: xtdata.timetag_to_datetime(float("inf"), "%Y")),
    ):
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(NotImplementedError, match="'半导体'"):
        xtdata.get_stock_list_in_sector("半导体")
    with pytest.raises(xtdata.UnknownMarket, match="'HK'"):
        xtdata.get_trading_dates("HK")
    with pytest.raises(NotImplementedError, match=r"xtdata\.get_financial_data"):
        xtdata.get_financial_data(["600000.SH"])
    with pytest.raises(AttributeError, match="get_nothing"):
        xtdata.get_nothing  # noqa: B018
    assert len(ex([], ["600000.SH"], "1d", "20990101", "20990105")["600000.SH"]) == 0


def test_the_whole_market_may_be_asked_for_by_name(world: Settings) -> None:
    codes = [f"{number:06d}.SH" for number in range(600000, 605500)]
    found = xtdata.get_market_data_ex(["close"], codes, "1d", calls.DAYS[0], calls.DAYS[1])
    assert list(found) == codes
    assert [code for code in codes if len(found[code])] == ["600000.SH"]
    table = xtdata.get_market_data(["close"], codes, "1d", calls.DAYS[0], calls.DAYS[1])["close"]
    assert table.shape == (5500, 2)
    assert list(xtdata.get_full_tick(codes)) == ["600000.SH"]


def test_an_empty_warehouse_has_empty_answers(world: Settings, engine_settings: Settings, tmp_path: Path) -> None:
    with filled.database(engine_settings, tmp_path) as (settings, _):
        xtdata.use(settings)
        try:
            bars = xtdata.get_market_data_ex(["close", "time"], calls.SYMBOLS, "1m")
            assert {code: (len(f), list(f.columns)) for code, f in bars.items()} == dict.fromkeys(
                calls.SYMBOLS, (0, ["close", "time"])
            )
            for table in (
                xtdata.get_full_kline(["close"], calls.SYMBOLS)["close"],
                xtdata.get_market_data(["close"], calls.SYMBOLS, "1d", count=5)["close"],
            ):
                assert (list(table.index), table.shape) == (calls.SYMBOLS, (4, 0))
            assert [len(rows) for rows in xtdata.get_market_data([], calls.SYMBOLS, "tick").values()] == [0] * 4
            assert xtdata.get_full_tick(["SH", *calls.SYMBOLS]) == {}
            assert xtdata.get_instrument_detail("600000.SH") is None
            assert xtdata.get_stock_list_in_sector("沪深A股") == []
            assert len(xtdata.get_divid_factors("600000.SH")) == 0
            with pytest.raises(xtdata.HistoryMissing, match="of 1 trading days"):
                xtdata.download_history_data("600000.SH", "1d", "20250604", "20250604")
            with pytest.raises(UnknownSymbol, match=r"nothing of 600000\.SH, nor of any other"):
                bars_of("600000", "20250604", settings=settings)
            assert list(snapshot(settings=settings).columns)[:3] == ["symbol", "time", "price"]
        finally:
            xtdata.use(world)


def test_every_function_of_xtdata_is_served_or_named() -> None:
    import ast
    from importlib.util import find_spec

    spec = find_spec("xtquant")  # its files are read, not imported
    assert spec is not None
    assert spec.submodule_search_locations is not None
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / "xtdata.py").read_text("utf-8"))
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    internal = {"try_except", "hello", "create_array", "get_field_list", "getDividFactors", "timetagToDateTime"}
    missing = [n for n in public - internal if not hasattr(xtdata, n)]
    documented = (Path(spec.submodule_search_locations[0]) / "doc" / "xtdata.md").read_text("utf-8")
    assert [name for name in missing if f"{name}(" in documented] == []


def test_the_alias_is_installed_on_request_only(world: Settings) -> None:
    program = (
        "import sys\nfrom qmt_orchestration.client import xtdata as ours\nassert 'xtquant' not in sys.modules\n"
        "ours.install_alias()\nours.install_alias()\nfrom xtquant import xtdata\nimport xtquant.xtdata as again\n"
        "assert xtdata is ours and again is ours\n"
        "found = xtdata.get_market_data_ex(['close'], ['600000.SH'], '1d', '20250604', '20250605')\n"
        "print(found['600000.SH'].close.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **world.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    closes = xtdata.get_market_data_ex(["close"], ["600000.SH"], "1d", "20250604", "20250605")[
        "600000.SH"
    ].close.tolist()
    assert done.stdout.strip() == str(closes)
