"""After the close: the report of the day, the work of the night, and services controlled from Dagster's pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core.storage.runs.schema import RunsTable

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import at
from qmt_orchestration.orchestration.backfill import instance_of
from qmt_orchestration.orchestration.checks.evaluate import Window, record, run_checks
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.services.desired import read_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY, SYMBOLS


def test_the_report_of_a_day_counts_its_failures_and_links_to_the_console(
    settings: Settings, clickhouse: Any, redis_client: Any
) -> None:
    market.insert_ticks(clickhouse)
    market.make_bars(clickhouse)
    clickhouse.command(
        "ALTER TABLE bars_1m UPDATE low = high + 1 WHERE symbol = '600000.SH'", settings={"mutations_sync": 1}
    )
    checks = [*checks_of("ticks"), *checks_of("bars_1m")]
    record(clickhouse, run_checks(checks, clickhouse, settings, Window.whole(DAY)), "a run")
    report = make_report(settings)
    assert report["report"].value == f"{settings.console_url}/report?day=2025-06-05"
    assert 0 < report["failed_with_error"].value <= report["failed"].value < report["checks"].value


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
            output = instance.compute_log_manager.get_captured_local_path([run_id, "compute_logs", "abc"], "out")
            Path(output).parent.mkdir(parents=True)
            Path(output).write_text("what a step printed")
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
    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[:1]))
    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[1:]))
    publish_clock(redis_client, int(at(calendar.next_trading_day(DAY), 0).timestamp() * 1000), 0.0)
    with instance_of(settings) as instance:
        assert build_defs(settings=settings).resolve_job_def("night").execute_in_process(instance=instance).success
    parts = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'ticks'"
    assert clickhouse.query(parts).first_row[0] == 1


def test_a_service_is_controlled_from_the_ui(settings: Settings, redis_client: Any) -> None:
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
