"""What the writer takes, what it refuses with its reason, and how it forms its inserts."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.market.schema import TICK_SCHEMA, TICK_SCHEMA_V1
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters
from qmt_orchestration.stream.batch import Batch, encode
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.groups import Entry
from qmt_orchestration.warehouse import writer
from qmt_orchestration.warehouse.ingest.checks import refused_rows
from qmt_orchestration.warehouse.ingest.commit import LaneCounters
from qmt_orchestration.warehouse.ingest.entries import Part
from qmt_orchestration.warehouse.ingest.insert import Inserter, Stopping
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.stream.ticks import START_MS, publish, tick_table
from qmt_orchestration_tests.warehouse.test_writer import STREAM, account, running, settled, stored

DAY_MS = 86_400_000
CLOCKS = np.array([START_MS + 1000]), np.array([START_MS + 1000])  # of the market and of the wall


def with_values(table: pa.Table, **columns: dict[int, Any]) -> pa.Table:
    """*table* with the values of ``{row: value}`` in place of its own."""
    for name, values in columns.items():
        old = table.column(name).to_pylist()
        for row, value in values.items():
            old[row] = value
        kind = TICK_SCHEMA.field(name).type
        array = pa.array(old, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array(old, kind)
        table = table.set_column(TICK_SCHEMA.get_field_index(name), TICK_SCHEMA.field(name), array)
    return table


def add(redis_client: Any, table: pa.Table, seq: int) -> None:
    fields: Any = Batch("host-test-1", seq, table, START_MS + seq).fields()
    redis_client.xadd(STREAM, fields)


#: what is wrong with row 1, and a word of the reason
WRONG: list[tuple[str, Any, str]] = [
    ("symbol", "600000.SH\n", "symbol"),
    ("symbol", "６０００００.SH", "symbol"),
    ("symbol", "x" * 100_000 + ".SH", "symbol"),
    ("symbol", "", "symbol"),
    ("lastPrice", float("nan"), "lastPrice"),
    ("open", float("inf"), "open"),
    ("high", -1.0, "high"),
    ("amount", float("-inf"), "amount"),
    ("volume", -1, "volume"),
    ("pvolume", -(2**63), "pvolume"),
    ("total_volume", 2**37, "total_volume"),
    ("transactionNum", -1, "transactionNum"),
    ("askPrice", [1.0] * 11, "askPrice"),
    ("bidPrice", [1.0, float("nan")], "bidPrice"),
    ("askVol", [-5], "askVol"),
    ("quality_score", 1.5, "quality_score"),
]


@pytest.mark.parametrize(("column", "value", "word"), WRONG, ids=[f"{c}-{v!r:.12}" for c, v, _ in WRONG])
def test_one_wrong_row_is_found_and_named(column: str, value: Any, word: str) -> None:
    table = with_values(tick_table(4), **{column: {1: value}})
    wrong, reasons = refused_rows(table, *CLOCKS)
    assert wrong.tolist() == [False, True, False, False]
    assert [reason.split(" ")[2] for reason in reasons] == [word]


@pytest.mark.parametrize("column", ["time", "received_at"])
@pytest.mark.parametrize("ms", [0, -1, -(2**62), 631_123_199_999, START_MS + DAY_MS, 2**62])
def test_times_lie_between_1990_and_the_clock(column: str, ms: int) -> None:
    table = tick_table(3)
    values = table.column(column).cast(pa.int64()).to_pylist()
    table = with_values(table, **{column: {**dict(enumerate(values)), 1: ms}})
    assert refused_rows(table, *CLOCKS)[0].tolist() == [False, True, False]


@given(
    prices=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
    counts=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    books=st.lists(st.lists(st.floats(), max_size=14), min_size=3, max_size=3),
)
def test_whatever_comes_each_row_is_judged_on_its_own(
    prices: list[float], counts: list[int], books: list[list[float]]
) -> None:
    changes = {"lastPrice": prices, "total_volume": counts, "askPrice": books}
    table = with_values(tick_table(3), **{name: dict(enumerate(values)) for name, values in changes.items()})
    together = refused_rows(table, *CLOCKS)[0].tolist()
    assert together == [bool(refused_rows(table.slice(i, 1), *CLOCKS)[0][0]) for i in range(3)]
    for refused, price, count, book in zip(together, prices, counts, books, strict=True):
        good = 0 <= price < float("inf") and 0 <= count < 2**37 and len(book) <= 10
        good = good and all(0 <= level < float("inf") for level in book)
        assert refused == (not good)


def test_right_rows_of_an_entry_are_stored_and_the_entry_goes_to_the_dead_letters_with_the_reason(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    add(redis_client, tick_table(200, seq=0), 0)
    wrong = tick_table(200, seq=1)
    values = wrong.column("time").cast(pa.int64()).to_pylist()
    tomorrow = {**dict(enumerate(values)), 7: int(time.time() * 1000) + DAY_MS}
    add(redis_client, with_values(wrong, lastPrice={3: float("nan")}, time=tomorrow), 1)
    add(redis_client, with_values(tick_table(2, seq=2), volume={0: -1, 1: -1}), 2)
    add(redis_client, tick_table(200, seq=3), 3)
    with running(settings) as lanes:
        settled(redis_client, clickhouse, 200 + 198 + 200)
        assert lanes[0].counters.refused_rows == 4
        assert writer.Heartbeats(lanes).numbers(redis_client)["refused_rows"] == 4
    errors = sorted(letter.error for letter in dead_letters.read(redis_client, STREAM))
    assert [error.partition(":")[0] for error in errors] == ["2 of 2 rows refused", "2 of 200 rows refused"]
    assert "1 × lastPrice negative or not finite" in errors[1]
    assert "1 × time before 1990 or ahead of the clock" in errors[1]
    assert account(redis_client).ranges == [[0, 3]], "nothing is lost: it is accounted for"
    # the reason is mended, and the letter replayed: what is stored already is not stored again
    dead_letters.replay(redis_client, STREAM)
    with running(settings):
        wait_until(lambda: len(dead_letters.read(redis_client, STREAM)) == 2, message="refused again")
        settled(redis_client, clickhouse, 200 + 198 + 200)


def test_of_entries_read_together_the_malformed_ones_alone_go_to_the_dead_letters(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    for seq in range(12):
        add(redis_client, tick_table(20, seq=seq), seq)
    add(redis_client, with_values(tick_table(20, seq=12), seq={3: 99}), 12)
    add(redis_client, tick_table(20, seq=14), 13)  # the field says 13, the rows 14
    other: Any = Batch("host-test-1", 14, tick_table(20, seq=14), START_MS + 14).fields()
    redis_client.xadd(STREAM, {**other, "rows": 21})
    with running(settings):
        settled(redis_client, clickhouse, 240)
        wait_until(lambda: len(dead_letters.read(redis_client, STREAM)) == 3, message="three are rejected")
    errors = sorted(letter.error for letter in dead_letters.read(redis_client, STREAM))
    assert [error[:28] for error in errors] == [
        "expected one session and seq", "field rows says '21', its ro", "field seq says '13', its row"
    ]  # fmt: skip


def test_a_damaged_entry_does_not_keep_those_read_with_it(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    for seq in range(4):
        add(redis_client, tick_table(20, seq=seq), seq)
        damaged: Any = Batch("host-test-1", 100 + seq, tick_table(20, seq=100 + seq), START_MS + seq).fields()
        redis_client.xadd(STREAM, {**damaged, "payload": damaged["payload"][: 200 + 300 * seq]})
    with running(settings):
        settled(redis_client, clickhouse, 80)
        wait_until(lambda: len(dead_letters.read(redis_client, STREAM)) == 4, message="four are rejected")


@pytest.mark.parametrize("inserted", [False, True], ids=["killed before the insert", "killed after it"])
def test_a_kill_around_a_split_insert_loses_and_doubles_nothing(
    redis_client: Any, clickhouse: Any, settings: Settings, inserted: bool
) -> None:
    """The next start refuses the same rows and forms the same insert."""
    add(redis_client, with_values(tick_table(200, seq=0), lastPrice={3: float("nan")}), 0)
    stop = threading.Event()
    first = writer.make_lanes(settings, stop)[0]

    class Killed(Exception):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    setattr(first.committer if inserted else first.inserter, "commit" if inserted else "insert", killed)
    first.run()
    assert isinstance(first.failure, Killed)
    assert stored(clickhouse)[1] == (199 if inserted else 0)
    assert dead_letters.streams(redis_client) == {}
    with running(settings):
        settled(redis_client, clickhouse, 199)
    assert dead_letters.streams(redis_client) == {STREAM: 1}


def test_a_simulated_markets_clock_is_the_bound_and_a_replays_days_are_behind_it(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    publish_clock(redis_client, START_MS - 3_600_000, 1.0)
    publish(redis_client, [0])  # of the simulated market: an hour ahead of its clock
    publish(redis_client, [0], session="host-replay-1")
    behind = tick_table(5, seq=1, start_ms=START_MS - 3_700_000)  # received by the wall clock
    add(redis_client, with_values(behind, received_at=dict.fromkeys(range(5), int(time.time() * 1000))), 1)
    with running(settings):
        settled(redis_client, clickhouse, 205)
    [letter] = dead_letters.read(redis_client, STREAM)
    assert "200 of 200 rows refused: 200 × time before 1990 or ahead of the clock" in letter.error
    found = clickhouse.query("SELECT session, count() FROM ticks GROUP BY session ORDER BY session").result_rows
    assert found == [("host-replay-1", 200), ("host-test-1", 5)]


def test_entries_of_the_previous_schema_are_stored_with_their_volume(
    redis_client: Any, clickhouse: Any, settings: Settings
) -> None:
    """From Redis, a spool or a feed not yet upgraded, alone and in one insert with entries of today."""
    for seq in range(4):
        table = tick_table(50, seq=seq)
        lots = pa.array(np.arange(50) + 50 * seq + 1, pa.int64())
        table = with_values(table, volume=dict(enumerate(lots.to_pylist())))
        table = with_values(table, pvolume={i: (i + 50 * seq + 1) * 100 for i in range(50)})
        table = with_values(table, total_volume={i: (i + 50 * seq + 1) * 100 for i in range(50)})
        add(redis_client, table.select(TICK_SCHEMA_V1.names) if seq in (1, 2) else table, seq)
    with running(settings) as lanes:
        settled(redis_client, clickhouse, 200)
        assert lanes[0].counters.inserts == 1
    assert clickhouse.query("SELECT count() FROM ticks WHERE total_volume != pvolume").first_row == (0,)
    assert dead_letters.streams(redis_client) == {}


# -- how many rows an insert has -------------------------------------------------------------------------------


@pytest.mark.parametrize(("chosen", "few"), [({}, True), ({"writer_few_rows": 0, "writer_gather_ms": 0}, False)])
def test_few_rows_wait_to_fill_a_batch(
    redis_client: Any, clickhouse: Any, settings: Settings, chosen: dict[str, int], few: bool
) -> None:
    with running(settings.model_copy(update=chosen)) as lanes:
        add(redis_client, tick_table(600, seq=0, start_ms=START_MS + 20_000), 0)  # it has begun
        settled(redis_client, clickhouse, 600)
        pause = threading.Event()
        for seq in range(200, 220):  # entries of 5 ticks, 20 ms apart
            add(redis_client, tick_table(5, seq=seq, start_ms=START_MS + 20_000), seq)
            pause.wait(0.02)
        settled(redis_client, clickhouse, 700)
        inserts = lanes[0].counters.inserts - 1
    assert inserts <= 2 if few else inserts > 4


def test_rows_that_can_close_a_minute_do_not_wait(redis_client: Any, clickhouse: Any, settings: Settings) -> None:
    """The tick a second past the minute's end closes it; its bars wait for that tick."""
    patient = settings.model_copy(update={"writer_few_rows_ms": 4000, "writer_few_rows": 100_000})
    with running(patient) as lanes:
        add(redis_client, tick_table(5, seq=0, start_ms=START_MS + 30_000), 0)
        settled(redis_client, clickhouse, 5)
        add(redis_client, tick_table(5, seq=1, start_ms=START_MS + 61_500), 1)
        began = time.monotonic()
        wait_until(lambda: lanes[0].counters.last_tick_ms > START_MS + 61_000, 10, "the closing tick is stored")
        assert time.monotonic() - began < 3.5, "sooner than rows that wait to fill a batch"


class Liar:
    """A server that reports success and fewer rows than it was sent, *times* times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.tokens: list[str] = []

    def raw_insert(self, table: str, columns: list[str], *, insert_block: bytes, settings: Any, fmt: str) -> Any:
        self.tokens.append(settings["insert_deduplication_token"])
        written = "0" if len(self.tokens) <= self.times else "200"

        return SimpleNamespace(summary={"written_rows": written})


def test_a_success_of_fewer_rows_is_an_outage_and_tried_again_with_the_same_token() -> None:
    table, stop, counters = tick_table(200), threading.Event(), LaneCounters()
    part = Part(Entry("1-1", {}), encode(table), table, "host-test-1", 0)
    server = Liar(2)
    Inserter(lambda: server, "ticks", TICK_SCHEMA, stop, counters).insert([part], "token")
    assert server.tokens == ["token"] * 3
    stop.set()
    with pytest.raises(Stopping):
        Inserter(lambda: Liar(9), "ticks", TICK_SCHEMA, stop, counters).insert([part], "token")
    assert counters.error == "ClickHouse: 200 rows sent, 0 written to ticks"
