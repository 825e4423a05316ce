"""How queries of this process reach ClickHouse and Redis: found, or ClickHouse of local data started for the moment.

A ClickHouse that was started here serves the queries that follow and stops after `KEEP_SECONDS` without one, and with
the process. Redis is never started: without the running system nothing would write to it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import redis
from urllib3 import Timeout

from qmt_orchestration.client.errors import StreamAway, WarehouseAway
from qmt_orchestration.client.sql import load_sql
from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings, get_settings
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.warehouse.client import connect, error_code, is_passing

KEEP_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 10  # to a first request
_QUERY_SECONDS: Final = 120
_SYMBOLS_AT_ONCE: Final = 1000
_STAMP: Final = pa.timestamp("s", "Asia/Shanghai")
_NO_TABLES: Final = frozenset({60, 81})  # unknown table, unknown database


@dataclass
class _Connection:
    client: Any
    started: ExitStack | None = None  # the engine that was started for us
    busy: int = 0
    timer: threading.Timer | None = field(default=None, repr=False)


_lock = threading.RLock()
_connections: dict[tuple[str, ...], _Connection] = {}


def rows(settings: Settings | None, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Rows of ``client/queries/<query>.sql``. Raises `WarehouseAway`."""
    parts = [_run(settings, "query", query, part).result_rows for part in _parts(parameters)]
    return [tuple(row) for part in parts for row in part]


def table(settings: Settings | None, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """The answer of ``client/queries/<query>.sql`` as Arrow; ``frame`` as a time in Asia/Shanghai."""
    found = pa.concat_tables(_run(settings, "query_arrow", query, part) for part in _parts(parameters))
    for position, column in enumerate(found.schema):
        if column.name == "frame":  # ClickHouse sends a DateTime as a number of seconds
            seconds = found.column(position).cast(pa.int64()).cast(_STAMP)
            found = found.set_column(position, pa.field("frame", _STAMP), seconds)
    return found


def _parts(parameters: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The parameters with so many symbols at once as fit into a request's address; answers are ordered by symbol."""
    chosen = dict(parameters or {})
    symbols = chosen.get("symbols", [])
    if len(symbols) <= _SYMBOLS_AT_ONCE:
        yield chosen
        return
    ordered = sorted(symbols)
    for position in range(0, len(ordered), _SYMBOLS_AT_ONCE):
        yield {**chosen, "symbols": ordered[position : position + _SYMBOLS_AT_ONCE]}


def market_clock(settings: Settings | None = None) -> MarketClock:
    """The market's clock as Redis has it, the wall clock when no Redis answers."""
    try:
        with stream(settings) as server:
            return read_clock(server)
    except StreamAway:
        wall = int(time.time() * 1000)
        return MarketClock(wall, wall, 1.0, False)


def stream(settings: Settings | None = None) -> redis.Redis:
    """A Redis client that has answered. Raises `StreamAway` within seconds."""
    chosen = settings or get_settings()
    client = connect_redis(chosen, retries=0)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        client.close()
        if chosen.redis_url:
            mends = f"start the Redis of QMT_REDIS_URL ({chosen.redis_url}), or correct that setting"
        else:
            mends = f"start the system of {chosen.data_dir.resolve()} with `qmt up`, or set QMT_REDIS_URL"
        raise StreamAway(f"no Redis answers ({_first_line(error)}): {mends}") from None
    return client


def close() -> None:
    """Close every connection that no query uses; engines that were started here stop."""
    with _lock:
        found = [connection for connection in _connections.values() if not connection.busy]
        _connections.clear()
    for connection in found:
        _end(connection)


atexit.register(close)


def _run(settings: Settings | None, method: str, query: str, parameters: dict[str, Any]) -> Any:
    chosen = settings or get_settings()
    text, again = load_sql(query), True
    while True:
        connection = _take(chosen)
        try:
            return getattr(connection.client, method)(text, parameters=parameters)
        except Exception as error:
            if error_code(error) in _NO_TABLES:
                raise WarehouseAway(f"{_place(chosen)} holds no tables of ours: {_MAKE}") from None
            if error_code(error) is not None or not is_passing(error):
                raise
            _drop(chosen, connection)  # it has ended since the last query: look for it once more
            if not again:
                raise _away(chosen, error) from None
            again = False
        finally:
            _give_back(chosen, connection)


_MAKE: Final = "make one with `qmt up`, `qmt replay` or `qmt migrate`, or set QMT_DATA_DIR or QMT_CLICKHOUSE_URL"


def _place(settings: Settings) -> str:
    return settings.clickhouse_url or str(settings.data_dir.resolve())


def _away(settings: Settings, error: BaseException) -> WarehouseAway:
    if settings.clickhouse_url:
        mends = f"start the server of QMT_CLICKHOUSE_URL ({settings.clickhouse_url}), or correct that setting"
    else:
        mends = f"start the system of {settings.data_dir.resolve()} with `qmt up`"
    return WarehouseAway(f"no ClickHouse answers ({_first_line(error)}): {mends}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _key(settings: Settings) -> tuple[str, ...]:
    return (settings.clickhouse_url, str(settings.data_dir), settings.clickhouse_database, settings.clickhouse_username)


def _take(settings: Settings) -> _Connection:
    with _lock:
        connection = _connections.get(_key(settings))
        if connection is None:
            connection = _connections[_key(settings)] = _open(settings)
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        connection.busy += 1
        return connection


def _give_back(settings: Settings, connection: _Connection) -> None:
    with _lock:
        connection.busy -= 1
        if connection.busy:
            return
        if _connections.get(_key(settings)) is connection:
            if connection.started is not None:
                connection.timer = threading.Timer(KEEP_SECONDS, _expire, (settings, connection))
                connection.timer.daemon = True
                connection.timer.start()
            return
    _end(connection)


def _expire(settings: Settings, connection: _Connection) -> None:
    with _lock:
        if connection.busy:
            return
        _drop(settings, connection)
    _end(connection)


def _drop(settings: Settings, connection: _Connection) -> None:
    """Give the connection to no further query."""
    with _lock:
        if _connections.get(_key(settings)) is connection:
            del _connections[_key(settings)]


def _end(connection: _Connection) -> None:
    if connection.timer is not None:
        connection.timer.cancel()
    connection.client.close()
    if connection.started is not None:
        connection.started.close()


def _open(settings: Settings) -> _Connection:
    started = ExitStack()
    try:
        ready = _with_engine(settings, started)
        client = connect(ready, connect_timeout=_ANSWER_SECONDS, send_receive_timeout=_ANSWER_SECONDS)
        client.timeout = Timeout(connect=_ANSWER_SECONDS, read=_QUERY_SECONDS)
    except engines.EngineError as error:
        raise WarehouseAway(_first_line(error)) from None
    except Exception as error:
        started.close()
        if error_code(error) in _NO_TABLES:
            raise WarehouseAway(f"{_place(settings)} holds no tables of ours: {_MAKE}") from None
        if not is_passing(error):
            raise
        raise _away(settings, error) from None
    client.set_client_setting("output_format_arrow_compression_method", "none")
    return _Connection(client, started if not settings.clickhouse_url and ready.clickhouse_url else None)


def _with_engine(settings: Settings, started: ExitStack) -> Settings:
    """Settings that lead to a running ClickHouse; *started* holds the engine when it had to be started."""
    if settings.clickhouse_url or engines.find(settings, "clickhouse"):
        return settings
    if not (engines.warehouse_path(settings) / "metadata").is_dir():
        raise engines.EngineError(f"{settings.data_dir.resolve()} holds no warehouse: {_MAKE}")
    return started.enter_context(engines.ensure(settings, names=("clickhouse",)))
