"""`qmt clients`, `qmt quote`, `qmt top`: who reads the stream, the newest price of a symbol, and a live view."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import redis
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qmt_orchestration.cli.access import DataDir, Json, fail, redis_of, settings_of, warehouse_of
from qmt_orchestration.cli.terminal import WIDE, say_json, screen, show
from qmt_orchestration.client import registry
from qmt_orchestration.client.symbols import normalize_all
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.fields import number
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.warehouse.client import connect

T = TypeVar("T")
ClientId = Annotated[str, typer.Argument(help="Client id, as `qmt clients` shows it")]
_NARROW = 120  # columns
_STATES = {"running": "green", "paused": "yellow", "stopped": "dim", "down": "red"}

clients_app = typer.Typer(help="The clients of the bar stream: list, stats, stop, start, evict.", rich_markup_mode=None)


@clients_app.callback(invoke_without_command=True)
def clients(context: typer.Context, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List all clients when no subcommand is given; exit code 1 when there is none."""
    context.obj = data_dir
    if context.invoked_subcommand is None:
        _print_clients(data_dir, as_json)


@clients_app.command("list")
def list_command(context: typer.Context, as_json: Json = False) -> None:
    """Mode, group, shards, lag, pending, rate, last seen and errors of each client."""
    _print_clients(context.obj, as_json)


@clients_app.command()
def stats(context: typer.Context, client_id: ClientId, as_json: Json = False) -> None:
    """Everything that is known of one client."""
    info = _on_redis(context.obj, lambda redis: registry.read_client(redis, client_id))
    if as_json:
        say_json(asdict(info))
        return
    table = Table(show_header=False, box=None)
    for name, value in asdict(info).items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    screen().print(table)


@clients_app.command()
def stop(context: typer.Context, client_id: ClientId) -> None:
    """Pause a client after its current bars; its position is kept, its shards go to other members."""
    _on_redis(context.obj, lambda redis: registry.tell(redis, client_id, "stop"))
    typer.echo(f"{client_id}: stop requested; `qmt clients start {client_id}` continues it")


@clients_app.command()
def start(context: typer.Context, client_id: ClientId) -> None:
    """Continue a paused client where it stopped."""
    _on_redis(context.obj, lambda redis: registry.tell(redis, client_id, "run"))
    typer.echo(f"{client_id}: start requested")


@clients_app.command()
def evict(
    context: typer.Context,
    client_id: ClientId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """End a client and delete its position on the stream; bars that it has not read are not delivered to it."""
    if not yes:
        typer.confirm(f"Delete the position of {client_id} on the stream?", abort=True)
    groups = _on_redis(context.obj, lambda redis: registry.evict(redis, client_id))
    typer.echo(f"{client_id} is evicted; consumer groups destroyed: {', '.join(groups) or 'none'}")


def quote(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols; none = 000001.SZ")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The live price of symbols, from ClickHouse; exit code 1 when a symbol has none."""
    from qmt_orchestration.client.newest import DEFAULT_SYMBOL, newest_tick

    wanted = normalize_all(symbols or [DEFAULT_SYMBOL])
    with warehouse_of(settings_of(data_dir)) as ready, connect(ready) as clickhouse:
        ticks = {symbol: newest_tick(clickhouse, symbol) for symbol in wanted}
    found = [_with_time(tick) for tick in ticks.values() if tick is not None]
    if found or as_json:
        show(found, as_json=as_json, table=lambda width: _quotes(found, width))
    if unknown := [symbol for symbol, tick in ticks.items() if tick is None]:
        fail(f"no tick of {', '.join(unknown)} is stored; expected symbols like {DEFAULT_SYMBOL}")


def _with_time(tick: dict[str, Any]) -> dict[str, Any]:
    time_text = f"{from_ms(int(tick['time_ms'])):%Y-%m-%d %H:%M:%S}"
    return {"symbol": tick["symbol"], "time": time_text, **{k: v for k, v in tick.items() if k != "symbol"}}


def _quotes(ticks: list[dict[str, Any]], width: int) -> Table:
    table = Table("Symbol", "Time", box=None)
    names = ("Price", "Change", "%", "Open", "High", "Low", "Prev.", "Volume", "Amount", "Bid", "Ask")
    shown = 3 if width < _NARROW else len(names)  # what does not fit whole is left out, not cut
    for name in names[:shown]:
        table.add_column(name, justify="right")
    for tick in ticks:
        # as Chinese markets show it
        colour = "red" if tick["change"] > 0 else "green" if tick["change"] < 0 else ""
        cells: tuple[str | Text, ...] = (
            Text(f"{tick['price']:.2f}", colour),
            Text(f"{tick['change']:+.2f}", colour),
            Text(f"{tick['change_percent']:+.2f}", colour),
            *(f"{tick[name]:.2f}" for name in ("open", "high", "low", "pre_close")),
            f"{tick['vol']:,}",
            f"{tick['amount']:,.0f}",
            f"{tick['bid'][0]:.2f}" if tick["bid"] else "",
            f"{tick['ask'][0]:.2f}" if tick["ask"] else "",
        )
        table.add_row(tick["symbol"], tick["time"], *cells[:shown])
    return table


def top(
    data_dir: DataDir = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end")] = False,
) -> None:
    """Live view of the market clock, the services and the clients; Ctrl-C ends it."""
    out = screen()
    if once:
        out.print(_on_redis(data_dir, lambda redis: picture(redis, out.width)))
        return
    with (
        redis_of(settings_of(data_dir)) as client,
        suppress(KeyboardInterrupt),
        Live(console=out, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(_or_error(client, lambda one: picture(one, out.width)), refresh=True)
            time.sleep(1)


def picture(redis: Any, width: int = WIDE) -> Group:
    """Clock and feed, services, clients: what `qmt top` shows on a screen of *width* columns."""
    clock, beats = read_clock(redis), read_all(redis)
    feed = next((beat for beat in beats if beat["service"] == "subscriber"), {})
    kind = f" (simulated × {clock.speed:g})" if clock.simulated else ""
    head = f"market {clock.now():%Y-%m-%d %H:%M:%S}{kind} · {number(feed, 'rate'):,.0f} ticks/s"
    services = Table("Service", "Host", "State", title="Services", title_justify="left", box=None)
    services.add_column("Memory", justify="right")
    for beat in beats:
        state = beat.get("state", "")
        memory = f"{number(beat, 'memory_mb'):,.0f} MB" if beat.get("memory_mb") else ""
        services.add_row(beat["service"], beat["host"], Text(state, _STATES.get(state, "yellow")), memory)
    return Group(Text(head, "bold"), "", services, "", clients_table(registry.list_clients(redis), width))


def clients_table(infos: list[registry.ClientInfo], width: int = WIDE) -> Table:
    """One row per client; below 120 columns only what shows whether it keeps up."""
    narrow = width < _NARROW
    table = Table(title="Clients", title_justify="left", box=None)
    table.add_column("Client", no_wrap=True, overflow="fold")
    for name in ("State", "Mode") if narrow else ("State", "Mode", "Group", "Shards"):
        table.add_column(name)
    numbers = ("Lag", "Behind", "Rate", "Errors", "Dead", "Seen")
    for name in numbers if narrow else ("Lag", "Behind", "Pending", "Rate", "Handled", "Errors", "Dead", "Seen"):
        table.add_column(name, justify="right", no_wrap=True)
    for info in infos:
        seen = "never" if not info.seen_ms else "now" if info.seen_seconds < 6 else f"{info.seen_seconds:,.0f} s ago"
        cells: dict[str, str | Text] = {
            "Client": info.client_id,
            "State": Text(info.state, _STATES.get(info.state, "")),
            "Mode": info.mode if info.kind == "bars" else f"{info.mode} {info.kind}",
            "Group": info.group if info.mode != "broadcast" else "",
            "Shards": ",".join(info.shards) if info.mode != "broadcast" else "",
            "Lag": ("≥" if info.lag_at_least else "") + f"{info.lag_entries:,}",
            "Behind": f"{info.lag_seconds:,.1f} s",
            "Pending": f"{info.pending:,}",
            "Rate": f"{info.rate:,.1f}/s",
            "Handled": f"{info.handled:,}",
            "Errors": Text(str(info.errors), "red" if info.errors else ""),
            "Dead": Text(str(info.dead), "red" if info.dead else ""),
            "Seen": seen,
        }
        table.add_row(*(cells[str(column.header)] for column in table.columns))
    if not infos:
        table.caption = "no client has registered yet"
    return table


def _print_clients(data_dir: Path | None, as_json: bool) -> None:
    infos = _on_redis(data_dir, registry.list_clients)
    rows = [{**asdict(info), "seen_seconds": round(info.seen_seconds, 1)} for info in infos]
    if infos or as_json:
        show(rows, as_json=as_json, table=lambda width: clients_table(infos, width))
    if not infos:
        fail("no clients: nothing has read minute_bar_stream yet")


def _on_redis(data_dir: Path | None, action: Callable[[Any], T]) -> T:
    """Run *action* with a Redis client; known errors end the command with a message."""
    with redis_of(settings_of(data_dir), registry.NoSuchClient) as client:
        return action(client)


def _or_error(redis_client: Any, action: Callable[[Any], Group]) -> Group:
    try:
        return action(redis_client)
    except redis.RedisError as error:
        return Group(Text(f"waiting for Redis: {error}", "red"))
