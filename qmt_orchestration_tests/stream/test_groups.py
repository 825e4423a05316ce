"""Consumer groups: nothing is lost, nothing is handed out twice, whatever happens to consumers and server."""

from __future__ import annotations

from typing import Any

import pytest

from qmt_orchestration.stream import dead_letters
from qmt_orchestration.stream.groups import Entry, GroupReader, group_lag
from qmt_orchestration_tests.helpers import wait_until

STREAM, GROUP = "test:stream", "test:group"


def reader(client: Any, consumer: str = "a", **options: Any) -> GroupReader:
    return GroupReader(client, STREAM, GROUP, consumer, **{"block_ms": 20, **options})


def publish(client: Any, count: int, start: int = 1) -> list[str]:
    ids = [f"{i}-0" for i in range(start, start + count)]
    for id_ in ids:
        client.xadd(STREAM, {"n": id_}, id=id_)
    return ids


def drain(source: GroupReader, limit: int = 50) -> list[Entry]:
    out: list[Entry] = []
    for _ in range(limit):
        out += source.read()
    return out


def test_a_late_consumer_gets_what_was_published_before_it(redis_client: Any) -> None:
    ids = publish(redis_client, 5)
    assert [e.id for e in drain(reader(redis_client), 10)] == ids


def test_a_restarted_consumer_gets_its_own_pending_first_and_knows_the_redelivery(redis_client: Any) -> None:
    publish(redis_client, 3)
    assert len(drain(reader(redis_client), 6)) == 3
    publish(redis_client, 1, start=4)
    again = drain(reader(redis_client), 6)
    assert [(e.id, e.recovered, e.deliveries) for e in again] == [
        ("1-0", True, 2),
        ("2-0", True, 2),
        ("3-0", True, 2),
        ("4-0", False, 1),
    ]


def test_entries_in_hand_are_not_handed_out_twice_after_a_broken_connection(redis_client: Any) -> None:
    publish(redis_client, 3)
    source = reader(redis_client)
    held = drain(source, 6)
    redis_client.connection_pool.disconnect()
    source.reset(keep_held=True)
    assert drain(source, 6) == []
    source.release(held[:1])
    assert [e.id for e in drain(source, 6)] == ["1-0"]


def test_entries_of_a_dead_consumer_are_claimed_once_idle(redis_client: Any) -> None:
    publish(redis_client, 250)
    assert len(drain(reader(redis_client, "dead"), 20)) == 250
    heir = reader(redis_client, "heir", min_idle_ms=50)
    got: list[Entry] = []
    wait_until(lambda: got.extend(heir.read()) or len(got) >= 250)
    assert sorted(e.id for e in got) == sorted(f"{i}-0" for i in range(1, 251))
    assert all(e.recovered for e in got)


def test_entries_in_hand_are_kept_from_being_claimed(redis_client: Any) -> None:
    publish(redis_client, 2)
    busy, other = reader(redis_client, "busy", min_idle_ms=400), reader(redis_client, "other", min_idle_ms=400)
    assert len(drain(busy, 5)) == 2
    assert [e for _ in range(20) for e in (*busy.read(), *other.read())] == []  # 20 × 40 ms, twice the idle time


def test_trimmed_pending_entries_are_counted_as_lost_and_do_not_stay(redis_client: Any) -> None:
    publish(redis_client, 10)
    assert len(drain(reader(redis_client), 10)) == 10
    redis_client.xtrim(STREAM, maxlen=4, approximate=False)
    source = reader(redis_client)
    assert [e.id for e in drain(source, 10)] == ["7-0", "8-0", "9-0", "10-0"]
    assert source.lost == 6
    assert redis_client.xpending(STREAM, GROUP)["pending"] == 4


def test_trimmed_entries_of_a_dead_consumer_are_counted_as_lost(redis_client: Any) -> None:
    publish(redis_client, 10)
    assert len(drain(reader(redis_client, "dead"), 10)) == 10
    redis_client.xtrim(STREAM, maxlen=4, approximate=False)
    heir = reader(redis_client, "heir", min_idle_ms=0)
    assert len(drain(heir, 10)) == 4
    assert heir.lost == 6


def test_a_flushed_server_is_noticed_and_read_from_the_start(redis_client: Any) -> None:
    publish(redis_client, 2)
    source = reader(redis_client)
    source.ack(*(e.id for e in drain(source, 5)))
    redis_client.flushall()
    ids = publish(redis_client, 3)
    assert [e.id for e in drain(source, 6)] == ids
    assert source.recreated == 1


def test_a_failing_entry_is_retried_then_moved_and_the_others_pass(redis_client: Any) -> None:
    publish(redis_client, 3)
    source = reader(redis_client, max_deliveries=3)
    done: list[str] = []
    for _ in range(20):
        for entry in source.read():
            if entry.id == "2-0":
                source.failed(entry, "cannot be handled")
            else:
                source.ack(entry.id)
                done.append(entry.id)
    assert done == ["1-0", "3-0"]
    [letter] = dead_letters.read(redis_client, STREAM)
    assert (letter.source_id, letter.deliveries, letter.group) == ("2-0", 3, GROUP)
    assert "cannot be handled" in letter.error
    assert redis_client.xpending(STREAM, GROUP)["pending"] == 0


def test_leaving_keeps_a_consumer_that_has_pending_entries(redis_client: Any) -> None:
    publish(redis_client, 1)
    source = reader(redis_client)
    [entry] = drain(source, 3)
    source.close()
    assert [c["name"] for c in redis_client.xinfo_consumers(STREAM, GROUP)] == [b"a"]
    source.ack(entry.id)
    source.close()
    assert redis_client.xinfo_consumers(STREAM, GROUP) == []


@pytest.mark.parametrize("read", [0, 4, 10])
def test_lag_counts_what_was_not_delivered(redis_client: Any, read: int) -> None:
    publish(redis_client, 10, start=1000)
    source = reader(redis_client, max_entries=1)
    source.ack(*(e.id for e in drain(source, 15)[:0]))
    redis_client.xgroup_setid(STREAM, GROUP, f"{999 + read}-0")
    lag = group_lag(redis_client, STREAM, GROUP)
    assert lag.entries == 10 - read
    assert lag.seconds == pytest.approx(max(9 - read, 0) / 1000)


def test_reading_asks_for_few_entries_when_they_are_large(redis_client: Any) -> None:
    for _ in range(40):
        redis_client.xadd(STREAM, {"x": b"0" * 100_000})
    source = reader(redis_client, target_bytes=1_000_000)
    sizes = []
    for _ in range(40):
        entries = source.read()
        source.ack(*(e.id for e in entries))
        sizes.append(sum(e.size for e in entries))
    assert sum(sizes) >= 40 * 100_000
    assert max(sizes) <= 2_000_000
