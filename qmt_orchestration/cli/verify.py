"""`qmt verify`: closed days against what they held when they were recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from qmt_orchestration.cli.access import NOTHING, DataDir, Json, settings_of, warehouse_of
from qmt_orchestration.cli.days import trading_span
from qmt_orchestration.cli.terminal import say_json
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.verify import verify as compare


def verify(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD")],
    last: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare ticks and bars of closed days, by rows and sums per table and symbol, with what was recorded of them.

    Exit code 1 when rows are gone or were changed; `qmt backfill` makes the day again."""
    days, settings = trading_span(first, last), settings_of(data_dir)
    with warehouse_of(settings) as ready, connect(ready) as client:
        changed, unknown = compare(client, ready, days, datetime.now(SHANGHAI).date())
    if as_json:
        say_json(
            {
                "days": len(days),
                "not_recorded": [str(day) for day in unknown],
                "changed": [
                    {"day": str(c.day), "table": c.table, "symbols": c.symbols, "first": [list(f) for f in c.first]}
                    for c in changed
                ],
            }
        )
    else:
        for found in changed:
            typer.echo(str(found))
        for day in unknown:
            typer.echo(f"{day}: nothing recorded yet; the night job and `qmt backfill` record closed days")
        typer.echo(
            f"{len(days)} days verified, {len(changed)} tables changed"
            + (": repair with `qmt backfill`" if changed else "")
        )
    raise typer.Exit(NOTHING if changed else 0)
