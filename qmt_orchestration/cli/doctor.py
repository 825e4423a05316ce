"""`qmt doctor`: what to mend on this machine and its servers; `qmt probe-terminal`: what a terminal answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from qmt_orchestration.cli.access import MISUSE, DataDir, Json, fail, settings_of
from qmt_orchestration.cli.terminal import say_json, screen
from qmt_orchestration.doctor import ROLES, Diagnosis, Level, Role, error, machine, ok, servers, terminal
from qmt_orchestration.local import engines
from qmt_orchestration.services.dagster_processes import home_in_use
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_warehouse

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def doctor(
    role: Annotated[str, typer.Option(help=f"What this host is: {', '.join(ROLES)}")] = "all",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Look at Python, packages, ports, clocks, disk, xtquant, Redis, ClickHouse and Dagster; say what to mend.

    Exit code 1 when something is an error, 0 otherwise. Nothing is changed and no engine is started.
    """
    settings = settings_of(data_dir)
    chosen = next((name for name in ROLES if name == role), None)
    if chosen is None:
        fail(f"expected --role {', '.join(ROLES)}, found {role!r}", MISUSE)
    findings = []
    for finding in examine(settings, chosen):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failed = any(finding.level is Level.ERROR for finding in findings)
    if as_json:
        document = {"role": chosen, "healthy": not failed, "findings": [asdict(finding) for finding in findings]}
        say_json(document)
    raise typer.Exit(1 if failed else 0)


def examine(settings: Settings, role: Role) -> Iterator[Diagnosis]:
    """Every check of the role, one after the other."""
    yield machine.python_version()
    yield from machine.packages(role)
    yield machine.time_zone(settings)
    yield machine.settings_file(os.environ.get("QMT_ENV_FILE"))
    folder = machine.data_dir(settings.data_dir)
    yield folder
    yield machine.disk_space(settings.data_dir, role)
    if folder.level is not Level.ERROR:
        yield machine.disk_speed(settings.data_dir)
    if role in ("all", "feed"):
        yield terminal.xtquant(settings)
    if role in ("all", "warehouse"):
        yield from servers.embedded(settings)
        yield from _ports(settings)
    yield from _redis(settings, role)
    if role != "feed":
        yield from _clickhouse(settings)
    if role in ("all", "warehouse"):
        yield servers.dagster_storage(home_in_use(settings))


def _ports(settings: Settings) -> Iterator[Diagnosis]:
    for name in engines.NAMES:
        if not getattr(settings, f"{name}_url"):
            wanted, running = getattr(settings, f"{name}_port"), engines.find(settings, name)
            listens = running is not None and running.port == wanted
            yield machine.port(wanted, f"the embedded {name}", f"QMT_{name.upper()}_PORT", ours=listens)
    ours = _agent_runs(settings)
    yield machine.port(settings.dagster_port, "Dagster's pages", "QMT_DAGSTER_PORT", ours=ours)
    yield machine.port(settings.console_port, "the console", "QMT_CONSOLE_PORT", ours=ours)


def _agent_runs(settings: Settings) -> bool:
    """Whether `qmt up` or an agent works on this data folder now."""
    path = settings.run_dir / "agent.lock"
    if not path.exists():
        return False
    with only_one(path) as alone:
        return not alone


def _redis(settings: Settings, role: Role) -> Iterator[Diagnosis]:
    if not settings.redis_url and role in ("feed", "client"):
        yield error("redis", "QMT_REDIS_URL is not set", "set it to the Redis of the warehouse host (docs/install.md)")
        return
    if not settings.redis_url and engines.find(settings, "redis") is None:
        yield ok("redis", "QMT_REDIS_URL is not set: `qmt up` starts the embedded one, which does not run now")
        return
    client = connect(settings, retries=0)
    yield from servers.redis_findings(settings, client)
    client.close()


def _clickhouse(settings: Settings) -> Iterator[Diagnosis]:
    if not settings.clickhouse_url and engines.find(settings, "clickhouse") is None:
        yield ok("clickhouse", "QMT_CLICKHOUSE_URL is not set: `qmt up` starts the embedded one, which does not run")
        return
    yield from servers.clickhouse_findings(
        settings, lambda: connect_warehouse(settings, database="", send_receive_timeout=servers.ANSWER_SECONDS)
    )


def _show(finding: Diagnosis) -> None:
    line = Text(f"{finding.level.value:<8}", _COLOURS[finding.level])
    line.append(f"{finding.check}: ", "bold")
    line.append(finding.found, "default")
    screen().print(line)
    if finding.mend:
        screen().print(Text(f"        → {finding.mend}"))


def probe_terminal(
    output: Annotated[Path, typer.Option(help="File to write")] = Path("terminal.json"),
    seconds: Annotated[float, typer.Option(min=1, help="Longest wait for the terminal")] = 120.0,
    data_dir: DataDir = None,
) -> None:
    """Ask the terminal about two or three codes of each kind: tick, bars, detail, type, trading periods. Read-only.

    The file has no account or password in it. Exit code 1 when the terminal does not answer.
    """
    settings = settings_of(data_dir)
    output.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "qmt_orchestration.feed.probe", str(output)]
    environment = settings.child_environment(secrets=())
    said = ""
    try:
        asked = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
        said = asked.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1] if asked.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"the terminal did not answer within {seconds:g} s (--seconds)"
    codes = json.loads(output.read_text(encoding="utf-8"))["codes"] if output.is_file() else {}
    if said or not codes:
        kept = f"; {output} holds {len(codes)} codes" if codes else ""
        fail(f"{said or 'no code was answered'}{kept}: is MiniQMT started and logged in?")
    typer.echo(f"{len(codes)} codes written to {output}")
