"""Each user of ``deploy/redis/users.acl`` against each key, as a real Redis decides it: its rights, nothing else.

Letters: r reads, w writes (adds, sets), c consumes in a group (create, read, acknowledge, claim), t trims, d deletes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from pydantic import SecretStr

from qmt_orchestration.client import BarConsumer, TickConsumer
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.client.market import FRAMES, minute, publish
from qmt_orchestration_tests.helpers import free_port, redis_with_selectors, wait_until

ACL = Path(__file__).resolve().parents[2] / "deploy/redis/make-acl.sh"
USERS: Final = ("admin", "warehouse", "feed", "dagster", "client", "ticks")

STREAM: Final[dict[str, list[list[str]]]] = {
    "r": [["XRANGE", "KEY", "-", "+"]],
    "w": [["XADD", "KEY", "*", "a", "b"]],
    "c": [
        ["XGROUP", "CREATE", "KEY", "g", "0", "MKSTREAM"],
        ["XREADGROUP", "GROUP", "g", "c", "STREAMS", "KEY", ">"],
        ["XACK", "KEY", "g", "1-0"],
        ["XCLAIM", "KEY", "g", "c", "0", "1-0"],
    ],
    "t": [["XTRIM", "KEY", "MINID", "1"]],
    "d": [["DEL", "KEY"]],
}
HASH: Final = {"r": [["HGETALL", "KEY"]], "w": [["HSET", "KEY", "a", "b"]], "d": [["DEL", "KEY"]]}
STRING: Final = {"r": [["GET", "KEY"]], "w": [["SET", "KEY", "a"]], "d": [["DEL", "KEY"]]}
SET: Final = {"r": [["SMEMBERS", "KEY"]], "w": [["SADD", "KEY", "a"]], "d": [["DEL", "KEY"]]}

ADMIN_ONLY: Final = (
    *("FLUSHALL", "CONFIG SET dir /tmp", "ACL LIST", "KEYS *", "SHUTDOWN", "REPLICAOF a 1", "DEBUG SLEEP 9"),
    *("MODULE LIST", "CLIENT KILL ID 1", "MIGRATE a 1 k 0 1", "SORT minute_bar_stream", "SCRIPT FLUSH", "SUBSCRIBE a"),
    *("PUBLISH a b", "SET other x", "XGROUP DESTROY qmt:ticks:{0} g"),
)

#: name: key, its commands, then what feed, dagster, client and ticks may do. The warehouse's services may do all.
KEYS: Final[dict[str, tuple[str, dict[str, list[list[str]]], str, str, str, str]]] = {
    "ticks": (keys.ticks(0), STREAM, "rw", "rt", "r", "rc"),
    "rejected": (keys.REJECTED, STREAM, "rw", "rt", "", ""),
    "bars": (keys.BARS, STREAM, "", "rt", "rc", "rc"),
    "minutes": (keys.MINUTES, STREAM, "", "rt", "rc", "rc"),
    "forming bars": (keys.BARS_FORMING, STREAM, "", "rt", "rc", "rc"),
    "number of bars": (keys.BARS_SEQ, STRING, "", "r", "", ""),
    "published marks": (keys.PUBLISHED, HASH, "", "r", "r", "r"),
    "writer's plan": (keys.WRITER_PLAN.format(stream=keys.ticks(0)), HASH, "", "r", "", ""),
    "writer's numbers": (keys.WRITER_SEQUENCES.format(stream=keys.ticks(0)), HASH, "", "r", "", ""),
    "desired states": (keys.DESIRED, HASH, "r", "rw", "", ""),
    "clock": (keys.CLOCK, HASH, "rwd", "r", "r", "r"),
    "lost": (keys.LOST_BEFORE, HASH, "", "rw", "", ""),
    "feed's lease": (keys.LEASE.format(name="feed"), STRING, "rwd", "r", "", ""),
    "publisher's lease": (keys.LEASE.format(name="publisher"), STRING, "", "r", "", ""),
    "publisher's fence": (keys.FENCE.format(name="publisher"), STRING, "", "r", "", ""),
    "heartbeat": (keys.HEARTBEAT.format(host="h", service="s"), HASH, "rwd", "r", "", ""),
    "requests": (keys.RPC, STREAM, "rwc", "rw", "", ""),
    "reply": (keys.RPC_REPLY.format(request_id="x"), STREAM, "rwc", "rd", "", ""),
    "client": (keys.CLIENT.format(client_id="c"), HASH, "", "r", "rwd", "rwd"),
    "clients": (keys.CLIENTS, SET, "", "r", "rwd", "rwd"),
    "client's lease": (keys.LEASE.format(name="client:c"), STRING, "", "r", "rwd", "rwd"),
    "client's progress": (keys.PROGRESS.format(group="g"), HASH, "", "r", "rwd", "rwd"),
    "dead bars": (keys.DEAD_LETTERS.format(stream=keys.BARS), STREAM, "", "r", "w", "w"),
    "dead ticks": (keys.DEAD_LETTERS.format(stream=keys.ticks(0)), STREAM, "", "r", "", "w"),
    "dead requests": (keys.DEAD_LETTERS.format(stream=keys.RPC), STREAM, "rwc", "r", "", ""),
}


def password(user: str) -> str:
    return f"long-enough-{user}-0123456789"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a Redis with the users as `make-acl.sh` writes them."""
    binary, folder, chosen = redis_with_selectors(), tmp_path_factory.mktemp("users"), free_port()
    passwords = {f"{user.upper()}_PASSWORD": password(user) for user in USERS}
    made = subprocess.run([str(ACL)], env={**os.environ, **passwords}, capture_output=True, check=True)
    (folder / "users.acl").write_bytes(made.stdout)
    argv = [binary, "--port", str(chosen), "--bind", "127.0.0.1", "--aclfile", str(folder / "users.acl")]
    server = subprocess.Popen([*argv, "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(chosen), 10, "the server with its users")
        yield chosen
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        with _as(port, "admin") as admin:
            return bool(admin.ping())
    except redis.RedisError:
        return False


def _acknowledge(bars: BarConsumer) -> int:
    items = bars.read(0.1)
    bars.ack(items)
    return len(items)


def _settings(port: int, user: str) -> Settings:
    return Settings(
        redis_url=f"redis://127.0.0.1:{port}/0", redis_username=user, redis_password=SecretStr(password(user))
    )


def _as(port: int, user: str) -> Any:
    return connect(_settings(port, user), retries=0)


@pytest.mark.parametrize("user", ["feed", "dagster", "client", "ticks", "warehouse"])
def test_a_user_may_do_what_is_listed_and_nothing_else(port: int, user: str) -> None:
    wrong = []
    with _as(port, "admin") as admin:
        for name, (key, commands, *granted) in KEYS.items():
            rights = "rwctd" if user == "warehouse" else granted[USERS[2:].index(user)]
            for letter, lines in commands.items():
                for line in lines:
                    command = [key if word == "KEY" else word for word in line]
                    allowed = admin.execute_command("ACL", "DRYRUN", user, *command) == b"OK"
                    if allowed is not (letter in rights):
                        wrong.append(f"{user} {name}: {' '.join(command)} is {'allowed' if allowed else 'refused'}")
    assert not wrong


@pytest.mark.parametrize("user", ["feed", "warehouse", "dagster", "client", "ticks"])
def test_nobody_but_the_admin_changes_the_server(port: int, user: str) -> None:
    with _as(port, "admin") as admin:
        for line in ADMIN_ONLY:
            if user == "warehouse" and line.startswith("XGROUP"):
                continue  # eviction of clients
            assert admin.execute_command("ACL", "DRYRUN", user, *line.split()) != b"OK", line


def test_a_script_of_a_client_cannot_do_more_than_the_client(port: int) -> None:
    with _as(port, "admin") as admin, _as(port, "client") as client:
        admin.xadd(keys.BARS, {"symbol": "000001.SZ"}, id="1-0")
        for call in ("'del', KEYS[1]", "'xadd', KEYS[1], '*', 'a', 'b'", "'hset', 'qmt:desired', 'writer', 'stopped'"):
            with pytest.raises(redis.ResponseError, match=r"(?i)NOPERM|can't (run|access)|no permissions"):
                client.eval(f"return redis.call({call})", 1, keys.BARS)
        assert admin.xlen(keys.BARS) == 1
        assert not admin.exists(keys.DESIRED)
        admin.delete(keys.BARS)


def test_a_client_reads_acknowledges_rejects_and_beats(port: int) -> None:
    with _as(port, "admin") as admin:
        admin.flushall()
        admin.execute_command("ACL", "LOG", "RESET")
        publish(admin, minute(FRAMES[0]))
        admin.xadd(keys.MINUTES, {"symbol": "no bar"})
        with BarConsumer("mac", start="beginning", catch_up=False, settings=_settings(port, "client")) as bars:
            wait_until(lambda: _acknowledge(bars) == 0 and bars.counters.handled and bars.counters.dead)
        user = _settings(port, "client")
        with BarConsumer("one", mode="shard", start="beginning", catch_up=False, settings=user) as bars:
            assert wait_until(lambda: bars.read(0.2), 10, "bars of a shard")
        group = next(g for g in admin.xinfo_groups(keys.MINUTES) if g["name"] == b"minute_bar_consumers:mac")
        assert group["pending"] == 0
        assert admin.hget(keys.CLIENT.format(client_id="mac"), "state") == b"stopped"
        assert admin.xlen(keys.DEAD_LETTERS.format(stream=keys.MINUTES)) >= 1
        with TickConsumer("t", start="beginning", settings=_settings(port, "ticks")) as ticks:
            admin.xadd(keys.ticks(0), {"no": "batch"})
            wait_until(lambda: ticks.read(0.1) == [] and ticks.counters.dead == 1)
        refused = [e for e in admin.execute_command("ACL", "LOG", "100") if e[b"username"] in (b"client", b"ticks")]
        assert not [e for e in refused if b"client|" not in e[b"object"]], "the library asks for no more than it may"
