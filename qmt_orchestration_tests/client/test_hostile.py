"""Entries and hashes that others can write: a client or the publisher goes on, and never does harm because of them."""

from __future__ import annotations

import contextlib
import math
import time
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.client import BarConsumer, registry
from qmt_orchestration.client.bar import Origin, parse_bar
from qmt_orchestration.client.tick_consumer import TickConsumer
from qmt_orchestration.market.sessions import SHANGHAI, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.groups import group_lag
from qmt_orchestration.warehouse import bar_stream
from qmt_orchestration_tests.client.market import FRAMES, minute, publish
from qmt_orchestration_tests.helpers import wait_until

NAMES = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount", "timestamp", "quality_score", "revision")
values = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"nan", b"inf", b"-1", b"9" * 400, b"2025-06-05 10:30:00", b"0001-01-01 00:00:00", b"000001.SZ"]),
)
entries = st.dictionaries(st.one_of(st.sampled_from([n.encode() for n in NAMES]), st.binary(max_size=9)), values)


@given(entries)
def test_an_entry_is_a_bar_of_finite_values_or_a_value_error(entry: dict[bytes, bytes]) -> None:
    with contextlib.suppress(ValueError):
        bar = parse_bar(entry, Origin("", "1-0"))
        assert all(math.isfinite(v) for v in (bar.open, bar.high, bar.low, bar.close, bar.amount, bar.quality_score))


def test_a_bar_of_nan_or_of_a_megabyte_is_refused() -> None:
    whole = {n.encode(): v.encode() for n, v in minute(FRAMES[0])[0].fields().items()}
    assert parse_bar(whole, Origin("", "1-0")).symbol
    for name, value in ((b"open", b"nan"), (b"amount", b"inf"), (b"vol", b"nan"), (b"source", b"x" * 1_000_000)):
        with pytest.raises(ValueError, match="expected the fields of a minute bar"):
            parse_bar({**whole, name: value}, Origin("", "1-0"))


@given(st.lists(entries.filter(bool), max_size=4))
def test_the_publisher_recalls_its_bars_among_anything(redis_client: Any, hostile: list[dict[bytes, bytes]]) -> None:
    redis_client.delete(keys.BARS)
    day, frame = FRAMES[0].date(), to_ms(FRAMES[0])
    row = (frame // 1000, "000001.SZ", 10.0, 10.1, 9.9, 10.0, 100, 1000.0, "live", 1.0)
    assert bar_stream.send(redis_client, day, bar_stream.published(redis_client).get(day.isoformat(), 0), frame,
                           [(row, bar_stream.values_of(row), 0)], frame)  # fmt: skip
    for entry in hostile:
        redis_client.xadd(keys.BARS, entry)
    assert bar_stream.recall(redis_client, frame)[(frame, "000001.SZ")] == (bar_stream.values_of(row), 0)


def test_progress_that_cannot_be_read_is_mended_from_the_stream(redis_client: Any) -> None:
    frame = to_ms(FRAMES[5])
    redis_client.xadd(keys.BARS, {"symbol": "000001.SZ"}, id=f"{frame}-0")
    today = FRAMES[5].date().isoformat()
    redis_client.hset(keys.PUBLISHED, mapping={today: "soon", "2025-06-04": frame, "yesterday": 1, b"\xff": b"\xff"})
    before = fields.skipped()
    assert bar_stream.published(redis_client) == {today: frame, "2025-06-04": frame}
    assert fields.skipped() > before
    assert redis_client.hgetall(keys.PUBLISHED) == {today.encode(): b"%d" % frame, b"2025-06-04": b"%d" % frame}


def test_a_malformed_entry_goes_to_the_dead_letters_and_the_client_reads_on(
    redis_client: Any, settings: Settings
) -> None:
    with BarConsumer("c1", start="beginning", catch_up=False, settings=settings) as bars:
        redis_client.xadd(keys.MINUTES, {b"symbol": b"\xff", b"open": b"nan"}, id="1-0")
        publish(redis_client, minute(FRAMES[0]))
        assert wait_until(lambda: bars.read(0.2)), "the bars behind it"
        assert bars.counters.dead == 1
    with TickConsumer("t1", start="beginning", settings=settings) as ticks:
        for entry in ({"seq": "x"}, {"session": "s", "seq": "9" * 5000, "sent_ms": "1"}, {b"session": b"\xff"}):
            redis_client.xadd(keys.ticks(0), entry)
        wait_until(lambda: ticks.read(0.1) or ticks.counters.dead == 3)


def test_progress_of_a_client_that_cannot_be_read_is_passed_over(redis_client: Any, settings: Settings) -> None:
    progress = keys.PROGRESS.format(group=f"{keys.BAR_GROUP_PREFIX}:c1")
    redis_client.hset(progress, mapping={"000001.SZ": "never", "*since": "x", b"\xff": "1", "*open": 1})
    redis_client.hset(keys.PUBLISHED, mapping={"2025-06-05": "soon"})
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("c1", start=datetime(2025, 6, 5, tzinfo=SHANGHAI), catch_up=False, settings=settings) as bars:
        assert wait_until(lambda: bars.read(0.2))


def test_evicting_a_client_destroys_only_groups_of_clients(redis_client: Any) -> None:
    """A client writes itself which groups are its own; the writer's must not be among them."""
    redis_client.xgroup_create(keys.ticks(0), keys.WRITER_GROUP, "0", mkstream=True)
    redis_client.xgroup_create(keys.BARS, f"{keys.BAR_GROUP_PREFIX}:evil", "0", mkstream=True)
    groups = f"{keys.ticks(0)}|{keys.WRITER_GROUP},{keys.BARS}|{keys.BAR_GROUP_PREFIX}:evil,no bar,a|b|c"
    said = {"mode": "broadcast", "group": "evil", "groups": groups, "seen_ms": int(time.time() * 1000)}
    registry.publish(redis_client, "evil", said)
    assert registry.evict(redis_client, "evil", wait_seconds=0) == [f"{keys.BAR_GROUP_PREFIX}:evil"]
    assert [g["name"] for g in redis_client.xinfo_groups(keys.ticks(0))] == [keys.WRITER_GROUP.encode()]


def test_a_group_of_256_shards_is_evicted_whole(redis_client: Any) -> None:
    names = [f"{keys.BAR_GROUP_PREFIX}:{'g' * 64}:{shard}" for shard in range(256)]
    for name in names:
        redis_client.xgroup_create(keys.BARS, name, "0", mkstream=True)
    groups = ",".join(f"{keys.BARS}|{name}" for name in names)
    registry.publish(redis_client, "c1", {"mode": "shard", "group": "g" * 64, "groups": groups, "seen_ms": 1})
    assert registry.evict(redis_client, "c1", wait_seconds=0) == names


def test_a_flood_of_registrations_is_listed_in_part(redis_client: Any) -> None:
    redis_client.sadd(keys.CLIENTS, *(f"c{n}" for n in range(5_000)))
    redis_client.hset(keys.CLIENT.format(client_id="c1"), mapping={f"field{n}": "x" for n in range(5_000)})
    assert registry.list_clients(redis_client) == []


@given(st.dictionaries(st.text(max_size=8), st.one_of(values, st.just(b"broadcast")), max_size=6))
def test_any_registration_is_listed_or_skipped(redis_client: Any, said: dict[str, bytes]) -> None:
    key = keys.CLIENT.format(client_id="c1")
    redis_client.delete(key)
    redis_client.sadd(keys.CLIENTS, "c1")
    redis_client.hset(key, mapping={"mode": b"broadcast", **said})
    for info in registry.list_clients(redis_client):
        assert math.isfinite(info.rate + info.lag_seconds)
        assert info.pending >= 0


def test_the_lag_of_a_group_survives_wrong_numbers(redis_client: Any) -> None:
    redis_client.xgroup_create(keys.BARS, "g", "0", mkstream=True)
    for number in ("9" * 5000, "x", "-5", ""):
        redis_client.xadd(keys.BARS, {"seq": number})
    lag = group_lag(redis_client, keys.BARS, "g")
    assert lag.entries == 4


@pytest.mark.parametrize("text", ["2025-06-05", "2025-6-5", "20250605", "", "2025-02-30", "x" * 10_000])
def test_days_are_dates_as_the_keys_hold_them(text: str) -> None:
    assert bar_stream.is_day(text) is (text == date(2025, 6, 5).isoformat())
