"""`qmt validate FOLDER`: recorded market data through the SQL of the warehouse, and how much of it comes out right.

Files of a folder are told apart by name: ``ticks_*.parquet|csv`` (columns of `market.schema.RECORDED_COLUMNS`) and a
vendor's bars ``bars_{1m,5m,30m,1d}_*.parquet|csv`` (symbol, frame, open, high, low, close, vol in shares, amount).
Ticks go through states and the rule of a bar; a vendor's minutes through the rollups. All of it happens in databases
that are dropped afterwards, on a private engine unless a server is configured.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.market.schema import RECORDED_COLUMNS, TICK_SCHEMA, TZ
from qmt_orchestration.market.sessions import MINUTE_LABELS, SHANGHAI, at, from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect, load_sql
from qmt_orchestration.warehouse.migrate import migrate

_VENDOR: Final = re.compile(r"^bars_(\d+m|1d)_.*\.(parquet|csv)$")
_VENDOR_COLUMNS: Final = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount")
#: What 240 minutes rounded to lots and to yuan differ from the day by: "up to ~300 shares" in the recordings' notes.
VOL_TOLERANCE, AMOUNT_TOLERANCE = 350, 300.0
_CHUNK_ROWS: Final = 500_000


class RecordingError(ValueError):
    """The folder or a file in it cannot be used; the message names file, column and what was expected."""


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
class Report:
    """Rates of one folder; ``ok`` = something was checked and every exact rate is 100 %."""

    rates: list[Rate] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every exact rate is 100 % (and there was anything to check)."""
        return any(r.total for r in self.rates) and all(r.matched == r.total for r in self.rates if r.exact)


def validate(folder: Path, settings: Settings | None = None) -> Report:
    """Put the recordings of *folder* through the warehouse. Raises `RecordingError` for a file that cannot be read."""
    if not folder.is_dir():
        raise RecordingError(f"no folder {folder}: name one with recordings (make validate RECORDINGS=folder)")
    ticks = sorted(p for p in folder.iterdir() if re.match(r"^ticks_.*\.(parquet|csv)$", p.name))
    vendor: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _VENDOR.match(path.name):
            vendor.setdefault(match.group(1), []).append(path)
    report = Report()
    with _warehouse(settings or Settings()) as (client, _):
        if ticks:
            _ticks(client, ticks, report)
        else:
            report.absent.append("ticks_*.parquet|csv: the rule of a bar was not checked")
    if "1m" not in vendor:
        report.absent.append("bars_1m_*.parquet|csv: the rollups were not checked")
        return report
    with _warehouse(settings or Settings()) as (client, _):
        _vendor_bars(client, vendor, report)
    return report


@contextmanager
def _warehouse(settings: Settings) -> Iterator[tuple[Any, Settings]]:
    """A client of a database that lives as long as the block; a private engine unless a server is configured."""
    from qmt_orchestration.embedded import engines

    with tempfile.TemporaryDirectory(prefix="qmt-validate-") as scratch:
        private = settings if settings.clickhouse_url else settings.model_copy(update={"data_dir": Path(scratch)})
        with engines.ensure(private, names=("clickhouse",)) as ready:
            own = ready.model_copy(update={"clickhouse_database": f"qmt_validate_{uuid4().hex[:12]}"})
            migrate(own)
            client = connect(own)
            try:
                yield client, own
            finally:
                client.command("DROP DATABASE {db:Identifier} SYNC", {"db": own.clickhouse_database})
                client.close()


def _ticks(client: Any, paths: Iterable[Path], report: Report) -> None:
    days: set[date] = set()
    for path in paths:
        table = _tick_table(path)
        days.update(d.as_py() for d in pc.unique(table.column("time").cast(pa.timestamp("ms", TZ)).cast(pa.date32())))
        for start in range(0, table.num_rows, _CHUNK_ROWS):
            client.insert_arrow("ticks", table.slice(start, _CHUNK_ROWS))
    names = ("rows from the first trade on", "volume", "amount", "high", "low", "after-hours volume apart")
    rates = [Rate(f"ticks: {name}", exact=True) for name in names]
    same = Rate("ticks: rebuilt from stored ticks = as they came (days)", exact=True)
    for day in sorted(days):
        bars.finalize(client, day)
        bars.roll_up(client, day, "1d")
        closed = [
            f for f in (at(day, m) for m in MINUTE_LABELS) if f.timestamp() * 1000 <= bars.market_time_ms(client, day)
        ]
        if not closed:
            continue
        last = closed[-1]
        until = last + timedelta(minutes={690: 90, 900: 5}.get(last.hour * 60 + last.minute, 0))
        parameters = {"day": day, "last": f"{last:%Y-%m-%d %H:%M:%S}", "until": f"{until:%Y-%m-%d %H:%M:%S}"}
        for symbol, *flags, found in client.query(load_sql("validate_ticks"), parameters).result_rows:
            for rate, flag in zip(rates, flags, strict=True):
                rate.add(bool(flag), f"{symbol} {day}: {found}")
        bars.rebuild_states(client, day)
        changed = bars.finalize(client, day).rows
        same.add(changed == 0, f"{day}: {changed} rows differ")
    report.rates += [*rates, same]


def _vendor_bars(client: Any, files: dict[str, list[Path]], report: Report) -> None:
    for period, paths in files.items():
        table = pa.concat_tables([_vendor_table(p) for p in paths])
        client.insert_arrow("qmt_bars", table.append_column("period", pa.array([period] * table.num_rows)))
    days = [row[0] for row in client.query(load_sql("vendor_days")).result_rows]
    for day in days:
        bars.fill_from_history(client, day)
    for period in [p for p in ("5m", "30m") if p in files]:
        for day in days:
            bars.roll_up(client, day, period)
        rate = Rate(f"vendor 1m → our {period} = vendor {period} (rows)", exact=True)
        parameters = {"period": period, "table": f"bars_{period}"}
        for symbol, frame, equal, found in client.query(load_sql("validate_rollup"), parameters).result_rows:
            rate.add(bool(equal), f"{symbol} {frame}: {found}")
        report.rates.append(rate)
    report.absent += [f"bars_{p}_*: not compared" for p in ("5m", "30m", "1d") if p not in files]
    if "1d" in files:
        names = (
            ("open, close", True),
            (f"volume within {VOL_TOLERANCE} shares", False),
            (f"amount within {AMOUNT_TOLERANCE:g} yuan", False),
            ("high, low inside the day's", True),
        )
        rates = [Rate(f"vendor 1m → 1d: {name}", exact) for name, exact in names]
        tolerances = {"vol_tolerance": VOL_TOLERANCE, "amount_tolerance": AMOUNT_TOLERANCE}
        for symbol, frame, *flags, found in client.query(load_sql("validate_daily"), tolerances).result_rows:
            for rate, flag in zip(rates, flags, strict=True):
                rate.add(bool(flag), f"{symbol} {frame:%Y-%m-%d}: {found}")
        report.rates += rates


def _read(path: Path, wanted: Iterable[str]) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise RecordingError(f"{path.name}: columns {missing} are missing, found {table.column_names}")
    return table


def _tick_table(path: Path) -> pa.Table:
    """A recording as TICK_SCHEMA: other columns zero, received now (life times count from there)."""
    source = _read(path, [name for name, _ in RECORDED_COLUMNS])
    now, size = int(time.time() * 1000), source.num_rows
    arrays = []
    for column in TICK_SCHEMA:
        if column.name in source.column_names and not pa.types.is_list(column.type):
            values = source.column(column.name).combine_chunks()
            integer = pa.int64() if column.name == "time" else column.type
            try:
                arrays.append(values.cast(integer).cast(column.type))
            except pa.ArrowInvalid as error:
                raise RecordingError(f"{path.name}: column {column.name}: expected {column.type}: {error}") from error
        elif pa.types.is_list(column.type):
            arrays.append(pa.array([[]] * size, column.type))
        else:
            fixed = {"received_at": now, "session": "validate", "quality_score": 1.0}.get(column.name, 0)
            arrays.append(pa.array([fixed] * size, column.type))
    return pa.table(arrays, schema=TICK_SCHEMA)


def _vendor_table(path: Path) -> pa.Table:
    """A vendor's bars with frames as time stamps; a daily row stands at 15:00."""
    source = _read(path, _VENDOR_COLUMNS)
    frames = [_frame(value) for value in source.column("frame").to_pylist()]
    kinds = {"symbol": pa.string(), "vol": pa.int64()}
    columns = [
        pa.array(frames, pa.timestamp("s", TZ))
        if name == "frame"
        else source.column(name).combine_chunks().cast(kinds.get(name, pa.float64()))
        for name in _VENDOR_COLUMNS
    ]
    return pa.table(columns, names=list(_VENDOR_COLUMNS))


def _frame(value: Any) -> datetime:
    """A vendor's label: text, date or time without zone, in Shanghai; a bare date is the day's close."""
    if isinstance(value, int):
        return from_ms(value)
    if not isinstance(value, (datetime, date)):
        value = datetime.fromisoformat(str(value)) if len(str(value)) > 10 else date.fromisoformat(str(value))
    if not isinstance(value, datetime):
        return at(value, 900)
    return value.replace(tzinfo=SHANGHAI) if value.tzinfo is None else value.astimezone(SHANGHAI)


def show(report: Report) -> None:
    """The table of match rates, what was not right, and which kinds of files were absent."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("check", "right", "of", "rate", "must be 100 %", title="Recorded data through the warehouse")
    for rate in report.rates:
        share = f"{100 * rate.matched / rate.total:.2f} %" if rate.total else "none"
        table.add_row(rate.name, f"{rate.matched:,}", f"{rate.total:,}", share, "yes" if rate.exact else "no")
    console.print(table)
    for rate in report.rates:
        for found in rate.worst:
            console.print(f"{rate.name}: {found}", markup=False, soft_wrap=True)
    for text in report.absent:
        console.print(f"absent: {text}", markup=False)


def command(folder: Path) -> int:
    """Validate *folder* and print the report; the exit code: 0 right, 1 not, 2 the folder cannot be used."""
    import sys

    try:
        report = validate(folder)
    except RecordingError as error:
        sys.stderr.write(f"qmt validate: {error}\n")
        return 2
    show(report)
    if not any(rate.total for rate in report.rates):
        sys.stderr.write(f"qmt validate: nothing to check in {folder}: expected ticks_* or bars_1m_* files\n")
        return 2
    return 0 if report.ok else 1


if __name__ == "__main__":
    import sys

    sys.exit(command(Path(sys.argv[1])))
