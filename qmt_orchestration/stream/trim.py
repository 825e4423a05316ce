"""Trimming without loss: by what every group has read, never by length (MAXLEN removes what nobody has read).

With one limit: a client that was left behind must not fill the server until nobody can publish any more. Once Redis has
used `PRESSURE` of its memory, the tick streams are held by the writer's group alone; the others find a gap, and the
ticks in ClickHouse.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any, Final

import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.groups import id_ms

PRESSURE: Final = 0.85  # of maxmemory
_PRESSED_SECONDS: Final = 60.0  # what everyone has read is kept this long at most under pressure

log = logging.getLogger(__name__)


def trim_read(client: Any, stream: str, keep_seconds: float, *, only: Collection[str] = ()) -> int:
    """Remove entries that every group has acknowledged and that are older than *keep_seconds*; returns how many.

    *only*: these groups alone count, whoever else may be behind; that is logged.

    The bound is the smallest over the groups of (oldest pending entry, else the one after the last delivered). A stream
    without a group keeps everything: its readers have not started yet.
    """
    try:
        groups = client.xinfo_groups(stream)
    except redis.ResponseError:
        return 0  # no such stream yet
    bounds = {group["name"].decode(): _bound(client, stream, group) for group in groups}
    counted = [bound for name, bound in bounds.items() if not only or name in only]
    if not counted:
        return 0
    ms, seq = limit = min([(int((time.time() - keep_seconds) * 1000), 0), *counted])
    overtaken = sorted(name for name, bound in bounds.items() if bound < limit)
    removed = int(client.xtrim(stream, minid=f"{max(ms, 0)}-{seq}", approximate=False)) if ms > 0 else 0
    if overtaken and removed:
        log.error(
            "Redis is short of memory: %d entries of %s are removed that %s had not read; clients gone for good are "
            "removed by `qmt clients evict`",
            removed,
            stream,
            ", ".join(overtaken),
        )
    return removed


def _bound(client: Any, stream: str, group: Any) -> tuple[int, int]:
    """The first id that *group* still needs."""
    pending = client.xpending(stream, group["name"])
    if pending["pending"]:
        return _parts(pending["min"])
    ms, seq = _parts(group["last-delivered-id"])
    return ms, seq + 1


def under_pressure(client: Any) -> bool:
    """Whether Redis has used `PRESSURE` of the memory it may use (False where there is no limit)."""
    memory = client.info("memory")
    return 0 < int(memory.get("maxmemory", 0)) * PRESSURE < int(memory["used_memory"])


def trim_age(client: Any, stream: str, keep_seconds: float, now_ms: int) -> int:
    """Remove entries older than *keep_seconds*, read or not; returns how many.

    For streams of a stated retention (`keys.BARS`), whose ids are market time: age is counted from the newest one, but
    not from one that is ahead of the market (*now_ms*): whoever put it there must not remove the others with it.
    """
    newest = client.xrevrange(stream, count=1)
    if not newest:
        return 0
    bound = min(id_ms(newest[0][0]), now_ms) - int(keep_seconds * 1000)
    return int(client.xtrim(stream, minid=f"{bound}-0", approximate=True)) if bound > 0 else 0


def trim_all(client: Any, settings: Settings) -> dict[str, int]:
    """Trim every stream of ours; returns the entries removed per stream. Called by the writer every few seconds."""
    removed = {}
    pressed = under_pressure(client)
    only = (keys.WRITER_GROUP,) if pressed else ()
    keep = min(settings.stream_retention_seconds, _PRESSED_SECONDS) if pressed else settings.stream_retention_seconds
    for stream in [*(keys.ticks(shard) for shard in range(settings.stream_shards)), keys.REJECTED]:
        removed[stream] = trim_read(client, stream, keep, only=only)
    now_ms = read_clock(client).now_ms()
    for stream in (keys.BARS, keys.MINUTES, keys.BARS_FORMING):
        removed[stream] = trim_age(client, stream, settings.bars_retention_hours * 3600, now_ms)
    return removed


def _parts(id_: bytes) -> tuple[int, int]:
    ms, _, seq = id_.partition(b"-")
    return int(ms), int(seq)
