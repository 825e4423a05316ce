"""What the tables of this version look like, by the text of the schema, and what is refused: a database of a newer
version, and tables that were changed by hand."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from importlib import resources
from typing import Any, Final

from qmt_orchestration.warehouse import upgrade
from qmt_orchestration.warehouse.client import load_sql

_TYPE: Final = re.compile(r"\w+(\((?:[^()]|\([^()]*\))*\))?")
_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) [^(]*\((.*?)\n\)", re.DOTALL)
_COLUMN: Final = re.compile(r"^    (?!INDEX|--)(\w+)\s+(\S.*?),?$", re.MULTILINE)
_ADDED: Final = re.compile(r"ALTER TABLE (\w+)(.*?);", re.DOTALL)
_ADDED_COLUMN: Final = re.compile(r"ADD COLUMN IF NOT EXISTS (\w+)\s+(\S.*?),?$", re.MULTILINE)


class OldSchema(RuntimeError):
    """The tables are not those that this version can use or bring over; the message says what was found."""


def require_known(client: Any, database: str, files: Iterable[tuple[str, str]], applied: Collection[str]) -> None:
    """Raise `OldSchema` for a database of a newer version, or with tables changed by hand.

    *files*: name and text of this version's schema; *applied*: names recorded in `schema_versions`.
    """
    texts = dict(files)
    if newer := sorted(set(applied) - set(texts) - set(upgrade.FILES)):
        raise OldSchema(
            f"database {database} was made by a newer version, with {', '.join(newer)}: use that version, or an "
            "empty database (QMT_CLICKHOUSE_DATABASE, QMT_DATA_DIR)"
        )
    wanted, so_far = columns_of(texts.values()), columns_of(texts[name] for name in sorted(applied) if name in texts)
    old = upgrade.COLUMNS if set(applied) & set(upgrade.FILES) else {}
    refused = f"database {database}: expected the tables as this version makes them,"
    for table, key, found in client.query(load_sql("upgrade/tables")).result_rows:
        if tuple(found) == old.get(table) and (table != "ticks" or key == upgrade.TICKS_KEY):
            continue
        if table in wanted and list(found) not in (list(wanted[table]), list(so_far.get(table, ()))):
            raise OldSchema(f"{refused} {_difference(table, found, wanted[table])}")
        if table == "ticks" and not key.startswith("toStartOf"):
            raise OldSchema(
                f"{refused} found ticks with the key ({key}): use the version that made it, or an empty database "
                "(QMT_CLICKHOUSE_DATABASE, QMT_DATA_DIR) and `qmt replay` or `qmt backfill`"
            )


def missing_tables(client: Any, files: Iterable[tuple[str, str]], applied: Collection[str]) -> list[str]:
    """Tables of *applied* files that are not there."""
    there = {row[0] for row in client.query(load_sql("upgrade/tables")).result_rows}
    return sorted(set(columns_of(text for name, text in files if name in applied)) - there)


def schema_files() -> list[tuple[str, str]]:
    """Name and text of each file of the schema, in the order in which they are applied."""
    folder = resources.files("qmt_orchestration.warehouse") / "schema"
    return sorted(
        (file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir() if file.name.endswith(".sql")
    )


def column_types(table: str) -> dict[str, str]:
    """Columns of *table* and their types, by the DDL."""
    rollup = load_sql("rollup_table").replace("bars_$period", table)
    columns = columns_of([rollup, *(text for _, text in schema_files())])[table]
    return {name: _TYPE.match(text)[0] for name, text in columns.items()}  # type: ignore[index]


def columns_of(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Columns of each table in the order of the schema's text, with their definitions."""
    out: dict[str, dict[str, str]] = {}
    for text in texts:
        for table, body in _TABLE.findall(text):
            out[table] = dict(_COLUMN.findall(body))
        for table, body in _ADDED.findall(text):
            out[table].update(_ADDED_COLUMN.findall(body))
    return out


def _difference(table: str, found: list[str], wanted: dict[str, str]) -> str:
    """What differs, and the command that mends it."""
    if extra := [name for name in found if name not in wanted]:
        change, text = f"DROP COLUMN {extra[0]}", f"found {table} with the column {extra[0]} besides"
    elif missing := [name for name in wanted if name not in found]:
        before = list(wanted)[: list(wanted).index(missing[0])]
        place = f"AFTER {before[-1]}" if before else "FIRST"
        change, text = f"ADD COLUMN {missing[0]} {wanted[missing[0]]} {place}", f"found {table} without {missing[0]}"
    else:
        return f"found those of {table} in the order {', '.join(found)}: restore the table with `qmt restore`"
    return f"""{text}: `qmt sql --write "ALTER TABLE {table} {change}"` brings it back"""
