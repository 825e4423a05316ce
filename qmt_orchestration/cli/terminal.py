"""How the commands print: a table in a terminal, plain lines with tabs in a pipe, or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import typer
from rich.console import Console

from qmt_orchestration.stream.fields import finite

WIDE: Final = 160  # columns


def screen() -> Console:
    """The terminal; a pipe or a file gets whole lines, however long."""
    plain = Console()
    return plain if plain.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


def show(rows: Sequence[Mapping[str, Any]], table: Callable[[int], Any], *, as_json: bool) -> None:
    """Print *rows*: as one JSON array, as *table* (made for a width) in a terminal, else one line each with tabs.

    The first line of a pipe names the columns.
    """
    if as_json:
        say_json(rows)
        return
    out = screen()
    if out.is_terminal or "COLUMNS" in os.environ:
        out.print(table(out.width))
        return
    if rows:
        typer.echo("\t".join(rows[0]))
    for row in rows:
        typer.echo("\t".join(_plain(value) for value in row.values()))


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
