"""Publishing with own ids, and the spool: nothing lost, nothing twice, in order."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from qmt_orchestration.feed.outbox import Outbox
from qmt_orchestration.feed.spool import Spool, SpoolFull
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.lease import Lease
from qmt_orchestration.stream.producer import NewEntry, NotOwner, Producer
from qmt_orchestration_tests.helpers import free_port

STREAM = "qmt:ticks:{0}"


def entry(seq: int, entry_id: str, *, size: int = 100) -> NewEntry:
    fields = {"session": "s", "seq": seq, "rows": 2, "first_ms": 1, "last_ms": 2, "sent_ms": 3, "payload": b"x" * size}
    return NewEntry(STREAM, entry_id, fields)


def stored(client: Any) -> list[tuple[str, int]]:
    return [(i.decode(), int(fields[b"seq"])) for i, fields in client.xrange(STREAM)]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    out = Spool(tmp_path / "spool", 1)
    yield out
    out.close()


# -- the producer ------------------------------------------------------------------------------------------------


def test_ids_rise_even_when_the_clock_goes_back(redis_client: redis.Redis) -> None:
    producer = Producer(redis_client)
    assert [producer.next_id(STREAM, now) for now in (1000, 1000, 900, 1001)] == [
        "1000-0",
        "1000-1",
        "1000-2",
        "1001-0",
    ]


def test_ids_go_on_above_those_of_an_earlier_run(redis_client: redis.Redis) -> None:
    Producer(redis_client).send([entry(0, "5000-3")])
    redis_client.xtrim(STREAM, maxlen=0)
    later = Producer(redis_client)
    later.learn([STREAM, "qmt:rejected"])
    assert later.next_id(STREAM, 4000) == "5000-4"


def test_an_entry_whose_reply_was_lost_is_not_doubled(redis_client: redis.Redis) -> None:
    Producer(redis_client).send([entry(0, "1-0"), entry(1, "2-0")])
    again = Producer(redis_client)
    again.send([entry(0, "1-0"), entry(1, "2-0"), entry(2, "3-0")])
    assert stored(redis_client) == [("1-0", 0), ("2-0", 1), ("3-0", 2)]
    assert again.repeats == 2


def test_an_entry_overtaken_by_another_producer_gets_a_newer_id(redis_client: redis.Redis) -> None:
    Producer(redis_client).send([entry(7, "9-0")])
    ours = Producer(redis_client)
    ours.send([entry(0, "5-0")])
    ours.send([entry(0, "5-0")])  # and is recognised under it when it is sent once more
    assert [seq for _, seq in stored(redis_client)] == [7, 0]
    assert (ours.renumbered, ours.repeats) == (1, 1)


def test_only_the_owner_of_the_lease_publishes(redis_client: redis.Redis) -> None:
    ours, theirs = Lease(redis_client, "feed", "ours"), Lease(redis_client, "feed", "theirs")
    producer = Producer(redis_client, lease=("feed", "ours"))
    assert ours.acquire()
    producer.send([entry(0, "1-0")])
    ours.release()
    assert theirs.acquire()
    with pytest.raises(NotOwner):
        producer.send([entry(1, "2-0")])
    assert [seq for _, seq in stored(redis_client)] == [0]


def test_redis_out_of_memory_is_reported_and_recovers(redis_client: redis.Redis, redis_admin: redis.Redis) -> None:
    limit = redis_admin.config_get("maxmemory")["maxmemory"]
    producer = Producer(redis_client)
    redis_admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match=r"OOM|maxmemory"):
            producer.send([entry(0, "1-0")])
    finally:
        redis_admin.config_set("maxmemory", limit)
    producer.send([entry(0, "1-0")])
    assert stored(redis_client) == [("1-0", 0)]


# -- the spool ---------------------------------------------------------------------------------------------------


def test_the_spool_keeps_order_over_a_restart(tmp_path: Path) -> None:
    first = Spool(tmp_path, 1)
    first.append([entry(n, f"{n}-0") for n in range(5)])
    first.advance(first.peek(2))
    again = Spool(tmp_path, 1)  # without close: as after SIGKILL
    assert [e.fields["seq"] for e in again.all()] == [2, 3, 4]
    again.append([entry(5, "5-0")])
    again.advance(again.peek(3))
    assert [e.id for e in again.all()] == ["5-0"]
    again.advance(again.peek(9))
    assert (len(again), again.bytes) == (0, 0)
    again.append([entry(6, "6-0")])
    assert [e.id for e in Spool(tmp_path, 1).all()] == ["6-0"]


def test_a_spool_emptied_and_reopened_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1)
    spool.append([entry(0, "1-0")])
    spool.advance(spool.peek(1))
    again = Spool(tmp_path, 1)
    again.append([entry(1, "2-0")])
    assert [e.id for e in again.all()] == ["2-0"]


def test_a_torn_record_is_cut_off_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1)
    spool.append([entry(0, "1-0"), entry(1, "2-0")])
    path = next(tmp_path.glob("*.spool"))
    os.truncate(path, path.stat().st_size - 7)
    again = Spool(tmp_path, 1)
    assert ([e.id for e in again.all()], again.torn) == (["1-0"], 1)
    again.append([entry(2, "3-0")])
    assert [e.id for e in Spool(tmp_path, 1).all()] == ["1-0", "3-0"]


def test_a_damaged_record_costs_only_itself(tmp_path: Path) -> None:
    Spool(tmp_path, 1).append([entry(n, f"{n + 1}-0") for n in range(4)])
    path = next(tmp_path.glob("*.spool"))
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 8] ^= 1  # inside the second of four equal records
    path.write_bytes(content)
    again = Spool(tmp_path, 1)
    assert ([e.id for e in again.all()], len(again), again.torn) == (["1-0", "3-0", "4-0"], 3, 1)
    again.advance(again.peek(2))
    assert [e.id for e in Spool(tmp_path, 1).all()] == ["4-0"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_disk_that_is_full_when_redis_returns_holds_nothing_up(tmp_path: Path) -> None:
    """Only the note of how far was replayed cannot be written; the replay goes on and frees the disk."""
    spool = Spool(tmp_path, 1)
    spool.append([entry(n, f"{n + 1}-0") for n in range(4)])
    spool.advance(spool.peek(1))
    (tmp_path / "position.new").symlink_to("/dev/full")
    spool.advance(spool.peek(2))
    assert [e.id for e in spool.all()] == ["4-0"]
    assert [e.id for e in Spool(tmp_path, 1).all()] == ["1-0", "2-0", "3-0", "4-0"]  # known by their ids
    (tmp_path / "position.new").symlink_to("/dev/full")
    spool.advance(spool.peek(9))
    assert (len(spool), spool.bytes) == (0, 0)
    spool.append([entry(4, "5-0")])
    assert [e.id for e in Spool(tmp_path, 1).all()] == ["5-0"]


def test_a_full_spool_takes_nothing_and_says_what_to_do(spool: Spool) -> None:
    spool.append([entry(0, "1-0", size=900_000)])
    with pytest.raises(SpoolFull, match="QMT_SPOOL_MAX_MB"):
        spool.append([entry(1, "2-0", size=200_000)])
    assert [e.id for e in spool.all()] == ["1-0"]


# -- both --------------------------------------------------------------------------------------------------------


def test_redis_away_takes_the_way_over_the_disk_and_back(
    settings: Settings, redis_client: redis.Redis, spool: Spool
) -> None:
    nowhere = connect(settings, url=f"redis://127.0.0.1:{free_port()}/0", retries=0)
    owner = f"{settings.host}|{os.getpid()}|0"
    lease = Lease(nowhere, "feed", owner)
    outbox = Outbox(Producer(nowhere, lease=("feed", owner)), spool, lease, settings.host)
    outbox.put([entry(0, "1-0")])
    outbox.put([entry(1, "2-0")])
    assert (len(spool), spool.rows, outbox.away_since > 0) == (2, 4, True)
    lease.client = outbox.producer.client = redis_client  # it answers again
    outbox._next_try = 0.0
    outbox.drain()
    outbox.put([entry(2, "3-0")])
    assert stored(redis_client) == [("1-0", 0), ("2-0", 1), ("3-0", 2)]
    assert (len(spool), outbox.away_since) == (0, 0.0)
