"""Adjusted prices: the terminal's rule event by event, and the worked example of a real dividend."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.client.adjust import ADJUSTMENTS, adjust_prices, check, events_of, to_decimals
from qmt_orchestration.client.errors import UnknownAdjustment

EPOCH = date(1970, 1, 1)


def days_of(*texts: str) -> Any:
    return np.array([(date.fromisoformat(text) - EPOCH).days for text in texts])


def adjusted(days: Any, prices: list[float], rows: list[tuple[Any, ...]], how: str) -> list[float]:
    symbols = np.array(["A"] * len(days), dtype=object)
    found = adjust_prices(symbols, days, {"close": np.array(prices)}, events_of([("A", *row) for row in rows]), how)
    return [float(price) for price in found["close"]]


def test_the_dividend_of_pudong_bank_in_2012() -> None:
    """600000.SH, ex-date 2012-06-26: 0.3 yuan a share, previous close 8.35, dr 1.037267 (xtquant's own values)."""
    days, prices = days_of("2012-06-25", "2012-06-26"), [8.35, 8.05]
    event = [(int(days_of("2012-06-26")[0]), 0.3, 0.0, 0.0, 0.0, 0.0, 1.037267)]
    assert adjusted(days, prices, event, "none") == prices
    assert adjusted(days, prices, event, "front") == pytest.approx([8.05, 8.05])
    assert adjusted(days, prices, event, "back") == pytest.approx([8.35, 8.35])
    assert adjusted(days, prices, event, "back_ratio") == pytest.approx([8.35, 8.05 * 1.037267])
    assert adjusted(days, prices, event, "front_ratio") == pytest.approx([8.35 / 1.037267, 8.05])
    assert adjusted(days[:1], prices[:1], event, "front_ratio") == [8.35]  # the range ends before the event


EVENT = st.tuples(
    st.floats(0, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 20), st.floats(0.8, 3)
)


@given(
    days=st.lists(st.integers(0, 60), min_size=1, max_size=15, unique=True).map(sorted),
    events=st.dictionaries(st.integers(0, 60), EVENT, max_size=6),
    how=st.sampled_from(ADJUSTMENTS[1:]),
)
def test_every_bar_is_what_the_events_make_of_it_one_by_one(
    days: list[int], events: dict[int, tuple[float, ...]], how: str
) -> None:
    prices = [20.0 + day for day in days]
    expected = []
    for day, price in zip(days, prices, strict=True):
        before = [events[d] for d in sorted(events) if d <= day]
        after = [events[d] for d in sorted(events) if d > day]
        if how == "front":
            for interest, bonus, gift, number, issue, _ in after:
                price = (price - interest + issue * number) / (1 + bonus + gift + number)
        elif how == "back":
            for interest, bonus, gift, number, issue, _ in reversed(before):
                price = price * (1 + bonus + gift + number) + interest - issue * number
        elif how == "back_ratio":
            for event in before:
                price *= event[5]
        else:
            for event in (events[d] for d in events if day < d <= days[-1]):
                price /= event[5]
        expected.append(price)
    rows = [(day, *event) for day, event in events.items()]
    assert adjusted(np.array(days), prices, rows, how) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_adjusted_prices_keep_the_decimals_of_their_instrument() -> None:
    symbols = np.array(["600000.SH", "510300.SH", "113050.SH", "900901.SH"], dtype=object)
    found = to_decimals(symbols, {"close": np.full(4, 1.23456), "low": np.array([7.005, 4.0125, 120.1234, 0.4235])})
    assert found["close"].tolist() == [1.23, 1.235, 1.235, 1.235]
    assert found["low"].tolist()[2:] == [120.123, 0.424]


def test_an_unknown_adjustment_is_refused_with_those_there_are() -> None:
    assert (check(None), check("")) == ("none", "none")
    with pytest.raises(UnknownAdjustment, match="front_ratio, back_ratio, found 'qfq'"):
        check("qfq")
