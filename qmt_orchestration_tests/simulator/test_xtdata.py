"""The real xtquant Python layer over the simulator: what a program that uses the documented functions sees.

Each test runs a program in a process of its own, because xtquant and the simulator are registered once per process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("xtquant", reason="the xtquant package is not installed")

PRELUDE = """
import json, threading, time
from qmt_orchestration.settings import get_settings
from qmt_orchestration import simulator
simulation = simulator.install(get_settings())
from xtquant import xtdata
xtdata.enable_hello = False

def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.02)
"""


def run(program: str, **settings: object) -> Any:
    """What the program prints last, as JSON."""
    environment = {**os.environ, **{f"QMT_{name.upper()}": str(value) for name, value in settings.items()}}
    environment["TZ"] = "Asia/Shanghai"  # xtdata's calendar reckons in the machine's zone, which is this beside QMT
    # xtquant asks the package index for updates when it is imported; a proxy that refuses answers at once
    environment |= {
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout.lower(), done.stdout
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_whole_quote_begins_with_the_full_snapshot_and_goes_on_with_changes() -> None:
    out = run(
        """
        pushes = []
        number = xtdata.subscribe_whole_quote(["SH", "SZ", "BJ"], pushes.append)
        until(lambda: sum(map(len, pushes)) > 3000)
        clock = simulator.current_clock()
        left = xtdata.unsubscribe_quote(number)
        tick = pushes[-1][next(iter(pushes[-1]))]
        print(json.dumps({"number": number, "first": len(pushes[0]), "rest": [len(p) for p in pushes[1:]],
                          "clock": clock, "left": left, "keys": list(tick), "tick": tick,
                          "types": sorted({type(p).__name__ for p in pushes})}))
        """,
        sim_symbols=100,
        sim_speed=200,
        sim_start_time="09:59:00",
    )
    assert out["number"] > 0
    assert out["first"] == 107
    assert out["types"] == ["dict"]
    assert max(out["rest"]) <= 107
    assert out["left"] is True
    assert out["clock"][1] == 200
    assert {"time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "pvolume"} <= set(out["keys"])
    assert {"stockStatus", "openInt", "transactionNum", "askPrice", "bidPrice", "askVol", "bidVol"} <= set(out["keys"])
    assert len(out["tick"]["askPrice"]) == len(out["tick"]["bidVol"]) == 5


def test_a_market_or_some_symbols_only_and_quotes_as_lists() -> None:
    out = run(
        """
        shanghai, two, quote, bars = [], [], [], []
        xtdata.subscribe_whole_quote(["SH"], shanghai.append)
        xtdata.subscribe_whole_quote(["000001.SZ", "600000.SH"], two.append)
        xtdata.subscribe_quote("000001.SZ", period="tick", callback=quote.append)
        xtdata.subscribe_quote("000001.SZ", period="1m", callback=bars.append)
        until(lambda: len(quote) > 40 and len(bars) > 2)
        print(json.dumps({"sh": sorted({s[-2:] for p in shanghai for s in p}),
                          "two": sorted({s for p in two for s in p}),
                          "quote": [type(v).__name__ for p in quote for v in p.values()][0], "bar": bars[0]}))
        """,
        sim_symbols=100,
        sim_speed=200,
        sim_start_time="09:59:00",
    )
    assert out["sh"] == ["SH"]
    assert out["two"] == ["000001.SZ", "600000.SH"]
    assert out["quote"] == "list"
    (bar,) = out["bar"]["000001.SZ"]
    assert bar["time"] % 60_000 == 0
    assert bar["low"] <= bar["open"] <= bar["high"]


def test_reference_data() -> None:
    out = run(
        """
        members = xtdata.get_stock_list_in_sector("沪深京A股")
        detail = xtdata.get_instrument_detail("000001.SZ")
        full = xtdata.get_full_tick(["000001.SZ"])
        factors = [s for s in members if len(xtdata.get_divid_factors(s, "20240101", "20250605"))]
        print(json.dumps({"sectors": xtdata.get_sector_list(), "members": members, "detail": detail,
            "unknown": xtdata.get_instrument_detail("999999.SZ"),
            "dates": xtdata.get_trading_dates("SH", "20250501", "20250605"),
            "holidays": xtdata.get_holidays(), "calendar": xtdata.get_trading_calendar("SH", "20250601", "20251231"),
            "full": full, "factors": len(factors), "periods": xtdata.get_period_list(),
            "columns": list(xtdata.get_divid_factors(factors[0], "20240101", "20250605").columns)}))
        """,
        sim_symbols=100,
        sim_speed=1,
        sim_start_time="10:00:00",
    )
    assert len(out["members"]) == 100
    assert "沪深京A股" in out["sectors"]
    detail = out["detail"]
    assert detail["InstrumentName"] == "平安银行"
    assert detail["DownStopPrice"] < detail["PreClose"] < detail["UpStopPrice"]
    assert detail["InstrumentStatus"] == 0
    assert out["unknown"] is None
    assert len(out["dates"]) == 22
    assert "20250602" in out["holidays"]  # dragon boat festival
    assert "20251001" not in out["calendar"]
    assert "20251009" in out["calendar"]
    assert out["full"]["000001.SZ"]["timetag"].startswith("20250605 ")
    assert out["factors"] > 80
    assert {"interest", "dr", "time"} <= set(out["columns"])


def test_history_is_padding_until_it_is_downloaded_and_the_full_kline_is_todays() -> None:
    out = run(
        """
        def get(period):
            frames = xtdata.get_market_data_ex([], ["000001.SZ", "600000.SH"], period, "20250604", "20250604",
                                               dividend_type="none", fill_data=False)
            return {s: {"rows": len(f), "index": [f.index[0], f.index[-1]], "volume": int(f["volume"].sum()),
                        "suspended": sorted(set(f["suspendFlag"].tolist()))} for s, f in frames.items()}
        before = get("1m")
        progress = []
        for period in ("1m", "5m", "1d"):
            xtdata.download_history_data2(["000001.SZ", "600000.SH"], period, "20250604", "20250604", progress.append)
        after = {p: get(p) for p in ("1m", "5m", "1d")}
        kline = xtdata.get_full_kline(["close", "time"], ["000001.SZ", "600000.SH"], "1m", count=5)
        print(json.dumps({"before": before, "after": after, "progress": progress,
                          "kline": [list(kline["close"].index), list(kline["close"].columns)]}))
        """,
        sim_symbols=100,
        sim_speed=1,
        sim_start_time="10:00:20",
    )
    for symbol in ("000001.SZ", "600000.SH"):
        assert out["before"][symbol]["suspended"] == [1]
        assert out["before"][symbol]["volume"] == 0
        rows = {period: values[symbol]["rows"] for period, values in out["after"].items()}
        assert rows == {"1m": 241, "5m": 48, "1d": 1}
        volumes = [values[symbol]["volume"] for values in out["after"].values()]
        assert volumes[0] == volumes[1] == volumes[2] > 0
        assert out["after"]["1m"][symbol]["index"] == ["20250604093000", "20250604150000"]
        assert out["after"]["1m"][symbol]["suspended"] == [0]
    assert [p["finished"] for p in out["progress"]] == [1, 2] * 3
    assert out["kline"][0] == ["000001.SZ", "600000.SH"]
    assert out["kline"][1][-1] in ("20250605100000", "20250605100100")
    assert len(out["kline"][1]) == 5


def test_a_broken_connection_shows_and_xtdata_connects_again() -> None:
    out = run(
        """
        states, pushes, again = [], [], []
        xtdata.watch_xtquant_status(states.append)
        xtdata.subscribe_whole_quote(["SH", "SZ", "BJ"], pushes.append)
        client = xtdata.get_client()
        until(lambda: not client.is_connected())
        number = xtdata.subscribe_whole_quote(["SH", "SZ", "BJ"], again.append)
        until(lambda: len(again) > 3)
        print(json.dumps({"states": [s["status"] for s in states], "number": number, "first": len(again[0])}))
        """,
        sim_symbols=30,
        sim_speed=0,
        sim_start_time="09:59:40",
        sim_faults=json.dumps(["drop-connection@10:00"]),
    )
    assert out["states"][:3] == ["connected", "disconnected", "connected"]
    assert out["number"] > 0
    assert out["first"] >= 30


def test_a_whole_day_at_speed_zero_finishes_and_is_the_same_each_time() -> None:
    program = """
        import hashlib
        digest, count = hashlib.sha256(), 0
        def on_data(push):
            global count
            count += len(push)
            digest.update(repr(push).encode())
        xtdata.subscribe_whole_quote(["SH", "SZ", "BJ"], on_data)
        assert simulator.wait_finished(100)
        print(json.dumps([count, digest.hexdigest(), simulator.current_clock()]))
        """
    first, second = (run(program, sim_symbols=4, sim_speed=0, sim_start_time="09:14:00") for _ in range(2))
    assert first == second
    assert first[0] > 10_000
    assert first[2][1] == 0


def test_a_replay_goes_through_the_same_layer(tmp_path: Path) -> None:
    rows = 2000
    path = tmp_path / "ticks.parquet"
    names = ("lastPrice", "open", "high", "low", "lastClose", "amount")
    columns: dict[str, Any] = {"symbol": ["000001.SZ", "600000.SH"] * (rows // 2)}
    columns |= {"time": [1_654_046_100_000 + i * 1500 for i in range(rows)]}
    columns |= {name: [10.0 + i / 100 for i in range(rows)] for name in names}
    columns |= {name: list(range(rows)) for name in ("volume", "pvolume", "stockStatus", "openInt")}
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    out = run(
        """
        seen = []
        xtdata.subscribe_whole_quote(["SH", "SZ", "BJ"], lambda push: seen.extend(t["pvolume"] for t in push.values()))
        assert simulator.wait_finished(60)
        print(json.dumps({"seen": seen, "members": xtdata.get_stock_list_in_sector("沪深京A股"),
            "close": xtdata.get_instrument_detail("600000.SH")["PreClose"], "clock": simulator.current_clock()}))
        """,
        feed="replay",
        replay_files=json.dumps([str(path)]),
    )
    assert out["seen"] == list(range(rows))
    assert out["members"] == ["000001.SZ", "600000.SH"]
    assert out["close"] == pytest.approx(10.0 + (rows - 1) / 100)
    assert out["clock"] is None


def test_the_simulator_itself_imports_nothing_of_xtquant() -> None:
    code = (
        "import sys; from qmt_orchestration.simulator import datacenter; "
        "print([m for m in sys.modules if m.startswith('xtquant')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
