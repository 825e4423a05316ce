"""`qmt replay` as a person runs it: the whole path in its own processes, every tick accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DAY = pd.Timestamp("2024-03-05", tz="Asia/Shanghai")
SYMBOLS = ("000001.SZ", "600519.SH")


def recording() -> pd.DataFrame:
    """Ten minutes from the opening call on, a snapshot each 3 s, for two symbols; cumulative values only grow."""
    rng = np.random.default_rng(11)
    frames = []
    for symbol in SYMBOLS:
        moments = [
            DAY + pd.Timedelta(hours=9, minutes=25),
            *pd.date_range(DAY + pd.Timedelta(hours=9.5), periods=200, freq="3s"),
        ]
        prices = np.round(10 + np.cumsum(rng.integers(-2, 3, len(moments))) / 100, 2)
        shares = np.cumsum(rng.integers(0, 5, len(moments)) * 100 + 100)
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "time": [int(m.timestamp() * 1000) for m in moments],
                    "lastPrice": prices,
                    "open": prices[0],
                    "high": np.maximum.accumulate(prices),
                    "low": np.minimum.accumulate(prices),
                    "lastClose": 10.0,
                    "amount": np.round(shares * 10.0, 2),
                    "volume": shares // 100,
                    "pvolume": shares,
                    "stockStatus": 0,
                    "openInt": 13,
                }
            )
        )
    return pd.concat(frames).sort_values("time", kind="stable", ignore_index=True)


def qmt(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QMT_")}
    return subprocess.run(
        [sys.executable, "-m", "qmt_orchestration.cli", *arguments, "--data-dir", str(data_dir)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_every_tick_of_a_recording_is_stored_once_and_playing_it_again_changes_nothing(tmp_path: Path) -> None:
    ticks = recording()
    repeated = pd.concat([ticks, ticks.tail(1)], ignore_index=True)  # one snapshot twice, as real recordings have it
    repeated.to_csv(tmp_path / "ticks.csv", index=False)
    data_dir = tmp_path / "data"
    for _ in range(2):
        done = qmt("replay", str(tmp_path / "ticks.csv"), data_dir=data_dir)
        assert done.returncode == 0, done.stderr
        account = json.loads(done.stdout.strip().splitlines()[-1])
        assert account["complete"]
        assert (account["read"], account["stored"], account["rejected"]) == (
            len(ticks) + 1,
            len(ticks),
            {"duplicate": 1},
        )
        assert (account["lost"], account["doubled"], account["runs_failed"]) == (0, 0, 0)
    query = "SELECT symbol, sum(vol), round(sum(amount), 2), max(high), min(low) FROM bars_1m"
    answer = qmt("sql", f"{query} GROUP BY symbol ORDER BY symbol", "--format", "TabSeparated", data_dir=data_dir)
    last = ticks.groupby("symbol").last()
    found = [line.split("\t") for line in answer.stdout.splitlines()]
    assert [row[0] for row in found] == list(SYMBOLS)
    for symbol, *values in found:
        expected = last.loc[symbol, ["pvolume", "amount", "high", "low"]]
        assert [float(v) for v in values] == pytest.approx(list(expected.astype(float)))
    assert qmt("sql", "SELECT count() FROM ticks", data_dir=data_dir).stdout.strip() == str(len(ticks))


def test_a_recording_with_wrong_columns_is_refused_by_name_before_anything_is_written(tmp_path: Path) -> None:
    broken = recording().drop(columns=["pvolume"]).assign(amount="much")
    broken.to_parquet(tmp_path / "ticks.parquet")
    done = qmt("replay", str(tmp_path / "ticks.parquet"), data_dir=tmp_path / "data")
    assert done.returncode != 0
    assert "pvolume" in done.stderr
    assert "amount" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "clickhouse").exists()
