"""Two hosts on one machine, as on Windows and Mac: the feed's side and the warehouse's, sharing nothing but Redis.

Each has settings and a data folder of its own and an agent that starts its services; each reaches the engines through
a proxy of its own. What starts agents on a real host (systemd, the Windows task) is a thread here. The engines are
kept by `engine_processes.supervised`, as `qmt up` does.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.chaos.proxy import Proxy
from qmt_orchestration.local import engines
from qmt_orchestration.services.engine_processes import supervised
from qmt_orchestration.services.processes import spawn, stop_group
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.warehouse.migrate import migrate

FEED, WAREHOUSE = "feed", "warehouse"
HOST_OF = {"subscriber": FEED, "writer": WAREHOUSE, "publisher": WAREHOUSE}
_SPOOL_MB = 48
_DISK_MB = {"clickhouse": 1536, "redis": 768}  # room for a session; only a fault fills it


@dataclass(frozen=True)
class Market:
    """The simulated session. Times that mean seconds at a desk are stretched by *speed*, so that they still do."""

    symbols: int = 2000
    speed: float = 10.0
    seed: int = 7
    day: str = "2025-06-05"
    start: str = "09:29:50"
    retention_seconds: float = 20.0  # short: entries are trimmed under the live writer all the time
    careless: str = ""  # a negative control: see `careless`
    wrong_snapshots: bool = False  # one symbol in twenty comes once more each minute, with an error

    def settings(self) -> dict[str, Any]:
        """What both hosts must know."""
        return {
            "feed": "simulator",
            "sim_symbols": self.symbols,
            "sim_speed": self.speed,
            "sim_seed": self.seed,
            "sim_date": self.day,
            "sim_start_time": self.start,
            "sim_faults": ("wrong-snapshots@09:31-15:00",) if self.wrong_snapshots else (),
            "feed_gap_seconds": 60 * self.speed,
            "feed_silence_seconds": 15 * self.speed,
            # what a dead writer had in hand is claimed after 60 s of the wall clock; its bars must still be revised
            "publish_revision_frames": max(math.ceil(90 * self.speed / 60), 5),
            "stream_retention_seconds": self.retention_seconds,
        }


class World:
    """Engines, proxies, hosts; what runs where and how it is. Use `world`."""

    def __init__(self, folder: Path, market: Market, ready: Settings, *, own_disk: bool) -> None:
        self.own_disk = own_disk  #: spool and engines lie on small disks that a fault can fill
        self.folder, self.market, self.engines = folder, market, ready
        self.redis_port = int(urllib.parse.urlsplit(ready.redis_url).port or 0)
        self.clickhouse_port = int(urllib.parse.urlsplit(ready.clickhouse_url).port or 0)
        self.feed_redis, self.warehouse_redis = Proxy(self.redis_port), Proxy(self.redis_port)
        self.clickhouse_proxy = Proxy(self.clickhouse_port)
        anchor: dict[str, Any] = {"sim_anchor_ms": int(time.time() * 1000)}
        anchor |= {f"{name}_password": SecretStr(ready.engine_password(name)) for name in engines.NAMES}
        self.hosts = {
            FEED: Settings(
                data_dir=folder / FEED,
                host_name=FEED,
                redis_url=f"redis://127.0.0.1:{self.feed_redis.port}/0",
                spool_max_mb=_SPOOL_MB if own_disk else 1,
                **market.settings() | anchor,
            ),
            WAREHOUSE: Settings(
                data_dir=folder / WAREHOUSE,
                host_name=WAREHOUSE,
                redis_url=f"redis://127.0.0.1:{self.warehouse_redis.port}/0",
                clickhouse_url=f"http://127.0.0.1:{self.clickhouse_proxy.port}",
                **market.settings() | anchor,
            ),
        }
        self.redis: Any = self.connect_redis()
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.extra: list[subprocess.Popen[bytes]] = []
        self.noted: dict[str, int] = {}  #: what a fault recorded before it was injected
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep_agents, name="keep-agents", daemon=True)

    def connect_redis(self) -> Any:
        """A client of Redis itself, past the proxies; gives up after 5 s."""
        password = self.engines.engine_password("redis")
        return redis.Redis(port=self.redis_port, password=password, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    # -- processes --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Tables, the witness of inserts, then both hosts."""
        migrate(self.engines)
        for statement in resources.files("benchmarks.chaos").joinpath("witness.sql").read_text().split(";\n"):
            if statement.strip():
                self.command(statement)
        self._keeper.start()

    def close(self) -> None:
        """End every process that was started here."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join(30)
        for process in [*self.agents.values(), *self.extra]:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            stop_group(process, 15)
        for proxy in (self.feed_redis, self.warehouse_redis, self.clickhouse_proxy):
            proxy.close()

    def _keep_agents(self) -> None:
        """What systemd does: start, and start again."""
        while not self._ending.wait(0.2):
            for host in self.hosts:
                if host not in self.agents or self.agents[host].poll() is not None:
                    self.agents[host] = spawn(self._agent(host), self.hosts[host], "agent.log")

    def _agent(self, host: str) -> list[str]:
        names = ",".join(service for service, where in HOST_OF.items() if where == host)
        if self.market.careless and host == WAREHOUSE:
            return [sys.executable, "-m", "benchmarks.chaos.careless", self.market.careless]
        return [sys.executable, "-m", "qmt_orchestration.cli", "agent", "--services", names]

    def second_writer(self) -> subprocess.Popen[bytes]:
        """A writer of a third host on the same stream."""
        host = WAREHOUSE + "2"
        settings = self.hosts[WAREHOUSE].model_copy(update={"data_dir": self.folder / host, "host_name": host})
        argv = [sys.executable, "-m", "qmt_orchestration.services", "run", "writer"]
        self.extra.append(spawn(argv, settings, "writer.log"))
        return self.extra[-1]

    def pid(self, name: str) -> int:
        """Process of a service, of ``agent:HOST``, or of an engine; 0 when it is not known."""
        if name in engines.NAMES:
            return int(json.loads((self.engines.run_dir / f"{name}.json").read_text())["pid"])
        if name.startswith("agent:"):
            return self.agents[name.removeprefix("agent:")].pid
        return int(self.beat(name).get("pid", 0))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal. RuntimeError when there is no such process to break."""
        pid = self.pid(name)
        if not pid:
            raise RuntimeError(f"expected a running {name}, found none; see the logs below {self.folder}")
        os.kill(pid, number)

    # -- how it is --------------------------------------------------------------------------------------------

    def beat(self, service: str) -> dict[str, str]:
        """The heartbeat of a service (or ``agent:HOST``); empty when there is none or Redis is away."""
        host, name = HOST_OF.get(service, service.removeprefix("agent:")), service.partition(":")[0]
        with suppress(redis.RedisError):
            fields = self.redis.hgetall(keys.HEARTBEAT.format(host=host, service=name))
            return {key.decode(): value.decode(errors="replace") for key, value in fields.items()}
        return {}

    def ask(self, sql: str, seconds: float = 60.0, **parameters: str) -> list[list[Any]]:
        """Rows of a query, straight from ClickHouse. OSError when it does not answer in time or returns an error."""
        said = self.command(sql + "\nFORMAT JSONCompactEachRow", seconds, **parameters)
        return [json.loads(line) for line in said.splitlines() if line]

    def command(self, sql: str, seconds: float = 60.0, **parameters: str) -> str:
        """What ClickHouse answers to a statement; errors as of `ask`."""
        about = {"database": self.engines.clickhouse_database, "output_format_json_quote_64bit_integers": "0"}
        about |= {f"param_{name}": value for name, value in parameters.items()}
        url = f"http://127.0.0.1:{self.clickhouse_port}/?{urllib.parse.urlencode(about)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        key = {"X-ClickHouse-Key": self.engines.engine_password("clickhouse")}
        try:
            with opener.open(urllib.request.Request(url, sql.encode(), key), timeout=seconds) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as error:
            raise OSError(f"ClickHouse returned: {error.read().decode()[:500]}") from error

    def newest_received_ms(self) -> int:
        """Wall time (epoch ms) of the callback of the newest stored tick; 0 without one or without an answer."""
        with suppress(OSError, ValueError):
            rows = self.ask("SELECT toUnixTimestamp64Milli(max(received_at)) FROM ticks SETTINGS final = 0", 3)
            return max(int(rows[0][0]), 0) if rows else 0
        return 0

    def logs(self, host: str, service: str) -> str:
        """What a service has logged."""
        folder = self.folder / host / "logs"
        return "".join(
            path.read_text(errors="replace") for path in sorted(folder.glob(f"{service}*")) if path.is_file()
        )


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """*folder* on a disk of its own of this size, if we may mount one; says whether."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = (
        sys.platform == "linux"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@contextmanager
def world(market: Market, *, keep: Path | None = None, redis_mb: int = 1024) -> Iterator[World]:
    """A world in a temporary folder (or in *keep*, which stays), started and, at the end, taken down."""
    with ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(TemporaryDirectory(prefix="qmt-chaos-", ignore_cleanup_errors=True)))
        elif keep.exists() and any(keep.iterdir()):
            raise ValueError(f"expected a new or empty folder, found {keep} with something in it")
        folder = keep.resolve()
        own = Settings(
            data_dir=folder / "engines",
            redis_url="",
            clickhouse_url="",
            redis_port=free_port(),
            clickhouse_port=free_port(),
            redis_maxmemory_mb=redis_mb,
        )
        small = {folder / FEED / "feed" / "spool": _SPOOL_MB}
        small |= {own.data_dir / name: megabytes for name, megabytes in _DISK_MB.items()}
        mounted = [stack.enter_context(small_disk(path, megabytes)) for path, megabytes in small.items()]
        ready = stack.enter_context(supervised(own))
        made = World(folder, market, ready, own_disk=all(mounted))
        stack.callback(made.close)
        made.start()
        yield made


def free_port() -> int:
    """A port nothing listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
