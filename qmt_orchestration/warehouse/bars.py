"""Which minutes are to be made final, and making them so: states -> bars_1m -> rollups. The rule is SQL (bars_1m_live).

All work follows from ClickHouse's own state: `pending` compares the states of each frame with what they were when the
frame was last made final (table ``final_frames``), so a lost run repairs itself and a late tick re-opens its minute.
Every function may be repeated or interrupted at any point; a row that would not change is not written again.

Frames are end labels, aware datetimes in Asia/Shanghai; versions are microseconds of the server's clock, rising.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from string import Template
from typing import Any, Final

from qmt_orchestration.market import calendar
from qmt_orchestration.market.periods import UnknownPeriod as UnknownPeriod
from qmt_orchestration.market.periods import intraday, minutes_of
from qmt_orchestration.market.sessions import CLOSED_BY_CLOCK, MINUTE_LABELS, SHANGHAI, at, frame_label, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import load_sql

#: Rollups that always follow the minutes during the session; `pending` looks after them and those of the settings.
INTRADAY_ROLLUPS: Final = ("5m", "30m")


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

    A frame is closed when the market's newest tick is ``close_grace_ms`` past its end. The clock alone closes what is
    open where the market is silent by rule (11:30; 14:57 to 15:00), on the day of *now_ms* only and
    ``close_fallback_seconds`` of wall time after it (*speed*: market seconds per wall second): a minute in mid-session
    whose ticks are merely late must not be closed without them. The range of a day reaches to its last closed frame,
    because a late tick also moves the minutes after its own. Days whose intraday rollups lag behind their minutes are
    told, too.
    """
    today = from_ms(now_ms).date()
    days = client.query(load_sql("state_days")).result_rows
    newest = max((day for day, _ in days), default=None)
    found: dict[date, Pending] = {}
    for day, touched in days:
        if touched or day in (today, newest):
            one = _open_frames(client, settings, day, _fallback(settings, day, now_ms, speed))
            if one:
                found[day] = one
    for period in intraday(settings.rollup_periods):
        for day, first, last, frames in client.query(load_sql("stale_rollups"), {"period": period}).result_rows:
            found.setdefault(day, Pending(day, _local(first), _local(last), int(frames)))
    return [found[day] for day in sorted(found)]


def closed_watermark(client: Any, settings: Settings, day: date, now_ms: int, *, speed: float = 1.0) -> datetime | None:
    """The last closed frame of *day* (the rule of `pending`), None before the first has closed."""
    by_clock = _fallback(settings, day, now_ms, speed)
    closed = _closed(day, market_time_ms(client, day), settings.close_grace_ms, by_clock)
    return closed[-1] if closed else None


def market_time_ms(client: Any, day: date) -> int:
    """Exchange time of the newest tick of the market on *day*, epoch ms; 0 when there is none."""
    rows = client.query(load_sql("market_time"), {"day": day}).result_rows
    return int(rows[0][0]) if rows else 0


def newest_frame(client: Any, day: date) -> datetime | None:
    """The frame of the newest tick of *day*: of a day that is over, its last frame, whether or not a tick closed it."""
    newest = market_time_ms(client, day)
    if not newest:
        return None
    moment = from_ms(newest)
    return at(day, frame_label(moment.hour * 60 + moment.minute) or MINUTE_LABELS[-1])


def live_bars(client: Any, day: date, first_frame: datetime, last_frame: datetime) -> Any:
    """Rows of the rule, straight from the states, as an Arrow table in the order (frame, symbol).

    Columns: symbol, frame, open, high, low, close, vol (shares), amount (yuan), source, ticks, quality_score. A minute
    that has not closed gives its bar so far.
    """
    return client.query_arrow(load_sql("live_bars"), parameters=_range(day, first_frame, last_frame), use_strings=True)


def finalize(
    client: Any, day: date, first_frame: datetime | None = None, last_frame: datetime | None = None
) -> Written:
    """Write bars_1m from the rule for first … last; without frames, the whole day up to its last closed minute.

    Only new and changed rows are written. What the states were is noted first, so that ticks which arrive meanwhile
    re-open their minute.
    """
    version, block = client.query(load_sql("next_version"), {"day": day}).first_row
    states = client.query(load_sql("open_frames"), {"day": day}).result_rows
    if last_frame is None:
        closed = _closed(day, int(states[0][4]), 0, 0)
        last_frame = closed[-1] if closed else None
    first_frame = first_frame or at(day, MINUTE_LABELS[0])
    if last_frame is None or last_frame < first_frame:
        return Written(0, 0, None, None, 0)
    span = _range(day, first_frame, last_frame)
    client.command(load_sql("finalize_1m"), {**span, "version": version})
    written = _written(client, "bars_1m", span, version)
    noted = [
        [day, _local(frame), rows_in, updated, block, version if written.rows else changed, version]
        for frame, rows_in, updated, _, _, changed in states
        if first_frame <= _local(frame) <= last_frame
    ]
    columns = ["day", "frame", "rows_in", "updated", "block", "changed", "version"]
    client.insert("final_frames", noted, column_names=columns)
    return written


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
    version = int(client.query(load_sql("next_version"), {"day": day}).first_row[0])
    table = f"bars_{period}"
    if period == "1d":
        span = _range(day, at(day, 900), at(day, 900))
        client.command(load_sql("roll_up_1d"), {"table": table, "day": day, "version": version})
    elif minutes:
        reached = int(client.query(load_sql("final_version"), {"day": day}).first_row[0])
        for missed_day, first, _, _ in client.query(load_sql("stale_rollups"), {"period": period}).result_rows:
            if missed_day == day and first_frame:
                first_frame = min(first_frame, _local(first))
        span = _range(day, first_frame or at(day, MINUTE_LABELS[0]), last_frame or at(day, MINUTE_LABELS[-1]))
        parameters = {**span, "table": table, "minutes": minutes, "version": version, "day_over": int(day_over)}
        client.command(load_sql("roll_up_minutes"), parameters)
        client.insert("rolled_up", [[day, period, reached]], column_names=["day", "period", "version"])
        span = {**span, "last": _text(at(day, MINUTE_LABELS[-1]))}
    else:
        first, last = _calendar_span(day, period)
        client.command(
            load_sql("roll_up_days"),
            {
                "table": table,
                "first": _text(at(first, 0)),
                "last": _text(at(last, 900)),
                "label": _text(at(last, 900)),
                "version": version,
            },
        )
        span = _range(last, at(last, 900), at(last, 900))
    return _written(client, table, span, version)


def rebuild_states(client: Any, day: date) -> int:
    """Make the minute states of *day* anew from its stored ticks; the number of states. Safe while ticks arrive.

    Prepared beside and put in place at once. Ticks stored meanwhile are added afterwards: a state seen twice is the
    same.
    """
    before = _block(client, "ticks", day)
    if before == 0:
        client.command("ALTER TABLE bar_states_1m DROP PARTITION {part:String}", {"part": f"{day:%Y%m%d}"})
        return 0
    drop = "ALTER TABLE bar_states_1m_new DROP PARTITION {part:String}"
    part = {"part": f"{day:%Y%m%d}"}
    client.command(drop, part)
    _states_of(client, day, "bar_states_1m_new")
    client.command("ALTER TABLE bar_states_1m REPLACE PARTITION {part:String} FROM bar_states_1m_new", part)
    client.command(drop, part)
    if _block(client, "ticks", day) != before:
        _states_of(client, day, "bar_states_1m")
    return int(client.query(load_sql("states_of_day"), {"day": day}).first_row[0])


def fill_from_history(client: Any, day: date) -> Written:
    """Repair gaps of bars_1m from ``qmt_bars`` (1m), marked ``history``: minutes missing, or with nothing of ours."""
    version = int(client.query(load_sql("next_version"), {"day": day}).first_row[0])
    span = _range(day, at(day, MINUTE_LABELS[0]), at(day, MINUTE_LABELS[-1]))
    client.command(load_sql("fill_from_history"), {**span, "version": version})
    return _written(client, "bars_1m", span, version)


def _states_of(client: Any, day: date, target: str) -> None:
    of_day = Template(load_sql("states_of_ticks")).substitute(source="(" + load_sql("ticks_of_day") + ")")
    client.command(Template(load_sql("rebuild_states")).substitute(states=of_day), {"target": target, "day": day})


def _block(client: Any, table: str, day: date) -> int:
    return int(client.query(load_sql("newest_block"), {"table": table, "day": day}).first_row[0])


def _open_frames(client: Any, settings: Settings, day: date, by_clock_ms: int) -> Pending | None:
    rows = client.query(load_sql("open_frames"), {"day": day}).result_rows
    closed = _closed(day, int(rows[0][4]), settings.close_grace_ms, by_clock_ms)
    if not closed:
        return None
    open_frames = [frame for frame, _, _, is_final, *_ in rows if not is_final and _local(frame) <= closed[-1]]
    return Pending(day, _local(open_frames[0]), closed[-1], len(open_frames)) if open_frames else None


def _fallback(settings: Settings, day: date, now_ms: int, speed: float) -> int:
    """The frame end (epoch ms) up to which the clock alone closes frames; 0: none yet."""
    passed = now_ms - int(settings.close_fallback_seconds * max(speed, 1.0) * 1000)
    ends = [to_ms(at(day, minutes)) for minutes in CLOSED_BY_CLOCK]
    return max((end for end in ends if end <= passed), default=0) if from_ms(now_ms).date() == day else 0


def _closed(day: date, market_ms: int, grace_ms: int, clock_ms: int) -> list[datetime]:
    """Frames of *day* that end *grace_ms* before the market's time, or not after *clock_ms*; none without ticks."""
    if not market_ms:
        return []
    frames = [at(day, minutes) for minutes in MINUTE_LABELS]
    return [frame for frame in frames if to_ms(frame) + grace_ms <= market_ms or to_ms(frame) <= clock_ms]


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


def _written(client: Any, table: str, span: dict[str, Any], version: int) -> Written:
    parameters = {"table": table, "version": version, "first": span["first"], "last": span["last"]}
    rows, symbols, first, last = client.query(load_sql("written"), parameters).first_row
    return Written(int(rows), int(symbols), _local(first) if rows else None, _local(last) if rows else None, version)


def _range(day: date, first: datetime, last: datetime) -> dict[str, Any]:
    return {"day": day, "first": _text(first), "last": _text(last)}


def _text(moment: datetime) -> str:
    """An aware time as ClickHouse reads it in a parameter of type DateTime('Asia/Shanghai')."""
    return moment.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def _local(moment: datetime) -> datetime:
    """A time as the client gives it, with our zone object."""
    return moment.astimezone(SHANGHAI)
