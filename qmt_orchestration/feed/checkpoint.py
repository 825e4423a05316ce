"""What a subscriber finds after a restart: the memory of the edge on disk, and the tail of the stream after it.

The file ``<data_dir>/feed/checkpoint.arrow`` is written every few seconds; whatever was published after it is read
back from the streams and from the spool. So the full snapshot of a new subscription does not publish again what is
there already, and no restart is taken for a gap. Ticks that are held (`feed.doubts`) are in the file too. Recordings
use none of this: each replay begins with nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.feed.doubts import Held
from qmt_orchestration.feed.memory import COLUMNS, RECENT, Carry, DayState, Memory, Seen, number_day, seen_of
from qmt_orchestration.feed.spool import Spool
from qmt_orchestration.market import quality
from qmt_orchestration.market.instruments import LOT_CANDIDATES
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError, decode
from qmt_orchestration.stream.fields import FIRST_MS, LAST_MS, integer

log = logging.getLogger("feed.checkpoint")

_PAGE: Final = 50
_DEPTH: Final = 8  # accepted ticks per symbol in the file; what is older cannot be withdrawn after a restart


@dataclass
class Known:
    """What is known of *day*: covered up to *covered_ms* (market time), the state of each symbol, stream positions."""

    day: date
    covered_ms: int = 0
    states: dict[str, DayState] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)
    held: dict[str, list[Held]] = field(default_factory=dict)
    carry: dict[str, Carry] = field(default_factory=dict)

    def apply(self, table: pa.Table) -> None:
        """Take in published ticks (TICK_SCHEMA); those of other days are passed over."""
        times = table.column("time").cast(pa.int64()).to_numpy()
        rows = np.flatnonzero(quality.local_day(times) == (self.day - date(1970, 1, 1)).days)
        if not len(rows):
            return
        self.covered_ms = max(self.covered_ms, int(times[rows].max()))
        names = ("volume", "pvolume", "amount", "total_volume", "high", "low", "lastClose", "flags")
        columns = [table.column(name).to_numpy()[rows].tolist() for name in names]
        symbols = table.column("symbol").to_pylist()
        for row, time, *values, flags in zip(rows.tolist(), times[rows].tolist(), *columns, strict=True):
            state = self.states.setdefault(symbols[row], DayState())
            slack = LOT_CANDIDATES[-1] if flags & TickFlag.LOTS_GUARD else 0
            tick = Seen._make((time, *values, slack, flags & TickFlag.BASELINE))
            if flags & TickFlag.WITHDRAWN:
                state.recent = [seen for seen in state.recent if seen[:4] != tick[:4]]
                continue
            self.held.pop(symbols[row], None)  # decided since
            # A symbol once seen after the gap needs no other baseline.
            newer = not state.recent or time > state.recent[-1].time
            state.baseline = state.baseline and not flags & TickFlag.BASELINE and not newer
            state.recent = sorted(
                [*state.recent[-_DEPTH:], tick], key=lambda seen: (seen.time, seen.total, seen.amount)
            )


def path_of(settings: Settings) -> Path:
    """The checkpoint's file."""
    return settings.data_dir / "feed" / "checkpoint.arrow"


def save(settings: Settings, memory: Memory, positions: dict[str, str], *, gap: bool = False) -> None:
    """Write the checkpoint, replacing the former one in one step. *positions*: last id confirmed in each stream.

    *gap*: a gap was just found and nothing after it is published yet: say only that every symbol needs a baseline.
    """
    count = len(memory.accepted)
    rows = np.arange(count) if gap else np.flatnonzero((memory.accepted > 0) | memory.baseline)
    kept = np.zeros(count, np.int64) if gap else np.minimum(memory.accepted, _DEPTH)
    place = np.repeat(memory.accepted[rows] - kept[rows], kept[rows]) + _count_up(kept[rows])
    ticks = memory.recent[np.repeat(rows, kept[rows]), place % RECENT]
    about = {"feed": settings.feed, "day": number_day(memory.day).isoformat(), "covered_ms": memory.covered_ms}
    held = {} if gap else {symbol: [one.plain() for one in run] for symbol, run in memory.held.items()}
    table = pa.table(
        {
            "symbol": memory.universe.names.take(pa.array(rows)),
            "ticks": pa.array(kept[rows]),
            "baseline": memory.baseline[rows] | gap,
            "lot": np.where(memory.lot[rows] == memory.universe.lot[rows], 0, memory.lot[rows]),
            "units": memory.units[rows],
        }
    ).replace_schema_metadata(
        {"about": json.dumps({**about, "positions": positions, "held": held, "carry": memory.carry})}
    )
    path = path_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    recent = pa.table({name: ticks[:, k] for k, name in enumerate(COLUMNS)})
    with pa.OSFile(str(new), "wb") as sink:
        for part in (table, recent):
            with pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_table(part)
    new.replace(path)


def _count_up(counts: Any) -> Any:
    """0 … n-1 for each n of *counts*, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def load(settings: Settings, today: date) -> Known:
    """What the checkpoint knows of *today*; empty when there is none, or of another day or feed."""
    known = Known(today)
    try:
        with pa.OSFile(str(path_of(settings))) as source:
            table, recent = (pa.ipc.open_stream(source).read_all() for _ in range(2))
        about = json.loads(table.schema.metadata[b"about"])
        if about["feed"] != settings.feed or about["day"] != today.isoformat():
            return known
        ticks = [seen_of(row) for row in np.column_stack([recent.column(name).to_numpy() for name in COLUMNS])]
        at = 0
        for row in table.to_pylist():
            known.states[row["symbol"]] = DayState(
                ticks[at : at + row["ticks"]], row["baseline"], row["lot"], row["units"]
            )
            at += row["ticks"]
        known.held = {symbol: [Held.of(one) for one in run] for symbol, run in about["held"].items()}
        known.carry = {symbol: Carry(*one) for symbol, one in about["carry"].items()}
        known.covered_ms, known.positions = about["covered_ms"], about["positions"]
    except FileNotFoundError:
        return known
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        log.warning("%s cannot be read (%s): going on from the stream alone", path_of(settings), error)
        return Known(today)
    return known


def read_tail(client: Any, settings: Settings, known: Known) -> int:
    """Apply what the streams hold of the day after the checkpoint; the number of entries read."""
    entries = 0
    for shard in range(settings.stream_shards):
        stream = keys.ticks(shard)
        for entry_id, fields in _entries(client, stream, known.positions.get(stream, "-")):
            entries += 1
            known.positions[stream] = entry_id
            last_ms = integer(fields, "last_ms", low=FIRST_MS, high=LAST_MS)
            if last_ms and from_ms(last_ms).date() == known.day:
                _apply_payload(known, fields.get(b"payload", b""), settings, stream)
    return entries


def read_spool(spool: Spool, settings: Settings, known: Known) -> None:
    """Apply what waits on disk."""
    for entry in spool.all():
        if entry.stream != keys.REJECTED:
            _apply_payload(known, entry.fields["payload"], settings, "spool")


def _apply_payload(known: Known, payload: bytes, settings: Settings, where: str) -> None:
    try:
        known.apply(decode(payload, max_bytes=settings.stream_max_payload_mb << 20))
    except PayloadError as error:
        log.warning("an entry of %s cannot be read, so what it published is unknown: %s", where, error)


def _entries(client: Any, stream: str, after: str) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    start = "-" if after == "-" else f"({after}"
    while page := client.xrange(stream, start, "+", count=_PAGE):
        for entry_id, fields in page:
            yield entry_id.decode(), fields
        start = f"({page[-1][0].decode()}"
