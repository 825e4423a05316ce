"""`qmt quality`: the verdict of a day as a table."""

from __future__ import annotations

from collections.abc import Mapping
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
    from qmt_orchestration.warehouse.client import connect, load_sql

    asked = days.trading_day(date) if date else None
    with warehouse_of(settings_of(data_dir)) as ready, connect(ready) as client:
        day: Date | None = asked or client.query(load_sql("report/last_day")).first_row[0]
        answer = client.query(load_sql("report/verdicts"), parameters={"day": day}) if day else None
        found = [_row(day, one) for one in answer.named_results()] if answer else []
    if not found:
        fail(f"no verdicts{f' of {day}' if day else ''}: make the day with `qmt backfill` or in Dagster")
    shown = [row for row in found if not (failed and row["verdict"] == "passed")]
    show(shown, as_json=as_json, table=lambda _: _table(day, shown))
    if any(row["verdict"] == "ERROR" for row in found):
        raise typer.Exit(NOTHING)


def _row(day: Any, one: Mapping[str, Any]) -> dict[str, str]:
    return {
        "day": str(day),
        "verdict": "passed" if one["passed"] else one["severity"],
        "table": one["asset"],
        "check": one["check"],
        "expected": one["expected"],
        "found": one["found"],
        "checked_at": str(one["checked_at"]),
    }


def _table(day: Any, found: list[dict[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    moments = sorted(row["checked_at"] for row in found)
    when = f", checked {moments[0][5:16]} to {moments[-1][5:16]}" if moments else ""
    out = Table(title=f"Data quality of {day}{when}", title_justify="left")
    for column in ("verdict", "table", "check", "found (expected)"):
        # names and verdicts stay whole in a narrow terminal; the sentences wrap
        out.add_column(column, overflow="fold", no_wrap=column != "found (expected)")
    style = {"passed": "green", "WARN": "yellow", "ERROR": "bold red"}
    for row in found:
        verdict, said = row["verdict"], f"{row['found']} (expected {row['expected']})"
        out.add_row(Text(verdict, style[verdict]), Text(row["table"]), Text(row["check"]), Text(said))
    return out
