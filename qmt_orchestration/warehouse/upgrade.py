"""From the tables of the first edition to those of this version, in place. Every step may be interrupted and repeated.

The first edition has `ticks` with the key (symbol, time, pvolume, amount) and without ``total_volume``, minute states,
and bars without what the day's ticks had reached. `begin` (before this version's files are applied) drops the states,
adds the columns and renames `ticks` to ``ticks_v1``; `finish` (after) copies one day at a time, drops it there as its
count agrees, and makes the days final. The names of the first edition's files stay in `schema_versions` until all of it
is done: as long as they do, `migrate` goes on where it was.

A day without ticks keeps its bars as they are: what ticks had reached is 0 in them, as in bars from history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from string import Template
from typing import Any, Final

from qmt_orchestration.market.periods import intraday
from qmt_orchestration.market.schema import TICK_SCHEMA_V1
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import load_sql, statements

Progress = Callable[[str], None]
Words = Mapping[str, str | int]

#: Files of the first edition's schema that this version does not have.
FILES: Final = ("001_ticks.sql", "002_states.sql", "003_bars.sql", "005_bars_live.view.sql", "006_bars.view.sql")
#: Columns of its tables, where they differ from this version's.
TICKS_KEY: Final = "symbol, time, pvolume, amount"
_BAR: Final = ("symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks", "quality_score")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "ticks": tuple(TICK_SCHEMA_V1.names),
    "ticks_v1": tuple(TICK_SCHEMA_V1.names),
    "bars_1m": (*_BAR, "version"),
    "bars_1d": (*_BAR, "version", "pre_close", "after_hours_vol", "after_hours_amount", "suspended"),
    "final_frames": ("day", "frame", "rows_in", "updated", "block", "changed", "version"),
    "rolled_up": ("day", "period", "version", "at"),
}
#: A day is copied, and its new parts are merged, before the old one is dropped.
_DISK_PER_DAY: Final = 2.2


class UpgradeError(RuntimeError):
    """The tables of the first edition cannot be brought over now; the message says why and what to do."""


def begin(client: Any, words: Words) -> None:
    """Make room for this version's tables. Raises `UpgradeError` when a day does not fit on the disk."""
    _require_disk(client)
    for statement in statements(Template(load_sql("upgrade/begin")).substitute(words)):
        client.command(statement)
    for name in ("final_frames", "rolled_up"):
        if _columns(client, name) == COLUMNS[name]:  # their contents say nothing about this version's bars
            client.command(Template("DROP TABLE {name:Identifier} $on_cluster SYNC").substitute(words), {"name": name})
    if _columns(client, "ticks") == COLUMNS["ticks"]:
        client.command(Template("RENAME TABLE ticks TO ticks_v1 $on_cluster").substitute(words))


def finish(client: Any, settings: Settings, words: Words, progress: Progress) -> None:
    """Copy what is left of the old ticks, make the days with ticks final, and forget the first edition."""
    if _columns(client, "ticks_v1"):
        _copy_days(client, words, progress)
        client.command(Template("DROP TABLE IF EXISTS ticks_v1 $on_cluster SYNC").substitute(words))
    days = client.query(load_sql("upgrade/open_days")).result_rows
    for number, (day, had) in enumerate(days, 1):
        written = bars.finalize(client, day, None, had and had.astimezone(SHANGHAI))
        for period in intraday(settings.rollup_periods):
            bars.roll_up(client, day, period)
        parameters = {"day": day, "version": written.version}
        (differ,) = client.query(load_sql("upgrade/changed_bars"), parameters).first_row
        progress(f"bars of {day}: {written.rows:,} rows, {differ:,} of them changed, day {number} of {len(days)}")
    client.command(
        Template("DELETE FROM schema_versions $on_cluster WHERE name IN {names:Array(String)}").substitute(words),
        {"names": list(FILES)},
    )


def _copy_days(client: Any, words: Words, progress: Progress) -> None:
    """Copy and drop one partition of ``ticks_v1`` after the other, oldest first."""
    copy = Template(load_sql("upgrade/copy")).substitute(columns=", ".join(TICK_SCHEMA_V1.names))
    left = _partitions(client, "ticks_v1")
    # what merges have replaced is removed at once, else for eight minutes it would take the disk of further days
    client.command(Template("ALTER TABLE ticks $on_cluster MODIFY SETTING old_parts_lifetime = 1").substitute(words))
    for number, (partition, rows, _) in enumerate(left, 1):
        _require_disk(client)
        started, parameters = time.monotonic(), {"partition": partition}
        client.command(copy, parameters)
        old, new = client.query(load_sql("upgrade/counts"), parameters).first_row
        if new < old:
            raise UpgradeError(
                f"ticks of {partition}: expected {old:,} after the copy, found {new:,}; they are still in ticks_v1: "
                "run `qmt migrate` again"
            )
        client.command(
            Template("ALTER TABLE ticks_v1 $on_cluster DROP PARTITION ID '$id'").substitute(words, id=int(partition))
        )
        speed = rows / (time.monotonic() - started)
        progress(f"ticks of {partition}: {old:,} copied, {speed:,.0f} a second, day {number} of {len(left)}")
    client.command(Template("ALTER TABLE ticks $on_cluster RESET SETTING old_parts_lifetime").substitute(words))


def _require_disk(client: Any) -> None:
    sizes = [size for table in ("ticks", "ticks_v1") for _, _, size in _partitions(client, table)]
    needed = int(_DISK_PER_DAY * max(sizes, default=0))
    (free,) = client.query("SELECT sum(unreserved_space) FROM system.disks").first_row
    if free < needed:
        raise UpgradeError(
            f"expected {needed / 1e9:.1f} GB free on ClickHouse's disks to copy the largest day of ticks, found "
            f"{free / 1e9:.1f} GB; nothing is lost: free space and run `qmt migrate`"
        )


def _partitions(client: Any, table: str) -> Any:
    return client.query(load_sql("upgrade/left"), {"table": table}).result_rows


def _columns(client: Any, table: str) -> tuple[str, ...]:
    return next((tuple(c) for t, _, c in client.query(load_sql("upgrade/tables")).result_rows if t == table), ())
