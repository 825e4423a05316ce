"""Trimming, dead letters, heartbeats."""

from __future__ import annotations

import time
from typing import Any

import pytest
from typer.testing import CliRunner

from qmt_orchestration.cli.dead_letters import dead_letters_app
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, heartbeat, keys
from qmt_orchestration.stream.groups import GroupReader, create_group
from qmt_orchestration.stream.trim import trim_age, trim_all, trim_read

STREAM = "test:stream"


def test_trimming_never_removes_what_one_group_has_not_read_or_acknowledged(redis_client: Any) -> None:
    for i in range(1, 11):
        redis_client.xadd(STREAM, {"n": i}, id=f"{i}-0")
    assert trim_read(redis_client, STREAM, 0) == 0  # no group yet: its readers have not started
    fast = GroupReader(redis_client, STREAM, "fast", "a", block_ms=10)
    slow = GroupReader(redis_client, STREAM, "slow", "a", block_ms=10, max_entries=4)
    for _ in range(5):
        fast.ack(*(e.id for e in fast.read()))
    create_group(redis_client, STREAM, "slow")
    assert trim_read(redis_client, STREAM, 0) == 0  # "slow" has read nothing
    held: list[str] = []
    while len(held) < 4:
        held += [e.id for e in slow.read()]
    slow.ack("1-0", "2-0", "4-0")
    assert trim_read(redis_client, STREAM, 0) == 2  # 3-0 is still in hand
    slow.ack(*held)
    assert trim_read(redis_client, STREAM, 0) == len(held) - 2
    assert redis_client.xlen(STREAM) == 10 - len(held)


def test_a_client_left_behind_cannot_fill_the_server(
    redis_client: Any, redis_admin: Any, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the stream while there is room; when memory runs short, only what the writer has not read is kept."""
    stream, old = keys.ticks(0), int(time.time() * 1000) - 3_600_000
    for i in range(10):
        redis_client.xadd(stream, {"n": i}, id=f"{old + i}-0")
    create_group(redis_client, stream, "forgotten")
    writer = GroupReader(redis_client, stream, keys.WRITER_GROUP, "a", block_ms=10, max_entries=6)
    read: list[str] = []
    while len(read) < 6:
        read += [entry.id for entry in writer.read()]
    writer.ack(*read)
    brief = settings.model_copy(update={"stream_retention_seconds": 60.0})
    assert trim_all(redis_client, brief)[stream] == 0
    limit = redis_admin.config_get("maxmemory")["maxmemory"]
    redis_admin.config_set("maxmemory", int(redis_client.info("memory")["used_memory"] * 1.05))
    try:
        assert trim_all(redis_client, brief)[stream] == len(read)
    finally:
        redis_admin.config_set("maxmemory", limit)
    assert redis_client.xlen(stream) == 10 - len(read)
    assert "that forgotten had not read" in caplog.text


def test_what_everyone_has_read_stays_for_the_retention(redis_client: Any) -> None:
    redis_client.xadd(STREAM, {"n": 1}, id=f"{int(time.time() * 1000) - 60_000}-0")
    redis_client.xadd(STREAM, {"n": 2})
    source = GroupReader(redis_client, STREAM, "g", "a", block_ms=10)
    for _ in range(3):
        source.ack(*(e.id for e in source.read()))
    assert trim_read(redis_client, STREAM, 120) == 0
    assert trim_read(redis_client, STREAM, 30) == 1


def test_bars_are_trimmed_by_the_age_of_their_own_clock(redis_client: Any) -> None:
    hour = 3_600_000
    for h in range(1, 400):
        redis_client.xadd(STREAM, {"n": h}, id=f"{h * hour}-0")
    trim_age(redis_client, STREAM, 24 * 3600, 10_000 * hour)
    oldest = redis_client.xrange(STREAM, count=1)[0][0]
    assert redis_client.xlen(STREAM) < 250  # whole nodes go, so a little more is kept than asked
    assert int(oldest.split(b"-")[0]) <= (399 - 24) * hour


def test_an_entry_ahead_of_the_market_removes_no_bar(redis_client: Any) -> None:
    hour = 3_600_000
    for h in range(1, 400):
        redis_client.xadd(STREAM, {"n": h}, id=f"{h * hour}-0")
    redis_client.xadd(STREAM, {"whatever": "came"}, id=f"{1 << 62}-0")
    trim_age(redis_client, STREAM, 24 * 3600, 399 * hour)
    assert int(redis_client.xrange(STREAM, count=1)[0][0].split(b"-")[0]) <= (399 - 24) * hour


def fill(client: Any, count: int = 1) -> None:
    create_group(client, STREAM, "g")
    for i in range(count):
        dead_letters.move(client, STREAM, "g", f"{i + 1}-0", {b"payload": b"x%d" % i}, "bad form", 1)


def test_a_dead_letter_is_replayed_once_and_leaves(redis_client: Any) -> None:
    fill(redis_client, 3)
    first = dead_letters.read(redis_client, STREAM, newest_first=False)[0]
    assert dead_letters.replay(redis_client, STREAM, [first.id]) == 1
    assert dead_letters.replay(redis_client, STREAM) == 2
    assert [f for _, f in redis_client.xrange(STREAM)] == [{b"payload": b"x%d" % i} for i in range(3)]
    assert dead_letters.streams(redis_client) == {}
    with pytest.raises(dead_letters.NoDeadLetter, match="dead-letters list"):
        dead_letters.replay(redis_client, STREAM, [first.id])


def test_a_dead_letter_finds_its_place_however_the_clocks_stand(redis_client: Any) -> None:
    """The newest id may lie ahead of our clock (a producer's that is fast) or far behind it (market time)."""
    ahead = int(time.time() * 1000) + 3_600_000
    for newest in (f"{ahead}-7", "1749087000000-4"):
        redis_client.delete(STREAM)
        redis_client.xadd(STREAM, {"n": 1}, id=newest)
        fill(redis_client, 2)
        assert dead_letters.replay(redis_client, STREAM) == 2
        ms, n = newest.split("-")
        ids = [id_.decode() for id_, _ in redis_client.xrange(STREAM)]
        assert ids == [newest, f"{ms}-{int(n) + 1}", f"{ms}-{int(n) + 2}"]


def test_a_letter_gone_meanwhile_is_not_published_again(redis_client: Any) -> None:
    fill(redis_client)
    [letter] = dead_letters.read(redis_client, STREAM)
    repeat = (dead_letters._REPLAY, 2, dead_letters.key_of(STREAM), STREAM, letter.id)
    assert [redis_client.eval(*repeat), redis_client.eval(*repeat)] == [1, 0]  # as when the first reply is lost
    assert redis_client.xlen(STREAM) == 1


def test_an_oversized_value_is_cut_and_cannot_be_replayed(redis_client: Any) -> None:
    create_group(redis_client, STREAM, "g")
    dead_letters.move(redis_client, STREAM, "g", "1-0", {b"payload": b"x" * (3 << 20)}, "too large", 1)
    [letter] = dead_letters.read(redis_client, STREAM)
    assert letter.cut
    assert len(letter.fields[b"payload"]) == 1 << 20
    with pytest.raises(dead_letters.NoDeadLetter, match="drop it"):
        dead_letters.replay(redis_client, STREAM, [letter.id])
    assert dead_letters.replay(redis_client, STREAM) == 0
    assert dead_letters.drop(redis_client, STREAM) == 1


def test_the_command_line_lists_shows_and_drops(
    redis_client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    fill(redis_client, 2)
    run = CliRunner().invoke
    assert "2 dead letters" in run(dead_letters_app, ["list"]).output
    id_ = dead_letters.read(redis_client, STREAM)[0].id
    assert "bad form" in run(dead_letters_app, ["show", STREAM, id_]).output
    assert run(dead_letters_app, ["drop", STREAM]).exit_code != 0  # neither ids nor --all: nothing is dropped
    assert "1 dropped" in run(dead_letters_app, ["drop", STREAM, id_]).output
    assert "1 published again" in run(dead_letters_app, ["replay", STREAM, "--all"]).output
    assert "no dead letters" in run(dead_letters_app, ["list"]).output


def test_a_heartbeat_says_who_runs_and_a_clean_stop(redis_client: Any, settings: Settings) -> None:
    beat = heartbeat.Heartbeat(redis_client, settings, "writer")
    beat.beat({"stored": 7})
    beat.beat({"stored": 8})
    [found] = heartbeat.read_all(redis_client)
    assert (found["service"], found["host"], found["stored"], found["state"]) == (
        "writer",
        settings.host,
        "8",
        "running",
    )
    assert heartbeat.is_alive(redis_client, "writer")
    assert 0 < redis_client.ttl(keys.HEARTBEAT.format(host=settings.host, service="writer")) <= heartbeat.TTL_SECONDS
    assert redis_client.xlen(keys.STATS.format(service="writer")) == 1  # statistics go at a slower pace
    beat.stop()
    assert not heartbeat.is_alive(redis_client, "writer")
