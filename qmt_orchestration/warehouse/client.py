"""The ClickHouse client of every process: pinned settings, TLS, password, SQL from files, retries by error code.

`connect` connects to the configured server, or to the embedded one of ``data_dir``. Readers see each key once
(``final=1``). Inserts carry every setting that exactly-once depends on, because a server's defaults may differ.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import embedded_port

#: What clickhouse-connect logs it also raises: a program without logging must not print it on standard error as well.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())

T = TypeVar("T")

#: Every insert: one block, de-duplicated by its token, also through materialized views; nulls are an error.
INSERT_SETTINGS: Final[dict[str, Any]] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "input_format_null_as_default": 0,
}
READ_SETTINGS: Final[dict[str, Any]] = {"final": 1, "do_not_merge_across_partitions_select_final": 1}

#: Codes of ClickHouse that pass by themselves: too many queries, network, socket time-outs, memory, too many parts,
#: no leader / read-only replica.
PASSING_CODES: Final = frozenset({159, 202, 203, 209, 210, 241, 242, 252, 319, 425, 439, 999})


def connect(settings: Settings, *, database: str | None = None, **options: Any) -> Any:
    """A clickhouse-connect client on the project's database; safe to share by threads.

    *options* go to ``clickhouse_connect.get_client``. Raises its ``OperationalError`` when nothing answers.
    """
    import clickhouse_connect

    url = (
        settings.clickhouse_url or f"http://127.0.0.1:{embedded_port(settings, 'clickhouse', settings.clickhouse_port)}"
    )
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return clickhouse_connect.get_client(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or (8443 if secure else 8123),
        secure=secure,
        username=settings.clickhouse_username,
        password=settings.engine_password("clickhouse"),
        ca_cert=str(settings.clickhouse_ca_file) if settings.clickhouse_ca_file else None,
        database=settings.clickhouse_database if database is None else database,
        autogenerate_session_id=False,  # one client may serve several threads
        compress=False if (parts.hostname or "").startswith(("127.", "localhost")) else "lz4",
        **{"connect_timeout": 5, "send_receive_timeout": 600, "settings": READ_SETTINGS, **options},
    )


@cache
def load_sql(name: str, package: str = "warehouse") -> str:
    """The statement in ``<package>/queries/<name>.sql``; values are given as server-side parameters, ``{day:Date}``."""
    path = resources.files(f"qmt_orchestration.{package}") / "queries" / f"{name}.sql"
    return path.read_text(encoding="utf-8")


def statements(text: str) -> list[str]:
    """The statements of a file: separated by a semicolon at the end of a line; comment lines are left out."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in re.split(r";\s*\n", bare + "\n") if part.strip()]


def error_code(error: BaseException) -> int | None:
    """ClickHouse's code in an exception of the client, None when there is none (a network error)."""
    found = re.search(r"[Cc]ode:? (\d+)", str(error))
    return int(found.group(1)) if found else None


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed later: the server is away or short of resources."""
    from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    code = error_code(error)
    if code is not None:
        return code in PASSING_CODES
    return (isinstance(error, OperationalError) and not isinstance(error, DatabaseError)) or _is_network(error)


def _is_network(error: BaseException) -> bool:
    import urllib3

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def with_retry(call: Callable[[], T], *, seconds: float = 30.0) -> T:
    """Run *call* again while its error passes, with growing pauses and jitter, for at most *seconds*."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            return call()
        except Exception as error:
            if not is_passing(error) or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 3.0)
