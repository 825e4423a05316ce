"""`qmt sql` and `qmt migrate`: any query against the warehouse in use, and its tables brought up to date."""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import urlencode

import typer

from qmt_orchestration.cli import days
from qmt_orchestration.cli.access import MISUSE, DataDir, Json, fail, settings_of, warehouse_of
from qmt_orchestration.cli.terminal import say, say_json
from qmt_orchestration.client import adjust as adjustment
from qmt_orchestration.client.errors import NoDataInRange, UnknownSymbol, WarehouseAway
from qmt_orchestration.client.symbols import normalize_all
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.migrate import OldSchema, UpgradeError
from qmt_orchestration.warehouse.migrate import migrate as run


class SqlError(RuntimeError):
    """The query could not be answered; the message is the server's, or says what is missing."""


def sql(
    query: Annotated[str, typer.Argument(help="The statement; - reads it from standard input")],
    data_dir: DataDir = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="ClickHouse format; default PrettyCompact, TSV when piped")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Also run statements that change the warehouse")] = False,
) -> None:
    """Read from the warehouse in use; its embedded engine is started for the moment when none runs.

    The server refuses statements that change anything unless --write is given.
    """
    settings = settings_of(data_dir)
    statement = sys.stdin.buffer.read() if query == "-" else query.encode()
    chosen = output_format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparated")
    try:
        with warehouse_of(settings) as ready:
            copy_result(ready, statement, chosen, sys.stdout.buffer, write=write)
    except BrokenPipeError:  # `qmt sql … | head`
        sys.stderr.close()
        raise typer.Exit(0) from None
    except SqlError as error:
        fail(str(error))


def migrate(data_dir: DataDir = None) -> None:
    """Create the warehouse's tables, or bring them up to date; safe to repeat."""
    try:
        with engines.ensure(settings_of(data_dir), names=("clickhouse",)) as ready:
            run(ready, say)
            say(f"the tables of database {ready.clickhouse_database} are up to date")
    except (engines.EngineError, OldSchema, UpgradeError) as error:
        fail(str(error))


def copy_result(
    settings: Settings, statement: bytes, output_format: str, out: BinaryIO, *, write: bool = False
) -> None:
    """Send *statement* to ``clickhouse_url`` and copy the bytes of the answer to *out*, as they come.

    A statement's own FORMAT wins over *output_format*. Unless *write*, the server lets it read only. Raises
    :class:`SqlError` with the server's message.
    """
    fields = {"database": settings.clickhouse_database, "default_format": output_format, "final": "1"}
    if not write:
        fields["readonly"] = "2"  # 2: settings of the statement itself are still its own
    request = urllib.request.Request(  # noqa: S310 - the URL is the user's own setting
        f"{settings.clickhouse_url.rstrip('/')}/?{urlencode(fields)}", data=statement, headers=_credentials(settings)
    )
    context = ssl.create_default_context(cafile=settings.clickhouse_ca_file) if settings.clickhouse_ca_file else None
    handlers: list[Any] = [urllib.request.HTTPSHandler(context=context)] if context else []
    if settings.clickhouse_url.startswith("http://127.0.0.1"):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy of the environment cannot reach loopback
    tail = b""
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=3600) as reply:
            tag = (reply.headers.get("X-ClickHouse-Exception-Tag") or "").encode()
            while block := reply.read(1 << 16):
                out.write(block)
                tail = (tail + block)[-(1 << 16) :]
            out.flush()
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace").strip() or f"HTTP {error.code} {error.reason}"
        hint = "\nqmt sql only reads; --write lets it change the warehouse" if "(READONLY)" in text else ""
        raise SqlError(text + hint) from error
    except urllib.error.URLError as error:
        raise SqlError(f"no ClickHouse at {settings.clickhouse_url} (QMT_CLICKHOUSE_URL): {error.reason}") from error
    if tag and b"__exception__\r\n" + tag in tail:  # it failed after the first rows were sent
        raise SqlError(tail.split(b"__exception__\r\n" + tag, 1)[1].decode(errors="replace").strip().splitlines()[0])


def _credentials(settings: Settings) -> dict[str, str]:
    password = settings.engine_password("clickhouse")
    if not password and settings.clickhouse_username == "default":
        return {}
    return {"X-ClickHouse-User": settings.clickhouse_username, "X-ClickHouse-Key": password}


def bars(
    symbols: Annotated[list[str], typer.Argument(help="600519 000001.SZ …")],
    date: Annotated[str, typer.Option(help="Day, or first day of a range, YYYY-MM-DD")],
    to: Annotated[str | None, typer.Option(help="Last day of the range; default: the same day")] = None,
    period: Annotated[str, typer.Option(help="1m, any Nm up to 240m, 1d, 1w, 1mo")] = "1m",
    adjust: Annotated[str | None, typer.Option(help="Adjusted prices: front, back, front_ratio or back_ratio")] = None,
    output: Annotated[Path | None, typer.Option(help="Write there instead: .csv or .parquet")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print bars, or export them; the same as `qmt_orchestration.client.bars` in a notebook. Exit code 1: there are
    none."""
    from qmt_orchestration.client import api
    from qmt_orchestration.client.bar_queries import period_of

    if output is not None and output.suffix not in (".csv", ".parquet"):
        fail(f"expected an --output that ends in .csv or .parquet, found {output.name!r}", MISUSE)
    first, last = days.span(date, to or date)
    wanted, name, how = normalize_all(symbols), period_of(period), adjustment.check(adjust)
    nothing = f"no {period} bars of {', '.join(wanted)} on {first}" + (f" to {last}" if last != first else "")
    try:
        with warehouse_of(settings_of(data_dir)) as ready:
            found = api.bars(wanted, first, last, name, how, settings=ready)
    except (NoDataInRange, UnknownSymbol) as error:
        if as_json:
            say_json([])
        fail(f"{nothing}: {error}")
    except WarehouseAway as error:
        fail(str(error))
    if not len(found):
        if as_json:
            say_json([])
        fail(nothing)
    if output is None:
        _print_bars(found, as_json)
        return
    if output.suffix == ".csv":
        found.to_csv(output, index=False)
    else:
        found.to_parquet(output, index=False)
    say(f"{len(found):,} bars in {output}")


def _print_bars(found: Any, as_json: bool) -> None:
    """A table in a terminal, else lines with tabs: market time without its offset, as the tables show it."""
    found["frame"] = found["frame"].dt.strftime("%Y-%m-%d %H:%M:%S")
    if as_json:
        say_json(found.to_dict("records"))
    elif sys.stdout.isatty():
        typer.echo(found.to_string(index=False))
    else:
        typer.echo(found.to_csv(sep="\t", index=False, lineterminator="\n"), nl=False)
