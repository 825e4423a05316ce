"""Redis, ClickHouse and Dagster's storage: reachable, of a version that works, configured so that nothing is lost."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import redis

from qmt_orchestration.doctor import Diagnosis, error, ok, warning
from qmt_orchestration.extras import hint
from qmt_orchestration.local.redis_server import NoRedisBinary, find_binary
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.heartbeat import read_all, reported
from qmt_orchestration.warehouse import upgrade
from qmt_orchestration.warehouse.client import error_code
from qmt_orchestration.warehouse.migrate import schema_digests

REDIS_MINIMUM: Final = (6, 2)  # XAUTOCLAIM, XTRIM MINID
CLICKHOUSE_MINIMUM: Final = (24, 3)  # the analyzer that the rule of a bar is written for is the default from here on
CLICKHOUSE_REPLACES: Final = (26, 6, 1, 962)  # before: replaced parts of plain MergeTree may return after a restart
CLOCK_MS: Final = 1000
_ACCESS_DENIED: Final = 497
ANSWER_SECONDS: Final = 5


# -- the embedded engines --------------------------------------------------------------------------------------------


def embedded(settings: Settings) -> list[Diagnosis]:
    """Whether the engines that no URL replaces can be started here."""
    findings = []
    if not settings.redis_url:
        try:
            findings.append(ok("embedded redis", find_binary()))
        except NoRedisBinary as problem:
            findings.append(error("embedded redis", str(problem), "install Redis, or set QMT_REDIS_URL"))
    if not settings.clickhouse_url:
        if sys.platform != "win32" and importlib.util.find_spec("chdb"):
            findings.append(ok("embedded clickhouse", "chdb is installed"))
        else:
            found = hint("chdb") if sys.platform != "win32" else "there is none on Windows"
            findings.append(error("embedded clickhouse", found, "install it, or set QMT_CLICKHOUSE_URL"))
    return findings


# -- Redis -----------------------------------------------------------------------------------------------------------


def redis_findings(settings: Settings, client: Any) -> list[Diagnosis]:
    """Everything about Redis; *client* without retries, so that an absent server is a matter of seconds."""
    address = settings.redis_url or "the embedded Redis"
    try:
        skew = clock_skew_ms(lambda: _redis_ms(client))
        info = {key: value for part in ("server", "persistence", "memory") for key, value in client.info(part).items()}
        beats = read_all(client)
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as problem:
        mend = "QMT_REDIS_USERNAME, QMT_REDIS_PASSWORD; users and their rights: deploy/redis/users.acl"
        return [error("redis", f"{address} rejects the login: {problem}", mend)]
    except (redis.RedisError, OSError) as problem:
        mend = "start it, open its port in the firewall, or correct QMT_REDIS_URL"
        return [error("redis", f"{address} does not answer: {problem}", mend)]
    return [
        redis_version(str(info.get("redis_version", ""))),
        redis_persistence(info),
        redis_eviction(info),
        clock("clock against Redis", skew),
        *one_agent_per_role(beats),
    ]


def redis_version(version: str) -> Diagnosis:
    """Streams need 6.2."""
    if _numbers(version) >= REDIS_MINIMUM:
        return ok("redis version", f"Redis {version}")
    mend = "install 6.2 or later, 8 is best: on Linux, a Mac or a NAS, by package or container (docs/install.md)"
    if _numbers(version)[:1] in ((3,), (5,)):
        mend += "; the ports for Windows end at 3.x and 5.x: Redis does not belong on the QMT machine"
    return error("redis version", f"Redis {version or 'of unknown version'}; expected 6.2 or later", mend)


def redis_persistence(info: Mapping[str, Any]) -> Diagnosis:
    """Without its append-only file a crash of Redis loses what the writer has not stored."""
    if int(info.get("loading", 0)):
        return warning("redis persistence", "it is still loading its file", "wait, then ask again")
    if not int(info.get("aof_enabled", 0)):
        found = "no append-only file: a crash of Redis loses ticks that are not in ClickHouse yet"
        return error("redis persistence", found, "redis.conf: appendonly yes, appendfsync everysec")
    if info.get("aof_last_write_status", "ok") != "ok":
        return error("redis persistence", "the last write of its append-only file failed", "look at its disk and log")
    return ok("redis persistence", "append-only file")


def redis_eviction(info: Mapping[str, Any]) -> Diagnosis:
    """An evicted entry is a lost tick."""
    policy, limit = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        return error("redis eviction", f"policy {policy}: it drops ticks", "redis.conf: maxmemory-policy noeviction")
    if not limit:
        mend = "redis.conf: maxmemory 2gb (or more)"
        return warning("redis eviction", "noeviction, but no limit of memory: the system may end Redis", mend)
    return ok("redis eviction", f"noeviction, at most {limit / 1e9:.1f} GB")


def one_agent_per_role(beats: list[dict[str, str]]) -> list[Diagnosis]:
    """Two agents that run the same service: one of them stands by, or both work for the same role."""
    hosts: dict[str, set[str]] = {}
    for beat in beats:
        if beat.get("state") != "stopped":
            for name in reported(beat):
                hosts.setdefault(name, set()).add(beat["host"])
    return [
        warning(
            "agents",
            f"{name} is run by the agents of {', '.join(sorted(found))}",
            "right for a stand-by of subscriber or publisher; else stop one agent or change its --services",
        )
        for name, found in sorted(hosts.items())
        if len(found) > 1
    ] or [ok("agents", f"{len(hosts)} services, each with one agent")]


def _redis_ms(client: Any) -> float:
    seconds, micro = client.time()
    return float(seconds * 1000 + micro / 1000)


# -- ClickHouse --------------------------------------------------------------------------------------------------------


def clickhouse_findings(settings: Settings, connect: Callable[[], Any]) -> list[Diagnosis]:
    """Everything about ClickHouse. *connect* makes a client on no particular database."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    address = settings.clickhouse_url or "the embedded ClickHouse"
    try:
        client = connect()
    except (ClickHouseError, OSError) as problem:
        mend = "start it, open its port, or correct QMT_CLICKHOUSE_URL, …_USERNAME, …_PASSWORD, …_CA_FILE"
        return [error("clickhouse", f"{address} does not answer: {str(problem)[:300]}", mend)]
    with client:
        findings = [clickhouse_version(str(client.server_version))]
        checks: dict[str, Callable[[], list[Diagnosis]]] = {
            "clock against ClickHouse": lambda: [_clickhouse_clock(client)],
            "clickhouse settings": lambda: [_clickhouse_settings(client)],
            "clickhouse disk": lambda: _clickhouse_disks(client),
            "schema": lambda: [_schema(settings, client)],
        }
        for name, check in checks.items():
            try:
                findings += check()
            except ClickHouseError as problem:
                findings.append(_refused(name, problem))
        return findings


def _refused(check: str, problem: Exception) -> Diagnosis:
    if error_code(problem) == _ACCESS_DENIED:
        return warning(check, "this user may not look at it", "ask again as the owner (qmt_dagster), to see it")
    return error(check, str(problem)[:300], "see the log of the server")


def _clickhouse_clock(client: Any) -> Diagnosis:
    return clock("clock against ClickHouse", clock_skew_ms(lambda: _clickhouse_ms(client)))


def clickhouse_version(version: str) -> Diagnosis:
    """Parameterized views and their analyzer."""
    found = _numbers(version)
    if found < CLICKHOUSE_MINIMUM:
        return error("clickhouse version", f"ClickHouse {version}; expected 24.3 or later", "upgrade the server")
    if found < CLICKHOUSE_REPLACES:
        mend = "upgrade, or use QMT_CLICKHOUSE_REPLICATED=true: before 26.6.1.962 a replaced partition of a plain table"
        return warning("clickhouse version", f"ClickHouse {version}", mend + " can return after a restart")
    return ok("clickhouse version", f"ClickHouse {version}")


def _clickhouse_settings(client: Any) -> Diagnosis:
    query = "SELECT name, value FROM system.settings WHERE name IN ('readonly', 'insert_deduplicate')"
    values = dict(client.query(query).result_rows)
    if values.get("readonly") == "1":
        mend = "the profile needs readonly = 2 for readers and 0 for services (deploy/clickhouse/users.sql)"
        return error("clickhouse settings", "readonly = 1 refuses the settings that our queries carry", mend)
    zone = client.query("SELECT timezone()").first_row[0]
    return ok("clickhouse settings", f"time zone {zone}; what matters is pinned on each insert")


def _clickhouse_disks(client: Any) -> list[Diagnosis]:
    rows = client.query("SELECT name, free_space, total_space FROM system.disks").result_rows
    return [clickhouse_disk(str(name), int(free), int(total)) for name, free, total in rows if 0 < total < 1 << 62]


def clickhouse_disk(name: str, free: int, total: int) -> Diagnosis:
    """Free space of one of the server's disks."""
    text = f"disk {name}: {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    if free < 5e9:
        return error("clickhouse disk", text, "free space: inserts fail when it is full")
    if free < 0.1 * total:
        return warning("clickhouse disk", text, "free space, or lower QMT_TICKS_TTL_DAYS")
    return ok("clickhouse disk", text)


def _schema(settings: Settings, client: Any) -> Diagnosis:
    query = "SELECT count() FROM system.tables WHERE database = {db:String} AND name = 'schema_versions'"
    if not client.query(query, parameters={"db": settings.clickhouse_database}).first_row[0]:
        return warning("schema", f"database {settings.clickhouse_database} has no tables yet", "qmt migrate")
    wanted = set(schema_digests())
    names = "SELECT name FROM {db:Identifier}.schema_versions"
    done = {row[0] for row in client.query(names, parameters={"db": settings.clickhouse_database}).result_rows}
    if old := sorted(done & set(upgrade.FILES)):
        return error("schema", f"of the first edition, or brought over in part: {', '.join(old)}", "qmt migrate")
    if missing := sorted(wanted - done):
        return error("schema", f"not applied: {', '.join(missing)}", "qmt migrate")
    if newer := sorted(done - wanted):
        return warning("schema", f"of another version: {', '.join(newer)}", "use the same version on every host")
    return ok("schema", f"{len(wanted)} files applied")


def _clickhouse_ms(client: Any) -> float:
    return float(client.query("SELECT toUnixTimestamp64Milli(now64(3))").first_row[0])


# -- clocks ------------------------------------------------------------------------------------------------------------


def clock_skew_ms(ask: Callable[[], float]) -> tuple[float, float]:
    """(this host's clock minus the server's, uncertainty), in ms; the best of three questions."""
    best = (0.0, float("inf"))
    for _ in range(3):
        before = time.time() * 1000
        there = ask()
        after = time.time() * 1000
        if after - before < best[1]:
            best = ((before + after) / 2 - there, after - before)
    return best


def clock(check: str, skew: tuple[float, float]) -> Diagnosis:
    """Delays, trading hours and deadlines compare times of different hosts."""
    skew_ms, unsure_ms = skew
    if abs(skew_ms) > CLOCK_MS + unsure_ms:
        side = "ahead" if skew_ms > 0 else "behind"
        mend = "NTP on both hosts: w32tm /resync, chronyc makestep, sntp -sS"
        return error(check, f"this machine is {abs(skew_ms) / 1000:.1f} s {side}; expected at most 1 s", mend)
    return ok(check, f"{skew_ms:+.0f} ms (± {unsure_ms / 2:.0f})")


# -- Dagster -----------------------------------------------------------------------------------------------------------


def dagster_storage(home: Path) -> Diagnosis:
    """Whether Dagster's instance opens and answers; *home*: the folder with dagster.yaml."""
    if importlib.util.find_spec("dagster") is None:
        return error("dagster storage", hint("dagster"), "pip install . (the small installs leave Dagster out)")
    if not home.is_dir():
        return warning("dagster storage", f"{home} does not exist yet", "`qmt up` makes it; else docs/operations.md")
    if not (home / "dagster.yaml").is_file():
        mend = "copy the project's dagster.yaml there: without it runs have no limits and old ones are kept for years"
        return warning("dagster storage", f"no dagster.yaml in {home}", mend)
    from dagster import DagsterInstance

    try:
        with DagsterInstance.from_config(str(home)) as instance:
            instance.get_runs_count()
            kind = type(instance.event_log_storage).__name__
    except ModuleNotFoundError as problem:
        if problem.name == "psycopg":  # SQLAlchemy 2.1 takes version 3 of the driver unless the URL says otherwise
            mend = "dagster.yaml: scheme: postgresql+psycopg2 (docs/dagster.md, PostgreSQL)"
            return error("dagster storage", "driver psycopg is missing; dagster-postgres brings psycopg2", mend)
        return error("dagster storage", hint(problem.name), "the storage of dagster.yaml needs it")
    except Exception as problem:  # whatever driver and storage raise: each has classes of its own
        mend = f"the storage section of {home / 'dagster.yaml'}, its server and its variables (DAGSTER_PG_…)"
        return error("dagster storage", f"{type(problem).__name__}: {str(problem)[:200]}", mend)
    return ok("dagster storage", f"{kind} in {home}")


def _numbers(version: str) -> tuple[int, ...]:
    out = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        out.append(int(digits))
    return tuple(out)
