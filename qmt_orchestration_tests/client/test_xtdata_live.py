"""Subscriptions of our xtdata over real streams: the full snapshot first, then what changes, through outages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from qmt_orchestration.client import xtdata
from qmt_orchestration.client.xtdata import _live
from qmt_orchestration.local import engines
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import Batch
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.client.market import DAY, FRAMES, bar
from qmt_orchestration_tests.client.market import publish as publish_bars
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.conftest import settings as settings

A, B, C = market.SYMBOLS
TABLE = market.ticks(DAY)
STORED = 3000  # rows that ClickHouse has; those after them come on the stream


@pytest.fixture
def world(settings: Settings, redis_client: Any, clickhouse: Any) -> Iterator[Any]:
    """A market in mid-session: its past in ClickHouse; the Redis client to go on with."""
    market.insert_ticks(clickhouse, TABLE.slice(0, STORED))
    xtdata.use(settings)
    yield redis_client
    xtdata.disconnect()
    xtdata.use(None)


def send(client: Any, first: int, rows: int, *, flags: int = 0) -> list[dict[str, Any]]:
    """Publish rows of the day's ticks as one batch; the rows."""
    table = TABLE.slice(first, rows)
    if flags:
        index = table.schema.get_field_index("flags")
        table = table.set_column(index, table.schema.field(index), pa.array([flags] * rows, pa.uint32()))
    sent_ms = to_ms(at(DAY, 0)) + first
    client.xadd(keys.ticks(0), Batch("s", first, table, sent_ms).fields())
    return list(table.to_pylist())


def last_of(rows: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    return {row["symbol"]: (to_ms(row["time"]), row["lastPrice"]) for row in rows}


def test_a_whole_quote_begins_with_everything_and_goes_on_with_changes(world: Any) -> None:
    send(world, STORED - 60, 90)  # the stream is ahead of ClickHouse by thirty rows
    pushes: list[dict[str, Any]] = []
    number = xtdata.subscribe_whole_quote(["SH", "SZ"], pushes.append)
    assert number > 0
    wait_until(lambda: sum(map(len, pushes)) == 3 + 30)
    assert {c: (t["time"], t["lastPrice"]) for c, t in pushes[0].items()} == last_of(TABLE.slice(0, STORED).to_pylist())
    rows = send(world, STORED + 30, 6)
    wait_until(lambda: sum(map(len, pushes)) == 3 + 36)
    assert [(c, t["lastPrice"]) for p in pushes[-2:] for c, t in p.items()] == [
        (r["symbol"], r["lastPrice"]) for r in rows
    ]
    tick = pushes[-1][A]
    assert type(tick["askPrice"]) is list
    assert tick["timetag"].startswith("20250605 ")
    send(world, STORED + 30, 6)  # the same once more: nothing changes
    send(world, STORED + 36, 3, flags=128)  # withdrawn
    send(world, STORED + 39, 3)
    wait_until(lambda: sum(map(len, pushes)) == 3 + 39)
    assert xtdata.unsubscribe_quote(number) is True
    assert xtdata.unsubscribe_quote(number) is False


def test_codes_markets_and_periods_get_their_own(world: Any) -> None:
    shanghai: list[Any] = []
    one: list[Any] = []
    days: list[Any] = []
    minutes: list[Any] = []
    numbers = [
        xtdata.subscribe_whole_quote(["SH"], shanghai.append),
        xtdata.subscribe_quote(A, "tick", callback=one.append),
        xtdata.subscribe_quote(A, callback=days.append),
        xtdata.subscribe_quote(A, "1m", callback=minutes.append),
    ]
    assert len(set(numbers)) == 4
    wait_until(lambda: shanghai and one and days)
    rows = send(world, STORED, 9)
    publish_bars(world, [bar(A, FRAMES[30]), bar(B, FRAMES[30])])
    wait_until(lambda: len(shanghai) == 4 and len(one) == 4 and len(days) == 4 and minutes)
    assert {code for push in shanghai for code in push} == {C}
    assert one[-1] == {A: [one[-1][A][0]]}
    newest = [row for row in rows if row["symbol"] == A][-1]
    day = days[-1][A][0]
    assert (day["time"], day["close"], day["high"]) == (to_ms(at(DAY, 0)), newest["lastPrice"], newest["high"])
    (minute,) = minutes[0][A]
    stored = bar(A, FRAMES[30])
    assert (minute["time"], minute["close"], minute["volume"]) == (to_ms(FRAMES[30]), stored.close, stored.vol // 100)
    with pytest.raises(NotImplementedError, match="'openInterest'"):
        minute["openInterest"]
    with pytest.raises(NotImplementedError, match="'5m'"):
        xtdata.subscribe_quote(A, "5m")


def test_a_callback_that_fails_gets_the_next_push(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    def callback(push: Any) -> None:
        seen.append(push)
        raise RuntimeError("the program's own mistake")

    xtdata.subscribe_whole_quote([A], callback)
    wait_until(lambda: seen)
    send(world, STORED, 9)
    wait_until(lambda: len(seen) == 4)
    assert "the program's own mistake" in capsys.readouterr().err


def test_an_entry_that_is_no_batch_is_left_out(world: Any) -> None:
    seen: list[Any] = []
    xtdata.subscribe_whole_quote([A], seen.append)
    wait_until(lambda: seen)
    world.xadd(keys.ticks(0), {"payload": b"garbage"})
    world.xadd(keys.ticks(0), {"other": b"1"})
    send(world, STORED, 3)
    wait_until(lambda: len(seen) == 2)


def test_without_redis_a_subscription_says_what_to_start(settings: Settings, clickhouse: Any) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    xtdata.use(away)
    try:
        with pytest.raises(xtdata.StreamAway, match="start the Redis of QMT_REDIS_URL"):
            xtdata.subscribe_whole_quote(["SH"])
        with pytest.raises(xtdata.StreamAway):
            xtdata.run()
    finally:
        xtdata.use(None)


def test_quotes_go_on_after_redis_was_away_and_run_gives_up_when_it_stays_away(
    settings: Settings, clickhouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_AWAY_SECONDS", 0.3)
    market.insert_ticks(clickhouse, TABLE.slice(0, STORED))
    local = settings.model_copy(update={"redis_url": ""})
    engine = engines.start_redis(local, 0)
    chosen = local.model_copy(update={"redis_url": engine.url})
    xtdata.use(chosen)
    try:
        seen: list[Any] = []
        xtdata.subscribe_whole_quote([A], seen.append)
        wait_until(lambda: seen)
        engine.stop()
        ended: list[BaseException] = []

        def program() -> None:
            try:
                xtdata.run()
            except xtdata.StreamAway as error:
                ended.append(error)

        wait_until(lambda: _live._reader._away_since is not None)
        engine = engines.start_redis(local, engine.port)
        with connect(chosen) as client:
            send(client, STORED, 3)
        wait_until(lambda: len(seen) == 2)
        thread = threading.Thread(target=program, daemon=True)
        thread.start()
        engine.stop()
        wait_until(lambda: ended, 20)
        assert "QMT_REDIS_URL" in str(ended[0])
        thread.join(5)
    finally:
        xtdata.disconnect()
        xtdata.use(None)
        engine.stop()
