"""`qmt export`: bars in the form of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.cli.access import DataDir, fail, settings_of, warehouse_of
from qmt_orchestration.cli.terminal import say
from qmt_orchestration.client.errors import NoDataInRange, WarehouseAway

export_app = typer.Typer(help="Bars in the form of other programs.", no_args_is_help=True)


@export_app.callback()
def _group() -> None:
    """Bars in the form of other programs."""


@export_app.command()
def qlib(
    target: Annotated[Path, typer.Option(help="Qlib's data folder (provider_uri); it may hold an earlier export")],
    first: Annotated[str, typer.Option("--from", help="First day")],
    last: Annotated[str, typer.Option("--to", help="Last day")],
    freq: Annotated[str, typer.Option(help="day or 1min")] = "day",
    data_dir: DataDir = None,
) -> None:
    """Write a Qlib data folder, or extend one by later days; exit code 1 when nothing is stored of them."""
    from qmt_orchestration.export import qlib as command

    try:
        with warehouse_of(settings_of(data_dir)) as ready:
            done = command.export(target.expanduser(), freq, first, last, settings=ready, progress=say)
    except (NoDataInRange, WarehouseAway) as error:
        fail(str(error))
    say(
        f"{done.bars:,} bars of {done.symbols:,} symbols, {done.first} … {done.last}, in {target}; its calendar has "
        f"{done.labels:,} labels"
    )
