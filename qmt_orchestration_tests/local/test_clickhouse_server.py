"""The embedded ClickHouse by its two protocols: clickhouse-connect, and HTTP by hand (as curl speaks it)."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from qmt_orchestration.settings import Settings

SHANGHAI = ZoneInfo("Asia/Shanghai")
TIME = datetime(2025, 6, 5, 10, 30, tzinfo=SHANGHAI)


@pytest.fixture
def http_line(settings: Settings) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", int(settings.clickhouse_url.rsplit(":", 1)[1]), timeout=30)
    connection.key = settings.engine_password("clickhouse")  # type: ignore[attr-defined]
    yield connection
    connection.close()


def ask(
    line: http.client.HTTPConnection, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    given = {"X_ClickHouse_Key": line.key, **headers}  # type: ignore[attr-defined]
    line.request(method, target, body or None, {name.replace("_", "-"): value for name, value in given.items()})
    reply = line.getresponse()
    return reply.status, reply.read(), reply.headers


@pytest.fixture
def ticks(raw_clickhouse):
    raw_clickhouse.command(
        "CREATE TABLE ticks (symbol LowCardinality(String), frame DateTime('Asia/Shanghai'), "
        "time DateTime64(3, 'Asia/Shanghai'), price Nullable(Float64)) ENGINE = MergeTree ORDER BY (symbol, time) "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    return raw_clickhouse


def rows(count: int = 3) -> pa.Table:
    return pa.table(
        {
            "symbol": [f"{n:06d}.SZ" for n in range(count)],
            "frame": pa.array([TIME] * count, pa.timestamp("s", "Asia/Shanghai")),
            "time": pa.array([TIME] * count, pa.timestamp("ms", "Asia/Shanghai")),
            "price": pa.array([float(n) for n in range(count)]),
        }
    )


def test_every_way_in_and_out_of_the_ordinary_client_agrees(ticks):
    row = ["000001.SZ", TIME, TIME, None]
    assert ticks.insert("ticks", [row], column_names=["symbol", "frame", "time", "price"]).written_rows == 1
    assert ticks.insert_arrow("ticks", rows()).written_rows == 3
    assert ticks.raw_insert("ticks", ["symbol", "price"], "x,1.5\ny,\\N\n", fmt="CSV").written_rows == 2
    assert ticks.command("SELECT count() FROM ticks") == 6
    copied = ticks.command("INSERT INTO ticks SELECT * FROM ticks WHERE symbol = 'x'")
    assert copied.written_rows == 1
    found = ticks.query("SELECT symbol, frame, time, price FROM ticks WHERE price IS NULL AND symbol != 'y'")
    assert found.result_rows == [("000001.SZ", TIME, TIME, None)]
    assert ticks.query_arrow("SELECT symbol FROM ticks WHERE price = 2").column("symbol").to_pylist() == ["000002.SZ"]
    with ticks.query_rows_stream("SELECT symbol FROM ticks") as stream:
        assert len(list(stream)) == 7
    assert ticks.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'


@pytest.mark.parametrize("streaming", [False, True])
def test_times_keep_the_zone_of_their_column(ticks, streaming):
    """Without a protocol version the engine names the type DateTime; readers would fall back on a guess."""
    ticks.insert_arrow("ticks", rows(1))
    ticks.command("CREATE VIEW both AS SELECT symbol, frame, toDateTime(frame, 'UTC') AS utc FROM ticks")
    if streaming:
        with ticks.query_rows_stream("SELECT * FROM both") as stream:
            ((_, frame, utc),) = list(stream)
        with ticks.query_df_stream("SELECT frame FROM both") as frames:
            (frame_table,) = list(frames)
    else:
        ((_, frame, utc),) = ticks.query("SELECT * FROM both").result_rows
        frame_table = ticks.query_df("SELECT frame FROM both")
    assert (frame, frame.tzinfo) == (TIME, SHANGHAI)
    assert utc == datetime(2025, 6, 5, 2, 30)  # noqa: DTZ001 - the client gives UTC columns without a zone
    assert str(frame_table["frame"].dtype).endswith("Asia/Shanghai]")


def test_the_servers_clock_is_shanghais_and_final_is_the_default(raw_clickhouse):
    wall = datetime.now(SHANGHAI).replace(tzinfo=None)
    zone, now, final = raw_clickhouse.query("SELECT timezone(), toString(now()), getSetting('final')").first_row
    assert zone == "Asia/Shanghai"
    assert abs(datetime.fromisoformat(now) - wall) < timedelta(minutes=5), "no hours apart"
    assert final is True
    raw_clickhouse.command("CREATE TABLE r (k Int8, v Int8) ENGINE = ReplacingMergeTree(v) ORDER BY k")
    raw_clickhouse.command("INSERT INTO r VALUES (1, 1)")
    raw_clickhouse.command("INSERT INTO r VALUES (1, 2)")
    assert raw_clickhouse.query("SELECT k, v FROM r").result_rows == [(1, 2)]
    assert raw_clickhouse.query("SELECT v FROM r", settings={"final": 0}).row_count == 2


def test_parameters_are_the_servers_work_also_when_they_are_long(ticks):
    ticks.insert_arrow("ticks", rows())
    query = "SELECT count() FROM ticks WHERE symbol IN {symbols:Array(String)} AND toDate(time) = {day:Date}"
    long = {"symbols": [f"{n:06d}.SZ" for n in range(5000)], "day": TIME.date()}
    assert ticks.query(query, parameters={"symbols": ["000001.SZ", "it's"], "day": TIME.date()}).first_row == (1,)
    assert ticks.query(query, parameters=long).first_row == (3,)


def test_a_repeated_token_changes_nothing(ticks):
    for token in ("a", "a", "b"):
        ticks.insert_arrow("ticks", rows(), settings={"insert_deduplication_token": token, "insert_deduplicate": 1})
    assert ticks.command("SELECT count() FROM ticks") == 6


def test_settings_end_with_their_request(raw_clickhouse):
    limited = {"max_result_rows": "5", "result_overflow_mode": "throw"}
    with pytest.raises(DatabaseError, match="TOO_MANY_ROWS_OR_BYTES") as told:
        raw_clickhouse.query("SELECT number FROM numbers(100)", settings=limited)
    assert told.value.code == 396
    assert raw_clickhouse.query("SELECT number FROM numbers(100)").row_count == 100


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELECT nope", 47, 404),
        ("SELEC 1", 62, 400),
        ("SELECT * FROM system.nowhere", 60, 404),
        ("SELECT throwIf(1)", 395, 500),
    ],
)
def test_a_failure_has_its_code_and_affects_no_other_request(raw_clickhouse, http_line, query, code, status):
    with pytest.raises(DatabaseError) as told:
        raw_clickhouse.query(query)
    assert told.value.code == code
    found, body, headers = ask(http_line, "POST", "/", query.encode())
    assert (found, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert body.startswith(b"Code: %d. DB::Exception:" % code)
    assert ask(http_line, "POST", "/", b"SELECT 1")[1] == b"1\n"


def test_a_failure_in_the_middle_of_a_stream_reaches_the_reader(raw_clickhouse):
    query = "SELECT throwIf(number = 900000) FROM numbers(1000000)"
    with (
        pytest.raises(StreamFailureError, match="throwIf"),
        raw_clickhouse.query_rows_stream(query, settings={"max_block_size": 10000, "max_threads": 1}) as stream,
    ):
        list(stream)
    assert raw_clickhouse.command("SELECT 1") == 1


def test_a_bad_row_leaves_nothing_of_its_insert(ticks, http_line):
    target = f"/?database={ticks.database}"
    status, body, _ = ask(http_line, "POST", target, b"INSERT INTO ticks (symbol, price) FORMAT CSV\na,1\nb,what\n")
    assert status == 400
    assert b"(at row 2)" in body
    assert ticks.command("SELECT count() FROM ticks") == 0


def test_the_body_may_be_the_query_or_its_data(ticks, http_line):
    target = f"/?database={ticks.database}"
    assert (
        ask(http_line, "POST", target, b"INSERT INTO ticks (symbol, price) VALUES ('FORMAT', 1), ('SELECT', 2)")[0]
        == 200
    )
    by_url = f"{target}&query={quote('INSERT INTO ticks (symbol, price) FORMAT TabSeparated')}"
    status, _, headers = ask(http_line, "POST", by_url, b"x\t3\ny\t4\n")
    assert status == 200
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    packed = gzip.compress(b"z\t5\n")
    assert ask(http_line, "POST", by_url, packed, Content_Encoding="gzip")[0] == 200
    arrow = pa.BufferOutputStream()
    with pa.ipc.new_stream(arrow, rows(1).schema) as writer:
        writer.write_table(rows(1))
    statement = b"/* FORMAT */ insert into ticks settings max_insert_threads=1 format ArrowStream\n"
    assert ask(http_line, "POST", target, statement + arrow.getvalue().to_pybytes())[0] == 200
    status, body, headers = ask(http_line, "GET", f"{target}&query={quote('SELECT symbol FROM ticks ORDER BY price')}")
    assert body.split() == [b"000000.SZ", b"FORMAT", b"SELECT", b"x", b"y", b"z"]
    assert headers["X-ClickHouse-Format"] == "TabSeparated"


def test_get_reads_only(ticks, http_line):
    for query in ("DROP TABLE ticks", "INSERT INTO ticks (symbol) VALUES ('a')"):
        status, body, _ = ask(http_line, "GET", f"/?database={ticks.database}&query={quote(query)}")
        assert status == 403
        assert b"READONLY" in body
    assert ticks.command("SELECT count() FROM ticks") == 0


@pytest.mark.parametrize("format_name", ["TabSeparated", "CSV", "JSONEachRow", "Native", "CSVWithNames"])
@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("SHOW TABLES", b"ticks"),
        ("DESCRIBE TABLE ticks", b"symbol"),
        ("SHOW CREATE TABLE ticks", b"CREATE TABLE"),
        ("EXISTS TABLE ticks", b""),
        ("EXPLAIN SELECT count() FROM ticks", b""),
    ],
)
def test_what_reads_but_is_no_select_answers_in_every_format(ticks, http_line, statement, word, format_name):
    target = f"/?database={ticks.database}&default_format={format_name}&query={quote(statement)}"
    status, body, _ = ask(http_line, "GET", target)
    assert status == 200, body
    assert body
    assert word in body


def test_what_only_the_transport_knows_does_not_disturb(http_line):
    target = (
        "/?session_id=a&session_timeout=9&wait_end_of_query=1&client_protocol_version=54405&query_id=mine&buffer_size=1"
        "&send_progress_in_http_headers=1&http_headers_progress_interval_ms=10&enable_http_compression=1"
    )
    status, body, headers = ask(http_line, "POST", target, b"SELECT 1", Accept_Encoding="gzip, lz4")
    assert (status, body, headers["X-ClickHouse-Query-Id"]) == (200, b"1\n", "mine")
    assert ask(http_line, "GET", "/ping")[:2] == (200, b"Ok.\n")
    assert ask(http_line, "POST", "/?no_such_setting=1", b"SELECT 1")[0] == 404
    assert ask(http_line, "POST", "/", b"SELECT 1; SELECT 2")[0] == 400


def test_a_web_page_cannot_reach_it(http_line):
    assert ask(http_line, "POST", "/", b"SELECT 1", Origin="https://example.com")[0] == 403
    assert ask(http_line, "POST", "/", b"SELECT 1", Host="example.com")[0] == 403


def test_a_body_too_large_is_refused_before_it_is_read(http_line):
    http_line.putrequest("POST", "/")
    http_line.putheader("Content-Length", str(2 << 30))
    http_line.endheaders()
    reply = http_line.getresponse()
    assert reply.status == 413
    assert b"smaller blocks" in reply.read()


def test_many_at_once(ticks, http_line):
    """More clients than engine handles: each gets its own answer."""
    import clickhouse_connect

    port = int(ticks.url.rsplit(":", 1)[1])
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            with clickhouse_connect.get_client(
                host="127.0.0.1",
                port=port,
                password=http_line.key,
                database=ticks.database,
                autogenerate_session_id=False,
            ) as client:
                for turn in range(5):
                    client.insert_arrow("ticks", rows(10), settings={"insert_deduplication_token": f"{number}/{turn}"})
                    if client.command("SELECT {n:Int64}", {"n": number}) != number:
                        wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert ticks.command("SELECT count() FROM ticks") == 16 * 5 * 10
