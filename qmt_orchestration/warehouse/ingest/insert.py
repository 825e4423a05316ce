"""Inserts and look-ups of a lane: an outage of ClickHouse is waited out with the same token, as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, Final

import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from qmt_orchestration.stream.batch import encode, splice
from qmt_orchestration.warehouse.client import INSERT_SETTINGS
from qmt_orchestration.warehouse.ingest.commit import LaneCounters
from qmt_orchestration.warehouse.ingest.entries import Part

log = logging.getLogger("writer")

_BACKOFF_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
#: Errors of the data itself; everything else (network, memory, too many parts, …) is an outage and is waited out.
_MESSAGE_ERRORS: Final = frozenset({6, 26, 27, 33, 41, 53, 70, 117, 321, 349, 469, 636})
#: An insert need not merge its own repeats (readers use FINAL): measured, 37 % less processor time of ClickHouse. Rows
#: sorted beforehand save no more than that, and cost the writer a decoding and an encoding.
SETTINGS: Final = {"max_partitions_per_insert_block": 0, "optimize_on_insert": 0}


class Stopping(Exception):
    """The service stops during an outage: the entries stay pending for the next start."""


class InsertRejected(Exception):
    """ClickHouse rejects the data itself."""


class NotAllWritten(Exception):
    """The server reports success and fewer rows than it was sent."""


class Inserter:
    """Writes to one table. *connect* makes its own client. Used by one thread at a time."""

    def __init__(
        self, connect: Callable[[], Any], table: str, schema: pa.Schema, stop: threading.Event, counters: LaneCounters
    ) -> None:
        self._connect, self._table, self._columns = connect, table, schema.names
        self._stop, self._counters = stop, counters
        self._client: Any = None

    def insert(self, group: Many[Part], token: str) -> None:
        """Store the rows of *group* once. Raises `InsertRejected` or `Stopping`."""
        payload = group[0].payload
        if len(group) > 1:
            payload = splice([part.payload for part in group]) or encode(pa.concat_tables([p.table for p in group]))
        rows = sum(part.table.num_rows for part in group)
        settings = {**INSERT_SETTINGS, **SETTINGS, "insert_deduplication_token": token}

        def insert(client: Any) -> None:
            done = client.raw_insert(
                self._table, self._columns, insert_block=payload, settings=settings, fmt="ArrowStream"
            )
            written = done.summary.get("written_rows")
            if written is not None and int(written) < rows:
                raise NotAllWritten(f"{rows} rows sent, {written} written to {self._table}")

        began = time.monotonic()
        self.retry(insert)
        self._counters.insert_seconds += time.monotonic() - began

    def query(self, sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Rows of a query. Raises `InsertRejected` or `Stopping`."""
        return list(self.retry(lambda client: client.query(sql, parameters=parameters).result_rows))

    def retry(self, action: Callable[[Any], Any]) -> Any:
        """Do *action* with a client until it succeeds, the data prove to be at fault, or the service stops."""
        tries = 0
        while True:
            try:
                if self._client is None:
                    self._client = self._connect()
                result = action(self._client)
                self._counters.error = ""
                return result
            except (ClickHouseError, OSError, NotAllWritten) as error:
                code = getattr(error, "code", None)
                if code in _MESSAGE_ERRORS:
                    raise InsertRejected(str(error)[:1000]) from error
                self._counters.away("ClickHouse", error)
                if code is None:  # a broken connection: make a new one
                    self._client = None
                self._counters.retries += 1
                if self._stop.wait(_BACKOFF_SECONDS[min(tries, len(_BACKOFF_SECONDS) - 1)]):
                    raise Stopping from error
                tries += 1

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()
