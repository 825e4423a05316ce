"""Commands to the gateway: answers in chunks, failures that say what failed, requests that survive a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys, rpc
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.helpers import wait_until


@contextmanager
def gateway(settings: Settings, handlers: Mapping[str, rpc.Handler]) -> Iterator[rpc.Server]:
    client, stop = connect(settings), threading.Event()
    Heartbeat(client, settings, rpc.SERVICE).beat()
    server = rpc.Server(client, settings, handlers)
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


def test_without_a_gateway_the_caller_is_told_at_once(redis_client: Any) -> None:
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
