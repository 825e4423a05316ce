"""Findings about the running system: the engines, the services, and the checks of the stream, as they are now."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import dagster as dg

from qmt_orchestration.alerts import services as watching
from qmt_orchestration.alerts.messages import Finding, Severity
from qmt_orchestration.alerts.state import State
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings

WATCHED_HERE: Final = ("tick_stream/services_alive",)  # told per service, by heartbeats


def watch_live(settings: Settings, state: State, now_ms: int) -> tuple[list[Finding], datetime]:
    """Findings of the running system (services, feed, stream), and the market's time."""
    import redis

    from qmt_orchestration.market.calendar import is_trading_day
    from qmt_orchestration.orchestration.checks.live import EXPECTED_SERVICES, live_outcomes
    from qmt_orchestration.services.desired import read_desired
    from qmt_orchestration.stream.clock import read_clock
    from qmt_orchestration.stream.connection import connect
    from qmt_orchestration.stream.heartbeat import read_all

    base = (settings.dagster_base_url or f"http://127.0.0.1:{settings.dagster_port}").rstrip("/")
    link = f"{base}/assets/tick_stream?view=checks"
    warehouse, away = _warehouse(settings), "Redis does not answer"
    client = connect(settings, retries=1)
    try:
        clock, beats = read_clock(client), read_all(client)
        desired = {name: wanted.state for name, wanted in read_desired(client).items()}
        outcomes = live_outcomes(settings, client, beats, desired, trading_day=is_trading_day(clock.today()))
    except redis.RedisError as error:
        text = f"{error}. No tick can pass; the subscriber spools to disk meanwhile. Setting: QMT_REDIS_URL."
        return [warehouse, Finding("engine:redis", True, away, text)], from_ms(now_ms)
    finally:
        client.close()
    findings = [warehouse, Finding("engine:redis", False, away, "it answers")]
    findings += watching.watch(state.services, beats, desired, EXPECTED_SERVICES, now_ms, link)
    for outcome in outcomes:
        name = f"{outcome.check.asset}/{outcome.check.name}"
        if name not in WATCHED_HERE:
            text = f"expected {outcome.expected}, found {outcome.found}"
            severity: Severity = "ERROR" if outcome.severity == dg.AssetCheckSeverity.ERROR else "WARN"
            title = f"{outcome.check.asset} / {outcome.check.name}"
            # the same key as the check's own evaluations: whoever sees it first tells it
            findings.append(
                Finding(f"check:{name}@", not outcome.passed, title, text, severity, "", watching.OWNER, link)
            )
    return findings, clock.now() if clock.simulated else from_ms(now_ms)


def _warehouse(settings: Settings) -> Finding:
    """Whether ClickHouse answers."""
    import clickhouse_connect

    from qmt_orchestration.warehouse.client import connect

    key, title = "engine:clickhouse", "ClickHouse does not answer"
    try:
        with connect(settings, database="", send_receive_timeout=10) as client:
            client.command("SELECT 1")
    except (clickhouse_connect.driver.exceptions.ClickHouseError, OSError) as error:
        text = f"{error}. The stream keeps the ticks meanwhile; no bars are made. Setting: QMT_CLICKHOUSE_URL."
        return Finding(key, True, title, text)
    return Finding(key, False, title, "it answers")
