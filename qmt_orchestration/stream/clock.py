"""The market's clock, for every process on every host.

Live, the wall clock is the market's clock. A simulated market has one of its own in Redis (`keys.CLOCK`), in one of two
forms. Under `qmt up` it is a `Schedule`: segments of wall time, market time and speed, written by the supervisor. A new
segment takes effect `LEAD_MS` after it is written and a copy is used for `HOLD_MS` at most, so all readers have the
same market time at the same moment, and it never jumps or runs back. Without a supervisor (tests, benchmarks) the
process that runs the market publishes plain readings about once a second.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from qmt_orchestration.market.running_time import advance
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.stream import fields, keys

LEAD_MS: Final = 2000
HOLD_MS: Final = 1500
KEPT: Final = 8  # segments; at one a second they cover more than any copy is used for
_RUNS_ON_MS: Final = 5000  # after the last heartbeat of the process that runs the market
_LATEST_MS: Final = LEAD_MS - HOLD_MS  # a new segment must be in Redis this long after it was computed

# Refused when more time has passed on the server's clock since it was asked for its time than a segment allows.
_PUBLISH: Final = """
local now = redis.call('time')
if tonumber(ARGV[1]) > 0 and now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[1]) then return 0 end
redis.call('hset', KEYS[1], 'segments', ARGV[2], 'skips_breaks', ARGV[3], 'until_ms', ARGV[4], 'reason', ARGV[5])
redis.call('hdel', KEYS[1], 'market_ms', 'wall_ms', 'speed')
return 1
"""


@dataclass(frozen=True)
class Segment:
    """From *wall_ms* on, market time starts at *market_ms* (both epoch ms) and runs *speed* times as fast."""

    wall_ms: int
    market_ms: int
    speed: float


@dataclass(frozen=True)
class Schedule:
    """Segments ascending by wall time. *skips_breaks*: lunch and nights take no time (see `market.running_time`)."""

    segments: tuple[Segment, ...]
    skips_breaks: bool = True

    def at(self, wall_ms: float) -> Segment:
        """The segment in force at a wall time, the first one before its beginning."""
        return self.segments[max(bisect_right([s.wall_ms for s in self.segments], wall_ms) - 1, 0)]

    def market_ms(self, wall_ms: float) -> int:
        """Market time at a wall time, both epoch ms; it stands still before the first segment."""
        segment = self.at(wall_ms)
        passed = max(wall_ms - segment.wall_ms, 0.0) * segment.speed
        if self.skips_breaks:
            return advance(segment.market_ms, passed)
        return segment.market_ms + int(passed)

    def then(self, wall_ms: float, speed: float) -> Schedule:
        """The same schedule with another *speed* from *wall_ms* on, or from its last change on if that is later."""
        begin = max(int(wall_ms), self.segments[-1].wall_ms + 1)
        added = Segment(begin, self.market_ms(begin), speed)
        return Schedule((*self.segments, added)[-KEPT:], self.skips_breaks)


@dataclass(frozen=True)
class MarketClock:
    """A reading: market time (epoch ms) at a wall time (epoch ms), and market seconds per wall second.

    *schedule* and *until_ms* (wall time up to which it runs): the clock of a supervised market; *reason* says why it
    runs at its speed.
    """

    market_ms: int
    wall_ms: int
    speed: float
    simulated: bool
    reason: str = ""
    schedule: Schedule | None = None
    until_ms: int = 0

    def now_ms(self) -> int:
        """Market time now, epoch ms. A simulated clock stops some seconds after it was read or last kept alive."""
        wall = time.time() * 1000
        if self.schedule is not None:
            return max(self.schedule.market_ms(min(wall, self.wall_ms + HOLD_MS, self.until_ms)), self.market_ms)
        elapsed = max(wall - self.wall_ms, 0.0)
        if self.simulated:
            elapsed = min(elapsed, _RUNS_ON_MS)
        return self.market_ms + int(elapsed * self.speed)

    def now(self) -> datetime:
        """Market time now, Asia/Shanghai."""
        return from_ms(self.now_ms())

    def today(self) -> date:
        """The market's date now."""
        return self.now().date()


def read_clock(client: Any) -> MarketClock:
    """The published clock of a simulated market, else the wall clock; one that cannot be read is skipped."""
    wall = int(time.time() * 1000)  # before the question: the copy is at least as new
    published = client.hgetall(keys.CLOCK)
    if published:
        try:
            if b"segments" in published:
                return _scheduled(published, wall)
            return MarketClock(
                fields.require_integer(published, "market_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_integer(published, "wall_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_number(published, "speed", 0.0, 1e6),
                True,
            )
        except ValueError as error:  # FieldError, or a schedule past the end of the calendar
            fields.skip(keys.CLOCK, f"{keys.CLOCK}: {error}")
    return MarketClock(wall, wall, 1.0, False)


def _scheduled(published: Any, wall_ms: int) -> MarketClock:
    schedule = _parse(published)
    until_ms = fields.require_integer(published, "until_ms", fields.FIRST_MS, fields.LAST_MS)
    effective = min(wall_ms, until_ms)
    market_ms, speed = schedule.market_ms(effective), schedule.at(effective).speed
    return MarketClock(market_ms, wall_ms, speed, True, fields.text(published, "reason"), schedule, until_ms)


def _parse(published: Any) -> Schedule:
    segments = []
    for row in fields.list_of(published[b"segments"], "segments"):
        if not isinstance(row, list) or len(row) != 3:
            raise fields.FieldError(f"segments: expected [wall_ms, market_ms, speed], found {row!r:.60}")
        row_fields = dict(zip(("wall_ms", "market_ms", "speed"), map(str, row), strict=True))
        segments.append(
            Segment(
                fields.require_integer(row_fields, "wall_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_integer(row_fields, "market_ms", fields.FIRST_MS, fields.LAST_MS),
                fields.require_number(row_fields, "speed", 0.0, 1e6),
            )
        )
    if not segments or segments != sorted(segments, key=lambda s: s.wall_ms):
        raise fields.FieldError("segments: expected at least one, ascending by wall time")
    return Schedule(tuple(segments), fields.integer(published, "skips_breaks", 1) == 1)


def publish_clock(client: Any, market_ms: int, speed: float) -> None:
    """A plain reading, by a process that runs a simulated market without a supervisor, about once a second."""
    mapping = {"market_ms": market_ms, "wall_ms": int(time.time() * 1000), "speed": speed}
    with client.pipeline() as pipe:
        pipe.hdel(keys.CLOCK, "segments")
        pipe.hset(keys.CLOCK, mapping=mapping)
        pipe.execute()


def clear_clock(client: Any) -> None:
    """Called by a feed that is live, so that the wall clock is the market's clock again."""
    client.delete(keys.CLOCK)


class ClockPublisher:
    """The supervisor's side: keeps the schedule alive and changes its speed. Raises `redis.RedisError`."""

    def __init__(self, client: Any, schedule: Schedule) -> None:
        self._client, self.schedule = client, schedule
        self._doubtful: Schedule | None = None  # its write got no answer

    def keep(self, reason: str) -> None:
        """Publish the schedule: the clock runs on for some seconds more."""
        if self._doubtful is not None:
            if self._client.hget(keys.CLOCK, "segments") == _text(self._doubtful).encode():
                self.schedule = self._doubtful
            self._doubtful = None
        self._write(self.schedule, 0, reason)

    def set_speed(self, speed: float, reason: str) -> bool:
        """Another speed, two seconds from now. False, and nothing changes, when the write took too long."""
        self.keep(reason)
        seconds, micro = self._client.time()
        wall = time.time() * 1000
        changed = self.schedule.then(wall + LEAD_MS, speed)
        self._doubtful = changed
        written = self._write(changed, int(seconds * 1000 + micro / 1000) + _LATEST_MS, reason)
        self._doubtful = None
        if written:
            self.schedule = changed
        return written

    def stop(self) -> None:
        """The clock stands still from now on; the next start goes on from here."""
        self._write(self.schedule, 0, "stopped", until_ms=int(time.time() * 1000))

    def _write(self, schedule: Schedule, deadline_ms: int, reason: str, until_ms: int = 0) -> bool:
        until_ms = until_ms or int(time.time() * 1000) + _RUNS_ON_MS
        arguments = (deadline_ms, _text(schedule), int(schedule.skips_breaks), until_ms, reason)
        return bool(self._client.eval(_PUBLISH, 1, keys.CLOCK, *arguments))


def _text(schedule: Schedule) -> str:
    return json.dumps([[s.wall_ms, s.market_ms, s.speed] for s in schedule.segments])
