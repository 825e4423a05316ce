"""The sensor of the minutes: what has closed is asked for at once, in one run, and again when it failed."""

from __future__ import annotations

import json
import re
import threading
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qmt_orchestration.market.schema import TZ
from qmt_orchestration.market.sessions import SHANGHAI, at, to_ms
from qmt_orchestration.orchestration.resources import build_resources
from qmt_orchestration.orchestration.sensors import minutes
from qmt_orchestration.orchestration.sensors.minutes import Cursor, window_end
from qmt_orchestration.quality import names
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.bench import Bench, set_clock, until
from qmt_orchestration_tests.orchestration.market import DAY


def test_a_closed_minute_asks_for_one_run_that_makes_it_final(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    until(clickhouse, at(DAY, 570 + 6) + timedelta(seconds=5))  # 09:36:05: 09:30 … 09:36 have closed
    set_clock(redis_client, at(DAY, 576) + timedelta(seconds=5))
    bench = Bench(settings, instance, "minutes")
    (request,) = bench.tick().run_requests
    assert request.partition_key == "2025-06-05"
    assert request.tags["qmt/frames"] == "09:30-09:36"
    result = bench.run(request)
    assert result.success
    frames = clickhouse.query("SELECT symbol, count() FROM bars_1m GROUP BY symbol ORDER BY symbol").result_rows
    assert [tuple(r) for r in frames] == [(s, 7) for s in market.SYMBOLS]
    wide = clickhouse.query("SELECT DISTINCT formatDateTime(frame, '%H:%i', 'Asia/Shanghai') FROM bars_5m").result_rows
    assert [r[0] for r in wide] == ["09:35"]
    evaluated = {e.check_name for e in result.get_asset_check_evaluations()}
    assert {names.ROWS_PRESENT, names.OHLC_CONSISTENT, names.VOLUME_ADDS_UP} <= evaluated
    of = {e.asset_key.to_user_string() for e in result.get_asset_check_evaluations()}
    assert of == {"bars_1m", "bars_5m"}, "no window of 30 minutes has closed at 09:36"
    assert all(e.passed for e in result.get_asset_check_evaluations())
    assert not evaluated & {names.QMT_VOLUME}, "the reconciliation is no part of a minute"
    quiet = bench.tick()
    assert not quiet.run_requests
    assert "no minute has closed" in quiet.skip_message


def test_a_bad_bar_stays_a_finding_after_the_next_minute(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """The verdict is on the day so far. One on the new minute alone would announce a recovery that never was."""
    market.insert_instruments(clickhouse)
    table, bench = market.ticks(), Bench(settings, instance, "minutes")

    def go_on(first: int, last: int) -> dict[str, bool]:
        end = at(DAY, last) + timedelta(seconds=5)
        part = pc.and_(pc.greater_equal(table["time"], at(DAY, first)), pc.less(table["time"], end))
        ticks = table.filter(part)  # stored a minute ago: no frame is computed again because its ticks have just come
        stored = pa.array([datetime.now(SHANGHAI) - timedelta(seconds=60)] * ticks.num_rows, pa.timestamp("us", TZ))
        market.insert_ticks(clickhouse, ticks.append_column("stored_at", stored))
        set_clock(redis_client, end)
        evaluated = bench.run(bench.tick().run_requests[0]).get_asset_check_evaluations()
        return {f"{e.asset_key.to_user_string()}/{e.check_name}": e.passed for e in evaluated}

    first = go_on(565, 576)
    assert first == dict.fromkeys(first, True)
    clickhouse.command(
        "ALTER TABLE bars_1m UPDATE high = 100 WHERE frame = '2025-06-05 09:35:00'", settings={"mutations_sync": 1}
    )
    later = go_on(576, 577)
    assert {n for n, passed in later.items() if not passed} == {f"bars_1m/{names.WITHIN_PRICE_LIMITS}"}
    at_the_window = go_on(577, 580)
    found = {n for n, passed in at_the_window.items() if not passed}
    assert found == {f"bars_1m/{names.WITHIN_PRICE_LIMITS}", f"bars_5m/{names.VOLUME_ADDS_UP}"}, "09:35 was rolled up"


def test_only_what_has_closed_is_selected(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """1m each minute; a rollup with its checks when a window ends, or when an earlier run has missed it."""
    table, bench = market.ticks(), Bench(settings, instance, "minutes")

    def ask(first: int, last: int) -> dg.RunRequest:
        part = pc.and_(
            pc.greater_equal(table["time"], at(DAY, first)),
            pc.less(table["time"], at(DAY, last) + timedelta(seconds=5)),
        )
        market.insert_ticks(clickhouse, table.filter(part))
        set_clock(redis_client, at(DAY, last) + timedelta(seconds=5))
        (request,) = bench.tick().run_requests
        assert {k.asset_key for k in request.asset_check_keys or []} == set(request.asset_selection or [])
        return request

    def made(request: dg.RunRequest) -> list[str]:
        return sorted(k.to_user_string() for k in request.asset_selection or [])

    first = ask(565, 578)
    assert made(first) == ["bars_1m", "bars_5m"]
    assert bench.run(first).success
    second = ask(579, 579)
    assert made(second) == ["bars_1m"]
    assert second.run_config == {"ops": {"bars_1m": {"config": {"first_frame": "09:39", "last_frame": "09:39"}}}}
    assert bench.run(second).success
    assert not bench.tick().run_requests, "what no window has closed is not waited for"
    third = ask(579, 600)
    assert made(third) == ["bars_15m", "bars_1m", "bars_30m", "bars_5m"]
    halfway = bench.defs.resolve_job_def("finalize_minutes").get_subset(asset_selection={dg.AssetKey("bars_1m")})
    frames = {"ops": {"bars_1m": third.run_config["ops"]["bars_1m"]}}
    assert halfway.execute_in_process(
        instance=instance, partition_key=third.partition_key, run_config=frames
    ).success  # the run died between the minutes and their rollups
    (repaired,) = bench.tick().run_requests
    assert made(repaired) == ["bars_15m", "bars_1m", "bars_30m", "bars_5m"]
    assert bench.run(repaired).success
    assert not bench.tick().run_requests


@pytest.mark.parametrize(
    ("frame", "period", "end"),
    [
        ("09:30", "5m", "09:35"),
        ("09:35", "5m", "09:35"),
        ("09:36", "5m", "09:40"),
        ("11:01", "30m", "11:30"),
        ("13:01", "30m", "13:30"),
        ("15:00", "30m", "15:00"),
        ("11:26", "7m", "11:29"),
        ("11:30", "7m", "13:06"),
        ("14:59", "7m", "15:00"),
    ],
)
def test_the_end_of_a_window_counts_trading_minutes(frame: str, period: str, end: str) -> None:
    """The last window of a day is cut short where its length does not divide the day."""

    def moment(text: str) -> datetime:
        return at(DAY, int(text[:2]) * 60 + int(text[3:]))

    assert window_end(moment(frame), period) == moment(end)


def test_a_minute_is_asked_for_the_moment_it_closes(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """The evaluation waits for the close, whichever it is that comes late: the clock or the ticks."""
    until(clickhouse, at(DAY, 576))
    set_clock(redis_client, at(DAY, 576))
    bench = Bench(settings, instance, "minutes")
    bench.run(bench.tick().run_requests[0])
    bench.until_nothing_is_late()
    publish_clock(redis_client, to_ms(at(DAY, 576)) - 1500, 1.0)
    table = market.ticks()
    late = pc.and_(
        pc.greater_equal(table["time"], at(DAY, 576)), pc.less(table["time"], at(DAY, 576) + timedelta(seconds=5))
    )
    came: list[float] = []

    def come() -> None:
        came.append(monotonic())
        market.insert_ticks(connect(settings), table.filter(late))

    arrives = threading.Timer(3.0, come)
    arrives.start()
    (request,) = bench.tick().run_requests
    took = monotonic() - came[0]
    arrives.join()
    assert request.tags["qmt/frames"] == "09:36-09:36"
    assert took < minutes.WAIT_SECONDS - 3.0, "asked for within moments of its last tick, by the same evaluation"


def test_what_is_not_due_is_not_waited_for(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """A minute is due in a minute; a late tick of an earlier one is noticed by the next evaluation all the same."""
    until(clickhouse, at(DAY, 576) + timedelta(seconds=5))
    publish_clock(redis_client, to_ms(at(DAY, 576)) + 5000, 1.0)
    bench = Bench(settings, instance, "minutes")
    bench.run(bench.tick().run_requests[0])
    bench.until_nothing_is_late()
    started = monotonic()
    result = bench.tick()
    assert monotonic() - started < minutes.WAIT_SECONDS, "less than the evaluation may wait"
    assert not result.run_requests
    assert re.search(r"09:37 is due in [56]\d s", result.skip_message)
    table = market.ticks()
    again = table.filter(pc.equal(table["time"], table["time"][0]))
    market.insert_ticks(clickhouse, again)
    assert bench.tick().run_requests


@pytest.mark.parametrize("away", [{"clickhouse_url": "http://127.0.0.1:1"}, {"redis_url": "redis://127.0.0.1:1/0"}])
def test_an_outage_ends_an_evaluation_and_the_next_one_goes_on(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any, away: dict[str, str]
) -> None:
    until(clickhouse, at(DAY, 576) + timedelta(seconds=5))
    set_clock(redis_client, at(DAY, 576) + timedelta(seconds=5))
    bench = Bench(settings, instance, "minutes")
    bench.resources = build_resources(settings.model_copy(update=away))
    started = monotonic()
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        bench.tick()
    assert monotonic() - started < 30
    bench.resources = build_resources(settings)
    assert len(bench.tick().run_requests) == 1


def test_late_ticks_reopen_their_minute(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    table = market.ticks()
    end = at(DAY, 580) + timedelta(seconds=5)
    late = pc.and_(pc.greater_equal(table["time"], at(DAY, 575)), pc.less(table["time"], at(DAY, 576)))
    market.insert_ticks(clickhouse, table.filter(pc.and_(pc.less(table["time"], end), pc.invert(late))))
    set_clock(redis_client, end)
    bench = Bench(settings, instance, "minutes")
    bench.run(bench.tick().run_requests[0])
    market.insert_ticks(clickhouse, table.filter(late))
    (request,) = bench.tick().run_requests
    first, last = request.tags["qmt/frames"].split("-")
    assert first <= "09:36" <= last
    assert bench.run(request).success
    row = clickhouse.query("SELECT sum(vol) FROM bars_1m WHERE symbol = '000001.SZ'").first_row
    last = "SELECT max(pvolume) FROM ticks WHERE symbol = '000001.SZ' AND time < '2025-06-05 09:40:00'"
    expected = clickhouse.query(last)
    assert row[0] == expected.first_row[0]


def test_a_run_in_flight_is_the_only_one(
    settings: Settings,
    instance: dg.DagsterInstance,
    clickhouse: Any,
    redis_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end is waited for, but not for long."""
    monkeypatch.setattr(minutes, "WAIT_SECONDS", 0.5)
    until(clickhouse, at(DAY, 576))
    set_clock(redis_client, at(DAY, 576))
    bench = Bench(settings, instance, "minutes")
    job = bench.defs.resolve_job_def("finalize_minutes")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    waiting = bench.tick()
    assert not waiting.run_requests
    assert run.run_id in waiting.skip_message
    monkeypatch.setattr(minutes, "WAIT_SECONDS", 20.0)
    ends = threading.Timer(0.5, lambda: instance.report_run_canceled(run))
    ends.start()
    assert len(bench.tick().run_requests) == 1, "asked for as soon as it has ended"
    ends.join()


def test_a_failed_run_is_tried_again_with_a_new_key_after_a_pause(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """Dagster suppresses a run key permanently, also when its run failed: the generation in it repairs that."""
    until(clickhouse, at(DAY, 576))
    set_clock(redis_client, at(DAY, 576))
    bench = Bench(settings, instance, "minutes")
    (first,) = bench.tick().run_requests
    broken = clickhouse.query("SHOW CREATE TABLE quality_results").first_row[0]
    clickhouse.command("DROP TABLE quality_results SYNC")
    assert not bench.run(first).success
    pausing = bench.tick()
    assert not pausing.run_requests
    assert "1 runs failed in a row" in pausing.skip_message
    clickhouse.command(broken)
    cursor = Cursor.read(bench.cursor)
    bench.cursor = Cursor(cursor.generation, cursor.run_id, cursor.failures, failed_at=0.0).text()  # the pause is over
    clickhouse.command("TRUNCATE TABLE bars_1m")
    requests = bench.tick().run_requests
    assert len(requests) == 1
    assert requests[0].run_key != first.run_key
    assert bench.run(requests[0]).success
    assert Cursor.read((bench.tick(), bench.cursor)[1]).failures == 0


def test_a_day_that_cannot_be_made_does_not_hold_up_the_next(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """Days are pending oldest first: one that always fails would keep today from becoming final."""
    following = DAY + timedelta(days=1)
    for day in (DAY, following):
        table = market.ticks(day)
        market.insert_ticks(clickhouse, table.filter(pc.less(table["time"], at(day, 576))))
    set_clock(redis_client, at(following, 576))
    clickhouse.command(f"ALTER TABLE bars_1m ADD CONSTRAINT broken CHECK toDate(frame) != '{DAY}'")
    bench = Bench(settings, instance, "minutes")
    (first,) = bench.tick().run_requests
    assert first.partition_key == str(DAY)
    assert not bench.run(first).success
    bench.tick()
    cursor = Cursor.read(bench.cursor)
    bench.cursor = Cursor(cursor.generation, cursor.run_id, cursor.failures, failed_at=0.0).text()  # the pause is over
    (second,) = bench.tick().run_requests
    assert second.partition_key == str(following)
    assert bench.run(second).success


def test_the_pause_after_failures_grows_and_is_bounded() -> None:
    pauses = [Cursor(failures=n, failed_at=1000.0).pause_left(1000.0) for n in range(12)]
    assert pauses[:4] == [0.0, 10.0, 20.0, 40.0]
    assert max(pauses) == 300.0


def test_a_pending_day_without_partition_is_named(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    until(clickhouse, at(DAY, 576))
    set_clock(redis_client, at(DAY, 576))
    late = settings.model_copy(update={"first_date": "2025-07-01"})
    skipped = Bench(late, instance, "minutes").tick()
    assert not skipped.run_requests
    assert "QMT_FIRST_DATE" in skipped.skip_message


def test_cursor_survives_its_text() -> None:
    cursor = Cursor(7, "run", 2, 12.5)
    assert Cursor.read(cursor.text()) == cursor
    assert json.loads(cursor.text())["generation"] == 7
