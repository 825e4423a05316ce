"""Periods of bars: ``1m``; ``Nm``, windows of N trading minutes; ``1d``; ``1w`` and ``1mo``, made of daily bars.

5m, 30m and 1d are always made; ``QMT_ROLLUP_PERIODS`` adds others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Rollups that are always made.
STANDARD: Final = ("5m", "30m", "1d")
_FORM: Final = re.compile(r"^(?:([1-9]\d{0,2})m|1d|1w|1mo)$")
_OF_DAYS: Final = ("1d", "1w", "1mo")


class UnknownPeriod(ValueError):
    """The period is none of Nm (2 to 240), 1d, 1w, 1mo; the message says so."""


def minutes_of(period: str) -> int:
    """Trading minutes of an intraday window; 0 for 1d, 1w and 1mo. Raises `UnknownPeriod`."""
    match = _FORM.match(period)
    minutes = int(match.group(1) or 0) if match else 1
    if not match or (period not in _OF_DAYS and not 2 <= minutes <= 240):
        raise UnknownPeriod(
            f"expected a period like 5m, 30m (2 to 240 minutes), 1d, 1w, 1mo, found {period!r} (QMT_ROLLUP_PERIODS)"
        )
    return minutes


def rollups(chosen: Iterable[str]) -> tuple[str, ...]:
    """`STANDARD` and the *chosen* ones beside them, shortest first. Raises `UnknownPeriod`."""
    return tuple(sorted({*STANDARD, *chosen}, key=lambda p: minutes_of(p) or 1000 + _OF_DAYS.index(p)))


def intraday(chosen: Iterable[str]) -> tuple[str, ...]:
    """Those of `rollups` that follow the minutes during the session."""
    return tuple(p for p in rollups(chosen) if minutes_of(p))
