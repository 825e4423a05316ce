"""The same recorded ticks through other people's aggregators, in one run: ticks a second and core, memory, bars right.

Peers: vn.py's BarGenerator, nautilus_trader's TimeBarAggregator, a plain GROUP BY in DuckDB and in Polars, and the
user's present design (`peers_worker`). Their packages go into an environment of their own, ``.venv/peers``, made at the
first run. The right bars are ours: `qmt validate` holds them against each recording's own final snapshots. A bar is
right when symbol, minute, open, high, low, close and volume are equal; the ticks are multiplied under other names, so
that a run takes long enough to be measured. Needs QMT_RECORDINGS_DIR.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import cpu_seconds, engine_process, fresh, resident_mb
from benchmarks.report import Figure
from qmt_orchestration.feed.recorded import checked
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect
from qmt_orchestration.warehouse.recordings import read_ticks

#: vn.py alone is installed without what it needs for its desktop: the aggregator needs the second list.
PACKAGES = (["--no-deps", "vnpy==4.5.*"], ["ta-lib", "loguru", "tzlocal", "tqdm", "nautilus_trader==1.221.*",
            "duckdb==2.*", "polars==2.*", "pyarrow", "pandas"])  # fmt: skip
PEERS = {
    "present": "present design: JSON a tick, a dict a symbol",
    "vnpy": "vn.py BarGenerator",
    "nautilus": "nautilus_trader TimeBarAggregator",
    "duckdb": "DuckDB, plain GROUP BY",
    "polars": "Polars, plain group_by",
}
COLUMNS = ["symbol", "frame", "open", "high", "low", "close", "vol"]


def run(quick: bool) -> list[Figure]:
    """Ours first, then each peer; the share of right bars is over all bars of ours in which something traded."""
    folder = os.environ.get("QMT_RECORDINGS_DIR", "")
    files = sorted(Path(folder).glob("ticks_*.parquet")) if folder else []
    if not files:
        raise RuntimeError("expected recordings ticks_*.parquet, found none: set QMT_RECORDINGS_DIR to their folder")
    recorded = pa.concat_tables([checked(read_ticks(file).table)[0] for file in files])
    copies = 1 if quick else 30
    python = _environment()
    with TemporaryDirectory(prefix="qmt-peers-") as scratch, fresh() as settings:
        ticks = _copies(recorded, copies)
        plain = Path(scratch, "ticks.parquet")
        pq.write_table(_plain(ticks), plain)
        right, figures = _ours(settings, ticks)
        for name, meaning in PEERS.items():
            out = Path(scratch, f"{name}.parquet")
            argv = [str(python), str(Path(__file__).with_name("peers_worker.py")), name, str(plain), str(out)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            figures += _figures(meaning, ticks.num_rows, found, _equal(right, pq.read_table(out).to_pandas()))
    return figures


def _ours(settings: Any, ticks: pa.Table) -> tuple[pd.DataFrame, list[Figure]]:
    client = connect(settings)
    client.insert_arrow("ticks", ticks)
    days = [row[0] for row in client.query("SELECT DISTINCT toDate(time) FROM ticks").result_rows]
    engine = engine_process(settings, "clickhouse")
    cpu, wall = cpu_seconds(engine), time.perf_counter()
    for day in days:
        bars.finalize(client, day, None, bars.newest_frame(client, day))
    found = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds(engine) - cpu, "memory_mb": resident_mb(engine)}
    right = client.query_df(
        "SELECT symbol, toUnixTimestamp(frame) * 1000 AS frame, open, high, low, close, vol FROM bars_1m "
        "WHERE source = 'live' AND vol > 0"
    )
    return right, _figures("this project: rule, compare, store", ticks.num_rows, found, 1.0)


def _figures(name: str, ticks: int, found: dict[str, float], right: float) -> list[Figure]:
    return [
        Figure(f"{name}: per core", ticks / max(found["cpu"], 1e-6), "ticks/s"),
        Figure(f"{name}: wall", found["wall"], "s"),
        Figure(f"{name}: memory", found["memory_mb"], "MB"),
        Figure(f"{name}: bars right", 100 * right, "%"),
    ]


def _equal(right: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """Share of the right bars that *theirs* has with the same prices and volume."""
    joined = right.merge(theirs, on=["symbol", "frame"], how="left", suffixes=("", "_b"))
    same = joined["vol"] == joined["vol_b"]
    for name in ("open", "high", "low", "close"):
        same &= (joined[name] - joined[f"{name}_b"]).abs() < 1e-6
    return float(same.mean())


def _copies(ticks: pa.Table, count: int) -> pa.Table:
    """*ticks* *count* times under other symbols, in the order of time."""
    names = ticks.column("symbol").to_pandas()
    index = ticks.column_names.index("symbol")
    parts = [
        ticks.set_column(
            index, ticks.schema.field("symbol"), pa.array(list(names.str.slice(0, 6) + f"{i:02d}.SH"), pa.string())
        )
        for i in range(count)
    ]
    return pa.concat_tables(parts).sort_by([("time", "ascending"), ("total_volume", "ascending")])


def _plain(ticks: pa.Table) -> pa.Table:
    """What the peers read: volume in shares, time as epoch ms."""
    return pa.table(
        {
            "symbol": ticks.column("symbol"),
            "time": ticks.column("time").cast(pa.int64()),
            **{name: ticks.column(name) for name in ("lastPrice", "high", "low", "amount")},
            "volume": ticks.column("total_volume"),
        }
    )


def _environment() -> Path:
    """Python of ``.venv/peers``, made when it is missing."""
    folder = Path(sys.prefix) / "peers"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in PACKAGES:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (folder / ".installed").touch()
    return python
