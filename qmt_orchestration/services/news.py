"""When a market is never silent, and what the subscriber says of it: news by market and kind (`feed.news`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Final

from qmt_orchestration.market.sessions import AFTERNOON, CLOSING_CALL, LUNCH, OPEN, PRE_OPEN

AUCTION_DONE: Final = time(9, 25)
#: Spans in which some symbol of the market always ticks; the pauses between are right.
SPANS: Final = ((PRE_OPEN, AUCTION_DONE), (OPEN, LUNCH), (AFTERNOON, CLOSING_CALL))

LARGE_GROUP: Final = 20  # a market and kind of fewer symbols may be silent by nature
PAUSE_SECONDS: Final = 3.0  # of wall time: in a fast simulated market a pause of this machine is no silence


def span_start(now: datetime) -> datetime | None:
    """Since when ticks are expected without a pause at *now* (of a trading day); None when they are not."""
    for start, end in SPANS:
        if start <= now.time() < end:
            return now.replace(hour=start.hour, minute=start.minute, second=0, microsecond=0)
    return None


def news(beats: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """What the subscriber's heartbeat says of each market and kind; what is no such thing is left out."""
    out: dict[str, dict[str, float]] = {}
    for beat in beats:
        if beat.get("service") != "subscriber" or beat.get("state") != "running":
            continue
        try:
            found = json.loads(beat.get("news") or "{}")
            for group, counts in found.items():
                out[str(group)] = {name: float(counts[name]) for name in ("symbols", "advanced", "silent_s", "wall_s")}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return out


def silences(found: Mapping[str, Mapping[str, float]], limit_seconds: float) -> dict[str, float]:
    """Markets and kinds of `news` that are silent for more than *limit_seconds* of market time, and for how long."""
    return {
        group: counts["silent_s"]
        for group, counts in found.items()
        if counts["symbols"] >= LARGE_GROUP and counts["wall_s"] >= PAUSE_SECONDS and counts["silent_s"] > limit_seconds
    }
