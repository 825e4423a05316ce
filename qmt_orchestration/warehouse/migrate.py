"""Creates and migrates the schema: ``schema/NNN_name.sql`` in order, each once, recorded in ``schema_versions``.

Engine, cluster and life times are settings of the schema. They reach the files through a template whose values are
validated words or numbers, never user data:

``$merge_tree``, ``$replacing_merge_tree``                      engine names, ``Replicated…`` when set
``$on_cluster``                                               ``ON CLUSTER name`` or nothing
``$ticks_ttl_days``, ``$rejected_ttl_days``, ``$dedup_window``   numbers
``$tick_bucket``                                              the function that gives a tick's bucket (`TICK_BUCKET`)

Files whose name ends in ``.view.sql`` hold views only: they are replaced whenever their text has changed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from importlib import resources
from string import Template
from typing import Any, Final

from qmt_orchestration.market.periods import rollups
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect, load_sql

log = logging.getLogger("warehouse.migrate")

#: Leads the key of `ticks`: toStartOfFiveMinutes, toStartOfTenMinutes or toStartOfFifteenMinutes. A change needs new
#: tables.
TICK_BUCKET: Final = "toStartOfTenMinutes"


class OldSchema(RuntimeError):
    """The database was made by a version with another layout of its tables; the message says what was found."""


def migrate(settings: Settings) -> list[str]:
    """Bring the database to the schema of this version; the names of the files applied. Safe to repeat."""
    chosen = words(settings)
    client = connect(settings, database="")
    database = settings.clickhouse_database
    client.command(
        Template("CREATE DATABASE IF NOT EXISTS {db:Identifier} $on_cluster").substitute(chosen), {"db": database}
    )
    client.close()
    client = connect(settings)
    _refuse_old_schema(client, database)
    client.command(
        Template(
            "CREATE TABLE IF NOT EXISTS schema_versions $on_cluster (name String, digest String, at DateTime64(3)"
            " DEFAULT now64(3)) ENGINE = $replacing_merge_tree(at) ORDER BY name"
        ).substitute(chosen)
    )
    done = dict(client.query("SELECT name, argMax(digest, at) FROM schema_versions GROUP BY name").result_rows)
    applied = []
    for name, text in _files():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if done.get(name) == digest or (name in done and not name.endswith(".view.sql")):
            continue
        for statement in _statements(Template(text).substitute(chosen)):
            client.command(statement)
        _record(client, name, digest)
        applied.append(name)
        log.info("schema: applied %s", name)
    table = _statements(load_sql("rollup_table"))[0]
    for period in rollups(settings.rollup_periods):
        if period != "1d":
            client.command(Template(table).substitute(chosen, period=period))
    client.close()
    return applied


def _refuse_old_schema(client: Any, database: str) -> None:
    """Raise `OldSchema` when `ticks` or `bars_1m` are not those of this version."""
    (key,) = client.query(load_sql("ticks_key")).first_row
    columns = {name for (name,) in client.query(load_sql("bars_columns")).result_rows}
    found = ""
    if key and TICK_BUCKET not in key:
        found = f"a table ticks with the key ({key})"
    elif columns and "cum_volume" not in columns:
        found = "a table bars_1m without the column cum_volume"
    if found:
        raise OldSchema(
            f"database {database}: expected tables of this version, found {found}, made by another version: use that "
            "version, or an empty database (QMT_CLICKHOUSE_DATABASE, QMT_DATA_DIR) and `qmt replay` or `qmt backfill`"
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


def words(settings: Settings) -> dict[str, str | int]:
    """What the templates of the schema are filled with."""
    prefix = "Replicated" if settings.clickhouse_replicated else ""
    cluster = settings.clickhouse_cluster
    return {
        "merge_tree": f"{prefix}MergeTree",
        "replacing_merge_tree": f"{prefix}ReplacingMergeTree",
        "dedup_setting": "replicated_deduplication_window" if prefix else "non_replicated_deduplication_window",
        "on_cluster": f"ON CLUSTER `{cluster}`" if cluster else "",
        "ticks_ttl_days": settings.ticks_ttl_days,
        "rejected_ttl_days": settings.rejected_ttl_days,
        "dedup_window": 10_000,
        "tick_bucket": TICK_BUCKET,
    }
