"""Hard cases, one symbol each: a day of true snapshots with planted wrong ones, and what must come out of it.

What is expected is computed here in plain Python from the true snapshots alone, by the rule in docs/bars.md; it shares
no code with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

Row = dict[str, Any]
Change = Callable[[Row], Row]

SHANGHAI = timezone(timedelta(hours=8))
#: units per 手 by the code's first digits
LOTS = {"113": 10, "123": 10, "204": 10, "000300": 1}


def times(factor: float, *names: str) -> Change:
    return lambda row: {**row, **{n: type(row[n])(round(row[n] * factor, 6)) for n in names}}


def put(**values: Any) -> Change:
    return lambda row: {**row, **values}


@dataclass
class Case:
    """One symbol's day. *call*: 14:57 to 15:00 is a call auction; *late*: trading after 15:05 is kept apart."""

    what: str
    symbol: str
    day: str = "2022-06-01"
    pre: float = 10.0
    call: bool = True
    late: bool = False
    rows: list[Row] = field(default_factory=list)
    true: list[Row] = field(default_factory=list)
    rejected: int = 0

    def __post_init__(self) -> None:
        self.lot = next((lot for code, lot in LOTS.items() if self.symbol.startswith(code)), 100)
        self.state: Row = {
            **dict.fromkeys(("lastPrice", "open", "high", "low", "amount"), 0.0),
            "lastClose": self.pre,
            "volume": 0,
            "pvolume": 0,
            "stockStatus": 0,
            "openInt": 12,
        }
        self.units = 0
        self.show("09:15:00")

    def show(self, clock: str, wrong: Change | None = None) -> Case:
        """The present state as a snapshot; *wrong*: as what it comes instead."""
        row = {"symbol": self.symbol, "time": self.ms(clock), **self.state}
        if wrong:
            self.rejected += 1
            row = wrong(row)
        else:
            self.true.append({**row, "units": self.units})
        self.rows.append(row)
        return self

    def trade(self, clock: str, price: float, units: int, wrong: Change | None = None, at: float = 0.0) -> Case:
        """Trade *units* at *price* (or, between snapshots, at *at*) and show it."""
        s, paid = self.state, at or price
        self.units += units
        s["open"] = s["open"] or paid
        s["high"] = max(s["high"], price, paid)
        s["low"] = min(s["low"] or paid, price, paid)
        worth = 100.0 if self.symbol.startswith("204") else 7e3 if self.symbol == "000300.SH" else paid
        s.update(lastPrice=price, amount=round(s["amount"] + worth * units, 2), openInt=13)
        s.update(volume=self.units // self.lot, pvolume=0 if self.symbol == "000300.SH" else self.units)
        return self.show(clock, wrong)

    def ms(self, clock: str) -> int:
        return round(datetime.fromisoformat(f"{self.day} {clock}").replace(tzinfo=SHANGHAI).timestamp() * 1000)

    @property
    def expect(self) -> dict[str, Any]:
        return {"day": self._day(), "rejected": self.rejected, "bars": dict(self._bars())}

    def _frame(self, row: Row) -> str:
        """The label of the minute, "" for none."""
        at = datetime.fromtimestamp(row["time"] / 1000, SHANGHAI)
        second = at.hour * 3600 + at.minute * 60 + at.second
        if second >= (54001 if self.symbol.startswith("204") else 54300):
            return ""
        minute = second // 60 + 1
        minute = 570 if second < 34200 else 690 if 41400 <= second < 46800 else min(minute, 900)
        return f"{minute // 60:02d}:{minute % 60:02d}"

    def _day(self) -> tuple[Any, ...]:
        seen = [row for row in self.true if row["units"] and self._frame(row)]
        after = [row for row in self.true if row["units"] and not self._frame(row)]
        last = seen[-1]
        extra = 0
        if after and self.late:
            extra = after[-1]["units"] - last["units"]
        elif after:
            last = after[-1]
        return (last["high"], last["low"], last["lastPrice"], last["units"], last["amount"], extra)

    def _bars(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        before: Row = {"units": 0, "amount": 0.0, "high": 0.0, "low": 1e9}
        frames: dict[str, list[Row]] = {}
        for row in self.true:
            if row["units"] and self._frame(row):
                frames.setdefault(self._frame(row), []).append(row)
        for frame, rows in frames.items():
            last, prices = rows[-1], [row["lastPrice"] for row in rows]
            grown = last["units"] - before["units"], last["amount"] - before["amount"]
            highs = [last["high"]] if last["high"] > before["high"] else []
            lows = [last["low"]] if last["low"] < before["low"] else []
            early = [row for row in rows if datetime.fromtimestamp(row["time"] / 1000, SHANGHAI).hour < 15]
            if self.call and frame == "15:00" and not any(row["units"] > before["units"] for row in early):
                prices = prices[-1:]
            if any(grown) or highs or lows:
                yield frame, (prices[0], max(prices + highs), min(prices + lows), prices[-1], grown[0])
            before = last


#: clock, price as a share of the previous close, lots
TRADES = (
    ("09:25:00", 1.0, 10),
    ("09:30:03", 1.001, 5),
    ("10:00:30", 1.002, 3),
    ("10:00:57", 0.999, 2),
    ("10:20:15", 1.005, 4),
    ("11:29:58", 1.004, 1),
    ("13:00:00", 1.003, 6),
    ("14:00:03", 1.01, 7),
    ("14:56:57", 1.008, 3),
    ("15:00:00", 1.006, 9),
)


def ordinary(case: Case, wrong: dict[int, Change] | None = None, until: int = len(TRADES)) -> Case:
    """TRADES; the snapshots with the numbers in *wrong* come wrong."""
    for number, (clock, share, lots) in enumerate(TRADES[:until]):
        case.trade(clock, round(case.pre * share, 3), lots * case.lot, (wrong or {}).get(number))
    return case


ALL = ("volume", "pvolume", "amount")
WRONG: dict[str, dict[int, Change]] = {
    "amount x100 in the first trade": {0: times(100, "amount")},
    "volume and amount x10 in the first trade": {0: times(10, *ALL)},
    "volume and amount x10 in the last but one": {8: times(10, *ALL)},
    "volume and amount x100 twice, three true ones after": {5: times(100, *ALL), 6: times(100, *ALL)},
    "volume x100 in the last": {9: times(100, "volume", "pvolume")},
    "day high x10 in the last": {9: times(10, "high")},
    "three amounts x10, which agree": {n: times(10, "amount") for n in (3, 4, 5)},
    "three spikes of price and day high, which agree": {n: times(10, "lastPrice", "high") for n in (4, 5, 6)},
    "two spikes of the day high within the limits, two true ones after": {n: put(high=10.9) for n in (6, 7)},
    "another previous close in the last": {9: put(lastClose=100.0)},
    "all zero, and back": {
        5: put(**dict.fromkeys(("volume", "pvolume", "amount", "lastPrice", "open", "high", "low"), 0))
    },
    "falls by one trade in the last": {9: put(volume=39, pvolume=3900, amount=39163.0)},
    "no number": {4: put(amount=float("nan"))},
    "high below the price": {4: put(high=10.0)},
}
SESSIONS: dict[str, dict[str, Any]] = {
    "SH stock before 2018-08-20": {"symbol": "600201.SH", "day": "2018-08-17", "call": False},
    "SH fund before 2026-07-06": {"symbol": "510300.SH", "pre": 4.0, "call": False},
    "SH fund from 2026-07-06 on": {"symbol": "510310.SH", "day": "2026-07-06", "pre": 4.0},
    "SH convertible": {"symbol": "113050.SH", "pre": 120.0, "call": False},
    "SZ convertible": {"symbol": "123219.SZ", "pre": 131.0},
    "repo": {"symbol": "204001.SH", "pre": 2.0, "call": False, "late": True},
    "index": {"symbol": "000300.SH", "pre": 3900.0, "call": False},
    "STAR": {"symbol": "688111.SH", "pre": 100.0, "late": True},
    "ChiNext before 2020-08-24": {"symbol": "300751.SZ", "pre": 400.0, "day": "2020-08-21"},
    "main board from 2026-07-06 on": {"symbol": "600202.SH", "day": "2026-07-06", "late": True},
}


def cases() -> Iterator[Case]:
    """Planted errors, sessions by kind and date, and moments."""
    for number, (what, wrong) in enumerate(WRONG.items()):
        yield ordinary(Case(what, f"{600300 + number}.SH"), wrong)
    for what, about in SESSIONS.items():
        case = ordinary(Case(what, **about), until=9)
        price = round(case.pre * 1.004, 3)
        case.trade("14:58:03", price, 2 * case.lot).trade("14:59:30", round(price * 0.999, 3), case.lot)
        yield case.trade("15:00:00", price, 5 * case.lot).trade("15:20:00", price, 3 * case.lot)
    case = ordinary(Case("same time, other contents; an error on the boundary of a minute", "600401.SH"), until=2)
    case.trade("10:00:59.999", 10.02, 100).trade("10:00:59.999", 10.04, 100)
    case.trade("10:01:00", 10.03, 100, times(10, *ALL)).trade("10:01:00.500", 10.02, 100).trade("10:02:00", 10.0, 300)
    yield case.trade("11:30:03", 10.02, 100).trade("13:00:00", 10.02, 100).trade("15:04:59.999", 10.03, 100)
    case = ordinary(Case("repeats of the last price around the call; an old one with a new time", "600402.SH"), until=9)
    case.show("14:58:03", put(**{name: case.rows[5][name] for name in ("high", "low", *ALL)}))
    yield case.show("15:00:00").trade("15:00:03", 10.2, 900).show("15:00:06")
    case = ordinary(Case("the close was not seen, the next snapshot is wrong", "600403.SH"), until=8)
    yield case.trade("15:06:00", 10.2, 700, times(10, "amount")).trade("15:09:00", 10.2, 100)
    case = ordinary(Case("wrong snapshots after hours", "688114.SH", pre=100.0, late=True))
    case.trade("15:10:00", 100.6, 400, times(10, "high")).trade("15:15:00", 100.6, 400, times(10, *ALL))
    yield case.trade("15:20:00", 100.6, 100).show("15:25:00")
    case = ordinary(Case("stamped half an hour late; a copy stamped tomorrow", "600404.SH"), {3: put(time=0)})
    case.rows[4]["time"] = case.ms("10:30:57")
    tomorrow = case.rows[-1]["time"] + 86_400_000
    yield case.show("15:00:00", put(time=tomorrow))
    case = Case("amounts rounded to 100 yuan, a lot a trade", "600405.SH", pre=5.0)
    for clock in ("09:25:00", "09:31:00", "10:00:00", "10:30:00", "15:00:00"):
        case.trade(clock, 5.01, 100)
        for rows in (case.rows, case.true):
            rows[-1]["amount"] = float(round(rows[-1]["amount"], -2))
    yield case
