"""How the embedded ClickHouse is configured before it starts: limits, rights, and whose data these are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

#: What clients may do: everything in databases, tables and views; nothing with files, programs, servers and users.
GRANTS: Final[tuple[str, ...]] = (
    "GRANT SHOW, SELECT, INSERT, ALTER TABLE, ALTER VIEW, CREATE DATABASE, CREATE TABLE, CREATE TEMPORARY TABLE, "
    "CREATE VIEW, CREATE FUNCTION, DROP DATABASE, DROP TABLE, DROP VIEW, DROP FUNCTION, UNDROP TABLE, TRUNCATE, "
    "OPTIMIZE, CHECK, KILL QUERY, SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM FLUSH, dictGet ON *.*",
    *(
        f"GRANT TABLE ENGINE ON {prefix}MergeTree"
        for prefix in ("", "Replacing", "Aggregating", "Summing", "Collapsing", "VersionedCollapsing", "Coalescing")
    ),
    *(f"GRANT TABLE ENGINE ON {name}" for name in ("Memory", "Null", "View", "MaterializedView", "Merge")),
)


class EngineStartError(Exception):
    """The engine cannot work with its folder; the message says why and what mends it."""


def write(path: Path, memory_bytes: int) -> Path:
    """Limits and grants beside the data folder; the engine reads both files once."""
    users, config = (path.parent / f"{path.name}.{kind}.xml" for kind in ("users", "config"))
    grants = "".join(f"<query>{escape(grant)}</query>" for grant in GRANTS)
    users.write_text(
        "<clickhouse><profiles><default><constraints><format_schema><readonly/></format_schema></constraints></default>"
        "</profiles><quotas><default/></quotas><users><default><password></password><networks><ip>::/0</ip></networks>"
        f"<profile>default</profile><quota>default</quota><grants>{grants}</grants></default></users></clickhouse>"
    )
    config.write_text(
        f"<clickhouse><users_config>{escape(str(users.resolve()))}</users_config>"
        "<access_control_improvements><table_engines_require_grant>true</table_engines_require_grant>"
        "</access_control_improvements>"
        f"<max_server_memory_usage>{memory_bytes}</max_server_memory_usage>"
        f"<mark_cache_size>{memory_bytes // 16}</mark_cache_size>"
        "<uncompressed_cache_size>0</uncompressed_cache_size></clickhouse>"
    )
    return config


def require_readable(path: Path) -> None:
    """Raise :class:`EngineStartError` when this user may not work with the folder."""
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise EngineStartError(
            f"user {os.getuid()} cannot read and write {path}, the ClickHouse data: "
            "give the folder to that user (chown -R), or choose another QMT_DATA_DIR"
        )


def require_version(path: Path, version: str) -> None:
    """Refuse data that a newer engine has written; note the version that writes from now on."""
    note = path.parent / f"{path.name}.version"
    written = note.read_text().strip() if note.exists() else version
    if _release(written) > _release(version):
        raise EngineStartError(
            f"the ClickHouse data in {path} were written by version {written}, and this is {version}: "
            "install the newer engine again (pip install -U chdb), or choose another QMT_DATA_DIR"
        )
    note.write_text(version + "\n")


def _release(version: str) -> tuple[int, ...]:
    """Year and number of a release: patches of one release read one another's data."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
