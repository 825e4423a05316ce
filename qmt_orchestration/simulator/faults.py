"""Faults that a simulated market plants on purpose, by name, so that everybody can see how each one looks.

Written ``NAME[=ARG]@HH:MM[-HH:MM]`` (setting ``sim_faults``, option ``--fault``). Times are market time of every
simulated day; without an end a fault lasts one minute, and those marked "once" strike at its begin only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

Push = dict[str, dict[str, Any]]
Change = Callable[[dict[str, Any]], dict[str, Any]]

#: name -> (argument's default, unit; what it does)
KINDS: Final[dict[str, tuple[float, str]]] = {
    "drop-symbols": (20, "N symbols are left out of every push"),
    "price-spike": (5, "N symbols show ten times their price, once each"),
    "silent-feed": (0, "nothing is pushed; the subscription stays alive, and a new one gets its full snapshot"),
    "silent-market": (3, "one market is left out of every push: 1 = SH, 2 = SZ, 3 = BJ"),
    "frozen-feed": (0, "every push is empty, or repeats the one before the fault"),
    "duplicate-batches": (1, "every push is delivered N more times"),
    "clock-back": (5, "time stamps of N seconds earlier"),
    "volume-back": (5, "N symbols show half their cumulative volume, once each"),
    "wrong-snapshots": (20, "one traded symbol in N comes once more each minute, with wrong values or a wrong time"),
    "late-ticks": (30, "one symbol in ten is delivered N seconds late"),
    "drop-connection": (0, "the connection breaks (once) and cannot be restored before the fault's end"),
    "subscribe-fails": (0, "subscribe_whole_quote returns -1"),
}
_MARKETS: Final = (".BJ", ".SH", ".SZ")
_FORM: Final = re.compile(r"^(?P<name>[a-z-]+)(=(?P<arg>\d+(\.\d+)?))?@(?P<begin>\d\d:\d\d)(-(?P<end>\d\d:\d\d))?$")


class FaultError(ValueError):
    """A fault cannot be understood; the message names the known ones and the form."""


@dataclass(frozen=True)
class Fault:
    """One planted fault; *begin* and *end* in minutes since midnight, end exclusive."""

    name: str
    argument: float
    begin: int
    end: int

    def active(self, minute: float) -> bool:
        """Whether the fault is on at this minute of the day."""
        return self.begin <= minute < self.end


def parse_fault(text: str) -> Fault:
    """Parse one fault; raises `FaultError`."""
    match = _FORM.match(text.strip())
    form = "expected NAME[=NUMBER]@HH:MM[-HH:MM], e.g. drop-symbols=20@10:15-10:20 (QMT_SIM_FAULTS, --fault)"
    if not match:
        raise FaultError(f"cannot read the fault {text!r}: {form}")
    name = match["name"]
    if name not in KINDS:
        known = "\n".join(f"  {k} ({what})" for k, (_, what) in KINDS.items())
        raise FaultError(f"unknown fault {name!r}; known are:\n{known}\n{form}")
    begin = _minutes(match["begin"], text)
    end = _minutes(match["end"], text) if match["end"] else begin + 1
    if end <= begin:
        raise FaultError(f"the fault {text!r} ends before it begins")
    return Fault(name, float(match["arg"]) if match["arg"] else KINDS[name][0], begin, end)


def _minutes(text: str, fault: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if hours > 23 or minutes > 59:
        raise FaultError(f"the fault {fault!r} holds {text!r}, which is no time of day")
    return hours * 60 + minutes


@dataclass
class FaultPlan:
    """The faults of a market and what they have done so far."""

    faults: tuple[Fault, ...]
    symbols: tuple[str, ...] = ()
    _struck: set[tuple[Fault, date, str]] = field(default_factory=set)
    _last: Push = field(default_factory=dict)
    _held: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def parse(cls, texts: tuple[str, ...], symbols: tuple[str, ...]) -> FaultPlan:
        """All faults of the setting for a market of *symbols*; raises `FaultError`."""
        return cls(tuple(parse_fault(text) for text in texts), symbols)

    def dropped(self, fault: Fault) -> frozenset[str]:
        """The symbols that a drop-symbols fault leaves out: the same ones in every push."""
        return _first_by_hash(self.symbols, int(fault.argument))

    def get(self, name: str, minute: float) -> Fault | None:
        """The active fault of this name, if any."""
        return next((f for f in self.faults if f.name == name and f.active(minute)), None)

    def once(self, name: str, day: date, minute: float) -> Fault | None:
        """Like `get`, but each fault is returned once a day."""
        fault = self.get(name, minute)
        return fault if fault and self._first(fault, day, "") else None

    def apply(self, push: Push, day: date, market_ms: int, minute: float) -> Iterator[Push]:
        """The pushes that a receiver gets in place of *push* at this market time."""
        yield from self._due(market_ms)
        if self.get("silent-feed", minute):
            return
        if self.get("frozen-feed", minute):
            yield from ({}, dict(self._last))
            return
        self._last = push
        if fault := self.get("silent-market", minute):
            market = _MARKETS[int(fault.argument) % 3]
            push = {s: t for s, t in push.items() if not s.endswith(market)}
        if fault := self.get("drop-symbols", minute):
            dropped = self.dropped(fault)
            push = {s: t for s, t in push.items() if s not in dropped}
        for name, change in (("price-spike", _spike), ("volume-back", _halve)):
            if fault := self.get(name, minute):
                push = self._change(fault, day, push, change)
        if fault := self.get("clock-back", minute):
            shift = int(fault.argument * 1000)
            push = {s: {**t, "time": t["time"] - shift} for s, t in push.items()}
        if fault := self.get("late-ticks", minute):
            late = {s for s in push if crc32(s.encode()) % 10 == 0}
            self._held += [(market_ms + int(fault.argument * 1000), s, push[s]) for s in push if s in late]
            push = {s: t for s, t in push.items() if s not in late}
        copies = self.get("duplicate-batches", minute)
        for _ in range(1 + int(copies.argument if copies else 0)):
            if push:
                yield push
        if (fault := self.get("wrong-snapshots", minute)) and (wrong := self._wrong(fault, day, int(minute), push)):
            yield wrong

    def _wrong(self, fault: Fault, day: date, minute: int, push: Push) -> Push:
        """Wrong copies of snapshots just given, a millisecond later; which symbols, and how, goes by the minute."""
        out: Push = {}
        for symbol, tick in push.items():
            chance = crc32(f"{symbol}{minute}".encode())
            if chance % int(fault.argument) or not tick["pvolume"] or not self._first(fault, day, f"{symbol}{minute}"):
                continue
            out[symbol] = _ERRORS[chance // 1000 % len(_ERRORS)]({**tick, "time": tick["time"] + 1})
        return out

    def _change(self, fault: Fault, day: date, push: Push, change: Any) -> Push:
        """Change the first N symbols that trade in the fault's window, each once a day."""
        done = sum(1 for f, d, s in self._struck if f == fault and d == day and s)
        out = dict(push)
        for symbol, tick in push.items():
            if done >= fault.argument:
                break
            if tick["pvolume"] > 0 and self._first(fault, day, symbol):
                out[symbol] = change(tick)
                done += 1
        return out

    def _first(self, fault: Fault, day: date, symbol: str) -> bool:
        key = (fault, day, symbol)
        if key in self._struck:
            return False
        self._struck.add(key)
        return True

    def _due(self, market_ms: int) -> Iterator[Push]:
        """Held ticks whose time has come, no symbol twice in a push."""
        while ready := {s: (at, t) for at, s, t in reversed(self._held) if at <= market_ms}:
            for symbol, (at, tick) in ready.items():
                self._held.remove((at, symbol, tick))
            yield {s: t for s, (_, t) in ready.items()}


@lru_cache(maxsize=16)
def _first_by_hash(symbols: tuple[str, ...], count: int) -> frozenset[str]:
    return frozenset(sorted(symbols, key=lambda s: crc32(b"drop" + s.encode()))[:count])


def _spike(tick: dict[str, Any]) -> dict[str, Any]:
    return {**tick, "lastPrice": tick["lastPrice"] * 10, "high": max(tick["high"], tick["lastPrice"] * 10)}


def _halve(tick: dict[str, Any]) -> dict[str, Any]:
    return {**tick, "pvolume": tick["pvolume"] // 2, "volume": tick["volume"] // 2, "amount": tick["amount"] / 2}


def _times(factor: int, *names: str) -> Change:
    return lambda tick: {**tick, **{name: tick[name] * factor for name in names}}


def _ahead(ms: int) -> Change:
    return lambda tick: {**tick, "time": tick["time"] + ms}


_ERRORS: Final[tuple[Change, ...]] = (
    _spike,
    _halve,
    _times(10, "high"),
    _times(100, "amount"),
    _times(10, "volume", "pvolume"),
    _times(10, "volume", "pvolume", "amount"),
    _ahead(600_000),
    _ahead(86_400_000),
)
