"""The universe: the instruments whose ticks pass the edge, with what the checks need to know of each.

The members of sectors (QMT_FEED_SECTORS) and single symbols (QMT_FEED_SYMBOLS): they are subscribed by name, because
the code of a market stands for 26,700 codes in SH alone, most of them bonds. Loaded at the start and again on each new
trading day (listings).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.market import calendar, limits
from qmt_orchestration.market.instruments import instrument_of
from qmt_orchestration.market.symbols import board_of, is_symbol
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys

log = logging.getLogger("feed.universe")

UNLIKELY: Final = 5.0  # without limits: a price so many times the previous close is doubted


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
        about = [instrument_of(symbol) for symbol in self.symbols]
        self.lot: npt.NDArray[np.int64] = np.array([a.lot_size for a in about], np.int64)
        self.priced: npt.NDArray[np.bool_] = np.array([a.priced for a in about], np.bool_)
        self.par: npt.NDArray[np.float64] = np.array([a.par for a in about], np.float64)
        self.has_par = bool(self.par.any())
        groups = [a.group for a in about]
        self.groups = sorted(set(groups))  #: market and kind: ``SH.stock``
        number_of = {group: n for n, group in enumerate(self.groups)}
        self.group: npt.NDArray[np.int64] = np.array([number_of[g] for g in groups], np.int64)

    def day_limits(self, symbol: str, day: date, pre_close: float) -> tuple[float, float, bool]:
        """(up, down, certain) of *day*; NaN without a previous close.

        The day's own stop prices if QMT's detail is of that day: these are certain. Else by rule from the tick's
        previous close, which a name, a listing date or a kind of fund unknown to us may contradict; without a rule a
        fifth and five times the previous close.
        """
        detail = self.details.get(symbol, {})
        up, down = number(detail.get("UpStopPrice")) or 0.0, number(detail.get("DownStopPrice")) or 0.0
        known_close = number(detail.get("PreClose")) or 0.0
        same_close = pre_close <= 0 or abs(known_close - pre_close) < 0.0005
        if str(detail.get("TradingDay") or "") == f"{day:%Y%m%d}" and same_close and 0 < down < up < 1e6:
            return up, down, True
        if pre_close < 0.0005:
            return float("nan"), float("nan"), False
        wide = (pre_close * UNLIKELY, pre_close / UNLIKELY, False)
        try:
            rule = limits.limits_of(
                instrument_of(symbol),
                day,
                round(pre_close, 4),
                st=limits.is_st_name(str(detail.get("InstrumentName") or "")),
                listed_day=listed_day(str(detail.get("OpenDate") or ""), day),
            )
        except ValueError:  # a previous close below half a tick
            return wide
        return (float(rule.up), float(rule.down), False) if rule else wide


def listed_day(open_date: str, day: date) -> int:
    """Which trading day since listing *day* is (1 = the first); 0 = more than a month ago or unknown."""
    listed = date_of(open_date)
    if listed is None or listed == limits.BJ_MIGRATION or not 0 <= (day - listed).days <= 31:
        return 0
    return len(calendar.trading_days(listed, day))


def number(value: Any) -> float | None:
    """A number of an instrument's detail; None where QMT has none (1.797e308, 2147483647, NaN, other types)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        return None
    return None if value == 2_147_483_647 else float(value)


def date_of(value: Any) -> date | None:
    """A date of an instrument's detail (``YYYYMMDD``); None for '0', 1970…, 99999999 and whatever is no date."""
    text = str(value or "")
    try:
        found = date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
    return found if 1980 < found.year < 2200 and len(text) == 8 else None


def load(xtdata: Any, settings: Settings, report: Callable[[int, int], None] | None = None) -> Universe:
    """Ask QMT for the members of the sectors and their details. Raises `NoUniverse` when it names none.

    *report* gets (done, of all) after each 500 details.
    """
    wanted = sorted({symbol for symbol in _members(xtdata, settings) if is_symbol(symbol)})
    if not wanted:
        raise NoUniverse(
            f"expected members of the sectors {', '.join(_sectors(settings))}, found none: set QMT_FEED_SECTORS to "
            "sectors of this QMT, or fetch its sector data once (xtdata.download_sector_data)"
        )
    details: dict[str, dict[str, Any]] = {}
    for number, symbol in enumerate(wanted, 1):
        detail = xtdata.get_instrument_detail(symbol)
        if detail:
            details[symbol] = detail
        if report and (number % 500 == 0 or number == len(wanted)):
            report(number, len(wanted))
    unknown = [symbol for symbol in settings.feed_symbols if symbol not in details]
    named = [s for s in wanted if s in details or s not in unknown]  # a symbol that QMT does not know is not subscribed
    if len(details) < len(named):
        log.warning("%d of %d instruments have no detail: limits by rule only", len(named) - len(details), len(named))
    return Universe(named, settings.stream_shards, details)


def _sectors(settings: Settings) -> tuple[str, ...]:
    if settings.feed == "replay":
        return ("沪深京A股",)  # every recorded symbol, whatever it is
    return (settings.feed_sector,) if settings.feed_sector else settings.feed_sectors


def _members(xtdata: Any, settings: Settings) -> list[str]:
    """Members of the sectors, and symbols named beside them. What is empty or unknown is logged; the rest goes on."""
    found = {sector: members_of(xtdata, sector) for sector in _sectors(settings)}
    empty = [sector for sector, members in found.items() if not members]
    # a simulated market has the kinds of QMT_SIM_KINDS only: some of the default sectors are empty there
    usual = Settings.model_fields["feed_sectors"].default if settings.feed == "simulator" else ()
    if not set(empty) <= set(usual):
        log.warning("%d of %d sectors are empty or unknown to QMT: %s", len(empty), len(found), ", ".join(empty))
    symbols = [symbol for members in found.values() for symbol in members]
    if symbols:
        return symbols if settings.feed_sector or settings.feed == "replay" else [*symbols, *settings.feed_symbols]
    # A fresh QMT has no sector data yet: everything on an A-share board that has a quote is the next best answer.
    quoted = xtdata.get_full_tick(["SH", "SZ", "BJ"]) or {}
    symbols = [symbol for symbol in quoted if board_of(symbol) is not None]
    log.warning("no sector has members: %d quoted codes of A-share boards instead", len(symbols))
    return symbols


def members_of(xtdata: Any, sector: str, when: int | str = -1) -> list[str]:
    """Members of a sector now, or on a day (``YYYYMMDD``); none, and a line in the log, when QMT refuses."""
    try:
        return list(xtdata.get_stock_list_in_sector(sector, when) or [])
    except Exception as error:  # xtquant raises bare Exception
        log.error("sector %s: %s", sector, error)
        return []
