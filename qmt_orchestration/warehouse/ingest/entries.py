"""From stream entries to rows that may be stored: decoded, accounted for, checked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.batch import PayloadError, decode_together, encode, read_payload
from qmt_orchestration.stream.clock import MarketClock
from qmt_orchestration.stream.groups import Entry, id_ms
from qmt_orchestration.warehouse.ingest.checks import Integers, refused_rows

_MAX_DAYS = 100  # no batch of a feed spans more days than this: one part per day
_MAX_SESSION = 255
_DAY_MS = 86_400_000
_SHANGHAI_MS = 8 * 3_600_000  # UTC+8 all year


@dataclass(frozen=True)
class Part:
    """An entry with the rows to store. ``seq`` is None for streams without sequence accounting.

    *refused*: how many rows of the entry are not stored, and why: with the commit the entry goes to the dead letters.
    """

    entry: Entry
    payload: bytes
    table: pa.Table
    session: str
    seq: int | None
    refused: int = 0
    reason: str = ""


def _decode_alone(entry: Entry, settings: Settings, schema: pa.Schema, *, numbered: bool) -> Part:
    """The rows of *entry*. Raises `PayloadError` for what is malformed now and stays so.

    *numbered*: entries of this stream carry session and seq, which must be those of the rows.
    """
    payload = entry.fields.get(b"payload")
    if payload is None:
        raise PayloadError(f"no field payload; fields are {sorted(entry.fields)[:10]}")
    table, payload = read_payload(payload, max_bytes=settings.stream_max_payload_mb << 20, expected=schema)
    if not table.num_rows:
        raise PayloadError("a batch without rows")
    times = table.column("time").cast(pa.int64()).to_numpy()
    if int(times.max()) - int(times.min()) > _DAY_MS:
        days = len(np.unique((times + _SHANGHAI_MS) // _DAY_MS))
        if days > _MAX_DAYS:
            raise PayloadError(f"rows of {days} days in one batch, at most {_MAX_DAYS} accepted")
    sessions = pc.unique(table.column("session")).to_pylist()
    if not numbered:
        return Part(entry, payload, table, sessions[0], None)
    seqs = pc.unique(table.column("seq")).to_pylist()
    if len(sessions) != 1 or len(seqs) != 1 or len(sessions[0]) > _MAX_SESSION:
        raise PayloadError(f"expected one session and seq in a batch, found {sessions[:3]!r:.300} and {seqs[:3]}")
    for name, found in ((b"session", sessions[0]), (b"seq", str(seqs[0])), (b"rows", str(table.num_rows))):
        said = entry.fields.get(name, b"").decode(errors="replace")
        if said != found:
            raise PayloadError(f"field {name.decode()} says {said!r:.300}, its rows say {found!r}")
    return Part(entry, payload, table, sessions[0], seqs[0])


def decode_entries(entries: list[Entry], settings: Settings, schema: pa.Schema) -> list[Part | PayloadError]:
    """The rows of each of *entries*, or why it is malformed. The usual ones of a tick stream are decoded together;
    whatever is unusual about an entry, it is decoded and judged alone."""
    numbered = schema is TICK_SCHEMA
    out: list[Part | PayloadError] = []
    usual = _together(entries, settings) if numbered and len(entries) > 1 else [None] * len(entries)
    for entry, part in zip(entries, usual, strict=True):
        try:
            out.append(part or _decode_alone(entry, settings, schema, numbered=numbered))
        except PayloadError as error:
            out.append(error)
    return out


def _together(entries: list[Entry], settings: Settings) -> list[Part | None]:
    """The parts of entries whose rows are of one session, seq and day, as their fields say; None for the others."""
    payloads = [entry.fields.get(b"payload", b"") for entry in entries]
    batches = decode_together(payloads, max_bytes=settings.stream_max_payload_mb << 20)
    if batches is None or not all(batch.num_rows for batch in batches):
        return [None] * len(entries)
    table = pa.Table.from_batches(batches)
    starts = np.cumsum([0, *(batch.num_rows for batch in batches[:-1])])
    sessions = table.column("session").combine_chunks().dictionary_encode()
    codes, seqs = sessions.indices.to_numpy(), table.column("seq").to_numpy()
    times = table.column("time").cast(pa.int64()).to_numpy()
    span = np.maximum.reduceat(times, starts) - np.minimum.reduceat(times, starts)
    usual = (span >= 0) & (span <= _DAY_MS)
    for values in (codes, seqs):
        usual &= np.maximum.reduceat(values, starts) == np.minimum.reduceat(values, starts)
    parts: list[Part | None] = []
    names = sessions.dictionary.to_pylist()
    for entry, payload, batch, start, ok in zip(entries, payloads, batches, starts, usual, strict=True):
        session, seq = names[codes[start]], int(seqs[start])
        said = tuple(entry.fields.get(name, b"") for name in (b"session", b"seq", b"rows"))
        ok = ok and len(session) <= _MAX_SESSION and said == (session.encode(), b"%d" % seq, b"%d" % batch.num_rows)
        parts.append(Part(entry, payload, pa.Table.from_batches([batch]), session, seq) if ok else None)
    return parts


def without_refused(parts: list[Part], clock: MarketClock, tolerance_ms: int) -> list[Part]:
    """*parts* with only the rows that may be stored; a part can end without rows."""
    if not parts:
        return parts
    now_ms = int(time.time() * 1000)
    walls = [min(id_ms(part.entry.id), now_ms) for part in parts]
    latest = [_latest(part, clock, wall) for part, wall in zip(parts, walls, strict=True)]
    counts = [part.table.num_rows for part in parts]
    bounds = np.repeat(latest, counts) + tolerance_ms, np.repeat(walls, counts) + tolerance_ms
    wrong, _ = refused_rows(pa.concat_tables([part.table for part in parts]), *bounds)
    if not wrong.any():
        return parts
    out, end = [], 0
    for part, count in zip(parts, counts, strict=True):
        start, end = end, end + count
        hit = wrong[start:end].any()
        out.append(_split(part, *(bound[start:end] for bound in bounds)) if hit else part)
    return out


def _split(part: Part, latest_ms: Integers, wall_ms: Integers) -> Part:
    """The part without its refused rows."""
    wrong, reasons = refused_rows(part.table, latest_ms, wall_ms)
    first = int(np.argmax(wrong))
    row = {name: str(value)[:60] for name, value in part.table.slice(first, 1).to_pylist()[0].items()}
    keys = [name for name in ("symbol", "time", "lastPrice", "total_volume", "received_at") if name in row]
    shown = ", ".join(f"{name}={row[name]}" for name in keys)
    reason = f"{int(wrong.sum())} of {part.table.num_rows} rows refused: {'; '.join(reasons)}; row {first}: {shown}"
    good = part.table.filter(pa.array(~wrong))
    return replace(part, table=good, payload=encode(good), refused=int(wrong.sum()), reason=reason)


def _latest(part: Part, clock: MarketClock, wall_ms: int) -> int:
    """The market's time (epoch ms) when the entry was published, as well as it can be determined.

    Live it is the wall clock, in the entry's id, so that a retry judges as the first try did. A simulated market's
    clock is read now. A replay's days are over: the wall clock bounds them.
    """
    replay = part.session.rsplit("-", 2)[-2:-1] == ["replay"]
    return clock.now_ms() if clock.simulated and not replay else wall_ms


def newest_ms(fields: Mapping[bytes, bytes]) -> int:
    """``last_ms`` of an entry not decoded yet; 0 when it does not say."""
    text = fields.get(b"last_ms", b"")
    return int(text) if text.isdigit() and len(text) < 16 else 0


def row_count(fields: Mapping[bytes, bytes]) -> int:
    """``rows`` of an entry not decoded yet; 1 when it does not say."""
    text = fields.get(b"rows", b"")
    return int(text) if text.isdigit() and len(text) < 9 else 1
