"""The publisher: each bar of each closed frame once, revisions marked, restarts unseen by clients."""

from __future__ import annotations

import socket
import threading
import time
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qmt_orchestration.client.bar import Bar, Origin, bars_of, parse_bar
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.market.sessions import at, minute_frames, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.groups import group_lag
from qmt_orchestration.warehouse import bar_stream
from qmt_orchestration.warehouse import publisher as publisher_module
from qmt_orchestration.warehouse.publisher import Publisher
from qmt_orchestration_tests.helpers import wait_until

DAY = date(2025, 6, 5)
SYMBOLS = ["000001.SZ", "300750.SZ", "600000.SH"]
OPEN = 570  # 09:30, minutes of the day


def ticks(minutes: range, *, second: int = 3, price: float = 10.0, shares: int = 0) -> pa.Table:
    """One trade per symbol in each minute, *second* s after its beginning; cumulative volume rises with time."""
    times = [to_ms(at(DAY, m)) + second * 1000 for m in minutes for _ in SYMBOLS]
    volume = [100 * (m - OPEN + 2) + shares for m in minutes for _ in SYMBOLS]
    received = int(time.time() * 1000)  # ticks live by their arrival
    special: dict[str, Any] = {
        "symbol": SYMBOLS * len(minutes),
        "time": times,
        "received_at": [received] * len(times),
        "pvolume": volume,
        "total_volume": volume,
        "volume": [v // 100 for v in volume],
        "amount": [v * price for v in volume],
        "openInt": [13] * len(times),
        "session": ["host-test-1"] * len(times),
        "flags": [0] * len(times),
        "quality_score": [1.0] * len(times),
    }
    columns = []
    for field in TICK_SCHEMA:
        if pa.types.is_list(field.type):
            columns.append(pa.array([[]] * len(times), field.type))
        else:
            values = special.get(field.name, np.full(len(times), price if field.type == pa.float64() else 1))
            columns.append(pa.array(values).cast(field.type))
    return pa.table(columns, schema=TICK_SCHEMA)


def clock(client: Any, minute: int, second: int = 0) -> None:
    publish_clock(client, to_ms(at(DAY, minute)) + second * 1000, 0.0)


def bars(client: Any) -> list[dict[str, str]]:
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(keys.BARS)]


def minutes(client: Any) -> list[tuple[list[Bar], bool]]:
    """The Arrow entries: their bars, and whether each holds a whole frame."""
    entries = client.xrange(keys.MINUTES)
    return [(bars_of(fields, Origin("", id_.decode())), fields[b"complete"] == b"1") for id_, fields in entries]


def test_the_arrow_entries_hold_the_same_bars_a_frame_each_then_what_came_late(
    publisher: Publisher, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN, OPEN + 4)))
    clock(redis_client, OPEN + 3, 5)
    publisher.step()
    clickhouse.insert_arrow("ticks", ticks(range(OPEN + 1, OPEN + 2), second=40, shares=30))
    publisher._next_revision = 0.0
    publisher.step()
    whole, late = [b for b, complete in minutes(redis_client) if complete], minutes(redis_client)[-1]
    assert [{b.frame for b in frame} for frame in whole] == [
        {frame} for frame in minute_frames(DAY)[1 : len(whole) + 1]
    ]
    assert [len(frame) for frame in whole] == [len(SYMBOLS)] * len(whole)
    assert not late[1]
    assert {b.revision for b in late[0]} == {1}
    single = [parse_bar(fields, Origin("", "")) for _, fields in redis_client.xrange(keys.BARS)]
    together = [b for frame, _ in minutes(redis_client) for b in frame]
    assert together == single
    assert [b.origin.seq for b in together] == list(range(len(single)))


def stamps(client: Any) -> list[tuple[str, str, int]]:
    return [(b["frame"][11:16], b["symbol"], int(b["revision"])) for b in bars(client)]


@pytest.fixture
def publisher(settings: Settings, redis_client: Any, clickhouse: Any) -> Publisher:
    return Publisher(settings, redis_client)


def test_a_frame_is_published_when_it_has_closed_and_once(
    publisher: Publisher, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN, OPEN + 2), second=0))  # 09:30:00 and 09:31:00: not past by 1 s
    clock(redis_client, OPEN + 1, 0)
    publisher.step()
    clickhouse.insert_arrow("ticks", ticks(range(OPEN + 1, OPEN + 2), second=2))
    clock(redis_client, OPEN + 1, 2)
    publisher.step()
    assert publisher.step() == 0
    assert [s for s in stamps(redis_client) if s[0] == "09:31"] == [("09:31", symbol, 0) for symbol in SYMBOLS]
    assert len(set(stamps(redis_client))) == len(stamps(redis_client))
    bar = bars(redis_client)[-1]
    assert set(bar) == {
        *("symbol", "frame", "open", "high", "low", "close", "vol", "amount"),
        *("timestamp", "quality_score", "source", "revision", "seq"),
    }
    assert bar["frame"] == "2025-06-05 09:31:00"
    assert int(bar["timestamp"]) == to_ms(at(DAY, OPEN + 1)) // 1000
    assert (float(bar["close"]), int(bar["vol"])) == (10.0, 200)
    assert redis_client.xrevrange(keys.BARS, count=1)[0][0].decode().split("-")[0] == str(to_ms(at(DAY, OPEN + 1)))


def test_restarts_neither_repeat_nor_skip_a_minute(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    begin = OPEN - 1
    for minute in (3, 4, 11, 30):  # a new process each time; some minutes closed while none was there
        clickhouse.insert_arrow("ticks", ticks(range(begin, OPEN + minute + 1)))
        begin = OPEN + minute + 1
        clock(redis_client, OPEN + minute, 5)
        Publisher(settings, redis_client).step()
        assert stamps(redis_client)[-1][0] == f"{at(DAY, OPEN + minute):%H:%M}"
    seen = stamps(redis_client)
    assert len(seen) == len(set(seen))
    frames = sorted({frame for frame, _, revision in seen if revision == 0})
    assert frames == sorted({f"{f:%H:%M}" for f in minute_frames(DAY)[: len(frames)]})
    assert frames[-1] == "10:00"


def test_a_late_tick_publishes_its_bar_again_as_a_revision(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN, OPEN + 5)))
    clock(redis_client, OPEN + 4, 5)
    Publisher(settings, redis_client).step()
    before = len(stamps(redis_client))
    late = ticks(range(OPEN + 2, OPEN + 3), second=50, price=12.0, shares=50).slice(0, 1)
    clickhouse.insert_arrow("ticks", late)
    clickhouse.insert_arrow("ticks", ticks(range(OPEN + 5, OPEN + 6)))
    clock(redis_client, OPEN + 5, 5)
    publisher = Publisher(settings, redis_client)  # a new process: it knows the earlier values from the stream
    assert publisher.step() == len(SYMBOLS), "the new bars alone go first"
    wait_until(lambda: publisher.step() > 0, 5, "the look at late ticks")
    fresh = stamps(redis_client)[before:]
    assert ("09:33", SYMBOLS[0], 1) in fresh
    assert {(f, s) for f, s, r in fresh if r == 0} == {("09:35", s) for s in SYMBOLS}
    assert all(s == SYMBOLS[0] for _, s, r in fresh if r)
    [revised] = [b for b in bars(redis_client)[before:] if b["frame"].endswith("09:33:00")]
    assert (float(revised["high"]), float(revised["close"])) == (12.0, 12.0)


def test_the_ends_of_the_sessions_close_by_the_clock(publisher: Publisher, redis_client: Any, clickhouse: Any) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clock(redis_client, 690, 20)
    publisher.step()
    assert stamps(redis_client)[-1][0] == "11:29"
    clock(redis_client, 690, 31)
    publisher.step()
    assert stamps(redis_client)[-1][0] == "11:30"
    assert len(stamps(redis_client)) == 121 * len(SYMBOLS)


def test_a_bar_of_the_close_waits_for_its_symbols_auction(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    """The first symbols past 15:00 close the minute for all: most bars would go out flat, and again seconds later."""
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clickhouse.insert_arrow("ticks", ticks(range(780, 897)))
    clock(redis_client, 899)
    Publisher(settings, redis_client).step()
    before = len(stamps(redis_client))
    clickhouse.insert_arrow("ticks", ticks(range(900, 901), second=2, price=11.0).slice(0, 1))
    clickhouse.insert_arrow("ticks", ticks(range(900, 901), second=0, shares=-400).slice(1, 2))  # the last price again
    clock(redis_client, 900, 2)
    publisher = Publisher(settings, redis_client)
    publisher.step()
    assert [s for s in stamps(redis_client) if s[0] == "15:00"] == [("15:00", SYMBOLS[0], 0)]
    assert publisher.numbers()["waiting"] == 2
    clickhouse.insert_arrow("ticks", ticks(range(900, 901), second=4, price=12.0).slice(1, 1))
    clock(redis_client, 900, 5)
    publisher = Publisher(settings, redis_client)  # a new process: the stream tells it what is still to come
    assert publisher.step() == 1
    assert (bars(redis_client)[-1]["symbol"], float(bars(redis_client)[-1]["close"])) == (SYMBOLS[1], 12.0)
    clock(redis_client, 900, 10)  # nobody traded: it goes as it is
    wait_until(lambda: publisher.step() == 1, 10, "the last bar")
    assert [s for s in stamps(redis_client)[before:] if s[0] == "15:00"] == [("15:00", s, 0) for s in SYMBOLS]
    assert publisher.numbers()["waiting"] == 0


def test_a_bar_of_1130_waits_for_its_symbols_last_snapshot(
    publisher: Publisher, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clickhouse.insert_arrow("ticks", ticks(range(690, 691), second=1).slice(2, 1))
    clock(redis_client, 690, 1)
    publisher.step()
    assert [s for s in stamps(redis_client) if s[0] == "11:30"] == [("11:30", SYMBOLS[2], 0)]
    clickhouse.insert_arrow("ticks", ticks(range(690, 691), second=3).slice(0, 2))
    clock(redis_client, 690, 3)
    wait_until(lambda: publisher.step() == 2, 10, "the others")
    assert {s[2] for s in stamps(redis_client) if s[0] == "11:30"} == {0}


def test_it_goes_on_when_clickhouse_has_lost_the_day(publisher: Publisher, redis_client: Any, clickhouse: Any) -> None:
    """A warehouse made from scratch beside an old Redis once ended every publisher with an IndexError."""
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clock(redis_client, 690, 31)
    assert publisher.step() == 121 * len(SYMBOLS)
    clickhouse.command("TRUNCATE TABLE ticks")
    clock(redis_client, 905, 31)
    assert publisher.step() == 0
    assert int(redis_client.hget(keys.PUBLISHED, DAY.isoformat())) == to_ms(at(DAY, 690))


def test_it_looks_closely_only_when_a_minute_can_close(
    publisher: Publisher, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN, OPEN + 2)))
    pauses = []
    for minute, second in ((OPEN + 1, 20), (OPEN + 2, 0), (OPEN + 2, 1), (OPEN + 2, 20)):
        clock(redis_client, minute, second)
        publisher.step()
        pauses.append(publisher.pause_seconds())
    assert pauses == [0.5, 0.15, 0.01, 0.15]


def test_a_frame_goes_out_once_whoever_sends_it_and_its_numbers_tell_the_lag(redis_client: Any) -> None:
    frames = [to_ms(at(DAY, OPEN + m)) for m in range(3)]

    def send(before: int, frame: int) -> bool:
        rows = [(frame // 1000, f"{i:06}.SZ", 1.0, 1.0, 1.0, 1.0, 100, 100.0, "live", 1.0) for i in range(1500)]
        fresh = [(row, bar_stream.values_of(row), 0) for row in rows]
        return bar_stream.send(redis_client, DAY, before, frame, fresh, frame)

    assert [send(0, frames[0]), send(0, frames[0]), send(frames[0], frames[1])] == [True, False, True]
    redis_client.xgroup_create(keys.BARS, "late", "0")
    assert len(redis_client.xreadgroup("late", "me", {keys.BARS: ">"}, count=5)[0][1]) == 5
    lag = group_lag(redis_client, keys.BARS, "late")
    assert (lag.entries, lag.at_least, lag.pending) == (2995, False, 5)
    redis_client.delete(keys.BARS)  # trimmed to nothing: the numbers go on
    assert send(frames[1], frames[2])
    assert redis_client.xrange(keys.BARS, count=1)[0][1][b"seq"] == b"3000"


def test_a_counter_that_is_no_number_is_replaced_by_what_the_stream_says(redis_client: Any) -> None:
    row = (to_ms(at(DAY, OPEN)) // 1000, "000001.SZ", 1.0, 1.0, 1.0, 1.0, 100, 100.0, "live", 1.0)
    bar = (row, bar_stream.values_of(row), 0)

    def newest() -> bytes | None:
        assert bar_stream.send(redis_client, DAY, 0, row[0] * 1000, [bar], 0)
        seq: bytes | None = redis_client.xrevrange(keys.BARS, count=1)[0][1].get(b"seq")
        return seq

    assert newest() == b"0"
    redis_client.set(keys.BARS_SEQ, "abc")
    assert newest() == b"1"
    redis_client.delete(keys.BARS_SEQ)
    redis_client.hset(keys.BARS_SEQ, "a", 1)
    redis_client.xadd(keys.BARS, {"seq": "nan"})
    assert newest() == b"2"


def test_a_day_left_unfinished_is_finished_before_the_next_begins(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clock(redis_client, OPEN + 10, 5)
    publisher = Publisher(settings, redis_client)
    publisher.step()
    clickhouse.insert_arrow("ticks", ticks(range(780, 902)))
    publish_clock(redis_client, to_ms(at(date(2025, 6, 6), 600)), 0.0)
    publisher.step()
    seen = stamps(redis_client)
    assert len(seen) == len(set(seen)) == 241 * len(SYMBOLS)
    assert publisher.step() == 0


def test_late_ticks_of_the_last_frame_are_published_after_the_close(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN - 1, 690)))
    clickhouse.insert_arrow("ticks", ticks(range(780, 901)))
    clock(redis_client, 900, 10)
    Publisher(settings, redis_client).step()
    before = len(stamps(redis_client))
    clickhouse.insert_arrow("ticks", ticks(range(900, 901), second=4, price=11.0, shares=900).slice(1, 1))
    clock(redis_client, 901)
    publisher = Publisher(settings, redis_client)
    assert publisher.step() == 1  # the closing call came late: nobody waits for the end of the day
    assert stamps(redis_client)[before:] == [("15:00", SYMBOLS[1], 1)]
    clickhouse.insert_arrow("ticks", ticks(range(900, 901), second=5, price=12.0, shares=950).slice(2, 1))
    clock(redis_client, 905, 31)
    assert publisher.step() == 1
    assert stamps(redis_client)[-1] == ("15:00", SYMBOLS[2], 1)
    assert float(bars(redis_client)[-1]["close"]) == 12.0
    assert Publisher(settings, redis_client).step() == 0  # the day is done, also for the next process
    assert int(redis_client.hget(keys.PUBLISHED, DAY.isoformat())) == to_ms(at(DAY, 905))


def test_it_beats_while_clickhouse_does_not_answer(settings: Settings, redis_client: Any) -> None:
    """A query of several seconds once made the agent kill a publisher that was only waiting, again and again."""
    stop = threading.Event()
    key = keys.HEARTBEAT.format(host=settings.host, service="publisher")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, never answers
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        one = threading.Thread(
            target=publisher_module.run,
            args=(settings.model_copy(update={"clickhouse_url": url}), stop),
            daemon=True,
        )
        one.start()
        line, _ = deaf.accept()
        with line:
            wait_until(lambda: float(redis_client.hget(key, "step_seconds") or 0) >= 2, 30, "beats in a long step")
            stop.set()
    one.join(30)
    assert not one.is_alive()
    assert redis_client.hget(key, "state") == b"stopped"


def test_forming_bars_are_streamed_when_asked_for(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    clickhouse.insert_arrow("ticks", ticks(range(OPEN, OPEN + 2)))
    clock(redis_client, OPEN + 1, 10)
    Publisher(settings.model_copy(update={"publish_forming": True}), redis_client).step()
    forming = [fields[b"frame"][-8:] for _, fields in redis_client.xrange(keys.BARS_FORMING)]
    assert forming == [b"09:32:00"] * len(SYMBOLS)


def test_a_day_without_ticks_publishes_nothing(publisher: Publisher, redis_client: Any, clickhouse: Any) -> None:
    clock(redis_client, 900, 60)
    assert publisher.step() == 0
    assert redis_client.exists(keys.BARS, keys.PUBLISHED) == 0
