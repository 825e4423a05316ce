"""Whole days through Dagster: made, made again, judged as far as they have come."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import at
from qmt_orchestration.orchestration.backfill import instance_of, materialize_days
from qmt_orchestration.orchestration.jobs import minute_assets
from qmt_orchestration.quality import names
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.conftest import passwords_in_environment
from qmt_orchestration_tests.orchestration.market import DAY, FRAMES, SYMBOLS


def rows(client: Any, table: str) -> list[tuple[Any, ...]]:
    """A table of bars without versions, in order."""
    found = client.query(f"SELECT * EXCEPT version FROM {table} ORDER BY symbol, frame").result_rows
    return [tuple(r) for r in found]


@dataclass
class Made:
    """A day that was made from its ticks, for the tests that look at it."""

    settings: Settings
    client: Any
    outcome: dict[str, Any]
    told: list[str]


@pytest.fixture(scope="module")
def made(engine_settings: Settings, empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One for all of them: making a day takes some seconds."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(empty_home, folder / "dagster")
    chosen = engine_settings.model_copy(update={"data_dir": folder, "clickhouse_database": "qmt_made"})
    told: list[str] = []
    migrate(chosen)
    with connect(chosen) as client, passwords_in_environment(chosen):
        market.insert_instruments(client)
        market.insert_ticks(client)
        yield Made(chosen, client, materialize_days(chosen, [DAY], told.append), told)
        client.command("DROP DATABASE qmt_made SYNC")


def test_a_day_is_made_with_all_its_periods_and_checks(made: Made) -> None:
    outcome = made.outcome
    assert outcome["failed_runs"] == 0, outcome["errors"]
    assert outcome["bars"] == {"1m": FRAMES, "5m": 48 * 3, "15m": 16 * 3, "30m": 8 * 3, "60m": 4 * 3, "1d": 3}
    assert [f"{c['asset']}/{c['check']}" for c in outcome["checks"]["failed"]] in ([], ["ticks/storage"])
    assert outcome["checks"]["passed"] > 20
    assert made.told == ["making 2025-06-05, 1 of 1 days"]


def test_dagsters_pages_show_the_day_afterwards(made: Made) -> None:
    with instance_of(made.settings) as instance:
        assert instance.get_run_by_id(made.outcome["runs"][0]).status == dg.DagsterRunStatus.SUCCESS
        for asset, count in (("bars_1m", FRAMES), ("bars_5m", 144), ("bars_1d", 3)):
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {"2025-06-05"}
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event.asset_materialization.metadata["dagster/partition_row_count"].value == count
        event = instance.get_latest_materialization_event(dg.AssetKey("bars_1m"))
        assert event.asset_materialization.metadata["source"].value == "ticks"


def test_making_a_day_again_changes_nothing(made: Made) -> None:
    before = {t: rows(made.client, t) for t in ("bars_1m", "bars_5m", "bars_30m", "bars_1d")}
    assert materialize_days(made.settings, [DAY])["errors"] == []
    assert {t: rows(made.client, t) for t in before} == before


IN_THE_FIRST_MINUTE, IN_THE_CLOSING_CALL = (9, 31, 40), (14, 58, 30)


@pytest.mark.parametrize(
    "moments",
    [
        [IN_THE_FIRST_MINUTE, IN_THE_CLOSING_CALL],
        pytest.param(
            [(9, 20, 0), IN_THE_FIRST_MINUTE, (10, 3, 20), (12, 15, 0), IN_THE_CLOSING_CALL], marks=pytest.mark.slow
        ),
    ],
    ids=["two moments", "before the open, in mid-session and at lunch too"],
)
def test_the_live_day_made_by_hand_is_judged_as_far_as_it_has_come(
    settings: Settings, clickhouse: Any, redis_client: Any, moments: list[tuple[int, int, int]]
) -> None:
    """No false alarm, whenever it is made."""
    market.insert_instruments(clickhouse)
    table, done = market.ticks(), at(DAY, 0)
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


def test_a_holiday_is_refused_before_anything_is_made(settings: Settings) -> None:
    with pytest.raises(ValueError, match="2025-10-01 is no partition"):
        materialize_days(settings, [DAY, date(2025, 10, 1)])
    with instance_of(settings) as instance:
        assert instance.get_runs_count() == 0


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
        result = job.execute_in_process(
            instance=instance, tags=span, asset_selection=[dg.AssetKey("bars_1m"), dg.AssetKey("bars_30m")]
        )
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
    table = market.ticks()
    market.insert_ticks(clickhouse, table.filter(pc.less(table["time"], at(DAY, 632))))  # the last tick is of 10:31:xx
    outcome = materialize_days(settings, [DAY])
    sums = [clickhouse.query(f"SELECT sum(vol) FROM bars_{p}").first_row[0] for p in ("1m", "5m", "30m", "1d")]
    assert sums[0] > 0
    assert sums == [sums[0]] * 4
    failed = {(c["asset"], c["check"]) for c in outcome["checks"]["failed"]}
    assert ("bars_1m", names.NO_MISSING_FRAMES) in failed, "half a day is not a whole one"
    assert not {check for _, check in failed} & {names.VOLUME_ADDS_UP, names.ROWS_PRESENT}
