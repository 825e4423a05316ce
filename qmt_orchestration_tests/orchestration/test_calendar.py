"""What the calendar starts: services, schedules, and the days of a simulated market."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import dagster as dg

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.orchestration.partitions import trading_day_partitions
from qmt_orchestration.orchestration.resources import build_resources
from qmt_orchestration.orchestration.sensors.services import wanted
from qmt_orchestration.services.desired import read_desired, set_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.orchestration.bench import Bench, set_clock
from qmt_orchestration_tests.orchestration.market import DAY


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


def test_a_stop_by_hand_lasts_until_the_calendar_changes(
    settings: Settings, instance: dg.DagsterInstance, redis_client: Any
) -> None:
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
