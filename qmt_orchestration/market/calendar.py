"""Trading days, from the exchange calendar (``exchange_calendars`` XSHG), never from the clock alone.

The package knows holidays about a year ahead; `horizon` says up to when, and a data-quality check watches it.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import Any

from qmt_orchestration.market.sessions import SHANGHAI


class NotATradingDay(ValueError):
    """The date is no trading day; the message names its neighbours."""


@lru_cache(maxsize=1)
def _xshg() -> Any:
    import exchange_calendars

    return exchange_calendars.get_calendar("XSHG", start="2005-01-04")


@lru_cache(maxsize=1)
def _days() -> tuple[date, ...]:
    return tuple(ts.date() for ts in _xshg().sessions)


@lru_cache(maxsize=1)
def _day_set() -> frozenset[date]:
    return frozenset(_days())


def horizon() -> date:
    """The last trading day the calendar knows."""
    return _days()[-1]


def is_trading_day(day: date) -> bool:
    """Whether the Shanghai, Shenzhen and Beijing exchanges trade on *day*."""
    return day in _day_set()


def trading_days(first: date, last: date) -> list[date]:
    """Trading days in [first, last], ascending."""
    from bisect import bisect_left, bisect_right

    days = _days()
    return list(days[bisect_left(days, first) : bisect_right(days, last)])


def previous_trading_day(day: date) -> date:
    """The last trading day before *day*."""
    from bisect import bisect_left

    i = bisect_left(_days(), day)
    if i == 0:
        raise NotATradingDay(f"the calendar begins on {_days()[0]}; no trading day before {day} is known")
    return _days()[i - 1]


def next_trading_day(day: date) -> date:
    """The first trading day after *day*."""
    from bisect import bisect_right

    i = bisect_right(_days(), day)
    if i == len(_days()):
        raise NotATradingDay(
            f"the calendar ends on {_days()[-1]}; no trading day after {day} is known: update exchange-calendars"
        )
    return _days()[i]


def require_trading_day(text: str | date) -> date:
    """Parse ``YYYY-MM-DD`` (or ``YYYYMMDD``) and insist that it is a trading day."""
    if isinstance(text, date):
        day = text
    else:
        try:
            day = (
                datetime.strptime(text, "%Y%m%d").replace(tzinfo=SHANGHAI).date()
                if text.isdigit()
                else date.fromisoformat(text)
            )
        except ValueError as error:
            raise NotATradingDay(f"expected a date like 2025-06-05, found {text!r}") from error
    if not is_trading_day(day):
        if not _days()[0] <= day <= _days()[-1]:
            raise NotATradingDay(f"{day} lies outside the known calendar, {_days()[0]} … {_days()[-1]}")
        raise NotATradingDay(
            f"{day} is no trading day; nearest are {previous_trading_day(day)} and {next_trading_day(day)}"
        )
    return day
