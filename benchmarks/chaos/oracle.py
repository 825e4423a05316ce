"""The account: what was produced against what is stored, and the bars against the market's own plan.

*Produced* is what a third party saw on the stream (`Ledger`), batch by batch; no service's own counters are used.
lost = distinct ticks produced - distinct ticks stored, doubled = rows stored - distinct ticks stored, counted on the
witness table (witness.sql), which merges nothing away. A number missing in a feed session's sequence is a lost batch.
And the simulated market is deterministic, so every tick it sent while a subscriber ran must be there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from benchmarks.chaos.faults import HOSTILE, STREAM
from benchmarks.chaos.world import FEED, World
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms, minute_frames, to_ms
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.source import MarketSource
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError, decode
from qmt_orchestration.warehouse.bars import live_bars
from qmt_orchestration.warehouse.client import connect

_KEY = ["symbol", "time", "pvolume", "amount"]
_EDGE_MS = 4000  # a tick is pushed within a second of its time stamp; pushes hold up to 3 s of the market


@dataclass(frozen=True)
class Produced:
    """A batch as it was seen on the stream: distinct ticks, when it was sent (wall) and its newest tick (market)."""

    ticks: int
    sent_ms: int
    first_ms: int
    last_ms: int
    snapshot_ms: int  # newest tick of a full snapshot in it, 0 without one


class Ledger(threading.Thread):
    """Reads the tick stream beside everybody else, without a group, and notes every batch of a subscriber once."""

    def __init__(self, world: World) -> None:
        super().__init__(name="ledger", daemon=True)
        self.batches: dict[tuple[str, int], Produced] = {}
        self.ticks = 0
        self.entries = 0  # of the stream, of a subscriber or not
        self._client = world.connect_redis()
        self._last = "0-0"
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(0.2):
            try:
                self.look()
            except redis.RedisError:
                continue  # it is being broken: what is missed now is read later

    def look(self) -> None:
        """Read what is new."""
        while page := self._client.xrange(STREAM, f"({self._last}", "+", count=50):
            for entry_id, fields in page:
                self._last = entry_id.decode()
                self.entries += 1
                self._note(fields)

    def end(self) -> None:
        """Stop reading, after a last look."""
        self._ending.set()
        self.join(20)
        self.look()
        self._client.close()

    @property
    def market_ms(self) -> int:
        """Market time of the newest tick produced."""
        return max((batch.last_ms for batch in list(self.batches.values())[-50:]), default=0)

    def sessions(self) -> list[tuple[str, list[Produced]]]:
        """The runs of the subscriber in the order of their start, with their batches in order."""
        found: dict[str, list[tuple[int, Produced]]] = {}
        for (session, seq), batch in self.batches.items():
            if not session.startswith("careless-"):  # no subscriber: `faults.PAST_THE_CHECKS`
                found.setdefault(session, []).append((seq, batch))
        begun = sorted(found, key=lambda session: int(session.rpartition("-")[2]))
        return [(session, [batch for _, batch in sorted(found[session], key=lambda b: b[0])]) for session in begun]

    def _note(self, fields: dict[bytes, bytes]) -> None:
        try:
            place = fields[b"session"].decode(), int(fields[b"seq"])
            table = decode(fields[b"payload"], max_bytes=1 << 25)
        except (KeyError, ValueError, PayloadError):
            return  # poison
        if place in self.batches or table.num_rows != int(fields[b"rows"]):
            return
        times = table.column("time").cast(pa.int64()).to_numpy()
        whole = (table.column("flags").to_numpy() & int(TickFlag.SNAPSHOT)) > 0
        withdrawn = pa.array((table.column("flags").to_numpy() & int(TickFlag.WITHDRAWN)) > 0)
        what = table.select(_KEY).append_column("withdrawn", withdrawn)
        distinct = what.group_by(what.column_names).aggregate([]).num_rows
        self.batches[place] = Produced(
            distinct,
            int(fields[b"sent_ms"]),
            int(times.min()),
            int(times.max()),
            int(times[whole].max()) if whole.any() else 0,
        )
        self.ticks += distinct


@dataclass
class Verdict:
    """What is wrong, each piece with the moment it belongs to: wall time (ms) of batches, market time (ms) of bars."""

    produced: int = 0
    lost: Counter[int] = field(default_factory=Counter)
    doubled: Counter[int] = field(default_factory=Counter)
    bars_wrong: Counter[int] = field(default_factory=Counter)
    bars_compared: int = 0
    published_compared: int = 0
    believed: int = 0  # wrong copies (wrong-snapshots: stamped a millisecond after the second) that are stored as ticks
    unseen: int = 0  # ticks of the market while no subscriber ran
    dead_letters: int = 0
    trimmed: int = 0  # entries that the writer trimmed while the session ran
    examples: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        if len(self.examples) < 20:
            self.examples.append(text)


def judge(world: World, ledger: Ledger) -> Verdict:
    """Everything, after the session has ended and the writer has nothing left to do."""
    verdict = Verdict(produced=ledger.ticks)
    verdict.dead_letters = int(world.redis.xlen(keys.DEAD_LETTERS.format(stream=STREAM)))
    verdict.trimmed = ledger.entries - int(world.redis.xlen(STREAM))
    _batches(world, ledger, verdict)
    blind = _blind_times(ledger)
    _feed(world, ledger, blind, verdict)
    _bars(world, blind, verdict)
    return verdict


def _batches(world: World, ledger: Ledger, verdict: Verdict) -> None:
    rows = world.ask(
        "SELECT session, seq, count(), uniqExact(symbol, time, pvolume, amount, withdrawn) FROM witness "
        "GROUP BY session, seq"
    )
    stored = {(session, int(seq)): (int(count), int(distinct)) for session, seq, count, distinct in rows}
    for place, batch in ledger.batches.items():
        count, distinct = stored.get(place, (0, 0))
        if distinct < batch.ticks:
            verdict.lost[batch.sent_ms] += batch.ticks - distinct
            verdict.complain(f"batch {place}: {batch.ticks} ticks produced, {distinct} stored")
        if count > distinct:
            verdict.doubled[batch.sent_ms] += count - distinct
            verdict.complain(f"batch {place}: {count} rows stored of {distinct} ticks")
    for session, batches in ledger.sessions():
        numbers = {seq for name, seq in {*ledger.batches, *stored} if name == session}
        for seq in set(range(max(numbers) + 1)) - numbers:
            verdict.lost[batches[-1].sent_ms] += 1
            verdict.complain(f"batch {seq} of {session} was not seen on the stream")
    # the same tick from two runs of the subscriber: counted where the later one begins
    [[twice]] = world.ask("SELECT count() - uniqExact(symbol, time, pvolume, amount, withdrawn) FROM witness")
    within = sum(verdict.doubled.values())
    if int(twice) > within:
        verdict.doubled[ledger.sessions()[-1][1][0].sent_ms] += int(twice) - within
        verdict.complain(f"{int(twice) - within} ticks were published by two runs of the subscriber")


def _blind_times(ledger: Ledger) -> list[tuple[int, int]]:
    """Market time (ms) during which no subscriber listened, a little too long at both ends."""
    blind, until = [], 0
    for _, batches in ledger.sessions():
        seen = max(batches[0].snapshot_ms, batches[0].first_ms)
        blind.append((until - _EDGE_MS if until else 0, seen + _EDGE_MS))
        until = max(batch.last_ms for batch in batches)
    return [*blind, (until - _EDGE_MS, 1 << 62)]


def _feed(world: World, ledger: Ledger, blind: list[tuple[int, int]], verdict: Verdict) -> None:
    """Every tick of the plan is stored or rejected, unless no subscriber ran."""
    settings = world.hosts[FEED]
    source, shares = MarketSource(settings), frozenset(universe(settings.sim_symbols).shares)
    source.seek(blind[0][1] - _EDGE_MS)
    rows: list[tuple[str, int, int]] = []
    with connect(world.engines) as client:
        for _, push in source.pushes(blind[-1][0]):
            rows += [(symbol, tick["time"], tick["pvolume"]) for symbol, tick in push.items() if symbol in shares]
            if len(rows) > 200_000:
                _expect(client, rows)
        _expect(client, rows)
    missing = world.ask(
        "SELECT toUnixTimestamp64Milli(e.time), e.symbol FROM expected AS e "
        "WHERE (e.symbol, e.time, e.pvolume) NOT IN (SELECT symbol, time, pvolume FROM witness) "
        "AND (e.symbol, e.time) NOT IN (SELECT symbol, time FROM ticks_rejected)"
    )
    [[believed]] = world.ask(
        "SELECT count() FROM ticks FINAL WHERE bitAnd(flags, 128) = 0 AND toUnixTimestamp64Milli(time) % 1000 = 1 "
        "AND time < (SELECT max(time) FROM ticks WHERE toUnixTimestamp64Milli(time) % 1000 = 0) - 60"
    )
    verdict.believed = int(believed)
    starts = sorted((batch.last_ms, batch.sent_ms) for batch in ledger.batches.values())
    for ms, symbol in missing:
        if any(begin <= int(ms) <= end for begin, end in blind):
            verdict.unseen += 1
            continue
        at = int(np.searchsorted([last for last, _ in starts], int(ms)))
        verdict.lost[starts[min(at, len(starts) - 1)][1]] += 1
        verdict.complain(f"tick of {symbol} at {from_ms(int(ms)):%H:%M:%S} never arrived although a subscriber ran")


def _expect(client: Any, rows: list[tuple[str, int, int]]) -> None:
    if rows:
        symbols, times, pvolumes = zip(*rows, strict=True)
        client.insert_arrow(
            "expected",
            pa.table(
                {
                    "symbol": pa.array(symbols),
                    "time": pa.array(times, pa.int64()).cast(pa.timestamp("ms", "Asia/Shanghai")),
                    "pvolume": pa.array(pvolumes, pa.int64()),
                }
            ),
        )
        rows.clear()


def _bars(world: World, blind: list[tuple[int, int]], verdict: Verdict) -> None:
    """Bars of the minutes received whole: in ClickHouse against the plan, on the stream against ClickHouse."""
    day = date.fromisoformat(world.market.day)
    progress = int(world.redis.hget(keys.PUBLISHED, day.isoformat()) or 0)
    frames = [frame for frame in minute_frames(day)[1:] if to_ms(frame) <= progress]
    heard = [f for f in frames if not any(b < to_ms(f) and to_ms(f) - 60_000 < e for b, e in blind)]
    if not heard:
        raise RuntimeError("no whole minute was received: let the session last longer (--ticks)")
    live = _live(world, day, frames)
    plan = _plan(world, day, heard)
    for key in sorted({*plan, *(key for key in live if key[1] in {to_ms(f) for f in heard})}):
        verdict.bars_compared += 1
        if not _equal(plan.get(key), live.get(key)):
            verdict.bars_wrong[key[1]] += 1
            verdict.complain(f"bar {key[0]} {from_ms(key[1]):%H:%M}: planned {plan.get(key)}, found {live.get(key)}")
    _published(world, live, to_ms(frames[-1]), verdict)


Bar = tuple[float, float, float, float, int, float]


def _live(world: World, day: date, frames: Sequence[datetime]) -> dict[tuple[str, int], Bar]:
    with connect(world.engines) as client:
        table = live_bars(client, day, frames[0], frames[-1])
    names = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount")
    columns = [table.column(name).to_pylist() for name in names]
    return {(row[0], to_ms(row[1])): row[2:] for row in zip(*columns, strict=True)}


def _plan(world: World, day: date, frames: Sequence[datetime]) -> dict[tuple[str, int], Bar]:
    shares = universe(world.market.symbols).shares
    bars = MarketDay(world.market.seed, day, shares).bars()
    place = {frame: i for i, frame in enumerate(minute_frames(day))}
    out: dict[tuple[str, int], Bar] = {}
    for frame in frames:
        i = place[frame]
        columns = [bars[name][:, i].tolist() for name in ("open", "high", "low", "close", "vol", "amount")]
        for symbol, (o, h, lo, c, vol, amount) in zip(shares, zip(*columns, strict=True), strict=True):
            if c:
                out[symbol, to_ms(frame)] = (o / 100, h / 100, lo / 100, c / 100, vol, amount / 100)
    return out


def _equal(one: Bar | None, other: Bar | None) -> bool:
    return one is not None and other is not None and all(abs(a - b) < 0.006 for a, b in zip(one, other, strict=True))


def _published(world: World, live: dict[tuple[str, int], Bar], newest: int, verdict: Verdict) -> None:
    """The newest revision of every bar on the stream is the bar in ClickHouse; no revision came twice.

    The last frame is left out: what came late for it would go out with the next one.
    """
    seen: Counter[tuple[str, int, int]] = Counter()
    last: dict[tuple[str, int], tuple[int, Bar]] = {}
    for _, fields in world.redis.xrange(keys.BARS):
        if fields.keys() <= HOSTILE:
            continue  # an entry of the fault, not of the publisher
        key = fields[b"symbol"].decode(), int(fields[b"timestamp"]) * 1000
        revision = int(fields[b"revision"])
        seen[key[0], key[1], revision] += 1
        o, h, lo, c, vol, amount = (
            float(fields[name]) for name in (b"open", b"high", b"low", b"close", b"vol", b"amount")
        )
        if key not in last or revision >= last[key][0]:
            last[key] = revision, (o, h, lo, c, int(vol), amount)
    for (symbol, ms, revision), count in seen.items():
        if count > 1:
            verdict.bars_wrong[ms] += count - 1
            verdict.complain(f"bar {symbol} {from_ms(ms):%H:%M}, revision {revision}, was published {count} times")
    for key, bar in live.items():
        if key[1] >= newest:
            continue
        verdict.published_compared += 1
        found = last[key][1] if key in last else None
        if not _equal(bar, found):
            verdict.bars_wrong[key[1]] += 1
            verdict.complain(f"published bar {key[0]} {from_ms(key[1]):%H:%M}: expected {bar}, found {found}")
