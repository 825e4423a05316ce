"""What the embedded ClickHouse answers is what its engine did, for each kind of statement, in success and in failure.

chDB's streaming insert reports no error that happens when the parts of an insert are written: 5,423 ticks were
acknowledged and never stored while a disk was full. So each of these inserts must raise, and what did not raise must be
there.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.helpers import free_port

TABLE = "CREATE TABLE t (a Int64, day UInt16) ENGINE = MergeTree ORDER BY a "


def arrow(values: list[int], days: list[int] | None = None, batches: int = 1) -> bytes:
    table = pa.table({"a": pa.array(values, pa.int64()), "day": pa.array(days or [1] * len(values), pa.uint16())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(len(values) // batches, 1))
    return bytes(sink.getvalue())


# -- inserts that fail when they are written -----------------------------------------------------------------


def violated_check(client: Any) -> bytes:
    client.command(TABLE.replace("UInt16)", "UInt16, CONSTRAINT positive CHECK a > 0)"))
    return arrow([1, 2, -3])


def too_many_parts(client: Any) -> bytes:
    client.command(f"{TABLE} SETTINGS parts_to_throw_insert = 2, parts_to_delay_insert = 1000")
    client.command("SYSTEM STOP MERGES t")
    for _ in range(2):
        client.command("INSERT INTO t VALUES (1, 1)")
    return arrow([7])


def too_many_partitions(client: Any) -> bytes:
    client.command(TABLE.replace("ORDER BY", "PARTITION BY day ORDER BY"))
    return arrow(list(range(200)), list(range(200)))


def throwing_view(client: Any) -> bytes:
    client.command(TABLE)
    client.command("CREATE TABLE seen (a Int64) ENGINE = MergeTree ORDER BY a")
    client.command("CREATE MATERIALIZED VIEW v TO seen AS SELECT a + throwIf(a = 7) AS a FROM t")
    return arrow([6, 7])


def throwing_column(client: Any) -> bytes:
    client.command(TABLE.replace("UInt16)", "UInt16, b Int64 MATERIALIZED a + throwIf(a = 7))"))
    return arrow([6, 7])


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (violated_check, 469),
        (too_many_parts, 252),
        (too_many_partitions, 252),
        (throwing_view, 395),
        (throwing_column, 395),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_an_insert_that_is_not_stored_is_not_acknowledged(
    raw_clickhouse: Any, prepare: Callable[..., bytes], code: int
):
    data = prepare(raw_clickhouse)
    before = raw_clickhouse.command("SELECT count() FROM t")
    with pytest.raises(DatabaseError) as told:
        raw_clickhouse.raw_insert("t", ["a", "day"], data, fmt="ArrowStream")
    assert told.value.code == code
    if prepare is not throwing_view:  # the table itself is written before its views
        assert raw_clickhouse.command("SELECT count() FROM t") == before


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk (root on Linux)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_everything_acknowledged_is_stored(tmp_path: Path):
    own = Settings(data_dir=tmp_path / "data", clickhouse_port=free_port())
    with tiny_disk(own.data_dir / "clickhouse"):
        engine = engines.start_clickhouse(own, 0)
        try:
            password = own.engine_password("clickhouse", engine.url)
            client = clickhouse_connect.get_client(host="127.0.0.1", port=engine.port, password=password)
            client.command("CREATE DATABASE d ENGINE = Atomic")
            client.command("CREATE TABLE d.t (a Int64, b String CODEC(NONE)) ENGINE = MergeTree ORDER BY a")
            acknowledged, refused = 0, set()
            for number in range(40):
                rows = pa.table({"a": [number] * 1000, "b": ["x" * 1000] * 1000})
                try:
                    client.insert_arrow("d.t", rows)
                    acknowledged += 1000
                except DatabaseError as error:
                    refused.add(error.code)
            assert refused == {243}, "NOT_ENOUGH_SPACE, and nothing else"
            assert acknowledged > 0
            assert client.command("SELECT count() FROM d.t") == acknowledged
            client.close()
        finally:
            engine.stop()


# -- each kind of statement ----------------------------------------------------------------------------------

COUNT, SUM = "SELECT count() FROM t", "SELECT sum(a) FROM t"
BIG = arrow(list(range(50_000)), batches=50)

#: statement, its data, HTTP status, rows said to be written (None: no matter), and what a query then finds
STATEMENTS: list[tuple[str, bytes, int, int | None, str, str]] = [
    ("SELECT 1", b"", 200, 0, COUNT, "3"),
    ("WITH 2 AS x SELECT x", b"", 200, 0, COUNT, "3"),
    ("INSERT INTO t VALUES (4, 1), (5, 1 + 1)", b"", 200, 2, COUNT, "5"),
    ("INSERT INTO t (a) VALUES", b"(4),(5),(6)", 200, 3, COUNT, "6"),
    ("INSERT INTO t VALUES ({x:Int64}, 1)", b"", 200, 1, "SELECT count() FROM t WHERE a = 77", "1"),
    ("INSERT INTO t VALUES (4, 1), ('x', 1)", b"", 400, None, COUNT, "3"),
    ("INSERT INTO t SELECT a + 10, day FROM t", b"", 200, 3, COUNT, "6"),
    ("INSERT INTO t SELECT throwIf(number = 1), 1 FROM numbers(3)", b"", 500, None, COUNT, "3"),
    ("INSERT INTO t FORMAT CSV", b"4,1\n5,1\n", 200, 2, SUM, "15"),
    ("INSERT INTO t FORMAT CSV", b"4,1\n5,x\n", 400, None, COUNT, "3"),
    ("INSERT INTO t FORMAT CSVWithNames", b"day,a\n9,4\n", 200, 1, "SELECT day FROM t WHERE a = 4", "9"),
    ("INSERT INTO t FORMAT TabSeparated", b"4\t1\n", 200, 1, COUNT, "4"),
    ("INSERT INTO t FORMAT JSONEachRow", b'{"a":4,"day":1}\n{"a":5}', 200, 2, COUNT, "5"),
    ("INSERT INTO t FORMAT RowBinary", b"\4" + bytes(7) + b"\1\0", 200, 1, SUM, "10"),
    ("INSERT INTO t FORMAT ArrowStream", arrow([4, 5]), 200, 2, SUM, "15"),
    ("INSERT INTO t FORMAT ArrowStream", arrow([4, 5])[:-40], 400, None, COUNT, "3"),
    ("INSERT INTO t FORMAT ArrowStream", BIG, 200, 50_000, COUNT, "50003"),
    ("INSERT INTO t SETTINGS max_insert_block_size = 1000 FORMAT ArrowStream", BIG, 200, 50_000, COUNT, "50003"),
    ("INSERT INTO t (* EXCEPT day) SETTINGS async_insert = 0 FORMAT CSV", b"4\n", 200, 1, COUNT, "4"),
    ("INSERT INTO t FORMAT CSV", b"", 200, 0, COUNT, "3"),
    ("INSERT INTO nowhere FORMAT CSV", b"1\n", 404, None, COUNT, "3"),
    ("INSERT INTO t SETTINGS no_such_setting = 1 FORMAT CSV", b"1,1\n", 404, None, COUNT, "3"),
    ("CREATE TABLE u (a Int8) ENGINE = MergeTree ORDER BY a", b"", 200, 0, "EXISTS TABLE u", "1"),
    ("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a", b"", 500, None, COUNT, "3"),
    ("ALTER TABLE t ADD COLUMN c Int8 DEFAULT 7", b"", 200, 0, "SELECT sum(c) FROM t", "21"),
    ("ALTER TABLE t DELETE WHERE a = 1 SETTINGS mutations_sync = 2", b"", 200, 0, COUNT, "2"),
    ("ALTER TABLE t DELETE WHERE throwIf(a = 1) SETTINGS mutations_sync = 2", b"", 500, None, COUNT, "3"),
    ("OPTIMIZE TABLE t FINAL", b"", 200, 0, COUNT, "3"),
    ("TRUNCATE TABLE t", b"", 200, 0, COUNT, "0"),
    ("DROP TABLE t", b"", 200, 0, "EXISTS TABLE t", "0"),
]


@pytest.mark.parametrize(
    ("statement", "data", "status", "written", "then", "found"),
    STATEMENTS,
    ids=[f"{number}-{row[0][:40]}-{row[2]}" for number, row in enumerate(STATEMENTS)],
)
def test_the_answer_is_what_the_engine_did(
    settings: Settings,
    raw_clickhouse: Any,
    statement: str,
    data: bytes,
    status: int,
    written: Any,
    then: str,
    found: str,
):
    raw_clickhouse.command(TABLE)
    raw_clickhouse.command("INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)")
    line = http.client.HTTPConnection("127.0.0.1", int(settings.clickhouse_url.rsplit(":", 1)[1]), timeout=30)
    about = {"database": settings.clickhouse_database, "query": statement, "param_x": "77"}
    key = {"X-ClickHouse-Key": settings.engine_password("clickhouse")}
    line.request("POST", f"/?{urlencode(about)}", data, key)
    reply = line.getresponse()
    text = reply.read()
    line.close()
    assert reply.status == status, text
    if status == 200 and written is not None:
        assert int(json.loads(reply.headers["X-ClickHouse-Summary"])["written_rows"]) == written
    assert str(raw_clickhouse.command(then)) == found


def test_a_repeated_token_holds_for_inserts_of_many_blocks(raw_clickhouse: Any):
    """A retry after a lost answer: the same rows, the same token, whatever blocks the engine cuts the data into."""
    raw_clickhouse.command(f"{TABLE} SETTINGS non_replicated_deduplication_window = 1000")
    for settings in ({}, {"min_insert_block_size_rows": 1000, "max_insert_block_size": 1000}):
        chosen = {"insert_deduplication_token": f"t{len(settings)}", "insert_deduplicate": 1, **settings}
        before = raw_clickhouse.command(COUNT)
        for _ in range(3):
            done = raw_clickhouse.raw_insert("t", ["a", "day"], BIG, settings=chosen, fmt="ArrowStream")
            assert done.written_rows == 50_000, "also a repeat reports what it was given"
        assert raw_clickhouse.command(COUNT) == before + 50_000
