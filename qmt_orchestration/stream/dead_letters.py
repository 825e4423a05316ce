"""Entries that could not be handled: kept with the reason, shown, replayed or dropped by a person. Capped.

The dead letters of stream S are the stream ``qmt:dlq:S``: the fields of the entry as they came, each name prefixed
with ``f:``, and ``source_id, group, error, deliveries, cut``. At `CAP` entries the oldest go, so that a bad
release cannot fill the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from qmt_orchestration.stream import keys
from qmt_orchestration.stream.fields import decoded, integer, text

CAP: Final = 10_000
_MAX_ERROR: Final = 2000
_MAX_KEPT_BYTES: Final = 1 << 20  # larger values are cut: an oversized payload must not stay in here

#: Ids follow the stream's own newest one: on `keys.BARS` they are market time, which no clock of ours may outrun.
_REPLAY: Final = """
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
local fields = {}
for i = 1, #letter[2], 2 do
  if string.sub(letter[2][i], 1, 2) == 'f:' then
    fields[#fields + 1] = string.sub(letter[2][i], 3)
    fields[#fields + 1] = letter[2][i + 1]
  end
end
local id = '*'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local about = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then
      local ms, n = string.match(about[i + 1], '(%d+)-(%d+)')
      id = ms .. '-' .. string.format('%.0f', n + 1)
    end
  end
end
redis.call('XADD', KEYS[2], id, unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
"""


class NoDeadLetter(LookupError):
    """No such dead letter; the message names stream and id."""


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter: its own id, where it came from, why, and the entry's fields as they came."""

    stream: str
    id: str
    source_id: str
    group: str
    error: str
    deliveries: int
    fields: Mapping[bytes, bytes]
    cut: bool  # a value was larger than 1 MiB and is not whole: cannot be replayed

    @property
    def at_ms(self) -> int:
        """When it was moved here, epoch ms: its id is Redis' own."""
        return int(self.id.partition("-")[0])


def key_of(stream: str) -> str:
    """Key of the dead letters of *stream*."""
    return keys.DEAD_LETTERS.format(stream=stream)


def move(
    client: Any, stream: str, group: str, id_: str, fields: Mapping[bytes, bytes], error: str, deliveries: int
) -> None:
    """Keep the entry as a dead letter and acknowledge it, in one transaction."""
    pipe = client.pipeline(transaction=True)
    add(pipe, stream, group, id_, fields, error, deliveries)
    pipe.xack(stream, group, id_)
    pipe.execute()


def add(
    pipe: Any, stream: str, group: str, id_: str, fields: Mapping[bytes, bytes], error: str, deliveries: int
) -> None:
    """Keep the entry as a dead letter, as a part of the caller's transaction *pipe*."""
    letter: dict[bytes | str, Any] = {
        "source_id": id_,
        "group": group,
        "error": error[:_MAX_ERROR],
        "deliveries": deliveries,
        "cut": int(any(len(value) > _MAX_KEPT_BYTES for value in fields.values())),
    }
    letter.update((b"f:" + name[:200], value[:_MAX_KEPT_BYTES]) for name, value in fields.items())
    pipe.xadd(key_of(stream), letter, maxlen=CAP, approximate=False)


def streams(client: Any) -> dict[str, int]:
    """Streams that have dead letters, and how many."""
    prefix = keys.DEAD_LETTERS.format(stream="")
    found = sorted(decoded(key) for key in client.scan_iter(match=prefix + "*", count=1000, _type="STREAM"))
    return {key[len(prefix) :]: n for key in found if (n := int(client.xlen(key)))}


def read(client: Any, stream: str, *, limit: int = 100, newest_first: bool = True) -> list[DeadLetter]:
    """Dead letters of *stream*, at most *limit*."""
    key = key_of(stream)
    rows = client.xrevrange(key, count=limit) if newest_first else client.xrange(key, count=limit)
    return [_letter(stream, id_, fields) for id_, fields in rows]


def show(client: Any, stream: str, id_: str) -> DeadLetter:
    """One dead letter; `NoDeadLetter` if there is none of this id."""
    try:
        rows = client.xrange(key_of(stream), id_, id_, count=1)
    except redis.ResponseError as error:
        raise NoDeadLetter(f"expected a dead letter's id like 1717550400000-0, found {id_!r}") from error
    if not rows:
        raise NoDeadLetter(f"stream {stream} has no dead letter {id_} (see `qmt dead-letters list`)")
    return _letter(stream, rows[0][0], rows[0][1])


def replay(client: Any, stream: str, ids: list[str] | None = None) -> int:
    """Publish dead letters again on their stream (None = all) and remove them here; returns how many.

    The entry goes right behind the stream's newest one. Cut ones are left out of "all", and refused by name:
    `NoDeadLetter` says so. One script per letter, so that neither a crash, nor a repeated command, nor somebody who
    publishes in the same moment loses or doubles one.
    """
    letters = [show(client, stream, id_) for id_ in ids] if ids is not None else read(client, stream, limit=CAP)[::-1]
    if ids is None:
        letters = [letter for letter in letters if not letter.cut]
    done = 0
    for letter in letters:
        if letter.cut:
            raise NoDeadLetter(f"dead letter {letter.id} was larger than 1 MiB and is kept in part only: drop it")
        done += int(client.eval(_REPLAY, 2, key_of(stream), stream, letter.id))
    return done


def drop(client: Any, stream: str, ids: list[str] | None = None) -> int:
    """Remove dead letters (None = all); returns how many."""
    if ids is None:
        ids = [letter.id for letter in read(client, stream, limit=CAP)]
    return int(client.xdel(key_of(stream), *ids)) if ids else 0


def _letter(stream: str, id_: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        stream=stream,
        id=id_.decode(),
        source_id=text(fields, "source_id"),
        group=text(fields, "group"),
        error=text(fields, "error"),
        deliveries=integer(fields, "deliveries", low=0),
        fields={name[2:]: value for name, value in fields.items() if name.startswith(b"f:")},
        cut=fields.get(b"cut") == b"1",
    )
