"""Recorded ticks as a source of pushes: every row of the recordings exactly once, in time order.

A recording is a Parquet or CSV file with the columns of `market.recordings`. All files are read and checked completely
before the first tick is pushed, so a bad file leaves nothing half-written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market import recordings
from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.simulator.faults import Push
from qmt_orchestration.simulator.universe import SimulatedUniverse

_CHUNK_ROWS: Final = 100_000
_NO_BOOK: Final = {"askPrice": [0.0] * 5, "bidPrice": [0.0] * 5, "askVol": [0] * 5, "bidVol": [0] * 5}


def load_recording(paths: Iterable[Path]) -> pa.Table:
    """All ticks of the files in global time order; raises `RecordingError`.

    Rows of equal time are in the order of their cumulative values, else of their files: a file that was shuffled
    plays like the one it was made from.
    """
    tables: list[pa.Table] = []
    problems: dict[str, list[str]] = {}
    for path in map(Path, paths):
        table, found = recordings.read(path)
        if found:
            problems[str(path)] = found
        tables.append(table)
    if not tables:
        problems = {"QMT_REPLAY_FILES": ["expected at least one Parquet or CSV file, found none"]}
    if problems:
        lines = [f"  {name}: {problem}" for name, found in problems.items() for problem in found]
        raise RecordingError("\n".join(["the recording cannot be played, nothing was:", *lines]))
    table = pa.concat_tables(tables, promote_options="default")
    by = [table.column(name).fill_null(0).to_numpy() for name in ("amount", "pvolume", "volume", "time")]
    return table.take(pa.array(np.lexsort(by)))


class ReplaySource:
    """Pushes the rows of a recording; the position is the time stamp of the last row given (epoch ms).

    Rows are played at their time stamps; between two rows further apart than *gap_ms* only that much time passes, so
    that breaks and nights cost nothing.
    """

    def __init__(self, table: pa.Table, gap_ms: int = 10_000) -> None:
        self._table = table
        times = table.column("time").to_numpy()
        self._times = times
        self.first_ms, self.last_ms = int(times[0]), int(times[-1])
        steps = np.minimum(np.diff(times, prepend=times[:1]), gap_ms)
        self._play_ms = np.cumsum(steps) + self.first_ms  # when a row is played, with the gaps cut
        self.members = SimulatedUniverse(tuple(sorted(pc.unique(table.column("symbol")).to_pylist())), ())
        self.position_ms = self.first_ms - 1
        self._next = 0  # first row not given yet
        self._last: Push = {}

    def seek(self, market_ms: int) -> None:
        """A recording is played from its first row whoever listens: nothing is ever skipped."""

    def snapshot(self) -> Push:
        """The ticks given so far, the last of each symbol."""
        return dict(self._last)

    @property
    def exhausted(self) -> bool:
        """Whether every row has been given."""
        return bool(self._next >= self._table.num_rows)

    @cached_property
    def previous_closes(self) -> dict[str, float]:
        """Last close per symbol, of the recording's last day; 0 where it has none."""
        known = self._table.select(["symbol", "lastClose"])
        known = known.filter(pc.fill_null(pc.is_finite(known.column("lastClose")), False))
        rows = known.group_by("symbol", use_threads=False).aggregate([("lastClose", "last")]).to_pylist()
        return dict.fromkeys(self.members.shares, 0.0) | {row["symbol"]: row["lastClose_last"] for row in rows}

    def pushes(self, until_ms: int) -> Iterator[tuple[int, Push]]:
        """Rows played up to *until_ms*, in order: (time of the last row, push); no symbol twice in a push."""
        end = int(np.searchsorted(self._play_ms, until_ms, side="right"))
        while self._next < end:
            rows = self._rows(self._next, min(end, self._next + _CHUNK_ROWS))
            push: Push = {}
            for symbol, tick in rows:
                if symbol in push:
                    yield self._give(push)
                    push = {}
                push[symbol] = tick
            yield self._give(push)

    def _give(self, push: Push) -> tuple[int, Push]:
        self._next += len(push)
        self._last.update(push)
        self.position_ms = int(self._times[self._next - 1])
        return self.position_ms, push

    def _rows(self, begin: int, end: int) -> Iterator[tuple[str, dict[str, Any]]]:
        part = self._table.slice(begin, end - begin)
        names = [name for name in part.column_names if name != "symbol"]
        constant: dict[str, Any] = {"transactionNum": 0, "lastSettlementPrice": 0.0, "settlementPrice": 0.0, **_NO_BOOK}
        constant = {name: value for name, value in constant.items() if name not in names}
        columns = [_python(part.column(name)) for name in names]
        keys = (*names, *constant)
        values = tuple(constant.values())
        for symbol, *row in zip(part.column("symbol").to_pylist(), *columns, strict=True):
            yield symbol, dict(zip(keys, (*row, *values), strict=True))


def _python(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_list(column.type) or (column.null_count and pa.types.is_integer(column.type)):
        return column.to_pylist()  # type: ignore[no-any-return]
    return column.to_numpy().tolist()  # type: ignore[no-any-return]
