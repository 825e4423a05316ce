"""Files of recorded market data, read into the warehouse's own columns.

Ticks: ``ticks_*.parquet|csv`` as `market.recordings` reads them. Bars of others: ``bars_{Nm,1d}_*.csv`` (or
parquet) with symbol, frame (end label), open, high, low, close, vol (shares), amount (yuan). Rows without a value
where one is needed are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from qmt_orchestration.market.recordings import RecordingError, is_csv, read
from qmt_orchestration.market.schema import RECORDED_COLUMNS, TZ
from qmt_orchestration.market.sessions import SHANGHAI, at, from_ms

TICKS: Final = re.compile(r"^ticks_.*\.(parquet|csv)$")
VENDOR: Final = re.compile(r"^bars_(\d+m|1d)_.*\.(parquet|csv)$")
VENDOR_COLUMNS: Final = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount")
_MARKETS: Final = {".XSHE": ".SZ", ".XSHG": ".SH"}


@dataclass(frozen=True)
class Recording:
    """Rows of one file, and how many rows were left out because a value was missing."""

    table: pa.Table
    left_out: int


def read_ticks(path: Path) -> Recording:
    """The RECORDED_COLUMNS of a file, times as epoch ms. Raises `RecordingError`."""
    found, problems = read(path)
    if problems:
        raise RecordingError(f"{path.name}: {'; '.join(problems)}")
    names = [name for name, _ in RECORDED_COLUMNS]
    source, left_out = _complete(found, names)
    return Recording(source.select(names), left_out)


def read_bars(path: Path) -> Recording:
    """A vendor's bars as VENDOR_COLUMNS with frames as time stamps; a daily row stands at 15:00. Raises
    `RecordingError`."""
    source, left_out = _complete(_read(path), VENDOR_COLUMNS)
    try:
        frames = [_frame(value) for value in source.column("frame").to_pylist()]
    except ValueError as error:
        raise RecordingError(f"{path.name}: column frame: expected like 2022-02-08 09:31:00: {error}") from error
    kinds = {"symbol": pa.string(), "vol": pa.int64()}
    columns = [
        pa.array(frames, pa.timestamp("s", TZ))
        if name == "frame"
        else _cast(path, source, name, kinds.get(name, pa.float64()))
        for name in VENDOR_COLUMNS
    ]
    return Recording(pa.table(columns, names=list(VENDOR_COLUMNS)), left_out)


def _read(path: Path) -> pa.Table:
    try:
        if is_csv(path):
            as_text = pyarrow.csv.ConvertOptions(column_types={"symbol": pa.string()}, strings_can_be_null=True)
            table = pyarrow.csv.read_csv(path, convert_options=as_text)
        else:
            table = pyarrow.parquet.read_table(path)
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a header that is not UTF-8
        raise RecordingError(f"{path.name}: cannot be read: {error}") from error
    if missing := [name for name in VENDOR_COLUMNS if name not in names]:
        raise RecordingError(f"{path.name}: columns {missing} are missing, found {names}")
    return table.combine_chunks()


def _complete(table: pa.Table, needed: Iterable[str]) -> tuple[pa.Table, int]:
    """The rows of *table* that have all *needed* values (no null, no NaN), and the number of the others."""
    keep = pa.array([True] * table.num_rows, pa.bool_())
    for name in needed:
        column = table.column(name)
        keep = pc.and_(keep, pc.is_valid(column))
        if pa.types.is_floating(column.type):
            keep = pc.and_(keep, pc.fill_null(pc.is_finite(column), False))
    kept = table.filter(keep).combine_chunks()
    return kept, table.num_rows - kept.num_rows


def _cast(path: Path, table: pa.Table, name: str, kind: pa.DataType) -> Any:
    values = table.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_integer(kind) and pa.types.is_floating(values.type):
        values = pc.round(values)
    try:
        cast = values.cast(kind)
    except pa.ArrowException as error:
        raise RecordingError(f"{path.name}: column {name}: expected {kind}, found {values.type}: {error}") from error
    if name == "symbol":
        for theirs, ours in _MARKETS.items():
            cast = pc.replace_substring(cast, theirs, ours)
    return cast


def _frame(value: Any) -> datetime:
    """A vendor's label: text, date, YYYYMMDD[hhmm[ss]], epoch ms, or time without zone, in Shanghai; a bare date is the
    day's close."""
    text = str(value)
    if isinstance(value, int) and len(text) not in (8, 12, 14):
        return from_ms(value)
    if text.isdigit():
        form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(text), "%Y%m%d")
        value = datetime.strptime(text, form).replace(tzinfo=SHANGHAI)
        value = value.date() if len(text) == 8 else value
    elif not isinstance(value, (datetime, date)):
        value = datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)
    if not isinstance(value, datetime):
        return at(value, 900)
    return value.replace(tzinfo=SHANGHAI) if value.tzinfo is None else value.astimezone(SHANGHAI)
