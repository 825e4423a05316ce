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
from collections.abc import Callable
from string import Template
from typing import Any, Final

from qmt_orchestration.market.periods import rollups
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import upgrade
from qmt_orchestration.warehouse.client import connect, load_sql, statements
from qmt_orchestration.warehouse.tables import OldSchema as OldSchema
from qmt_orchestration.warehouse.tables import missing_tables, require_known, schema_files
from qmt_orchestration.warehouse.upgrade import UpgradeError as UpgradeError

log = logging.getLogger("warehouse.migrate")

#: Leads the key of `ticks`: toStartOfFiveMinutes, toStartOfTenMinutes or toStartOfFifteenMinutes. A change needs new
#: tables.
TICK_BUCKET: Final = "toStartOfTenMinutes"
_COPY_SECONDS: Final = 7200  # the longest that the copy of one day may take


def migrate(settings: Settings, progress: Callable[[str], None] = log.info) -> list[str]:
    """Bring the database to the schema of this version; the names of the files applied. Safe to repeat.

    A table that was dropped is made again, and the log says so. Tables of the first edition are brought over
    (`warehouse.upgrade`), with a line to *progress* for each day. Raises `OldSchema` for tables that this version does
    not know, `UpgradeError` when the disk is too full for that.
    """
    words = template_words(settings)
    client = connect(settings, database="")
    database = settings.clickhouse_database
    client.command(
        Template("CREATE DATABASE IF NOT EXISTS {db:Identifier} $on_cluster").substitute(words), {"db": database}
    )
    client.close()
    client = connect(settings, send_receive_timeout=_COPY_SECONDS)
    client.command(
        Template(
            "CREATE TABLE IF NOT EXISTS schema_versions $on_cluster (name String, digest String, at DateTime64(3)"
            " DEFAULT now64(3)) ENGINE = $replacing_merge_tree(at) ORDER BY name"
        ).substitute(words)
    )
    done = dict(client.query("SELECT name, argMax(digest, at) FROM schema_versions GROUP BY name").result_rows)
    require_known(client, database, schema_files(), done)
    first_edition = bool(set(done) & set(upgrade.FILES))
    if first_edition:
        progress("found tables of the first edition: they are brought to this version")
        upgrade.begin(client, words)
    elif gone := missing_tables(client, schema_files(), done):
        what = "%s: dropped, and made again empty; `qmt restore` or `qmt backfill` bring their days back"
        log.error(what, ", ".join(gone))
        done = {}  # every statement of the schema can be repeated
    applied = []
    for name, text in schema_files():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if done.get(name) == digest or (name in done and not name.endswith(".view.sql")):
            continue
        for statement in statements(Template(text).substitute(words)):
            client.command(statement)
        _record(client, name, digest)
        applied.append(name)
        log.info("schema: applied %s", name)
    table = statements(load_sql("rollup_table"))[0]
    for period in rollups(settings.rollup_periods):
        if period != "1d":
            client.command(Template(table).substitute(words, period=period))
    if first_edition:
        upgrade.finish(client, settings, words, progress)
    client.close()
    return applied


def _record(client: Any, name: str, digest: str) -> None:
    client.insert("schema_versions", [[name, digest]], column_names=["name", "digest"])


def schema_digests() -> dict[str, str]:
    """Files of this version's schema and the digests that `schema_versions` records."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in schema_files()}


def template_words(settings: Settings) -> dict[str, str | int]:
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
