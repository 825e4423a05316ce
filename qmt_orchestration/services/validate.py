"""Recorded market data through the SQL of the warehouse, and how much of it comes out right (`qmt validate FOLDER`).

Files are recognised by name (`warehouse.recordings`). Ticks go through the checks of the feed, and what these accept
through the rule of a bar; the bars are compared with the accepted snapshots, full days and parts of days apart. A
vendor's finest bars go through the rollups and are compared with the vendor's coarser ones. All of it happens in
databases that are dropped afterwards, on a private engine unless a server is configured.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.feed.recorded import checked
from qmt_orchestration.local import engines
from qmt_orchestration.market.periods import UnknownPeriod, minutes_of
from qmt_orchestration.market.quality import Reason
from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect, load_sql
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration.warehouse.recordings import TICKS, VENDOR, read_bars, read_ticks

#: What a day's volume usually differs from its rounded minutes by: "up to ~300 shares" in the recordings' notes.
USUAL_SHARES: Final = 350
_CHUNK_ROWS: Final = 500_000
ACCEPTED: Final = "ticks: accepted by the checks of the feed, or a repeat"
_KINDS: Final = {"full": "full days", "part": "parts of days", "idle": "no trade"}
_TICK_CHECKS: Final = (
    "a row for every minute from the first trade on",
    "09:30 is the opening call alone",
    "volume",
    "amount",
    "high",
    "low",
    "5m and 30m add up (48 and 8 rows)",
    "240-row view adds up",
    "daily row = last snapshot",
    "after-hours volume apart",
)
_IDLE_CHECKS: Final = {
    "a row for every minute from the first trade on": "no minute bars",
    "daily row = last snapshot": "daily row without volume",
}


@dataclass
class Rate:
    """How many of a kind were right. *exact* rates must be 100 %; *worst* shows the first that were not."""

    name: str
    exact: bool
    matched: int = 0
    total: int = 0
    worst: list[str] = field(default_factory=list)

    def add(self, right: bool, found: str) -> None:
        """Count one; keep the evidence of the first few that are wrong."""
        self.total += 1
        self.matched += right
        if not right and len(self.worst) < 5:
            self.worst.append(found)


@dataclass
class MatchRates:
    """Rates of one folder, files that cannot be read, and what there is to know beside: parts of days, rows left out,
    bars that cannot be compared, kinds of files that were absent."""

    rates: list[Rate] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every file was read, anything was checked, and every exact rate is 100 %."""
        right = all(r.matched == r.total for r in self.rates if r.exact)
        return right and not self.unreadable and any(r.total for r in self.rates)

    def rate(self, name: str, exact: bool = True) -> Rate:
        """The rate of that name, new if there is none."""
        for known in self.rates:
            if known.name == name:
                return known
        self.rates.append(Rate(name, exact))
        return self.rates[-1]


def validate(folder: Path, settings: Settings) -> MatchRates:
    """Put the recordings of *folder* through the warehouse. Raises `RecordingError` when there is no such folder."""
    if not folder.is_dir():
        raise RecordingError(f"no folder {folder}: name one with recordings (make validate RECORDINGS=folder)")
    names = sorted(p for p in folder.iterdir() if p.is_file())
    report = MatchRates()
    vendor = _vendor_files(names, report)
    ticks = [p for p in names if TICKS.match(p.name)]
    if ticks:
        with _warehouse(settings) as client:
            _ticks(client, ticks, vendor, report)
    else:
        report.notes.append("no ticks_*.parquet|csv: the rule of a bar was not checked")
    if vendor:
        with _warehouse(settings, tuple(vendor)) as client:
            _vendor_bars(client, vendor, report)
    else:
        report.notes.append("no bars_{1m,5m,30m,1d}_*.parquet|csv: the rollups were not checked")
    return report


def _vendor_files(paths: Iterable[Path], report: MatchRates) -> dict[str, pa.Table]:
    """The vendor's bars by period."""
    found: dict[str, list[pa.Table]] = {}
    for path in paths:
        match = VENDOR.match(path.name)
        if not match:
            continue
        period = match.group(1)
        try:
            if period != "1m":
                minutes_of(period)
            recording = read_bars(path)
        except RecordingError as error:
            report.unreadable.append(str(error))
            continue
        except UnknownPeriod as error:
            report.unreadable.append(f"{path.name}: {error}")
            continue
        _note_left_out(path, recording.left_out, report)
        found.setdefault(period, []).append(recording.table)
    return {period: pa.concat_tables(tables) for period, tables in found.items()}


def _note_left_out(path: Path, count: int, report: MatchRates) -> None:
    if count:
        report.notes.append(f"{path.name}: {count:,} rows without a value were left out")


def _note_rejected(path: Path, ticks: int, rejected: list[dict[str, Any]], report: MatchRates) -> None:
    """What the checks of the feed said of a file's ticks; a repeat is nothing wrong."""
    reasons: dict[str, list[dict[str, Any]]] = {}
    for row in rejected:
        if row["reason"] != Reason.DUPLICATE.value:
            reasons.setdefault(row["reason"], []).append(row)
    count = sum(map(len, reasons.values()))
    rate = report.rate(ACCEPTED, exact=False)
    rate.total, rate.matched = rate.total + ticks, rate.matched + ticks - count
    for reason, rows in reasons.items():
        first = min(rows, key=lambda row: row["time"])
        where = f"first {first['symbol']} {from_ms(first['time']):%Y-%m-%d %H:%M:%S}: {first['detail']}"
        report.notes.append(f"{path.name}: {len(rows):,} ticks rejected, {reason}; {where}")


@contextmanager
def _warehouse(settings: Settings, periods: tuple[str, ...] = ()) -> Iterator[Any]:
    """A client of a database that is dropped at the end; on a private engine unless a server is configured."""
    with tempfile.TemporaryDirectory(prefix="qmt-validate-") as scratch:
        private = settings if settings.clickhouse_url else settings.model_copy(update={"data_dir": Path(scratch)})
        with engines.ensure(private, names=("clickhouse",)) as ready:
            chosen = {
                "clickhouse_database": f"qmt_validate_{uuid4().hex[:12]}",
                "rollup_periods": tuple(p for p in periods if p not in ("1m", "1d")),
            }
            own = ready.model_copy(update=chosen)
            migrate(own)
            client = connect(own)
            try:
                yield client
            finally:
                client.command("DROP DATABASE {db:Identifier} SYNC", {"db": own.clickhouse_database})
                client.close()


def _ticks(client: Any, paths: Iterable[Path], vendor: dict[str, pa.Table], report: MatchRates) -> None:
    days: set[date] = set()
    for path in paths:
        try:
            recording = read_ticks(path)
        except RecordingError as error:
            report.unreadable.append(str(error))
            continue
        _note_left_out(path, recording.left_out, report)
        ticks, rejected = checked(recording.table)
        _note_rejected(path, recording.table.num_rows, rejected, report)
        days.update(_days(ticks))
        for start in range(0, ticks.num_rows, _CHUNK_ROWS):
            client.insert_arrow("ticks", ticks.slice(start, _CHUNK_ROWS))
    for kind in ("full", "part"):  # in this order in the table, and only if there are any
        for name in _TICK_CHECKS:
            report.rate(f"ticks, {_KINDS[kind]}: {name}")
    same = Rate("ticks: computed once more = as they came (days)", exact=True)
    for day in sorted(days):
        _make_day(client, day)
        _check_day(client, day, report)
        changed = bars.finalize(client, day, None, bars.newest_frame(client, day)).rows
        same.add(changed == 0, f"{day}: {changed} rows differ")
    report.rates = [r for r in report.rates if r.total] + [same] * bool(days)
    if "1m" in vendor and days:
        _compare_with_vendor(client, vendor["1m"], report)


def _days(ticks: pa.Table) -> set[date]:
    local = pc.local_timestamp(ticks.column("time"))
    return set(pc.unique(local.cast(pa.date32(), safe=False)).to_pylist())


def _make_day(client: Any, day: date) -> None:
    """A recorded day as `qmt replay` makes it: it is over, so the minute and the windows it ends in are whole."""
    bars.finalize(client, day, None, bars.newest_frame(client, day))
    for period in ("5m", "30m", "1d"):
        bars.roll_up(client, day, period, day_over=True)


def _check_day(client: Any, day: date, report: MatchRates) -> None:
    newest = bars.newest_frame(client, day)
    if newest is None:
        return
    parameters = {"day": day, "last": f"{newest:%Y-%m-%d %H:%M:%S}"}
    spans: Counter[tuple[str, str]] = Counter()
    for symbol, kind, *flags, since, until, found in client.query(load_sql("validate_ticks"), parameters).result_rows:
        for name, flag in zip(_TICK_CHECKS, flags, strict=True):
            if kind == "idle" and name not in _IDLE_CHECKS:
                continue
            shown = _IDLE_CHECKS[name] if kind == "idle" else name
            report.rate(f"ticks, {_KINDS[kind]}: {shown}").add(bool(flag), f"{symbol} {day}: {found}")
        if kind == "part":
            spans[(since[:5], until[:5])] += 1
    for (since, until), count in spans.most_common(5):
        report.notes.append(f"{day}: part of a day, {since} to {until}, {count} symbol{'s' if count > 1 else ''}")
    if len(spans) > 5:
        report.notes.append(f"{day}: parts of a day, {sum(spans.values())} symbols in all")


def _compare_with_vendor(client: Any, minutes: pa.Table, report: MatchRates) -> None:
    """Our minutes beside a vendor's of the same symbol and day, for information."""
    _store(client, {"1m": minutes})
    names = ("volume within a lot", "close", "high and low")
    rates = [Rate(f"our minutes beside a vendor's: {name}", exact=False) for name in names]
    for symbol, frame, *flags, found in client.query(load_sql("validate_other")).result_rows:
        for rate, flag in zip(rates, flags, strict=True):
            rate.add(bool(flag), f"{symbol} {frame}: {found}")
    report.rates += [rate for rate in rates if rate.total]


def _store(client: Any, vendor: dict[str, pa.Table]) -> None:
    for period, table in vendor.items():
        client.insert_arrow("qmt_bars", table.append_column("period", pa.array([period] * table.num_rows)))


def _vendor_bars(client: Any, vendor: dict[str, pa.Table], report: MatchRates) -> None:
    _store(client, vendor)
    days = [row[0] for row in client.query(load_sql("vendor_days")).result_rows]
    for day in days:  # a partition is a day
        client.command(load_sql("validate_base"), {"day": day})
    finest = min((minutes_of(p) if p != "1m" else 1 for p in vendor if p != "1d"), default=0)
    coarser = sorted((minutes_of(p), p) for p in vendor if p not in ("1m", "1d") and minutes_of(p) > finest)
    adds_up = Rate("vendor's finest bars → our rollups: volume, amount, extremes add up", exact=True)
    for period in {"5m", "30m", *(p for _, p in coarser)}:
        for day in days:
            bars.roll_up(client, day, period, day_over=True)
        for symbol, day, right, found in client.query(
            load_sql("validate_sums"), {"table": f"bars_{period}"}
        ).result_rows:
            adds_up.add(bool(right), f"{symbol} {day} {period}: {found}")
    report.rates += [adds_up] if adds_up.total else []
    for minutes, period in coarser:
        rate, skipped = Rate(f"vendor's finer bars → our {period} = vendor's {period} (rows)", exact=True), 0
        parameters = {"period": period, "table": f"bars_{period}", "minutes": minutes}
        for symbol, frame, comparable, equal, found in client.query(
            load_sql("validate_rollup"), parameters
        ).result_rows:
            if comparable:
                rate.add(bool(equal), f"{symbol} {frame}: {found}")
            skipped += not comparable
        report.rates.append(rate)
        if skipped:
            report.notes.append(f"{period}: {skipped} rows not compared, their minutes are not all there")
    if not coarser:
        report.notes.append("no bars of 5m, 30m … beside finer ones: intraday rollups were not compared")
    if "1d" in vendor and finest:
        _vendor_days(client, report)
    else:
        report.notes.append("no bars_1d_* beside intraday bars: daily bars were not compared")


def _vendor_days(client: Any, report: MatchRates) -> None:
    names = (
        ("open, close", True),
        ("volume within the rounding of its minutes", True),
        ("amount within the rounding of its minutes", True),
        ("high, low inside the day's", True),
        (f"volume within {USUAL_SHARES} shares", False),
        ("high, low equal the day's", False),
    )
    rates = [Rate(f"vendor's minutes → 1d: {name}", exact) for name, exact in names]
    skipped = 0
    for symbol, frame, comparable, prices, _, volume, amount, inside, usual, equal, found in client.query(
        load_sql("validate_daily"), {"vol_usual": USUAL_SHARES}
    ).result_rows:
        skipped += not comparable
        if comparable:
            for rate, flag in zip(rates, (prices, volume, amount, inside, usual, equal), strict=True):
                rate.add(bool(flag), f"{symbol} {frame:%Y-%m-%d}: {found}")
    report.rates += [rate for rate in rates if rate.total]
    if skipped:
        report.notes.append(f"1d: {skipped} days not compared: no trade, or their minutes are not all there")
