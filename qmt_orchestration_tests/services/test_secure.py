"""A deployment as `deploy/` describes it: a user per side, TLS on every way, and the whole pipeline at work in it.

Redis runs with the ACL file that `make-acl.sh` writes; TLS ends in front of both engines, with certificates made by the
commands of docs/operations.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from qmt_orchestration.client import BarConsumer, TickConsumer
from qmt_orchestration.local import engines
from qmt_orchestration.orchestration.checks.live import live_outcomes
from qmt_orchestration.orchestration.resources import ServicesResource
from qmt_orchestration.orchestration.sensors.stream import statistics
from qmt_orchestration.services.processes import spawn, stop_group
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys, rpc
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration.stream.trim import trim_all
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration_tests.helpers import free_port, redis_with_selectors, wait_until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
ROLES = ("admin", "feed", "warehouse", "dagster", "client", "ticks")
WAIT = 120.0
HOST = "localhost"  # the name in the certificate


def password(role: str) -> str:
    return f"s3cret-of-{role}/+0123456789"


class TlsFront:
    """Ends TLS on a free port of its own (``port``) and forwards to *target*."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serve = asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        server = asyncio.run_coroutine_threadsafe(serve, self._loop).result(10)
        self.port = int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        with suppress(OSError, asyncio.CancelledError):  # at the end of the test
            await asyncio.gather(self._pass(reader, onward), self._pass(back, writer))

    @staticmethod
    async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.transport.abort() if sink.is_closing() else sink.close()


def certificates(folder: Path) -> None:
    """``ca.crt``, ``redis.crt``, ``redis.key`` for `HOST`, by the commands of docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text()
    lines = [line.strip() for line in text.split("\n") if line.strip().startswith("openssl ")]
    assert len(lines) == 3
    for line in lines:
        command = line.replace("redis.internal", HOST).replace("rsa:3072", "rsa:2048")
        made = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, f"{command}\n{made.stderr}"


@dataclass
class Deployment:
    """Both engines behind TLS, and settings of every side."""

    folder: Path
    redis_port: int
    redis_url: str
    clickhouse_url: str

    def settings(self, role: str, **more: Any) -> Settings:
        """What a host of this role is told."""
        known: dict[str, Any] = {
            "data_dir": self.folder / role,
            "host_name": role,
            "redis_url": self.redis_url,
            "redis_username": role,
            "redis_password": SecretStr(password(role)),
            "redis_ca_file": self.folder / "ca.crt",
            "feed": "simulator",
            "sim_symbols": 60,
            "sim_speed": 20.0,
            "sim_start_time": "09:29:30",
            "feed_gap_seconds": 1200.0,
            "close_fallback_seconds": 600.0,
        }
        if role != "feed":  # the host beside QMT knows no ClickHouse
            known |= {
                "clickhouse_url": self.clickhouse_url,
                "clickhouse_username": "qmt_dagster",
                "clickhouse_password": SecretStr(password("clickhouse")),
                "clickhouse_ca_file": self.folder / "ca.crt",
            }
        return Settings(**known | more)


def config(folder: Path) -> Path:
    """`deploy/redis/redis.conf` as it stands, but for what this Redis is not built for (TLS) and where files lie."""
    text = (DEPLOY / "redis/redis.conf").read_text()
    kept = [
        line for line in text.split("\n") if not line.startswith(("tls-", "port ", "bind ", "aclfile ", "maxmemory "))
    ]
    path = folder / "redis.conf"
    path.write_text(
        "\n".join([*kept, f"aclfile {folder}/users.acl", f"dir {folder}", "bind 127.0.0.1", "maxmemory 1gb"])
    )
    return path


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl on the PATH")
    certificates(tmp_path)
    passwords = {f"{role.upper()}_PASSWORD": password(role) for role in ROLES}
    made = subprocess.run([str(DEPLOY / "redis/make-acl.sh")], env={**os.environ, **passwords}, capture_output=True)
    (tmp_path / "users.acl").write_bytes(made.stdout)
    with ExitStack() as stack:
        port = free_port()
        server = subprocess.Popen(
            [redis_with_selectors(), str(config(tmp_path)), "--port", str(port)], stdout=subprocess.DEVNULL
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        own = Settings(
            data_dir=tmp_path / "engine",
            clickhouse_port=free_port(),
            clickhouse_username="qmt_dagster",
            clickhouse_password=SecretStr(password("clickhouse")),
        )
        engine = engines.start_clickhouse(own)
        stack.callback(engine.stop)
        fronts = [TlsFront(target, tmp_path / "redis.crt", tmp_path / "redis.key") for target in (port, engine.port)]
        for front in fronts:
            stack.callback(front.close)
        out = Deployment(tmp_path, port, f"rediss://{HOST}:{fronts[0].port}/0", f"https://{HOST}:{fronts[1].port}")
        wait_until(lambda: _answers(out), 20, "Redis behind TLS")
        yield out


def _answers(there: Deployment) -> bool:
    try:
        return bool(connect(there.settings("admin"), retries=0).ping())
    except redis.RedisError:
        return False


def agent(settings: Settings, services: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "qmt_orchestration.cli", "agent", "--services", services]
    return spawn(argv, settings, "agent.log")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_whole_pipeline_under_least_privilege_and_tls(deployment: Deployment) -> None:
    feed, warehouse, dagster, user = (deployment.settings(role) for role in ("feed", "warehouse", "dagster", "client"))
    admin: Any = redis.Redis(port=deployment.redis_port, username="admin", password=password("admin"))
    migrate(dagster)
    console = warehouse.model_copy(update={"console_port": free_port()})
    agents = [agent(feed, "subscriber,gateway"), agent(console, "writer,publisher,console")]
    try:
        clickhouse = connect_clickhouse(dagster)
        wait_until(lambda: clickhouse.query("SELECT count() FROM ticks").first_row[0], WAIT, "ticks in ClickHouse")
        wait_until(lambda: admin.xlen(keys.BARS) > 50, WAIT, "bars on the stream")
        names = {"agent", "subscriber", "gateway", "writer", "publisher", "console"}
        server = connect(dagster)
        wait_until(lambda: {b["service"] for b in read_all(server)} == names, WAIT, "every heartbeat")

        # Dagster: observes, asks, calls the gateway, trims
        plain = {"redis_url", "redis_username", "redis_ca_file", "data_dir", "host_name"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("QMT_REDIS_PASSWORD", password("dagster"))
            services = ServicesResource(
                overrides={n: v for n, v in dagster.model_dump(mode="json").items() if n in plain}
            )
            beats, desired = services.beats(), services.desired()
            assert statistics(dagster, server, beats)["rate_ticks_per_second"] > 0
            assert live_outcomes(dagster, server, beats, desired, trading_day=True)
            services.ask("publisher", "restart")
        restarted = lambda: "restart asked for" in str(read_all(server))  # noqa: E731
        wait_until(restarted, WAIT, "the publisher to be restarted")
        assert rpc.call(server, "instruments", {}, timeout_seconds=60).num_rows >= 60
        history = {"symbols": ["600000.SH"], "period": "1m", "start": "20250604", "end": "20250604"}
        assert rpc.call(server, "history", history, timeout_seconds=60).num_rows > 0
        trim_all(server, dagster)

        # a client: broadcast, shard, ticks
        for consumer in (
            BarConsumer("mac", settings=user),
            BarConsumer("one", mode="shard", settings=user),
            BarConsumer("two", mode="hybrid", group="desk", settings=user),
            TickConsumer("ticks", settings=deployment.settings("ticks")),
        ):
            with consumer:
                wait_until(lambda consumer=consumer: next(iter(consumer), None) is not None, WAIT, f"{consumer} reads")

        # a kill: the next run recovers from the stream, under the same user
        sessions = lambda: {f[b"session"] for _, f in admin.xrange(keys.ticks(0)) if b"session" in f}  # noqa: E731
        before = sessions()
        subscriber = next(b for b in read_all(server) if b["service"] == "subscriber")
        os.kill(int(subscriber["pid"]), signal.SIGKILL)
        wait_until(lambda: sessions() > before, WAIT, "the subscriber's next run to publish")
        told = "\n".join(str(beat) for beat in read_all(server))
    finally:
        for one in agents:
            stop_group(one, 20)
    logs = {path: path.read_text(errors="replace") for path in deployment.folder.rglob("logs/*") if path.is_file()}
    assert {path.name for path in logs} >= {f"{name}.log" for name in names}
    for path, text in [*logs.items(), (Path("heartbeats"), told)]:
        refused = [line for line in text.split("\n") if re.search(r"NOPERM|no permissions|not allowed", line, re.I)]
        assert not refused, f"{path}: {refused[:3]}"
        assert "s3cret" not in text, path


def test_a_stranger_in_the_middle_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    """Another CA, another name, or no TLS: no word of ours reaches the other side."""
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    unknown = {"redis_ca_file": other / "ca.crt", "clickhouse_ca_file": other / "ca.crt"}
    with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
        connect(deployment.settings("feed", **unknown), retries=0).ping()
    with pytest.raises(Exception, match=r"(?i)certificate"):
        connect_clickhouse(deployment.settings("warehouse", **unknown), database="default")
    by_number = {
        "redis_url": deployment.redis_url.replace(HOST, "127.0.0.1"),
        "clickhouse_url": deployment.clickhouse_url.replace(HOST, "127.0.0.1"),
    }
    with pytest.raises(redis.ConnectionError, match=r"(?i)mismatch|not valid for"):
        connect(deployment.settings("feed", **by_number), retries=0).ping()
    with pytest.raises(Exception, match=r"(?i)mismatch|match"):
        connect_clickhouse(deployment.settings("warehouse", **by_number), database="default")
    plain = {"redis_url": deployment.redis_url.replace("rediss", "redis")}
    with pytest.raises(redis.RedisError):
        connect(deployment.settings("feed", **plain), retries=0).ping()
