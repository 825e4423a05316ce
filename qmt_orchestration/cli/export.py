"""`qmt export`: bars in the form of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.settings import Settings

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
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the engines' data [env QMT_DATA_DIR]")] = None,
) -> None:
    """Write a Qlib data folder, or extend one by later days."""
    from qmt_orchestration.client.errors import QueryError, WarehouseAway
    from qmt_orchestration.export import qlib as command

    settings = Settings(**({"data_dir": data_dir} if data_dir is not None else {}))  # type: ignore[arg-type]
    try:
        done = command.export(
            target, freq, first, last, settings=settings, progress=lambda text: typer.echo(text, err=True)
        )
    except (QueryError, WarehouseAway, OSError) as error:
        typer.echo(f"qmt export qlib: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(
        f"{done.bars:,} bars of {done.symbols:,} symbols, {done.first} … {done.last}, in {target}; its calendar has "
        f"{done.labels:,} labels",
        err=True,
    )
