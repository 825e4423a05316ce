"""What comes from QMT through the gateway: history that repairs and backfills, sectors, instruments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from threading import Event, Thread
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from qmt_orchestration.client.api import members
from qmt_orchestration.client.errors import UnknownSector
from qmt_orchestration.definitions import build_defs
from qmt_orchestration.feed.gateway import INSTRUMENT_SCHEMA
from qmt_orchestration.market import calendar
from qmt_orchestration.orchestration.backfill import FROM_WHAT_THERE_IS, instance_of, materialize_days
from qmt_orchestration.quality import names
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.stream.rpc_server import RpcServer
from qmt_orchestration.warehouse.client import connect as connect_warehouse
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY, FRAMES, SYMBOLS

#: Three minutes of one symbol: more than the 0.5 % at which the reconciliation warns.
DIFFERENT = "symbol = '600000.SH' AND formatDateTime(frame, '%H:%i') IN ('10:30', '10:31', '10:32')"


#: What the gateway says of each instrument.
INSTRUMENT = {
    "kind": "stock",
    "exchange": "SZ",
    "lot_size": 100,
    "price_tick": 0.01,
    "decimals": 2,
    "open_date": date(1991, 4, 3),
    "float_volume": 19_405_918_198.0,
    "suspended_days": 0,
    "source": "xtquant",
    "kind_doubt": "",
}


@contextmanager
def gateway(settings: Settings) -> Iterator[None]:
    """A gateway that answers as the one beside QMT does, from the ticks' own truth."""

    def history(call: Any) -> pa.Table:
        params = call.params
        client = connect_warehouse(settings)
        table = client.query_arrow(
            "SELECT toString(symbol) AS symbol, frame, open, high, low, close, vol, amount FROM "
            + f"truth_{params['period']}"
            + " WHERE symbol IN {symbols:Array(String)} AND toDate(frame) = toDate({start:String})",
            parameters={"symbols": params["symbols"], "start": params["start"]},
        )
        return table

    def instruments(call: Any) -> pa.Table:
        boards = {"平安银行": "sz_main", "宁德时代": "chinext", "浦发银行": "sh_main"}
        known = INSTRUMENT | {"pre_close": 10.0, "up_stop": 11.0, "down_stop": 9.0, "suspended": 0, "listed": 1}
        rows = [
            dict.fromkeys(INSTRUMENT_SCHEMA.names)
            | known
            | {"day": DAY, "symbol": symbol, "name": name, "board": board}
            for symbol, (name, board) in zip(SYMBOLS, boards.items(), strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=INSTRUMENT_SCHEMA)

    stop = Event()
    client = connect(settings)
    heartbeat = Heartbeat(client, settings, "gateway")
    heartbeat.beat({})

    def beat() -> None:
        while not stop.wait(1):
            heartbeat.beat({})

    def sector_members(call: Any) -> pa.Table:
        later = call.params["day"] > str(DAY)
        members = {"沪深300": ["000001.SZ", "300750.SZ" if later else "600000.SH"], "上证50": ["600000.SH"]}
        rows = [(s, symbol) for s in call.params["sectors"] for symbol in members.get(s, [None])]
        names, symbols = zip(*rows, strict=True)
        return pa.table({"sector": pa.array(names), "symbol": pa.array(symbols, pa.string())})

    handlers = {"history": history, "instruments": instruments, "sector_members": sector_members}
    server = RpcServer(client, settings, handlers)
    threads = [Thread(target=beat), Thread(target=server.serve, args=(stop,))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
        heartbeat.stop()


def keep_truth(client: Any) -> None:
    """What QMT will answer: the bars of the day as they are now."""
    for period in ("1m", "1d"):
        client.command(f"CREATE TABLE truth_{period} ENGINE = MergeTree ORDER BY symbol AS SELECT * FROM bars_{period}")


def test_history_repairs_a_gap_marks_it_and_the_verdict_says_so(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    market.insert_instruments(clickhouse)
    market.insert_ticks(clickhouse)
    market.make_bars(clickhouse)
    keep_truth(clickhouse)
    clickhouse.command(
        f"ALTER TABLE truth_1m UPDATE vol = vol + 5000, close = close + 1 WHERE {DIFFERENT} SETTINGS mutations_sync = 1"
    )
    mine = f"SELECT * FROM bars_1m WHERE {DIFFERENT} ORDER BY frame"
    ours = clickhouse.query(mine).result_rows
    clickhouse.command("DELETE FROM ticks WHERE symbol = '000001.SZ'")
    for table in ("bars_1m", "bars_5m", "bars_30m", "bars_1d"):
        clickhouse.command(f"DELETE FROM {table} WHERE symbol = '000001.SZ'")
    with gateway(settings):
        outcome = materialize_days(settings, [DAY], job="reconcile_day")
    assert outcome["failed_runs"] == 0, outcome["errors"]
    assert outcome["bars"]["1m"] == FRAMES
    sources = clickhouse.query(
        "SELECT symbol, groupUniqArray(toString(source)) FROM bars_1m GROUP BY symbol"
    ).result_rows
    assert {r[0]: "history" in r[1] for r in sources} == {s: s == "000001.SZ" for s in SYMBOLS}
    failed = {c["check"]: c for c in outcome["checks"]["failed"]}
    assert "filled from QMT" in failed[names.QMT_ROWS]["found"]
    assert clickhouse.query(mine).result_rows == ours, "never overwritten"
    for check in (names.QMT_VOLUME, names.QMT_OHLC):
        assert failed[check]["found"].startswith("3 of 478 minutes differ"), failed[check]
    kept = "SELECT evidence FROM quality_results WHERE check = 'qmt_volume_matches'"
    assert "600000.SH" in clickhouse.query(kept).first_row[0]


def test_a_backfill_takes_ticks_where_they_are_and_else_qmts_history(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """Two days, one with ticks; a list of instruments from after both."""
    before = calendar.previous_trading_day(DAY)
    market.insert_ticks(clickhouse)
    market.make_bars(clickhouse)
    keep_truth(clickhouse)
    for period in ("1m", "1d"):
        clickhouse.command(
            f"ALTER TABLE truth_{period} UPDATE frame = frame - 86400 WHERE 1 SETTINGS mutations_sync = 1"
        )
    told: list[str] = []
    with gateway(settings):
        outcome = materialize_days(settings, [before, DAY], told.append, job=FROM_WHAT_THERE_IS)
    assert outcome["errors"] == []
    assert outcome["sources"] == {str(before): "QMT history", str(DAY): "ticks"}
    assert outcome["bars"]["1m"] == 2 * FRAMES
    assert told[0] == f"making {before}, 1 of 2 days"
    assert "s left" in told[1]
    source = "SELECT DISTINCT source FROM {t} WHERE toDate(frame) = toDate('" + str(before) + "')"
    for table in ("bars_1m", "bars_1d"):
        assert clickhouse.query(source.format(t=table)).result_rows == [("history",)]
    without = materialize_days(settings, [before], job=FROM_WHAT_THERE_IS)
    assert without["sources"] == {str(before): "QMT history"}, "what was fetched once is still there"
    assert without["bars"]["1m"] == FRAMES


def test_a_backfill_without_ticks_and_gateway_fails_and_says_what_to_do(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    outcome = materialize_days(settings, [DAY], job=FROM_WHAT_THERE_IS)
    assert outcome["failed_runs"] == 1
    assert "no gateway is alive" in outcome["errors"][0]["error"]


def test_without_a_gateway_the_days_own_bars_are_made_all_the_same(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """end_of_day needs no QMT; reconcile_day does and says what is missing."""
    market.insert_ticks(clickhouse)
    assert materialize_days(settings, [DAY], job="end_of_day")["failed_runs"] == 0
    outcome = materialize_days(settings, [DAY], job="reconcile_day")
    assert outcome["failed_runs"] == 1
    assert "gateway" in outcome["errors"][0]["error"]


def test_who_was_in_a_sector_on_a_day_is_kept_and_changes_are_named(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """Also when a day is fetched again with fewer members; a sector that QMT does not know is named."""
    chosen = settings.model_copy(update={"member_sectors": ("沪深300", "上证50", "半导体")})
    following = calendar.next_trading_day(DAY)
    stale = [[DAY, "沪深300", "300750.SZ"], [DAY, "半导体", "600000.SH"]]
    clickhouse.insert("sector_members", stale, column_names=["day", "sector", "symbol"])
    defs, found = build_defs(settings=chosen), {}
    with gateway(chosen), instance_of(chosen) as instance:
        for day in (DAY, following):
            result = defs.resolve_job_def("before_open").execute_in_process(
                instance=instance, partition_key=str(day), asset_selection=[dg.AssetKey("sector_members")]
            )
            (event,) = result.get_asset_materialization_events()
            found[day] = event.materialization.metadata
    assert (found[DAY]["joined"].value, found[DAY]["left"].value) == (0, 0), "the first day has no changes"
    assert (found[following]["joined"].value, found[following]["left"].value) == (1, 1)
    assert found[following]["empty_sectors"].value == "半导体"
    changed = {r.data["sector"]: r.data for r in found[following]["changes"].records}["沪深300"]
    assert (changed["joined"], changed["left"], changed["since"]) == ("300750.SZ", "600000.SH", str(DAY))
    assert members("沪深300", DAY, settings=chosen) == ["000001.SZ", "600000.SH"]
    assert members("沪深300", settings=chosen) == ["000001.SZ", "300750.SZ"]
    assert members("半导体", settings=chosen) == ["600000.SH"], "what was known stays"
    with pytest.raises(UnknownSector, match=f"stored from {DAY} on"):
        members("上证50", date(2025, 6, 4), settings=chosen)


def test_the_instruments_of_the_day_come_from_the_gateway(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    defs = build_defs(settings=settings)
    with gateway(settings), instance_of(settings) as instance:
        result = defs.resolve_job_def("before_open").execute_in_process(
            instance=instance, partition_key=str(DAY), asset_selection=[dg.AssetKey("instruments")]
        )
    assert result.success
    found = clickhouse.query(
        "SELECT symbol, name FROM instruments WHERE day = '2025-06-05' ORDER BY symbol"
    ).result_rows
    assert tuple(found[0]) == ("000001.SZ", "平安银行")
    columns = [*INSTRUMENT, "expire_date", "issued_volume"]
    stored = clickhouse.query(f"SELECT {', '.join(columns)} FROM instruments WHERE symbol = '000001.SZ'").first_row
    assert dict(zip(columns, stored, strict=True)) == {**INSTRUMENT, "expire_date": None, "issued_volume": None}
    passed = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    expected = (names.COUNT_AGAINST_YESTERDAY, names.LIMITS_KNOWN, names.CALENDAR_HORIZON, names.KINDS_AGREE)
    assert passed == dict.fromkeys(expected, True)
