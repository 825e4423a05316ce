"""`qmt replay`: recorded ticks through the same path as a live market, then every tick accounted for.

simulator → real ``xtquant.xtdata`` → subscriber → Redis → writer → ClickHouse, each in its own process as in
production; then Dagster materializes the recorded days (1m, 5m, 30m, 1d with their checks). Nothing is pushed before
every file is valid, so a bad file leaves nothing half-written.

The account: lost = published − distinct ticks stored, doubled = ticks stored − distinct ticks stored, both counted on
the rows of this feed session in ClickHouse, not on what a service says of itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.local import engines
from qmt_orchestration.market import calendar
from qmt_orchestration.market.schema import TZ
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.services.processes import spawn, stop_group
from qmt_orchestration.services.registry import get_service
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.replay import load_recording
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration.stream.fields import integer
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.stream.lease import Lease, owner_is_dead
from qmt_orchestration.warehouse.client import connect as connect_warehouse
from qmt_orchestration.warehouse.client import load_sql
from qmt_orchestration.warehouse.migrate import migrate

Progress = Callable[[str], None]
QUIET_SECONDS = 120.0  # the writer has stored nothing for so long: nothing more will come
FEED_LEASE = "feed"  # as feed.subscriber.LEASE; importing that would import xtquant's world
#: `backfill.materialize_days`; given from outside, because services never import Dagster.
Materialize = Callable[[Settings, Sequence[date], Progress], dict[str, Any]]


class ReplayError(RuntimeError):
    """The replay did not complete; the message says where it stopped and what to do."""


@dataclass
class Account:
    """What became of the ticks of one replay; ``complete`` means that every one is accounted for."""

    read: int
    published: int
    stored: int
    rejected: dict[str, int]
    lost: int
    doubled: int
    days: list[str] = field(default_factory=list)
    symbols: int = 0
    bars: dict[str, int] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    runs_failed: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Every tick read is stored once, or kept in ticks_rejected with its reason."""
        return (
            self.read == self.stored + sum(self.rejected.values())
            and self.lost == 0
            and self.doubled == 0
            and self.runs_failed == 0
        )


def replay(
    settings: Settings, files: Sequence[Path], *, speed: float, materialize: Materialize, progress: Progress
) -> Account:
    """Play *files* into the warehouse of ``settings.data_dir`` and account for every tick.

    Raises `ReplayError`, or `market.recordings.RecordingError`, which names the columns at fault.
    """
    started = time.monotonic()
    recording = load_recording(files)
    read = recording.num_rows
    symbols = recording.column("symbol").unique()
    days, closed = _partitions(settings, _dates(recording))
    progress(f"{read:,} ticks of {len(symbols)} symbols on {len(days)} trading days, the files are valid")
    if closed:
        progress(f"no trading on {', '.join(map(str, closed))}: the ticks of such days will be rejected as bad_time")
    del recording
    with _alone(settings), engines.ensure(settings) as ready:
        _require_no_feed(ready)
        migrate(ready)
        chosen = ready.model_copy(
            update={"feed": "replay", "replay_files": tuple(f.resolve() for f in files), "replay_speed": speed}
        )
        with _service(chosen, "writer") as writer:
            report = _feed(chosen, writer, read, progress)
            stored, distinct = _settle(chosen, writer, report, progress)
        account = Account(
            read=read,
            published=report["published"],
            stored=distinct,
            rejected=dict(report["rejected"]),
            lost=report["published"] - distinct,
            doubled=stored - distinct,
            days=[str(day) for day in days],
            symbols=len(symbols),
        )
        if report.get("filtered"):
            account.rejected["outside_universe"] = report["filtered"]
        outcome = materialize(chosen, days, progress)
        account.bars, account.checks = outcome["bars"], outcome["checks"]
        account.runs_failed = outcome["failed_runs"]
        for error in outcome["errors"]:
            progress(f"{error['day']}: {error['error']}")
    account.seconds = round(time.monotonic() - started, 1)
    return account


def _dates(recording: Any) -> list[date]:
    """Dates of the ticks in Shanghai, ascending."""
    moments = recording.column("time").cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms", TZ))
    return sorted(pc.unique(pc.local_timestamp(moments).cast(pa.date32(), safe=False)).to_pylist())


def _partitions(settings: Settings, dates: Sequence[date]) -> tuple[list[date], list[date]]:
    """The trading days among *dates*, and the others. Raises `ReplayError` when a day cannot be made: nothing was
    played then."""
    today = datetime.now(SHANGHAI).date()
    days = [day for day in dates if calendar.is_trading_day(day) or day > today]
    if not days:
        raise ReplayError(
            f"no tick is of a trading day; found {', '.join(map(str, dates[:5]))}{' …' if len(dates) > 5 else ''}"
        )
    early, late = [d for d in days if d < settings.first_day], [d for d in days if d > today]
    if early and settings.first_date:
        raise ReplayError(
            f"{early[0]} lies before the first partition {settings.first_date}: set QMT_FIRST_DATE to {early[0]} or "
            "earlier"
        )
    if late:
        raise ReplayError(f"{late[0]} lies in the future (today is {today} in Shanghai): expected recorded ticks")
    return days, sorted(set(dates) - set(days))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One replay at a time into a data directory."""
    with only_one(settings.run_dir / "replay.lock") as alone:
        if not alone:
            raise ReplayError(
                f"another replay into {settings.data_dir} runs: wait for it, or choose another --data-dir"
            )
        yield


def _require_no_feed(settings: Settings) -> None:
    """Raise `ReplayError` when a live feed publishes into this Redis: only one may, and ours would wait permanently."""
    holder = Lease(connect_redis(settings), FEED_LEASE, "").holder()
    if not holder or owner_is_dead(holder, settings.host):
        return
    host, pid = holder.split("|")[:2]
    raise ReplayError(
        f"process {pid} on {host} feeds this system: end it (Ctrl-C in its `qmt up`, or `qmt stop subscriber`), or "
        "replay into another folder with --data-dir"
    )


def spawn_service(settings: Settings, service: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """A service of its own process, which ends when its standard input does: with us, for whatever reason."""
    argv = [sys.executable, "-m", "qmt_orchestration.services", "run", service, "--supervised"]
    secrets = get_service(service).secrets
    return spawn(argv, settings, f"replay-{service}.log", stdin=subprocess.PIPE, stdout=stdout, secrets=secrets)


@contextmanager
def _service(settings: Settings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = spawn_service(settings, name)
    try:
        yield process
    finally:
        stop_group(process, 15)


def _feed(settings: Settings, writer: subprocess.Popen[bytes], rows: int, progress: Progress) -> dict[str, Any]:
    """Run the subscriber over the recording to its end; its report is the last line it prints."""
    redis = connect_redis(settings)
    subscriber = spawn_service(settings, "subscriber", stdout=subprocess.PIPE)
    try:
        while subscriber.poll() is None:
            _alive(writer, settings, "writer")
            beats = {beat["service"]: beat for beat in read_all(redis)}
            published = integer(beats.get("subscriber", {}), "published", low=0)
            progress(f"published {min(published, rows):,} of {rows:,} ticks")
            try:
                subscriber.wait(1.0)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if subscriber.poll() is None:
            subscriber.kill()
            subscriber.wait()
    output = subscriber.stdout.read().decode() if subscriber.stdout else ""
    if subscriber.returncode != 0:
        raise _ended(settings, "subscriber", f"ended with exit code {subscriber.returncode}")
    if not output.strip():
        raise _ended(settings, "subscriber", "was stopped before the recording's end")
    return dict(json.loads(output.strip().splitlines()[-1]))


def _alive(process: subprocess.Popen[bytes], settings: Settings, name: str) -> None:
    if process.poll() is not None:
        raise _ended(settings, name, f"ended with exit code {process.returncode}")


def _ended(settings: Settings, name: str, how: str) -> ReplayError:
    return ReplayError(f"the {name} {how}; its log is {settings.data_dir / 'logs' / f'replay-{name}.log'}")


def _settle(
    settings: Settings, writer: subprocess.Popen[bytes], report: dict[str, Any], progress: Progress
) -> tuple[int, int]:
    """Wait until the writer has stored what was published; the rows and the distinct ticks of the session."""
    client = connect_warehouse(settings)
    published = report["published"]
    quiet_since = time.monotonic()
    seen = -1
    while True:
        row = client.query(load_sql("replay_account"), parameters={"session": report["session"]}).first_row
        stored, distinct, rejected = int(row[0]), int(row[1]), int(row[2])
        if distinct >= published and rejected >= sum(report["rejected"].values()):
            return stored, distinct
        if stored + rejected != seen:
            seen, quiet_since = stored + rejected, time.monotonic()
        if time.monotonic() - quiet_since > QUIET_SECONDS:
            return stored, distinct  # what is missing now is lost, and the account says so
        _alive(writer, settings, "writer")
        progress(f"stored {distinct:,} of {published:,} ticks")
        time.sleep(0.2)
