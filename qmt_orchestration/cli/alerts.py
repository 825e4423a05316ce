"""``qmt alerts test | list``: whether the channels work, and what is open, waiting or given up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.cli.terminal import screen
from qmt_orchestration.settings import Settings

alerts_app = typer.Typer(help="Alerts: try the channels, see what is open.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Folder of the engines' data and logs [env QMT_DATA_DIR]")]


@alerts_app.command(name="test")
def try_channels(data_dir: DataDir = None) -> None:
    """Send a test message to every channel of QMT_ALERT_URLS; exit code 1 when one does not take it."""
    from qmt_orchestration.alerts.transport import BadAlertUrl, channels

    settings = _settings(data_dir)
    try:
        known = channels(settings)
    except BadAlertUrl as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if not known:
        typer.echo("no channels: set QMT_ALERT_URLS to [owner=]url entries separated by blanks", err=True)
        raise typer.Exit(1)
    broken = 0
    for channel in known:
        taken = channel.send(
            "[TEST] qmt alerts", f"A test from host {settings.host}: this channel works.", failed=False
        )
        typer.echo(f"channel {channel.name}: {'took the message' if taken else 'FAILED'}")
        broken += not taken
    raise typer.Exit(1 if broken else 0)


@alerts_app.command(name="list")
def list_(data_dir: DataDir = None) -> None:
    """Open incidents, notices that wait for a channel or for the session, and those set aside."""
    from rich.table import Table

    from qmt_orchestration.alerts.state import load
    from qmt_orchestration.market.sessions import from_ms

    state = load(_settings(data_dir).data_dir)
    rows: list[tuple[str, int, str, str, str, int]] = []
    for incident in state.incidents.values():
        f = incident.finding
        rows.append(("open", incident.since_ms, f.severity, f.title, f.partition, incident.repeats))
    for what, notices in (("waits", state.outbox), ("set aside", state.given_up)):
        for notice in notices:
            f = notice.finding
            verdict = f.severity if f.failed else "recovered"
            rows.append((what, notice.at_ms, verdict, f.title, f.partition, notice.repeats))
    if not rows:
        typer.echo("nothing open, nothing waits")
        return
    table = Table("", "since (Shanghai)", "severity", "what", "partition", "repeats")
    for kind, ms, severity, title, partition, repeats in rows:
        table.add_row(kind, f"{from_ms(ms):%Y-%m-%d %H:%M:%S}", severity, title, partition, str(repeats))
    screen().print(table)


def _settings(data_dir: Path | None) -> Settings:
    return Settings(data_dir=data_dir) if data_dir is not None else Settings()
