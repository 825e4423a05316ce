"""``qmt dead-letters list|show|replay|drop``: what could not be handled, for a person to decide."""

from __future__ import annotations

from typing import Annotated, Any

import redis
import typer
from rich.table import Table

from qmt_orchestration.cli.terminal import screen
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings, get_settings
from qmt_orchestration.stream import dead_letters
from qmt_orchestration.stream.connection import connect

dead_letters_app = typer.Typer(help="Stream entries that could not be handled.", no_args_is_help=True)
Stream = Annotated[str, typer.Argument(help="Stream, e.g. qmt:ticks:{0}")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter of the stream")]


@dead_letters_app.command("list")
def list_(
    stream: Annotated[str | None, typer.Argument(help="Only this stream")] = None,
    limit: Annotated[int, typer.Option(help="Newest letters shown per stream")] = 20,
) -> None:
    """Dead letters per stream, newest first."""
    client = _client()
    found = dead_letters.streams(client)
    chosen = [stream] if stream else list(found)
    if not any(found.get(name) for name in chosen):
        typer.echo("no dead letters")
        return
    for name in chosen:
        table = Table(title=f"{name}: {found.get(name, 0)} dead letters", title_justify="left")
        for column in ("id", "at", "source id", "group", "tries", "bytes", "error"):
            table.add_column(column, overflow="fold")
        for letter in dead_letters.read(client, name, limit=limit):
            at = f"{from_ms(letter.buried_ms):%Y-%m-%d %H:%M:%S}"
            size = sum(len(value) for value in letter.fields.values())
            row = (letter.id, at, letter.source_id, letter.group, str(letter.deliveries), str(size), letter.error[:200])
            table.add_row(*row)
        screen().print(table)


@dead_letters_app.command()
def show(stream: Stream, letter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One dead letter whole: reason and fields (long values cut for the screen)."""
    try:
        letter = dead_letters.show(_client(), stream, letter_id)
    except dead_letters.NoDeadLetter as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"{letter.stream} {letter.source_id}, group {letter.group}, {letter.deliveries} tries")
    typer.echo(f"error: {letter.error}")
    for name, value in letter.fields.items():
        typer.echo(f"{name.decode(errors='replace')}: {len(value)} bytes {value[:400]!r}")


@dead_letters_app.command()
def replay(stream: Stream, ids: Ids = None, every: All = False) -> None:
    """Publish dead letters again on their stream, e.g. after a mended release."""
    try:
        count = dead_letters.replay(_client(), stream, _chosen(ids, every))
    except dead_letters.NoDeadLetter as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"{count} published again on {stream}")


@dead_letters_app.command()
def drop(stream: Stream, ids: Ids = None, every: All = False) -> None:
    """Remove dead letters for good."""
    count = dead_letters.drop(_client(), stream, _chosen(ids, every))
    typer.echo(f"{count} dropped from {stream}")


def _chosen(ids: list[str] | None, every: bool) -> list[str] | None:
    if bool(ids) == every:
        raise typer.BadParameter("give ids, or --all")
    return ids or None


def _client() -> Any:
    settings: Settings = get_settings()
    client = connect(settings)
    try:
        client.ping()
    except redis.ConnectionError as error:
        raise typer.BadParameter(f"Redis does not answer ({error}); set QMT_REDIS_URL or start it") from error
    return client
