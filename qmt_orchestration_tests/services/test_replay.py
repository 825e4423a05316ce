"""`qmt replay` as a person runs it: the whole path in its own processes, every tick accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import redis

from qmt_orchestration.feed import subscriber
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.services.replay import ReplayError, replay
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.lease import Lease, process_owner
from qmt_orchestration_tests.helpers import wait_until

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


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("QMT_")}


def command(*arguments: str, data_dir: Path) -> list[str]:
    return [sys.executable, "-m", "qmt_orchestration.cli", *arguments, "--data-dir", str(data_dir)]


def qmt(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, data_dir=data_dir),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
def test_every_tick_of_a_recording_is_stored_once_and_playing_it_again_changes_nothing(tmp_path: Path) -> None:
    ticks = recording()
    twice = ticks.tail(1)  # one snapshot twice, as real recordings have it
    unreadable = ticks.iloc[[50]].assign(lastPrice=np.nan)
    saturday = ticks.head(2).assign(time=lambda t: t["time"] - 3 * 86_400_000)
    rows = pd.concat([ticks, twice, unreadable, saturday]).sample(frac=1, random_state=5)
    rows.to_csv(tmp_path / "ticks.csv", index=False)
    data_dir = tmp_path / "data"
    for _ in range(2):
        done = qmt("replay", str(tmp_path / "ticks.csv"), data_dir=data_dir)
        assert done.returncode == 0, done.stderr
        assert "no trading on 2024-03-02" in done.stderr
        account = json.loads(done.stdout.strip().splitlines()[-1])
        assert account["complete"]
        assert (account["read"], account["stored"], account["days"]) == (len(rows), len(ticks), ["2024-03-05"])
        assert account["rejected"] == {"duplicate": 1, "not_finite": 1, "bad_time": 2}
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
    assert done.returncode == 2
    assert "pvolume" in done.stderr
    assert "amount" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "clickhouse").exists()


@pytest.mark.parametrize(
    ("shift_days", "words"),
    [
        (-3, "no tick is of a trading day; found 2024-03-02"),
        (-3652, "2014-03-06 lies before the first partition 2015-01-05: set QMT_FIRST_DATE"),
        (None, "lies in the future"),
    ],
)
def test_a_recording_of_days_that_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path: Path, shift_days: int | None, words: str
) -> None:
    ticks = recording()
    if shift_days is None:
        shift_days = (pd.Timestamp.now(tz="Asia/Shanghai") - DAY).days + 2
    ticks["time"] += shift_days * 86_400_000
    ticks.to_parquet(tmp_path / "ticks.parquet")
    settings = Settings(data_dir=tmp_path / "data", first_date="2015-01-05")
    with pytest.raises(ReplayError, match=words):
        play(settings, tmp_path / "ticks.parquet")
    assert not settings.data_dir.exists()


def test_a_replay_beside_a_live_feed_is_refused_by_name_instead_of_waiting(
    settings: Settings, redis_client: redis.Redis, tmp_path: Path
) -> None:
    recording().to_parquet(tmp_path / "ticks.parquet")
    live = Lease(redis_client, subscriber.LEASE, process_owner(settings.host), 60_000)
    assert live.acquire()
    with pytest.raises(ReplayError, match=rf"process {os.getpid()} on \S+ feeds this system.*--data-dir"):
        play(settings, tmp_path / "ticks.parquet")
    with only_one(settings.run_dir / "replay.lock"), pytest.raises(ReplayError, match="another replay into"):
        play(settings, tmp_path / "ticks.parquet")


def play(settings: Settings, file: Path) -> None:
    def never(*_: object) -> dict[str, Any]:
        raise AssertionError("nothing is to be made")

    replay(settings, [file], speed=0, materialize=never, progress=lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_replay_that_is_killed_or_interrupted_leaves_no_process_behind(tmp_path: Path, number: int) -> None:
    recording().to_parquet(tmp_path / "ticks.parquet")
    slow = command("replay", str(tmp_path / "ticks.parquet"), "--speed", "1", data_dir=tmp_path / "data")
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            slow, env=environment(), stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )

    def running() -> set[str]:
        found = set()
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                if other.environ().get("QMT_DATA_DIR") == str(tmp_path / "data"):
                    found.add(other.cmdline()[-2] if "--supervised" in other.cmdline() else "engine")
        return found

    try:
        wait_until(lambda: running() >= {"engine", "writer", "subscriber"}, 120, "engines and services run")
        wait_until(lambda: "published 1" in (tmp_path / "err").read_text(), 60, "ticks flow")
        os.killpg(process.pid, number)  # as Ctrl-C does: to the whole group
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not running(), 60, "all of them have ended")
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; what was stored stays" in said
