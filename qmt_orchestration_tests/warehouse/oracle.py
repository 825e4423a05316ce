"""An independent derivation of minute bars in plain Python, tick by tick: what the SQL must agree with.

Written from the words of docs/bars.md, in the order of events, with none of the SQL's ideas (no states, no differences
of maxima): it walks a symbol's ticks in time order and keeps what a person at the screen would keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from qmt_orchestration.market.sessions import MINUTE_LABELS, SHANGHAI, at, frame_label, from_ms

Bar = tuple[datetime, float, float, float, float, int, float, str]


def day_bars(ticks: Sequence[dict[str, Any]], last_label: int = 900) -> list[Bar]:
    """(frame, open, high, low, close, vol, amount, source) of one symbol and day, up to *last_label*."""
    unique = {(t["time"], t["pvolume"], t["amount"]): t for t in ticks}
    by_label: dict[int, list[dict[str, Any]]] = {}
    for t in sorted(unique.values(), key=lambda t: (t["time"], _shares(t))):
        moment = from_ms(t["time"])
        label = frame_label(moment.hour * 60 + moment.minute)
        if label is not None and t["lastPrice"] > 0 and _shares(t) > 0:
            by_label.setdefault(label, []).append(t)
    out: list[Bar] = []
    shares, amount, high, low, close = 0, 0.0, 0.0, float("inf"), 0.0
    for label in (m for m in MINUTE_LABELS if m <= last_label):
        window = by_label.get(label, [])
        if not window and not close:
            continue
        frame = at(from_ms(ticks[0]["time"]).date(), label)
        if not window or _shares(window[-1]) == shares:
            out.append((frame, close, close, close, close, 0, 0.0, "filled"))
            continue
        prices = [t["lastPrice"] for t in window]
        before_close = [_shares(t) for t in window if from_ms(t["time"]).astimezone(SHANGHAI).hour == 14]
        if label == 900 and max(before_close, default=0) <= shares:  # the closing call alone
            prices = [prices[-1]]
        last = window[-1]
        top = max([*prices, *([last["high"]] if last["high"] > high else [])])
        bottom = min([*prices, *([last["low"]] if last["low"] < low else [])])
        out.append(
            (
                frame,
                prices[0],
                top,
                bottom,
                prices[-1],
                _shares(last) - shares,
                round(last["amount"] - amount, 4),
                "live",
            )
        )
        shares, amount, high, low, close = _shares(last), last["amount"], last["high"], last["low"], prices[-1]
    return out


def _shares(tick: dict[str, Any]) -> int:
    lots = int(tick["volume"]) * 100
    return int(tick["pvolume"]) if abs(lots - int(tick["pvolume"])) <= 100 else lots
