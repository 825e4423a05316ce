"""Findings about the running system: the engines, the services, and the checks of the stream, as they are now."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import dagster as dg
import redis

from qmt_orchestration.alerts import services as watching
from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.alerts.state import AlertState
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.orchestration.checks.live import live_outcomes
from qmt_orchestration.orchestration.sensors.evidence import Evaluation, Reporter, report_link
from qmt_orchestration.services.desired import read_desired
from qmt_orchestration.services.state import NEEDED
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.texts import say
from qmt_orchestration.warehouse.client import connect as connect_warehouse

WATCHED_HERE: Final = ("tick_stream/services_alive",)  # reported per service, by heartbeats


def watch_live(settings: Settings, state: AlertState, now_ms: int) -> tuple[list[Finding], datetime]:
    """Findings of the running system (services, feed, stream), and the market's time."""

    language, link = settings.language, report_link(settings, "")
    warehouse, away = _warehouse(settings), say(settings.language, "redis.away")
    client = connect_redis(settings, retries=1)
    try:
        clock, beats = read_clock(client), read_all(client)
        desired = {name: wanted.state for name, wanted in read_desired(client).items()}
        outcomes = live_outcomes(settings, client, beats, desired, trading_day=is_trading_day(clock.today()))
    except redis.RedisError as error:
        text, todo = say(language, "redis.text", error=error), say(language, "redis.todo")
        return [warehouse, Finding("engine:redis", True, away, text, todo=todo, link=link)], from_ms(now_ms)
    finally:
        client.close()
    findings = [warehouse, Finding("engine:redis", False, away, say(language, "answers"))]
    findings += watching.watch(state.services, beats, desired, NEEDED, now_ms, link, language)
    reporter = Reporter(settings)
    for outcome in outcomes:
        if f"{outcome.check.asset}/{outcome.check.name}" not in WATCHED_HERE:
            seen = Evaluation(
                outcome.check.asset,
                outcome.check.name,
                outcome.passed,
                "ERROR" if outcome.severity == dg.AssetCheckSeverity.ERROR else "WARN",
                outcome.day.isoformat(),
                outcome.expected,
                outcome.found,
                worst=outcome.worst,
            )
            # the same key as the check's own evaluations: the first of them reports it
            findings.append(reporter.finding(seen, "", watching.OWNER))
    return findings, clock.now() if clock.simulated else from_ms(now_ms)


def _warehouse(settings: Settings) -> Finding:
    """Whether ClickHouse answers."""
    import clickhouse_connect

    language, link = settings.language, report_link(settings, "")
    key, title = "engine:clickhouse", say(language, "clickhouse.away")
    try:
        with connect_warehouse(settings, database="", send_receive_timeout=10) as client:
            client.command("SELECT 1")
    except (clickhouse_connect.driver.exceptions.ClickHouseError, OSError) as error:
        text, todo = say(language, "clickhouse.text", error=error), say(language, "clickhouse.todo")
        return Finding(key, True, title, text, todo=todo, link=link)
    return Finding(key, False, title, say(language, "answers"))
