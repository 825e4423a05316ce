"""One client at a time: where it begins, what it misses, what its handler does to it, what it is told."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from itertools import islice
from typing import Any

import pyarrow as pa
import pytest

from qmt_orchestration.client import (
    Bar,
    BarConsumer,
    ClientInUse,
    Evicted,
    LeaseLost,
    RetryLater,
    TickConsumer,
    by_board,
    by_hash,
    by_list,
    by_market,
    registry,
)
from qmt_orchestration.client.bar_consumer import RuleMismatch
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.batch import Batch
from qmt_orchestration_tests.client.market import FRAMES, SYMBOLS, bar, minute, publish, store
from qmt_orchestration_tests.helpers import free_port, wait_until


def drain(consumer: BarConsumer, count: int, *, seconds: float = 60.0) -> list[Bar]:
    """Read and acknowledge *count* bars, then make sure that no more come at once."""
    out: list[Bar] = []

    def enough() -> bool:
        items = consumer.read(0.2)
        consumer.ack(items)
        out.extend(items)
        return len(out) >= count

    wait_until(enough, seconds, f"{count} bars")
    out.extend(consumer.read(0.3))
    return out


def take(consumer: BarConsumer, count: int) -> list[Bar]:
    """Read *count* bars at least, acknowledging none."""
    out: list[Bar] = []
    wait_until(lambda: out.extend(consumer.read(0.2)) or len(out) >= count, 60, f"{count} bars")
    return out


def key(item: Bar) -> tuple[str, int]:
    return item.symbol, item.timestamp


def test_values_arrive_as_they_were_published(settings: Settings, redis_client: Any) -> None:
    sent = minute(FRAMES[0])
    publish(redis_client, sent)
    with BarConsumer("values", start="beginning", settings=settings) as consumer:
        assert drain(consumer, len(sent)) == sent


def test_a_closed_client_goes_on_where_it_acknowledged(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("resume", start="beginning", settings=settings, batch_bars=10) as consumer:
        first = take(consumer, 9)
        consumer.ack(first[:4])
    with BarConsumer("resume", start="beginning", settings=settings) as consumer:
        rest = drain(consumer, len(SYMBOLS) - 4)
    assert [b.symbol for b in first[:4] + rest] == SYMBOLS
    assert {b.origin.deliveries for b in rest[:5]} == {2}, "they were handed out before, and say so"


def test_start_now_at_a_time_and_at_the_beginning(settings: Settings, redis_client: Any) -> None:
    for frame in FRAMES[:5]:
        publish(redis_client, minute(frame))
    with (
        BarConsumer("now", start="now", settings=settings) as now,
        BarConsumer("then", start=FRAMES[3], settings=settings) as then,
        BarConsumer("all", start="beginning", settings=settings) as all_,
    ):
        publish(redis_client, minute(FRAMES[5]))
        assert {b.frame for b in drain(now, len(SYMBOLS))} == {FRAMES[5]}
        assert {b.frame for b in drain(then, 3 * len(SYMBOLS))} == set(FRAMES[3:6])
        assert {b.frame for b in drain(all_, 6 * len(SYMBOLS))} == set(FRAMES[:6])
    for wrong, said in (
        ({"start": "yesterday"}, "yesterday"),
        ({"mode": "all"}, "all"),
        ({"symbols": 600519}, "symbol"),
    ):
        with pytest.raises(ValueError, match=said):
            BarConsumer("wrong", settings=settings, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="aware"):
        BarConsumer("naive", start=FRAMES[0].replace(tzinfo=None), settings=settings)


def test_a_live_program_begins_now_and_gets_whole_minutes_then_what_came_late(
    settings: Settings, redis_client: Any
) -> None:
    publish(redis_client, minute(FRAMES[0]))
    late = bar(SYMBOLS[0], FRAMES[1], revision=1)
    with BarConsumer("minutes", settings=settings) as consumer:
        publish(redis_client, minute(FRAMES[1]))
        publish(redis_client, [late])
        publish(redis_client, minute(FRAMES[2]))
        minutes = list(islice(consumer.minutes(), 3))
    assert [(m.frame, m.complete, len(m.bars)) for m in minutes] == [
        (FRAMES[1], True, len(SYMBOLS)),
        (FRAMES[1], False, 1),
        (FRAMES[2], True, len(SYMBOLS)),
    ]
    assert minutes[1].bars == [late]
    with pytest.raises(ValueError, match="broadcast"):
        next(BarConsumer("part", mode="shard", settings=settings).minutes())


def test_a_broadcast_client_of_the_version_before_loses_nothing_and_moves_at_the_end_of_a_minute(
    settings: Settings, redis_client: Any
) -> None:
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("old", stream=keys.BARS, start="beginning", settings=settings) as before:  # an entry a bar
        held = take(before, len(SYMBOLS))
        before.ack(held[:2])
    publish(redis_client, minute(FRAMES[1]))
    with BarConsumer("old", settings=settings) as consumer:  # pending bars: it stays where they are
        expected = [*minute(FRAMES[0])[2:], *minute(FRAMES[1])]
        assert drain(consumer, len(expected)) == expected
    publish(redis_client, [bar(SYMBOLS[0], FRAMES[1], revision=1)])
    with BarConsumer("old", settings=settings) as consumer:  # in the middle of a minute it stays
        assert drain(consumer, 1) == [bar(SYMBOLS[0], FRAMES[1], revision=1)]
    with BarConsumer("old", settings=settings) as consumer:
        publish(redis_client, minute(FRAMES[2]))
        assert next(consumer.minutes()).complete
    assert [g["name"] for g in redis_client.xinfo_groups(keys.MINUTES)] == [b"minute_bar_consumers:old"]
    assert redis_client.xinfo_groups(keys.BARS) == []


def test_bars_acknowledged_out_of_order_come_again_rather_than_get_lost(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, [*minute(FRAMES[0]), *minute(FRAMES[1])])
    with BarConsumer("unordered", start="beginning", settings=settings) as consumer:
        held = take(consumer, 2 * len(SYMBOLS))
        consumer.ack(held[2:5])  # of the first minute, whose first bars are still in hand
        consumer.ack(held[len(SYMBOLS) : -1])  # the second, but its last bar
    with BarConsumer("unordered", settings=settings) as consumer:
        assert {key(b) for b in drain(consumer, 2 * len(SYMBOLS))} == {key(b) for b in held}


def test_only_the_symbols_asked_for(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("few", symbols="sz000001", start="beginning", settings=settings) as consumer:
        assert [b.symbol for b in drain(consumer, 1)] == ["000001.SZ"]
        assert consumer.counters.passed_over == len(SYMBOLS) - 1


def test_reading_waits_while_too_much_is_not_acknowledged(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer(
        "slow", stream=keys.BARS, start="beginning", settings=settings, batch_bars=10, max_in_flight=10
    ) as consumer:
        first = take(consumer, 10)
        assert len(first) < 20
        assert consumer.read(0.3) == []
        consumer.ack(first)
        assert consumer.read(2)


def test_away_beyond_retention_catches_up_from_clickhouse(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    for frame in FRAMES[:10]:
        publish(redis_client, minute(frame))
        store(clickhouse, minute(frame))
    with BarConsumer("away", catch_up=True, start="beginning", settings=settings, batch_bars=13) as consumer:
        before = drain(consumer, 10 * len(SYMBOLS))
    late = bar("300999.SZ", FRAMES[41])  # comes too late for its own frame, and is sent with a later one
    store(clickhouse, [late])
    for frame in FRAMES[10:60]:
        publish(redis_client, minute(frame))
        store(clickhouse, minute(frame))
        if frame == FRAMES[45]:
            publish(redis_client, [late])
    # retention ends between the two entries of a minute
    redis_client.xtrim(keys.MINUTES, minid=f"{int(FRAMES[45].timestamp()) * 1000}-1", approximate=False)
    publish(redis_client, minute(FRAMES[60]))
    store(clickhouse, minute(FRAMES[60]))
    with BarConsumer("away", catch_up=True, start="beginning", settings=settings) as consumer:
        after = drain(consumer, 51 * len(SYMBOLS) + 1, seconds=90)
        assert wait_until(lambda: registry.read_client(redis_client, "away").gaps == 1, 60)
    got = [key(b) for b in before + after]
    want = {key(b) for frame in FRAMES[:61] for b in minute(frame)} | {key(late)}
    assert len(got) == len(set(got)), f"{len(got) - len(set(got))} repeats"
    assert set(got) == want
    assert consumer.counters.caught_up == 36 * len(SYMBOLS)
    for symbol in SYMBOLS:
        frames = [b.frame for b in after if b.symbol == symbol]
        assert frames == sorted(frames)
    assert {key(b): b for b in after}[(SYMBOLS[0], int(FRAMES[20].timestamp()))] == bar(SYMBOLS[0], FRAMES[20])


def test_a_crash_while_catching_up_repeats_nothing_acknowledged(
    settings: Settings, redis_client: Any, clickhouse: Any
) -> None:
    for frame in FRAMES[:40]:
        publish(redis_client, minute(frame))
        store(clickhouse, minute(frame))
    redis_client.xtrim(keys.MINUTES, minid=f"{int(FRAMES[35].timestamp()) * 1000}-0", approximate=False)
    got: list[Bar] = []
    for _ in range(3):  # each run takes one part, acknowledges half of it and is gone
        with BarConsumer("crash", start=FRAMES[0], catch_up=True, settings=settings) as consumer:
            part = consumer.read(10)
            consumer.ack(part[: len(part) // 2])
            got += part[: len(part) // 2]
    with BarConsumer("crash", start=FRAMES[0], catch_up=True, settings=settings) as consumer:
        got += drain(consumer, 40 * len(SYMBOLS) - len(got), seconds=90)
    assert sorted(map(key, got)) == sorted(key(b) for frame in FRAMES[:40] for b in minute(frame))


def test_sharded_members_catch_up_together(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    with BarConsumer("s1", mode="shard", rule=by_market(), start="beginning", catch_up=True, settings=settings) as one:
        one.read(0.2)
    for frame in FRAMES[:20]:
        publish(redis_client, minute(frame))
        store(clickhouse, minute(frame))
    redis_client.hset(keys.PROGRESS.format(group="minute_bar_consumers:shared:SH"), "*base", 0)
    for market in ("SH", "SZ", "BJ", "other"):
        redis_client.hset(
            keys.PROGRESS.format(group=f"minute_bar_consumers:shared:{market}"),
            "*base",
            int(FRAMES[0].timestamp()) - 60,
        )
    redis_client.xtrim(keys.BARS, minid=f"{int(FRAMES[15].timestamp()) * 1000}-3", approximate=False)
    with BarConsumer("s1", mode="shard", rule=by_market(), start="beginning", catch_up=True, settings=settings) as one:
        got = drain(one, 20 * len(SYMBOLS), seconds=90)
    assert sorted(map(key, got)) == sorted(key(b) for frame in FRAMES[:20] for b in minute(frame))


def test_a_handler_that_fails_is_tried_again_then_the_bar_is_a_dead_letter(
    settings: Settings, redis_client: Any
) -> None:
    publish(redis_client, minute(FRAMES[0]))
    seen: list[str] = []

    with BarConsumer("handler", start="beginning", settings=settings) as consumer:

        def handle(item: Bar) -> None:
            seen.append(item.symbol)
            if item.symbol == SYMBOLS[3]:
                raise ZeroDivisionError("no such position")
            if item.symbol == SYMBOLS[5] and seen.count(SYMBOLS[5]) < 5:
                raise RetryLater("the broker is away")
            if item.symbol == SYMBOLS[-1]:
                consumer.stop()

        consumer.run(handle, attempts=3, pause_seconds=0.01)
        assert seen == [*SYMBOLS[:3], *[SYMBOLS[3]] * 3, SYMBOLS[4], *[SYMBOLS[5]] * 5, *SYMBOLS[6:]]
        assert (consumer.counters.errors, consumer.counters.dead) == (3, 1)
    letters = dead_letters.read(redis_client, keys.MINUTES)
    assert [(x.fields[b"symbol"].decode(), x.deliveries) for x in letters] == [(SYMBOLS[3], 3)]
    assert "no such position" in letters[0].error
    assert redis_client.xpending(keys.MINUTES, "minute_bar_consumers:handler")["pending"] == 0
    dead_letters.replay(redis_client, keys.MINUTES)
    with BarConsumer("handler", settings=settings) as consumer:
        assert drain(consumer, 1) == [bar(SYMBOLS[3], FRAMES[0])], "a letter comes back as the one bar it was"


def test_a_database_that_is_away_is_no_fault_of_the_bar(settings: Settings, redis_client: Any) -> None:
    """The errors of clickhouse-connect are no OSError: an outage of the user's store once made dead letters."""
    import clickhouse_connect

    publish(redis_client, minute(FRAMES[0])[:2])
    calls: list[str] = []
    with BarConsumer("store", start="beginning", settings=settings) as consumer:

        def handle(item: Bar) -> None:
            calls.append(item.symbol)
            if len(calls) <= 4:
                clickhouse_connect.get_client(host="127.0.0.1", port=free_port())
            if item.symbol == SYMBOLS[1]:
                consumer.stop()

        consumer.run(handle, attempts=2, pause_seconds=0.01)
        assert calls == [SYMBOLS[0]] * 5 + [SYMBOLS[1]]
        assert (consumer.counters.errors, consumer.counters.dead) == (0, 0)
        assert consumer.counters.last_error.startswith("outage: ")


def test_an_entry_that_is_no_bar_goes_to_the_dead_letters_and_the_rest_goes_on(
    settings: Settings, redis_client: Any
) -> None:
    redis_client.xadd(keys.MINUTES, {"symbol": "000001.SZ", "frame": "yesterday"}, id="1-0")
    redis_client.xadd(keys.MINUTES, {"what": "ever"}, id="1-1")
    redis_client.xadd(keys.MINUTES, {"payload": b"no arrow", "first": 0, "complete": 1}, id="1-2")
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("poison", start="beginning", settings=settings) as consumer:
        assert len(drain(consumer, len(SYMBOLS))) == len(SYMBOLS)
        assert consumer.counters.dead == 3
    assert len(dead_letters.read(redis_client, keys.MINUTES)) == 3


def test_one_client_id_runs_once(settings: Settings, redis_client: Any) -> None:
    with BarConsumer("twice", start="beginning", settings=settings), pytest.raises(ClientInUse, match="runs elsewhere"):
        BarConsumer("twice", start="beginning", settings=settings).open()


def test_stop_pauses_start_resumes_and_evict_ends(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    got: list[Bar] = []
    ended: list[BaseException] = []

    with BarConsumer("told", start="beginning", settings=settings) as consumer:

        def work() -> None:
            try:
                got.extend(iter(consumer))
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: len(got) == len(SYMBOLS), 60, "the first minute")
        registry.tell(redis_client, "told", "stop")
        wait_until(lambda: registry.read_client(redis_client, "told").state == "paused", 60, "it pauses")
        publish(redis_client, minute(FRAMES[1]))
        wait_until(lambda: registry.read_client(redis_client, "told").lag_entries == 1, 60, "it lags by a minute")
        assert len(got) == len(SYMBOLS)
        registry.tell(redis_client, "told", "run")
        wait_until(lambda: len(got) == 2 * len(SYMBOLS), 60, "it goes on")
        evicted = threading.Thread(target=registry.evict, args=(redis_client, "told"))
        evicted.start()
        thread.join(60)
        assert isinstance(ended[0], Evicted)
    evicted.join(60)
    assert redis_client.xinfo_groups(keys.MINUTES) == []
    assert [c.client_id for c in registry.list_clients(redis_client)] == []
    with pytest.raises(registry.NoSuchClient, match="no client 'told'"):
        registry.tell(redis_client, "told", "run")


def test_an_acknowledgement_after_the_shard_moved_is_refused(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    rule = by_hash(1)
    with BarConsumer("old", mode="shard", rule=rule, start="beginning", settings=settings) as old:
        items = take(old, len(SYMBOLS))
        redis_client.set(keys.SHARD_LEASE.format(group="shared", shard="0"), "another#1", px=60_000)
        with pytest.raises(LeaseLost, match="held by another"):
            old.ack(items)
        assert redis_client.xpending(keys.BARS, "minute_bar_consumers:shared:0")["pending"] == len(SYMBOLS)
        assert not old.holds(items[0])


def test_a_lease_lost_and_taken_again_gives_no_bar_twice(settings: Settings, redis_client: Any) -> None:
    """A renewal that came too late: the bars in the buffer and those read again are the same ones."""
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("late", mode="shard", rule=by_hash(1), start="beginning", settings=settings) as consumer:
        held = take(consumer, len(SYMBOLS))
        iterator = iter(consumer)
        consumer._lanes[0].lease._valid_until = 0.0  # as after five seconds without a renewal
        again = [next(iterator).symbol for _ in SYMBOLS]
        assert again == SYMBOLS
        assert not any(consumer.holds(b) for b in held)
        with pytest.raises(LeaseLost, match="no longer holds"):
            consumer.ack(held)


def test_members_of_a_group_must_agree_on_the_rule(settings: Settings, redis_client: Any) -> None:
    with (
        BarConsumer("m1", mode="shard", rule=by_hash(4), start="beginning", settings=settings),
        pytest.raises(RuleMismatch, match="hash:4"),
        BarConsumer("m2", mode="shard", rule=by_board(), start="beginning", settings=settings),
    ):
        pass


def test_rules_cut_the_market_as_they_say() -> None:
    assert by_market().of("830001.BJ") == "BJ"
    assert by_board().of("688001.SH") == "star"
    assert by_board().of("510300.SH") == "other"
    lists = by_list({"banks": ["000001.SZ"], "rest_of_banks": ["600000.SH"]})
    assert [lists.of(s) for s in ("000001.SZ", "600000.SH", "300001.SZ")] == ["banks", "rest_of_banks", "rest"]
    assert by_list({"banks": ["000001.SZ"]}, rest=None).of("300001.SZ") is None
    with pytest.raises(ValueError, match="name of a list"):
        by_list({"banks, big": ["000001.SZ"]})
    with pytest.raises(ValueError, match="two lists"):
        by_list({"a": ["000001.SZ"], "b": ["000001.SZ"]})
    assert {by_hash(4).of(s) for s in SYMBOLS} == {"0", "1", "2", "3"}


def test_async_iteration(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))

    async def collect() -> list[str]:
        out = []
        with BarConsumer("async", start="beginning", settings=settings) as consumer:
            async for item in consumer:
                out.append(item.symbol)
                if len(out) == len(SYMBOLS):
                    consumer.stop()
        return out

    assert asyncio.run(collect()) == SYMBOLS
    assert redis_client.xpending(keys.MINUTES, "minute_bar_consumers:async")["pending"] == 0


def test_async_batches_cancelled_in_the_middle_lose_nothing(settings: Settings, redis_client: Any) -> None:
    """A cancelled task once left its read running beside the next holder of the shards."""
    publish(redis_client, minute(FRAMES[0]))
    got: list[Bar] = []

    async def collect(frames: int) -> None:
        async with BarConsumer(
            "async", mode="shard", rule=by_hash(1), start="beginning", settings=settings, batch_bars=10
        ) as consumer:
            async for items in consumer.abatches():
                got.extend(items)
                if len({key(b) for b in got}) == frames * len(SYMBOLS):
                    consumer.stop()

    async def cancelled() -> None:
        task = asyncio.create_task(collect(3))
        while len(got) < len(SYMBOLS):
            await asyncio.sleep(0.01)
        publish(redis_client, minute(FRAMES[1]))  # a worker thread waits for it when the task is cancelled
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(cancelled(), 60))
    publish(redis_client, minute(FRAMES[2]))
    asyncio.run(asyncio.wait_for(collect(3), 60))
    assert {key(b) for b in got} == {key(b) for frame in FRAMES[:3] for b in minute(frame)}
    assert len(got) <= 3 * len(SYMBOLS) + 10, "only the batch in hand comes again"
    assert redis_client.xpending(keys.BARS, "minute_bar_consumers:shared:0")["pending"] == 0


def test_plain_groups_are_listed_too(settings: Settings, redis_client: Any) -> None:
    publish(redis_client, minute(FRAMES[0]))
    redis_client.xgroup_create(keys.BARS, "minute_bar_consumers:client_mac_001", "0")
    redis_client.xreadgroup("minute_bar_consumers:client_mac_001", "me", {keys.BARS: ">"}, count=5)
    (info,) = registry.list_clients(redis_client)
    assert (info.client_id, info.mode, info.state) == ("client_mac_001", "plain", "running")
    assert (info.pending, info.lag_entries) == (5, len(SYMBOLS) - 5)


def test_ticks_arrive_in_batches_and_holes_are_counted(settings: Settings, redis_client: Any) -> None:
    moment = FRAMES[5] - timedelta(seconds=90)
    row = dict.fromkeys(TICK_SCHEMA.names, 0) | {"symbol": "000001.SZ", "time": moment, "received_at": moment}
    row |= {"session": "s", "askPrice": [1.0], "bidPrice": [1.0], "askVol": [1], "bidVol": [1], "lastPrice": 11.39}
    with TickConsumer("ticks", settings=settings) as consumer:
        consumer.read(0.1)
        for seq in (0, 1, 3):
            batch = Batch("s", seq, pa.Table.from_pylist([row | {"seq": seq}], schema=TICK_SCHEMA), 1_000 + seq)
            redis_client.xadd(keys.ticks(0), batch.fields())
        redis_client.xadd(keys.ticks(0), {"payload": b"no arrow", "session": "s", "seq": 4, "sent_ms": 1})
        got = wait_until(lambda: consumer.read(1), 60)
        assert [(b.seq, b.table.num_rows) for b in got] == [(0, 1), (1, 1), (3, 1)]
        assert got[0].table.column("lastPrice").to_pylist() == [11.39]
        consumer.ack(got)
        assert (consumer.counters.gaps, consumer.counters.lost, consumer.counters.dead) == (1, 1, 1)


def test_the_library_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, qmt_orchestration.client as c; c.BarConsumer; print([m for m in HEAVY if m in sys.modules])"
    heavy = ["dagster", "xtquant", "pandas", "clickhouse_connect", "exchange_calendars"]
    code = f"HEAVY = {heavy!r}\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
