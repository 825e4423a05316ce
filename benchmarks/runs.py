"""What a run of Dagster costs by itself, forked, on each storage that Dagster offers for one machine.

Alone, and while two others run and a reader asks what the pages ask. At the end many runs in a row: the memory of the
process that they are forked from.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from benchmarks import minute_like
from benchmarks.common import free_port, percentile, resident_mb, wait_until
from benchmarks.report import Figure

ORIGIN = JobPythonOrigin(
    "minute_job", RepositoryPythonOrigin(sys.executable, ModuleCodePointer(minute_like.__name__, "defs"))
)


def run(quick: bool) -> list[Figure]:
    """Three storages, then the long row on the default one."""
    figures: list[Figure] = []
    for name, storage in (("SQLite", _sqlite), ("consolidated SQLite", _consolidated), ("PostgreSQL", _postgresql)):
        with TemporaryDirectory(prefix="qmt-runs-", ignore_cleanup_errors=True) as folder, storage(folder) as config:
            if config is None:
                print(f"no PostgreSQL on this machine: {name} is left out")
                continue
            with _instance(Path(folder) / "home", config) as instance:
                figures += _on(name, instance, 3 if quick else 10)
    with (
        TemporaryDirectory(prefix="qmt-runs-", ignore_cleanup_errors=True) as folder,
        _instance(Path(folder), {}) as instance,
    ):
        figures += _many(instance, 20 if quick else 500)
        figures += _month(instance)
    return figures


def _on(name: str, instance: dg.DagsterInstance, runs: int) -> list[Figure]:
    server = _warm_up(instance)
    before, started = server.cpu_times(), time.process_time()
    alone = [_one(instance) for _ in range(runs)]
    after, ours = server.cpu_times(), time.process_time() - started
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    with _reader(instance) as asked:
        pairs = [threading.Thread(target=_several, args=(instance, runs)) for _ in range(2)]
        for thread in pairs:
            thread.start()
        busy = [_one(instance) for _ in range(runs)]
        for thread in pairs:
            thread.join()
    return [
        Figure(f"{name}: a run alone, p50", percentile(alone, 0.5), "s"),
        Figure(f"{name}: its processor time", spent / runs, "s"),
        Figure(f"{name}: processor time to create and follow it", ours / runs, "s"),
        Figure(f"{name}: a run beside two others and a reader, p50", percentile(busy, 0.5), "s"),
        Figure(f"{name}: the same, p95", percentile(busy, 0.95), "s"),
        Figure(f"{name}: what a page asks meanwhile, p95", percentile(asked, 0.95) * 1000, "ms"),
    ]


def _many(instance: dg.DagsterInstance, runs: int) -> list[Figure]:
    server = _warm_up(instance)
    before = resident_mb(server)
    for _ in range(runs):
        _one(instance)
    growth = resident_mb(server) - before
    size = sum(f.stat().st_size for f in Path(instance.root_directory).rglob("*") if f.is_file())
    return [
        Figure(f"memory of the run server after {runs} runs, growth", growth, "MB", "≤ 2 MB", growth <= 2),
        Figure("its threads", float(server.num_threads()), "threads", "1", server.num_threads() == 1),
        Figure("disk per run", size / runs / 1024, "KB"),
    ]


def _month(instance: dg.DagsterInstance) -> list[Figure]:
    """What the pages ask, with more and more runs in the SQLite files: three days of minutes' runs, thirty days."""
    figures = [Figure("what a page asks, few runs kept, p50", _asked(instance), "ms")]
    for n in (720, 7200):
        _copy(instance, n)
        figures.append(Figure(f"what a page asks, {n} runs more, p50", _asked(instance), "ms"))
    return figures


def _copy(instance: dg.DagsterInstance, runs: int) -> None:
    """Store the newest run *runs* times more, with its tags and what the index of all runs has of it."""
    source = instance.get_run_records(limit=1)[0].dagster_run.run_id
    history = Path(instance.root_directory) / "history"
    for file, tables in (
        (history / "runs.db", ("runs", "run_tags")),
        (history / "runs" / "index.db", ("event_logs", "asset_check_executions")),
    ):
        with closing(sqlite3.connect(file)) as database, database:
            for table in tables:
                names = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
                columns, marks = ", ".join(names), ", ".join("?" * len(names))
                rows = database.execute(f"SELECT {columns} FROM {table} WHERE run_id = ?", [source]).fetchall()
                for n in range(runs):
                    copy = [[_renamed(value, source, f"{runs:06}{n:06}") for value in row] for row in rows]
                    database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", copy)


def _renamed(value: Any, run_id: str, end: str) -> Any:
    return value.replace(run_id, run_id[: -len(end)] + end) if isinstance(value, str) else value


def _asked(instance: dg.DagsterInstance) -> float:
    asked = []
    for _ in range(9):
        started = time.monotonic()
        _ask(instance)
        asked.append(time.monotonic() - started)
    return percentile(asked, 0.5) * 1000


def _ask(instance: dg.DagsterInstance) -> None:
    """What the pages of runs, of a run and of an asset ask, and what the sensor `minutes` asks."""
    newest = instance.get_run_records(limit=25)
    instance.get_records_for_run(newest[0].dagster_run.run_id, limit=100)
    instance.fetch_materializations(dg.AssetKey("minute"), limit=25)
    running = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED]
    instance.get_runs(dg.RunsFilter(job_name="minute_job", statuses=running), limit=1)
    instance.get_run_records(dg.RunsFilter(job_name="minute_job", statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1)


def _one(instance: dg.DagsterInstance) -> float:
    """Seconds from the run's creation to its end."""
    started = time.monotonic()
    job = minute_like.defs.resolve_job_def("minute_job")
    run = instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTING, job_code_origin=ORIGIN, tags={"dagster/partition": "2025-06-05"}
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, None))

    def ended() -> bool:
        current = instance.get_run_by_id(run.run_id)
        return current is not None and current.is_finished

    wait_until(ended, 60, f"the end of run {run.run_id}")
    found = instance.get_run_by_id(run.run_id)
    if found is None or found.status != dg.DagsterRunStatus.SUCCESS:
        raise RuntimeError(f"run {run.run_id} ended as {found.status if found else 'nothing'}, expected SUCCESS")
    return time.monotonic() - started


def _several(instance: dg.DagsterInstance, runs: int) -> None:
    for _ in range(runs):
        _one(instance)


@contextmanager
def _reader(instance: dg.DagsterInstance) -> Iterator[list[float]]:
    """Asks what the pages of runs and of an asset ask, four times a second; yields the seconds each took."""
    asked: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.25):
            started = time.monotonic()
            _ask(instance)
            asked.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def _warm_up(instance: dg.DagsterInstance) -> psutil.Process:
    """The run server, after its first run."""
    _one(instance)
    wanted = str(Path(instance.root_directory) / "run_server")
    return next(p for p in psutil.Process().children() if any(wanted in word for word in p.cmdline()))


@contextmanager
def _instance(home: Path, storage: dict[str, Any]) -> Iterator[dg.DagsterInstance]:
    """An instance with the project's dagster.yaml and *storage*."""
    home.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((Path(__file__).parents[1] / "dagster.yaml").read_text()) | storage
    config["run_launcher"]["config"]["preload_modules"] = []
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _sqlite(folder: str) -> Any:
    return nullcontext({})


def _consolidated(folder: str) -> Any:
    module = "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log"
    config = {"base_dir": f"{folder}/events"}
    name = "ConsolidatedSqliteEventLogStorage"
    return nullcontext({"event_log_storage": {"module": module, "class": name, "config": config}})


@contextmanager
def _postgresql(folder: str) -> Iterator[dict[str, Any] | None]:
    """A PostgreSQL of our own, with its defaults (fsync on); None where there is none."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not newest:
        yield None
        return
    binaries, data, port = newest[-1], f"{folder}/postgres/data", free_port()
    account: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    Path(folder, "postgres").mkdir()
    Path(folder).chmod(0o755)
    if account:
        shutil.chown(f"{folder}/postgres", "postgres")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": "/", **account}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "dagster", "-A", "trust", "-E", "UTF8"], check=True, **quiet)
    process = subprocess.Popen([binaries / "postgres", "-D", data, "-p", str(port), "-k", data], **quiet)
    try:
        wait_until(lambda: (Path(data) / f".s.PGSQL.{port}").exists(), 60, "PostgreSQL")
        url = f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
        yield {"storage": {"postgres": {"postgres_url": url}}}
    finally:
        process.send_signal(2)  # fast shutdown
        process.wait(30)
