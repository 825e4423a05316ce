"""Recorded ticks as a source of pushes: every row of the recordings exactly once, in time order.

A recording is a Parquet or CSV file with the columns of `market.schema.RECORDED_COLUMNS` and, where it has them,
``transactionNum, askPrice, bidPrice, askVol, bidVol``. All files are read and checked completely before the first tick
is pushed, so a bad file leaves nothing half-written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qmt_orchestration.market.schema import RECORDED_COLUMNS
from qmt_orchestration.simulator.universe import Universe

Push = dict[str, dict[str, Any]]

_OPTIONAL: Final[tuple[tuple[str, str], ...]] = (
    ("transactionNum", "integer"),
    ("askPrice", "list of numbers"),
    ("bidPrice", "list of numbers"),
    ("askVol", "list of integers"),
    ("bidVol", "list of integers"),
)
_FIRST_MS: Final = 631_152_000_000  # 1990-01-01
_LAST_MS: Final = 4_102_444_800_000  # 2100-01-01
_CHUNK_ROWS: Final = 100_000
_NO_BOOK: Final = {"askPrice": [0.0] * 5, "bidPrice": [0.0] * 5, "askVol": [0] * 5, "bidVol": [0] * 5}


class RecordingError(ValueError):
    """Recordings cannot be played; *problems* names for each file what was expected and what was found."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        self.problems = problems
        lines = [f"{name}: {problem}" for name, found in problems.items() for problem in found]
        super().__init__("the recording cannot be played, nothing was:\n" + "\n".join(f"  {line}" for line in lines))


def load_recording(paths: Iterable[Path]) -> pa.Table:
    """All ticks of the files in global time order (ties in file order); raises `RecordingError`."""
    tables: list[pa.Table] = []
    problems: dict[str, list[str]] = {}
    for path in map(Path, paths):
        try:
            table = _read(path)
        except (OSError, pa.ArrowException) as error:
            problems[str(path)] = [f"cannot be read as {'CSV' if _is_csv(path) else 'Parquet'}: {error}"]
            continue
        found = _problems(table)
        if found:
            problems[str(path)] = found
        else:
            tables.append(_normal(table))
    if problems:
        raise RecordingError(problems)
    if not tables:
        raise RecordingError({"QMT_REPLAY_FILES": ["expected at least one Parquet or CSV file, found none"]})
    table = pa.concat_tables(tables, promote_options="default")
    order = np.argsort(table.column("time").to_numpy(), kind="stable")
    return table.take(pa.array(order))


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz"))


def _read(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(path) if _is_csv(path) else pq.ParquetFile(path).read()


def _fits(kind: str, type_: pa.DataType) -> bool:
    if kind.startswith("list"):
        if not (pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)):
            return False
        return _fits("integer" if "integers" in kind else "number", type_.value_type)
    if kind == "string":
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
    if bool(pa.types.is_integer(type_)):
        return True
    return not kind.startswith("integer") and bool(pa.types.is_floating(type_))


def _problems(table: pa.Table) -> list[str]:
    """What keeps the table from being played, column by column."""
    names = table.column_names
    wanted = (*RECORDED_COLUMNS, *(c for c in _OPTIONAL if c[0] in names))
    out = []
    missing = [name for name, _ in RECORDED_COLUMNS if name not in names]
    if missing:
        out.append(f"columns missing: {', '.join(missing)}; found: {', '.join(names)}")
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        return [*out, f"columns that occur more than once: {', '.join(double)}"]
    for name, kind in wanted:
        if name in names:
            out += _column_problems(name, kind, table.column(name))
    if not table.num_rows:
        out.append("holds no rows")
    return out


def _column_problems(name: str, kind: str, column: pa.ChunkedArray) -> list[str]:
    if not _fits(kind, column.type):
        return [f"column {name}: expected {kind}, found {column.type}"]
    if column.null_count:
        return [f"column {name}: {column.null_count} of {len(column)} values are missing (null)"]
    values = pc.list_flatten(column) if kind.startswith("list") else column
    if values.null_count:
        return [f"column {name}: {values.null_count} missing (null) values inside its lists"]
    if pa.types.is_floating(values.type):
        bad = pc.sum(pc.invert(pc.is_finite(values))).as_py() or 0
        return [f"column {name}: {bad} of {len(values)} values are NaN or infinite"] if bad else []
    if name == "symbol":
        unique = pc.unique(values.cast(pa.string()))
        wrong = unique.filter(pc.invert(pc.match_substring_regex(unique, r"^\d{6}\.(SH|SZ|BJ)$"))).to_pylist()
        return [f"column symbol: expected codes like 000001.SZ, found {wrong[:5]}"] if wrong else []
    if name == "time":
        outside = pc.sum(pc.or_(pc.less(values, _FIRST_MS), pc.greater(values, _LAST_MS))).as_py() or 0
        if outside:
            example = pc.min(values).as_py()
            return [f"column time: expected epoch milliseconds of 1990-2100, found {outside} others, e.g. {example}"]
    return []


def _normal(table: pa.Table) -> pa.Table:
    """The known columns only, in one type each."""
    types: dict[str, pa.DataType] = {
        "string": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "list of numbers": pa.list_(pa.float64()),
        "list of integers": pa.list_(pa.int64()),
    }
    columns = {}
    for name, kind in (*RECORDED_COLUMNS, *_OPTIONAL):
        if name in table.column_names:
            columns[name] = table.column(name).cast(types[kind.split(",")[0]])
    return pa.table(columns)


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
        self.members = Universe(tuple(sorted(pc.unique(table.column("symbol")).to_pylist())), ())
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
        """Last close per symbol, of the recording's last day."""
        ends = self._table.select(["symbol", "lastClose"]).group_by("symbol", use_threads=False)
        rows = ends.aggregate([("lastClose", "last")]).to_pylist()
        return {row["symbol"]: row["lastClose_last"] for row in rows}

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
    if pa.types.is_list(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    return column.to_numpy().tolist()  # type: ignore[no-any-return]
