"""``qmt dead-letters list|show|replay|drop``: what could not be handled, for a person to decide."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qmt_orchestration.cli.access import DataDir, Json, fail, redis_of, settings_of
from qmt_orchestration.cli.terminal import show as show_rows
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.stream import dead_letters

dead_letters_app = typer.Typer(help="Stream entries that could not be handled.", no_args_is_help=True)
Stream = Annotated[str, typer.Argument(help="Stream, e.g. qmt:ticks:{0}")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter of the stream")]


@dead_letters_app.command("list")
def list_(
    stream: Annotated[str | None, typer.Argument(help="Only this stream")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest letters shown per stream")] = 20,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Dead letters per stream, newest first; exit code 1 when there is none."""
    with redis_of(settings_of(data_dir), dead_letters.NoDeadLetter) as client:
        found = dead_letters.streams(client)
        chosen = [stream] if stream else list(found)
        rows = [_row(letter) for name in chosen for letter in dead_letters.read(client, name, limit=limit)]

    if rows or as_json:
        counts = ", ".join(f"{name}: {found.get(name, 0)} dead letters" for name in chosen)
        show_rows(rows, as_json=as_json, title=counts)
    if not rows:
        fail("no dead letters")


def _row(letter: dead_letters.DeadLetter) -> dict[str, Any]:
    return {
        "stream": letter.stream,
        "id": letter.id,
        "at": f"{from_ms(letter.at_ms):%Y-%m-%d %H:%M:%S}",
        "source id": letter.source_id,
        "group": letter.group,
        "tries": letter.deliveries,
        "bytes": sum(len(value) for value in letter.fields.values()),
        "error": letter.error[:200],
    }


@dead_letters_app.command()
def show(stream: Stream, letter_id: Annotated[str, typer.Argument(metavar="ID")], data_dir: DataDir = None) -> None:
    """One dead letter whole: reason and fields (long values cut for the screen)."""
    with redis_of(settings_of(data_dir), dead_letters.NoDeadLetter) as client:
        letter = dead_letters.show(client, stream, letter_id)
    typer.echo(f"{letter.stream} {letter.source_id}, group {letter.group}, {letter.deliveries} tries")
    typer.echo(f"error: {letter.error}")
    for name, value in letter.fields.items():
        typer.echo(f"{name.decode(errors='replace')}: {len(value)} bytes {value[:400]!r}")


@dead_letters_app.command()
def replay(stream: Stream, ids: Ids = None, every: All = False, data_dir: DataDir = None) -> None:
    """Publish dead letters again on their stream, e.g. after a release that handles them."""
    chosen = _chosen(ids, every)
    with redis_of(settings_of(data_dir), dead_letters.NoDeadLetter) as client:
        count = dead_letters.replay(client, stream, chosen)
    typer.echo(f"{count} published again on {stream}")


@dead_letters_app.command()
def drop(stream: Stream, ids: Ids = None, every: All = False, data_dir: DataDir = None) -> None:
    """Remove dead letters permanently."""
    chosen = _chosen(ids, every)
    with redis_of(settings_of(data_dir), dead_letters.NoDeadLetter) as client:
        count = dead_letters.drop(client, stream, chosen)
    typer.echo(f"{count} dropped from {stream}")


def _chosen(ids: list[str] | None, every: bool) -> list[str] | None:
    if bool(ids) == every:
        raise typer.BadParameter("give ids, or --all")
    return ids or None
