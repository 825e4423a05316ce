"""The `qmt` command. Each group of subcommands is a module of this package; this file puts them together."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.cli import clients, services, warehouse
from qmt_orchestration.cli.access import MISUSE, DataDir, explain, fail, settings_of
from qmt_orchestration.cli.alerts import alerts_app
from qmt_orchestration.cli.backup import backup, restore
from qmt_orchestration.cli.dead_letters import dead_letters_app
from qmt_orchestration.cli.doctor import doctor, probe_terminal
from qmt_orchestration.cli.export import export_app
from qmt_orchestration.cli.quality import quality
from qmt_orchestration.cli.repair import backfill, override_bar, verify
from qmt_orchestration.cli.terminal import say, say_json
from qmt_orchestration.cli.validate import validate
from qmt_orchestration.local.engines import EngineError
from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.services.replay import ReplayError
from qmt_orchestration.services.replay import replay as play
from qmt_orchestration.services.up import UpError
from qmt_orchestration.services.up import up as run_up

app = typer.Typer(
    name="qmt",
    help="A-share market data from QMT through Redis into ClickHouse, watched by Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def up(
    data_dir: DataDir = None,
    symbols: Annotated[int | None, typer.Option(min=1, max=6000, help="Symbols of the simulated market")] = None,
    speed: Annotated[
        float | None, typer.Option(min=0, help="Market seconds per second; default: as fast as this machine holds")
    ] = None,
    date: Annotated[str | None, typer.Option(help="Trading day to begin with; default: go on where it stopped")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Planted fault, e.g. drop-symbols=20@10:15")] = None,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="Without Dagster's webserver and the console")] = False,
) -> None:
    """Start everything on this machine and show what flows; Ctrl-C ends it and leaves the data."""
    settings = settings_of(data_dir, sim_symbols=symbols, sim_faults=tuple(fault) if fault else None)
    if speed is None and "sim_speed" in settings.model_fields_set:
        speed = settings.sim_speed
    try:
        code = run_up(settings, chosen_date=date, speed=speed, ui=not no_ui, say=say)
    except (UpError, ValueError, OSError, EngineError) as error:
        say(f"qmt up: {error}")
        raise typer.Exit(1) from None
    raise typer.Exit(code)


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(help="Recorded ticks, Parquet or CSV")],
    data_dir: DataDir = None,
    speed: Annotated[float, typer.Option(min=0, help="Market seconds per second; 0 = as fast as it goes")] = 0.0,
) -> None:
    """Play recorded ticks through the whole path and account for every one; the last line printed is JSON."""
    from qmt_orchestration.orchestration.backfill import materialize_days

    if missing := [str(path.resolve()) for path in files if not path.is_file()]:
        fail(f"expected recordings, found no file at {', '.join(missing)}", MISUSE)
    live = sys.stderr.isatty()
    last = ""

    def progress(text: str) -> None:
        nonlocal last
        if text != last:
            typer.echo(("\r\x1b[2K" if live else "") + text, err=True, nl=not live)
        last = text

    settings = settings_of(data_dir)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has them ignored, as behind "&"
        signal.signal(number, signal.default_int_handler)
    try:
        account = play(settings, files, speed=speed, materialize=materialize_days, progress=progress)
    except (ReplayError, RecordingError, ValueError, EngineError) as error:
        say(f"\nqmt replay: {error}" if live else f"qmt replay: {error}")
        raise typer.Exit(MISUSE if isinstance(error, RecordingError) else 1) from None
    except KeyboardInterrupt:
        say("\nqmt replay: interrupted; what was stored stays, and playing the same files again changes none of it")
        raise typer.Exit(130) from None
    if live:
        typer.echo("", err=True)
    say_json({**account.__dict__, "complete": account.complete})
    raise typer.Exit(0 if account.complete else 1)


app.command()(warehouse.sql)
app.command()(warehouse.migrate)
app.command()(warehouse.bars)
app.command()(validate)
app.command()(backfill)
app.command()(verify)
app.command()(override_bar)
app.command()(quality)
app.command()(doctor)
app.command()(probe_terminal)
app.command()(backup)
app.command()(restore)
app.command()(services.agent)
app.command()(services.status)
app.command()(services.start)
app.command()(services.stop)
app.command()(services.restart)
app.command()(clients.quote)
app.command()(clients.top)
app.add_typer(clients.clients_app, name="clients")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(alerts_app, name="alerts")
app.add_typer(export_app, name="export")


def main() -> None:
    """Entry point: text streams are UTF-8 everywhere, also on Windows; an error is one line and an exit code."""
    if os.name == "nt":
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # pythonw, as the Windows task starts it, has none
                stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    os.umask(0o077)  # data, logs and passwords are this user's alone; child processes inherit it
    try:
        app()
    except BrokenPipeError:  # `qmt … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # a person at a terminal needs one line, not a traceback
        code, text = explain(error)
        say(f"qmt: {text}")
        sys.exit(code)


if __name__ == "__main__":
    main()
