"""The graph as Dagster sees it: it loads with nothing running, and its shape changes on purpose only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.orchestration.launcher import ForkedRunLauncher
from qmt_orchestration.quality.names import CHECKS, checks_of
from qmt_orchestration.settings import Settings

SNAPSHOT = Path(__file__).with_name("graph.json")


def shown(asset: str, check: Any) -> str:
    """A check as one line of the snapshot."""
    return f"{asset}:{check.name}{' (blocking)' if check.blocking else ''}"


def graph(defs: dg.Definitions) -> dict[str, Any]:
    """Everything of the definitions that a user sees, as plain data."""
    specs = sorted(defs.resolve_all_asset_specs(), key=lambda s: s.key.to_user_string())
    checks = [c for d in (defs.asset_checks or []) for c in d.check_specs]  # type: ignore[union-attr]
    computed = [c for a in (defs.assets or []) if isinstance(a, dg.AssetsDefinition) for c in a.check_specs]
    repository = defs.get_repository_def()
    return {
        "assets": {
            s.key.to_user_string(): {
                "deps": sorted(d.asset_key.to_user_string() for d in s.deps),
                "group": s.group_name,
                "kinds": sorted(s.kinds),
                "owners": sorted(s.owners),
                "partitioned": s.partitions_def is not None,
                "tags": {k: v for k, v in sorted(s.tags.items()) if not k.startswith("dagster/")},
                "metadata": sorted(k for k in s.metadata if k.startswith("dagster/")),
            }
            for s in specs
        },
        "checks": sorted(shown(c.asset_key.to_user_string(), c) for c in [*checks, *computed]),
        "jobs": {
            job.name: sorted(k.to_user_string() for k in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {s.name: [s.job_name, s.cron_schedule, s.execution_timezone] for s in repository.schedule_defs},
        "sensors": {s.name: s.minimum_interval_seconds for s in repository.sensor_defs},
    }


def test_the_graph_changes_on_purpose_only(tmp_path: Path) -> None:
    """A change of assets, checks, jobs, schedules or sensors is a diff of graph.json; UPDATE_SNAPSHOTS=1 writes it."""
    found = json.loads(json.dumps(graph(build_defs(settings=Settings(data_dir=tmp_path)))))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(SNAPSHOT.read_text()), (
        "run UPDATE_SNAPSHOTS=1 pytest on this file if the change is meant"
    )


def test_every_check_listed_is_in_the_graph(tmp_path: Path) -> None:
    found = graph(build_defs(settings=Settings(data_dir=tmp_path)))["checks"]
    every = [*CHECKS, *checks_of("bars_15m"), *checks_of("bars_60m")]  # by the pattern of bars_5m
    assert sorted(shown(c.asset, c) for c in every) == found


def test_every_setting_named_by_a_check_exists_and_is_ordered() -> None:
    from qmt_orchestration.orchestration.checks.evaluate import limit

    for check in CHECKS:
        allowed, fatal = limit(check.allowed, Settings()), limit(check.fatal, Settings())
        assert allowed is not None
        assert fatal is None or fatal >= allowed, f"{check.asset}/{check.name}: ERROR would come before WARN"


def test_loading_connects_to_nothing_and_is_lean(tmp_path: Path) -> None:
    """The daemon, the webserver and, without the run server, every run import it: pandas alone is a second of CPU."""
    code = (
        "import sys; import qmt_orchestration.definitions as d; d.defs.get_repository_def();"
        "heavy = ('pandas', 'clickhouse_connect', 'xtquant', 'exchange_calendars');"
        "print([m for m in heavy if m in sys.modules])"
    )
    environment = {**os.environ, "QMT_DATA_DIR": str(tmp_path), "QMT_REDIS_URL": "redis://127.0.0.1:1/0"}
    build_defs(settings=Settings(data_dir=tmp_path))  # fills the cache of the calendar
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_the_projects_instance_configuration_is_accepted(tmp_path: Path) -> None:
    """A wrong key in dagster.yaml shows only when Dagster starts: load it as Dagster does."""
    from qmt_orchestration.orchestration.backfill import instance_of

    with instance_of(Settings(data_dir=tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries > 0
        assert instance.get_settings("sensors")["use_threads"] is True
        assert isinstance(instance.run_launcher, ForkedRunLauncher)
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_monitoring_poll_interval_seconds <= 10, "a killed run is noticed within 30 s"
        assert instance.run_monitoring_start_timeout_seconds <= 30


def test_a_minutes_run_is_asked_for_again_by_its_sensor_alone(tmp_path: Path) -> None:
    defs = build_defs(settings=Settings(data_dir=tmp_path))
    assert defs.resolve_job_def("finalize_minutes").tags["dagster/max_retries"] == "0"
    for name in ("make_day", "end_of_day", "reconcile_day", "before_open"):
        assert "dagster/max_retries" not in defs.resolve_job_def(name).tags


def test_secrets_are_no_part_of_a_resources_configuration(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_password="do-not-show", clickhouse_password="nor-this")  # type: ignore[arg-type]
    resources = build_defs(settings=settings).resources or {}
    shown = json.dumps({k: r.overrides for k, r in resources.items()})
    assert str(tmp_path) in shown
    assert "do-not-show" not in shown
    assert "nor-this" not in shown


def test_the_page_on_quality_names_every_check_with_its_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")
    for check in CHECKS:
        rows = [line for line in page.splitlines() if line.startswith("|") and f"`{check.name}`" in line]
        assert rows, f"{check.name} is missing in docs/quality.md"
        for setting in (check.allowed, check.fatal):
            if isinstance(setting, str):
                assert any(f"`{setting}`" in row for row in rows), f"{check.asset}/{check.name}: {setting}"
                assert setting in Settings.model_fields
