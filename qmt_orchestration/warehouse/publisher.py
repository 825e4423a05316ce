"""The publisher: as each minute of the market's day closes, its bars go to `minute_bar_stream`, each once.

It asks ClickHouse for the market's time (the newest tick) and, when a frame has closed, for that frame's bars from the
rule's view; nothing of the rule is repeated here. What has been published is written in the same Redis transaction as
the entries (`keys.PUBLISHED`: trading day -> last frame, epoch ms), so a restart neither repeats nor skips a frame.

A bar of the last few frames that changed since (late ticks) is published again with ``revision`` one higher, with the
next frame that closes. After 11:30 and 15:00, where none closes for long, it is looked for every few seconds, and a
last time after 15:05, when no tick can belong to the day's frames any more. Ids are ``<frame epoch ms>-<n>``; a
revision takes the next ``n`` of the newest frame, because ids of a stream only rise.
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

from qmt_orchestration.market.sessions import MINUTE_LABELS, at, from_ms, minute_frames, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect as connect_clickhouse

log = logging.getLogger("publisher")

_POLL_SECONDS: Final = 0.15
_ANSWER_SECONDS: Final = 60  # a server that is gone without a word must not hold up the bars for ten minutes
_FRAMES_AT_ONCE: Final = 10  # frames read in one query when behind
_DAYS_KEPT: Final = 30  # days remembered in keys.PUBLISHED
_REVISE_SECONDS: Final = 5.0  # wall clock, between looks for late ticks while no frame closes
_ENDS: Final = (690, 900)  # frames after which none closes for long: 11:30, 15:00
_DAY_DONE: Final = 905  # progress of a day whose last revisions are published: 15:05

_COLUMNS: Final = ("frame", "symbol", "open", "high", "low", "close", "vol", "amount", "source", "quality_score")
Row = tuple[int, str, float, float, float, float, int, float, str, float]
Fresh = tuple[Row, tuple[str, ...], int]  # a bar to publish: its row, its values as text, its revision


def run(settings: Settings, stop: threading.Event) -> int:
    """Publish until *stop*. Survives the absence of Redis and of ClickHouse."""
    client: Any = connect(settings)
    publisher = Publisher(settings, client)
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(settings, publisher, done), name="heartbeat", daemon=True)
    beats.start()
    try:
        while not stop.wait(_POLL_SECONDS):
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
    """Beat once a second, in a thread of its own: a ClickHouse that is slow to answer is no dead publisher.

    Its client's time-outs end every query, so the loop cannot hang for ever behind these beats; ``step_seconds`` shows
    how long it has waited.
    """
    client = connect(settings)
    heartbeat = Heartbeat(client, settings, "publisher")
    while not done.wait(1.0):
        try:
            heartbeat.beat(publisher.numbers())
        except redis.RedisError as gone:
            log.debug("no heartbeat while Redis is away: %s", gone)
    heartbeat.stop()
    client.close()


@dataclass
class _Day:
    """What was published of one day: the last frame (epoch ms, 0 = none) and recent bars with their revision."""

    day: date
    frame: int = 0
    bars: dict[tuple[int, str], tuple[tuple[str, ...], int]] = field(default_factory=dict)


class Publisher:
    """Publishes what has closed; `step` is called again and again. Not for threads."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings, self._client = settings, client
        self._clickhouse: Any = None
        self._state: _Day | None = None
        self._forming: dict[str, tuple[str, ...]] = {}
        self._next_forming = self._next_revision = 0.0
        self._step_began = 0.0
        self.bars = self.revisions = self.frames = 0
        self.last_frame_ms = 0
        self.delay_ms = -1.0
        self.error = ""

    def numbers(self) -> dict[str, int | float | str]:
        """Numbers of the heartbeat. ``delay_ms``: market clock at publishing minus the end of the newest frame.

        ``step_seconds``: how long the present look at ClickHouse and Redis has lasted.
        """
        return {
            "bars": self.bars,
            "revisions": self.revisions,
            "frames": self.frames,
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

    def step(self) -> int:
        """Publish every frame that has closed and is not published; returns the bars published."""
        self._step_began = time.monotonic()
        if self._clickhouse is None:
            self._clickhouse = connect_clickhouse(self._settings, send_receive_timeout=_ANSWER_SECONDS)
        clock = read_clock(self._client)
        published = {k.decode(): int(v) for k, v in self._client.hgetall(keys.PUBLISHED).items()}
        count = 0
        for day in _unfinished_days(published, clock.today()):
            count += self._step_day(day, published.get(day.isoformat(), 0), clock)
        self.error, self._step_began = "", 0.0
        return count

    def _step_day(self, day: date, done: int, clock: MarketClock) -> int:
        now_ms = clock.now_ms()
        watermark = bars.closed_watermark(self._clickhouse, self._settings, day, now_ms)
        closed = [to_ms(frame) for frame in minute_frames(day) if watermark is not None and frame <= watermark]
        due = [frame for frame in closed if frame > done]
        count = 0
        for start in range(0, len(due), _FRAMES_AT_ONCE):
            count += self._publish(day, closed, due[start : start + _FRAMES_AT_ONCE], done, clock)
            done = due[start : start + _FRAMES_AT_ONCE][-1]
        if not due and done in (to_ms(at(day, minutes)) for minutes in _ENDS):
            count += self._revise(day, closed, done, now_ms)
        if self._settings.publish_forming and day == clock.today() and time.monotonic() >= self._next_forming:
            self._next_forming = time.monotonic() + 1
            self._publish_forming(day, len(closed), now_ms)
        return count

    # -- closed frames --------------------------------------------------------------------------------------

    def _publish(self, day: date, closed: Sequence[int], due: Sequence[int], done: int, clock: MarketClock) -> int:
        state = self._state_of(day, closed, done)
        first = closed[max(closed.index(due[0]) - self._settings.publish_revision_frames, 0)]
        fresh: dict[int, list[Fresh]] = {frame: [] for frame in due}
        for row, values, revision in self._changed(state, first, due[-1]):
            # a bar that changed, or came too late for its own frame, goes with the first frame that is due
            fresh[row[0] * 1000 if row[0] * 1000 in fresh else due[0]].append((row, values, revision))
        count = 0
        for frame in due:
            if not self._send(day, state.frame, frame, fresh[frame]):
                self._state = None  # another instance, or a server that lost its last moments: read it all again
                return count
            state.frame = self.last_frame_ms = frame
            self._note(state, fresh[frame])
            count += len(fresh[frame])
        self.bars += count
        self.frames += len(due)
        self.delay_ms = clock.now_ms() - due[-1]
        keep = closed[max(closed.index(due[-1]) - self._settings.publish_revision_frames, 0)]
        state.bars = {key: bar for key, bar in state.bars.items() if key[0] >= keep}
        return count

    def _revise(self, day: date, closed: Sequence[int], done: int, now_ms: int) -> int:
        """Publish what late ticks have changed since *done*, the last frame before a long pause."""
        last = self._settings.close_fallback_seconds * 1000 + to_ms(at(day, _DAY_DONE)) <= now_ms
        over = last and done == closed[-1] == to_ms(at(day, MINUTE_LABELS[-1]))
        if not over and time.monotonic() < self._next_revision:
            return 0
        self._next_revision = time.monotonic() + _REVISE_SECONDS
        state = self._state_of(day, closed, done)
        first = closed[max(closed.index(done) - self._settings.publish_revision_frames, 0)]
        fresh = self._changed(state, first, done)
        if not fresh and not over:
            return 0
        if not self._send(day, done, done, fresh, progress=to_ms(at(day, _DAY_DONE)) if over else done):
            self._state = None
            return 0
        self._note(state, fresh)
        self.bars += len(fresh)
        return len(fresh)

    def _state_of(self, day: date, closed: Sequence[int], done: int) -> _Day:
        if self._state is None or self._state.day != day or self._state.frame != done:
            self._state = self._recall(day, closed, done)
        return self._state

    def _changed(self, state: _Day, first: int, last: int) -> list[Fresh]:
        """Bars of the frames first … last that are not published as they are now, with their next revision."""
        out: list[Fresh] = []
        for row in self._read(state.day, first, last):
            values, known = _values(row), state.bars.get((row[0] * 1000, row[1]))
            if known is None or known[0] != values:
                out.append((row, values, 0 if known is None else known[1] + 1))
        return out

    def _note(self, state: _Day, fresh: Sequence[Fresh]) -> None:
        for row, values, revision in fresh:
            state.bars[(row[0] * 1000, row[1])] = (values, revision)
            self.revisions += revision > 0

    def _read(self, day: date, first: int, last: int) -> list[Row]:
        table = bars.live_bars(self._clickhouse, day, from_ms(first), from_ms(last))
        columns = [table.column(name) for name in _COLUMNS]
        columns[0] = columns[0].cast(pa.int64())
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def _send(self, day: date, before: int, frame: int, rows: Sequence[Fresh], *, progress: int = 0) -> bool:
        """Entries and progress (*frame* unless given) in one transaction.

        False if the progress in Redis is not *before*: nothing is sent.
        """
        with self._client.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(keys.PUBLISHED)
                if int(pipe.hget(keys.PUBLISHED, day.isoformat()) or 0) != before:
                    return False
                top_ms, top_n = _top(pipe, keys.BARS)
                ms, n = (frame, 0) if frame > top_ms else (top_ms, top_n + 1)
                pipe.multi()
                for i, (row, values, revision) in enumerate(rows):
                    pipe.xadd(keys.BARS, _entry(row, values, revision), id=f"{ms}-{n + i}")
                pipe.hset(keys.PUBLISHED, day.isoformat(), progress or frame)
                pipe.execute()
            except redis.WatchError:  # also when the reply was lost: what happened stands in Redis
                return False
        return True

    def _recall(self, day: date, closed: Sequence[int], done: int) -> _Day:
        """What the stream itself says of the last frames of *day*: for revisions after a restart."""
        state = _Day(day, done)
        if not done:
            return state
        frames = [frame for frame in closed if frame <= done]
        oldest = frames[-self._settings.publish_revision_frames - 1 :][0] if frames else done
        last = "+"
        while True:
            page = self._client.xrevrange(keys.BARS, last, f"{oldest}-0", count=5000)
            for _, fields in page:
                frame, symbol = int(fields[b"timestamp"]) * 1000, fields[b"symbol"].decode()
                values = tuple(fields[name].decode() for name in _VALUE_NAMES)
                if frame >= oldest and (frame, symbol) not in state.bars:  # newest first
                    state.bars[(frame, symbol)] = (values, int(fields[b"revision"]))
            if len(page) < 5000:
                return state
            last = "(" + page[-1][0].decode()

    # -- the minute not yet closed --------------------------------------------------------------------------

    def _publish_forming(self, day: date, closed: int, now_ms: int) -> None:
        """Bars of the first frame that is not closed, as they stand; only those that changed."""
        if closed >= len(MINUTE_LABELS):
            return
        frame = to_ms(at(day, MINUTE_LABELS[closed]))
        if self._forming and next(iter(self._forming.values()))[0] != str(frame):
            self._forming.clear()
        pipe = self._client.pipeline(transaction=False)
        top_ms, top_n = _top(self._client, keys.BARS_FORMING)
        ms, n = (now_ms, 0) if now_ms > top_ms else (top_ms, top_n + 1)
        changed: dict[str, tuple[str, ...]] = {}
        for row in self._read(day, frame, frame):
            values = _values(row)
            if self._forming.get(row[1]) != (str(frame), *values):
                pipe.xadd(keys.BARS_FORMING, _entry(row, values, 0), id=f"{ms}-{n + len(changed)}")
                changed[row[1]] = (str(frame), *values)
        pipe.execute()
        self._forming.update(changed)


_VALUE_NAMES: Final = (b"open", b"high", b"low", b"close", b"vol", b"amount", b"quality_score", b"source")


def _values(row: Row) -> tuple[str, ...]:
    """The values of a bar as text, in the order of `_VALUE_NAMES`."""
    _, _, open_, high, low, close, vol, amount, source, score = row
    return (str(open_), str(high), str(low), str(close), str(vol), str(amount), f"{score:.4g}", str(source))


def _entry(row: Row, values: tuple[str, ...], revision: int) -> dict[bytes | str, str | int]:
    """The entry of a bar, in the published format (docs/architecture.md)."""
    return {
        "symbol": row[1],
        "frame": f"{from_ms(row[0] * 1000):%Y-%m-%d %H:%M:%S}",
        **dict(zip(_VALUE_NAMES, values, strict=True)),
        "timestamp": row[0],
        "revision": revision,
    }


def _unfinished_days(published: Mapping[str, int], today: date) -> list[date]:
    """Today, and before it a day that an earlier life left unfinished (the newest one it had begun)."""
    begun = sorted(text for text in published if today - timedelta(days=_DAYS_KEPT) <= date.fromisoformat(text) < today)
    days = [today]
    if begun:
        last = date.fromisoformat(begun[-1])
        if published[begun[-1]] < to_ms(at(last, _DAY_DONE)):
            days.insert(0, last)
    return days


def _top(client: Any, stream: str) -> tuple[int, int]:
    try:
        ms, _, n = client.xinfo_stream(stream)["last-generated-id"].decode().partition("-")
    except redis.ResponseError:
        return 0, -1
    return int(ms), int(n)
