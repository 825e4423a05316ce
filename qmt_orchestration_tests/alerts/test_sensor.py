"""The sensor on a real Dagster instance (SQLite) and a real receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from qmt_orchestration.alerts.state import load
from qmt_orchestration.orchestration.sensors.alerts import build_alert_sensor, look
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.alerts.conftest import Receiver

DAY = "2025-06-05"
DAYS = dg.DailyPartitionsDefinition("2025-06-02")
VERDICT = {"passed": False}


@dg.asset(
    partitions_def=DAYS,
    owners=["team:market-data"],
    check_specs=[dg.AssetCheckSpec("rows", asset="bars"), dg.AssetCheckSpec("limits", asset="bars")],
)
def bars() -> Any:
    evidence = {
        "partition": DAY,
        "worst": dg.MetadataValue.table(
            [dg.TableRecord({"symbol": "000001.SZ", "missing": "7"})],
            schema=dg.TableSchema([dg.TableColumn("symbol"), dg.TableColumn("missing")]),
        ),
    }
    yield dg.MaterializeResult(
        check_results=[
            dg.AssetCheckResult(
                check_name="rows", passed=VERDICT["passed"], description="expected 241, found 234", metadata=evidence
            ),
            dg.AssetCheckResult(check_name="limits", passed=True, metadata={"partition": DAY}),
        ]
    )


@dg.asset
def plain() -> None:
    """An asset whose check crashes."""


@dg.asset_check(asset=plain)
def boom() -> dg.AssetCheckResult:
    raise RuntimeError("cannot parse redis://user:hunter2@host")


DEFS = dg.Definitions(
    assets=[bars, plain],
    asset_checks=[boom],
    jobs=[
        dg.define_asset_job("make_bars", dg.AssetSelection.assets("bars")),
        dg.define_asset_job("make_plain", dg.AssetSelection.assets("plain")),
    ],
)


def _run(instance: dg.DagsterInstance, job: str, partition: str | None = None) -> None:
    DEFS.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)


def _owner(asset: str) -> str:
    return "market-data"


def test_failed_check_is_announced_once_over_ten_minutes_then_its_recovery(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    now = int(time.time() * 1000)
    _run(instance, "make_bars", DAY)
    look(healthy, instance, _owner, now)
    assert receiver.messages == [], "the first look begins at now, it does not tell the past"
    for i in range(1, 5):
        VERDICT["passed"] = False
        _run(instance, "make_bars", DAY)
        look(healthy, instance, _owner, now + i * 120_000)
    VERDICT["passed"] = True
    _run(instance, "make_bars", DAY)
    look(healthy, instance, _owner, now + 700_000)
    mine = [m for m in receiver.messages if "bars / rows" in m["title"]]
    assert [m["title"] for m in mine] == [f"[ERROR] bars / rows · {DAY}", f"[RECOVERED] bars / rows · {DAY}"]
    text = mine[0]["message"]
    assert "expected 241, found 234" in text
    assert "Worst: 000001.SZ (missing 7)" in text
    assert f"See: https://m.example/report?day={DAY}&asset=bars&check=rows" in text


def test_a_check_that_raises_is_announced_without_its_secret(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    look(healthy, instance, _owner)
    _run(instance, "make_plain")
    look(healthy, instance, _owner)
    (message,) = [m for m in receiver.messages if "make_plain" in m["title"]]
    assert "cannot parse" in message["message"]
    assert "checks without a verdict: plain/boom" in message["message"]
    assert "/runs/" in message["message"]
    assert "hunter2" not in message["message"]


def test_a_check_skipped_in_a_successful_run_is_announced(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    """Planned, no verdict, yet the run succeeded: nobody else would ever say so."""
    look(healthy, instance, _owner)

    @dg.asset(check_specs=[dg.AssetCheckSpec("late", asset="lax")], output_required=False)
    def lax() -> Iterator[Any]:
        yield from ()

    job = dg.Definitions(assets=[lax], jobs=[dg.define_asset_job("make_lax", "lax")]).resolve_job_def("make_lax")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    look(healthy, instance, _owner)
    told = " ".join(m["title"] + m["message"] for m in receiver.messages)
    assert ("lax / late" if result.success else "lax/late") in told


def test_runless_evaluations_are_announced(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    def report(passed: bool) -> None:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey("bars"), check_name="outside", passed=passed, metadata={})
        )

    report(False)
    look(healthy, instance, _owner)
    assert receiver.messages == []
    report(False)
    look(healthy, instance, _owner)
    report(True)
    look(healthy, instance, _owner)
    look(healthy, instance, _owner)
    assert receiver.titles() == ["[ERROR] bars / outside", "[RECOVERED] bars / outside"]


def test_a_backlog_longer_than_one_look_is_announced_in_full(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("qmt_orchestration.orchestration.sensors.alerts.RUNS_PER_LOOK", 2)
    look(healthy, instance, _owner)
    VERDICT["passed"] = False
    _run(instance, "make_bars", DAY)
    for _ in range(4):
        _run(instance, "make_plain")
    _run(instance, "make_bars", DAY)
    for _ in range(6):
        look(healthy, instance, _owner)
    newest = max(
        r.storage_id
        for kind in (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
        for r in instance.fetch_run_status_changes(kind, limit=1).records
    )
    assert load(healthy.data_dir).cursors["runs"] == str(newest)
    assert load(healthy.data_dir).incidents[f"check:bars/rows@{DAY}"].repeats == 1
    assert load(healthy.data_dir).incidents["run:make_plain@"].repeats == 3


def test_another_event_log_does_not_stop_the_sensor(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any, tmp_path: Path
) -> None:
    for _ in range(2):
        _run(instance, "make_plain")
    look(healthy, instance, _owner)
    (tmp_path / "new").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "new")) as fresh:
        look(healthy, fresh, _owner)
        _run(fresh, "make_plain")
        look(healthy, fresh, _owner)
    assert len(receiver.messages) == 1


def test_a_dead_service_and_a_dead_redis_are_announced_and_recover(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    now = int(time.time() * 1000)
    look(healthy, instance, _owner, now)
    redis_client.delete(f"qmt:heartbeat:{healthy.host}:writer")
    look(healthy, instance, _owner, now + 15_000)
    assert receiver.messages == [], "an agent has time to restart it"
    look(healthy, instance, _owner, now + 40_000)
    assert receiver.titles() == ["[ERROR] service writer is silent"]
    Heartbeat(redis_client, healthy, "writer").beat()
    look(healthy, instance, _owner, now + 60_000)
    assert receiver.titles()[1:] == ["[RECOVERED] service writer is silent"]
    away = healthy.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    look(away, instance, _owner, now + 80_000)
    assert receiver.titles()[2:] == ["[ERROR] Redis does not answer"]
    look(healthy, instance, _owner, now + 90_000)
    assert receiver.titles()[3:] == ["[RECOVERED] Redis does not answer"]


def test_without_channels_the_sensor_says_so_and_never_announces_the_past(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any
) -> None:
    look(healthy, instance, _owner)
    silent = healthy.model_copy(update={"alert_urls": None})
    assert "QMT_ALERT_URLS" in look(silent, instance, _owner)
    _run(instance, "make_plain")
    look(silent, instance, _owner)
    look(healthy, instance, _owner)
    assert receiver.messages == []


def test_the_sensor_itself_evaluates_with_owners_from_the_graph(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance, redis_client: Any, monkeypatch: Any
) -> None:
    from qmt_orchestration.orchestration.resources import build_resources

    second_url = receiver.url.replace("hook", "owner")
    monkeypatch.setenv("QMT_ALERT_URLS", f"market-data={second_url}")
    for engine in ("redis", "clickhouse"):
        monkeypatch.setenv(f"QMT_{engine.upper()}_PASSWORD", getattr(healthy, f"{engine}_password").get_secret_value())
    resources = build_resources(healthy)
    sensor = build_alert_sensor()
    VERDICT["passed"] = False

    def evaluate() -> None:
        context = dg.build_sensor_context(
            instance=instance,
            definitions=dg.Definitions(assets=[bars, plain], sensors=[sensor], resources=resources),
            resources={"redis": resources["redis"]},
        )
        sensor.evaluate_tick(context)

    evaluate()
    _run(instance, "make_bars", DAY)
    evaluate()
    assert load(healthy.data_dir).incidents[f"check:bars/rows@{DAY}"].finding.owner == "market-data"
    assert receiver.titles() == [f"[ERROR] bars / rows · {DAY}"]


def test_a_sensor_or_schedule_that_cannot_be_evaluated_is_announced(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    """Its tick starts no run: without this, minutes would stop being made and nobody would hear of it."""
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        ScheduleInstigatorData,
        TickData,
        TickStatus,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._utils.error import SerializableErrorInfo

    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="qmt_orchestration.definitions"))
    repository = RemoteRepositoryOrigin(location, "__repository__")
    clock = time.time()

    def tick(kind: InstigatorType, name: str, status: TickStatus) -> None:
        nonlocal clock
        clock += 1
        detail = ScheduleInstigatorData("35 15 * * 1-5") if kind == InstigatorType.SCHEDULE else None
        origin, on = RemoteInstigatorOrigin(repository, name), InstigatorStatus.DECLARED_IN_CODE
        state = InstigatorState(origin, kind, on, detail)
        if instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
            instance.add_instigator_state(state)
        cause = SerializableErrorInfo("OperationalError: no such host\n", [], "OperationalError")
        error = SerializableErrorInfo("Error occurred during the evaluation", [], "SensorExecutionError", cause=cause)
        failed = {"error": error} if status == TickStatus.FAILURE else {}
        where = (state.instigator_origin_id, name, kind, status, clock)
        instance.create_tick(TickData(*where, selector_id=state.selector_id, **failed))

    for _ in range(2):
        tick(InstigatorType.SENSOR, "minutes", TickStatus.FAILURE)
        look(healthy, instance, _owner)
    assert receiver.messages == [], "it may mend itself"
    tick(InstigatorType.SENSOR, "minutes", TickStatus.FAILURE)
    tick(InstigatorType.SCHEDULE, "end_of_day_schedule", TickStatus.FAILURE)
    look(healthy, instance, _owner)
    told = " ".join(m["title"] + m["message"] for m in receiver.messages)
    assert "sensor minutes cannot be evaluated" in told
    assert "schedule end_of_day_schedule cannot be evaluated" in told
    assert "no such host" in told
    receiver.messages.clear()
    tick(InstigatorType.SENSOR, "minutes", TickStatus.SKIPPED)
    look(healthy, instance, _owner)
    assert receiver.titles() == ["[RECOVERED] sensor minutes cannot be evaluated"]


def test_a_dead_clickhouse_is_announced_and_recovers(
    healthy: Settings, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    look(healthy, instance, _owner)
    look(healthy.model_copy(update={"clickhouse_url": "http://127.0.0.1:1"}), instance, _owner)
    look(healthy, instance, _owner)
    assert receiver.titles() == ["[ERROR] ClickHouse does not answer", "[RECOVERED] ClickHouse does not answer"]
    assert "QMT_CLICKHOUSE_URL" in receiver.messages[0]["message"]
