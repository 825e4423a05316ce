"""The gateway over the real xtquant layer and the simulated market, asked over Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import redis

from qmt_orchestration.feed.history import BAR_SCHEMA, History, HistoryError, Progress, to_bars
from qmt_orchestration.market.schema import check_schema
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import heartbeat, rpc
from qmt_orchestration_tests.helpers import wait_until


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


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("history", {"symbols": "000001.SZ", "period": "1m", "start": "20250604", "end": "20250604"}, "symbols"),
        ("history", {"symbols": ["000001.SZ"], "period": "1m", "end": "20250604"}, "start"),
        ("instruments", {"day": "yesterday"}, "expected like"),
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
    table, padding = to_bars(frames, "1m")
    assert (table.num_rows, padding) == (2, 3)
    assert table.column("vol").to_pylist() == [500, 0]


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
