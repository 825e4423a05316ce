"""Closed days are watched: what each held is recorded per table and symbol, and compared with what it holds now.

Table ``day_sums``: rows, a sum over their content, the newest version. Rows written later, with a newer version or
moment of storing, are no finding: a late tick, a repair, a rebuild. Rows that are gone, or that differ although
nothing newer was written, are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from string import Template
from typing import Any, Final

from qmt_orchestration.market.periods import rollups
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import load_sql

_SHOWN: Final = 20


@dataclass(frozen=True)
class Changed:
    """A table of a closed day that does not hold what it held: of how many symbols, and the first of them with the rows
    recorded and found."""

    day: date
    table: str
    symbols: int
    first: Sequence[tuple[str, int, int]]

    def __str__(self) -> str:
        named = ", ".join(f"{symbol} {recorded} rows, now {found}" for symbol, recorded, found in self.first[:5])
        return f"{self.day} {self.table}: {self.symbols} symbols changed ({named})"


def tables_of(settings: Settings) -> list[str]:
    """The tables that are watched: ticks, and bars of a day (weeks and months go on changing)."""
    return ["ticks", "bars_1m", *(f"bars_{p}" for p in rollups(settings.rollup_periods) if p not in ("1w", "1mo"))]


def record(client: Any, settings: Settings, day: date) -> None:
    """Record what *day* holds now, as right."""
    for table in tables_of(settings):
        client.command(_with_sums("record_sums", table), {"day": day, "table": table})


def verify(client: Any, settings: Settings, days: Sequence[date], today: date) -> tuple[list[Changed], list[date]]:
    """Compare *days* with what was recorded: (what changed, days of which nothing is recorded)."""
    known = {(day, table): recorded for day, table, recorded, _ in _closed_days(client, settings, today)}
    changed = [found for day in days for found in _changed(client, settings, day, today)]
    return changed, [day for day in days if not any(known.get((day, table)) for table in tables_of(settings))]


def watch(client: Any, settings: Settings, today: date) -> list[Changed]:
    """The night's work: verify every closed day whose parts were written since it was recorded; what is unchanged, or
    new, is recorded. What changed stays recorded as it was, and is found again until the day is made again."""
    rows = _closed_days(client, settings, today)
    days = {day for day, _, recorded, touched in rows if touched or not recorded}
    found = []
    for day in sorted(days):
        changed = _changed(client, settings, day, today)
        found += changed
        if not changed:
            record(client, settings, day)
    return found


def _changed(client: Any, settings: Settings, day: date, today: date) -> list[Changed]:
    out = []
    for table in tables_of(settings):
        if table == "ticks" and day < today - timedelta(days=settings.ticks_ttl_days):
            continue  # they have expired
        rows = client.query(_with_sums("changed_sums", table), {"day": day, "table": table}).result_rows
        if rows:
            out.append(Changed(day, table, len(rows), [(s, int(n), int(m)) for s, n, m in rows[:_SHOWN]]))
    return out


def _closed_days(client: Any, settings: Settings, today: date) -> list[tuple[date, str, bool, bool]]:
    parameters = {"tables": tables_of(settings), "today": today}
    rows = client.query(load_sql("closed_days"), parameters).result_rows
    return [(day, table, bool(recorded), bool(touched)) for day, table, recorded, touched in rows]


def _with_sums(sql: str, table: str) -> str:
    sums = load_sql("sums_ticks" if table == "ticks" else "sums_bars")
    return Template(load_sql(sql)).substitute(sums=sums)
