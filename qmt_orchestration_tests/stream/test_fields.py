"""Values read from Redis: whatever was written there, a reader gets a value of its type, or an error that says so."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.services.desired import Desired, read_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys, threads
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.heartbeat import Heartbeat, read_all
from qmt_orchestration_tests.helpers import wait_until

WRONG = (
    b"", b"x", b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"1_000", "１２".encode(), b"\xff\xfe", b"9" * 30,
    b"9" * 100_000, b"True", b"null", b"1.5", b"0x10", b"1 2",
)  # fmt: skip
NAMES = (
    b"market_ms",
    b"wall_ms",
    b"speed",
    b"segments",
    b"until_ms",
    b"host",
    b"service",
    b"beat_ms",
    b"writer",
    b"#restart",
)
anything = st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode), st.sampled_from(WRONG))


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value[:12]))
def test_what_is_no_whole_number_gives_the_default_and_is_counted(value: bytes) -> None:
    before = fields.skipped()
    assert fields.integer({b"n": value}, "n", 7) == 7
    assert fields.skipped() == before + 1
    with pytest.raises(fields.FieldError, match="n: expected"):
        fields.require_integer({b"n": value}, "n")


def test_an_absent_value_is_the_default_and_nothing_wrong() -> None:
    before = fields.skipped()
    assert (fields.integer({}, "n", 7), fields.number({}, "n", 0.5), fields.text({}, "n", "?")) == (7, 0.5, "?")
    assert fields.skipped() == before
    with pytest.raises(fields.FieldError, match="n: expected a value, the field is missing"):
        fields.require_number({}, "n")


@given(anything)
def test_every_parser_gives_its_type_or_its_error(value: bytes) -> None:
    row = {b"n": value}
    assert -5 <= fields.integer(row, "n", low=-5, high=5) <= 5
    assert math.isfinite(fields.number(row, "n"))
    assert len(fields.text(row, "n", limit=10)) <= 10
    for require in (fields.require_integer, fields.require_number, fields.require_text, fields.require_json_object):
        with contextlib.suppress(fields.FieldError):
            require(row, "n")


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_what_leaves_as_json_holds_no_nan(value: Any) -> None:
    json.dumps(fields.finite(value), allow_nan=False)


def test_deep_json_is_refused_not_followed() -> None:
    with pytest.raises(fields.FieldError, match="expected JSON"):
        fields.list_of(b"[" * 200_000, "n")
    with pytest.raises(fields.FieldError, match="NaN is no JSON"):
        fields.require_json_object({b"n": b'{"a": NaN}'}, "n")


def test_wrong_hashes_in_redis_leave_clock_heartbeats_and_desired_states_readable(
    redis_client: Any, settings: Settings
) -> None:
    redis_client.hset(keys.CLOCK, mapping={"market_ms": "soon", "wall_ms": "1", "speed": "nan"})
    assert read_clock(redis_client).simulated is False
    redis_client.hset(keys.DESIRED, mapping={b"\xff": b"\xfe", "writer#restart": "often", "writer": "stopped"})
    assert read_desired(redis_client)["writer"] == Desired("stopped", 0)
    redis_client.set(keys.HEARTBEAT.format(host="a", service="text"), "no hash")
    redis_client.hset(keys.HEARTBEAT.format(host="a", service="half"), mapping={"service": "half"})
    redis_client.hset(keys.HEARTBEAT.format(host="a", service="bad"), mapping={b"service": b"\xff", "host": "a"})
    before = fields.skipped()
    Heartbeat(redis_client, settings, "writer").beat({"rate": math.nan})
    (beat,) = read_all(redis_client)
    assert (beat["service"], int(beat["skipped_fields"])) == ("writer", before)
    assert fields.skipped() == before + 3


@given(st.dictionaries(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NAMES)), anything, min_size=1))
def test_any_hash_leaves_the_readers_of_clock_heartbeats_and_desired_states_alive(
    redis_client: Any, row: dict[bytes, bytes]
) -> None:
    redis_client.flushall()
    for key in (keys.CLOCK, keys.DESIRED, keys.HEARTBEAT.format(host="a", service="b")):
        redis_client.hset(key, mapping=row)
    assert fields.FIRST_MS <= read_clock(redis_client).now_ms() <= fields.LAST_MS + 10_000_000
    assert all(wanted.generation >= 0 for wanted in read_desired(redis_client).values())
    assert all(beat["host"] and beat["service"] for beat in read_all(redis_client))


def test_a_thread_goes_on_after_any_error_and_counts_it() -> None:
    stop, calls, before = threading.Event(), [], threads.errors()

    def step() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("broken")

    thread = threads.start("test", step, stop, 0.001)
    wait_until(lambda: len(calls) >= 4)
    stop.set()
    thread.join(5)
    assert threads.errors() == before + 2
