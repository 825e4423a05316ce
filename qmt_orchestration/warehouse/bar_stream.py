"""Bars as entries of `minute_bar_stream`: their text, and putting a frame on the stream in one step with its progress.

The same bars travel as one Arrow entry on `keys.MINUTES`, written by the same script, for clients that read the whole
market: one entry instead of 5,150. ``payload`` (`market.schema.PUBLISHED_SCHEMA`), ``first`` (``seq`` of its first
bar), ``complete`` (1: every bar of the frame that closed; 0: late bars and corrections).

What has been published (`keys.PUBLISHED`: trading day -> last frame, epoch ms) changes in the same script as the
entries, and only if it still is what the publisher read: two publishers, or a reply that was lost, can neither
repeat a frame nor skip one. One script call carries a frame of the whole market: packing and answering 5,150 single
XADDs took four times as long.

Ids are ``<frame epoch ms>-<n>``; what comes after its own frame takes the next ``n`` of the newest, because ids of a
stream only rise. ``seq`` numbers the entries of the stream without gaps: two of them tell how many lie between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import redis

from qmt_orchestration.market.schema import PUBLISHED_SCHEMA
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.batch import encode

#: frame (epoch s), symbol, open, high, low, close, vol, amount, source, quality_score
Row = tuple[int, str, float, float, float, float, int, float, str, float]
Fresh = tuple[Row, tuple[str, ...], int]  # a bar to publish: its row, its values as text, its revision
Known = dict[tuple[int, str], tuple[tuple[str, ...], int]]  # (frame ms, symbol) -> values and revision on the stream

VALUE_NAMES: Final = ("open", "high", "low", "close", "vol", "amount", "quality_score", "source")
_NAMES: Final = ("symbol", "frame", *VALUE_NAMES, "timestamp", "revision")
_PAGE: Final = 5000
_ENTRY_BYTES: Final = 4096  # no bar of ours is larger

log = logging.getLogger("publisher")

# KEYS: stream, progress, numbers, minutes.
# ARGV: day, progress expected, frame ms, new progress, Arrow payload, complete, then the values of each bar.
_SEND: Final = """
if (redis.call('hget', KEYS[2], ARGV[1]) or '0') ~= ARGV[2] then return 0 end
local function following(key)
  if redis.call('exists', key) == 1 then
    local info = redis.call('xinfo', 'stream', key)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local top_ms, top_n = string.match(info[i + 1], '(%d+)-(%d+)')
        if tonumber(top_ms) >= tonumber(ARGV[3]) then return top_ms, tonumber(top_n) + 1 end
      end
    end
  end
  return ARGV[3], 0
end
local count = (#ARGV - 6) / WIDTH
local seq = count > 0 and redis.call('incrby', KEYS[3], count) - count or 0
if count > 0 then
  local ms, n = following(KEYS[4])
  redis.call('xadd', KEYS[4], ms .. '-' .. string.format('%d', n),
    'payload', ARGV[5], 'first', string.format('%.0f', seq), 'complete', ARGV[6])
end
local ms, n = following(KEYS[1])
for i = 0, count - 1 do
  local a = 7 + i * WIDTH
  redis.call('xadd', KEYS[1], ms .. '-' .. string.format('%d', n + i), VALUES, 'seq', string.format('%.0f', seq + i))
end
redis.call('hset', KEYS[2], ARGV[1], ARGV[4])
return 1
""".replace("VALUES", ", ".join(f"'{name}', ARGV[a + {i}]" for i, name in enumerate(_NAMES))).replace(
    "WIDTH", str(len(_NAMES))
)


def values_of(row: Row) -> tuple[str, ...]:
    """The values of a bar as text, in the order of `VALUE_NAMES`."""
    _, _, open_, high, low, close, vol, amount, source, score = row
    return (str(open_), str(high), str(low), str(close), str(vol), str(amount), f"{score:.4g}", source)


def send(client: Any, day: date, before: int, frame: int, bars: Sequence[Fresh], progress: int) -> bool:
    """Put *bars* and *progress* (epoch ms) there in one step; False, and nothing sent, unless it was *before*."""
    head = (day.isoformat(), before, frame, progress, encode(_table(bars)), int(before != frame))
    flat = [text for bar in bars for text in _texts(*bar)]
    call = (_SEND, 4, keys.BARS, keys.PUBLISHED, keys.BARS_SEQ, keys.MINUTES, *head, *flat)
    try:
        return bool(client.eval(*call))
    except redis.ResponseError:  # the counter is the first thing that it writes
        if not _counter_mended(client):
            raise
        return bool(client.eval(*call))


def _counter_mended(client: Any) -> bool:
    """Whether `keys.BARS_SEQ` was no number; it then follows the highest ``seq`` of the stream's newest entries."""
    kind = client.type(keys.BARS_SEQ)
    if kind == b"none" or (kind == b"string" and fields.integer({"seq": client.get(keys.BARS_SEQ)}, "seq", -1, 0) >= 0):
        return False
    newest = fields.integers({id_: entry.get(b"seq") for id_, entry in client.xrevrange(keys.BARS, count=100)}, low=0)
    following = max(newest.values(), default=-1) + 1
    client.set(keys.BARS_SEQ, following)
    log.error("%s was no number: replaced by %d, after the newest entries of %s", keys.BARS_SEQ, following, keys.BARS)
    return True


def _table(bars: Sequence[Fresh]) -> pa.Table:
    rows = [(symbol, frame, *prices, round(score, 4), source, revision)
            for (frame, symbol, *prices, source, score), _, revision in bars]  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [()] * len(PUBLISHED_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PUBLISHED_SCHEMA, strict=True)]
    return pa.table(arrays, schema=PUBLISHED_SCHEMA)


def send_forming(client: Any, now_ms: int, bars: Sequence[Fresh]) -> None:
    """Put *bars* of a minute that is not closed on the stream of those."""
    top_ms, top_n = _top(client, keys.BARS_FORMING)
    ms, n = (now_ms, 0) if now_ms > top_ms else (top_ms, top_n + 1)
    pipe = client.pipeline(transaction=False)
    for i, bar in enumerate(bars):
        pipe.xadd(keys.BARS_FORMING, dict(zip(_NAMES, _texts(*bar), strict=True)), id=f"{ms}-{n + i}")
    pipe.execute()


def recall(client: Any, oldest: int) -> Known:
    """What the stream holds of the frames from *oldest* (epoch ms) on: the newest revision of each bar.

    An entry that is no bar is skipped and counted.
    """
    known: Known = {}
    names = [name.encode() for name in VALUE_NAMES]
    last = "+"
    while True:
        page = client.xrevrange(keys.BARS, last, f"{oldest}-0", count=_PAGE)
        for id_, entry in page:
            try:
                if sum(map(len, entry.values())) > _ENTRY_BYTES:
                    raise ValueError(f"more than {_ENTRY_BYTES} bytes")
                frame, symbol = int(entry[b"timestamp"]) * 1000, entry[b"symbol"].decode()
                values, revision = tuple(entry[name].decode() for name in names), int(entry[b"revision"])
            except (KeyError, ValueError) as error:
                fields.skip(keys.BARS, f"entry {id_.decode()} of {keys.BARS} is no bar: {error}")
                continue
            if frame >= oldest and (frame, symbol) not in known:  # newest first
                known[(frame, symbol)] = (values, revision)
        if len(page) < _PAGE:
            return known
        last = "(" + page[-1][0].decode()


def published(client: Any) -> dict[str, int]:
    """What has been published: trading day → last frame, epoch ms.

    A value that cannot be read is replaced, on the server too, by the frame of the stream's newest entry if that is of
    the same day (ids are the frames entries were sent with), else it is removed: the day is published from its start.
    """
    raw = client.hgetall(keys.PUBLISHED)
    out = {day: ms for day, ms in fields.integers(raw, 0, fields.LAST_MS).items() if is_day(day)}
    for name in raw:
        if (day := fields.decoded(name)) in out:
            continue
        newest, _ = _top(client, keys.BARS)
        if is_day(day) and from_ms(newest).date().isoformat() == day:
            out[day] = newest
            client.hset(keys.PUBLISHED, day, newest)
        else:
            client.hdel(keys.PUBLISHED, name)
        log.error(
            "%s held %r for %r: replaced by %s", keys.PUBLISHED, raw[name][:40], day[:40], out.get(day, "nothing")
        )
    return out


def is_day(text: str) -> bool:
    """Whether *text* is a date as the keys hold it, YYYY-MM-DD."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _texts(row: Row, values: tuple[str, ...], revision: int) -> tuple[str | int, ...]:
    return (row[1], _frame_text(row[0]), *values, row[0], revision)


@lru_cache(maxsize=64)
def _frame_text(seconds: int) -> str:
    return f"{from_ms(seconds * 1000):%Y-%m-%d %H:%M:%S}"


def _top(client: Any, stream: str) -> tuple[int, int]:
    try:
        ms, _, n = client.xinfo_stream(stream)["last-generated-id"].decode().partition("-")
    except redis.ResponseError:
        return 0, -1
    return int(ms), int(n)
