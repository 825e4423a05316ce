"""The edge: from callbacks to checked ticks.

Every tick that comes in is in exactly one of three places when it leaves: in the accepted table, among the rejected
with a reason, or counted as outside the universe.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.feed.checks import Checks
from qmt_orchestration.feed.memory import Memory
from qmt_orchestration.feed.payload import BOOKS, FIELDS, rows_of, to_columns
from qmt_orchestration.market import quality
from qmt_orchestration.market.quality import REASONS, Reason
from qmt_orchestration.market.schema import REJECTED_SCHEMA, TICK_SCHEMA, TZ, TickFlag

PAYLOAD_BYTES: Final = 4096  # of a rejected tick's JSON
_STAMP: Final = pa.timestamp("ms", TZ)
#: TICK_SCHEMA without what only publishing can fill.
EDGE_SCHEMA: Final = pa.schema([field for field in TICK_SCHEMA if field.name not in ("session", "seq")])


@dataclass(frozen=True)
class Received:
    """One callback: when it came (wall, epoch ms) and what it carried.

    *moment_ms*: set on the first one of a subscription, the full snapshot: the market's time then, epoch ms.
    """

    received_ms: int
    payload: Any
    moment_ms: int = 0
    rows: int = 0


@dataclass
class Outcome:
    """What became of some callbacks. *table*: EDGE_SCHEMA; *ids*: symbol id of each row."""

    table: pa.Table | None = None
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    rejected: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    filtered: Counter[str] = field(default_factory=Counter)  # by first three digits and market
    gap: bool = False  # a coverage gap was found: baselines begin with this outcome
    new_day: bool = False  # a new trading day began within


class Edge:
    """Checks ticks against *memory* and its universe.

    *by_first_tick*: a recording: there is no clock, and each day's first tick decides whether it began in time.
    """

    def __init__(self, memory: Memory, *, by_first_tick: bool = False) -> None:
        self.memory, self.by_first_tick = memory, by_first_tick

    def process(self, items: Sequence[Received], market_now_ms: int | None) -> Outcome:
        """Check everything in *items*, in order. *market_now_ms* None = no clock (a recording).

        A snapshot may only be the first of *items* (`feed.intake.Intake.take` sees to that).
        """
        outcome = Outcome()
        if not self.memory.day and market_now_ms is not None:
            # What is older than today at the very start is the last session, replayed at log-in.
            self.memory.day = int(quality.local_day(np.array([market_now_ms]))[0])
        if items and items[0].moment_ms:
            self.memory.assess = True
        ids, ticks, source = self._collect(items, outcome)
        columns, kept, failed = to_columns(ticks)
        symbols = self.memory.universe.symbols
        for position, error in failed:
            item = items[source[position]]
            self._reject(outcome, symbols[ids[position]], ticks[position], item, error.reason, error.detail)
        if not kept:
            return outcome
        whole = len(kept) == len(ids)
        checks = Checks(
            self.memory,
            {name: columns[name].to_numpy() for name in FIELDS if name not in BOOKS},
            np.array(ids if whole else [ids[k] for k in kept], np.int64),
            np.array(source if whole else [source[k] for k in kept], np.int64),
            now_ms=market_now_ms,
            by_first_tick=self.by_first_tick,
            moment_ms=items[0].moment_ms,
        )
        checks.run()
        outcome.gap, outcome.new_day = checks.gap, checks.new_day
        for row in np.flatnonzero(checks.reason):
            item, reason = items[checks.source[row]], REASONS[checks.reason[row] - 1]
            symbol, time_ms = symbols[checks.ids[row]], int(checks.values["time"][row])
            self._reject(outcome, symbol, ticks[kept[row]], item, reason, checks.why(int(row)), time_ms)
        self._accept(outcome, items, columns, checks)
        return outcome

    def _accept(
        self, outcome: Outcome, items: Sequence[Received], columns: dict[str, pa.Array], checks: Checks
    ) -> None:
        ok = checks.reason == 0
        if not ok.any():
            return
        snapshots = np.array([item.moment_ms > 0 for item in items], np.bool_)
        checks.flags[snapshots[checks.source]] |= np.uint32(TickFlag.SNAPSHOT)
        received = np.array([item.received_ms for item in items], np.int64)[checks.source]
        arrays = {
            **columns,
            "symbol": self.memory.universe.names.take(pa.array(checks.ids)),
            "time": columns["time"].cast(_STAMP),
            "total_volume": pa.array(checks.shares),
            "received_at": pa.array(received).cast(_STAMP),
            "flags": pa.array(checks.flags),
            "quality_score": pa.array(quality.quality_score(checks.flags)),
        }
        table = pa.table([arrays[name] for name in EDGE_SCHEMA.names], schema=EDGE_SCHEMA)
        whole = bool(ok.all())
        outcome.table = table if whole else table.filter(pa.array(ok))
        outcome.ids = checks.ids if whole else checks.ids[ok]

    def _collect(self, items: Sequence[Received], outcome: Outcome) -> tuple[list[int], list[Any], list[int]]:
        """Ids, ticks and item numbers of the universe's ticks; everything else is counted or rejected."""
        known = self.memory.universe.ids
        ids: list[int] = []
        ticks: list[Any] = []
        source: list[int] = []
        for number, item in enumerate(items):
            if not isinstance(item.payload, Mapping):
                outcome.received += 1
                found = type(item.payload).__name__
                self._reject(outcome, "", item.payload, item, Reason.BAD_PAYLOAD, f"expected a mapping, found {found}")
                continue
            before = len(ids)
            members: list[Any] = list(map(known.get, item.payload))
            if None not in members and set(map(type, item.payload.values())) == {dict}:
                ids += members  # the ordinary case, without a loop
                ticks += item.payload.values()
                source.extend([number] * len(members))
                continue
            for symbol, value in item.payload.items():
                i = known.get(symbol)
                if type(value) is dict and i is not None:
                    ids.append(i)
                    ticks.append(value)
                elif i is None:
                    count = sum(1 for _ in rows_of(value))
                    outcome.received += count
                    code, _, market = str(symbol).partition(".")
                    outcome.filtered[f"{code[:3]}.{market}"] += count
                else:
                    rows = list(rows_of(value))
                    ids.extend([i] * len(rows))
                    ticks.extend(rows)
            source.extend([number] * (len(ids) - before))
        outcome.received += len(ids)
        return ids, ticks, source

    def _reject(
        self, outcome: Outcome, symbol: str, tick: Any, item: Received, reason: Reason, detail: str, time_ms: int = 0
    ) -> None:
        sane = quality.EARLIEST_MS <= time_ms < quality.LATEST_MS
        payload = json.dumps(tick, ensure_ascii=False, default=str)
        outcome.rejected.append(
            {
                "symbol": symbol,
                "time": time_ms if sane else item.received_ms,
                "received_at": item.received_ms,
                "reason": reason.value,
                "detail": detail,
                "payload": payload.encode()[:PAYLOAD_BYTES].decode(errors="ignore"),
            }
        )


def rejected_table(rejected: Sequence[Mapping[str, Any]], session: str) -> pa.Table:
    """REJECTED_SCHEMA of `Outcome.rejected`."""
    columns = {name: [row[name] for row in rejected] for name in REJECTED_SCHEMA.names if name != "session"}
    columns["session"] = [session] * len(rejected)
    arrays = [
        pa.array(columns[f.name], pa.int64()).cast(_STAMP) if f.type == _STAMP else pa.array(columns[f.name], f.type)
        for f in REJECTED_SCHEMA
    ]
    return pa.table(arrays, schema=REJECTED_SCHEMA)
