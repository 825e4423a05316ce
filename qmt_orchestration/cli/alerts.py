"""``qmt alerts test | list``: whether the channels work, and what is open, waiting or given up."""

from __future__ import annotations

import typer

from qmt_orchestration.alerts.state import BrokenState, read
from qmt_orchestration.alerts.transport import BadAlertUrl, channels
from qmt_orchestration.cli.access import MISUSE, NOTHING, DataDir, Json, fail, settings_of
from qmt_orchestration.cli.terminal import show
from qmt_orchestration.market.sessions import from_ms

alerts_app = typer.Typer(help="Alerts: try the channels, see what is open.", no_args_is_help=True)


@alerts_app.command(name="test")
def try_channels(data_dir: DataDir = None) -> None:
    """Send a test message to every channel of QMT_ALERT_URLS; exit code 1 when one does not take it."""
    settings = settings_of(data_dir)
    try:
        known = channels(settings)
    except BadAlertUrl as error:
        fail(str(error), MISUSE)
    if not known:
        fail("no channels: set QMT_ALERT_URLS to [owner=]url entries separated by blanks")
    broken = 0
    for channel in known:
        taken = channel.send(
            "[TEST] qmt alerts", f"A test from host {settings.host}: this channel works.", failed=False
        )
        typer.echo(f"channel {channel.name}: {'took the message' if taken else 'FAILED'}")
        broken += not taken
    if broken:
        raise typer.Exit(NOTHING)


@alerts_app.command(name="list")
def list_(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Open incidents, notices that wait for a channel or for the session, and those given up; exit code 1 when there
    is none."""
    try:
        state = read(settings_of(data_dir).data_dir)
    except BrokenState as error:
        fail(str(error))
    rows: list[tuple[str, int, str, str, str, int]] = []
    for incident in state.incidents.values():
        f = incident.finding
        rows.append(("open", incident.since_ms, f.severity, f.title, f.partition, incident.repeats))
    for what, notices in (("waits", state.outbox), ("given up", state.given_up)):
        for notice in notices:
            f = notice.finding
            verdict = f.severity if f.failed else "recovered"
            rows.append((what, notice.at_ms, verdict, f.title, f.partition, notice.repeats))
    names = ("state", "since", "severity", "what", "partition", "repeats")  # since: Shanghai
    shown = [dict(zip(names, (row[0], f"{from_ms(row[1]):%Y-%m-%d %H:%M:%S}", *row[2:]), strict=True)) for row in rows]

    if shown or as_json:
        show(shown, as_json=as_json)
    if not shown:
        fail("nothing open, nothing waits")
