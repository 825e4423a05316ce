"""Whole days through Dagster: made, made again, from history, with their report; night work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import pytest

from qmt_orchestration.client.api import members
from qmt_orchestration.client.errors import UnknownSector
from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import at
from qmt_orchestration.orchestration.backfill import FROM_WHAT_THERE_IS, instance_of, materialize_days
from qmt_orchestration.quality import names
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY, SYMBOLS

FRAMES = 241 * len(SYMBOLS)
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


def rows(client: Any, table: str) -> list[tuple[Any, ...]]:
    """A table of bars without versions, in order."""
    found = client.query(f"SELECT * EXCEPT version FROM {table} ORDER BY symbol, frame").result_rows
    return [tuple(r) for r in found]


def test_a_day_is_made_with_all_its_periods_and_checks(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    market.insert_instruments(clickhouse)
    market.insert_ticks(clickhouse)
    told: list[str] = []
    outcome = materialize_days(settings, [DAY], told.append)
    assert outcome["failed_runs"] == 0, outcome["errors"]
    assert outcome["bars"] == {"1m": FRAMES, "5m": 48 * 3, "15m": 16 * 3, "30m": 8 * 3, "60m": 4 * 3, "1d": 3}
    assert [f"{c['asset']}/{c['check']}" for c in outcome["checks"]["failed"]] in ([], ["ticks/storage"])
    assert outcome["checks"]["passed"] > 20
    assert told == ["making 2025-06-05, 1 of 1 days"]


def test_the_live_day_made_by_hand_is_judged_as_far_as_it_has_come(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """Before the open, in the first minute, in mid-session, at lunch, in the closing call: no false alarm."""
    import pyarrow.compute as pc

    from qmt_orchestration.stream.clock import publish_clock

    market.insert_instruments(clickhouse)
    table, done = market.ticks(), at(DAY, 0)
    moments = [(9, 20, 0), (9, 31, 40), (10, 3, 20), (12, 15, 0), (14, 58, 30)]
    for hour, minute, second in moments:
        now = at(DAY, hour * 60 + minute) + timedelta(seconds=second)
        part = table.filter(pc.and_(pc.greater_equal(table["time"], done), pc.less(table["time"], now)))
        market.insert_ticks(clickhouse, part)
        publish_clock(redis_client, int(now.timestamp() * 1000), 0.0)
        outcome, done = materialize_days(settings, [DAY]), now
        assert outcome["failed_runs"] == 0, outcome["errors"]
        failed = [f"{c['asset']}/{c['check']}: {c['found']}" for c in outcome["checks"]["failed"]]
        if hour == 9 and minute == 20:
            failed = [f for f in failed if not f.startswith("ticks/rows_present")]  # there are none yet: true
        assert [f for f in failed if not f.startswith("ticks/storage")] == [], f"at {now:%H:%M:%S}"
        assert clickhouse.query("SELECT count() FROM bars_1d").first_row == (0,), "no daily bar of a day that goes on"


def test_dagsters_pages_know_the_day_afterwards(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    market.insert_ticks(clickhouse)
    outcome = materialize_days(settings, [DAY])
    with instance_of(settings) as instance:
        assert instance.get_run_by_id(outcome["runs"][0]).status == dg.DagsterRunStatus.SUCCESS
        for asset, count in (("bars_1m", FRAMES), ("bars_5m", 144), ("bars_1d", 3)):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {"2025-06-05"}
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event.asset_materialization.metadata["dagster/partition_row_count"].value == count
        event = instance.get_latest_materialization_event(dg.AssetKey("bars_1m"))
        assert event.asset_materialization.metadata["source"].value == "ticks"


def test_making_a_day_again_changes_nothing(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    market.insert_ticks(clickhouse)
    materialize_days(settings, [DAY])
    before = {t: rows(clickhouse, t) for t in ("bars_1m", "bars_5m", "bars_30m", "bars_1d")}
    materialize_days(settings, [DAY])
    assert {t: rows(clickhouse, t) for t in before} == before


def test_a_holiday_is_refused_before_anything_is_made(settings: Settings) -> None:
    with pytest.raises(ValueError, match="2025-10-01 is no partition"):
        materialize_days(settings, [DAY, date(2025, 10, 1)])
    assert not (settings.data_dir / "dagster").exists()


def test_a_failed_day_is_reported_and_the_others_are_made(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    following = calendar.next_trading_day(DAY)
    market.insert_ticks(clickhouse)
    market.insert_ticks(clickhouse, market.ticks(following))
    clickhouse.command("ALTER TABLE bars_1d ADD CONSTRAINT no_such_day CHECK toDate(frame) != '2025-06-05'")
    outcome = materialize_days(settings, [DAY, following])
    assert outcome["failed_runs"] == 1
    (error,) = outcome["errors"]
    assert error["day"] == "2025-06-05"
    assert "no_such_day" in error["error"]
    assert outcome["bars"]["1d"] == 3, "the day after is made"


def test_a_range_in_one_run_skips_holidays_and_tells_each_day(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """The run that a backfill of the assets starts: one for the whole range, with holidays inside it."""
    days = [date(2025, 5, 30), date(2025, 6, 3)]  # a weekend and the dragon boat festival lie between
    for day in days:
        market.insert_ticks(clickhouse, market.ticks(day, SYMBOLS[:1]))
    job = build_defs(settings=settings).resolve_job_def("make_day")
    with instance_of(settings) as instance:
        span = {
            "dagster/asset_partition_range_start": str(days[0]),
            "dagster/asset_partition_range_end": str(days[1]),
        }
        result = job.execute_in_process(instance=instance, tags=span)
        events = [e.event_specific_data for e in result.all_events if e.event_type_value == "ASSET_MATERIALIZATION"]
        made = {
            m.materialization.partition: m.materialization.metadata["dagster/partition_row_count"].value
            for m in events
            if m.materialization.asset_key == dg.AssetKey("bars_1m")
        }
    assert made == {"2025-05-30": 241, "2025-06-03": 241}
    checked = clickhouse.query("SELECT DISTINCT day FROM quality_results ORDER BY day").result_rows
    assert [r[0] for r in checked] == days


def test_further_periods_are_one_setting_away(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    """2m, 120m, weeks and months: assets, checks and the minute run know them without new code."""
    from qmt_orchestration.orchestration.jobs import minute_assets
    from qmt_orchestration.warehouse.migrate import migrate

    chosen = settings.model_copy(update={"rollup_periods": ("2m", "120m", "1w", "1mo")})
    migrate(chosen)
    market.insert_ticks(clickhouse)
    outcome = materialize_days(chosen, [DAY])
    assert outcome["errors"] == []
    per_symbol = {"1m": 241, "2m": 120, "5m": 48, "30m": 8, "120m": 2, "1d": 1, "1w": 1, "1mo": 1}
    assert outcome["bars"] == {period: 3 * count for period, count in per_symbol.items()}
    assert [f"{c['asset']}/{c['check']}" for c in outcome["checks"]["failed"]] in ([], ["ticks/storage"])
    checked = clickhouse.query("SELECT DISTINCT asset FROM quality_results WHERE check = 'volume_adds_up'").result_rows
    assert {row[0] for row in checked} == {"bars_2m", "bars_5m", "bars_30m", "bars_120m", "bars_1d"}
    assert minute_assets(chosen) == ("bars_1m", "bars_2m", "bars_5m", "bars_30m", "bars_120m")
    jobs = build_defs(settings=chosen).get_repository_def()
    assert dg.AssetKey("bars_120m") in jobs.get_job("finalize_minutes").asset_layer.executable_asset_keys


def test_a_recording_that_ends_inside_a_window_loses_none_of_it(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    """A day that is over will get no further minute: its last 5m and 30m bars hold what there is."""
    import pyarrow.compute as pc

    table = market.ticks()
    market.insert_ticks(clickhouse, table.filter(pc.less(table["time"], at(DAY, 632))))  # the last tick is of 10:31:xx
    outcome = materialize_days(settings, [DAY])
    sums = [clickhouse.query(f"SELECT sum(vol) FROM bars_{p}").first_row[0] for p in ("1m", "5m", "30m", "1d")]
    assert sums[0] > 0
    assert sums == [sums[0]] * 4
    failed = {(c["asset"], c["check"]) for c in outcome["checks"]["failed"]}
    assert ("bars_1m", names.NO_MISSING_FRAMES) in failed, "half a day is not a whole one"
    assert not {check for _, check in failed} & {names.VOLUME_ADDS_UP, names.ROWS_PRESENT}


@contextmanager
def gateway(settings: Settings) -> Iterator[None]:
    """A gateway that answers as the one beside QMT does, from the ticks' own truth."""
    import pyarrow as pa

    from qmt_orchestration.feed.gateway import INSTRUMENT_SCHEMA
    from qmt_orchestration.stream.connection import connect
    from qmt_orchestration.stream.heartbeat import Heartbeat
    from qmt_orchestration.stream.rpc_server import RpcServer
    from qmt_orchestration.warehouse.client import connect as connect_warehouse

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
    """Two days, one with ticks; a list of instruments from after both; again, it finds the same."""
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
        for _ in range(2):
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


def test_the_report_of_a_day_counts_its_failures_and_links_to_the_console(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    market.insert_ticks(clickhouse)
    materialize_days(settings, [DAY])
    clickhouse.command(
        "ALTER TABLE bars_1m UPDATE low = high + 1 WHERE symbol = '600000.SH'", settings={"mutations_sync": 1}
    )
    client_checks(settings, clickhouse)
    report = make_report(settings)
    assert report["report"].value == f"{settings.console_url}/report?day=2025-06-05"
    assert 0 < report["failed_with_error"].value <= report["failed"].value < report["checks"].value


def client_checks(settings: Settings, client: Any) -> None:
    """Judge the minutes of the day again."""
    from qmt_orchestration.orchestration.checks.evaluate import Window, record, run_checks
    from qmt_orchestration.quality.names import checks_of

    record(client, run_checks(checks_of("bars_1m"), client, settings, Window.whole(DAY)), "again")


def make_report(settings: Settings) -> Mapping[str, Any]:
    """Materialize the report; its metadata."""
    defs = build_defs(settings=settings)
    with instance_of(settings) as instance:
        result = defs.resolve_job_def("end_of_day").execute_in_process(
            instance=instance, partition_key=str(DAY), asset_selection=[dg.AssetKey("quality_report")]
        )
    (event,) = result.asset_materializations_for_node("quality_report")
    return event.metadata


def test_the_night_deletes_old_minute_runs_only(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    from datetime import datetime, timezone

    import sqlalchemy as db
    from dagster._core.storage.runs.schema import RunsTable

    defs = build_defs(settings=settings)
    with instance_of(settings) as instance:
        made = {
            (name, age): instance.create_run_for_job(
                defs.resolve_job_def(name), status=dg.DagsterRunStatus.SUCCESS
            ).run_id
            for name in ("finalize_minutes", "make_day")
            for age in ("old", "new")
        }
        for run_id in made.values():
            instance.report_engine_event("something", instance.get_run_by_id(run_id))
            with instance.compute_log_manager.capture_logs([run_id, "compute_logs", "abc"]):
                pass
        long_ago = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(days=10)
        with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            for (_, age), run_id in made.items():
                if age == "old":
                    connection.execute(
                        db.update(RunsTable).where(RunsTable.c.run_id == run_id).values(create_timestamp=long_ago)
                    )
        result = defs.resolve_job_def("night").execute_in_process(instance=instance)
        left = {key for key, run_id in made.items() if instance.has_run(run_id)}
        files = {key for key, run_id in made.items() if list(Path(instance.root_directory).rglob(f"*{run_id}*"))}
    assert result.output_for_node("purge_minute_runs") == 1
    assert left == {("finalize_minutes", "new"), ("make_day", "old"), ("make_day", "new")}
    assert files == left, "neither the run's events nor its output stay on the disk"


def test_the_night_merges_closed_days(settings: Settings, clickhouse: Any, redis_client: Any) -> None:
    from qmt_orchestration.stream.clock import publish_clock

    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[:1]))
    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[1:]))
    publish_clock(redis_client, int(at(calendar.next_trading_day(DAY), 0).timestamp() * 1000), 0.0)
    with instance_of(settings) as instance:
        assert build_defs(settings=settings).resolve_job_def("night").execute_in_process(instance=instance).success
    parts = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'ticks'"
    assert clickhouse.query(parts).first_row[0] == 1


def test_a_service_is_controlled_from_the_ui(settings: Settings, redis_client: Any) -> None:
    from qmt_orchestration.services.desired import read_desired

    job = build_defs(settings=settings).resolve_job_def("services_control")

    def launch(action: str) -> None:
        config = {"ops": {"control_service": {"config": {"service": "subscriber", "action": action}}}}
        assert job.execute_in_process(run_config=config).success

    launch("stop")
    assert read_desired(redis_client)["subscriber"].state == "stopped"
    launch("restart")
    assert read_desired(redis_client)["subscriber"].state == "running"
    assert read_desired(redis_client)["subscriber"].generation == 1
    with pytest.raises(Exception, match="subscriber, gateway, writer"):
        job.execute_in_process(
            run_config={"ops": {"control_service": {"config": {"service": "subscribr", "action": "stop"}}}}
        )
