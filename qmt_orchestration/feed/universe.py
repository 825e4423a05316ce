"""The universe: the instruments whose ticks pass the edge, with what the checks need to know of each.

Market-wide subscriptions also bring funds, bonds and codes that do not exist (SH alone has some 26,700), so the members
of one sector (QMT_FEED_SECTOR) decide. Loaded at the start and again on each new trading day (listings).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.market import calendar, limits
from qmt_orchestration.market.symbols import board_of, fund_of, is_symbol
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys

log = logging.getLogger("feed.universe")


class NoUniverse(RuntimeError):
    """QMT named no instrument; the message says what to set or download."""


@dataclass
class Universe:
    """Symbols by id (position), their stream shards and instrument details."""

    symbols: list[str]
    shards: int = 1
    details: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.names: pa.Array = pa.array(self.symbols, pa.string())
        self.shard: npt.NDArray[np.int64] = np.array(
            [keys.shard_of(symbol, self.shards) for symbol in self.symbols], dtype=np.int64
        )

    def day_limits(self, symbol: str, day: date, pre_close: float) -> tuple[float, float]:
        """(up, down) of *day* in yuan, NaN where no limit is known.

        The day's own stop prices if QMT's detail is of that day, else by rule from the tick's previous close.
        """
        detail = self.details.get(symbol, {})
        up, down = float(detail.get("UpStopPrice") or 0), float(detail.get("DownStopPrice") or 0)
        same_close = pre_close <= 0 or abs(float(detail.get("PreClose") or 0) - pre_close) < 0.0005
        if str(detail.get("TradingDay") or "") in ("", f"{day:%Y%m%d}") and same_close and 0 < down < up < 1e6:
            return up, down
        board, fund = board_of(symbol), fund_of(symbol)
        if fund is not None and pre_close >= 0.0005:
            wide = limits.fund_limits(round(pre_close, 4), twenty=fund)
            return float(wide.up), float(wide.down)
        if board is None or pre_close < 0.005:
            return float("nan"), float("nan")
        rule = limits.price_limits(
            board,
            day,
            round(pre_close, 4),
            st=limits.is_st_name(str(detail.get("InstrumentName") or "")),
            listed_day=listed_day(str(detail.get("OpenDate") or ""), day),
        )
        return (float(rule.up), float(rule.down)) if rule else (float("nan"), float("nan"))


def listed_day(open_date: str, day: date) -> int:
    """Which trading day since listing *day* is (1 = the first); 0 = more than a month ago or unknown."""
    try:
        listed = date(int(open_date[:4]), int(open_date[4:6]), int(open_date[6:8]))
    except ValueError:
        return 0
    if not 0 <= (day - listed).days <= 31:
        return 0
    return len(calendar.trading_days(listed, day))


def load(xtdata: Any, settings: Settings) -> Universe:
    """Ask QMT for the members of the sector and their details. Raises `NoUniverse` when it names none."""
    symbols = _members(xtdata, settings)
    wanted = sorted({symbol for symbol in symbols if is_symbol(symbol)})
    if not wanted:
        raise NoUniverse(
            f"expected members of sector {settings.feed_sector!r}, found none: set QMT_FEED_SECTOR to a sector of "
            "this QMT, or fetch its sector data once (xtdata.download_sector_data)"
        )
    details: dict[str, dict[str, Any]] = {}
    for symbol in wanted:
        detail = xtdata.get_instrument_detail(symbol)
        if detail:
            details[symbol] = detail
    if len(details) < len(wanted):
        log.warning("%d of %d instruments have no detail: limits by rule only", len(wanted) - len(details), len(wanted))
    return Universe(wanted, settings.stream_shards, details)


def _members(xtdata: Any, settings: Settings) -> list[str]:
    symbols = list(xtdata.get_stock_list_in_sector(settings.feed_sector) or [])
    if symbols:
        return symbols
    # A fresh QMT has no sector data yet: everything on an A-share board that has a quote is the next best answer.
    quoted = xtdata.get_full_tick(list(settings.feed_markets)) or {}
    symbols = [symbol for symbol in quoted if board_of(symbol) is not None]
    log.warning("sector %r is empty: %d quoted codes of A-share boards instead", settings.feed_sector, len(symbols))
    return symbols
