"""Minute bars from ticks by DOMAIN 4, in plain Python: an oracle that shares no code with the simulator or the SQL."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from qmt_orchestration.market.sessions import frame_label


def minute_of(tick: dict[str, Any]) -> int:
    """Minutes since midnight in Shanghai (UTC+8) of a tick."""
    return int((tick["time"] + 8 * 3_600_000) % 86_400_000 // 60_000)


def total_of(tick: dict[str, Any]) -> int:
    """The cumulative volume in units; an index has it in ``volume`` alone."""
    return int(tick["pvolume"] or tick["volume"])


@dataclass
class Minute:
    """What the ticks of one minute tell."""

    lasts: list[tuple[float, int]] = field(default_factory=list)  # (price, cumulative shares)
    before: tuple[int, float, float, float] = (0, 0.0, 0.0, 1e12)  # cumulative shares, amount, day high, day low
    after: tuple[int, float, float, float] = (0, 0.0, 0.0, 1e12)


def bars_of(
    ticks: list[dict[str, Any]], *, repo: bool = False
) -> dict[int, tuple[float, float, float, float, int, float]]:
    """End label (minutes since midnight) to (open, high, low, close, shares, amount); minutes with a trade only.

    What a *repo* trades from 15:00:01 on belongs to no minute.
    """
    minutes: dict[int, Minute] = defaultdict(Minute)
    state = (0, 0.0, 0.0, 1e12)
    for tick in ticks:
        label = frame_label(minute_of(tick))
        if repo and (tick["time"] + 8 * 3_600_000) % 86_400_000 >= 54_001_000:
            label = None
        if total_of(tick) == 0 or label is None:
            continue
        if label not in minutes:
            minutes[label] = Minute(before=state)
        minute = minutes[label]
        minute.lasts.append((tick["lastPrice"], total_of(tick)))
        state = (total_of(tick), tick["amount"], tick["high"], tick["low"])
        minute.after = state
    out = {}
    for label, minute in minutes.items():
        shares = minute.after[0] - minute.before[0]
        if not shares:
            continue
        # 15:00 is the auction alone: snapshots that repeat the last price are not its open
        prices = [p for p, total in minute.lasts if label != 900 or total > minute.before[0]]
        high = max(max(prices), minute.after[2] if minute.after[2] > minute.before[2] else 0)
        low = min(min(prices), minute.after[3] if minute.after[3] < minute.before[3] else 1e12)
        out[label] = (prices[0], high, low, prices[-1], shares, round(minute.after[1] - minute.before[1], 2))
    return out
