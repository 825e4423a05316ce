"""Days as people type them, checked in one place: form, order, weekends and holidays, days that have not begun."""

from __future__ import annotations

from datetime import date, datetime

from qmt_orchestration.cli.access import Misuse
from qmt_orchestration.market.calendar import NotATradingDay, require_trading_day, trading_days
from qmt_orchestration.market.sessions import SHANGHAI


def day(text: str) -> date:
    """A calendar day that has begun in Shanghai, from ``2025-06-05`` or ``20250605``."""
    try:
        if not text.isascii():
            raise ValueError
        found = date(int(text[:4]), int(text[4:6]), int(text[6:])) if _compact(text) else date.fromisoformat(text)
        if not _compact(text) and found.isoformat() != text:
            raise ValueError
    except ValueError:
        raise Misuse(f"expected a date like 2025-06-05, found {text[:40]!r}") from None
    today = datetime.now(SHANGHAI).date()
    if found > today:
        raise Misuse(f"{found} has not begun: today is {today} in Shanghai")
    return found


def trading_day(text: str) -> date:
    """A trading day that has begun."""
    try:
        return require_trading_day(day(text))
    except NotATradingDay as error:
        raise Misuse(str(error)) from None


def span(first: str, last: str) -> tuple[date, date]:
    """Two days in order."""
    begin, end = day(first), day(last)
    if end < begin:
        raise Misuse(f"expected the first day before the last one, found {begin} and {end}")
    return begin, end


def trading_span(first: str, last: str) -> list[date]:
    """The trading days of a range; at least one."""
    begin, end = span(first, last)
    found = trading_days(begin, end)
    if not found:
        raise Misuse(f"no trading day from {begin} to {end}")
    return found


def _compact(text: str) -> bool:
    return len(text) == 8 and text.isdigit()
