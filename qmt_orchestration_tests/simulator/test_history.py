"""Bars as QMT gives them: equal to the true ones, in lots and whole yuan, padding where not downloaded."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.simulator.history import SimulatedHistory, parse_moment, qmt_bars
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration_tests.simulator.true_bars import true_bars

DAY = date(2025, 6, 5)
EVENING = to_ms(at(DAY, 1000))
SYMBOLS = ["000001.SZ", "600000.SH"]


def get(history: SimulatedHistory, period: str, **kw: object) -> dict[str, tuple[list[str], dict[str, np.ndarray]]]:
    options: dict[str, object] = {"now_ms": EVENING, "fill": False, **kw}
    rows = history.bars(SYMBOLS, period, "20250605", "20250605", -1, **options)  # type: ignore[arg-type]
    return {symbol: (labels, bars) for symbol, labels, bars in rows}


def test_downloaded_minutes_equal_the_true_bars() -> None:
    history = SimulatedHistory(7)
    for symbol in SYMBOLS:
        history.download(symbol, "1m", "20250605", "20250605", EVENING)
    for symbol, (labels, bars) in get(history, "1m").items():
        true = true_bars(DAY, symbol)
        assert labels == [b.frame.strftime("%Y%m%d%H%M%S") for b in true]
        for name in ("open", "high", "low", "close"):
            assert bars[name].tolist() == [getattr(b, name) for b in true]
        shares = np.cumsum([b.vol for b in true])
        assert np.cumsum(bars["volume"]).tolist() == ((shares + 50) // 100).tolist()
        assert np.abs(bars["amount"] - [b.amount for b in true]).max() <= 1
        assert not bars["suspendFlag"].any()


def test_minutes_add_up_to_the_day_without_its_after_hours_trading() -> None:
    plan = MarketDay(7, DAY, universe(300).all)
    minutes, five, day = (qmt_bars(plan, p) for p in ("1m", "5m", "1d"))
    assert minutes["volume"].shape[1] == 241
    assert five["volume"].shape[1] == 48
    without = plan.after_hours.sum(axis=1) == 0
    for name in ("volume", "amount"):
        assert (minutes[name].sum(axis=1) == five[name].sum(axis=1)).all()
        assert (minutes[name].sum(axis=1) == day[name][:, 0])[without].all()
        assert (minutes[name].sum(axis=1) < day[name][:, 0])[~without].all()
    assert (~without).any()
    traded = ~plan.suspended
    assert (minutes["high"].max(axis=1) == day["high"][:, 0])[traded].all()
    assert (five["high"].max(axis=1) == day["high"][:, 0])[traded].all()
    assert (five["close"][:, -1] == day["close"][:, 0])[traded].all()
    assert day["suspendFlag"][:, 0].astype(bool).tolist() == plan.suspended.tolist()


def test_ranges_not_downloaded_are_padding_of_both_kinds() -> None:
    rows = get(SimulatedHistory(7), "1m")
    assert {tuple(np.unique(bars["suspendFlag"])) for _, bars in rows.values()} == {(1,)}
    assert all(not bars["volume"].any() and len(labels) == 241 for labels, bars in rows.values())
    prices = sorted(float(bars["close"][0]) for _, bars in rows.values())
    assert prices[0] == 0.0
    assert prices[1] > 0


def test_a_download_reaches_to_its_end_and_not_into_the_future() -> None:
    history = SimulatedHistory(7)
    history.download("000001.SZ", "1m", "20250605", "20250605100000", EVENING)
    labels, bars = get(history, "1m")["000001.SZ"]
    assert [label for label, flag in zip(labels, bars["suspendFlag"], strict=True) if not flag][-1] == "20250605100000"
    early = to_ms(at(DAY, 600))
    history.download("600000.SH", "1m", "", "", early)
    labels, bars = get(history, "1m")["600000.SH"]
    assert sum(1 for flag in bars["suspendFlag"] if not flag) == 31
    labels, _ = get(history, "1m", now_ms=early)["600000.SH"]
    assert labels[-1] == "20250605100000"


def test_count_takes_the_last_rows_and_daily_bars_wait_for_the_days_end() -> None:
    history = SimulatedHistory(7)
    rows = list(history.bars(["000001.SZ"], "1m", "", "", 3, now_ms=EVENING, fill=True, everything=True))
    assert rows[0][1] == ["20250605145800", "20250605145900", "20250605150000"]
    noon = to_ms(at(DAY, 720))
    rows = list(history.bars(["000001.SZ"], "1d", "", "", 2, now_ms=noon, fill=True, everything=True))
    assert rows[0][1] == ["20250603", "20250604"]


def test_bad_requests_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="1m, 5m, 15m, 30m, 60m, 1h, 1d"):
        list(SimulatedHistory(7).bars(SYMBOLS, "3m", "", "", -1, now_ms=EVENING, fill=False))
    with pytest.raises(ValueError, match="YYYYMMDD"):
        parse_moment("2025-06-05", end=False)
    assert from_ms(parse_moment("20250605", end=True) or 0).date() == DAY
