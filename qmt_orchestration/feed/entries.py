"""The stream entries of a session: batches of ticks per shard and of rejected ticks, numbered without a gap."""

from __future__ import annotations

import time
from typing import Final

import pyarrow as pa

from qmt_orchestration.feed.edge import Checked, rejected_table
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import Batch, cut_book
from qmt_orchestration.stream.producer import NewEntry, Producer

REJECTED_ROWS: Final = 2000  # per entry: they carry their payload as text


class Entries:
    """Makes the entries of *session*; ids are those of *producer*."""

    def __init__(self, session: str, settings: Settings, producer: Producer) -> None:
        self.session, self.producer, self.book_levels = session, producer, settings.book_levels
        self.seq = dict.fromkeys(range(settings.stream_shards), 0)  #: the next number of each shard
        self.rejected_seq = 0

    def of(self, outcome: Checked, universe: Universe) -> list[NewEntry]:
        """The entries of *outcome*: one per shard, and the rejected ticks."""
        sent_ms = int(time.time() * 1000)
        entries = []
        if outcome.table is not None:
            shard = universe.shard[outcome.ids]
            for number in self.seq:
                part = outcome.table if len(self.seq) == 1 else outcome.table.filter(pa.array(shard == number))
                if part.num_rows:
                    table = cut_book(self._stamp(part, self.seq[number]), self.book_levels)
                    batch = Batch(self.session, self.seq[number], table, sent_ms)
                    entries.append(self._entry(keys.ticks(number), batch))
                    self.seq[number] += 1
        for start in range(0, len(outcome.rejected), REJECTED_ROWS):
            table = rejected_table(outcome.rejected[start : start + REJECTED_ROWS], self.session)
            entries.append(self._entry(keys.REJECTED, Batch(self.session, self.rejected_seq, table, sent_ms)))
            self.rejected_seq += 1
        return entries

    def _entry(self, stream: str, batch: Batch) -> NewEntry:
        return NewEntry(stream, self.producer.next_id(stream, batch.sent_ms), batch.fields())

    def _stamp(self, table: pa.Table, seq: int) -> pa.Table:
        """*table* with the columns session and seq, as TICK_SCHEMA."""
        rows = table.num_rows
        ours = {"session": pa.repeat(self.session, rows), "seq": pa.repeat(pa.scalar(seq, pa.uint64()), rows)}
        columns = [ours[name] if name in ours else table.column(name) for name in TICK_SCHEMA.names]
        return pa.table(columns, schema=TICK_SCHEMA).combine_chunks()
