"""The walk-through of docs/chaos.md: feed and warehouse on two hosts that share nothing but Redis."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.world import FEED, HOST_OF, WAREHOUSE, Market, World, world
from qmt_orchestration.services.desired import set_desired
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.helpers import wait_until


def environment(there: World, service: str) -> dict[str, str]:
    """The settings in the environment of a running service."""
    return {k: v for k, v in psutil.Process(there.pid(service)).environ().items() if k.startswith("QMT_")}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hosts_share_nothing_but_redis(tmp_path: Path) -> None:
    with world(Market(symbols=200, speed=20.0), keep=tmp_path / "hosts") as there:
        wait_until(lambda: there.newest_received_ms() > 0, 120, "ticks of the feed's host in ClickHouse")
        wait_until(lambda: there.redis.xlen(keys.BARS) > 100, 120, "bars of a closed minute")
        wait_until(lambda: all(there.pid(name) for name in HOST_OF), 60, "heartbeats of all services")

        feed, warehouse = environment(there, "subscriber"), environment(there, "writer")
        assert "QMT_CLICKHOUSE_URL" not in feed  # the host beside QMT knows no ClickHouse
        assert feed["QMT_DATA_DIR"] != warehouse["QMT_DATA_DIR"]
        assert feed["QMT_REDIS_URL"] != warehouse["QMT_REDIS_URL"]  # each by its own way
        assert not (there.folder / FEED / "clickhouse").exists()
        assert not (there.folder / WAREHOUSE / "feed").exists()
        seen = {name for host in (FEED, WAREHOUSE) for name in there.beat(f"agent:{host}")["services"].split(",")}
        assert seen == set(HOST_OF)

        # The warehouse's side steers the feed's host, which listens on no port.
        client = connect(there.hosts[WAREHOUSE])
        first = there.pid("subscriber")
        set_desired(client, "subscriber", "stopped")
        wait_until(lambda: not psutil.pid_exists(first), 60, "the subscriber to stop")
        assert there.beat("subscriber").get("state", "stopped") == "stopped"
        set_desired(client, "subscriber", "running")
        wait_until(lambda: there.pid("subscriber") not in (0, first), 60, "another subscriber")
        began = int(there.beat("subscriber")["started_ms"])
        wait_until(lambda: there.newest_received_ms() > began, 60, "rows to flow again")
