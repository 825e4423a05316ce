"""Runs the client library in another environment: bars from the stream, ticks' batches decoded, history from SQL.

watch_client.py PYTHON FOLDER      PYTHON: of the environment that is tested; FOLDER: for an engine of this one
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from qmt_orchestration.local import engines
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.migrate import migrate

CLIENT = """
import importlib.util, sys
unwanted = [n for n in ("dagster", "chdb", "xtquant", "typer", "starlette") if importlib.util.find_spec(n)]
assert not unwanted, unwanted
from qmt_orchestration.client import BarConsumer, bars
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect
with BarConsumer("install_test", start="beginning", stream="minute_bar_stream") as consumer:
    bar = next(iter(consumer))
assert (bar.symbol, bar.close) == ("000001.SZ", 11.39), bar
assert callable(bars)
found = connect(Settings()).query_df("SELECT vol FROM minute_bars WHERE symbol = '000001.SZ'")
assert len(found) == 1 and found["vol"].iloc[0] == 700, found
print("a bar from the stream and one from the warehouse")
"""


BAR: dict[Any, Any] = {
    "symbol": "000001.SZ",
    "frame": "2025-06-05 10:30:00",
    "open": 11.39,
    "high": 11.4,
    "low": 11.3,
    "close": 11.39,
    "vol": 700,
    "amount": 7973,
    "timestamp": 1749090600,
    "quality_score": 1,
    "source": "live",
    "revision": 0,
    "seq": 1,
}


def main() -> int:
    """The exit code of the client."""
    python, folder = sys.argv[1], Path(sys.argv[2])
    with engines.ensure(Settings(data_dir=folder), names=("clickhouse",)) as ready:
        migrate(ready)
        with connect_clickhouse(ready) as warehouse:
            warehouse.command(
                "INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, version) VALUES"
                " ('000001.SZ', toDateTime('2025-06-05 10:00:00', 'Asia/Shanghai'), 1, 1, 1, 1, 700, 1, 'live', 1)"
            )
        client = connect(ready)
        client.xadd(keys.BARS, BAR)
        environment = {**os.environ, **ready.environment()}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run([python, "-c", CLIENT], env=environment, cwd=folder, timeout=120, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
