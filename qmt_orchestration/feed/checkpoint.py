"""What a subscriber leaves for its next life: the memory of the edge on disk, and the tail of the stream after it.

The file ``<data_dir>/feed/checkpoint.arrow`` is written every few seconds; whatever was published after it is read
back from the streams and from the spool. So the full snapshot of a new subscription does not publish again what is
there already, and nobody takes a restart for a gap. Recordings use none of this: each replay begins with nothing.
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

from qmt_orchestration.feed.memory import Memory, State, number_day
from qmt_orchestration.feed.spool import Spool
from qmt_orchestration.market import quality
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError, decode

log = logging.getLogger("feed.checkpoint")

_PAGE: Final = 50


@dataclass
class Known:
    """What is known of *day*: covered up to *covered_ms* (market time), the state of each symbol, stream positions."""

    day: date
    covered_ms: int = 0
    states: dict[str, State] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)

    def apply(self, table: pa.Table) -> None:
        """Take in published ticks (TICK_SCHEMA); those of other days are passed over."""
        times = table.column("time").cast(pa.int64()).to_numpy()
        rows = np.flatnonzero(quality.local_day(times) == (self.day - date(1970, 1, 1)).days)
        if not len(rows):
            return
        self.covered_ms = max(self.covered_ms, int(times[rows].max()))
        volume, pvolume = table.column("volume").to_numpy(), table.column("pvolume").to_numpy()
        shares, _ = quality.shares_of(volume, pvolume)
        amount, symbols = table.column("amount").to_numpy(), table.column("symbol").to_pylist()
        flags = table.column("flags").to_numpy()
        for row in rows:
            symbol = symbols[row]
            old = self.states.get(symbol)
            # A symbol once seen after the gap needs no other baseline.
            baseline = bool(old and old[4] and not flags[row] & TickFlag.BASELINE and old[0] >= times[row])
            new = (int(times[row]), int(pvolume[row]), int(shares[row]), float(amount[row]), baseline)
            if old is None or (new[0], new[2], new[3]) >= (old[0], old[2], old[3]):
                self.states[symbol] = new


def path_of(settings: Settings) -> Path:
    """The checkpoint's file."""
    return settings.data_dir / "feed" / "checkpoint.arrow"


def save(settings: Settings, memory: Memory, positions: dict[str, str], *, gap: bool = False) -> None:
    """Write the checkpoint, replacing the former one in one step. *positions*: last id confirmed in each stream.

    *gap*: a gap was just found and nothing after it is published yet: say only that every symbol needs a baseline.
    """
    rows = np.arange(len(memory.time)) if gap else np.flatnonzero((memory.time != 0) | memory.baseline)
    known = 0 if gap else 1
    about = {"feed": settings.feed, "day": number_day(memory.day).isoformat(), "covered_ms": memory.covered_ms}
    table = pa.table(
        {
            "symbol": memory.universe.names.take(pa.array(rows)),
            "time": memory.time[rows] * known,
            "pvolume": memory.pvolume[rows] * known,
            "shares": memory.shares[rows] * known,
            "amount": memory.amount[rows] * known,
            "baseline": memory.baseline[rows] | gap,
        }
    ).replace_schema_metadata({"about": json.dumps({**about, "positions": positions})})
    path = path_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with pa.OSFile(str(new), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    new.replace(path)


def load(settings: Settings, today: date) -> Known:
    """What the checkpoint knows of *today*; empty when there is none, or of another day or feed."""
    known = Known(today)
    try:
        with pa.memory_map(str(path_of(settings))) as source:
            table = pa.ipc.open_file(source).read_all()
        about = json.loads(table.schema.metadata[b"about"])
        if about["feed"] != settings.feed or about["day"] != today.isoformat():
            return known
        columns = [table.column(name).to_pylist() for name in ("time", "pvolume", "shares", "amount", "baseline")]
        known.states = dict(zip(table.column("symbol").to_pylist(), zip(*columns, strict=True), strict=True))
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
            if from_ms(int(fields[b"last_ms"])).date() == known.day:
                _apply_payload(known, fields[b"payload"], settings, stream)
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
        log.warning("an entry of %s tells nothing about what was published: %s", where, error)


def _entries(client: Any, stream: str, after: str) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    start = "-" if after == "-" else f"({after}"
    while page := client.xrange(stream, start, "+", count=_PAGE):
        for entry_id, fields in page:
            yield entry_id.decode(), fields
        start = f"({page[-1][0].decode()}"
