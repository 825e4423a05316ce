"""Which rows of a batch the warehouse does not take, and why: vectorised, over all rows of a read at once.

The last check, after those at ingestion (`market.quality`): every bar and every reader relies on what is stored, so
a row out of any sensible range goes to the dead letters.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.schema import TICK_SCHEMA

FIRST_MS: Final = 631_123_200_000  # 1990-01-01 in Shanghai: the exchanges opened later that year
MAX_TOTAL_VOLUME: Final = 2**37  # packed with a time into one UInt64 by the rule of a bar
MAX_LEVELS: Final = 10  # of a book
_MAX_COUNT: Final = 2**53  # exact in every reader's number type
_SYMBOL: Final = r"^[0-9A-Za-z]{1,16}\.[A-Z]{2,4}$"
_PRICES: Final = ("lastPrice", "open", "high", "low", "lastClose", "amount")
_COUNTS: Final = ("volume", "pvolume", "total_volume", "transactionNum")
_BOOKS: Final = ("askPrice", "bidPrice", "askVol", "bidVol")
#: Of a rejected tick, whose symbol may be what was wrong with it.
_MAX_BYTES: Final = {"symbol": 64, "session": 255, "reason": 64, "detail": 16_384, "payload": 16_384}
_KEPT_TIMES_MS: Final = (-2_208_988_800_000, 9_214_646_400_000)  # what DateTime64(3) keeps

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


def refused_rows(table: pa.Table, latest_ms: Integers, wall_ms: Integers) -> tuple[Mask, list[str]]:
    """(row is refused, reasons with how many rows) of a table of TICK_SCHEMA or REJECTED_SCHEMA.

    *latest_ms*: for each row, the latest market time (epoch ms) that it may carry; *wall_ms*: likewise ``received_at``.
    """
    ticks = table.schema.names == TICK_SCHEMA.names
    found = _of_ticks(table, latest_ms, wall_ms) if ticks else _of_rejected(table, wall_ms)
    wrong = np.zeros(table.num_rows, dtype=np.bool_)
    reasons = []
    for reason, mask in found:
        if mask.any():
            wrong |= mask
            reasons.append(f"{int(mask.sum())} × {reason}")
    return wrong, reasons


def _of_ticks(table: pa.Table, latest_ms: Integers, wall_ms: Integers) -> list[tuple[str, Mask]]:
    out = [("symbol not of the form 000001.SZ", _matches(table.column("symbol"), _SYMBOL))]
    for name, last in (("time", latest_ms), ("received_at", wall_ms)):
        out.append((f"{name} before 1990 or ahead of the clock", _outside(_integers(table, name), FIRST_MS, last)))
    for name in _PRICES:
        values = table.column(name).to_numpy()
        out.append((f"{name} negative or not finite", ~((values >= 0) & (values < np.inf))))
    for name in _COUNTS:
        limit = MAX_TOTAL_VOLUME if name == "total_volume" else _MAX_COUNT
        out.append((f"{name} negative or above {limit - 1}", _outside(_integers(table, name), 0, limit - 1)))
    for name in _BOOKS:
        out.append((f"{name} of more than {MAX_LEVELS} levels, negative or not finite", _bad_book(table.column(name))))
    score = table.column("quality_score").to_numpy()
    out.append(("quality_score outside [0, 1]", ~((score >= 0) & (score <= 1))))
    return out


def _of_rejected(table: pa.Table, wall_ms: Integers) -> list[tuple[str, Mask]]:
    """A rejected tick may hold anything but a time that its table cannot keep, and texts without bound."""
    received, times = _integers(table, "received_at"), _integers(table, "time")
    out = [
        ("received_at before 1990 or ahead of the clock", _outside(received, FIRST_MS, wall_ms)),
        ("time outside 1900 to 2262", _outside(times, *_KEPT_TIMES_MS)),
    ]
    for name, limit in _MAX_BYTES.items():
        lengths = pc.binary_length(table.column(name)).to_numpy()
        out.append((f"{name} longer than {limit} bytes", lengths > limit))
    return out


def _integers(table: pa.Table, name: str) -> Integers:
    return np.asarray(table.column(name).cast(pa.int64()).to_numpy())


def _outside(values: Integers, first: int, last: int | Integers) -> Mask:
    return np.asarray((values < first) | (values > last))


def _matches(column: pa.ChunkedArray, pattern: str) -> Mask:
    """True where a text does not match; the pattern is tried once a distinct text."""
    encoded = column.combine_chunks().dictionary_encode()
    good = pc.match_substring_regex(encoded.dictionary, pattern).to_numpy(zero_copy_only=False)
    return np.asarray(~good[encoded.indices.to_numpy()])


def _bad_book(column: pa.ChunkedArray) -> Mask:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    bad = np.diff(offsets) > MAX_LEVELS
    values = lists.values.to_numpy(zero_copy_only=False)
    wrong = ~((values >= 0) & (values < np.inf))
    if wrong[offsets[0] : offsets[-1]].any():
        bad[np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1] = True
    return np.asarray(bad)
