"""`qmt quality`: the verdict of a day as a table."""

from __future__ import annotations

from datetime import date as Date
from pathlib import Path
from typing import Annotated, Any

import typer

from qmt_orchestration.cli.terminal import screen


def quality(
    date: Annotated[str | None, typer.Option(help="Trading day; default: the newest with verdicts")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Failed checks only")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the engines' data and logs [env QMT_DATA_DIR]")
    ] = None,
) -> None:
    """Show every check of a day: passed, WARN or ERROR, with what was expected and found. Exit code 2 when one is
    ERROR."""

    from qmt_orchestration.local import engines
    from qmt_orchestration.market.calendar import NotATradingDay, require_trading_day
    from qmt_orchestration.orchestration.assets.report import verdicts
    from qmt_orchestration.settings import Settings
    from qmt_orchestration.warehouse.client import connect

    chosen: dict[str, Any] = {"data_dir": data_dir} if data_dir else {}
    try:
        with engines.ensure(Settings(**chosen)) as ready:
            client = connect(ready)
            day = require_trading_day(date) if date else _newest(client)
            found = verdicts(client, day) if day else []
    except (NotATradingDay, engines.EngineError) as error:
        typer.echo(f"qmt quality: {error}", err=True)
        raise typer.Exit(1) from None
    if not found:
        typer.echo(
            f"no verdicts{f' of {day}' if day else ''}: make the day with `qmt backfill` or in Dagster", err=True
        )
        raise typer.Exit(1)
    screen().print(_table(day, [v for v in found if not (failed and v.passed)]))
    if any(not v.passed and v.severity == "ERROR" for v in found):
        raise typer.Exit(2)


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
