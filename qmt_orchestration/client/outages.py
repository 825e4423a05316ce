"""Which errors of a handler are outages: never the item's fault, tried again for as long as it takes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Final

import redis

from qmt_orchestration.warehouse.client import is_passing


class RetryLater(Exception):
    """Raised by a handler: what it needs is away (an outage). The same item comes again, for as long as it takes."""


_OUTAGES: Final = (RetryLater, OSError, redis.ConnectionError, redis.TimeoutError)
_NETWORK: Final = (ConnectionError, TimeoutError, socket.gaierror)


def is_outage(error: BaseException) -> bool:
    """`RetryLater`, an OSError, a lost Redis; what a library made of a lost connection; a ClickHouse that is away."""
    if isinstance(error, _OUTAGES) or any(isinstance(one, _NETWORK) for one in _chain(error)):
        return True
    if "clickhouse_connect" not in sys.modules:
        return False
    return is_passing(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
