"""Recorded ticks, Parquet or CSV: which columns there must be, which types carry the same values, what is refused.

Types are welcome in any width as long as no value changes: whole numbers written as floats (pandas does so as soon as
one is missing), decimals, dictionaries, time stamps with a zone. A *value* that is missing or not finite is no reason
to refuse a file: a replay plays its row, and the feed rejects it with a reason. Symbol and time must be there in
every row: without them a row cannot be identified or ordered.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qmt_orchestration.market.schema import RECORDED_COLUMNS

#: Read where a recording has them.
OPTIONAL_COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("transactionNum", "integer"),
    ("askPrice", "list of numbers"),
    ("bidPrice", "list of numbers"),
    ("askVol", "list of integers"),
    ("bidVol", "list of integers"),
)
KINDS: Final[dict[str, str]] = dict((*RECORDED_COLUMNS, *OPTIONAL_COLUMNS))
_FIRST_MS: Final = 631_152_000_000  # 1990-01-01
_LAST_MS: Final = 4_102_444_800_000  # 2100-01-01
_SYMBOL: Final = r"^\d{6}\.(SH|SZ|BJ)$"
_SEPARATORS: Final = re.compile(r"[\s,;|]+")


class RecordingError(ValueError):
    """Recordings cannot be used; the message names the files, what was expected and what was found."""


class _Unfit(ValueError):
    """A column cannot be used; the text says what was expected and found."""


def read(path: Path) -> tuple[pa.Table, list[str]]:
    """The known columns of the ticks in *path*, one type each (`normal`), or why they cannot be used."""
    try:
        return normal(_known(path))
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a header that is not UTF-8
        return pa.table({}), [f"cannot be read as {'CSV' if is_csv(path) else 'Parquet'}: {error}"]


def is_csv(path: Path) -> bool:
    """Whether a file is CSV by its name; every other one is Parquet."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def _known(path: Path) -> pa.Table:
    """The file's table, without columns that are not known."""
    if is_csv(path):
        return pyarrow.csv.read_csv(path)
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        complete = {name for name, _ in RECORDED_COLUMNS} <= set(names) and len(names) == len(set(names))
        # what is not complete is refused, and the message names all that was found
        return file.read([name for name in names if name in KINDS] if complete else None)


def normal(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The known columns of *table*, one type each, and why it cannot be used, column by column."""
    names = table.column_names
    problems = []
    missing = [name for name, _ in RECORDED_COLUMNS if name not in names]
    if missing:
        problems.append(f"columns missing: {', '.join(missing)}; found: {', '.join(names)}")
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        return table, [*problems, f"columns that occur more than once: {', '.join(double)}"]
    if not table.num_rows:
        return table, [*problems, "holds no rows"]
    columns = {}
    for name, kind in KINDS.items():
        if name in names:
            try:
                columns[name] = _column(name, kind, table.column(name))
            except _Unfit as error:
                problems.append(f"column {name}: {error}")
    return (table if problems else pa.table(columns)), problems


def _column(name: str, kind: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """*column* in the type of its kind. Raises `_Unfit`."""
    if name == "time" and pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    if kind.startswith("list"):
        return _book(kind, column)
    if kind == "string":
        values = _strings(column)
    elif kind.startswith("integer"):
        values = _whole_numbers(column, kind)
    elif _is_number(column.type):
        values = column.cast(pa.float64())
    else:
        raise _Unfit(f"expected {kind}, found {column.type}")
    if values.null_count == len(values):
        raise _Unfit(f"expected {kind}, found no value in {len(values)} rows")
    if name in ("symbol", "time") and values.null_count:
        raise _Unfit(f"{values.null_count} of {len(values)} values are missing (null)")
    if name == "symbol":
        unique = pc.unique(values)
        wrong = unique.filter(pc.invert(pc.match_substring_regex(unique, _SYMBOL))).to_pylist()
        if wrong:
            raise _Unfit(f"expected codes like 000001.SZ, found {wrong[:5]}")
    if name == "time":
        outside = values.filter(pc.or_(pc.less(values, _FIRST_MS), pc.greater(values, _LAST_MS)))
        if len(outside):
            raise _Unfit(f"expected epoch milliseconds of 1990-2100, found {len(outside)} others, e.g. {outside[0]}")
    return values


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        raise _Unfit(f"expected string, found {column.type}: codes like 000001.SZ")
    return column.cast(kind).cast(pa.string())


def _whole_numbers(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """Int64 of integers, or of floats and decimals that are whole; NaN counts as missing."""
    if not _is_number(column.type):
        hint = "; a time stamp without a zone says no moment" if pa.types.is_timestamp(column.type) else ""
        raise _Unfit(f"expected {kind}, found {column.type}{hint}")
    if pa.types.is_integer(column.type):
        values = column
    else:
        exact = 2**24 if pa.types.is_float32(column.type) or pa.types.is_float16(column.type) else 2**53
        values = column.cast(pa.float64())
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        unfit = values.filter(pc.or_(pc.not_equal(pc.floor(values), values), pc.greater(pc.abs(values), exact)))
        if len(unfit):
            raise _Unfit(f"expected {kind}, found {column.type} with values that are none, e.g. {unfit[0]}")
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise _Unfit(f"expected {kind}, found {column.type}: {error}") from error


def _book(kind: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of the order book; missing levels and missing books are 0. A CSV holds them as text: ``[11.38, 11.37]``."""
    if column.type in (pa.string(), pa.large_string()):
        texts = column.to_pylist()
        try:
            lists = [[float(part) for part in _SEPARATORS.split(text.strip("[]() ")) if part] for text in texts if text]
        except ValueError as error:
            raise _Unfit(f"expected {kind}, found text that is none: {error}") from error
        filled = iter(lists)
        column = pa.chunked_array([pa.array([next(filled) if text else [] for text in texts], pa.list_(pa.float64()))])
    type_ = column.type
    if not (pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)):
        raise _Unfit(f"expected {kind}, found {type_}")
    if not _is_number(type_.value_type):
        raise _Unfit(f"expected {kind}, found {type_}")
    lists = column.cast(pa.list_(pa.float64())).combine_chunks()
    levels = lists.flatten()
    levels = pc.if_else(pc.is_finite(levels), levels, 0.0).fill_null(0.0)
    if "integers" in kind:
        fractions = levels.filter(pc.not_equal(pc.floor(levels), levels))
        if len(fractions):
            raise _Unfit(f"expected {kind}, found {type_} with values that are none, e.g. {fractions[0]}")
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    ends = pc.cumulative_sum(lengths.cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    level = pa.int64() if "integers" in kind else pa.float64()
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, levels.cast(level))])
