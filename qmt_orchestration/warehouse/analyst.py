"""The analyst's door: bars of any period as a pandas DataFrame (`qmt bars`, `qmt_orchestration.client.bars`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, Literal

from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect, load_sql

Adjust = Literal["front", "back"]


class NoSuchBars(ValueError):
    """The period has no table, or the adjustment does not apply to it; the message names what there is."""


def bars(
    settings: Settings,
    symbols: str | Sequence[str],
    start: date | datetime | str,
    end: date | datetime | str,
    period: str = "1m",
    adjust: Adjust | None = None,
) -> Any:
    """Bars of *symbols* with start <= frame <= end, ordered by symbol and frame.

    *start*, *end*: dates (the whole day), or times (without zone: Asia/Shanghai), or ISO text of either. *period*: 1m,
    5m, 30m, 1d, 1w, 1mo or another one of ``QMT_ROLLUP_PERIODS``. *adjust*: front or back, daily bars only. Columns:
    symbol, frame (end label, Asia/Shanghai), open, high, low, close, vol (shares), amount (yuan), source and, as
    stored, ticks and quality_score, or for adjusted bars the factor applied. Raises
    `NoSuchBars`; an unknown symbol has no rows.
    """
    if adjust and period != "1d":
        raise NoSuchBars(f"adjusted prices are made for 1d only, asked for {period}: drop adjust, or take period 1d")
    table = f"daily_bars_{adjust}" if adjust else f"bars_{period}"
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    parameters = {"table": table, "symbols": names, "first": _text(start, time.min), "last": _text(end, time.max)}
    with connect(settings) as client:
        known = {row[0] for row in client.query(load_sql("bar_tables")).result_rows}
        if table not in known:
            periods = sorted(name.removeprefix("bars_") for name in known if name.startswith("bars_"))
            raise NoSuchBars(
                f"no bars of period {period!r}: there are {', '.join(periods)} (QMT_ROLLUP_PERIODS adds more)"
            )
        found = client.query_df(load_sql("adjusted_bars" if adjust else "bars_of"), parameters=parameters)
    return found


def _text(moment: date | datetime | str, of_day: time) -> str:
    """A bound as ClickHouse reads it; a bare date means its first or last second."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment) if len(moment) > 10 else date.fromisoformat(moment)
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, of_day.replace(microsecond=0), SHANGHAI)
    if moment.tzinfo is not None:
        moment = moment.astimezone(SHANGHAI)
    return f"{moment:%Y-%m-%d %H:%M:%S}"
