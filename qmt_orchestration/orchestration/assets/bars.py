"""Bars: the final minute bars of a day, and what is rolled up from them.

What a bar *is* is set in ClickHouse (docs/bars.md); these assets say when it is written, for which frames, and check
the outcome in the same step. A run of ``finalize_minutes`` gives the frames that have just closed; every other run is
for whole days.
"""

from datetime import date, datetime
from typing import Any

import dagster as dg

from qmt_orchestration.market.periods import minutes_of, rollups
from qmt_orchestration.market.sessions import MINUTE_LABELS, SHANGHAI, at
from qmt_orchestration.orchestration.assets.columns import table_metadata
from qmt_orchestration.orchestration.assets.making import Made, Materialized, daily_asset, days_of, make_days, settled
from qmt_orchestration.orchestration.checks.evaluate import Window, specs
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import read_clock
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.bars import closed_watermark
from qmt_orchestration.warehouse.client import load_sql


class Frames(dg.Config):
    """Which frames of the day to make, as ``HH:MM`` end labels; empty: the whole day."""

    first_frame: str = ""
    last_frame: str = ""

    def window(self, day: date) -> Window:
        """The frames as a window of *day*; without frames, all of it."""
        if self.whole_day:
            return Window.whole(day)
        return Window(day, _at(day, self.first_frame), _at(day, self.last_frame))

    @property
    def whole_day(self) -> bool:
        """Whether no frames were chosen."""
        return not self.first_frame or not self.last_frame


def _at(day: date, label: str) -> datetime:
    return datetime.strptime(f"{day} {label}", "%Y-%m-%d %H:%M").replace(tzinfo=SHANGHAI)


def _one_day_only(context: dg.AssetExecutionContext, frames: Frames) -> None:
    days = days_of(context)
    if not frames.whole_day and len(days) != 1:
        raise dg.Failure(
            f"frames {frames.first_frame} to {frames.last_frame} were given for {len(days)} days: frames are for one "
            "day; leave first_frame and last_frame empty for a range of days"
        )


def build_bar_assets(days: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """``bars_1m``, ``bars_5m``, ``bars_30m``, ``bars_1d`` and those of ``settings.rollup_periods``; nothing is
    connected to."""

    @daily_asset(
        days,
        "bars",
        deps=["ticks", "qmt_bars_1m"],
        check_specs=specs(checks_of("bars_1m")),
        tags={"period": "1m"},
        metadata=table_metadata(settings, "bars_1m"),
        description=(
            "Final one-minute bars of a trading day: 241 a symbol, labelled by their end, Beijing time. Computed from "
            "the day's ticks; minutes that they lack, and days without ticks, come from QMT's own bars (column source)."
        ),
    )
    def bars_1m(
        context: dg.AssetExecutionContext, config: Frames, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        _one_day_only(context, config)
        client, clock = clickhouse.connect(), read_clock(redis.connect())
        now = settled(clock, clickhouse.settings)

        def make(day: date) -> Made:
            if not config.whole_day:
                return _finalize(client, config.window(day))
            closed = None  # of a day that is over, everything
            if day == clock.today():
                closed = closed_watermark(client, clickhouse.settings, day, clock.now_ms(), speed=clock.speed)
            return _whole_day(context, client, Window.whole(day, now), live=day == clock.today(), closed=closed)

        return make_days(context, client, clickhouse.settings, "bars_1m", make, "bars_rows")

    return [bars_1m, *(_rollup(days, settings, period) for period in rollups(settings.rollup_periods))]


def _finalize(client: Any, window: Window) -> Made:
    written = bars.finalize(client, window.day, window.first, window.last)
    return Made(written.rows, _so_far(client, window), {**_facts(written), "source": "ticks"})


def _so_far(client: Any, window: Window) -> Window:
    """What is judged after some frames were made: the day up to its newest minute. A bad bar stays a finding until it
    is repaired; a verdict on the new frames alone would call the day good a minute later."""
    newest = client.query(load_sql("newest_bar"), parameters={"day": window.day}).first_row[0].astimezone(SHANGHAI)
    return Window(window.day, at(window.day, MINUTE_LABELS[0]), max(window.last, newest))


def _whole_day(
    context: dg.AssetExecutionContext, client: Any, window: Window, *, live: bool, closed: datetime | None
) -> Made:
    """A day from its ticks, computed once more as a whole, then what is missing from QMT's history. The *live* day is
    made up to its last *closed* minute."""
    ticks = int(client.query(load_sql("day_ticks"), parameters={"day": window.day}).first_row[0])
    rows, facts = 0, dict[str, Any]()
    if ticks:
        # a recording may end inside a minute: on a day that is over that minute is whole, too
        written = bars.recompute(client, window.day, closed if live else bars.newest_frame(client, window.day))
        rows, facts = written.rows, _facts(written)
    filled = bars.fill_from_history(client, window.day)
    if filled.rows and not rows:
        facts = _facts(filled)
    ours, theirs = client.query(load_sql("bars_sources"), parameters={"day": window.day}).first_row
    parts = [*(["ticks"] if ours else []), *(["QMT history"] if theirs else [])]
    source = " and ".join(parts) or "nothing: no ticks, no QMT bars"
    if not parts:
        context.log.warning(
            f"bars_1m: {window.day} has neither ticks nor QMT bars: materialize qmt_bars_1m (needs a running gateway) "
            "or replay a recording with `qmt replay`"
        )
    return Made(
        rows + filled.rows, window, {**facts, "source": source, "ticks": ticks, "rows_from_history": filled.rows}
    )


def _facts(written: Any) -> dict[str, Any]:
    return {
        "symbols": written.symbols,
        "first_frame": f"{written.first_frame:%H:%M}" if written.first_frame else "none",
        "last_frame": f"{written.last_frame:%H:%M}" if written.last_frame else "none",
        "version": written.version,
    }


def _meaning(period: str) -> str:
    """What the bars of a period are, as shown on the page of their asset."""
    return {
        "5m": "Five-minute bars, 48 a day, from the minute bars; the opening call is in the first.",
        "30m": "Thirty-minute bars, 8 a day (10:00 … 11:30, 13:30 … 15:00), from the minute bars.",
        "1d": (
            "Daily bars from the day's own values (the last tick): raw prices, after-hours trading in columns of its "
            "own, one row marked `suspended` for a symbol that did not trade. None of a day before its close: view "
            "bars_1d_live has the day so far."
        ),
        "1w": "Weekly bars from the daily ones, label 15:00 of the week's last trading day; the current week so far.",
        "1mo": "Monthly bars from the daily ones, label 15:00 of the month's last trading day; so far, too.",
    }.get(period, f"Bars of {minutes_of(period)} trading minutes from 1m; the opening call is in the first.")


def _rollup(days: dg.DailyPartitionsDefinition, settings: Settings, period: str) -> dg.AssetsDefinition:
    table = f"bars_{period}"
    minutes = minutes_of(period)

    @daily_asset(
        days,
        "bars",
        name=table,
        deps=["bars_1d" if period in ("1w", "1mo") else "bars_1m"],
        check_specs=specs(checks_of(table)),
        tags={"period": period},
        metadata=table_metadata(settings, table),
        description=_meaning(period),
    )
    def rollup(
        context: dg.AssetExecutionContext, config: Frames, clickhouse: ClickHouseResource, redis: RedisResource
    ) -> Materialized:
        _one_day_only(context, config)
        client = clickhouse.connect()
        now = settled(read_clock(redis.connect()), clickhouse.settings)

        def make(day: date) -> Made:
            if period == "1d" and day == now.date() and now < at(day, MINUTE_LABELS[-1]):
                facts = {"note": "the day is not over: bars_1d_live has it as far as it has come"}
                return Made(0, Window.whole(day, now), facts)
            if config.whole_day or not minutes:
                # a recording may end inside a window: on a day that is over that window is whole, too
                written = bars.roll_up(client, day, period, day_over=day != now.date())
                return Made(written.rows, Window.whole(day, now), _facts(written))
            window = config.window(day)
            written = bars.roll_up(client, day, period, window.first, window.last)
            return Made(written.rows, _so_far(client, window), _facts(written))

        counted = "" if period in ("1w", "1mo") else "bars_rows"  # their rows stand at the end of the period
        return make_days(context, client, clickhouse.settings, table, make, counted)

    return rollup
