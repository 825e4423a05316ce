"""``qmt agent``, ``qmt status``, ``qmt start | stop | restart``: the services from the command line."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Annotated, Any

import redis
import typer
from rich import box
from rich.table import Table

from qmt_orchestration.cli.access import DataDir, fail, redis_of, redis_problem, settings_of
from qmt_orchestration.cli.terminal import say_json, screen
from qmt_orchestration.services.agent import run_agent
from qmt_orchestration.services.dagster_processes import dagster_services
from qmt_orchestration.services.desired import Desired, ask_restart, read_desired, set_desired
from qmt_orchestration.services.link import CLOCKS_APART_MS
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.services.registry import DAGSTER, SERVICES, Service, UnknownService, get_service
from qmt_orchestration.services.state import read_state
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.fields import number
from qmt_orchestration.stream.heartbeat import read_all, reported
from qmt_orchestration.warehouse.client import connect as connect_warehouse

ServiceName = Annotated[str, typer.Argument(help=f"One of {', '.join((*SERVICES, *DAGSTER))}")]
Row = dict[str, str]


def agent(
    services: Annotated[str, typer.Option(help="Services of this host, separated by commas")] = ",".join(SERVICES),
    data_dir: DataDir = None,
) -> None:
    """Start the services of this host, watch them and keep them in their desired state, until Ctrl-C or SIGTERM."""
    settings = settings_of(data_dir)
    names = tuple(name.strip() for name in services.split(",") if name.strip())
    try:
        wanted = services_of(settings, names)
    except (UnknownService, ValueError, OSError) as error:
        fail(str(error))
    if not wanted:
        fail(f"expected at least one of {', '.join((*SERVICES, *DAGSTER))} in --services, found none")
    stop = threading.Event()
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stop.set())
    # pythonw on Windows has no standard streams
    set_up_logging(settings, "agent", settings.data_dir / "logs" if sys.stderr is None else None)
    raise typer.Exit(run_agent(settings, wanted, stop))


def services_of(settings: Settings, names: tuple[str, ...]) -> list[Service]:
    """The services of these names, ours and Dagster's. The subscriber of a recording has an end."""
    dagster = tuple(name for name in names if name in DAGSTER)
    ours = [get_service(name) for name in names if name not in DAGSTER]
    if settings.feed == "replay":
        ours = [replace(service, once=service.name == "subscriber") for service in ours]
    return [*ours, *(dagster_services(settings, dagster) if dagster else [])]


def status(
    data_dir: DataDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; exit code 0 healthy, 1 degraded, 2 unreachable")
    ] = False,
) -> None:
    """The market's clock and every service: state (and the wanted one, where it differs), heartbeat, rate, delay, lag,
    memory, restarts."""
    if as_json:
        code, answer = state_of(settings_of(data_dir))
        say_json(answer)
        raise typer.Exit(code)
    with redis_of(settings_of(data_dir), UnknownService) as client:
        clock, rows = read_clock(client), status_rows(read_all(client), read_desired(client), time.time() * 1000)
    speed = f" (simulated, {clock.reason or f'{clock.speed:g} ×'})" if clock.simulated else ""
    table = Table(title=f"market time {clock.now():%Y-%m-%d %H:%M:%S}{speed}", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown = [name for name in rows[0] if name != "desired" and any(row[name] not in ("", "–") for row in rows)]
    for column in shown:
        left = column in ("service", "host", "state", "note")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "note", overflow="fold")
    for row in rows:
        healthy = row["state"] == row["desired"] or row["state"] in ("standby", "finished")
        if not healthy:
            row["state"] += f" (wanted: {row['desired']})"
        table.add_row(*(row[name] for name in shown), style="" if healthy else "red")
    screen().print(table)


def state_of(settings: Settings) -> tuple[int, dict[str, Any]]:
    """What ``qmt status --json`` answers: exit code and object."""
    redis_client = connect(settings, retries=0)
    warehouse = None
    with suppress(Exception):  # an absent ClickHouse is one of the state's reasons
        warehouse = connect_warehouse(settings, connect_timeout=3, send_receive_timeout=5)
    try:
        state = read_state(redis_client, warehouse, settings)
    except redis.RedisError as error:
        return 2, {"error": redis_problem(settings, error)}
    finally:
        redis_client.close()
    return state.exit_code, asdict(state)


def start(service: ServiceName, data_dir: DataDir = None) -> None:
    """Say that SERVICE should run; the agents of its hosts start it."""
    with redis_of(settings_of(data_dir), UnknownService) as client:
        set_desired(client, service, "running")
    typer.echo(f"{service}: desired state is running")


def stop(service: ServiceName, data_dir: DataDir = None) -> None:
    """Say that SERVICE should not run; the agents of its hosts stop it gracefully."""
    with redis_of(settings_of(data_dir), UnknownService) as client:
        set_desired(client, service, "stopped")
    typer.echo(f"{service}: desired state is stopped")


def restart(service: ServiceName, data_dir: DataDir = None) -> None:
    """Ask for one graceful restart of SERVICE."""
    with redis_of(settings_of(data_dir), UnknownService) as client:
        number = ask_restart(client, service)
    typer.echo(f"{service}: restart {number} asked for")


def status_rows(beats: list[dict[str, str]], desired: Mapping[str, Desired], now_ms: float) -> list[Row]:
    """One row per service and host from heartbeats and the agents' reports; known services that run nowhere too."""
    own = {(beat["host"], beat["service"]): beat for beat in beats if beat["service"] != "agent"}
    reports = {(beat["host"], name): report for beat in beats for name, report in reported(beat).items()}
    places = set(own) | set(reports)
    places |= {("", name) for name in SERVICES if name not in {service for _, service in places}}
    agents = [_agent_row(beat, now_ms) for beat in beats if beat["service"] == "agent"]
    order = {name: i for i, name in enumerate(SERVICES)}
    rows = [
        _service_row(host, name, own.get((host, name), {}), reports.get((host, name), {}), desired, now_ms)
        for host, name in sorted(places, key=lambda p: (order.get(p[1], 99), p[1], p[0]))
    ]
    return agents + rows


def _agent_row(beat: dict[str, str], now_ms: float) -> Row:
    row = _service_row(beat["host"], "agent", beat, {}, {}, now_ms)
    skew_ms = number(beat, "clock_skew_ms")
    if abs(skew_ms) > CLOCKS_APART_MS:
        row["note"] = f"clock {abs(skew_ms) / 1000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} Redis' host"
    return row


def _service_row(
    host: str,
    name: str,
    beat: Mapping[str, str],
    report: Mapping[str, str],
    desired: Mapping[str, Desired],
    now_ms: float,
) -> Row:
    state = report.get("state", "") or beat.get("state", "") or "absent"
    if state == "running" and beat.get("state") == "standby":
        state = "standby"
    age = (now_ms - number(beat, "beat_ms")) / 1000 if "beat_ms" in beat else None
    last_exit = report.get("last_exit", "")
    return {
        "service": name,
        "host": host or "–",
        "state": state,
        "desired": desired.get(name, Desired()).state,
        "beat": "–" if age is None else f"{max(age, 0):.1f} s",
        "rate": _first(beat, ("rate",), "{:,.0f}/s"),
        "delay p99": _first(beat, ("delay_p99_ms", "delay_ms"), "{:,.0f} ms"),
        "lag": _first(beat, ("lag_entries", "lag"), "{:,.0f}"),
        "memory": _first({**beat, **report}, ("memory_mb",), "{:,.0f} MB"),
        "restarts": report.get("restarts", "–"),
        "last exit": last_exit or "–",
        "note": beat.get("error", "") or report.get("reason", ""),
    }


def _first(fields: Mapping[str, str], names: tuple[str, ...], form: str) -> str:
    """The first of these statistics that is there, formatted; a dash when none is a number (-1: not known yet)."""
    value = next((number(fields, name, -1.0) for name in names if name in fields), -1.0)
    return form.format(value) if value >= 0 else "–"
