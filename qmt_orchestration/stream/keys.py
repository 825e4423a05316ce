"""Every Redis key of the system, with what it holds and how long it is kept. No other module spells a key.

Formats of the entries are in docs/architecture.md ("Contracts"); ids are `<epoch ms>-<n>`, given by the producer.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

# -- ticks: stream of Arrow batches; trimmed to what the slowest group has read, at least the retention setting
TICKS: Final = "qmt:ticks:{{{shard}}}"  # qmt:ticks:{0}: the braces are a hash tag, one slot per shard
REJECTED: Final = "qmt:rejected"  # stream of Arrow batches of ticks rejected at ingestion
TICK_GROUP_PREFIX: Final = "qmt:tick_consumers"  # group of client C that reads ticks: qmt:tick_consumers:C
WRITER_GROUP: Final = "qmt:writer"  # consumer group of the ClickHouse writer on both
WRITER_PLAN: Final = "qmt:writer:plan:{stream}"  # hash first id -> ids of one insert under way; empty when idle
WRITER_SEQUENCES: Final = "qmt:writer:sequences:{stream}"  # hash feed session -> numbers seen (stream/sequences.py)
WRITER_TOTALS: Final = "qmt:writer:totals:{stream}"  # hash: rows, entries, old sessions' losses, last insert

# -- bars for clients: one entry per bar, the user's published format
BARS: Final = "minute_bar_stream"
MINUTES: Final = "minute_bar_stream:minutes"  # the same bars, one Arrow entry a closed minute, for broadcast clients
BARS_FORMING: Final = "minute_bar_stream:forming"  # optional: bars of the minute not yet closed
BAR_GROUP_PREFIX: Final = "minute_bar_consumers"  # group of client C in broadcast mode: minute_bar_consumers:C
BARS_SEQ: Final = "qmt:bars:seq"  # counter: entries ever put on BARS, the field seq of the next one
PUBLISHED: Final = "qmt:bars:published"  # hash: trading day -> last published frame, epoch ms; 15:05 = revised, done

# -- dead letters of stream S: qmt:dlq:S, capped
DEAD_LETTERS: Final = "qmt:dlq:{stream}"

# -- commands to the gateway and its replies
RPC: Final = "qmt:rpc"  # stream of requests, group qmt:gateway
RPC_GROUP: Final = "qmt:gateway"
RPC_REPLY: Final = "qmt:rpc:reply:{request_id}"  # stream of progress and chunks; expires an hour after the last one

# -- services
HEARTBEAT: Final = "qmt:heartbeat:{host}:{service}"  # hash of statistics, expires after 15 s without a beat
DESIRED: Final = "qmt:desired"  # hash service -> running | stopped, kept
LEASE: Final = "qmt:lease:{name}"  # string owner token, expires
FENCE: Final = "qmt:fence:{name}"  # counter: token of the newest lease holder, kept
STATS: Final = "qmt:stats:{service}"  # stream of statistics, about a day (MAXLEN ~ 4000)

# -- clients
CLIENT: Final = "qmt:client:{client_id}"  # hash: mode, group, shards, counters, last seen; expires after a day
CLIENTS: Final = "qmt:clients"  # set of client ids
CLIENT_COMMAND: Final = "qmt:client:{client_id}:command"  # string run | stop
SHARD_LEASE: Final = "qmt:client:shard:{group}:{shard}"  # string client id#run, expires
SHARD_MEMBERS: Final = "qmt:client:members:{group}"  # sorted set client id -> epoch ms of its last beat
SHARD_RULE: Final = "qmt:client:rule:{group}"  # string: the rule all members of a sharded group share
PROGRESS: Final = "qmt:client:progress:{group}"  # hash symbol -> frame (epoch s) acknowledged; client/catch_up.py

# -- the clock of a simulated or replayed market; absent = the wall clock is the market's clock
CLOCK: Final = (
    "qmt:clock"  # hash: segments, skips_breaks, until_ms, reason; or market_ms, wall_ms, speed (stream/clock.py)
)
# -- what the checks of the running system compare with
LOST_BEFORE: Final = "qmt:lost"  # hash: day (the market's), before (batches lost up to its first look)


def ticks(shard: int) -> str:
    """Key of one shard of the tick stream."""
    return TICKS.format(shard=shard)


def shard_of(symbol: str, shards: int) -> int:
    """Shard of a symbol: crc32, the same in every language and process."""
    return crc32(symbol.encode()) % shards
