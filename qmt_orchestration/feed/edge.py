"""The edge: from callbacks to checked ticks.

Every tick that comes in ends in exactly one of three places: among the accepted, among the rejected with a reason, or
counted as outside the universe. A tick that contradicts what is known is held until later ones of its symbol decide
(`feed.doubts`); `Edge.flush` decides without them. An accepted tick that proves wrong is **withdrawn**: published again
with `TickFlag.WITHDRAWN`, and among the rejected from then on. So at the end

    received = accepted - withdrawn + rejected (withdrawn among them) + filtered
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.feed.checks import HELD, Checks
from qmt_orchestration.feed.doubts import Doubts, Released
from qmt_orchestration.feed.memory import Carry, Memory, Seen
from qmt_orchestration.feed.payload import BOOKS, FIELDS, rows_of, to_columns
from qmt_orchestration.market import quality
from qmt_orchestration.market.quality import REASONS, Reason
from qmt_orchestration.market.schema import BOOK_LEVELS, REJECTED_SCHEMA, TICK_SCHEMA, TZ, TickFlag

PAYLOAD_BYTES: Final = 4096  # of a rejected tick's JSON
_STAMP: Final = pa.timestamp("ms", TZ)
#: A withdrawn tick keeps its key; nothing reads the rest.
_NOTHING: Final[dict[str, Any]] = {
    **dict.fromkeys(("lastPrice", "open", "high", "low", "lastClose"), 0.0),
    **dict.fromkeys(("stockStatus", "openInt", "transactionNum"), 0),
    **{name: [0] * BOOK_LEVELS for name in BOOKS},
}
CARRIES: Final = Carry._fields  # names of columns too
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
class Checked:
    """What became of some callbacks. *table*: EDGE_SCHEMA; *ids*: symbol id of each row.

    *withdrawn*: rows at the end of the table that withdraw a tick published before. *settled*: something held was
    decided, or something new is held.
    """

    table: pa.Table | None = None
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    withdrawn: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    filtered: Counter[str] = field(default_factory=Counter)  # by first three digits and market
    gap: bool = False  # a coverage gap was found: baselines begin with this outcome
    new_day: bool = False  # a new trading day began within
    settled: bool = False


class Edge:
    """Checks ticks against *memory* and its universe.

    *by_first_tick*: a recording: there is no clock, and each day's first tick decides whether it began in time.
    *confirmations*: snapshots in a row that prove the memory wrong. *ahead_ms*: how far a tick's time may lie ahead of
    the market's clock.
    """

    def __init__(
        self, memory: Memory, *, by_first_tick: bool = False, confirmations: int = 3, ahead_ms: int = 5000
    ) -> None:
        self.memory, self.by_first_tick, self.ahead_ms = memory, by_first_tick, ahead_ms
        self.doubts = Doubts(memory, confirmations)

    def process(self, items: Sequence[Received], market_now_ms: int | None) -> Checked:
        """Check everything in *items*, in order. *market_now_ms* None = no clock (a recording).

        A snapshot may only be the first of *items* (`feed.intake.Intake.take` sees to that).
        """
        outcome = Checked()
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
            outcome.rejected.append(_record(symbols[ids[position]], ticks[position], item, error.reason, error.detail))
        if not kept:
            return outcome
        whole = len(kept) == len(ids)

        def record(row: int, reason: Reason, detail: str) -> dict[str, Any]:
            time_ms = int(checks.values["time"][row])
            item = items[checks.source[row]]
            return _record(symbols[checks.ids[row]], ticks[kept[row]], item, reason, detail, time_ms)

        def plain(row: int) -> dict[str, Any]:
            item = items[checks.source[row]]
            out = {name: array[row].as_py() for name, array in columns.items()}
            flags = int(checks.flags[row]) | (TickFlag.SNAPSHOT if item.moment_ms else 0)
            return {**out, "symbol": symbols[checks.ids[row]], "received_at": item.received_ms, "flags": flags}

        checks = Checks(
            self.doubts,
            {name: columns[name].to_numpy() for name in FIELDS if name not in BOOKS},
            np.array(ids if whole else [ids[k] for k in kept], np.int64),
            np.array(source if whole else [source[k] for k in kept], np.int64),
            now_ms=market_now_ms,
            by_first_tick=self.by_first_tick,
            ahead_ms=self.ahead_ms,
            moment_ms=items[0].moment_ms,
            row=plain,
            record=record,
        )
        checks.run()
        outcome.gap, outcome.new_day = checks.gap, checks.new_day
        for row in np.flatnonzero((checks.reason > 0) & (checks.reason != HELD)).tolist():
            outcome.rejected.append(record(row, REASONS[checks.reason[row] - 1], checks.why(row)))
        outcome.settled = bool((checks.reason == HELD).any())
        self._accept(outcome, items, columns, checks)
        self._release(outcome, checks.released)
        return outcome

    def flush(self) -> Checked:
        """Decide about everything that is held: at the end of a recording or a day, and when the feed stops."""
        outcome, released = Checked(), Released()
        self.doubts.flush(released)
        self._release(outcome, released)
        return outcome

    def _accept(
        self, outcome: Checked, items: Sequence[Received], columns: dict[str, pa.Array], checks: Checks
    ) -> None:
        ok = checks.reason == 0
        if not ok.any():
            return
        snapshots = np.array([item.moment_ms > 0 for item in items], np.bool_)
        checks.flags[snapshots[checks.source]] |= np.uint32(TickFlag.SNAPSHOT)
        received = np.array([item.received_ms for item in items], np.int64)[checks.source]
        arrays = {
            **_with(columns, checks.carried),
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

    def _release(self, outcome: Checked, released: Released) -> None:
        """Add what was decided about earlier ticks."""
        outcome.rejected += released.records
        outcome.settled |= bool(released.records or released.rows or released.withdrawn)
        if not released.rows and not released.withdrawn:
            return
        universe, now = self.memory.universe, int(time.time() * 1000)
        rows = list(released.rows)
        for i, seen in released.withdrawn:
            key = {name: getattr(seen, name) for name in ("time", "volume", "pvolume", "amount")}
            shown = {"high": seen.high, "low": seen.low, "lastClose": seen.last_close, "total_volume": seen.total}
            ours = {"symbol": universe.symbols[i], "received_at": now, "flags": int(TickFlag.WITHDRAWN)}
            rows.append({**_NOTHING, **key, **shown, **ours})
            again = Received(now, None)
            detail = "accepted, then contradicted by later snapshots that agree with each other"
            what = (universe.symbols[i], {**key, **shown}, again)
            outcome.rejected.append(_record(*what, Reason.WITHDRAWN, detail, seen.time))
        outcome.withdrawn = len(released.withdrawn)
        for row in rows:
            gone = row["flags"] & TickFlag.WITHDRAWN
            row["quality_score"] = 0.0 if gone else float(quality.quality_score(np.array([row["flags"]]))[0])
        table = pa.Table.from_pylist(rows, schema=EDGE_SCHEMA)
        outcome.table = table if outcome.table is None else pa.concat_tables([outcome.table, table])
        ids = np.array([universe.ids[row["symbol"]] for row in rows], np.int64)
        outcome.ids = np.concatenate([outcome.ids, ids])

    def _collect(self, items: Sequence[Received], outcome: Checked) -> tuple[list[int], list[Any], list[int]]:
        """Ids, ticks and item numbers of the universe's ticks; everything else is counted or rejected."""
        known = self.memory.universe.ids
        ids: list[int] = []
        ticks: list[Any] = []
        source: list[int] = []
        for number, item in enumerate(items):
            if not isinstance(item.payload, Mapping):
                outcome.received += 1
                found = type(item.payload).__name__
                detail = f"expected a mapping, found {found}"
                outcome.rejected.append(_record("", item.payload, item, Reason.BAD_PAYLOAD, detail))
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
                    outcome.filtered[f"{code[:3]}.{market[:8]}"] += count
                else:
                    rows = list(rows_of(value))
                    ids.extend([i] * len(rows))
                    ticks.extend(rows)
            source.extend([number] * (len(ids) - before))
        outcome.received += len(ids)
        return ids, ticks, source


def _record(symbol: str, tick: Any, item: Received, reason: Reason, detail: str, time_ms: int = 0) -> dict[str, Any]:
    """A row of the rejected."""
    sane = quality.EARLIEST_MS <= time_ms < quality.LATEST_MS
    return {
        "symbol": symbol,
        "time": time_ms if sane else item.received_ms,
        "received_at": item.received_ms,
        "reason": reason.value,
        "detail": _clean(detail),
        "payload": _clean(_json(tick))[:PAYLOAD_BYTES],
    }


def _with(columns: dict[str, pa.Array], carried: Mapping[int, Seen]) -> dict[str, pa.Array]:
    """*columns* with the counters and ranges of the rows *carried*."""
    if not carried:
        return columns
    changed = {}
    for name in CARRIES:
        values = columns[name].to_numpy().copy()
        values[list(carried)] = [getattr(seen, name) for seen in carried.values()]
        changed[name] = pa.array(values)
    return {**columns, **changed}


def _json(tick: Any) -> str:
    """A payload as text, whatever it holds."""
    try:
        return json.dumps(tick, ensure_ascii=False, default=repr, skipkeys=True)
    except (ValueError, TypeError, RecursionError) as error:  # circular, or an integer of thousands of digits
        return f"{type(tick).__name__} that cannot be written as JSON: {error}"


def _clean(text: str) -> str:
    """*text* in at most PAYLOAD_BYTES of UTF-8, without lone surrogates."""
    return text.encode(errors="replace")[:PAYLOAD_BYTES].decode(errors="ignore")


def rejected_table(rejected: Sequence[Mapping[str, Any]], session: str) -> pa.Table:
    """REJECTED_SCHEMA of `Outcome.rejected`."""
    return pa.Table.from_pylist([{**row, "session": session} for row in rejected], schema=REJECTED_SCHEMA)
