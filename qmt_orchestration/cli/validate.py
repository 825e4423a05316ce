"""`qmt validate`: recorded data compared with our bars, as a table of match rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qmt_orchestration.cli.access import FOUND, MISUSE, NOTHING, fail, settings_of
from qmt_orchestration.cli.terminal import screen
from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.services.validate import MatchRates
from qmt_orchestration.services.validate import validate as validate_folder


def validate(
    folder: Annotated[Path | None, typer.Argument(help="Folder of recordings [env QMT_RECORDINGS_DIR]")] = None,
) -> None:
    """Compare recorded data with our bars: ticks to bars, and a vendor's minutes to its other periods.

    Ticks pass the feed's checks first: what these reject is named and in no bar.
    """
    settings = settings_of()
    chosen = folder or settings.recordings_dir
    if chosen is None:
        fail("name a folder of recordings, or set QMT_RECORDINGS_DIR", MISUSE)
    try:
        found = validate_folder(chosen, settings)
    except RecordingError as error:
        fail(str(error), MISUSE)
    _show(found)
    if not any(rate.total for rate in found.rates):
        fail(
            f"nothing to check in {chosen}: expected ticks_*.parquet|csv or bars_1m_*.csv|parquet "
            "(bars_5m_*, bars_30m_*, bars_1d_* of the same symbols and days are compared with them)",
            MISUSE,
        )
    raise typer.Exit(FOUND if found.ok else NOTHING)


def _show(found: MatchRates) -> None:
    """The table of match rates, what was not right, and what there is to know beside."""
    console = screen()
    table = Table(title="Recorded data through the warehouse")
    table.add_column("check", overflow="fold")
    for name in ("right", "of", "rate", "must be 100 %"):
        table.add_column(name, no_wrap=True)
    for rate in found.rates:
        share = f"{100 * rate.matched / rate.total:.2f} %" if rate.total else "none"
        table.add_row(rate.name, f"{rate.matched:,}", f"{rate.total:,}", share, "yes" if rate.exact else "no")
    console.print(table)
    for rate in found.rates:
        for evidence in rate.worst if rate.exact else rate.worst[:1]:
            console.print(f"{rate.name}: {evidence}", markup=False, soft_wrap=True)
    for text in found.unreadable:
        console.print(f"cannot be read: {text}", markup=False, soft_wrap=True)
    for text in found.notes:
        console.print(f"note: {text}", markup=False, soft_wrap=True)
