"""The sensors against a real instance, ClickHouse and Redis."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market.schema import TZ
from qmt_orchestration.market.sessions import SHANGHAI, at, to_ms
from qmt_orchestration.orchestration.partitions import trading_day_partitions
from qmt_orchestration.orchestration.resources import build_resources
from qmt_orchestration.orchestration.sensors import minutes
from qmt_orchestration.orchestration.sensors.minutes import Cursor, window_end
from qmt_orchestration.orchestration.sensors.services import wanted
from qmt_orchestration.quality import names
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration_tests.helpers import wait_until
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as made:
        yield made


class Bench:
    """One sensor, evaluated as the daemon does: its cursor kept, its runs executed or failed."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
        self.defs = build_defs(settings=settings)
        self.sensor = self.defs.resolve_sensor_def(name)
        self.instance, self.cursor = instance, ""
        self.resources = build_resources(settings)

    def tick(self) -> dg.SensorExecutionData | Any:
        """One evaluation; its cursor is kept."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor or None, resources=self.resources, definitions=self.defs
        )
        with context:
            result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor or self.cursor
        return result

    def until_nothing_is_late(self) -> None:
        """Evaluate until ticks that were stored a moment ago are no late ones any more."""
        wait_until(lambda: "is due in" in (self.tick().skip_message or ""), 20, "nothing pending, nothing late", 0.5)

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a requested run to its end."""
        job = self.defs.resolve_job_def(request.job_name or self.sensor.job_name)
        if request.asset_selection:
            checks = request.asset_check_keys
            job = job.get_subset(
                asset_selection=set(request.asset_selection), asset_check_selection=set(checks) if checks else None
            )
        return job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags=dict(request.tags),
            raise_on_error=False,
        )


def _own_client(settings: Settings) -> Any:
    """A client for another thread."""
    return connect(settings)


def set_clock(client: Any, moment: datetime) -> None:
    """The market's clock stands at *moment*."""
    publish_clock(client, to_ms(moment), 0.0)


def until(client: Any, moment: datetime) -> None:
    """Ticks of DAY up to *moment*, and the market's clock there."""
    table = market.ticks()
    market.insert_ticks(client, table.filter(pc.less(table["time"], moment)))


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
    import pyarrow.compute as pc

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
    arrives = threading.Timer(3.0, lambda: market.insert_ticks(_own_client(settings), table.filter(late)))
    arrives.start()
    started = monotonic()
    (request,) = bench.tick().run_requests
    took = monotonic() - started
    arrives.join()
    assert request.tags["qmt/frames"] == "09:36-09:36"
    assert 3.0 <= took < 5.0, "asked for within moments of its last tick"


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
    assert monotonic() - started < 3, "less than the evaluation may wait"
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
    assert monotonic() - started < 8
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


def beat(settings: Settings, client: Any, **numbers: float) -> None:
    """Heartbeats of the four services."""
    for name in ("subscriber", "writer", "publisher", "gateway"):
        Heartbeat(client, settings, name).beat(numbers)


def put_tick(client: Any, moment: datetime) -> None:
    """A batch whose newest tick is of *moment*."""
    client.xadd(keys.ticks(0), {"last_ms": to_ms(moment), "rows": 1})


def test_observations_have_the_same_keys_whatever_runs(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """The plots of the stream break when a key comes and goes."""
    bench = Bench(settings, instance, "stream")
    silent = bench.tick().asset_events[0]
    beat(settings, redis_client, rate=1200.5, symbols=3, lag_seconds=0.2, memory_mb=99)
    set_clock(redis_client, at(DAY, 600))
    put_tick(redis_client, at(DAY, 600) - timedelta(seconds=2))
    flowing = bench.tick().asset_events[0]
    assert flowing.metadata.keys() == silent.metadata.keys()
    assert flowing.asset_key == dg.AssetKey("tick_stream")
    assert flowing.metadata["rate_ticks_per_second"].value == 1200.5
    assert flowing.metadata["seconds_since_newest_tick"].value == 2.0
    assert flowing.metadata["memory_mb_writer"].value == 99


def evaluations(result: Any) -> dict[str, Any]:
    """Check evaluations among the events, by name."""
    return {e.check_name: e for e in result.asset_events if isinstance(e, dg.AssetCheckEvaluation)}


def test_a_silent_feed_is_announced_once_and_so_is_its_return(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    bench = Bench(settings, instance, "stream")
    beat(settings, redis_client)
    set_clock(redis_client, at(DAY, 600))
    put_tick(redis_client, at(DAY, 600) - timedelta(seconds=5))
    told = evaluations(bench.tick())
    assert {n: e.passed for n, e in told.items()} == dict.fromkeys(told, True)
    set_clock(redis_client, at(DAY, 603))
    silent = evaluations(bench.tick())
    assert list(silent) == [names.FEED_FRESH], "only what changed is told"
    assert silent[names.FEED_FRESH].severity == dg.AssetCheckSeverity.ERROR
    assert not evaluations(bench.tick())
    put_tick(redis_client, at(DAY, 603))
    assert evaluations(bench.tick())[names.FEED_FRESH].passed
    kept = clickhouse.query("SELECT count() FROM quality_results WHERE check = 'feed_fresh'").first_row[0]
    assert kept == 3


@pytest.mark.parametrize("moment", [(12, 0), (9, 27), (14, 58), (15, 30), (8, 0)])
def test_silence_outside_the_session_is_right(
    moment: tuple[int, int], settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    set_clock(redis_client, at(DAY, moment[0] * 60 + moment[1]))
    assert evaluations(Bench(settings, instance, "stream").tick())[names.FEED_FRESH].passed


def test_a_dead_service_a_lagging_writer_and_dead_letters_are_seen(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    set_clock(redis_client, at(DAY, 720))
    for name, numbers in (("subscriber", {}), ("writer", {"lag_seconds": 30.0, "lost": 2.0}), ("gateway", {})):
        Heartbeat(redis_client, settings, name).beat(numbers)
    redis_client.xadd(keys.DEAD_LETTERS.format(stream="qmt:ticks:{0}"), {"error": "schema refused"})
    told = evaluations(Bench(settings, instance, "stream").tick())
    assert "publisher" in told[names.SERVICES_ALIVE].metadata["found"].value
    failed = {n: e.severity.value for n, e in told.items() if not e.passed}
    assert failed == {
        names.SERVICES_ALIVE: "ERROR",
        names.STREAM_LAG: "WARN",
        names.NO_DEAD_LETTERS: "WARN",
        names.NOTHING_LOST: "ERROR",
    }


def test_a_loss_is_told_on_its_day_and_not_for_ever(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """The writer's count never falls: yesterday's loss must not be announced every hour until the end of days."""

    def verdict(moment: datetime, lost: int) -> tuple[bool, str]:
        set_clock(redis_client, moment)
        Heartbeat(redis_client, settings, "writer").beat({"lost": lost})
        told = evaluations(Bench(settings, instance, "stream").tick())[names.NOTHING_LOST]
        return told.passed, told.metadata["found"].value

    noon, tomorrow = at(DAY, 720), at(DAY + timedelta(days=1), 720)
    assert verdict(noon, 0) == (True, "0 batches lost")
    assert verdict(noon, 2) == (False, "2 batches lost")
    assert verdict(noon, 1) == (False, "1 batches lost"), "one came late"
    assert verdict(tomorrow, 1) == (True, "0 batches lost")
    assert verdict(tomorrow, 4) == (False, "3 batches lost")


def test_a_service_that_was_stopped_on_purpose_is_not_missed(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    from qmt_orchestration.services.desired import set_desired

    set_clock(redis_client, at(DAY, 720))
    beat(settings, redis_client)
    redis_client.delete(keys.HEARTBEAT.format(host=settings.host, service="publisher"))
    set_desired(redis_client, "publisher", "stopped")
    assert evaluations(Bench(settings, instance, "stream").tick())[names.SERVICES_ALIVE].passed


def test_the_calendar_says_when_the_feed_should_run(settings: Settings) -> None:
    days = trading_day_partitions(settings)

    def state(text: str) -> str:
        return wanted(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI), days, simulated=False)

    assert [state(f"2025-06-05 {t}") for t in ("08:59", "09:00", "12:00", "15:34", "15:35")] == [
        "closed",
        "open",
        "open",
        "open",
        "closed",
    ]
    assert state("2025-06-07 10:00") == "closed", "a Saturday"
    assert state("2025-10-01 10:00") == "closed", "a holiday"
    assert wanted(at(DAY, 3 * 60), days, simulated=True) == "open"


def test_a_stop_by_hand_lasts_until_the_calendar_speaks_again(
    settings: Settings, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    from qmt_orchestration.services.desired import read_desired, set_desired

    bench = Bench(settings.model_copy(update={"feed": "simulator"}), instance, "services_by_calendar")
    bench.tick()
    assert {n: d.state for n, d in read_desired(redis_client).items()} == dict.fromkeys(
        ("subscriber", "publisher", "gateway", "writer"), "running"
    )
    set_desired(redis_client, "subscriber", "stopped")
    bench.tick()
    assert read_desired(redis_client)["subscriber"].state == "stopped"


def test_a_simulated_day_is_opened_and_finished_by_its_own_clock(
    settings: Settings, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    bench = Bench(settings, instance, "market_day")
    assert not bench.tick().run_requests, "a live market follows the schedules"

    def asked(moment: datetime) -> list[tuple[str, str]]:
        set_clock(redis_client, moment)
        return [(r.job_name, r.partition_key) for r in bench.tick().run_requests]

    day, following = DAY, DAY + timedelta(days=1)
    assert asked(at(day, 556)) == [("before_open", str(day))]
    assert asked(at(day, 700)) == []
    assert asked(at(day, 931)) == [("end_of_day", str(day)), ("reconcile_day", str(day))]
    assert asked(at(day, 931)) == []
    assert asked(at(following, 556)) == [("before_open", str(following))]
    after = DAY + timedelta(days=4)
    assert asked(at(after, 556)) == [
        ("end_of_day", str(following)),
        ("reconcile_day", str(following)),
        ("before_open", str(after)),
    ], "a day whose last minute was never seen is finished all the same"


def test_schedules_skip_holidays_and_simulated_markets(
    settings: Settings, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    defs = build_defs(settings=settings)
    schedule = defs.resolve_schedule_def("end_of_day_schedule")

    def evaluate(day: str) -> Any:
        moment = datetime.combine(datetime.fromisoformat(day), time(15, 35), SHANGHAI)
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment,
            resources=build_resources(settings),
            repository_def=defs.get_repository_def(),
        ) as context:
            return schedule.evaluate_tick(context)

    (request,) = evaluate("2025-06-05").run_requests
    assert request.partition_key == "2025-06-05"
    assert "no trading day" in evaluate("2025-10-01").skip_message
    set_clock(redis_client, at(DAY, 600))
    assert "simulated" in evaluate("2025-06-05").skip_message


def test_cursor_survives_its_text() -> None:
    cursor = Cursor(7, "run", 2, 12.5)
    assert Cursor.read(cursor.text()) == cursor
    assert json.loads(cursor.text())["generation"] == 7


def test_the_checks_of_the_stream_run_by_hand_and_are_recorded(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """Dagster accepts a check function that returns a tuple and records none of it: they must be yielded."""
    set_clock(redis_client, at(DAY, 720))
    beat(settings, redis_client)
    defs = build_defs(settings=settings)
    job = dg.define_asset_job("stream_checks", dg.AssetSelection.checks_for_assets("tick_stream"))
    resolved = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("stream_checks")
    result = resolved.execute_in_process(instance=instance)
    evaluated = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert evaluated == dict.fromkeys(
        (names.FEED_FRESH, names.SERVICES_ALIVE, names.STREAM_LAG, names.NOTHING_LOST, names.NO_DEAD_LETTERS), True
    )
