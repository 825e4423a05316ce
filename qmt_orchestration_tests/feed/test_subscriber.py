"""The subscriber as a process: real xtquant layer, simulated market, and a Redis that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from qmt_orchestration.exit_codes import EXIT_LEASE_LOST
from qmt_orchestration.feed import xt
from qmt_orchestration.feed.edge import Checked
from qmt_orchestration.feed.outbox import Outbox
from qmt_orchestration.feed.spool import Spool
from qmt_orchestration.feed.statistics import Statistics
from qmt_orchestration.feed.subscriber import LEASE, _load_universe
from qmt_orchestration.local import engines
from qmt_orchestration.market.schema import REJECTED_SCHEMA, TickFlag
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.orchestration.checks.live import feed_fresh, newest_tick_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import decode
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat, read_all
from qmt_orchestration.stream.lease import Lease, process_owner
from qmt_orchestration.stream.producer import Producer
from qmt_orchestration_tests.helpers import free_port, recordings, wait_until
from qmt_orchestration_tests.stream.ticks import START_MS, tick_table


class Feed:
    """A subscriber's settings, its processes, and what it published."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client: Any = connect(settings)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        settings = self.settings.model_copy(update=changes)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (settings.data_dir / "subscriber.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "qmt_orchestration.services", "run", "subscriber"],
                env={**os.environ, **settings.environment()},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def go_on(self) -> dict[str, Any]:
        """Settings of a further process in the market that runs: its clock's last reading is the new anchor."""
        clock = read_clock(self.client)
        begun = from_ms(clock.market_ms)
        return {
            "sim_start_time": begun.strftime("%H:%M:%S"),
            "sim_anchor_ms": clock.wall_ms - begun.microsecond // 10_000,
        }

    def log(self) -> str:
        return (self.settings.data_dir / "subscriber.log").read_text()

    def beat(self) -> dict[str, str]:
        try:
            return next((b for b in read_all(self.client) if b["service"] == "subscriber"), {})
        except redis.RedisError:
            return {}

    def published(self) -> int:
        return int(self.beat().get("published", 0))

    def batches(self, shard: int = 0) -> list[tuple[str, int, pa.Table]]:
        return [
            (fields[b"session"].decode(), int(fields[b"seq"]), decode(fields[b"payload"], max_bytes=1 << 25))
            for _, fields in self.client.xrange(keys.ticks(shard))
        ]

    def sessions(self) -> set[str]:
        """Whose batches are on the stream."""
        return {fields[b"session"].decode() for _, fields in self.client.xrange(keys.ticks(0))}

    def check(self, shard: int = 0) -> list[str]:
        """Sequences without a gap in stream order, no tick twice. Returns the sessions."""
        sequences: dict[str, list[int]] = defaultdict(list)
        seen: set[tuple[Any, ...]] = set()
        rows = 0
        for session, seq, table in self.batches(shard):
            sequences[session].append(seq)
            rows += table.num_rows
            seen.update(
                zip(*(table.column(n).to_pylist() for n in ("symbol", "time", "pvolume", "amount")), strict=True)
            )
        for session, numbers in sequences.items():
            assert numbers == list(range(len(numbers))), session
        assert rows == len(seen), "ticks were published twice"
        return list(sequences)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def feed(settings: Settings, redis_client: redis.Redis) -> Iterator[Feed]:
    out = Feed(
        settings.model_copy(
            update={
                "feed": "simulator",
                "sim_symbols": 120,
                "sim_speed": 10.0,
                "sim_start_time": "09:29:30",  # each process begins there, however long its start takes
            }
        )
    )
    yield out
    out.end()


def test_kill_9_and_restart_without_gap_or_repeat(feed: Feed) -> None:
    # On a busy machine a restart takes many seconds, each of them ten in this market.
    first = feed.start(feed_gap_seconds=900)
    wait_until(lambda: feed.published() > 1500, 90, "the first run publishes")
    first.kill()
    first.wait()
    second = feed.start(feed_gap_seconds=900, **feed.go_on())
    wait_until(lambda: len(feed.sessions()) == 2 and feed.published() > 800, 90, "the second one too")
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert len(feed.check()) == 2
    flags = [flag for _, _, table in feed.batches() for flag in table.column("flags").to_pylist()]
    assert not any(flag & TickFlag.BASELINE for flag in flags), "a restart of seconds is no gap"
    assert "symbols known up to" in feed.log()


def test_a_cold_start_in_mid_session_publishes_baselines(feed: Feed) -> None:
    feed.start(sim_start_time="10:15:00")
    wait_until(lambda: feed.published() > 300, 90, "it publishes")
    first: dict[str, int] = {}
    for _, _, table in feed.batches():
        for symbol, flag in zip(table.column("symbol").to_pylist(), table.column("flags").to_pylist(), strict=True):
            first.setdefault(symbol, flag)
    assert len(first) > 100
    assert all(flag & TickFlag.BASELINE for flag in first.values())


def test_redis_killed_meanwhile_everything_arrives_in_order(tmp_path: Path) -> None:
    """SIGKILL of Redis: ticks go to disk and, when it is back, to the stream with the numbers they were given."""
    port = free_port()
    base = Settings(data_dir=tmp_path / "redis", feed="simulator", sim_symbols=120, sim_speed=10.0, redis_port=port)
    base = base.model_copy(update={"sim_start_time": "09:29:30"})
    engine = engines.start_redis(base, port=port)
    feed = Feed(base.model_copy(update={"redis_url": engine.url}))  # of the same folder: it finds the password there
    try:
        process = feed.start()
        wait_until(lambda: feed.published() > 500, 90, "it publishes")
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.process is not None
        engine.process.wait()
        spool = base.data_dir / "feed" / "spool"
        wait_until(lambda: sum(f.stat().st_size for f in spool.glob("*.spool")) > 20_000, 60, "it spools")
        engine = engines.start_redis(base, port=port)
        wait_until(lambda: feed.beat().get("spool_entries") == "0" and not list(spool.glob("*.spool")), 60, "drained")
        before = feed.published()
        wait_until(lambda: feed.published() > before, 60, "and goes on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert len(feed.check()) == 1
        assert "spooling to" in feed.log()
    finally:
        feed.end()
        engine.stop()


@pytest.mark.slow
def test_two_subscribers_never_both_publish(feed: Feed, tmp_path: Path) -> None:
    first = feed.start()
    wait_until(lambda: feed.published() > 200, 90, "the first publishes")
    other = Feed(feed.settings.model_copy(update={"data_dir": tmp_path / "other", "host_name": "other-host"}))
    standby = other.start(**feed.go_on())
    standing_by = lambda: any(b.get("state") == "standby" for b in read_all(feed.client))  # noqa: E731
    try:
        wait_until(standing_by, 90, "the second stands by")
        assert len(feed.sessions()) == 1
        first.kill()
        first.wait()
        wait_until(lambda: len(feed.sessions()) == 2, 90, "the second takes over")
        standby.send_signal(signal.SIGTERM)
        assert standby.wait(30) == 0
        feed.check()
    finally:
        other.end()


def test_a_subscriber_that_slept_through_its_lease_publishes_nothing_more(feed: Feed, tmp_path: Path) -> None:
    """A suspended machine, a long pause of its process: another one works, and the sleeper notices when it wakes."""
    first = feed.start()
    wait_until(lambda: feed.published() > 200, 90, "the first publishes")
    other = Feed(feed.settings.model_copy(update={"data_dir": tmp_path / "other", "host_name": "other-host"}))
    other.start(**feed.go_on())
    try:
        wait_until(lambda: any(b.get("state") == "standby" for b in read_all(feed.client)), 90, "the second stands by")
        assert len(feed.sessions()) == 1
        first.send_signal(signal.SIGSTOP)
        wait_until(lambda: len(feed.sessions()) == 2, 90, "the second takes over")
        taken = feed.client.xinfo_stream(keys.ticks(0))["last-generated-id"]
        first.send_signal(signal.SIGCONT)
        assert first.wait(30) == EXIT_LEASE_LOST
        assert "another subscriber works now" in feed.log()
        later = feed.client.xrange(keys.ticks(0), b"(" + taken, "+")
        assert {fields[b"session"].decode().startswith("other-host-") for _, fields in later} <= {True}
        feed.check()
    finally:
        other.end()


def test_a_qmt_that_is_closed_is_waited_for_and_said(settings: Settings, redis_client: Any) -> None:
    """Beating, so that the agent does not take it for one that hangs; holding its lease."""
    client = connect(settings, retries=0)
    lease = Lease(client, LEASE, process_owner(settings.host))
    outbox = Outbox(Producer(client), Spool(settings.data_dir / "spool", 1), lease, settings.host)
    closed = xt.Terminal(
        object(), clock=lambda: None, now_ms=None, finished=lambda: False, failed=lambda: False
    )  # no function of xtdata works
    stop, found = threading.Event(), []
    heartbeat = Heartbeat(client, settings, "subscriber")
    waiting = threading.Thread(target=lambda: found.append(_load_universe(closed, settings, outbox, heartbeat, stop)))
    waiting.start()
    beat = wait_until(lambda: next(iter(read_all(redis_client)), None), 30, "a heartbeat")
    assert (beat["mode"], beat["state"]) == ("waiting", "running")
    assert "no universe from QMT" in beat["error"]
    assert lease.valid
    stop.set()
    waiting.join(10)
    assert found == [None]


@pytest.mark.parametrize(
    ("tick_minus_clock_ms", "said"), [(5000, "which is slow"), (-60_000, "a fast clock"), (-1500, ""), (0, "")]
)
def test_a_clock_that_disagrees_with_the_market_is_told(tick_minus_clock_ms: int, said: str) -> None:
    table, now_ms = tick_table(20), START_MS - tick_minus_clock_ms
    stats = Statistics("s", 20)
    stats.sent(Checked(table=table, ids=np.arange(20)), 1, now_ms, now_ms)
    assert said in stats.clock_warning()
    assert bool(stats.clock_warning()) == bool(said)
    stats.new_window()
    assert stats.clock_warning() == ""


def test_a_broken_connection_is_subscribed_again(feed: Feed) -> None:
    feed.start(sim_faults=("drop-connection@09:31-09:32",))
    wait_until(lambda: int(feed.beat().get("subscriptions", 0)) >= 2, 90, "it subscribes again")
    before = feed.published()
    wait_until(lambda: feed.published() > before, 60, "and ticks flow")
    feed.check()


def test_whole_quote_refused_falls_back_bounded_and_returns(feed: Feed) -> None:
    feed.start(sim_faults=("subscribe-fails@09:29-09:31",), feed_fallback_symbols=30)
    beat = wait_until(lambda: b if (b := feed.beat()).get("mode") == "fallback" else None, 90, "it falls back")
    assert int(beat["left_out"]) == int(beat["universe"]) - 30
    wait_until(lambda: feed.beat().get("mode") == "whole", 60, "it returns to whole quote")
    wait_until(lambda: int(feed.beat().get("symbols", 0)) > 100, 60, "all symbols flow")
    feed.check()


def test_a_dead_feed_fails_its_check_within_a_minute_although_each_subscription_brings_a_snapshot(feed: Feed) -> None:
    """Planted: nothing from 09:50 to 10:05, each new subscription answered by a full snapshot."""
    feed.start(sim_start_time="09:49:30", sim_symbols=200, sim_faults=("silent-feed@09:50-10:05",))

    def verdict(passed: bool) -> Any:
        clock, beats = read_clock(feed.client), read_all(feed.client)
        outcome = feed_fresh(feed.settings, clock, newest_tick_ms(feed.client, 1), trading_day=True, beats=beats)
        return outcome if clock.speed == 10 and outcome.passed is passed else None

    wait_until(lambda: verdict(True), 90, "ticks flow", every=0.2)
    found = wait_until(lambda: verdict(False), 60, "feed_fresh fails", every=0.2)
    assert "none of" in found.found
    late = from_ms(read_clock(feed.client).market_ms)
    assert "09:50:20" < f"{late:%H:%M:%S}" < "09:51:10"
    times = []
    for count in (2, 3, 4):  # the patience doubles: 3, 6, 12 s of the wall
        wait_until(lambda: int(feed.beat().get("subscriptions", 0)) >= count, 40, f"{count} subscriptions")  # noqa: B023
        times.append(time.monotonic())
    assert times[2] - times[1] > 1.4 * (times[1] - times[0])
    assert "no news of the whole market" in feed.log()
    feed.check()


def test_shards_split_the_market_by_symbol(feed: Feed) -> None:
    feed.start(stream_shards=3)
    wait_until(lambda: feed.published() > 600, 90, "it publishes")
    for shard in range(3):
        symbols = {s for _, _, table in feed.batches(shard) for s in table.column("symbol").to_pylist()}
        assert symbols
        assert {keys.shard_of(symbol, 3) for symbol in symbols} == {shard}
        feed.check(shard)


def test_a_replay_accounts_for_every_tick(feed: Feed) -> None:
    files = sorted(recordings().glob("ticks_2022*.parquet"))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    process = feed.start(feed="replay", replay_files=tuple(files))
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, feed.log()
    report = json.loads(output.decode().strip().splitlines()[-1])
    assert report["received"] == rows == report["published"] + sum(report["rejected"].values()) + report["filtered"]
    assert sum(table.num_rows for _, _, table in feed.batches()) == report["published"]
    kept = [
        decode(f[b"payload"], max_bytes=1 << 25, expected=REJECTED_SCHEMA) for _, f in feed.client.xrange(keys.REJECTED)
    ]
    assert sum(table.num_rows for table in kept) == sum(report["rejected"].values())
    assert feed.check() == [report["session"]]
