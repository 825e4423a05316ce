"""The publisher: as each minute of the market's day closes, its bars go to `minute_bar_stream`, each once.

It reads the market's time from ClickHouse (the newest tick) and, when a frame has closed, that frame's bars from the
rule's view; nothing of the rule is repeated here. Progress and entries change together (`bar_stream.send`), so a
restart neither repeats nor skips a frame.

Half a second after the new bars are out, so that clients can take them first, the last few frames are looked at: a bar
that late ticks have changed is published again with ``revision`` one higher. After 11:30 and 15:00, where no frame
closes for long, this happens every few seconds, and a last time after 15:05, when no tick can belong to the day's
frames any more.

**11:30 and 15:00** are closed by the first ticks stamped a second past them, while most symbols' own last snapshot,
at 15:00 the one with the closing auction, still comes: stamped up to 11:30:03 and 15:00:06. The bar of a symbol waits
for it, at most ``close_settle_ms`` of market time, so that the whole bar goes out and not a preliminary one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa
import redis
from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.market.sessions import MINUTE_LABELS, SESSION_ENDS, at, from_ms, minute_frames, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import threads
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.warehouse import bar_stream, bars
from qmt_orchestration.warehouse.bar_stream import Fresh, Known, Row, values_of
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.client import load_sql

log = logging.getLogger("publisher")

# Wall seconds between looks at the market's time: when no frame can close soon, near that moment, and while one is due.
_CALM_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.15
_ANSWER_SECONDS: Final = 60  # a server that no longer answers must not delay the bars for ten minutes
_SHARP_SECONDS: Final = 0.01
_NEAR_SECONDS: Final = 5.0  # clocks of exchange and machine agree at least this well
_DUE_SECONDS: Final = 3.0  # a frame that has not closed by then is no longer looked for sharply
_FRAMES_AT_ONCE: Final = 10  # frames read in one query when behind
_DAYS_KEPT: Final = 30  # days remembered in keys.PUBLISHED
_REVISE_SECONDS: Final = 5.0  # wall clock, between looks for late ticks while no frame closes
_SETTLE_SECONDS: Final = 0.5  # the same while last snapshots of a session come in, and after a frame went out
_DAY_DONE: Final = 905  # progress of a day whose last revisions are published: 15:05

_COLUMNS: Final = ("frame", "symbol", "open", "high", "low", "close", "vol", "amount", "source", "quality_score")


def run(settings: Settings, stop: threading.Event) -> int:
    """Publish until *stop*. Survives the absence of Redis and of ClickHouse."""
    client: Any = connect(settings)
    publisher = Publisher(settings, client)
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(settings, publisher, done), name="heartbeat", daemon=True)
    beats.start()
    try:
        while not stop.wait(publisher.pause_seconds()):
            try:
                publisher.step()
            except (redis.RedisError, ClickHouseError, OSError) as error:
                publisher.failed(error)
                stop.wait(0.5)
    finally:
        done.set()
        beats.join(3.0)
    client.close()
    return 0


def _beat(settings: Settings, publisher: Publisher, done: threading.Event) -> None:
    """Beat once a second, in a thread of its own: a slow answer of ClickHouse does not delay it.

    Its client's time-outs end every query, so the loop cannot hang while heartbeats continue; ``step_seconds`` shows
    how long it has waited.
    """
    client = connect(settings)
    heartbeat = Heartbeat(client, settings, "publisher")

    def step() -> None:
        try:
            heartbeat.beat(publisher.numbers())
        except redis.RedisError as gone:
            log.debug("no heartbeat while Redis is away: %s", gone)

    threads.repeat(step, done, 1.0)
    heartbeat.stop()
    client.close()


@dataclass
class _Day:
    """What was published of one day: the last frame (epoch ms, 0 = none) and recent bars with their revision.

    ``looked``: whether the frames before it have been looked at for late ticks since it went out.
    """

    day: date
    frame: int = 0
    bars: Known = field(default_factory=dict)
    looked: bool = True


class Publisher:
    """Publishes what has closed; `step` is called again and again. Not for threads."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings, self._client = settings, client
        self._clickhouse: Any = None
        self._state: _Day | None = None
        self._forming: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._next_forming = self._next_revision = 0.0
        self._step_began = 0.0
        self._due_at: tuple[MarketClock, int] | None = None  # when the next frame can close, market time
        self.bars = self.revisions = self.frames = self.waiting = 0
        self.last_frame_ms = 0
        self.delay_ms = -1.0
        self.error = ""

    def numbers(self) -> dict[str, int | float | str]:
        """Numbers of the heartbeat. ``delay_ms``: market clock at publishing minus the end of the newest frame.

        ``waiting``: bars of 11:30 or 15:00 that wait for their symbol's last snapshot. ``step_seconds``: how long the
        present look at ClickHouse and Redis has lasted.
        """
        return {
            "bars": self.bars,
            "revisions": self.revisions,
            "frames": self.frames,
            "waiting": self.waiting,
            "last_frame": f"{from_ms(self.last_frame_ms):%Y-%m-%d %H:%M}" if self.last_frame_ms else "",
            "last_frame_ms": self.last_frame_ms,
            "delay_ms": round(self.delay_ms, 1),
            "step_seconds": round(time.monotonic() - self._step_began, 1) if self._step_began else 0.0,
            "error": self.error,
        }

    def failed(self, error: BaseException) -> None:
        """An engine is away: forget what may be wrong by now; the next step reads it again."""
        text = f"{type(error).__name__}: {str(error)[:300]}"
        if text != self.error:
            log.warning("trying again: %s", text)
        self.error = text
        self._state = self._clickhouse = None
        self._step_began = 0.0

    def pause_seconds(self) -> float:
        """How long the next `step` may wait: short only around the moment when a frame can close."""
        if self._due_at is None or self.waiting:
            return _POLL_SECONDS if self.waiting else _CALM_SECONDS
        clock, due_ms = self._due_at
        left = (due_ms - clock.now_ms()) / 1000 / max(clock.speed, 1.0)
        if left > _NEAR_SECONDS:
            return _CALM_SECONDS
        return _SHARP_SECONDS if -_DUE_SECONDS < left < _SHARP_SECONDS else min(max(left, 0.0) or 1.0, _POLL_SECONDS)

    def step(self) -> int:
        """Publish every frame that has closed and is not published; returns the bars published."""
        self._step_began = time.monotonic()
        if self._clickhouse is None:
            self._clickhouse = connect_clickhouse(self._settings, send_receive_timeout=_ANSWER_SECONDS)
        clock = read_clock(self._client)
        published = bar_stream.published(self._client)
        count = 0
        for day in _unfinished_days(published, clock.today()):
            count += self._step_day(day, published.get(day.isoformat(), 0), clock)
        self.error, self._step_began = "", 0.0
        return count

    def _step_day(self, day: date, done: int, clock: MarketClock) -> int:
        now_ms = clock.now_ms()
        frames = [to_ms(frame) for frame in minute_frames(day)]
        newest = self._newest_closed(day, next((frame for frame in frames if frame > done), 0), done, clock)
        closed = [frame for frame in frames if frame <= newest]
        due = [frame for frame in closed if frame > done]
        count = 0
        for start in range(0, len(due), _FRAMES_AT_ONCE):
            part = due[start : start + _FRAMES_AT_ONCE]
            count += self._publish(day, closed, part, done, clock)
            if self._state is None:
                return count
            done = part[-1]
        new = self._state is not None and self._state.day == day and not self._state.looked
        if done in closed and (new or done in (to_ms(at(day, minutes)) for minutes in SESSION_ENDS)):
            count += self._revise(day, closed, done, clock, new=new)
        following = next((frame for frame in frames[len(closed) :] if frame > done), 0)
        self._due_at = (clock, following + self._settings.close_grace_ms) if following else None
        if self._settings.publish_forming and day == clock.today() and time.monotonic() >= self._next_forming:
            self._next_forming = time.monotonic() + 1
            self._publish_forming(day, len(closed), now_ms)
        return count

    def _newest_closed(self, day: date, following: int, done: int, clock: MarketClock) -> int:
        """End of the newest closed frame, epoch ms. While the *following* one cannot have closed it is *done*, at the
        cost of a look at metadata."""
        asked: dict[str, Any] = {"now_ms": clock.now_ms(), "speed": clock.speed}
        if done and not (
            following and bars.may_have_closed(self._clickhouse, self._settings, from_ms(following), **asked)
        ):
            return done
        watermark = bars.closed_watermark(self._clickhouse, self._settings, day, **asked)
        return to_ms(watermark) if watermark else 0

    # -- closed frames --------------------------------------------------------------------------------------

    def _publish(self, day: date, closed: Sequence[int], due: Sequence[int], done: int, clock: MarketClock) -> int:
        """The bars of *due* alone, nothing that could delay them."""
        state = self._state_of(day, closed, done)
        fresh: dict[int, list[Fresh]] = {frame: [] for frame in due}
        for bar in self._changed(state, due[0], due[-1], clock.now_ms()):
            fresh[bar[0][0] * 1000].append(bar)
        count = 0
        for frame in due:
            if not bar_stream.send(self._client, day, state.frame, frame, fresh[frame], frame):
                self._state = None  # another instance, or a server that lost its last moments: read it all again
                return count
            state.frame = self.last_frame_ms = frame
            state.looked = False
            self._note(state, fresh[frame])
            count += len(fresh[frame])
        self.bars += count
        self.frames += len(due)
        self.delay_ms = clock.now_ms() - due[-1]
        self._next_revision = time.monotonic() + _SETTLE_SECONDS  # while the clients take what is new
        return count

    def _revise(self, day: date, closed: Sequence[int], done: int, clock: MarketClock, *, new: bool) -> int:
        """Publish what has changed in the last frames since they went out; *new*: not looked at since the newest."""
        now_ms, late_ms = clock.now_ms(), self._settings.close_fallback_seconds * max(clock.speed, 1.0) * 1000
        last = to_ms(at(day, _DAY_DONE)) + late_ms <= now_ms
        over = last and done == closed[-1] == to_ms(at(day, MINUTE_LABELS[-1]))
        if not over and time.monotonic() < self._next_revision:
            return 0
        settling = done in (to_ms(at(day, minutes)) for minutes in SESSION_ENDS) and now_ms < self._settled_ms(done)
        self._next_revision = time.monotonic() + (_SETTLE_SECONDS if settling else _REVISE_SECONDS)
        state = self._state_of(day, closed, done)
        first = closed[max(closed.index(done) - self._settings.publish_revision_frames, 0)]
        state.bars = {key: bar for key, bar in state.bars.items() if key[0] >= first}
        fresh = self._changed(state, done if settling and not new else first, done, now_ms)
        state.looked = True
        if not fresh and not over:
            return 0
        if not bar_stream.send(self._client, day, done, done, fresh, to_ms(at(day, _DAY_DONE)) if over else done):
            self._state = None
            return 0
        self._note(state, fresh)
        self.bars += len(fresh)
        return len(fresh)

    def _state_of(self, day: date, closed: Sequence[int], done: int) -> _Day:
        if self._state is None or self._state.day != day or self._state.frame != done:
            frames = [frame for frame in closed if frame <= done]
            oldest = frames[-self._settings.publish_revision_frames - 1 :][0] if frames else done
            self._state = _Day(day, done, bar_stream.recall(self._client, oldest) if done else {})
        return self._state

    def _changed(self, state: _Day, first: int, last: int, now_ms: int) -> list[Fresh]:
        """Bars of the frames first … last that are not published as they are now, with their next revision."""
        out: list[Fresh] = []
        rows = self._read(state.day, first, last)
        unsettled = self._unsettled(state.day, rows, last, now_ms)
        for row in rows:
            values, known = values_of(row), state.bars.get((row[0] * 1000, row[1]))
            if known is None and (row[0] * 1000, row[1]) in unsettled:
                continue
            if known is None or known[0] != values:
                out.append((row, values, 0 if known is None else known[1] + 1))
        self.waiting = len(unsettled - state.bars.keys())
        return out

    def _settled_ms(self, end: int) -> int:
        return end + self._settings.close_settle_ms

    def _unsettled(self, day: date, rows: Sequence[Row], last: int, now_ms: int) -> set[tuple[int, str]]:
        """Bars (frame ms, symbol) of *last*, if it ends a session, whose symbol has not sent its last snapshot yet."""
        label = next((minutes for minutes in SESSION_ENDS if to_ms(at(day, minutes)) == last), 0)
        if not label or now_ms >= self._settled_ms(last):
            return set()
        found = self._clickhouse.query(load_sql("settled"), parameters={"day": day, "frame": last // 1000}).result_rows
        there = {symbol for (symbol,) in found}
        # at 15:00:00 some only repeat the last price, others have the auction: what has traded has it
        return {
            (last, row[1])
            for row in rows
            if row[0] * 1000 == last and (row[1] not in there or (label == SESSION_ENDS[-1] and row[8] == "filled"))
        }

    def _note(self, state: _Day, fresh: Sequence[Fresh]) -> None:
        for row, values, revision in fresh:
            state.bars[(row[0] * 1000, row[1])] = (values, revision)
            self.revisions += revision > 0

    def _read(self, day: date, first: int, last: int) -> list[Row]:
        table = bars.live_bars(self._clickhouse, day, from_ms(first), from_ms(last))
        columns = [table.column(name) for name in _COLUMNS]
        columns[0] = columns[0].cast(pa.int64())
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    # -- the minute not yet closed --------------------------------------------------------------------------

    def _publish_forming(self, day: date, closed: int, now_ms: int) -> None:
        """Bars of the first frame that is not closed, as they stand; only those that changed."""
        if closed >= len(MINUTE_LABELS):
            return
        frame = to_ms(at(day, MINUTE_LABELS[closed]))
        bars_now = {row[1]: (row, values_of(row)) for row in self._read(day, frame, frame)}
        changed = {symbol: bar for symbol, bar in bars_now.items() if self._forming.get(symbol) != (frame, bar[1])}
        bar_stream.send_forming(self._client, now_ms, [(row, values, 0) for row, values in changed.values()])
        self._forming.update({symbol: (frame, values) for symbol, (_, values) in changed.items()})


def _unfinished_days(published: Mapping[str, int], today: date) -> list[date]:
    """Today, and before it a day that an earlier run left unfinished (the newest one it had begun)."""
    begun = sorted(text for text in published if today - timedelta(days=_DAYS_KEPT) <= date.fromisoformat(text) < today)
    days = [today]
    if begun:
        last = date.fromisoformat(begun[-1])
        if published[begun[-1]] < to_ms(at(last, _DAY_DONE)):
            days.insert(0, last)
    return days
