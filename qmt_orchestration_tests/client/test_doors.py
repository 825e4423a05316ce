"""Other ways to read: sinks, the command line, and the examples that use no library of ours, as processes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from qmt_orchestration.cli.clients import clients_app, clients_table, quote, top
from qmt_orchestration.client import BarConsumer, registry
from qmt_orchestration.client.sinks import clickhouse as clickhouse_sink
from qmt_orchestration.client.sinks import parquet
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration_tests.client.market import DAY, FRAMES, SYMBOLS, bar, minute, publish
from qmt_orchestration_tests.helpers import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def process(*command: str, settings: Settings | None = None, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed in the end; its output goes to a file."""
    environment = {**os.environ, **(settings.environment() if settings else {})}
    with output.open("wb") as out:
        child = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def test_the_parquet_sink_killed_and_restarted_holds_every_bar_once(
    settings: Settings, redis_client: Any, clickhouse: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "bars"
    command = [sys.executable, "-m", "qmt_orchestration.client.sinks.parquet", str(folder)]

    def pending() -> int:
        infos = {c.client_id: c for c in registry.list_clients(redis_client)}
        group = f"{keys.BAR_GROUP_PREFIX}:parquet_sink"
        if "parquet_sink" not in infos or not redis_client.exists(keys.MINUTES):
            return -1
        row = next(g for g in redis_client.xinfo_groups(keys.MINUTES) if g["name"] == group.encode())
        left = row["last-delivered-id"] != redis_client.xinfo_stream(keys.MINUTES)["last-generated-id"]
        return int(row["pending"]) + left

    publish(redis_client, [b for frame in FRAMES[:20] for b in minute(frame)])
    with process(*command, settings=settings, output=tmp_path / "sink.log"):
        wait_until(lambda: list(folder.glob("*/*.parquet")), 90, "the first file")
    publish(redis_client, [bar(SYMBOLS[0], FRAMES[3], revision=1), *minute(FRAMES[20])])
    with process(*command, settings=settings, output=tmp_path / "sink.log"):
        wait_until(lambda: pending() == 0, 90, "everything is acknowledged")
    table = parquet.read_day(folder, str(DAY))
    assert table.num_rows == 21 * len(SYMBOLS)
    rows = {(r["symbol"], r["frame"]): r for r in table.to_pylist()}
    assert rows[(SYMBOLS[0], FRAMES[3])]["revision"] == 1
    assert rows[(SYMBOLS[5], FRAMES[7])]["close"] == bar(SYMBOLS[5], FRAMES[7]).close


def test_the_second_clickhouse_holds_every_bar_once(settings: Settings, redis_client: Any, raw_clickhouse: Any) -> None:
    raw_clickhouse.command(clickhouse_sink.TABLE)
    publish(redis_client, [*minute(FRAMES[0]), bar(SYMBOLS[0], FRAMES[0], revision=1)])
    with BarConsumer("second", start="beginning", settings=settings) as consumer:
        seen: list[Any] = []
        wait_until(lambda: seen.extend(consumer.read(0.2)) or len(seen) == len(SYMBOLS) + 1, 60)
        clickhouse_sink.write(raw_clickhouse, seen)
        clickhouse_sink.write(raw_clickhouse, seen[:10])  # as after a crash before the acknowledgement
        consumer.ack(seen)
    found = raw_clickhouse.query(
        "SELECT symbol, frame, close, vol, revision FROM minute_bars_copy FINAL ORDER BY symbol"
    )
    assert [r[0] for r in found.result_rows] == sorted(SYMBOLS)
    first = next(r for r in found.result_rows if r[0] == SYMBOLS[0])
    assert first[2:] == (bar(SYMBOLS[0], FRAMES[0]).close, bar(SYMBOLS[0], FRAMES[0]).vol, 1)


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_plain_examples_read_the_stream_alone(
    settings: Settings, redis_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    url = urlsplit(settings.redis_url)
    if language == "node":
        node = shutil.which("node") or pytest.skip("needs node on the PATH")
        command = [node, str(EXAMPLES / "read_bars.mjs"), str(url.hostname), str(url.port), "plain"]
    else:
        command = [sys.executable, str(EXAMPLES / "read_bars.py"), settings.redis_url, "plain"]
    monkeypatch.setenv("REDIS_PASSWORD", settings.engine_password("redis"))
    out = tmp_path / "out.txt"
    group = f"{keys.BAR_GROUP_PREFIX}:plain"
    redis_client.xgroup_create(keys.BARS, group, "0", mkstream=True)
    publish(redis_client, minute(FRAMES[0]))
    redis_client.xreadgroup(group, "plain", {keys.BARS: ">"}, count=7)  # an earlier run ended with these in hand
    with process(*command, output=out):
        wait_until(lambda: len(out.read_text().splitlines()) == len(SYMBOLS), 90, "the first minute")
        publish(redis_client, minute(FRAMES[1]))
        wait_until(lambda: redis_client.xpending(keys.BARS, group)["pending"] == 0, 90, "acknowledged")
        wait_until(lambda: len(out.read_text().splitlines()) == 2 * len(SYMBOLS), 90, "the second minute")
    lines = [line.split() for line in out.read_text().splitlines()]
    assert [line[0] for line in lines] == SYMBOLS * 2
    assert float(lines[0][3]) == bar(SYMBOLS[0], FRAMES[0]).close


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("environment")
def test_clients_on_the_command_line(settings: Settings, redis_client: Any) -> None:
    run = CliRunner().invoke
    none = run(clients_app)
    assert (none.exit_code, "nothing has read minute_bar_stream yet" in none.output) == (1, True)
    publish(redis_client, minute(FRAMES[0]))
    with BarConsumer("client_mac_001", start="beginning", settings=settings) as consumer:
        consumer.ack(consumer.read(2))
        wait_until(lambda: registry.read_client(redis_client, "client_mac_001").handled > 0, 60)
        for arguments in ([], ["list"]):
            listed = run(clients_app, arguments).output
            assert "client_mac_001" in listed
            assert "broadcast" in listed
        assert (
            "minute_bar_stream:minutes|minute_bar_consumers:client_mac_001"
            in run(clients_app, ["stats", "client_mac_001"]).output
        )
        assert run(clients_app, ["stop", "client_mac_001"]).exit_code == 0
        wait_until(lambda: registry.read_client(redis_client, "client_mac_001").state == "paused", 60)
        assert run(clients_app, ["start", "client_mac_001"]).exit_code == 0
        wait_until(lambda: registry.read_client(redis_client, "client_mac_001").state == "running", 60)
    refused = run(clients_app, ["evict", "client_mac_001"], input="n\n")
    assert refused.exit_code == 1
    assert "evicted" in run(clients_app, ["evict", "client_mac_001", "--yes"]).output
    missing = run(clients_app, ["stop", "nobody"])
    assert (missing.exit_code, "no client 'nobody'" in missing.output) == (1, True)


@pytest.mark.usefixtures("environment", "redis_client")
def test_quote_without_an_argument_is_ping_an_bank(clickhouse: Any) -> None:
    import typer

    app = typer.Typer()
    app.command()(quote)
    now = datetime.now(SHANGHAI)
    rows = [
        [s, FRAMES[9], p, p, p, p, 10.0, 1e6, 500, 50000, 0, 13, 1, [p], [p], [1], [1], 50000, now, "s", 1, 0, 1.0]
        for s, p in (("000001.SZ", 11.39), ("600000.SH", 9.5))
    ]
    clickhouse.insert("ticks", rows, column_names=TICK_SCHEMA.names)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0, done.output
    assert "000001.SZ" in done.output
    assert "11.39" in done.output
    assert "+13.90" in done.output
    two = CliRunner().invoke(app, ["600000.sh", "000002.SZ"])
    assert two.exit_code == 1
    assert "9.50" in two.output
    assert "no tick of 000002.SZ" in two.output


@pytest.mark.usefixtures("environment")
def test_top_shows_clock_services_and_clients(settings: Settings, redis_client: Any) -> None:
    import typer

    from qmt_orchestration.stream.heartbeat import Heartbeat

    app = typer.Typer()
    app.command()(top)
    Heartbeat(redis_client, settings, "writer").beat({"memory_mb": 123.0})
    with BarConsumer("watcher", settings=settings):
        shown = CliRunner().invoke(app, ["--once"]).output
    assert "market 20" in shown
    assert "writer" in shown
    assert "watcher" in shown


def test_names_stay_whole_in_a_narrow_terminal() -> None:
    """At 80 columns the list once showed ``cli…  run…  bro…`` and nothing that could be typed."""
    from rich.console import Console

    info = registry.ClientInfo("client_mac_001", "broadcast", "client_mac_001", state="running", lag_entries=12_345)
    for width in (80, 160):
        screen = Console(width=width, record=True, file=io.StringIO())
        screen.print(clients_table([info], width))
        shown = screen.export_text()
        assert all(word in shown for word in ("client_mac_001", "running", "broadcast", "12,345")), shown
        assert "…" not in shown
