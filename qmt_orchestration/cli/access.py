"""What every command shares: its settings, the engines it reads, its errors and exit codes.

Exit codes: `FOUND` (0), `NOTHING` (1: nothing there, or a part that does not run), `MISUSE` (2: the command line or a
setting is wrong). Reading starts no Redis and creates no folder; the embedded ClickHouse is started for the moment when
the folder has a warehouse and none runs.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import redis
import typer

from qmt_orchestration import extras
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings, process_settings, refusal
from qmt_orchestration.stream.connection import connect

FOUND: Final = 0
NOTHING: Final = 1
MISUSE: Final = 2

DataDir = Annotated[Path | None, typer.Option(help="Folder of the engines' data and logs [env QMT_DATA_DIR]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table")]


class Misuse(ValueError):
    """The command line asks for something that cannot be; the message says what was expected."""


def settings_of(data_dir: Path | None = None, **chosen: Any) -> Settings:
    """Settings of the environment with what the command line chose (not None) on top; the folder is absolute, as
    messages show it."""
    update = {name: value for name, value in {"data_dir": data_dir, **chosen}.items() if value is not None}
    settings = process_settings(**update)
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().resolve()})


def fail(text: str, code: int = NOTHING) -> NoReturn:
    """End the command with one message on standard error."""
    typer.echo(f"qmt: {text}", err=True)
    raise typer.Exit(code)


@contextmanager
def redis_of(settings: Settings, *known: type[Exception]) -> Iterator[Any]:
    """A client of the Redis in use; the command ends with one line when there is none, when it stops answering, and
    on the *known* errors."""
    if not settings.redis_url and engines.find(settings, "redis") is None:
        fail(
            f"no Redis runs for {settings.data_dir}: start the system with `qmt up`, choose its folder with --data-dir "
            "(or QMT_DATA_DIR), or set QMT_REDIS_URL to a server"
        )
    client = connect(settings, retries=0)
    try:
        yield client
    except redis.RedisError as error:
        fail(redis_problem(settings, error))
    except known as error:
        fail(str(error), MISUSE if isinstance(error, ValueError) else NOTHING)
    finally:
        client.close()


def redis_problem(settings: Settings, error: Exception) -> str:
    """What a person can do about an error of Redis."""
    where = settings.redis_url or f"the embedded Redis of {settings.data_dir}"
    return f"{where} does not answer ({error}): is it running (`qmt up`), is QMT_REDIS_URL right?"


@contextmanager
def warehouse_of(settings: Settings) -> Iterator[Settings]:
    """Settings with the URL of the ClickHouse in use; ends the command with one line when it cannot be read."""
    if not has_warehouse(settings):
        fail(no_warehouse(settings))
    try:
        with engines.ensure(settings, names=("clickhouse",)) as ready:
            yield ready
    except engines.EngineError as error:
        fail(str(error))
    except Exception as error:
        if is_clickhouse(error) or isinstance(error, OSError):
            fail(explain(error)[1])
        raise


def has_warehouse(settings: Settings) -> bool:
    """Whether a server is configured, or the folder has the data of an embedded one."""
    return bool(settings.clickhouse_url) or (engines.warehouse_path(settings) / "metadata").is_dir()


def no_warehouse(settings: Settings) -> str:
    """Why there is nothing to read."""
    return (
        f"{settings.data_dir} holds no warehouse: choose its folder with --data-dir (or QMT_DATA_DIR), set "
        "QMT_CLICKHOUSE_URL to a server, or make one with `qmt up`, `qmt replay` or `qmt migrate`"
    )


def is_clickhouse(error: BaseException) -> bool:
    """Whether ClickHouse's client raised it (not imported for that: it is slow to import)."""
    driver = sys.modules.get("clickhouse_connect.driver.exceptions")
    return driver is not None and isinstance(error, driver.ClickHouseError)


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error that no command has handled, instead of a traceback.

    An unexpected one is a bug: the place where it happened is named.
    """
    if isinstance(error, ValueError) and (problem := refusal(error)):
        return MISUSE, problem
    if isinstance(error, ValueError):
        return MISUSE, str(error) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("qmt_orchestration"):
        return NOTHING, extras.hint(error.name)
    if isinstance(error, redis.RedisError):
        return NOTHING, f"Redis does not answer ({error}): is it running (`qmt up`), is QMT_REDIS_URL right?"
    if isinstance(error, engines.EngineError | OSError):
        return NOTHING, str(error) or type(error).__name__
    if is_clickhouse(error):
        text = " ".join(str(error).split())[:500]
        hint = "; `qmt migrate` creates the tables" if "UNKNOWN_TABLE" in text or "UNKNOWN_DATABASE" in text else ""
        return NOTHING, f"ClickHouse: {text}{hint} (QMT_CLICKHOUSE_URL names the server)"
    where = "".join(f", at {place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)[-1:])
    return NOTHING, f"{type(error).__name__}: {error} (unexpected{where})"
