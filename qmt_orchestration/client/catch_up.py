"""Bars that the stream no longer has, from ClickHouse: each of them once, before the stream goes on.

The publisher sends the minutes of a day in order, and the id of an entry is the frame it was sent with. What a lane
has acknowledged is kept per symbol in `keys.PROGRESS` (written in the same step as the acknowledgement). When the
stream begins after the group's last delivered entry, something may have been trimmed in between: with F the first frame
still on the stream, the missed bars are the rows of ``bars_1m`` with progress[symbol] < frame ≤ F, without those that
the stream still holds (the rest of frame F, and bars that came too late for their own frame). A day that is published
again out of its order (a replay of the past) is on the stream only. Revisions that were trimmed are not repeated:
ClickHouse gives the newest version of a bar, as revision 0.

The stream is read on only after every missed bar was acknowledged; a crash in between starts the search again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count, islice
from typing import Any, Final

from qmt_orchestration.client.bar import Bar, Origin, Start, bars_of
from qmt_orchestration.client.sql import load_sql
from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.clock import read_clock

_BASE: Final = "*base"  # symbols without progress: nothing up to here is wanted
_SINCE: Final = "*since"  # a start at a time: earlier frames on the stream are passed over
_OPEN: Final = "*open"  # a catch-up has begun and is not finished
DONE_SEQ: Final = "*seq"  # bars up to this number (`Origin.seq`) are acknowledged, of an entry that holds more
_ORDER_SECONDS: Final = 14 * 86_400  # a symbol this far behind the others was not trading: nothing of it is missing
_WINDOWS: Final = tuple((m, m + 15) for m in range(555, 900, 15))  # minutes of the day; ~77,000 bars of the market each
_PART: Final = 500
_MOST_LOOKED_AT: Final = 10_000  # entries at the head of the stream


class CatchUp:
    """The search for missed bars of one group. *warehouse* opens a ClickHouse client when one is needed first.

    *late_frames*: how many frames later the publisher may still send a bar (``QMT_PUBLISH_REVISION_FRAMES``).
    """

    def __init__(
        self,
        redis: Any,
        stream: str,
        group: str,
        warehouse: Callable[[], Any],
        wanted: Callable[[str], bool],
        late_frames: int,
    ) -> None:
        self._redis, self._stream, self._group = redis, stream, group
        self._key = keys.PROGRESS.format(group=group)
        self._warehouse, self._wanted, self._late_frames = warehouse, wanted, late_frames
        self._missed: Iterator[list[Bar]] | None = None
        self._checked = False
        self.gaps = 0

    def look_again(self) -> None:
        """The stream lost something: search before the next read."""
        self._checked = False
        self._redis.hset(self._key, _OPEN, 1)

    def next(self, lane: str, *, waiting: bool) -> list[Bar] | None:
        """The next missed bars; [] while something *waiting* must be acknowledged first; None: the stream is next."""
        if self._missed is None and self._checked:
            return None
        if waiting:
            return []
        if self._missed is None:
            span = self._span()
            if span is None:
                self._checked = True
                return None
            self.gaps += 1
            self._redis.hset(self._key, _OPEN, 1)
            self._missed = self._search(lane, *span)
        part = next(self._missed, None)
        if part is None:
            self._missed, self._checked = None, True
            self._redis.hdel(self._key, _OPEN)
        return part

    def progress(self, done: Sequence[Bar], waiting: Collection[Bar]) -> dict[str, int]:
        """How far each symbol of *done* is finished (epoch s): never beyond a bar of it that is still *waiting*."""
        out: dict[str, int] = {}
        for bar in done:
            out[bar.symbol] = max(out.get(bar.symbol, 0), bar.timestamp)
        for bar in waiting:
            if bar.symbol in out and not bar.revision:
                out[bar.symbol] = min(out[bar.symbol], bar.timestamp - 60)
        return out

    def _span(self) -> tuple[int, frozenset[tuple[str, int]]] | None:
        """Up to which frame something may be missing, and what the stream itself still has up to there."""
        unfinished = self._redis.hexists(self._key, _OPEN)
        published = self._published()  # before the stream is looked at: what comes later is on the stream
        delivered, newest = _position(self._redis, self._stream, self._group)
        until, there, first_id = _beginning(self._redis, self._stream, self._late_frames)
        if until:
            return (until, there) if unfinished or _id(first_id) > _id(delivered) else None
        return (published, there) if published and (unfinished or _id(newest) > _id(delivered)) else None

    def _published(self) -> int:
        published = fields.integers(self._redis.hgetall(keys.PUBLISHED), fields.FIRST_MS, fields.LAST_MS)
        return max((ms // 1000 for ms in published.values()), default=0)

    def _search(self, lane: str, until: int, there: frozenset[tuple[str, int]]) -> Iterator[list[Bar]]:
        done = fields.integers(self._redis.hgetall(self._key), 0, fields.LAST_MS // 1000)
        for name in (_OPEN, DONE_SEQ):
            done.pop(name, None)
        base = max(done.pop(_BASE, 0), done.pop(_SINCE, 0) - 1)
        floor = max([base, *done.values()]) - _ORDER_SECONDS
        done = {symbol: max(stamp, floor) for symbol, stamp in done.items()}
        after = min([base, *done.values()] if base > floor else [floor, *done.values()])
        sql = load_sql("bars_between")
        client, numbers = self._warehouse(), count()
        first, last = datetime.fromtimestamp(after, SHANGHAI).date(), datetime.fromtimestamp(until, SHANGHAI).date()
        for day in trading_days(first, last):
            for begin, end in _WINDOWS:
                low, high = int(at(day, begin).timestamp()), int(at(day, end).timestamp())
                low, high = max(low, after), min(high, until)
                if low >= high:
                    continue
                rows = client.query(sql, parameters={"after": low, "until": high}).result_rows
                part: list[Bar] = []
                for symbol, stamp, *values in rows:
                    if stamp <= done.get(symbol, max(base, floor)) or (symbol, stamp) in there:
                        continue
                    if not self._wanted(symbol):
                        continue
                    frame = datetime.fromtimestamp(stamp, SHANGHAI)
                    part.append(Bar(*[symbol, frame, *values, 0, Origin(lane, "", row=next(numbers))]))
                for start in range(0, len(part), _PART):
                    yield part[start : start + _PART]


def begin(redis: Any, stream: str, group: str, start: Start) -> str:
    """Note in the progress of a new *group* where it begins; returns the stream id to create it at."""
    key = keys.PROGRESS.format(group=group)
    if isinstance(start, datetime):
        redis.hsetnx(key, _SINCE, int(start.timestamp()))
        return "0"
    newest = redis.xrevrange(stream, count=1)
    if start == "beginning":
        first, _ = _first_frame(redis, stream)
        redis.hsetnx(key, _BASE, (first or read_clock(redis).now_ms() // 60_000 * 60) - 60)
        return "0"
    last = max((bar.timestamp for bar in _bars(newest[0][1])), default=0) if newest else 0
    redis.hsetnx(key, _BASE, (last or read_clock(redis).now_ms() // 60_000 * 60) - 60)
    return newest[0][0].decode() if newest else "0"


def broadcast_stream(redis: Any, group: str) -> str:
    """The stream that a broadcast client reads: `keys.MINUTES`; `keys.BARS` where its *group* of an earlier version is.

    There it stays until it begins at the end of a minute that both streams have: then it moves, and has missed nothing.
    """
    old = group_of(redis, keys.BARS, group)
    if old is None or group_of(redis, keys.MINUTES, group) is not None:
        return keys.MINUTES
    last = old["last-delivered-id"]
    frame_ms = _id(last)[0]
    there = redis.xrange(keys.MINUTES, frame_ms, frame_ms)  # first: what is published from now on follows in the group
    if old["pending"] or not there or redis.xrange(keys.BARS, b"(" + last, frame_ms, count=1):
        return keys.BARS
    redis.xgroup_create(keys.MINUTES, group, there[-1][0])
    redis.xgroup_destroy(keys.BARS, group)
    return keys.MINUTES


def since(redis: Any, group: str) -> int:
    """Frames before this (epoch s) are not wanted by *group*: it was started at a time. 0 = all are."""
    return fields.integer({"since": redis.hget(keys.PROGRESS.format(group=group), _SINCE)}, "since", low=0)


def group_of(redis: Any, stream: str, group: str) -> dict[str, Any] | None:
    found = redis.xinfo_groups(stream) if redis.exists(stream) else []
    return next((row for row in found if row["name"] == group.encode()), None)


def _id(text: bytes) -> tuple[int, int]:
    ms, _, n = text.partition(b"-")
    return int(ms), int(n or 0)


def _position(redis: Any, stream: str, group: str) -> tuple[bytes, bytes]:
    """Last delivered id of the group, and the newest id the stream ever had."""
    found = group_of(redis, stream, group) or {"last-delivered-id": b"0-0"}
    return found["last-delivered-id"], redis.xinfo_stream(stream)["last-generated-id"]


def _entries(redis: Any, stream: str) -> Iterator[tuple[bytes, list[Bar]]]:
    """Id and bars of each entry, oldest first; no bars in one that cannot be read (it will go to the dead letters)."""
    after: bytes | str = "-"
    page = 5 if stream == keys.MINUTES else 500
    while entries := redis.xrange(stream, after, "+", count=page):
        for id_, entry in entries:
            yield id_, _bars(entry)
        after = b"(" + entries[-1][0]


def _bars(entry: Mapping[bytes, bytes]) -> list[Bar]:
    try:
        return bars_of(entry, Origin("", ""))
    except ValueError:
        return []


def _first_frame(redis: Any, stream: str) -> tuple[int, bytes]:
    """The first frame on the stream (epoch s), told by an entry sent with its own frame, and the first entry's id.

    (0, b"") for an empty stream. Revisions and late bars at its head are older than the frame they were sent with.
    """
    first_id, fall_back = b"", 0
    for id_, bars in islice(_entries(redis, stream), _MOST_LOOKED_AT):
        first_id = first_id or id_
        for bar in bars:
            if not bar.revision:
                fall_back = fall_back or bar.timestamp
                if _id(id_)[0] == bar.timestamp * 1000:
                    return bar.timestamp, first_id
    return fall_back, first_id


def _beginning(redis: Any, stream: str, late_frames: int) -> tuple[int, frozenset[tuple[str, int]], bytes]:
    """First frame on the stream, the bars (symbol, epoch s) it holds up to that frame, and the first entry's id."""
    frame, first_id = _first_frame(redis, stream)
    found: set[tuple[str, int]] = set()
    for _, bars in _entries(redis, stream):
        found.update((bar.symbol, bar.timestamp) for bar in bars if bar.timestamp <= frame and not bar.revision)
        if max((bar.timestamp for bar in bars), default=0) > frame + late_frames * 60:
            break
    return frame, frozenset(found), first_id
