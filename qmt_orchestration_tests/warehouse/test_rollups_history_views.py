"""Rollups and their sources, repairs from QMT's history, adjusted bars, the user's names."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from qmt_orchestration.market.sessions import at
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.warehouse.market_day import DAY, SYMBOL, bar, baseline, made, ohlcv, rows, tick

ACCEPTANCE = (
    "SELECT count() AS total_records, count(DISTINCT symbol) AS unique_symbols, min(frame) AS earliest_time, "
    "max(frame) AS latest_time, round(avg(vol), 0) AS avg_volume FROM minute_bars "
    "WHERE frame >= now() - INTERVAL 3 MINUTE;"
)
FULL = [tick("09:25:00", 10.0, 1000), tick("09:30:30", 10.2, 1500), tick("15:00:03", 10.1, 9000)]


def history(client: Any, found: list[tuple[str, int]], period: str = "1m", symbol: str = SYMBOL) -> None:
    """QMT's bars: (HH:MM, shares) at 10 … 10.1 yuan."""
    data = [
        [period, symbol, at(DAY, int(t[:2]) * 60 + int(t[3:])), 10.0, 10.1, 10.0, 10.1, vol, vol * 10.0]
        for t, vol in found
    ]
    columns = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    client.insert("qmt_bars", data, column_names=columns)


def labels(client: Any, table: str) -> list[str]:
    return [f"{r[1]:%H:%M}" for r in rows(client, table)]


def test_48_bars_of_5m_and_8_of_30m_with_the_opening_in_the_first(clickhouse: Any) -> None:
    made(clickhouse, FULL)
    bars.roll_up(clickhouse, DAY, "5m")
    bars.roll_up(clickhouse, DAY, "30m")
    assert len(labels(clickhouse, "bars_5m")) == 48
    assert labels(clickhouse, "bars_30m") == ["10:00", "10:30", "11:00", "11:30", "13:30", "14:00", "14:30", "15:00"]
    assert ohlcv(bar(clickhouse, "09:35", source="bars_5m")) == (10.0, 10.2, 10.0, 10.2, 1500)
    assert [r[8] for r in rows(clickhouse, "bars_30m")] == ["live", *["filled"] * 6, "live"]


def test_other_periods_are_one_setting_away(clickhouse: Any, settings: Any) -> None:
    migrate(settings.model_copy(update={"rollup_periods": ("15m", "60m", "1w", "1mo")}))
    made(clickhouse, FULL)
    for period in ("15m", "60m"):
        bars.roll_up(clickhouse, DAY, period)
    assert len(labels(clickhouse, "bars_15m")) == 16
    assert labels(clickhouse, "bars_60m") == ["10:30", "11:30", "14:00", "15:00"]
    made(
        clickhouse,
        [
            tick("09:25:00", 9.5, 100, day=date(2025, 6, 3), low=9.4),
            tick("15:00:03", 9.8, 700, day=date(2025, 6, 3), low=9.4),
        ],
        date(2025, 6, 3),
    )
    for day in (date(2025, 6, 3), DAY):
        bars.roll_up(clickhouse, day, "1d")
    for period, last in (("1w", date(2025, 6, 6)), ("1mo", date(2025, 6, 30))):
        bars.roll_up(clickhouse, DAY, period)
        (found,) = rows(clickhouse, f"bars_{period}")
        assert found[1] == at(last, 900)
        assert found[2:7] == (10.0, 10.2, 9.4, 10.1, 9700)


def test_an_unknown_period_is_refused_by_name(clickhouse: Any, settings: Any) -> None:
    with pytest.raises(bars.UnknownPeriod, match="7h"):
        bars.roll_up(clickhouse, DAY, "7h")
    with pytest.raises(ValueError, match="QMT_ROLLUP_PERIODS"):
        migrate(settings.model_copy(update={"rollup_periods": ("5m; DROP TABLE ticks",)}))


def test_a_day_without_ticks_comes_from_history_and_says_so(clickhouse: Any) -> None:
    history(clickhouse, [("09:30", 0), ("09:31", 500), ("09:32", 0), ("15:00", 700)])
    assert bars.fill_from_history(clickhouse, DAY).rows == 3, "nothing before the first trade"
    assert {r[8] for r in rows(clickhouse)} == {"history"}
    for period in ("5m", "1d"):
        bars.roll_up(clickhouse, DAY, period)
    assert rows(clickhouse, "bars_1d")[0][2:9] == (10.0, 10.1, 10.0, 10.1, 1200, 12000.0, "history")
    assert bars.fill_from_history(clickhouse, DAY).rows == 0


def test_gaps_are_repaired_from_history_and_differences_never_overwritten(clickhouse: Any) -> None:
    ticks = [tick("09:25:00", 10.0, 1000), tick("09:30:30", 10.2, 1500), baseline("09:33:20", 10.2, 4000)]
    ticks += [tick("09:33:40", 10.2, 4100), tick("09:34:20", 10.1, 4200), tick("15:00:03", 10.1, 9000)]
    made(clickhouse, ticks)
    minutes = [("09:31", 555), ("09:32", 900), ("09:33", 0), ("09:34", 1700), ("09:35", 200)]
    history(clickhouse, [*minutes, ("15:00", 700)])
    bars.fill_from_history(clickhouse, DAY)
    found = {label: bar(clickhouse, label) for label in ("09:31", "09:32", "09:33", "09:34", "15:00")}
    assert [b["source"] for b in found.values()] == [*["history"] * 4, "live"]
    assert [b["vol"] for b in found.values()] == [555, 900, 0, 1700, 4800]
    assert bar(clickhouse, "09:35")["vol"] == 45, "the episode adds up: from 1,000 to 4,200 shares"
    again = bars.finalize(clickhouse, DAY)
    assert again.rows == 0, "a repair stays when our ticks have nothing better"


def test_what_a_silent_feed_missed_is_not_counted_twice(clickhouse: Any) -> None:
    """No baseline: the subscription stayed alive. The first snapshot after the silence holds all that was missed."""
    ticks = [tick("09:25:00", 10.0, 1000), tick("09:30:30", 10.2, 1500)]
    made(clickhouse, [*ticks, tick("09:34:40", 10.2, 4100), tick("09:35:20", 10.2, 4300), tick("15:00:03", 10.1, 9000)])
    minutes = [("09:30", 1000), ("09:31", 500), ("09:32", 900), ("09:33", 0), ("09:34", 1200), ("09:35", 500)]
    history(clickhouse, [*minutes, ("09:36", 200), ("15:00", 4700)])

    def sources() -> str:
        labels = ("09:31", "09:32", "09:33", "09:34", "09:35", "09:36", "15:00")
        return " ".join(bar(clickhouse, label)["source"] for label in labels)

    for _ in range(2):  # made again and repaired again, the day is the same
        bars.fill_from_history(clickhouse, DAY)
        assert sources() == "history history history history history live live"
        assert sum(r[6] for r in rows(clickhouse)) == 9000
        assert bars.fill_from_history(clickhouse, DAY).rows == 0
        bars.finalize(clickhouse, DAY)
    clickhouse.command("TRUNCATE TABLE ticks")
    bars.fill_from_history(clickhouse, DAY)
    assert sources().endswith("live live"), "ticks that have expired leave their bars"


def test_what_was_deleted_comes_back_and_nothing_is_counted_twice(clickhouse: Any) -> None:
    """Bars of six minutes deleted, then their ticks, too: the minute after must not hold their volume."""
    ticks = [tick("09:25:00", 10.0, 1000)]
    for n in range(1, 241):
        minute = (570 if n <= 120 else 660) + n - 1
        ticks.append(tick(f"{minute // 60:02}:{minute % 60:02}:30", 10.0, 1000 + 101 * n))
    ticks.append(tick("15:00:03", 10.0, 1000 + 101 * 240))
    made(clickhouse, ticks)
    whole = rows(clickhouse)
    history(clickhouse, [(f"{r[1]:%H:%M}", round(r[6] / 100) * 100) for r in whole])
    lost = "formatDateTime({}, '%H:%i', 'Asia/Shanghai') BETWEEN '13:10' AND '13:15'"
    clickhouse.command(f"DELETE FROM bars_1m WHERE {lost.format('frame')}")
    bars.recompute(clickhouse, DAY, at(DAY, 900))
    bars.fill_from_history(clickhouse, DAY)
    assert rows(clickhouse) == whole
    clickhouse.command(f"DELETE FROM ticks WHERE {lost.format('time + 60')}")
    passes = []
    for _ in range(2):
        bars.recompute(clickhouse, DAY, at(DAY, 900))
        bars.fill_from_history(clickhouse, DAY)
        passes.append(rows(clickhouse))
    assert passes[0] == passes[1]
    assert sum(r[6] for r in passes[0]) == 1000 + 101 * 240
    assert [r[6] for r in passes[0] if r[8] == "history"] == [*[100] * 7, 108], "13:09 to 13:16"
    assert [r for r in passes[0] if r[8] != "history"] == [
        w for w, r in zip(whole, passes[0], strict=True) if r[8] != "history"
    ]


def test_history_gives_the_daily_row_of_a_symbol_that_our_feed_lost_before_the_close(clickhouse: Any) -> None:
    made(
        clickhouse,
        [tick("09:25:00", 10.0, 1000), tick("10:00:30", 10.0, 2000), tick("15:00:03", 5.0, 100, symbol="600000.SH")],
    )
    history(clickhouse, [("15:00", 8000)], period="1d")
    bars.roll_up(clickhouse, DAY, "1d")
    assert [(r[0], r[6], r[8]) for r in rows(clickhouse, "bars_1d")] == [
        (SYMBOL, 8000, "history"),
        ("600000.SH", 100, "live"),
    ]


def test_the_users_query_runs_as_it_stands(clickhouse: Any) -> None:
    made(clickhouse, FULL)
    columns = "symbol, frame, open, high, low, close, vol, amount"
    assert clickhouse.query(f"SELECT {columns} FROM minute_bars").row_count == 241
    names = ("total_records", "unique_symbols", "earliest_time", "latest_time", "avg_volume")
    assert clickhouse.query(ACCEPTANCE).column_names == names
    now = clickhouse.query("SELECT now()").first_row[0]
    ages = [30, 60, 600, 3600]  # seconds: of two symbols two bars each are young enough, at any time of day
    recent = [[s, now - timedelta(seconds=a), 10, 10, 10, 10, 10 * a] for s in "AB" for a in ages]
    names_ = ["symbol", "frame", "open", "high", "low", "close", "vol"]
    clickhouse.insert("bars_1m", recent, column_names=names_)
    oldest, newest = (now - timedelta(seconds=a) for a in (60, 30))
    assert clickhouse.query(ACCEPTANCE).first_row == (4, 2, oldest, newest, 450)


def test_the_240_row_day_has_the_opening_in_0931_and_the_same_totals(clickhouse: Any) -> None:
    made(clickhouse, FULL)
    found = clickhouse.query("SELECT frame, open, vol FROM minute_bars_240 ORDER BY frame").result_rows
    assert len(found) == 240
    assert (f"{found[0][0]:%H:%M}", *found[0][1:]) == ("09:31", 10.0, 1500)
    assert sum(r[2] for r in found) == 9000


def test_latest_ticks_tell_the_last_price_of_each_symbol(clickhouse: Any) -> None:
    made(clickhouse, [*FULL, tick("09:20:00", 0.0, 0, symbol="000002.SZ")])
    found = clickhouse.query("SELECT symbol, last_price, vol, last_close FROM latest_ticks ORDER BY symbol").result_rows
    assert found == [(SYMBOL, 10.1, 9000, 10.0), ("000002.SZ", 0.0, 0, 10.0)]
