"""The writer: every tick stored exactly once, whoever is killed and whatever comes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.batch import splice
from qmt_orchestration.stream.sequences import Sequence
from qmt_orchestration.warehouse import writer
from qmt_orchestration.warehouse.lane import WriterLane
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.stream.ticks import publish

STREAM = keys.ticks(0)


@contextmanager
def running(settings: Settings) -> Iterator[list[WriterLane]]:
    """The writer's lanes in threads of this process."""
    stop = threading.Event()
    lanes = writer.make_lanes(settings, stop)
    for lane in lanes:
        lane.start()
    try:
        yield lanes
    finally:
        stop.set()
        for lane in lanes:
            lane.join(15)
    assert [lane.failure for lane in lanes] == [None] * len(lanes)


def stored(clickhouse: Any) -> tuple[int, int]:
    """(rows, distinct ticks), read without FINAL: a doubled tick is seen."""
    sql = "SELECT count(), uniqExact(symbol, time, pvolume, amount) FROM ticks SETTINGS final = 0"
    return tuple(clickhouse.query(sql).first_row)  # type: ignore[return-value]


def settled(redis_client: Any, clickhouse: Any, ticks: int, timeout: float = 30) -> None:
    """Wait until *ticks* are stored and nothing is pending; then: none lost, none doubled."""
    wait_until(
        lambda: stored(clickhouse)[1] >= ticks and redis_client.xpending(STREAM, keys.WRITER_GROUP)["pending"] == 0,
        timeout,
        f"{ticks} ticks stored",
    )
    assert stored(clickhouse) == (ticks, ticks)


def account(redis_client: Any, session: str = "host-test-1") -> Sequence:
    return Sequence.load(redis_client.hget(keys.WRITER_SEQUENCES.format(stream=STREAM), session))


def test_batches_are_stored_once_and_accounted(redis_client: Any, clickhouse: Any, settings: Settings) -> None:
    with running(settings) as lanes:
        ticks = publish(redis_client, range(300))
        settled(redis_client, clickhouse, ticks)
        assert lanes[0].counters.inserts < 300  # what waits together is inserted together
        numbers = writer.Heartbeats(lanes).numbers(redis_client)
    assert (numbers["stored"], numbers["lost"], numbers["duplicates"], numbers["dead_letters"]) == (ticks, 0, 0, 0)
    assert numbers["lag_entries"] == 0
    assert redis_client.hlen(keys.WRITER_PLAN.format(stream=STREAM)) == 0


def test_loss_and_repeats_are_counted_exactly(redis_client: Any, clickhouse: Any, settings: Settings) -> None:
    ticks = publish(redis_client, [0, 1, 2, 5, 6, 9])
    publish(redis_client, [1, 6])  # the same batches under new ids
    with running(settings) as lanes:
        settled(redis_client, clickhouse, ticks)
        numbers = writer.Heartbeats(lanes).numbers(redis_client)
    assert (numbers["lost"], numbers["duplicates"]) == (4, 2)


def test_a_batch_published_again_much_later_is_not_stored_twice(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    with running(settings):
        ticks = publish(redis_client, range(3))
        settled(redis_client, clickhouse, ticks)
        publish(redis_client, [1])
        wait_until(lambda: account(redis_client).repeats == 1)
        settled(redis_client, clickhouse, ticks)


def test_poison_entries_go_to_the_dead_letters_and_stop_nothing(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    redis_client.xadd(STREAM, {"payload": b"no arrow at all"})
    redis_client.xadd(STREAM, {"something": "else"})
    ticks = publish(redis_client, [0])
    [(_, fields)] = redis_client.xrevrange(STREAM, count=1)
    redis_client.xadd(STREAM, {**fields, b"rows": 7})
    small = settings.model_copy(update={"stream_max_payload_mb": 1})
    redis_client.xadd(STREAM, {"payload": b"x" * ((1 << 20) + 1)})
    with running(small):
        settled(redis_client, clickhouse, ticks)
        letters = wait_until(lambda: len(found := dead_letters.read(redis_client, STREAM)) == 4 and found)
    reasons = [letter.error for letter in reversed(letters)]
    assert [r.split(" ")[0:3] for r in reasons[:2]] == [["not", "an", "Arrow"], ["no", "field", "payload;"]]
    assert "field rows says '7'" in reasons[2]
    assert "QMT_STREAM_MAX_PAYLOAD_MB" in reasons[3]


def test_redelivery_outside_the_deduplication_window_stores_nothing_twice(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    """Killed after the insert and before the acknowledgement, and back when ClickHouse has forgotten the token."""
    publish(redis_client, range(4))
    redis_client.xgroup_create(STREAM, keys.WRITER_GROUP, id="0")
    redis_client.xreadgroup(keys.WRITER_GROUP, settings.host, {STREAM: ">"}, count=3)  # in the dead process's hands
    for id_, fields in redis_client.xrange(STREAM, count=3):
        token = {"insert_deduplication_token": f"long forgotten {id_}"}
        clickhouse.raw_insert("ticks", insert_block=fields[b"payload"], fmt="ArrowStream", settings=token)
    with running(settings) as lanes:
        settled(redis_client, clickhouse, 800)
        assert lanes[0].counters.skipped == 3
    assert account(redis_client).lost == 0


@pytest.mark.parametrize("inserted", [False, True], ids=["planned", "planned and inserted"])
def test_killed_around_the_insert_of_a_group(
    redis_client: Any, clickhouse: Any, settings: Settings, inserted: bool
) -> None:
    """The next run forms the same insert, with the same token, out of the entries that the plan names."""
    publish(redis_client, range(5))
    redis_client.xgroup_create(STREAM, keys.WRITER_GROUP, id="0")
    redis_client.xreadgroup(keys.WRITER_GROUP, settings.host, {STREAM: ">"}, count=4)  # in the dead process's hands
    entries = redis_client.xrange(STREAM, count=3)
    ids = [id_.decode() for id_, _ in entries]
    redis_client.hset(keys.WRITER_PLAN.format(stream=STREAM), ids[0], ",".join(ids))
    if inserted:
        payload = splice([fields[b"payload"] for _, fields in entries])
        token = {"insert_deduplication_token": f"{STREAM}:{ids[0]}..{ids[-1]}:3"}
        clickhouse.raw_insert("ticks", insert_block=payload, fmt="ArrowStream", settings=token)
    with running(settings) as lanes:
        settled(redis_client, clickhouse, 1000)
        assert lanes[0].counters.skipped == (3 if inserted else 0)
        assert lanes[0].counters.inserts == (2 if inserted else 3)  # the plan's, the fourth entry, the fifth
    assert account(redis_client).ranges == [[0, 4]]
    assert redis_client.hlen(keys.WRITER_PLAN.format(stream=STREAM)) == 0


def test_an_outage_of_clickhouse_is_waited_out(redis_client: Any, clickhouse: Any, settings: Settings) -> None:
    clickhouse.command("RENAME TABLE ticks TO ticks_away")
    ticks = publish(redis_client, range(5))
    with running(settings) as lanes:
        wait_until(lambda: lanes[0].counters.retries >= 3)
        clickhouse.command("RENAME TABLE ticks_away TO ticks")
        settled(redis_client, clickhouse, ticks)
    assert dead_letters.streams(redis_client) == {}


def test_entries_in_hand_when_redis_refuses_are_handled_again(
    redis_client: Any, redis_admin: Any, clickhouse: Any, settings: Settings
) -> None:
    """Stored, but not acknowledged, because Redis is out of memory in that moment: they must not stay in hand."""
    limit = redis_admin.config_get("maxmemory")["maxmemory"]
    clickhouse.command("RENAME TABLE ticks TO ticks_away")
    ticks = publish(redis_client, range(6))
    try:
        with running(settings) as lanes:
            wait_until(lambda: lanes[0].counters.retries, message="the entries are in hand")
            redis_admin.config_set("maxmemory", 1)
            clickhouse.command("RENAME TABLE ticks_away TO ticks")
            wait_until(lambda: lanes[0].counters.error.startswith("Redis: "), message="the refusal is felt")
            redis_admin.config_set("maxmemory", limit)
            settled(redis_client, clickhouse, ticks)
    finally:
        redis_admin.config_set("maxmemory", limit)


def test_an_error_that_has_passed_is_reported_no_longer(redis_client: Any, clickhouse: Any, settings: Settings) -> None:
    """Also by a lane in which nothing comes that could be inserted."""
    with running(settings) as lanes:
        for lane in lanes:
            lane.counters.away("Redis", ConnectionError("closed by the server"))
        wait_until(lambda: not writer.Heartbeats(lanes).numbers(redis_client)["error"], 30, "the error to be cleared")


CHILD = "import sys; from qmt_orchestration.services.__main__ import main; sys.exit(main(['run', 'writer']))"


@pytest.mark.timeout(200)
def test_four_kills_of_the_writer_lose_and_double_nothing(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    ticks = 0
    child: subprocess.Popen[bytes] | None = None
    try:
        for run in range(4):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD], env={**os.environ, **settings.environment()}, stderr=subprocess.DEVNULL
            )
            before = stored(clickhouse)[1]
            ticks += publish(redis_client, range(run * 150, run * 150 + 150), rows=100)
            wait_until(lambda before=before: stored(clickhouse)[1] > before, 60, f"run {run} stores")
            child.kill()
            child.wait()
        assert stored(clickhouse)[1] <= ticks
        with running(settings):
            settled(redis_client, clickhouse, ticks)
    finally:
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
    sequence = account(redis_client)
    assert (sequence.lost, sequence.ranges) == (0, [[0, 599]])
