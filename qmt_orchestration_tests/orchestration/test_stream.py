"""The sensor of the stream: its observations, and checks that are evaluated without a run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.quality import names
from qmt_orchestration.services.desired import set_desired
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.orchestration.bench import Bench, beat, set_clock
from qmt_orchestration_tests.orchestration.market import DAY


def put_tick(client: Any, moment: datetime) -> None:
    """A batch whose newest tick is of *moment*."""
    client.xadd(keys.ticks(0), {"last_ms": to_ms(moment), "rows": 1})


def evaluations(result: Any) -> dict[str, Any]:
    """Check evaluations among the events, by name."""
    return {e.check_name: e for e in result.asset_events if isinstance(e, dg.AssetCheckEvaluation)}


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


def test_a_loss_is_reported_on_its_day_only(
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
    set_clock(redis_client, at(DAY, 720))
    beat(settings, redis_client)
    redis_client.delete(keys.HEARTBEAT.format(host=settings.host, service="publisher"))
    set_desired(redis_client, "publisher", "stopped")
    assert evaluations(Bench(settings, instance, "stream").tick())[names.SERVICES_ALIVE].passed


def test_the_checks_of_the_stream_run_by_hand_and_are_recorded(
    settings: Settings, instance: dg.DagsterInstance, clickhouse: Any, redis_client: Any
) -> None:
    """Dagster accepts a check function that returns a tuple and records none of it: they must be yielded."""
    defs = build_defs(settings=settings)
    job = dg.define_asset_job("stream_checks", dg.AssetSelection.checks_for_assets("tick_stream"))
    resolved = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("stream_checks")
    set_clock(redis_client, at(DAY, 720))
    beat(settings, redis_client)  # heartbeats last 15 s
    result = resolved.execute_in_process(instance=instance)
    evaluated = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert evaluated == dict.fromkeys(
        (names.FEED_FRESH, names.SERVICES_ALIVE, names.STREAM_LAG, names.NOTHING_LOST, names.NO_DEAD_LETTERS), True
    )
