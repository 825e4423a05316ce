"""What xtdata's Python layer asks of a terminal beyond raw bars: adjusted prices, aligned tables, ticks of the past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

import numpy as np

from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.history import Columns, SimulatedHistory, parse_moment
from qmt_orchestration.simulator.reference import dividends
from qmt_orchestration.simulator.source import MarketSource

PRICES: Final = ("open", "high", "low", "close", "preClose")
ADJUSTMENTS: Final = ("none", "front", "back", "front_ratio", "back_ratio")
Bars = tuple[str, list[str], Columns]


def adjusted(bars: Iterator[Bars], dividend_type: str | None, seed: int, today: date) -> Iterator[Bars]:
    """The bars with adjusted prices, event by event as xtdata.md's dividend factors say."""
    how = dividend_type or "none"
    if how not in ADJUSTMENTS:
        raise ValueError(f"expected a dividend_type of {', '.join(ADJUSTMENTS)}, found {dividend_type!r}")
    for symbol, labels, columns in bars:
        if how != "none" and labels:
            events = sorted(dividends(seed, symbol, "", "", today).items())
            columns = {
                **columns,
                **{name: _adjust(columns[name], labels, events, how) for name in PRICES if name in columns},
            }
        yield symbol, labels, columns


def _adjust(prices: Any, labels: Sequence[str], events: Sequence[tuple[str, dict[str, float]]], how: str) -> Any:
    out = []
    for price, label in zip(prices.tolist(), labels, strict=True):
        before = [event for day, event in events if day <= label[:8]]
        after = [event for day, event in events if day > label[:8]]
        if how == "front":
            for event in after:
                price = (price - event["interest"] + event["allotPrice"] * event["allotNum"]) / _shares(event)
        elif how == "back":
            for event in reversed(before):
                price = price * _shares(event) + event["interest"] - event["allotPrice"] * event["allotNum"]
        else:
            later = [event for day, event in events if label[:8] < day <= labels[-1][:8]]
            for event in before if how == "back_ratio" else later:
                price = price * event["dr"] if how == "back_ratio" else price / event["dr"]
        out.append(price)
    return np.array(out)


def _shares(event: dict[str, float]) -> float:
    return 1 + event["stockBonus"] + event["stockGift"] + event["allotNum"]


def aligned(bars: Sequence[Bars], fields: Sequence[str], fill: bool) -> tuple[Any, dict[str, Any]]:
    """(symbols, labels) and a table per field over the labels of all symbols; gaps repeat the close, or are NaN."""
    axis = sorted({label for _, labels, _ in bars for label in labels})
    data: dict[str, list[list[float]]] = {field: [] for field in fields}
    times = {label: int(ms) for _, labels, columns in bars for label, ms in zip(labels, columns["time"], strict=True)}
    for _, labels, columns in bars:
        at_label = {label: position for position, label in enumerate(labels)}
        for field in fields:
            row, close = [], float("nan")
            for label in axis:
                position = at_label.get(label)
                if position is not None:
                    close = float(columns["close"][position])
                    row.append(columns[field][position].item())
                elif field == "time":
                    row.append(times[label])
                elif fill:
                    row.append(close if field in PRICES else 0)
                else:
                    row.append(float("nan"))
            data[field].append(row)
    arrays = {field: np.array(rows).reshape(len(bars), len(axis)) for field, rows in data.items()}
    return ([symbol for symbol, _, _ in bars], axis), arrays


def ticks(
    settings: Settings,
    history: SimulatedHistory,
    symbols: Sequence[str],
    start: str | int,
    end: str | int,
    count: int,
    now_ms: int,
) -> dict[str, Any]:
    """Downloaded ticks in [start, end] by symbol, as a record array in time order; the last *count* if >= 0."""
    last = min(parse_moment(end, end=True) or now_ms, now_ms)
    first = parse_moment(start, end=False) or to_ms(at(from_ms(last).date(), 0))
    rows: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in symbols}
    source = MarketSource(settings, tuple(symbols))
    for day in trading_days(from_ms(first).date(), from_ms(last).date()):
        source.seek(to_ms(at(day, 0)))
        for _, push in source.pushes(min(to_ms(at(day, 24 * 60)) - 1, now_ms)):
            for symbol, tick in push.items():
                if first <= tick["time"] <= last and history.holds(symbol, "tick", tick["time"]):
                    rows[symbol].append(tick)
    return {symbol: _records(own[len(own) - count if 0 <= count < len(own) else 0 :]) for symbol, own in rows.items()}


def _records(rows: list[dict[str, Any]]) -> Any:
    names = list(rows[0]) if rows else ["time"]
    kinds = {int: "<i8", float: "<f8", list: "O"}
    dtype = (
        [(name, "<i4" if name in ("stockStatus", "openInt") else kinds[type(rows[0][name])]) for name in names]
        if rows
        else [("time", "<i8")]
    )
    return np.array([tuple(row.values()) for row in rows], dtype=dtype)
