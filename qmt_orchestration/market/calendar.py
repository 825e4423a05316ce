"""Trading days, from the exchange calendar (``exchange_calendars`` XSHG), never from the clock alone.

The package knows holidays about a year ahead; `horizon` says up to when, and a data-quality check watches it. What the
exchanges have announced and no release of the package holds yet is added by `extend`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

from qmt_orchestration.market.sessions import SHANGHAI


class NotATradingDay(ValueError):
    """The date is no trading day; the message names its neighbours."""


_announced: tuple[date, frozenset[date]] | None = None


@lru_cache(maxsize=1)
def _xshg() -> Any:
    import exchange_calendars

    return exchange_calendars.get_calendar("XSHG", start="2005-01-04")


@lru_cache(maxsize=1)
def _days() -> tuple[date, ...]:
    days = [ts.date() for ts in _xshg().sessions]
    if _announced:
        until, holidays = _announced
        later = (days[-1] + timedelta(days=i + 1) for i in range((until - days[-1]).days))
        # weekends that make up for holidays are working days, but never trading days
        days += [day for day in later if day.weekday() < 5 and day not in holidays]
    return tuple(days)


def extend(until: date | None, holidays: Iterable[date]) -> None:
    """Every weekday after the package's end up to *until* but *holidays* is a trading day; None: none of them.

    Process-wide; called once a process by `settings.process_settings`. Within its range the package is right.
    """
    global _announced
    announced = (until, frozenset(holidays)) if until else None
    if announced != _announced:
        _announced = announced
        _days.cache_clear()
        _day_set.cache_clear()


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
    days = _days()
    return list(days[bisect_left(days, first) : bisect_right(days, last)])


def closed_weekdays(first: date) -> list[date]:
    """Weekdays from *first* on without trading, as far as the calendar knows."""
    days = (first + timedelta(days=i) for i in range((horizon() - first).days + 1))
    return [day for day in days if day.weekday() < 5 and not is_trading_day(day)]


def previous_trading_day(day: date) -> date:
    """The last trading day before *day*."""
    i = bisect_left(_days(), day)
    if i == 0:
        raise NotATradingDay(f"the calendar begins on {_days()[0]}; no trading day before {day} is known")
    return _days()[i - 1]


def next_trading_day(day: date) -> date:
    """The first trading day after *day*."""
    i = bisect_right(_days(), day)
    if i == len(_days()):
        raise NotATradingDay(
            f"the calendar ends on {_days()[-1]}; no trading day after {day} is known: install a newer "
            "exchange-calendars, or give QMT_CALENDAR_UNTIL and QMT_HOLIDAYS"
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
