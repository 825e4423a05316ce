"""Times as people write them, to epoch milliseconds, in Shanghai's time whatever the machine's zone.

Accepted: ``date``, ``datetime`` and pandas' ``Timestamp`` (without a zone: Asia/Shanghai), epoch milliseconds and text:
``20250605``, ``20250605093000``, ``202506050930``, ``2025-06-05``, ``2025/6/5 9:30``, ``2025-06-05T09:30:00+08:00``. A
range is closed; a bare date as its end means the whole day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from qmt_orchestration.client.errors import BadRange, BadTime
from qmt_orchestration.market.sessions import SHANGHAI, from_ms, to_ms

Moment = date | datetime | str | int | None

EARLIEST_MS: Final = to_ms(datetime(1990, 1, 1, tzinfo=SHANGHAI))
LATEST_MS: Final = to_ms(datetime(2100, 1, 1, tzinfo=SHANGHAI)) - 1
_DIGITS: Final = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_TEXT: Final = re.compile(
    r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?\s*(Z|[+-]\d{2}:?\d{2})?)?"
)
_EXPECTED: Final = "expected a time like 20250605, 20250605093000, '2025-06-05' or '2025-06-05 09:30'"


@dataclass(frozen=True)
class Range:
    """A closed range, epoch milliseconds; an open side is `EARLIEST_MS` or `LATEST_MS`."""

    first_ms: int
    last_ms: int

    @property
    def first_day(self) -> date:
        """Shanghai's date of the first moment."""
        return from_ms(self.first_ms).date()

    @property
    def last_day(self) -> date:
        """Shanghai's date of the last moment."""
        return from_ms(self.last_ms).date()


def span(start: Moment, end: Moment) -> Range:
    """The closed range of two bounds; None and '' leave a side open. Raises `BadTime`, `BadRange`."""
    first, last = parse(start), parse(end, end=True)
    chosen = Range(EARLIEST_MS if first is None else first, LATEST_MS if last is None else last)
    if chosen.last_ms < chosen.first_ms:
        raise BadRange(f"the range ends before it starts: {start!r} … {end!r}")
    return chosen


def parse(moment: Moment, *, end: bool = False) -> int | None:
    """Epoch milliseconds of *moment*, None for None and ''. *end*: a bare date means its last millisecond."""
    if moment is None or (isinstance(moment, str) and not moment.strip()):
        return None
    if isinstance(moment, bool) or not isinstance(moment, (date, str, int)):
        raise BadTime(f"{_EXPECTED}, found {moment!r:.60} ({type(moment).__name__})")
    if isinstance(moment, int):
        ms = moment if moment > 99_999_999_999 else _of_text(str(moment), end)  # 20250605 written as a number
    elif isinstance(moment, str):
        ms = _of_text(moment.strip(), end)
    else:
        ms = _of_date(moment, end)
    if not EARLIEST_MS <= ms <= LATEST_MS:
        raise BadTime(f"expected a time from 1990 to 2099, found {moment!r:.60}")
    return ms


def _of_date(moment: date, end: bool) -> int:
    if moment != moment:  # NaT
        raise BadTime(f"{_EXPECTED}, found {moment!r}")
    if isinstance(moment, datetime):
        return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=SHANGHAI))
    midnight = datetime.combine(moment, time.min, SHANGHAI)
    return to_ms(midnight + timedelta(days=1)) - 1 if end else to_ms(midnight)


def _of_text(text: str, end: bool) -> int:
    try:
        if text.isascii() and text.isdigit() and len(text) in _DIGITS:
            found = datetime.strptime(text, _DIGITS[len(text)])  # noqa: DTZ007 - the zone is given below
            return _of_date(found.date() if len(text) == 8 else found, end)
        match = _TEXT.fullmatch(text)
        if match is None:
            raise BadTime(f"{_EXPECTED}, found {text!r:.60}")
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        if hour is None:
            return _of_date(date(int(year), int(month), int(day)), end)
        micro = int((fraction or "0").ljust(6, "0"))
        found = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micro)  # noqa: DTZ001
        if zone:
            found = found.replace(tzinfo=datetime.strptime(zone, "%z").tzinfo)
        return _of_date(found, end)
    except BadTime:
        raise
    except ValueError as error:
        raise BadTime(f"{_EXPECTED}, found {text!r:.60}: {error}") from None
