"""Sessions by kind, exchange and date: `market.instruments.trading_of` in SQL, in the bars and in the daily row."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from qmt_orchestration.market.instruments import trading_of
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.warehouse.market_day import DAY, bar, made, ohlcv, tick

BEFORE, SINCE = date(2026, 7, 3), date(2026, 7, 6)
DAILY = "SELECT vol, after_hours_vol, close, source FROM bars_1d"


@pytest.mark.parametrize("day", [date(2018, 8, 17), date(2019, 7, 22), date(2020, 8, 24), BEFORE, SINCE])
def test_the_table_in_sql_is_the_one_in_python(clickhouse: Any, day: date) -> None:
    """Every market and first three digits; 131990.SZ, which is no instrument, alone differs within its three."""
    asked = "SELECT market, code, closing_call <= {day:Date}, late <= {day:Date}, ends FROM trading_codes"
    found = clickhouse.query(asked, {"day": day}).result_rows
    assert len(found) == 3000
    for market, code, call, late, ends in found:
        wanted = trading_of(f"{code}000.{market}", day)
        repo = wanted.continuous_end > 900
        assert (bool(call), bool(late), ends) == (
            wanted.closing_call,
            wanted.after_hours or repo,
            max(wanted.continuous_end, 900),
        ), f"{code}….{market} on {day}"


def closing(client: Any, symbol: str, day: date) -> dict[str, Any]:
    """The 15:00 bar where 14:59 is silent and two snapshots of 15:00 differ in price."""
    ticks = [("09:25:00", 10.0, 1000), ("14:58:30", 10.1, 2000), ("15:00:00", 10.2, 2500), ("15:00:02", 10.3, 3000)]
    made(client, [tick(when, price, units, symbol=symbol, day=day) for when, price, units in ticks], day)
    return bar(client, "15:00", symbol)


@pytest.mark.parametrize(
    ("symbol", "day", "call"),
    [
        ("510300.SH", BEFORE, False),
        ("510300.SH", SINCE, True),
        ("159915.SZ", BEFORE, True),
        ("113050.SH", SINCE, False),
        ("123219.SZ", BEFORE, True),
        ("600000.SH", BEFORE, True),
        ("000300.SH", SINCE, False),
    ],
)
def test_the_closing_bar_is_an_auction_only_where_there_is_a_closing_call(
    clickhouse: Any, symbol: str, day: date, call: bool
) -> None:
    found = closing(clickhouse, symbol, day)
    wanted = (10.3, 10.3, 10.3, 10.3, 1000) if call else (10.2, 10.3, 10.2, 10.3, 1000)
    assert ohlcv(found) == wanted
    silent = bar(clickhouse, "14:58", symbol)["quality_score"]
    assert silent == (1.0 if call else 0.5), "silent by rule in a closing call, presumed idle elsewhere"


@pytest.mark.parametrize("symbol", ["204001.SH", "131810.SZ"])
def test_what_a_repo_trades_after_1500_is_in_the_daily_row_and_in_no_minute(clickhouse: Any, symbol: str) -> None:
    ticks = [("09:25:00", 1000), ("14:59:50", 5000), ("15:00:00", 5100), ("15:00:01", 5600), ("15:29:57", 9000)]
    made(clickhouse, [tick(when, 10.0, units, symbol=symbol) for when, units in ticks])
    assert ohlcv(bar(clickhouse, "15:00", symbol)) == (10.0, 10.0, 10.0, 10.0, 4100)
    bars.roll_up(clickhouse, DAY, "1d")
    assert clickhouse.query(DAILY).result_rows == [(5100, 3900, 10.0, "live")]
    assert clickhouse.query("SELECT sum(vol) FROM bars_1m").first_row == (5100,)


def test_a_repo_without_a_snapshot_of_1500_keeps_its_own_day(clickhouse: Any) -> None:
    """It goes on trading: that its next snapshot comes at 15:00:03 is no sign of a close that was not seen."""
    ticks = [("09:25:00", 1000), ("14:59:50", 5000), ("15:00:03", 5600)]
    made(clickhouse, [tick(when, 10.0, units, symbol="204001.SH") for when, units in ticks])
    theirs = [["1d", "204001.SH", bar(clickhouse, "15:00", "204001.SH")["frame"], 10.0, 10.0, 10.0, 10.0, 9000, 9e4]]
    columns = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    clickhouse.insert("qmt_bars", theirs, column_names=columns)
    bars.roll_up(clickhouse, DAY, "1d")
    assert clickhouse.query(DAILY).result_rows == [(5000, 600, 10.0, "live")]
