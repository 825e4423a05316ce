"""Trimming without loss: by what every group has read, never by length (MAXLEN removes what nobody has read)."""

from __future__ import annotations

import time
from typing import Any

import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.groups import id_ms


def trim_read(client: Any, stream: str, keep_seconds: float) -> int:
    """Remove entries that every group has acknowledged and that are older than *keep_seconds*; returns how many.

    The bound is the smallest over the groups of (oldest pending entry, else the one after the last delivered). A stream
    without a group keeps everything: its readers have not started yet.
    """
    try:
        groups = client.xinfo_groups(stream)
    except redis.ResponseError:
        return 0  # no such stream yet
    if not groups:
        return 0
    bounds = [(int((time.time() - keep_seconds) * 1000), 0)]
    for group in groups:
        pending = client.xpending(stream, group["name"])
        if pending["pending"]:
            bounds.append(_parts(pending["min"]))
        else:
            ms, seq = _parts(group["last-delivered-id"])
            bounds.append((ms, seq + 1))
    ms, seq = min(bounds)
    return int(client.xtrim(stream, minid=f"{max(ms, 0)}-{seq}", approximate=False)) if ms > 0 else 0


def trim_age(client: Any, stream: str, keep_seconds: float) -> int:
    """Remove entries older than *keep_seconds* before the stream's newest one, read or not; returns how many.

    For streams of a stated retention (`keys.BARS`): the ids are market time, so the newest id is the clock.
    """
    newest = client.xrevrange(stream, count=1)
    if not newest:
        return 0
    bound = id_ms(newest[0][0]) - int(keep_seconds * 1000)
    return int(client.xtrim(stream, minid=f"{bound}-0", approximate=True)) if bound > 0 else 0


def trim_all(client: Any, settings: Settings) -> dict[str, int]:
    """Trim every stream of ours; returns the entries removed per stream. Called by the writer every few seconds."""
    removed = {}
    for stream in [*(keys.ticks(shard) for shard in range(settings.stream_shards)), keys.REJECTED]:
        removed[stream] = trim_read(client, stream, settings.stream_retention_seconds)
    for stream in (keys.BARS, keys.BARS_FORMING):
        removed[stream] = trim_age(client, stream, settings.bars_retention_hours * 3600)
    return removed


def _parts(id_: bytes) -> tuple[int, int]:
    ms, _, seq = id_.partition(b"-")
    return int(ms), int(seq)
