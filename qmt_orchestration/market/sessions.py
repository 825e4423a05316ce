"""The trading day of an A-share: phases, minute frames, and which frame a tick belongs to.

A **frame** is a bar's end label, ``datetime`` in Asia/Shanghai. A day has 241 one-minute frames: 09:30 (the
opening call), 09:31 … 11:30, 13:01 … 15:00. A tick of [t−60 s, t) belongs to frame t; ticks stamped 11:30:xx belong
to 11:30 and 15:00:xx up to 15:05 to 15:00; before 09:30 to 09:30; in the lunch break to 11:30; 13:00:00 to 13:01.
From 15:05 on it is after-hours trading and belongs to no minute.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from qmt_orchestration.market.schema import TZ

SHANGHAI: Final = ZoneInfo(TZ)

PRE_OPEN: Final = time(9, 15)  # opening call begins
OPEN: Final = time(9, 30)
LUNCH: Final = time(11, 30)
AFTERNOON: Final = time(13, 0)
CLOSING_CALL: Final = time(14, 57)
CLOSE: Final = time(15, 0)
AFTER_HOURS_END: Final = time(15, 30)

#: End labels in minutes since midnight, in order: 570, 571 … 690, 781 … 900.
MINUTE_LABELS: Final[tuple[int, ...]] = (570, *range(571, 691), *range(781, 901))
#: The labels after which none follows for long: 11:30 and 15:00.
SESSION_ENDS: Final[tuple[int, ...]] = (690, 900)
#: Labels that may see no later tick for long: 11:30, and those of the closing call, in which the market is silent.
CLOSED_BY_CLOCK: Final[tuple[int, ...]] = (690, 897, 898, 899, 900)
FRAMES_PER_DAY: Final = len(MINUTE_LABELS)  # 241


def frame_label(minute_of_day: int) -> int | None:
    """End label (minutes since midnight) of a tick in this minute of the day; None from 15:05 on."""
    if minute_of_day < 570:
        return 570
    if minute_of_day < 690:
        return minute_of_day + 1
    if minute_of_day < 780:
        return 690
    if minute_of_day < 900:
        return minute_of_day + 1
    return 900 if minute_of_day < 905 else None


def at(day: date, minutes: int) -> datetime:
    """The aware time that lies *minutes* after midnight of *day* in Shanghai."""
    return datetime(day.year, day.month, day.day, tzinfo=SHANGHAI) + timedelta(minutes=minutes)


def minute_frames(day: date) -> list[datetime]:
    """The 241 one-minute frames of *day*, in order."""
    return [at(day, m) for m in MINUTE_LABELS]


def to_ms(moment: datetime) -> int:
    """Epoch milliseconds of an aware time."""
    return round(moment.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    """The Shanghai time of epoch milliseconds."""
    return datetime.fromtimestamp(ms / 1000, SHANGHAI)


def in_session(moment: datetime) -> bool:
    """Whether ticks are expected at this time of a trading day (opening call to 15:00, without lunch)."""
    t = moment.astimezone(SHANGHAI).time()
    return PRE_OPEN <= t < LUNCH or AFTERNOON <= t < CLOSE
