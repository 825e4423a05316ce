"""How the commands print: a table in a terminal, plain lines with tabs in a pipe, or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qmt_orchestration.stream.fields import finite

WIDE: Final = 160  # columns


def screen() -> Console:
    """The terminal; a pipe or a file gets whole lines, however long."""
    plain = Console()
    return plain if plain.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


def show(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "", table: Callable[[int], Any] | None = None
) -> None:
    """Print *rows*: as one JSON array, as a table in a terminal, else one line each with tabs, the first of names.

    *table*: makes a table of its own for a width.
    """
    if as_json:
        say_json(rows)
        return
    out = screen()
    if out.is_terminal or "COLUMNS" in os.environ:
        out.print(table(out.width) if table else _table(rows, title))
        return
    if rows:
        typer.echo("\t".join(rows[0]))
    for row in rows:
        typer.echo("\t".join(_plain(value) for value in row.values()))


def _table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    out = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        out.add_column(column, overflow="fold")
    for row in rows:
        out.add_row(*(Text(_plain(value)) for value in row.values()))
    return out


def say(text: str) -> None:
    """Print progress or a note, beside the result: on standard error."""
    typer.echo(text, err=True)


def say_json(document: Any) -> None:
    """Print one JSON document; what JSON cannot carry becomes null or text."""
    typer.echo(json.dumps(finite(document), ensure_ascii=False, default=str, allow_nan=False))


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return " ".join(str(value).split()) if value is not None else ""
