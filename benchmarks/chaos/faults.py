"""The faults: how each strikes, how it is lifted, which services must be back, and how we know that it struck."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.chaos.proxy import UNAVAILABLE, Proxy
from benchmarks.chaos.world import FEED, WAREHOUSE, World
from qmt_orchestration.local import engines
from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.batch import decode, encode
from qmt_orchestration.stream.sequences import Sequence

STREAM = keys.ticks(0)
POISON = 4  # entries that one strike of the poison fault adds
REPEATS = 5
_DROPS = 3
_OUTAGE = 3.0
_FILLER = "filler"
WRONG = (b"", b"nan", b"-Infinity", b"\xff\xfe", b"9" * 10_000, b"{}", b'{"ranges": 5}', b"[[", bytes(1 << 20))
HOSTILE = {b"symbol", b"timestamp", b"payload"}  # fields of entries that a fault has put on a stream


def _nothing(world: World) -> None:
    """The fault heals without us."""


def _always(world: World) -> bool:
    return True


@dataclass(frozen=True)
class Fault:
    """A fault by *name*. After *strike* it *lasts* seconds and until *struck* says that it was felt; then *lift*.

    *back*: services that must beat again after it; *fresh*: as new processes. *needs_disk*: left out where no small
    disk can be mounted.
    """

    name: str
    strike: Callable[[World], Any]
    lift: Callable[[World], Any] = _nothing
    lasts: float = 0.0
    struck: Callable[[World], bool] = _always
    back: tuple[str, ...] = ()
    fresh: bool = False
    needs_disk: bool = False


def _kill(name: str, *back: str) -> Fault:
    back = back or ((name,) if name in ("subscriber", "writer", "publisher") else ())
    label = name.replace("agent:", "agent of the ")
    return Fault(f"SIGKILL {label}", lambda w: w.signal(name, signal.SIGKILL), back=back, fresh=bool(back))


def _stop(name: str) -> Fault:
    """A service that hangs is killed by its agent; an engine or an agent wakes up again."""
    label = f"SIGSTOP {name.replace('agent:', 'agent of the ')}"
    if name in ("subscriber", "writer", "publisher"):
        return Fault(label, lambda w: w.signal(name, signal.SIGSTOP), back=(name,), fresh=True)
    return Fault(
        label, lambda w: w.signal(name, signal.SIGSTOP), lambda w: w.signal(name, signal.SIGCONT), lasts=_OUTAGE
    )


def _hang(name: str) -> Fault:
    """An engine that hangs for good is killed and started again by its supervisor."""

    def strike(world: World) -> None:
        world.noted[name] = world.pid(name)
        world.signal(name, signal.SIGSTOP)

    return Fault(f"hang of {name}", strike, struck=lambda w: w.pid(name) != w.noted[name])


def _drop(label: str, proxy: Callable[[World], Proxy], needle: bytes) -> Fault:
    return Fault(
        f"reply dropped, {label}",
        lambda w: proxy(w).drop_replies(needle, _DROPS),
        lambda w: proxy(w).pass_on(),
        struck=lambda w: proxy(w).struck >= _DROPS,
    )


def _memory_limit(world: World, value: str) -> None:
    with engines.redis_admin(world.engines) as admin:
        admin.config_set("maxmemory", value)


def _fill_spool(world: World) -> None:
    """Redis is away for the feed, and there is no room for what it spools meanwhile."""
    world.feed_redis.refuse()
    if world.own_disk:
        fill(_spool(world))


def _free_spool(world: World) -> None:
    empty(_spool(world))
    world.feed_redis.pass_on()


def _spool(world: World) -> Path:
    return world.folder / FEED / "feed" / "spool"


def fill(folder: Path) -> None:
    """Take all the room that is left on the disk of *folder*."""
    with (folder / _FILLER).open("wb", buffering=0) as file, suppress(OSError):
        about = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, max(about.f_bavail * about.f_frsize - (1 << 20), 1))
        file.seek(0, os.SEEK_END)
        while True:
            file.write(bytes(1 << 12))


def empty(folder: Path) -> None:
    """Give the room back."""
    (folder / _FILLER).unlink(missing_ok=True)


def _disk_of(name: engines.Name, felt: Callable[[World], bool]) -> Fault:
    """The disk of an engine is full for a while."""
    return Fault(
        f"disk of {name} full",
        lambda w: fill(w.engines.data_dir / name),
        lambda w: empty(w.engines.data_dir / name),
        lasts=_OUTAGE,
        struck=felt,
        needs_disk=True,
    )


def _errors_of_redis(name: str) -> Callable[[World], bool]:
    """Whether Redis has answered with this error (it counts them)."""
    return lambda w: int(w.redis.info("errorstats").get(f"errorstat_{name}", {}).get("count", 0)) > 0


def _few_parts(world: World) -> None:
    """No insert into `ticks` is taken any more, as when merges cannot follow."""
    world.command("SYSTEM STOP MERGES ticks")
    world.command("ALTER TABLE ticks MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1000000")


def _many_parts(world: World) -> None:
    world.command("ALTER TABLE ticks RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
    world.command("SYSTEM START MERGES ticks")


def _writer_was_told(text: str) -> Callable[[World], bool]:
    return lambda w: text in w.logs(WAREHOUSE, "writer")


def _spool_was_full(world: World) -> bool:
    return "Callbacks wait meanwhile" in world.logs(FEED, "subscriber")


def _poison(world: World) -> None:
    """What is no Arrow, of another schema, without payload, and a batch that lies about its rows."""
    [(_, fields)] = world.redis.xrevrange(STREAM, count=1)
    other = encode(pa.table({"time": pa.array([0], pa.timestamp("ms"))}))
    for wrong in ({"payload": b"no arrow"}, {"payload": other}, {"nothing": "here"}, {**fields, b"rows": b"7"}):
        world.redis.xadd(STREAM, wrong)


def _poison_buried(world: World) -> bool:
    return int(world.redis.xlen(dead_letters.key_of(STREAM))) >= POISON


def _twice(world: World) -> None:
    for _, fields in reversed(world.redis.xrevrange(STREAM, count=REPEATS)):
        world.redis.xadd(STREAM, fields)


def _repeats_seen(world: World) -> bool:
    texts = world.redis.hvals(keys.WRITER_SEQUENCES.format(stream=STREAM))
    return sum(Sequence.load(text).repeats for text in texts) >= REPEATS


def _malformed(world: World) -> None:
    """Entries that are none of theirs on the streams of rejected ticks and of bars."""
    for stream in (keys.REJECTED, keys.BARS):
        for wrong in WRONG:
            world.redis.xadd(stream, {b"symbol": wrong, b"timestamp": wrong})
            world.redis.xadd(stream, {b"payload": wrong})


def _malformed_buried(world: World) -> bool:
    return int(world.redis.xlen(dead_letters.key_of(keys.REJECTED))) >= 2 * len(WRONG)


def _wrong_hashes(world: World) -> None:
    """Values of no type in what services read of each other."""
    heartbeat = keys.HEARTBEAT.format(host="hostile", service="writer")
    for number, wrong in enumerate(WRONG):
        world.redis.hset(heartbeat, mapping={"pid": wrong, "beat_ms": wrong, "lag_seconds": wrong, "service": "writer"})
        world.redis.hset(keys.WRITER_SEQUENCES.format(stream=STREAM), f"hostile-{number}", wrong)
        world.redis.hset(keys.WRITER_PLAN.format(stream=STREAM), f"0-{number + 1}", wrong)
        world.redis.hset(keys.PUBLISHED, f"day {number}", wrong)
        world.redis.hset(keys.PUBLISHED, f"2025-05-{10 + number}", wrong)
        world.redis.hset(keys.DESIRED, f"hostile{number}", wrong)


def _past_the_checks(world: World) -> None:
    """Wrong copies of a batch on the stream, as if a feed had believed them."""
    [(_, fields)] = world.redis.xrevrange(STREAM, count=1)
    table = decode(fields[b"payload"], max_bytes=1 << 25)
    session = f"careless-{int(time.time() * 1000)}"
    changed = {
        "time": pc.add(table["time"].cast(pa.int64()), 1).cast(table.schema.field("time").type),
        "session": pa.array([session] * table.num_rows),
        "seq": pa.array([0] * table.num_rows, pa.uint64()),
        **{name: pc.multiply(table[name], 10) for name in ("volume", "pvolume", "total_volume", "amount")},
    }
    for name, values in changed.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, values.cast(field.type))
    world.redis.xadd(STREAM, {**fields, b"payload": encode(table), b"session": session.encode(), b"seq": b"0"})


def _second_writer(world: World) -> None:
    """Two writers read the stream for a while, then one dies with what it had in hand."""
    process = world.second_writer()
    deadline = time.monotonic() + 60
    while not any(row["name"] == b"warehouse2" for row in world.redis.xinfo_consumers(STREAM, keys.WRITER_GROUP)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the second writer does not read; see {world.folder}/warehouse2/logs")
        time.sleep(0.05)
    time.sleep(2.0)
    process.kill()
    process.wait()


FAULTS: tuple[Fault, ...] = (
    _kill("subscriber"),
    _kill("writer"),
    _kill("publisher"),
    _kill(f"agent:{FEED}", "subscriber"),
    _kill(f"agent:{WAREHOUSE}", "writer", "publisher"),
    _kill("redis"),
    _kill("clickhouse"),
    _stop("subscriber"),
    _stop("writer"),
    _stop("publisher"),
    _stop(f"agent:{FEED}"),
    _stop(f"agent:{WAREHOUSE}"),
    _stop("redis"),
    _stop("clickhouse"),
    _hang("redis"),
    _hang("clickhouse"),
    _drop("Redis to subscriber", lambda w: w.feed_redis, b"XADD"),
    _drop("Redis to writer", lambda w: w.warehouse_redis, b"XACK"),
    _drop("Redis to publisher", lambda w: w.warehouse_redis, b"minute_bar_stream"),
    _drop("ClickHouse to writer", lambda w: w.clickhouse_proxy, b"INSERT"),
    _drop("ClickHouse to publisher", lambda w: w.clickhouse_proxy, b"bars_1m_live"),
    _drop("Redis to agent of the feed", lambda w: w.feed_redis, b"qmt:desired"),
    _drop("Redis to agent of the warehouse", lambda w: w.warehouse_redis, b"qmt:desired"),
    Fault(
        "Redis out of memory",
        lambda w: _memory_limit(w, "1mb"),
        lambda w: _memory_limit(w, "1024mb"),
        lasts=_OUTAGE,
        struck=_errors_of_redis("OOM"),
    ),
    Fault(
        "ClickHouse answers 503",
        lambda w: w.clickhouse_proxy.answer(UNAVAILABLE),
        lambda w: w.clickhouse_proxy.pass_on(),
        lasts=_OUTAGE,
        struck=lambda w: w.clickhouse_proxy.struck > 0,
    ),
    Fault("disk of the spool full", _fill_spool, _free_spool, lasts=_OUTAGE, struck=_spool_was_full),
    _disk_of("clickhouse", _writer_was_told("NOT_ENOUGH_SPACE")),
    _disk_of("redis", _errors_of_redis("MISCONF")),
    Fault("parts limit", _few_parts, _many_parts, lasts=_OUTAGE, struck=_writer_was_told("TOO_MANY_PARTS")),
    Fault("poison batches", _poison, struck=_poison_buried),
    Fault("batches published twice", _twice, struck=_repeats_seen),
    Fault("malformed entries", _malformed, struck=_malformed_buried, back=("writer", "publisher")),
    Fault("wrong values in hashes", _wrong_hashes, back=("subscriber", "writer", "publisher")),
    Fault("two writers, one killed", _second_writer),
)
#: The control of wrong snapshots: the account must find what the feed's checks keep out.
PAST_THE_CHECKS = Fault("wrong snapshots past the checks", _past_the_checks)
BY_NAME = {fault.name: fault for fault in FAULTS}
