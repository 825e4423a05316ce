"""From what xtdata's callbacks deliver to columns: every known shape, strict types, no check of values.

The ordinary payload, a mapping of code to a complete tick, goes column by column straight into Arrow. Whatever does not
fit (missing fields, other types, absent books) takes the slow path, tick by tick, which mends what is optional and
names what is not. What is defined for each kind of wrong value: ``docs/feed.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.market.quality import Reason
from qmt_orchestration.market.schema import BOOK_LEVELS, TICK_SCHEMA
from qmt_orchestration.market.sessions import SHANGHAI, to_ms

Tick = Mapping[str, Any]

#: A tick without one of these is rejected; ``time`` may also come as ``timetag``.
REQUIRED: Final = ("lastPrice", "open", "high", "low", "lastClose", "amount", "volume")
#: Absent or null in old builds and some calls: filled with 0 and empty books.
OPTIONAL_INTEGERS: Final = ("pvolume", "stockStatus", "openInt", "transactionNum")
BOOKS: Final = ("askPrice", "bidPrice", "askVol", "bidVol")
FIELDS: Final = ("time", *REQUIRED, *OPTIONAL_INTEGERS, *BOOKS)
#: Meaning of the values of a tick that comes as a plain list.
ROW_FIELDS: Final = ("time", "open", "high", "low", "lastPrice", "volume", "amount")

_FLOATS: Final = frozenset({"lastPrice", "open", "high", "low", "lastClose", "amount"})
_GET: Final = itemgetter(*FIELDS)
_EMPTY_BOOK: Final = {name: [0] * BOOK_LEVELS for name in BOOKS}
_TYPES: Final = {name: pa.int64() if name == "time" else TICK_SCHEMA.field(name).type for name in FIELDS}


class TickError(ValueError):
    """A tick is rejected: the reason, and what was expected and found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class _Unusual(Exception):
    """Something in the batch needs the slow path."""


def rows_of(value: Any) -> Iterator[Any]:
    """The ticks in one code's value: a mapping, a list of mappings or of plain rows, or one plain row."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if value and not isinstance(value[0], (Mapping, list, tuple)):
            yield value
        else:
            yield from value
    else:
        yield value


def extract(ticks: Sequence[Tick]) -> dict[str, pa.Array]:
    """Columns `FIELDS` of complete, well-typed ticks (time as int64). Raises `_Unusual` when any tick is not."""
    try:
        columns = dict(zip(FIELDS, zip(*map(_GET, ticks), strict=True), strict=True))
        arrays = {name: _array(name, values) for name, values in columns.items()}
    except (KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise _Unusual from error
    for name, array in arrays.items():
        if array.null_count:
            raise _Unusual
        if name in BOOKS:
            lengths = np.diff(array.offsets.to_numpy())
            if (lengths != BOOK_LEVELS).any() or array.values.null_count:
                raise _Unusual
            levels = array.values.to_numpy()
            if len(levels) and not (levels.min() >= 0 and levels.max() < np.inf):  # NaN fails too
                raise _Unusual
    return arrays


def _array(name: str, values: Any) -> pa.Array:
    """A column; of floats only what is numbers: told their type, Arrow would take booleans too."""
    if name not in _FLOATS:
        return pa.array(values, _TYPES[name])
    array = pa.array(values)
    if pa.types.is_integer(array.type):
        return array.cast(pa.float64(), safe=False)
    if array.type != pa.float64():
        raise _Unusual
    return array


def to_columns(ticks: Sequence[Any]) -> tuple[dict[str, pa.Array], list[int], list[tuple[int, TickError]]]:
    """Columns of all ticks that can be read, their positions in *ticks*, and (position, error) of the others."""
    try:
        if ticks:
            return extract(ticks), list(range(len(ticks))), []
    except _Unusual:
        pass
    kept: list[int] = []
    clean: list[Tick] = []
    failed: list[tuple[int, TickError]] = []
    for position, tick in enumerate(ticks):
        try:
            clean.append(normalise(tick))
            kept.append(position)
        except TickError as error:
            failed.append((position, error))
    if not clean:
        return {name: pa.array([], kind) for name, kind in _TYPES.items()}, [], failed
    return extract(clean), kept, failed


def normalise(tick: Any) -> Tick:
    """One tick with all of `FIELDS`, well-typed; `TickError` when it cannot be one."""
    if isinstance(tick, (list, tuple)):
        tick = _from_row(tick)
    if not isinstance(tick, Mapping):
        raise TickError(
            Reason.BAD_PAYLOAD, f"expected a mapping or a row of {len(ROW_FIELDS)}, found {type(tick).__name__}"
        )
    absent = [name for name in REQUIRED if tick.get(name) is None]
    if tick.get("time") is None and tick.get("timetag") is None:
        absent.insert(0, "time")
    if absent:
        found = ", ".join(sorted(map(repr, tick)))
        raise TickError(Reason.MISSING_FIELD, f"expected {', '.join(absent)}; found {found:.300}")
    clean: dict[str, Any] = {"time": _time_ms(tick)}
    for name in REQUIRED:
        clean[name] = _number(name, tick[name])
    for name in OPTIONAL_INTEGERS:
        value = tick.get(name)
        clean[name] = 0 if value is None or _not_finite(value) else _number(name, value)
    for name in BOOKS:
        clean[name] = _book(name, tick.get(name))
    return clean


def _from_row(row: Sequence[Any]) -> Tick:
    """A plain row: cumulative shares are left to the lots guard, the previous close is unknown (0)."""
    if len(row) != len(ROW_FIELDS):
        raise TickError(Reason.BAD_PAYLOAD, f"expected a row {list(ROW_FIELDS)}, found {len(row)} values")
    return {**dict(zip(ROW_FIELDS, row, strict=True)), "lastClose": 0.0}


def _not_finite(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and not np.isfinite(value)


def _number(name: str, value: Any) -> float | int:
    """A field's value; fractions of a lot, share or count are cut."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TickError(Reason.WRONG_TYPE, f"{name}: expected a number, found {type(value).__name__} {_shown(value)}")
    if name in _FLOATS:
        try:
            return float(value)
        except OverflowError:
            raise TickError(Reason.NOT_FINITE, f"{name}: expected a number below 1.8e308") from None
    if _not_finite(value):
        raise TickError(Reason.NOT_FINITE, f"{name}: expected an integer, found {value}")
    limit = 2**31 if _TYPES[name] == pa.int32() else 2**63
    if not -limit <= int(value) < limit:
        raise TickError(Reason.WRONG_TYPE, f"{name}: expected at most {limit - 1}, found {_shown(value)}")
    return int(value)


def _shown(value: Any) -> str:
    """The beginning of a value's text, whatever it is."""
    try:
        return f"{value!r:.60}"
    except Exception as error:  # an integer of thousands of digits, a broken __repr__
        return f"({type(error).__name__})"


def _book(name: str, value: Any) -> list[float | int]:
    """Five levels, yuan or lots; missing, negative and not finite levels are 0: no bar depends on a level."""
    if value is None:
        return list(_EMPTY_BOOK[name])
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TickError(Reason.WRONG_TYPE, f"{name}: expected {BOOK_LEVELS} levels, found {type(value).__name__}")
    kind = "volume" if name.endswith("Vol") else "lastPrice"
    levels = []
    for level in list(value)[:BOOK_LEVELS]:
        number = 0 if level is None or _not_finite(level) else _number(kind, level)
        levels.append(number if number >= 0 else 0)
    return levels + [0] * (BOOK_LEVELS - len(levels))


def _time_ms(tick: Tick) -> int:
    """Epoch ms from ``time`` where that is a number, else from ``timetag`` (``20240228 11:30:01[.500]``, Shanghai)."""
    value, tag = tick.get("time"), tick.get("timetag")
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        if not 0 <= value < 2**63:
            raise TickError(Reason.BAD_TIME, f"time: expected epoch ms, found {_shown(value)}")
        return int(value)
    if tag is None:
        found = f"{type(value).__name__} {_shown(value)}"
        raise TickError(Reason.WRONG_TYPE, f"time: expected epoch ms, found {found}")
    text = str(tag)[:40]
    for pattern in ("%Y%m%d %H:%M:%S", "%Y%m%d %H:%M:%S.%f"):
        try:
            return to_ms(datetime.strptime(text, pattern).replace(tzinfo=SHANGHAI))
        except (ValueError, OverflowError):
            continue
    raise TickError(Reason.BAD_TIME, f"timetag: expected like '20240228 11:30:01', found {text!r:.60}")
