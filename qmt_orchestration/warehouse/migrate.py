"""Creates and migrates the schema: ``schema/NNN_name.sql`` in order, each once, recorded in ``schema_versions``.

Engine, cluster and life times are settings of the schema. They reach the files through a template whose values are
validated words or numbers, never user data:

``$merge_tree``, ``$replacing_merge_tree``, ``$aggregating_merge_tree``  engine names, ``Replicated…`` when set
``$on_cluster``                                                          ``ON CLUSTER name`` or nothing
``$ticks_ttl_days``, ``$rejected_ttl_days``, ``$dedup_window``              numbers
``$states_of_ticks``                                                     the query of that name, over the inserted ticks

Files whose name ends in ``.view.sql`` hold views only: they are replaced whenever their text has changed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from importlib import resources
from string import Template
from typing import Any

from qmt_orchestration.market.periods import minutes_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect, load_sql

log = logging.getLogger("warehouse.migrate")


def migrate(settings: Settings) -> list[str]:
    """Bring the database to the schema of this version; the names of the files applied. Safe to repeat."""
    words = _words(settings)
    client = connect(settings, database="")
    database = settings.clickhouse_database
    client.command(
        Template("CREATE DATABASE IF NOT EXISTS {db:Identifier} $on_cluster").substitute(words), {"db": database}
    )
    client.close()
    client = connect(settings)
    client.command(
        Template(
            "CREATE TABLE IF NOT EXISTS schema_versions $on_cluster (name String, digest String, at DateTime64(3)"
            " DEFAULT now64(3)) ENGINE = $replacing_merge_tree(at) ORDER BY name"
        ).substitute(words)
    )
    done = dict(client.query("SELECT name, argMax(digest, at) FROM schema_versions GROUP BY name").result_rows)
    applied = []
    for name, text in _files():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if done.get(name) == digest or (name in done and not name.endswith(".view.sql")):
            continue
        for statement in _statements(Template(text).substitute(words)):
            client.command(statement)
        _record(client, name, digest)
        applied.append(name)
        log.info("schema: applied %s", name)
    for period in settings.rollup_periods:
        client.command(Template(_period_table(period)).substitute(words))
    client.close()
    return applied


def _period_table(period: str) -> str:
    """The table of one more period of bars. The period is checked, not quoted: letters and digits of a known form."""
    minutes_of(period)
    return (
        f"CREATE TABLE IF NOT EXISTS bars_{period} $on_cluster AS bars_1m ENGINE = $replacing_merge_tree(version)"
        " PARTITION BY toYYYYMM(frame) ORDER BY (toDate(frame), symbol, frame)"
    )


def _record(client: Any, name: str, digest: str) -> None:
    client.insert("schema_versions", [[name, digest]], column_names=["name", "digest"])


def schema_digests() -> dict[str, str]:
    """Files of this version's schema and the digests that `schema_versions` records."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in _files()}


def _files() -> list[tuple[str, str]]:
    folder = resources.files("qmt_orchestration.warehouse") / "schema"
    return sorted(
        (item.name, item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".sql")
    )


def _statements(text: str) -> list[str]:
    """The statements of a file: separated by a semicolon at the end of a line; comment lines are left out."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in re.split(r";\s*\n", bare + "\n") if part.strip()]


def _words(settings: Settings) -> dict[str, str | int]:
    prefix = "Replicated" if settings.clickhouse_replicated else ""
    cluster = settings.clickhouse_cluster
    return {
        "merge_tree": f"{prefix}MergeTree",
        "replacing_merge_tree": f"{prefix}ReplacingMergeTree",
        "aggregating_merge_tree": f"{prefix}AggregatingMergeTree",
        "dedup_setting": "replicated_deduplication_window" if prefix else "non_replicated_deduplication_window",
        "on_cluster": f"ON CLUSTER `{cluster}`" if cluster else "",
        "ticks_ttl_days": settings.ticks_ttl_days,
        "rejected_ttl_days": settings.rejected_ttl_days,
        "dedup_window": 10_000,
        "states_of_ticks": Template(load_sql("states_of_ticks")).substitute(source="ticks"),
    }
