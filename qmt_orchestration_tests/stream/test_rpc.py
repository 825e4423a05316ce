"""Commands to the gateway: answers in chunks, failures that say what failed, requests that survive a restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys, rpc, rpc_request, rpc_server
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.fields import FieldError
from qmt_orchestration.stream.groups import Entry
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.helpers import wait_until


@contextmanager
def gateway(settings: Settings, handlers: Mapping[str, rpc.Handler]) -> Iterator[rpc_server.RpcServer]:
    client, stop = connect(settings), threading.Event()
    Heartbeat(client, settings, rpc.SERVICE).beat()
    server = rpc_server.RpcServer(client, settings, handlers)
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def numbers(call: rpc.Call) -> Iterator[pa.Table]:
    """`parts` tables of 10 rows."""
    for n in range(call.params["parts"]):
        call.progress(done=n)
        yield pa.table({"n": list(range(n * 10, n * 10 + 10))})


def test_without_a_gateway_the_caller_gets_an_error_at_once(redis_client: Any) -> None:
    with pytest.raises(rpc.NoGateway, match="start gateway"):
        rpc.call(redis_client, "history", {}, timeout_seconds=5)
    assert redis_client.xlen(keys.RPC) == 0


def test_an_answer_in_many_chunks_comes_whole_and_in_order(redis_client: Any, settings: Settings) -> None:
    seen: list[int] = []
    with gateway(settings, {"numbers": numbers}):
        table = rpc.call(
            redis_client, "numbers", {"parts": 60}, timeout_seconds=20, on_progress=lambda p: seen.append(p["done"])
        )
    assert table.column("n").to_pylist() == list(range(600))
    assert seen == list(range(60))
    assert list(redis_client.scan_iter("qmt:rpc:reply:*")) == []
    assert redis_client.xpending(keys.RPC, keys.RPC_GROUP)["pending"] == 0


def test_an_empty_answer_keeps_its_columns(redis_client: Any, settings: Settings) -> None:
    with gateway(settings, {"none": lambda _: pa.table({"a": pa.array([], pa.int64())})}):
        table = rpc.call(redis_client, "none", {}, timeout_seconds=10)
    assert (table.num_rows, table.column_names) == (0, ["a"])


def test_errors_of_the_handler_reach_the_caller(redis_client: Any, settings: Settings) -> None:
    def broken(_: rpc.Call) -> pa.Table:
        raise ValueError("no such symbol 1.XX")

    with gateway(settings, {"broken": broken}) as server:
        with pytest.raises(rpc.RpcError, match=r"ValueError: no such symbol 1\.XX"):
            rpc.call(redis_client, "broken", {}, timeout_seconds=10)
        with pytest.raises(rpc.RpcError, match=r"unknown method.*broken"):
            rpc.call(redis_client, "other", {}, timeout_seconds=10)
        assert server.failed == 2


def test_the_deadline_ends_the_wait(redis_client: Any, settings: Settings) -> None:
    release = threading.Event()

    def slow(_: rpc.Call) -> pa.Table:
        release.wait(20)
        return pa.table({"a": [1]})

    with gateway(settings, {"slow": slow}):
        try:
            with pytest.raises(rpc.RpcTimeout, match="gateway is alive"):
                rpc.call(redis_client, "slow", {}, timeout_seconds=0.5)
        finally:
            release.set()


def test_a_request_survives_the_restart_of_the_gateway(redis_client: Any, settings: Settings) -> None:
    started, never, result = threading.Event(), threading.Event(), []

    def stuck(call: rpc.Call) -> Iterator[pa.Table]:
        yield pa.table({"n": [-1]})  # part of an answer that never becomes whole
        started.set()
        while call.remaining_seconds():
            never.wait(0.05)  # a slow answer, not a flood
            yield pa.table({"n": [-1]})

    def ask() -> None:
        result.append(rpc.call(connect(settings), "numbers", {"parts": 3}, timeout_seconds=30))

    caller = threading.Thread(target=ask)
    with gateway(settings, {"numbers": stuck}):
        caller.start()
        assert started.wait(10)
    with gateway(settings, {"numbers": numbers}):
        wait_until(lambda: result, 20, "the answer of the second gateway")
    caller.join(5)
    assert result[0].column("n").to_pylist() == list(range(30))


def test_a_malformed_request_becomes_a_dead_letter_and_stops_nothing(redis_client: Any, settings: Settings) -> None:
    redis_client.xadd(keys.RPC, {"id": "x"})
    with gateway(settings, {"numbers": numbers}):
        assert rpc.call(redis_client, "numbers", {"parts": 1}, timeout_seconds=10).num_rows == 10
        wait_until(lambda: redis_client.xlen(keys.DEAD_LETTERS.format(stream=keys.RPC)) == 1)


def test_a_malformed_request_with_an_id_is_answered(redis_client: Any, settings: Settings) -> None:
    wrong = {"id": "abc", "method": "numbers", "params": "[1]", "deadline_ms": "soon"}
    with gateway(settings, {"numbers": numbers}):
        redis_client.xadd(keys.RPC, wrong)
        wait_until(lambda: redis_client.xlen(keys.RPC_REPLY.format(request_id="abc")))
    ((_, fields),) = redis_client.xrange(keys.RPC_REPLY.format(request_id="abc"))
    assert (fields[b"kind"], b"expected a JSON object" in fields[b"message"]) == (b"error", True)


@pytest.mark.parametrize(
    ("params", "seconds", "message"),
    [
        ({"symbols": ["000001.SZ"] * 300, "start": "20240101", "end": "20241231"}, 5, "QMT_GATEWAY_SYMBOL_DAYS"),
        ({"symbols": ["000001.SZ"] * 20_001}, 5, "at most 20,000"),
        ({"symbols": ["x" * 33]}, 5, "more than 32 characters"),
        ({"symbols": ["000001.SZ"], "start": "20250605", "end": "2025"}, 5, "end: expected a date like 20250605"),
        ({"symbols": ["000001.SZ"], "start": "20250605", "end": "20250604"}, 5, "start before end"),
        ({"symbols": ["000001.SZ"]}, 100_000, "deadline within 3600 s"),
    ],
    ids=["symbol-days", "symbols", "symbol", "date", "order", "deadline"],
)
def test_a_request_beyond_a_limit_is_refused_at_once_with_the_reason(
    redis_client: Any, settings: Settings, params: dict[str, Any], seconds: float, message: str
) -> None:
    with gateway(settings, {"history": lambda _: pytest.fail("it is served")}) as server:
        with pytest.raises(rpc.RpcError, match=f"refused: .*{message}"):
            rpc.call(redis_client, "history", params, timeout_seconds=seconds)
        wait_until(lambda: server.refused == 1)
    assert redis_client.xlen(keys.RPC) == 0


def test_daily_bars_count_less_than_minutes() -> None:
    one = {"symbols": ["000001.SZ"] * 241, "start": "2025-06-01", "end": "20250610093000"}
    assert rpc_request.symbol_days({**one, "period": "1m"}) == 2410
    assert rpc_request.symbol_days({**one, "period": "1d"}) == 10
    assert rpc_request.symbol_days({}) == rpc_request.symbol_days({"symbols": "000001.SZ"}) == 0


def test_small_requests_are_not_stuck_behind_large_ones_and_too_many_are_refused(
    redis_client: Any, settings: Settings
) -> None:
    release, large = threading.Event(), {"symbols": ["000001.SZ"] * 5000}

    def history(_: rpc.Call) -> pa.Table:
        release.wait(30)
        return pa.table({"a": [1]})

    def ask() -> None:
        rpc.call(connect(settings), "history", large, timeout_seconds=30)

    callers = [threading.Thread(target=ask) for _ in range(rpc_server.MOST_WAITING + 1)]
    with gateway(settings, {"history": history, "numbers": numbers}) as server:
        try:
            for caller in callers:
                caller.start()
            wait_until(lambda: server.busy == 1 and server.waiting == rpc_server.MOST_WAITING)
            with pytest.raises(rpc.RpcError, match="16 requests wait already"):
                rpc.call(redis_client, "history", large, timeout_seconds=10)
            assert rpc.call(redis_client, "numbers", {"parts": 2}, timeout_seconds=10).num_rows == 20
        finally:
            release.set()
        for caller in callers:
            caller.join(20)
        assert server.refused == 1
        wait_until(lambda: server.served == len(callers) + 1)


def test_a_caller_that_gives_up_frees_the_worker(redis_client: Any, settings: Settings) -> None:
    parts = iter(range(1_000_000))

    def endless(call: rpc.Call) -> Iterator[pa.Table]:
        for n in parts:
            call.progress(done=n)
            yield pa.table({"n": [n]})

    with gateway(settings, {"endless": endless}) as server:
        with pytest.raises(rpc.RpcTimeout):
            rpc.call(redis_client, "endless", {}, timeout_seconds=0.3)
        wait_until(lambda: server.busy == 0, 5, "the worker is free again")
        assert redis_client.xpending(keys.RPC, keys.RPC_GROUP)["pending"] == 0


def test_a_caller_that_reads_nothing_is_given_up(
    redis_client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "UNREAD_SECONDS", 0.2)
    deadline = int(time.time() * 1000) + 60_000
    request = {"id": "abc", "method": "numbers", "params": json.dumps({"parts": 100}), "deadline_ms": deadline}
    with gateway(settings, {"numbers": numbers}) as server:
        redis_client.xadd(keys.RPC, request)
        wait_until(lambda: server.busy == 1)
        wait_until(lambda: server.busy == 0, 5, "the worker is free again")
        assert redis_client.xlen(keys.RPC) == 0


def test_a_request_past_its_deadline_is_given_up_without_an_error(redis_client: Any, settings: Settings) -> None:
    deadline = int(time.time() * 1000) + 500
    request = {"id": "abc", "method": "numbers", "params": json.dumps({"parts": 100}), "deadline_ms": deadline}
    with gateway(settings, {"numbers": numbers}) as server:
        redis_client.xadd(keys.RPC, request)
        wait_until(lambda: redis_client.xlen(keys.RPC) == 0, 5, "the request is removed")
        assert server.failed == 0
        kinds = {fields[b"kind"] for _, fields in redis_client.xrange(keys.RPC_REPLY.format(request_id="abc"))}
        assert kinds == {b"progress", b"chunk"}


def test_a_reply_that_redis_refuses_is_given_up_at_once(redis_client: Any, settings: Settings) -> None:
    """The key holds something else here; a full server or a missing right answer alike."""
    redis_client.set(keys.RPC_REPLY.format(request_id="abc"), "text")
    calls: list[int] = []

    def once(_: rpc.Call) -> pa.Table:
        calls.append(1)
        return pa.table({"a": [1]})

    deadline = int(time.time() * 1000) + 60_000
    with gateway(settings, {"once": once}) as server:
        redis_client.xadd(keys.RPC, {"id": "abc", "method": "once", "params": "{}", "deadline_ms": deadline})
        wait_until(lambda: server.failed == 1 and server.busy == 0)
        assert (redis_client.xlen(keys.RPC), len(calls)) == (0, 1)


def test_an_answer_beyond_the_limit_is_an_error(
    redis_client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "MOST_ANSWER_BYTES", 2_000)
    with (
        gateway(settings, {"numbers": numbers}),
        pytest.raises(rpc.RpcError, match="the answer is larger than"),
    ):
        rpc.call(redis_client, "numbers", {"parts": 50}, timeout_seconds=10)


@given(
    st.dictionaries(
        st.sampled_from([b"id", b"method", b"params", b"deadline_ms", b"x"]),
        st.binary(max_size=40)
        | st.sampled_from([b"abc", b"{}", b'{"symbols": [1], "start": 5}', b"1", b"nan", b"1e9"]),
    )
)
def test_any_entry_is_a_request_or_names_what_is_wrong(fields: dict[bytes, bytes]) -> None:
    try:
        request = rpc_request.parse(Entry("1-0", fields))
        rpc_request.check(request, 0, 100)
    except (FieldError, rpc_request.Refused):
        return
    assert isinstance(request.params, dict)


@pytest.mark.parametrize("name", ["attempt", "kind", "n", "chunks", "rows", "data", "payload"])
def test_a_reply_with_a_wrong_field_is_an_error_of_the_call(
    redis_client: Any, settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rpc_server.RpcServer._write

    def spoilt(self: Any, reply: str, entry: Entry, fields: dict[str, Any]) -> None:
        write(self, reply, entry, {**fields, **({name: b"\xff"} if name in fields or name == "attempt" else {})})

    monkeypatch.setattr(rpc_server.RpcServer, "_write", spoilt)
    Heartbeat(redis_client, settings, rpc.SERVICE).beat()
    with gateway(settings, {"numbers": numbers}), pytest.raises(rpc.RpcError, match="numbers: "):
        rpc.call(redis_client, "numbers", {"parts": 1}, timeout_seconds=10, on_progress=lambda _: None)
