"""Values of other types in the hashes that services read in their threads: none raises, what is right is still read."""

from __future__ import annotations

from typing import Any

import pytest

from qmt_orchestration.feed import checkpoint
from qmt_orchestration.services import link, state
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, fields, keys
from qmt_orchestration.stream.batch import encode
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.stream.lease import Lease
from qmt_orchestration.stream.producer import NewEntry, Producer
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.warehouse.ingest.commit import forget_old_sessions
from qmt_orchestration.warehouse.ingest.plan import Plan
from qmt_orchestration.warehouse.writer import Heartbeats, make_lanes
from qmt_orchestration_tests.stream.test_fields import WRONG
from qmt_orchestration_tests.warehouse.market_day import DAY, table, tick

SEQUENCES = (
    b'{"ranges": 5, "repeats": 0}', b'{"ranges": [[3, 1]], "repeats": 0}', b'{"ranges": [[1, "2"]], "repeats": 0}',
    b'{"ranges": [[0, 5], [2, 9]], "repeats": 0}', b'{"ranges": [], "repeats": NaN}', b"[]",
    b'{"ranges": [[-5, 1]], "repeats": 1}',
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda raw: repr(raw[:12]))
def test_no_thread_ends_by_what_somebody_wrote_into_redis(redis_client: Any, settings: Settings, wrong: bytes) -> None:
    client, stream = redis_client, keys.ticks(0)
    before = fields.skipped()
    beat = keys.HEARTBEAT.format(host=settings.host, service="writer")
    client.hset(beat, mapping={"pid": wrong, "beat_ms": wrong, "service": "writer", "published": wrong})
    client.hset(keys.PUBLISHED, read_clock(client).today().isoformat(), wrong)
    client.hset(keys.WRITER_TOTALS.format(stream=stream), mapping={"rows": 7, "old_lost": wrong, "old_repeats": wrong})
    sequences = {"host-feed-1": Sequence([[0, 0], [2, 2]]).dump(), "wrong": wrong, b"\xff-feed-" + wrong: wrong}
    client.hset(keys.WRITER_SEQUENCES.format(stream=stream), mapping=sequences)
    client.hset(keys.WRITER_PLAN.format(stream=stream), "1-0", wrong)
    client.xadd(dead_letters.key_of(stream), {"source_id": wrong, "deliveries": wrong})
    payload = encode(table([tick("09:25:00", 10.0, 100)]))
    client.xadd(stream, {"last_ms": wrong, "payload": wrong})
    client.xadd(stream, {"x": wrong})
    client.xadd(stream, {"last_ms": tick("09:25:00", 10.0, 100)["time"], "payload": payload})

    report = Heartbeats(make_lanes(settings, None)).numbers(client)  # type: ignore[arg-type]
    assert (report["lost"], report["stored_total"]) == (1, 7)
    forget_old_sessions(client, stream)
    plan = Plan(client, settings, stream, 0, "", lambda *_: [])
    assert plan.groups([]) == []
    (letter,) = dead_letters.read(client, stream)
    assert letter.deliveries >= 0
    known = checkpoint.Known(DAY)
    assert checkpoint.read_tail(client, settings, known) == 3
    assert list(known.states) == ["000001.SZ"]
    state.read_state(client, None, settings)
    line = link.Link(settings, ["writer"])
    line._exchange(client, Heartbeat(client, settings, "agent"))
    assert "writer" in line.beats
    assert fields.skipped() > before or wrong == b""


@pytest.mark.parametrize("wrong", SEQUENCES)
def test_a_sequence_that_is_none_begins_from_scratch_and_is_counted(wrong: bytes) -> None:
    before = fields.skipped()
    assert Sequence.load(wrong) == Sequence()
    assert fields.skipped() == before + 1


@pytest.mark.parametrize("wrong", WRONG, ids=lambda raw: repr(raw[:12]))
def test_anothers_entry_at_our_id_only_moves_ours(redis_client: Any, wrong: bytes) -> None:
    stream = keys.ticks(0)
    redis_client.xadd(stream, {wrong or b"x": wrong, "session": wrong}, id="5-0")
    producer = Producer(redis_client)
    producer.send([NewEntry(stream, "5-0", {"session": "s", "seq": 0, "payload": b""})])
    ((_, fields_of),) = redis_client.xrange(stream, "(5-0")
    assert fields_of[b"session"] == b"s"
    assert (producer.repeats, producer.renumbered) == (0, 1)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda raw: repr(raw[:12]))
def test_a_lease_that_does_not_expire_holds_nobody_back(redis_client: Any, wrong: bytes) -> None:
    first = Lease(redis_client, "feed", "a|1|1")
    assert first.acquire()
    redis_client.set(keys.FENCE.format(name="feed"), wrong)
    redis_client.set(keys.LEASE.format(name="feed"), wrong)
    second = Lease(redis_client, "feed", "b|2|2")
    assert second.acquire()
    assert second.token > first.token
    assert second.acquire(), "what one holds already is renewed"
    assert not Lease(redis_client, "feed", "c|3|3").acquire()
