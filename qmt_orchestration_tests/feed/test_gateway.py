"""The gateway over the real xtquant layer and the simulated market, asked over Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from qmt_orchestration.feed import kinds, probe, xt
from qmt_orchestration.feed.gateway import Gateway, _instrument
from qmt_orchestration.feed.history import History, HistoryError, Progress, to_bars
from qmt_orchestration.market.schema import BAR_SCHEMA, check_schema
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import heartbeat, rpc
from qmt_orchestration.stream.rpc import Call
from qmt_orchestration_tests.helpers import wait_until

#: Units per 手.
LOTS = {"600000.SH": 100, "510300.SH": 100, "113050.SH": 10, "000300.SH": 1, "600001.SH": 1}


@pytest.fixture(scope="module")
def gateway(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a running gateway, at 10:30 of a simulated day."""
    from qmt_orchestration.stream.connection import connect

    settings = engine_settings.model_copy(
        update={
            "data_dir": tmp_path_factory.mktemp("gateway"),
            "feed": "simulator",
            "sim_symbols": 60,
            "sim_speed": 1.0,
            "sim_start_time": "10:30:00",
        }
    )
    client = connect(settings)
    client.flushall()
    process = subprocess.Popen(
        [sys.executable, "-m", "qmt_orchestration.services", "run", "gateway"],
        env={**os.environ, **settings.environment()},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: heartbeat.is_alive(client, "gateway"), 40, "the gateway beats")
        yield client
    finally:
        process.terminate()
        process.wait(15)


def ask(client: redis.Redis, method: str, **params: Any) -> Any:
    return rpc.call(client, method, params, timeout_seconds=60)


def symbols(client: redis.Redis, count: int) -> list[str]:
    return list(ask(client, "instruments").column("symbol").to_pylist()[:count])


def test_instruments_carry_limits_and_boards(gateway: redis.Redis) -> None:
    rows = ask(gateway, "instruments").to_pylist()
    assert len(rows) == 60
    assert all(row["board"] and row["pre_close"] > 0 and row["up_stop"] > row["down_stop"] > 0 for row in rows)
    assert {str(row["day"]) for row in rows} == {"2025-06-05"}


def test_instruments_of_an_earlier_simulated_day(gateway: redis.Redis) -> None:
    rows = ask(gateway, "instruments", day="2025-06-04").to_pylist()
    assert {str(row["day"]) for row in rows} == {"2025-06-04"}


def test_history_of_a_whole_day_is_complete_in_shares(gateway: redis.Redis) -> None:
    wanted, told = symbols(gateway, 8), []
    bars = rpc.call(
        gateway,
        "history",
        {"symbols": wanted, "period": "1m", "start": "20250604", "end": "20250604"},
        timeout_seconds=60,
        on_progress=told.append,
    )
    check_schema(bars.schema, BAR_SCHEMA)
    frame = bars.to_pandas()
    daily = ask(gateway, "history", symbols=wanted, period="1d", start="20250604", end="20250604").to_pandas()
    assert set(daily["frame"].dt.strftime("%H:%M")) == {"15:00"}
    assert (frame["vol"] % 100 == 0).all()
    assert (frame.groupby("symbol").size() <= 241).all()
    assert frame.groupby("symbol").size().max() == 241
    assert told[-1]["symbols"] == 8
    both = frame.groupby("symbol")["vol"].sum().to_frame("minutes").join(daily.set_index("symbol")["vol"])
    assert (both["minutes"] <= both["vol"]).all()  # the daily row also has the after-hours volume


def test_calendar_ticks_and_factors(gateway: redis.Redis) -> None:
    days = ask(gateway, "calendar", start="2025-05-30", end="2025-06-05").column("day").to_pylist()
    assert [str(day) for day in days] == ["2025-05-30", "2025-06-03", "2025-06-04", "2025-06-05"]
    ticks = ask(gateway, "full_tick", symbols=symbols(gateway, 5))
    assert ticks.num_rows == 5
    factors = ask(gateway, "adjust_factors", symbols=symbols(gateway, 60)).to_pylist()
    assert factors
    assert all(row["dr"] >= 1 for row in factors)


def test_members_of_sectors_by_day_and_an_unknown_sector_does_not_hold_up_the_others(gateway: redis.Redis) -> None:
    def members(day: str) -> dict[str, set[str]]:
        rows = ask(gateway, "sector_members", sectors=["半导体", "沪深300", "创业板"], day=day).to_pylist()
        return {s: {r["symbol"] for r in rows if r["sector"] == s} for s in ("半导体", "沪深300", "创业板")}

    today, later = members("2025-06-05"), members("2025-06-16")
    assert today["半导体"] == {None}
    assert today["创业板"] == later["创业板"]
    assert today["创业板"] <= set(symbols(gateway, 60))
    assert len(today["沪深300"]) == len(later["沪深300"]) == 3
    assert members("2025-06-05") == today


def test_a_terminal_that_calls_it_something_else_is_said_to(gateway: redis.Redis) -> None:
    assert {row["kind_doubt"] for row in ask(gateway, "instruments").to_pylist()} == {""}

    class Terminal:
        def get_instrument_type(self, symbol: str) -> dict[str, bool]:
            if symbol == "600000.SH":
                raise Exception("no data")
            return {"stock": symbol == "510300.SH", "fund": symbol == "159915.SZ", "etf": symbol == "159915.SZ"}

        def get_stock_list_in_sector(self, sector: str, when: object = -1) -> list[str]:
            return ["000001.SZ", "113050.SH"] if sector == "沪深A股" else []

    wanted = ["000001.SZ", "113050.SH", "159915.SZ", "510300.SH", "600000.SH"]
    assert kinds.doubts(Terminal(), wanted) == {"113050.SH": "sector 沪深A股", "510300.SH": "type stock"}


def test_factors_that_are_no_numbers_are_left_out_and_counted(gateway: redis.Redis) -> None:
    class Terminal:
        def get_divid_factors(self, symbol: str, start: str, end: str) -> pd.DataFrame:
            rows = {"20250604": 1.03, "20250605": float("nan"), "20250606": 0.0, "soon": 1.1, "20990101": 1.2}
            return pd.DataFrame({"interest": 0.3, "dr": rows})

    served = Gateway(
        Settings(feed="simulator"),
        xt.Terminal(Terminal(), clock=lambda: None, now_ms=None, finished=lambda: False, failed=lambda: False),
    )
    call = Call({"symbols": ["600000.SH"]}, 0, lambda _: None)
    (found,) = served.get_adjust_factors(call)
    assert [str(row["ex_date"]) for row in found.to_pylist()] == ["2025-06-04", "2099-01-01"]
    assert served.rejected["factor"] == 3


def test_probe_of_a_terminal_writes_one_file(tmp_path: Path) -> None:
    """Over the simulator; what it does not answer stands there as its error."""
    target = tmp_path / "terminal.json"
    settings = Settings(
        data_dir=tmp_path, feed="simulator", sim_start_time="10:30:00", sim_symbols=100,
        sim_kinds=("stock", "fund", "index", "convertible", "repo"),
    )  # fmt: skip
    asked = subprocess.run(
        [sys.executable, "-m", "qmt_orchestration.cli", "probe-terminal", "--output", str(target)],
        env={**os.environ, **settings.environment()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    document = json.loads(target.read_text(encoding="utf-8"))
    assert {about["kind"] for about in document["codes"].values()} == {kind.value for kind in probe.CODES}
    bond = document["codes"]["113050.SH"]
    assert bond["full_tick"]["lastPrice"] > 0
    assert bond["detail"]["PriceTick"] == 0.001
    assert bond["instrument_type"] == {"bond": True}
    assert len(bond["full_kline_1m"]["close"]) == 3
    assert document["codes"]["019547.SH"]["full_tick"] is None


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("history", {"symbols": "000001.SZ", "period": "1m", "start": "20250604", "end": "20250604"}, "symbols"),
        ("history", {"symbols": ["000001.SZ"], "period": "1m", "end": "20250604"}, "start"),
        ("instruments", {"day": "yesterday"}, "expected like"),
        ("sector_members", {"day": "2025-06-05", "sectors": "沪深300"}, "sectors: expected a list"),
        ("sector_members", {"sectors": ["沪深300"]}, "day: expected like"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    gateway: redis.Redis, method: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(rpc.RpcError, match=message):
        ask(gateway, method, **params)


# -- history, without a process ----------------------------------------------------------------------------------


def frame(**columns: list[Any]) -> pd.DataFrame:
    count = len(columns["volume"])
    prices = {name: columns.get("price", [10.0] * count) for name in ("open", "high", "low", "close")}
    times = [1_749_000_660_000 + 60_000 * n for n in range(count)]
    base = {"time": times, **prices, "amount": [1000.0] * count, "suspendFlag": [0] * count}
    columns.pop("price", None)
    return pd.DataFrame({**base, **columns})


def test_padding_rows_of_both_kinds_are_left_out_and_counted() -> None:
    frames = {
        "600000.SH": frame(volume=[5, 0, 0], suspendFlag=[0, 1, 0]),  # traded, padding, a minute without a trade
        "600001.SH": frame(volume=[0, 0], price=[0.0, 0.0]),  # padding with price 0
        "600002.SH": pd.DataFrame(),
    }
    table, left_out = to_bars(frames, "1m")
    assert (table.num_rows, dict(left_out)) == (2, {"padding": 3})
    assert table.column("vol").to_pylist() == [500, 0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": float("nan")}, "not_finite"),
        ({"volume": float("inf")}, "not_finite"),
        ({"open": None}, "not_finite"),
        ({"volume": -3}, "negative"),
        ({"amount": -1.0}, "negative"),
        ({"low": 0.0}, "zero_price"),
        ({"high": 9.0}, "price_outside_range"),
        ({"volume": 2**40}, "volume_too_large"),
        ({"time": 1_749_000_600_000 + 12_600_000}, "bad_time"),  # 13:00, which no bar has
        ({"time": 1_749_000_660_001}, "bad_time"),
        ({"time": 1_748_741_460_000}, "bad_time"),  # a Sunday
        ({"time": 1_749_000_720_000}, "duplicate"),
    ],
)
def test_rows_that_are_no_bars_are_rejected_with_their_reason(change: dict[str, Any], reason: str) -> None:
    rows = frame(volume=[5.0, 5.0]).astype(object)
    for name, value in change.items():
        rows.loc[0, name] = value
    table, left_out = to_bars({"600000.SH": rows}, "1m")
    assert (table.num_rows, dict(left_out)) == (1, {reason: 1})


def test_a_daily_row_is_stamped_with_the_midnight_of_a_trading_day() -> None:
    rows = frame(volume=[5, 5, 5])
    rows["time"] = [1_748_966_400_000, 1_749_052_800_000 + 3_600_000, 1_749_225_600_000]  # Wednesday, 01:00, Saturday
    table, left_out = to_bars({"600000.SH": rows}, "1d")
    assert [str(frame)[:16] for frame in table.column("frame").to_pylist()] == ["2025-06-04 15:00"]
    assert dict(left_out) == {"bad_time": 2}


def test_history_comes_in_the_instrument_s_own_unit() -> None:
    rows = {s: frame(volume=[50], amount=[50 * lot * 10.0]) for s, lot in LOTS.items()}
    table, _ = to_bars(rows, "1m")
    found = dict(zip(table.column("symbol").to_pylist(), table.column("vol").to_pylist(), strict=True))
    assert found == {s: 50 * lot for s, lot in LOTS.items()}


def test_sentinels_of_an_instrument_become_null_and_is_trading_is_not_read() -> None:
    row = _instrument(
        date(2025, 6, 5),
        "123219.SZ",
        {
            "InstrumentName": "宇瞳转债",
            "IsTrading": False,
            "InstrumentStatus": 2_147_483_647,
            "UpStopPrice": 1.797e308,
            "OpenDate": "19700101",
            "ExpireDate": "99999999",
            "FloatVolumn": 6_000_000,
            "TotalVolume": float("nan"),
            "PriceTick": 0.001,
            "PreClose": 131.2,
        },
        "xtquant",
    )
    assert (row["kind"], row["lot_size"], row["decimals"], row["listed"]) == ("convertible", 10, 3, 1)
    assert (row["float_volume"], row["issued_volume"], row["suspended"]) == (6_000_000, None, 0)
    assert row["suspended_days"] is row["open_date"] is row["expire_date"] is None
    assert (row["up_stop"], row["pre_close"]) == (0.0, 131.2)
    assert _instrument(date(2025, 6, 5), "000001.SZ", {"InstrumentStatus": 3}, "x")["suspended_days"] == 3


class Stuck:
    """xtdata whose download never ends until the connection does, as `download_history_data2` can."""

    def __init__(self) -> None:
        self.connected = threading.Event()
        self.reconnects = 0

    def download_history_data2(self, *_: Any, **__: Any) -> None:
        self.connected.wait(60)

    def reconnect(self) -> None:
        self.reconnects += 1
        self.connected.set()

    def get_market_data_ex(self, *_: Any, **__: Any) -> dict[str, pd.DataFrame]:
        return {"600000.SH": frame(volume=[1])}


def test_a_download_that_never_ends_is_given_up_and_the_next_one_served() -> None:
    xtdata = Stuck()
    history = History(xtdata)

    def fetch(seconds: float) -> list[Any]:
        done: list[Progress] = []
        return list(
            history.fetch(["600000.SH"], "1m", "20250604", "20250604", remaining=lambda: seconds, report=done.append)
        )

    with pytest.raises(TimeoutError, match="did not download"):
        fetch(0.05)
    assert fetch(5.0)[0].num_rows == 1
    assert (history.given_up, xtdata.reconnects) == (1, 1)


def test_a_failed_download_says_what_qmt_said() -> None:
    class Refusing(Stuck):
        def download_history_data2(self, *_: Any, callback: Any, **__: Any) -> None:
            callback({"total": -1, "message": "no permission"})

    with pytest.raises(HistoryError, match="no permission"):
        list(History(Refusing()).fetch(["1"], "1m", "20250604", "20250604", remaining=lambda: 5.0, report=print))
