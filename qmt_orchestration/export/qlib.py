"""Bars as a Qlib data folder: ``calendars``, ``instruments`` and ``features`` of float32 with a start index.

* ``calendars/day.txt`` or ``1min.txt``: one label a line. Minutes are labelled by their start, 240 a day, with the
  opening call in 09:30; a day by its date.
* ``instruments/all.txt``: ``SH600000<TAB>first<TAB>last`` (days).
* ``features/sh600000/close.day.bin``: little-endian float32; the first value is the index of the first label in the
  calendar, NaN where there is no bar (of days: no trade).

Prices are adjusted backward by ratio, so that what was written stays right when an event is added: ``factor`` is
adjusted ÷ traded price, ``volume`` is shares ÷ factor, ``amount`` is yuan, ``vwap`` is adjusted, ``change`` (days) is
the return on the day's previous close. Each file is replaced as a whole, the calendar last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.client import adjust, reading
from qmt_orchestration.client.adjust import Events, groups
from qmt_orchestration.client.bar_queries import events_of, local_days, text
from qmt_orchestration.client.errors import BadRange, NoDataInRange, QueryError
from qmt_orchestration.client.moments import Moment, Range, span
from qmt_orchestration.files import replace_file
from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings

#: Labels of a day by freq, minutes since midnight.
LABELS: Final[dict[str, tuple[int, ...]]] = {"day": (0,), "1min": (*range(570, 690), *range(780, 900))}
_TABLES: Final = {"day": "bars_1d", "1min": "bars_1m"}
_ROWS_AT_ONCE: Final = 1_500_000
_EPOCH: Final = date(1970, 1, 1)
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Exported:
    """What an export wrote: symbols, labels in the calendar, bars read, first and last day."""

    symbols: int
    labels: int
    bars: int
    first: date
    last: date


def export(
    target: Path,
    freq: str,
    start: Moment,
    end: Moment,
    *,
    settings: Settings | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the bars of [start, end] into the folder *target*. What it holds stays; days asked for again are renewed.

    A folder grows forward only, without a gap: days between its last one and *start* are written too. A symbol whose
    past dividend events have changed is written again from its beginning. Raises `QueryError` for an unknown *freq*,
    `BadRange` for days before the folder's first, `NoDataInRange` when nothing is stored of the range.
    """
    if freq not in LABELS:
        raise QueryError(f"expected a freq of {', '.join(LABELS)}, found {freq!r}")
    first, last = _stored_days(settings, freq, span(start, end))
    folder = _Folder(target, freq)
    if folder.days and first < folder.days[0]:
        raise BadRange(
            f"{target} begins on {folder.days[0]} and grows forward only: export from {first} on into an empty folder"
        )
    changed = _with_changed_events(settings, folder)
    if folder.days:
        first = min(first, folder.days[-1] + timedelta(days=1))
    begin = folder.days[0] if folder.days else first
    folder.extend(trading_days(begin, max([last, *folder.days[-1:]])))
    bars, count = 0, 0
    for low, symbols in ((begin, changed), (first, _symbols(settings, freq, first, last) - changed)):
        size = max(1, _ROWS_AT_ONCE // (len(LABELS[freq]) * max(len(trading_days(low, last)), 1)))
        ordered = sorted(symbols)
        for position in range(0, len(ordered), size):
            bars += _write(settings, folder, ordered[position : position + size], low, last)
            count += len(ordered[position : position + size])
            progress(f"{count:,} symbols")
    folder.finish()
    return Exported(count, len(folder.days) * len(LABELS[freq]), bars, first, last)


class _Folder:
    """A data folder of one freq: its calendar (whole trading days), instruments and feature files."""

    def __init__(self, target: Path, freq: str) -> None:
        self.target, self.freq = target, freq
        lines = _lines(target / "calendars" / f"{freq}.txt")
        self.days = sorted({date.fromisoformat(line[:10]) for line in lines})
        found = (line.split("\t") for line in _lines(target / "instruments" / "all.txt"))
        self.spans = {name: (first, last) for name, first, last in found}

    def extend(self, days: list[date]) -> None:
        """Let the calendar be *days*."""
        self.days = days

    def index_of(self, days: Places, minutes: Places) -> Places:
        """Places of labels in the calendar: days since 1970 and minutes since midnight."""
        own = np.array([(day - _EPOCH).days for day in self.days])
        labels = LABELS[self.freq]
        return np.searchsorted(own, days) * len(labels) + np.searchsorted(np.array(labels), minutes)

    def path(self, name: str, feature: str) -> Path:
        return self.target / "features" / name.lower() / f"{feature}.{self.freq}.bin"

    def last_factor(self, name: str) -> tuple[float, date] | None:
        """The newest factor written for a symbol, and its day."""
        path = self.path(name, "factor")
        if not path.exists():
            return None
        values = np.fromfile(path, "<f4")
        place = int(values[0]) + int(np.flatnonzero(~np.isnan(values[1:]))[-1])
        return float(values[1:][place - int(values[0])]), self.days[place // len(LABELS[self.freq])]

    def put(self, name: str, feature: str, renewed: tuple[int, int], places: Places, values: Any) -> None:
        """Replace what a file holds in the places [first, last) of *renewed* by *values* at *places*."""
        path = self.path(name, feature)
        raw = np.fromfile(path, "<f4") if path.exists() else np.zeros(1, np.float32)
        old_first, old = int(raw[0]), raw[1:]
        first = min(old_first, int(places[0])) if len(old) else int(places[0])
        out = np.full(max(old_first + len(old), int(places[-1]) + 1) - first, np.nan, np.float32)
        out[old_first - first : old_first - first + len(old)] = old
        out[max(renewed[0] - first, 0) : max(renewed[1] - first, 0)] = np.nan
        out[places - first] = values
        replace_file(path, np.concatenate([[np.float32(first)], out]).astype("<f4").tobytes())

    def finish(self) -> None:
        """Write instruments and calendar."""
        lines = [f"{name}\t{first}\t{last}" for name, (first, last) in sorted(self.spans.items())]
        _replace(self.target / "instruments" / "all.txt", lines)
        form = "%Y-%m-%d" if self.freq == "day" else "%Y-%m-%d %H:%M:%S"
        labels = [at(day, minute).strftime(form) for day in self.days for minute in LABELS[self.freq]]
        _replace(self.target / "calendars" / f"{self.freq}.txt", labels)


def _write(settings: Settings | None, folder: _Folder, symbols: list[str], first: date, last: date) -> int:
    """Write the bars of some symbols and days; the number of bars."""
    parameters = {"symbols": symbols, "first": text(to_ms(at(first, 0))), "last": text(to_ms(at(last, 1439)))}
    found = reading.table(settings, "bars_daily" if folder.freq == "day" else "bars_240", parameters)
    if folder.freq == "day":
        found = found.filter(pa.compute.greater(found.column("vol"), 0))
    names = found.column("symbol").to_numpy(zero_copy_only=False)
    time_ms = found.column("frame").cast(pa.int64()).to_numpy() * 1000
    days = local_days(time_ms)
    minutes = np.zeros_like(days) if folder.freq == "day" else time_ms // 60_000 + 480 - days * 1440
    places = folder.index_of(days, minutes)
    edges = folder.index_of(np.array([(first - _EPOCH).days, (last - _EPOCH).days + 1]), np.zeros(2, np.int64))
    wanted = ("open", "high", "low", "close", "vol", "amount", *(("pre_close",) if folder.freq == "day" else ()))
    columns = {name: found.column(name).to_numpy() for name in wanted}
    events = events_of(settings, symbols)
    for low, high in groups(names):
        name = _qlib_name(names[low])
        factor = _factor(events.get(names[low]), days[low:high])
        for feature, values in _features({n: c[low:high] for n, c in columns.items()}, factor).items():
            folder.put(name, feature, (int(edges[0]), int(edges[1])), places[low:high], values)
        ends = [(_EPOCH + timedelta(days=int(day))).isoformat() for day in (days[low], days[high - 1])]
        old = folder.spans.get(name, (ends[0], ends[1]))
        folder.spans[name] = (min(old[0], ends[0]), max(old[1], ends[1]))
    return int(found.num_rows)


def _features(columns: dict[str, Any], factor: Any) -> dict[str, Any]:
    volume = columns["vol"].astype(np.float64)
    traded = volume > 0
    out = {name: columns[name] * factor for name in ("open", "high", "low", "close")}
    out["vwap"] = np.where(traded, columns["amount"] / np.where(traded, volume, 1.0), np.nan) * factor
    out |= {"volume": volume / factor, "amount": columns["amount"], "factor": factor}
    if "pre_close" in columns:
        known = columns["pre_close"] > 0
        out["change"] = np.where(known, columns["close"] / np.where(known, columns["pre_close"], 1.0) - 1, np.nan)
    return out


def _factor(events: Events | None, days: Any) -> Any:
    return adjust.coefficients(days, events, "back_ratio")[0] if events else np.ones(len(days))


def _stored_days(settings: Settings | None, freq: str, wanted: Range) -> tuple[date, date]:
    """First and last stored day of the range."""
    parameters = {"table": _TABLES[freq], "first": text(wanted.first_ms), "last": text(wanted.last_ms)}
    days = sorted(row[0] for row in reading.rows(settings, "bars_days", parameters))
    if not days:
        held = reading.rows(settings, "bars_span", {"table": _TABLES[freq]})[0]
        holds = " … ".join(f"{from_ms(second * 1000):%Y-%m-%d}" for second in held) if held[0] else "nothing yet"
        raise NoDataInRange(
            f"nothing to export from {wanted.first_day} to {wanted.last_day}: {_TABLES[freq]} holds {holds}"
        )
    return days[0], days[-1]


def _symbols(settings: Settings | None, freq: str, first: date, last: date) -> set[str]:
    parameters = {"first": text(to_ms(at(first, 0))), "last": text(to_ms(at(last, 1439)))}
    return {row[0] for row in reading.rows(settings, "symbols_of_bars", {"table": _TABLES[freq], **parameters})}


def _with_changed_events(settings: Settings | None, folder: _Folder) -> set[str]:
    """Symbols whose newest written factor is no longer right: an event up to then was added or changed."""
    symbols = {f"{name[2:]}.{name[:2]}": name for name in folder.spans}
    events = events_of(settings, sorted(symbols)) if symbols else {}
    out = set()
    for symbol, name in symbols.items():
        written = folder.last_factor(name)
        if written is not None:
            now = _factor(events.get(symbol), np.array([(written[1] - _EPOCH).days]))[0]
            if not np.isclose(written[0], now, rtol=1e-6):
                out.add(symbol)
    return out


def _qlib_name(symbol: str) -> str:
    code, _, market = symbol.partition(".")
    return market + code


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").split("\n") if line] if path.exists() else []


def _replace(path: Path, lines: list[str]) -> None:
    replace_file(path, "\n".join(lines) + "\n")
