"""Which clients there are, what they say of themselves, and what is asked of them: run, stop (pause) or evict.

A client writes `keys.CLIENT` about once a second and reads `keys.CLIENT_COMMAND`. Consumer groups on the stream
that no client of this library registered (plain ``XREADGROUP`` programs) are listed too, as mode ``plain``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Literal

import redis

from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.groups import group_lag

Command = Literal["run", "stop", "evict"]
GROUP_PREFIXES: Final = (f"{keys.BAR_GROUP_PREFIX}:", f"{keys.TICK_GROUP_PREFIX}:")
ALIVE_SECONDS: Final = 6.0  # a client that was not seen for longer is down
_KEEP_SECONDS: Final = 86_400
_MOST_CLIENTS: Final = 1_000  # listed at most, whatever somebody registers
_MOST_GROUPS: Final = 1_024
_MOST_LAGS: Final = 64  # groups of one client that are asked for their lag: a reader of ticks has one per shard
_LONGEST_TEXT: Final = 262_144  # characters: the groups of 256 shards


class NoSuchClient(LookupError):
    """No client of this id is known; the message names those that are."""


@dataclass(frozen=True)
class ClientInfo:
    """What is known of one client. *state*: running, paused, stopped (closed in good order), down (silent)."""

    client_id: str
    mode: str
    group: str
    kind: str = "bars"
    state: str = "down"
    command: str = "run"
    shards: tuple[str, ...] = ()
    lag_entries: int = 0
    lag_at_least: bool = False
    lag_seconds: float = 0.0
    pending: int = 0
    rate: float = 0.0  # items a second, over the last ten seconds
    handled: int = 0
    errors: int = 0
    dead: int = 0
    caught_up: int = 0
    gaps: int = 0
    seen_ms: int = 0
    started_ms: int = 0
    host: str = ""
    pid: int = 0
    last_error: str = ""
    groups: tuple[str, ...] = field(default=(), repr=False)  # consumer groups as Redis names them

    @property
    def seen_seconds(self) -> float:
        """Seconds since the client was last seen; infinite if never."""
        return max(time.time() - self.seen_ms / 1000, 0.0) if self.seen_ms else float("inf")


def publish(client: Any, client_id: str, said: Mapping[str, str | int | float]) -> Command:
    """Write what the client says of itself; returns what is asked of it."""
    key = keys.CLIENT.format(client_id=client_id)
    pipe = client.pipeline(transaction=True)
    pipe.hset(key, mapping=dict(said))
    pipe.expire(key, _KEEP_SECONDS)
    pipe.sadd(keys.CLIENTS, client_id)
    pipe.get(keys.CLIENT_COMMAND.format(client_id=client_id))
    command = pipe.execute()[-1]
    return command.decode() if command in (b"stop", b"evict") else "run"


def tell(client: Any, client_id: str, command: Command) -> None:
    """Tell a client to stop (pause) or to run again. `NoSuchClient` when nobody of this name was ever seen."""
    require(client, client_id)
    client.set(keys.CLIENT_COMMAND.format(client_id=client_id), command)


def require(client: Any, client_id: str) -> None:
    """`NoSuchClient` unless the client is registered."""
    if not client.sismember(keys.CLIENTS, client_id):
        known = ", ".join(sorted(fields.decoded(c, 64) for c in client.smembers(keys.CLIENTS))[:50]) or "none yet"
        raise NoSuchClient(f"no client {client_id!r}; known are: {known}")


def evict(client: Any, client_id: str, *, wait_seconds: float = 8.0) -> list[str]:
    """Forget a client: it ends, its own consumer groups and positions are destroyed. Returns those groups.

    The groups of a sharded group stay for its other members; they go with the last member.
    """
    require(client, client_id)
    info = read_client(client, client_id)
    client.set(keys.CLIENT_COMMAND.format(client_id=client_id), "evict")
    lease = keys.LEASE.format(name=f"client:{client_id}")
    deadline = time.monotonic() + wait_seconds
    while client.exists(lease) and time.monotonic() < deadline:
        time.sleep(0.1)
    client.zrem(keys.SHARD_MEMBERS.format(group=info.group), client_id)
    others = [c for c in list_clients(client) if c.client_id != client_id and c.group == info.group]
    destroyed: list[str] = []
    if not others:
        for stream, group in (name.split("|", 1) for name in info.groups):
            if not group.startswith(GROUP_PREFIXES):  # a client says itself which groups are its own
                continue
            if client.exists(stream) and client.xgroup_destroy(stream, group):
                destroyed.append(group)
            client.delete(keys.PROGRESS.format(group=group))
        client.delete(keys.SHARD_RULE.format(group=info.group), keys.SHARD_MEMBERS.format(group=info.group))
    client.delete(keys.CLIENT.format(client_id=client_id), keys.CLIENT_COMMAND.format(client_id=client_id), lease)
    client.srem(keys.CLIENTS, client_id)
    return destroyed


def list_clients(client: Any) -> list[ClientInfo]:
    """Every client, by name; then the plain groups on the bar stream. Forgets registrations that have expired.

    A registration that cannot be read is skipped and counted (`stream.fields`).
    """
    out: list[ClientInfo] = []
    for raw in sorted(islice(client.sscan_iter(keys.CLIENTS, count=1000), _MOST_CLIENTS)):
        client_id = fields.decoded(raw, 256)
        try:
            out.append(read_client(client, client_id))
        except NoSuchClient:
            client.srem(keys.CLIENTS, raw)
        except redis.ResponseError as error:  # a key of another type
            fields.skip(keys.CLIENT, f"client {client_id!r}: {error}")
    known = {name.partition("|")[2] for info in out for name in info.groups}
    return out + [info for info in _plain_groups(client) if info.group not in known]


def read_client(client: Any, client_id: str) -> ClientInfo:
    """What is known of *client_id*; `NoSuchClient` if its registration has expired (a day) or never was."""
    pipe = client.pipeline(transaction=False)
    pipe.hmget(keys.CLIENT.format(client_id=client_id), *_NAMES)
    pipe.get(keys.CLIENT_COMMAND.format(client_id=client_id))
    found, command = pipe.execute()
    known = {name: value for name, value in zip(_NAMES, found, strict=True) if value is not None}
    raw = fields.decoded_hash(known, _LONGEST_TEXT)
    if "mode" not in raw:
        raise NoSuchClient(f"client {client_id!r} has not been seen for a day or more")
    state = raw.get("state", "running")
    numbers = {name: fields.integer(raw, name, low=0) for name in _INTEGERS}
    if state != "stopped" and time.time() - numbers["seen_ms"] / 1000 > ALIVE_SECONDS:
        state = "down"
    info = ClientInfo(
        client_id,
        raw["mode"],
        raw.get("group", client_id),
        raw.get("kind", "bars"),
        state,
        fields.decoded(command, 20) if command else "run",
        tuple(s for s in raw.get("shards", "").split(",") if s),
        groups=tuple(g for g in raw.get("groups", "").split(",") if g.count("|") == 1)[:_MOST_GROUPS],
        host=raw.get("host", ""),
        last_error=raw.get("last_error", "")[:300],
        lag_seconds=fields.number(raw, "lag_seconds", low=0),
        lag_at_least=raw.get("lag_at_least") == "1",
        rate=fields.number(raw, "rate", low=0) if state == "running" else 0.0,
        **numbers,
    )
    return _with_present_lag(client, info) if state in ("down", "stopped", "paused") else info


_INTEGERS: Final = (
    *("lag_entries", "pending", "handled", "errors", "dead", "caught_up", "gaps"),
    *("seen_ms", "started_ms", "pid"),
)
_NAMES: Final = (
    *_INTEGERS,
    *("mode", "group", "kind", "state", "shards", "groups", "host", "last_error"),
    *("lag_seconds", "lag_at_least", "rate"),
)


def _with_present_lag(client: Any, info: ClientInfo) -> ClientInfo:
    """A client that does not run says nothing new of itself: its groups do. A shard's lag belongs to its holder."""
    if info.mode != "broadcast":
        return info
    lags = [group_lag(client, *name.split("|", 1)) for name in info.groups[:_MOST_LAGS]]
    return replace(
        info,
        lag_entries=sum(lag.entries for lag in lags),
        lag_at_least=any(lag.at_least for lag in lags),
        lag_seconds=max((lag.seconds for lag in lags), default=0.0),
        pending=sum(lag.pending for lag in lags),
    )


def _plain_groups(client: Any) -> list[ClientInfo]:
    try:
        groups = client.xinfo_groups(keys.BARS)
    except redis.ResponseError:  # no stream yet
        return []
    registered = client.scan_iter(match=keys.SHARD_RULE.format(group="*"), count=1000)
    sharded = [f"{keys.BAR_GROUP_PREFIX}:{fields.decoded(key).rpartition(':')[2]}:" for key in registered]
    out = []
    for row in groups:
        name = fields.decoded(row["name"])
        if any(name.startswith(prefix) for prefix in sharded):
            continue
        lag = group_lag(client, keys.BARS, name)
        idle = [int(c["idle"]) for c in client.xinfo_consumers(keys.BARS, name)]
        seen = int(time.time() * 1000) - min(idle) if idle else 0
        state = "running" if idle and min(idle) < 60_000 else "down"
        out.append(
            ClientInfo(
                name.removeprefix(keys.BAR_GROUP_PREFIX + ":"),
                "plain",
                name,
                state=state,
                lag_entries=lag.entries,
                lag_at_least=lag.at_least,
                lag_seconds=lag.seconds,
                pending=lag.pending,
                seen_ms=seen,
                groups=(f"{keys.BARS}|{name}",),
            )
        )
    return out
