"""Prices adjusted for dividends, splits and allotments, by the terminal's own rules.

An event of an ex-date holds from the open of that day. With g = 1 + stockBonus + stockGift + allotNum and
c = allotPrice·allotNum − interest (yuan a share):

* ``front``: every event after the bar's day, oldest first, p ← (p + c) / g. The newest prices stay as they are.
* ``back``: every event up to the bar's day, newest first, p ← p·g − c. The oldest prices stay as they are.
* ``back_ratio``: p·D, D = product of ``dr`` of the events up to the bar's day.
* ``front_ratio``: p·D / D(last bar of the answer), so it depends on the range asked for.

All four are affine, p ↦ A·p + B, with A and B per symbol and stretch between two events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.client.errors import UnknownAdjustment
from qmt_orchestration.market.instruments import instrument_of

ADJUSTMENTS: Final = ("none", "front", "back", "front_ratio", "back_ratio")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """The events of one symbol, oldest first."""

    days: Ints  # ex-dates, days since 1970-01-01
    g: Floats
    c: Floats  # yuan
    dr: Floats


def check(adjust: str | None) -> str:
    """The adjustment's name, ``none`` for None and ''. Raises `UnknownAdjustment`."""
    name = adjust or "none"
    if name not in ADJUSTMENTS:
        raise UnknownAdjustment(f"expected an adjustment of {', '.join(ADJUSTMENTS)}, found {adjust!r}")
    return name


def events_of(rows: Sequence[tuple[Any, ...]]) -> dict[str, Events]:
    """Events by symbol from rows of (symbol, ex_date as days, interest, bonus, gift, allot_num, allot_price, dr)."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row[1:])
    out = {}
    for symbol, events in found.items():
        day, interest, bonus, gift, number, price, dr = np.array(sorted(events), dtype=np.float64).T
        ratio = np.where(dr > 0, dr, 1.0)
        out[symbol] = Events(day.astype(np.int64), 1 + bonus + gift + number, price * number - interest, ratio)
    return out


def stretches(events: Events, adjust: str) -> tuple[Floats, Floats]:
    """(A, B) for bars after 0, 1, … n events; ``front_ratio`` as ``back_ratio``, still to be divided by its last."""
    n = len(events.days)
    a, b = np.ones(n + 1), np.zeros(n + 1)
    if adjust == "front":
        for k in range(n - 1, -1, -1):
            a[k] = a[k + 1] / events.g[k]
            b[k] = a[k + 1] * events.c[k] / events.g[k] + b[k + 1]
    elif adjust == "back":
        for k in range(n):
            a[k + 1] = a[k] * events.g[k]
            b[k + 1] = b[k] - a[k] * events.c[k]
    else:
        a[1:] = np.cumprod(events.dr)
    return a, b


def coefficients(days: Ints, events: Events, adjust: str) -> tuple[Floats, Floats]:
    """(A, B) of each bar of one symbol, from the days (since 1970-01-01, ascending) of its bars."""
    a, b = stretches(events, adjust)
    passed = np.searchsorted(events.days, days, side="right")
    scale = a[passed]
    if adjust == "front_ratio" and len(scale):
        scale = scale / scale[-1]
    return scale, b[passed]


def adjust_prices(
    symbols: npt.NDArray[Any], days: Ints, prices: dict[str, Floats], events: dict[str, Events], adjust: str
) -> dict[str, Floats]:
    """*prices* adjusted. Rows are ordered by symbol, then time; symbols without events stay as they are."""
    if adjust == "none" or not events or not len(symbols):
        return prices
    scale, shift = np.ones(len(symbols)), np.zeros(len(symbols))
    for first, last in groups(symbols):
        own = events.get(symbols[first])
        if own is not None:
            scale[first:last], shift[first:last] = coefficients(days[first:last], own, adjust)
    return {name: values * scale + shift for name, values in prices.items()}


def to_decimals(symbols: npt.NDArray[Any], prices: dict[str, Floats]) -> dict[str, Floats]:
    """*prices* rounded to the decimals of each row's instrument: 2 of a share, 3 of a fund or bond."""
    known, place = np.unique(symbols.astype(str), return_inverse=True)
    scale = 10.0 ** np.array([instrument_of(symbol).decimals for symbol in known.tolist()])[place]
    return {name: np.round(values * scale) / scale for name, values in prices.items()}


def groups(labels: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """[first, last) of each run of equal labels."""
    if not len(labels):
        return []
    cuts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    edges = [0, *cuts.tolist(), len(labels)]
    return list(pairwise(edges))
