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

from qmt_orchestration.settings import Settings

DataDir = Annotated[Path | None, typer.Option(help="Folder of the engines' data and logs [env QMT_DATA_DIR]")]


class SqlError(RuntimeError):
    """The query could not be answered; the message is the server's, or says what is missing."""


def sql(
    query: Annotated[str, typer.Argument(help="The statement; - reads it from standard input")],
    data_dir: DataDir = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="ClickHouse format; default PrettyCompact, TSV when piped")
    ] = None,
) -> None:
    """Run a query against the warehouse in use; its embedded engine is started for the moment when none runs."""
    from qmt_orchestration.local import engines

    settings = _settings(data_dir)
    statement = sys.stdin.buffer.read() if query == "-" else query.encode()
    chosen = output_format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparated")
    try:
        _require_warehouse(settings)
        with engines.ensure(settings, names=("clickhouse",)) as ready:
            copy_result(ready, statement, chosen, sys.stdout.buffer)
    except BrokenPipeError:  # `qmt sql … | head`
        sys.stderr.close()
        raise typer.Exit(0) from None
    except (SqlError, engines.EngineError) as error:
        typer.echo(f"qmt sql: {error}", err=True)
        raise typer.Exit(1) from None


def migrate(data_dir: DataDir = None) -> None:
    """Create the warehouse's tables, or bring them up to date; safe to repeat."""
    from qmt_orchestration.local import engines
    from qmt_orchestration.warehouse.migrate import migrate as run

    try:
        with engines.ensure(_settings(data_dir), names=("clickhouse",)) as ready:
            run(ready)
            typer.echo(f"the tables of database {ready.clickhouse_database} are up to date", err=True)
    except engines.EngineError as error:
        typer.echo(f"qmt migrate: {error}", err=True)
        raise typer.Exit(1) from None


def copy_result(settings: Settings, statement: bytes, output_format: str, out: BinaryIO) -> None:
    """Send *statement* to ``clickhouse_url`` and copy the bytes of the answer to *out*, as they come.

    A statement's own FORMAT wins over *output_format*. Raises :class:`SqlError` with the server's message.
    """
    fields = {"database": settings.clickhouse_database, "default_format": output_format, "final": "1"}
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
        raise SqlError(error.read().decode(errors="replace").strip() or f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise SqlError(f"no ClickHouse at {settings.clickhouse_url} (QMT_CLICKHOUSE_URL): {error.reason}") from error
    if tag and b"__exception__\r\n" + tag in tail:  # it failed after the first rows were sent
        raise SqlError(tail.split(b"__exception__\r\n" + tag, 1)[1].decode(errors="replace").strip().splitlines()[0])


def _credentials(settings: Settings) -> dict[str, str]:
    password = settings.clickhouse_password.get_secret_value() if settings.clickhouse_password else ""
    if not password and settings.clickhouse_username == "default":
        return {}
    return {"X-ClickHouse-User": settings.clickhouse_username, "X-ClickHouse-Key": password}


def _require_warehouse(settings: Settings) -> None:
    from qmt_orchestration.local.engines import find, warehouse_path

    if settings.clickhouse_url or (warehouse_path(settings) / "metadata").is_dir() or find(settings, "clickhouse"):
        return
    raise SqlError(
        f"{settings.data_dir} holds no warehouse: choose its folder with --data-dir (or QMT_DATA_DIR), set "
        "QMT_CLICKHOUSE_URL to a server, or make one with `qmt up`, `qmt replay` or `qmt migrate`"
    )


def _settings(data_dir: Path | None) -> Settings:
    return Settings(**({"data_dir": data_dir} if data_dir is not None else {}))  # type: ignore[arg-type]


def bars(
    symbols: Annotated[list[str], typer.Argument(help="600519 000001.SZ …")],
    date: Annotated[str, typer.Option(help="Day, or first day of a range, YYYY-MM-DD")],
    to: Annotated[str | None, typer.Option(help="Last day of the range; default: the same day")] = None,
    period: Annotated[str, typer.Option(help="1m, any Nm up to 240m, 1d, 1w, 1mo")] = "1m",
    adjust: Annotated[str | None, typer.Option(help="Adjusted prices: front, back, front_ratio or back_ratio")] = None,
    output: Annotated[Path | None, typer.Option(help="Write there instead: .csv or .parquet")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print bars, or export them; the same as `qmt_orchestration.client.bars` in a notebook."""
    from qmt_orchestration.client import api
    from qmt_orchestration.client.errors import WarehouseAway

    settings = _settings(data_dir)
    try:
        if output is not None and output.suffix not in (".csv", ".parquet"):
            raise ValueError(f"expected an --output that ends in .csv or .parquet, found {output.name!r}")
        found = api.bars(symbols, date, to or date, period, adjust, settings=settings)
    except (ValueError, WarehouseAway) as error:
        typer.echo(f"qmt bars: {error}", err=True)
        raise typer.Exit(1) from None
    if output is None:
        typer.echo(
            found.to_string(index=False) if len(found) else f"no {period} bars of {', '.join(symbols)} on {date}"
        )
        return
    if output.suffix == ".csv":
        found.to_csv(output, index=False)
    else:
        found.to_parquet(output, index=False)
    typer.echo(f"{len(found):,} bars in {output}", err=True)


def validate(
    folder: Annotated[Path | None, typer.Argument(help="Folder of recordings [env QMT_RECORDINGS_DIR]")] = None,
) -> None:
    """Hold recorded data against our bars: ticks to bars, and a vendor's minutes to its other periods."""
    from qmt_orchestration.warehouse.validate import command

    chosen = folder or Settings().recordings_dir
    if chosen is None:
        typer.echo("qmt validate: name a folder of recordings, or set QMT_RECORDINGS_DIR", err=True)
        raise typer.Exit(1)
    raise typer.Exit(command(chosen))
