"""A month of the whole market from its ticks: 20 trading days through Dagster, as ``qmt backfill`` makes them.

Each day has 24 M ticks. They are put in place day by day, not measured, and dropped again when their bars are made,
so that the disk needs room for one day of ticks only.
"""

from __future__ import annotations

import time
from datetime import date

from benchmarks.common import fresh, percentile
from benchmarks.rebuild import SNAPSHOTS, SYMBOLS, fill_day
from benchmarks.report import Figure
from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.orchestration.backfill import materialize_days
from qmt_orchestration.warehouse.client import connect

MONTH = trading_days(date(2025, 5, 6), date(2025, 6, 3))[:20]


def run(quick: bool) -> list[Figure]:
    """Seconds a day and for the month, checks included."""
    days = MONTH[:2] if quick else MONTH
    seconds, bars, failed = [], 0, 0
    with fresh() as settings:
        client = connect(settings)
        for day in days:
            fill_day(client, day, 100 if quick else SYMBOLS)
            started = time.perf_counter()
            made = materialize_days(settings, [day])
            seconds.append(time.perf_counter() - started)
            if made["errors"]:
                raise RuntimeError(f"{day}: {made['errors'][0]['error']}")
            bars += made["bars"]["1m"]
            failed += made["failed_runs"]
            client.command("ALTER TABLE ticks DROP PARTITION {part:String}", {"part": f"{day:%Y%m%d}"})
        parts = client.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'bars_1m'").first_row
    return [
        Figure(f"backfill of {len(days)} days of the whole market", sum(seconds), "s"),
        Figure("  ticks read", float(len(days) * (100 if quick else SYMBOLS) * SNAPSHOTS), "ticks"),
        Figure("  a day, median (run of Dagster and checks included)", percentile(seconds, 0.5), "s"),
        Figure("  a day, slowest", max(seconds), "s"),
        Figure("  minute bars made", float(bars), "bars"),
        Figure("  failed runs", float(failed), "runs", "0", failed == 0),
        Figure("  bars_1m on disk", float(parts[0]) / bars, "bytes a bar"),
    ]
