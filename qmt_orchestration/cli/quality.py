"""`qmt quality`: the verdict of a day as a table."""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Any

import typer

from qmt_orchestration.cli import days
from qmt_orchestration.cli.access import NOTHING, DataDir, Json, fail, settings_of, warehouse_of
from qmt_orchestration.cli.terminal import show


def quality(
    date: Annotated[str | None, typer.Option(help="Trading day; default: the newest with verdicts")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Failed checks only")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show every check of a day: passed, WARN or ERROR, with what was expected and found. Exit code 1 when one is
    ERROR, or when the day has no verdicts."""

    from qmt_orchestration.orchestration.assets.report import verdicts
    from qmt_orchestration.warehouse.client import connect

    asked = days.trading_day(date) if date else None
    with warehouse_of(settings_of(data_dir)) as ready, connect(ready) as client:
        day = asked or _newest(client)
        found = verdicts(client, day) if day else []
    if not found:
        fail(f"no verdicts{f' of {day}' if day else ''}: make the day with `qmt backfill` or in Dagster")
    shown = [v for v in found if not (failed and v.passed)]
    rows = [
        {"day": str(day), "verdict": v.word, "table": v.asset, "check": v.check, "expected": v.expected,
         "found": v.found, "checked_at": str(v.checked_at)}
        for v in shown
    ]  # fmt: skip
    show(rows, lambda _: _table(day, shown), as_json=as_json)
    if any(not v.passed and v.severity == "ERROR" for v in found):
        raise typer.Exit(NOTHING)


def _newest(client: Any) -> Date | None:
    from qmt_orchestration.warehouse.client import load_sql

    day: Date | None = client.query(load_sql("report/last_day")).first_row[0]
    return day


def _table(day: Any, found: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    moments = sorted(v.checked_at for v in found)
    when = f", checked {moments[0]:%m-%d %H:%M} to {moments[-1]:%m-%d %H:%M}" if moments else ""
    out = Table(title=f"Data quality of {day}{when}", title_justify="left")
    for column in ("verdict", "table", "check", "found (expected)"):
        # names and verdicts stay whole in a narrow terminal; the sentences wrap
        out.add_column(column, overflow="fold", no_wrap=column != "found (expected)")
    style = {"passed": "green", "WARN": "yellow", "ERROR": "bold red"}
    for v in found:
        out.add_row(
            Text(v.word, style[v.word]), Text(v.asset), Text(v.check), Text(f"{v.found} (expected {v.expected})")
        )
    return out
