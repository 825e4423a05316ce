"""Which minutes are to be made final, and making them so: ticks -> bars_1m -> rollups. The rule is SQL (bars_1m_live).

All work follows from ClickHouse's own state: `pending` compares when the ticks of each frame were stored with when they
were read to make it final (table ``final_frames``), so a lost run repairs itself and a late tick re-opens its minute;
from there the rest of the day is computed again, because each frame is computed from the one before it. Every function
may be repeated or interrupted at any point; a row that would not change is not written again.

Frames are end labels, aware datetimes in Asia/Shanghai; versions are microseconds of the server's clock, rising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from string import Template
from typing import Any, Final

from qmt_orchestration.market import calendar
from qmt_orchestration.market.periods import UnknownPeriod as UnknownPeriod
from qmt_orchestration.market.periods import intraday, minutes_of
from qmt_orchestration.market.sessions import CLOSED_BY_CLOCK, MINUTE_LABELS, SHANGHAI, at, frame_label, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import load_sql

_ROLLED_UP: Final = ["day", "period", "version"]


@dataclass(frozen=True)
class Written:
    """What a call has written: rows that are new or changed, their symbols and frames, and the version they carry."""

    rows: int
    symbols: int
    first_frame: datetime | None
    last_frame: datetime | None
    version: int


@dataclass(frozen=True)
class Pending:
    """Frames of a day that are closed and not, or no longer, final: *frames* of those in first … last."""

    day: date
    first_frame: datetime
    last_frame: datetime
    frames: int


def pending(client: Any, settings: Settings, now_ms: int, *, speed: float = 1.0) -> list[Pending]:
    """Closed frames to be made final, oldest day first; *now_ms* is the market's now (`stream.clock.read_clock`).

    A frame is closed when the market's time is ``close_grace_ms`` past its end. The clock alone closes what is open
    where the market is silent by rule (11:30; 14:57 to 15:00), on the day of *now_ms* only and
    ``close_fallback_seconds`` of wall time after it (*speed*: market seconds per wall second): a minute in mid-session
    whose ticks are merely late must not be closed without them. The range of a day reaches to its last closed frame,
    because a late tick also moves the minutes after its own. A day whose intraday rollups lag behind its minutes is
    included.
    """
    today = from_ms(now_ms).date()
    days = client.query(load_sql("tick_days")).result_rows
    newest = max((day for day, _ in days), default=None)
    found: dict[date, Pending] = {}
    for day, touched in days:
        if touched or day in (today, newest):
            closed = closed_watermark(client, settings, day, now_ms, speed=speed)
            todo = [f.at for f in _frames(client, day) if f.is_open and closed and f.at <= closed]
            if todo and closed:
                found[day] = Pending(day, todo[0], closed, len(todo))
    for period in intraday(settings.rollup_periods):
        for day, first, last, frames in client.query(load_sql("stale_rollups"), {"period": period}).result_rows:
            found.setdefault(day, Pending(day, _local(first), _local(last), int(frames)))
    return [found[day] for day in sorted(found)]


def closed_watermark(client: Any, settings: Settings, day: date, now_ms: int, *, speed: float = 1.0) -> datetime | None:
    """The last closed frame of *day* (the rule of `pending`), None before the first has closed."""
    return _closed(day, market_time_ms(client, day), settings.close_grace_ms, _fallback(settings, day, now_ms, speed))


def may_have_closed(client: Any, settings: Settings, frame: datetime, now_ms: int, *, speed: float = 1.0) -> bool:
    """Whether `closed_watermark` can have reached *frame*: answered from metadata, to be asked often."""
    day = frame.date()
    newest = newest_tick_ms(client, day)
    return _closed(day, newest, settings.close_grace_ms, _fallback(settings, day, now_ms, speed), [frame]) is not None


def market_time_ms(client: Any, day: date) -> int:
    """The market's time on *day* by its ticks, epoch ms (`market_time.sql`); 0 when there are none."""
    rows = client.query(load_sql("market_time"), {"day": day}).result_rows
    return int(rows[0][0]) if rows else 0


def newest_tick_ms(client: Any, day: date) -> int:
    """Exchange time of the newest tick of *day*, epoch ms; 0 when there is none. Never before `market_time_ms`."""
    return int(client.query(load_sql("newest_tick"), {"day": day}).first_row[0])


def stored_late(client: Any, closed_ms: int, since: float) -> bool:
    """Whether a tick was stored after *since* (epoch s) in a frame up to *closed_ms* (epoch ms of its label), or of an
    earlier day: cheap enough to be asked every few seconds; `pending` then says which."""
    return bool(client.query(load_sql("stored_late"), {"until": closed_ms // 1000, "since": since}).result_rows)


def newest_frame(client: Any, day: date) -> datetime | None:
    """The frame of the market's time on *day*: of a day that is over, its last frame, whether or not a tick closed
    it."""
    newest = market_time_ms(client, day)
    if not newest:
        return None
    moment = from_ms(newest)
    return at(day, frame_label(moment.hour * 60 + moment.minute) or MINUTE_LABELS[-1])


def live_bars(client: Any, day: date, first_frame: datetime, last_frame: datetime, symbol: str = "") -> Any:
    """Rows of the rule for first … last, of *symbol* or of all, as an Arrow table in the order (frame, symbol).

    Columns: symbol, frame, open, high, low, close, vol (shares), amount (yuan), source, ticks, quality_score. A minute
    that has not closed gives its bar so far. Computed from the last final frame on, whether or not Dagster runs.
    """
    final = {_local(frame) for (frame,) in client.query(load_sql("final_frames"), {"day": day}).result_rows}
    frames = [at(day, minutes) for minutes in MINUTE_LABELS]
    since = next((frame for frame in frames if frame not in final), last_frame)
    parameters = {**_range(day, first_frame, last_frame), "since": _text(min(since, first_frame)), "symbol": symbol}
    return client.query_arrow(load_sql("live_bars"), parameters=parameters, use_strings=True)


def finalize(
    client: Any, day: date, first_frame: datetime | None = None, last_frame: datetime | None = None
) -> Written:
    """Write bars_1m from the rule for first … last; without frames, the whole day up to its last closed minute.

    The range is widened: back to the first frame that is open, on to the last one that is final, since each frame is
    computed from the one before it. Only new and changed rows are written. The moment of reading is noted, so that
    ticks stored meanwhile re-open their minute.
    """
    before = _before(client, day)
    frames = _frames(client, day)
    last_frame = last_frame or _closed(day, market_time_ms(client, day), 0, 0)
    if last_frame is None or (first_frame and last_frame < first_frame):
        return Written(0, 0, None, None, 0)
    first_frame = min([first_frame or frames[0].at, *(f.at for f in frames if f.is_open or f.settling)])
    last_frame = max([last_frame, *(f.at for f in frames if f.is_final)])
    span = _range(day, first_frame, last_frame)
    fresh = not before.repaired and not any(f.is_final for f in frames if first_frame <= f.at <= last_frame)
    rows = "rows_1m_repaired" if before.repaired else "rows_1m"
    written = _write(client, rows, "bars_1m", span, before, "write_new" if fresh else "write_changed")
    version = before.version
    noted = [
        [day, f.at, before.read_at, before.block, version if _touched(written, f.at) else f.changed, version]
        for f in frames
        if first_frame <= f.at <= last_frame
    ]
    columns = ["day", "frame", "read_at", "block", "changed", "version"]
    client.insert("final_frames", noted, column_names=columns)
    return written


def _touched(written: Written, frame: datetime) -> bool:
    """Whether rows were written at *frame* or around it: rollups of other windows need not follow."""
    first, last = written.first_frame, written.last_frame
    return first is not None and last is not None and first <= frame <= last


def recompute(client: Any, day: date, last_frame: datetime | None) -> Written:
    """Make *day* final up to *last_frame*, then compute all of it once more from its ticks: what that changes in bars
    that were final is noted (`rolled_up`, period 1m), for the check ``recomputed_equal``, and repaired."""
    frames = _frames(client, day)
    todo = [f.at for f in frames if f.is_open and last_frame and f.at <= last_frame]
    written = finalize(client, day, todo[0], last_frame) if todo else Written(0, 0, None, None, 0)
    whole = bool(todo) and todo[0] == frames[0].at  # it was computed as a whole just now
    again = replace(written, rows=0) if whole else finalize(client, day, None, last_frame)
    differed, worst = 0, "[]"
    if again.rows:
        parameters = {"day": day, "version": again.version}
        differed, worst = client.query(load_sql("replaced_rows"), parameters).first_row
    columns = [*_ROLLED_UP, "differed", "worst"]
    client.insert("rolled_up", [[day, "1m", again.version, differed, worst]], column_names=columns)
    return replace(again, rows=again.rows + written.rows) if again.rows else written


def roll_up(
    client: Any,
    day: date,
    period: str,
    first_frame: datetime | None = None,
    last_frame: datetime | None = None,
    *,
    day_over: bool = False,
) -> Written:
    """Write bars of *period* ('5m', '30m', any 'Nm', '1d', '1w', '1mo') of a day, into ``bars_<period>``.

    Minutes: the closed windows that touch first … last, and those an earlier call has missed; *day_over*: no minute
    will come any more, so the window in which the minutes end is closed, too. '1d': the daily rows. '1w', '1mo': the
    week or month that holds *day*, from its daily rows. Only new and changed rows are written. Raises `UnknownPeriod`.
    """
    minutes = minutes_of(period)
    before = _before(client, day)
    table, opening, close = f"bars_{period}", at(day, MINUTE_LABELS[0]), at(day, MINUTE_LABELS[-1])
    if period == "1d":
        return _write(client, "rows_1d", table, _range(day, close, close), before)
    if not minutes:
        first, last = _calendar_span(day, period)
        label = at(last, MINUTE_LABELS[-1])
        span = {**_range(day, label, label), "since": _text(at(first, 0)), "until": _text(label)}
        return _write(client, "rows_days", table, span, before)
    for missed_day, first_missed, _, _ in client.query(load_sql("stale_rollups"), {"period": period}).result_rows:
        if missed_day == day and first_frame:
            first_frame = min(first_frame, _local(first_missed))
    since, until = _text(first_frame or opening), _text(last_frame or close)
    span = {**_range(day, opening, close), "since": since, "until": until, "minutes": minutes}
    written = _write(client, "rows_minutes", table, {**span, "day_over": int(day_over)}, before)
    client.insert("rolled_up", [[day, period, before.changed]], column_names=_ROLLED_UP)
    return written


def fill_from_history(client: Any, day: date) -> Written:
    """Repair gaps of bars_1m from ``qmt_bars`` (1m), marked ``history``: minutes missing, or with nothing of ours."""
    span = _range(day, at(day, MINUTE_LABELS[0]), at(day, MINUTE_LABELS[-1]))
    return _write(client, "rows_history", "bars_1m", span, _before(client, day))


@dataclass(frozen=True)
class _Before:
    """What is known of a day before rows of it are written, in the order of ``next_version.sql``."""

    version: int
    block: int
    read_at: datetime
    repaired: bool
    changed: int
    withdrawn: bool


def _before(client: Any, day: date) -> _Before:
    return _Before(*client.query(load_sql("next_version"), {"day": day}).first_row)


def _write(
    client: Any, rows: str, table: str, parameters: dict[str, Any], before: _Before, how: str = "write_changed"
) -> Written:
    """Write what is new or changed among the rows that the query *rows* gives for first … last; rows that only a
    withdrawn tick had made are deleted."""
    parameters = {**parameters, "table": table, "version": before.version}
    client.command(Template(load_sql(how)).substitute(rows=load_sql(rows)), parameters)
    written = _written(client, parameters)
    if rows == "rows_history" or not before.withdrawn:
        return written
    if "day_over" in parameters:  # windows: all of the day, closed or not
        parameters |= {"since": parameters["first"], "until": parameters["last"], "day_over": 1}
    sql = Template(load_sql("withdrawn_rows")).substitute(rows=load_sql(rows))
    gone = client.query(sql, parameters).result_rows
    if gone:
        keys = [(symbol, int(frame.timestamp())) for symbol, frame in gone]
        client.command(load_sql("delete_rows"), {**parameters, "keys": keys})
    return replace(written, rows=written.rows + len(gone))


@dataclass(frozen=True)
class _Frame:
    """One frame of a day: whether final, whether a tick was stored after it was made so (``reopened``) or so shortly
    before that it may not have been visible (``settling``), and the version that last changed it."""

    at: datetime
    is_final: bool
    reopened: bool
    settling: bool
    changed: int

    @property
    def is_open(self) -> bool:
        return not self.is_final or self.reopened


def _frames(client: Any, day: date) -> Sequence[_Frame]:
    rows = client.query(load_sql("open_frames"), {"day": day}).result_rows
    return [_Frame(_local(frame), bool(f), bool(r), bool(s), int(changed)) for frame, f, r, s, changed in rows]


def _fallback(settings: Settings, day: date, now_ms: int, speed: float) -> int:
    """The frame end (epoch ms) up to which the clock alone closes frames; 0: none yet."""
    passed = now_ms - int(settings.close_fallback_seconds * max(speed, 1.0) * 1000)
    ends = [to_ms(at(day, minutes)) for minutes in CLOSED_BY_CLOCK]
    return max((end for end in ends if end <= passed), default=0) if from_ms(now_ms).date() == day else 0


def _closed(
    day: date, market_ms: int, grace_ms: int, clock_ms: int, frames: Sequence[datetime] = ()
) -> datetime | None:
    """The last frame of *day* (of *frames*) that ends *grace_ms* before the market's time, or not after *clock_ms*;
    None without ticks."""
    if not market_ms:
        return None
    frames = frames or [at(day, minutes) for minutes in MINUTE_LABELS]
    closed = [frame for frame in frames if to_ms(frame) + grace_ms <= market_ms or to_ms(frame) <= clock_ms]
    return closed[-1] if closed else None


def label_day(day: date, period: str) -> date:
    """The day whose 15:00 labels the bar of *period* that holds *day*; the day itself for 1d and minutes."""
    return _calendar_span(day, period)[1] if period in ("1w", "1mo") else day


def _calendar_span(day: date, period: str) -> tuple[date, date]:
    """First and last trading day of the week or month that holds *day*."""
    if period == "1w":
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=6)
    else:
        first = day.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    days = calendar.trading_days(first, last) or [day]
    return days[0], days[-1]


def _written(client: Any, parameters: dict[str, Any]) -> Written:
    rows, symbols, first, last = client.query(load_sql("written"), parameters).first_row
    first, last = (_local(first), _local(last)) if rows else (None, None)
    return Written(int(rows), int(symbols), first, last, parameters["version"])


def _range(day: date, first: datetime, last: datetime) -> dict[str, Any]:
    return {"day": day, "first": _text(first), "last": _text(last)}


def _text(moment: datetime) -> str:
    """An aware time as ClickHouse reads it in a parameter of type DateTime('Asia/Shanghai')."""
    return moment.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def _local(moment: datetime) -> datetime:
    """A time as the client gives it, with our zone object."""
    return moment.astimezone(SHANGHAI)
