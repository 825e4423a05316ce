"""The warehouse as vn.py's database and datafeed (vn.py 4.5): reading is whole, writing is refused.

Settings in vn.py's ``vt_setting.json``: ``database.name`` and ``datafeed.name`` are ``qmt_orchestration``; with
``qmt_orchestration.volume`` as ``lots`` volumes are in 手 instead of shares. Which system is read is set by this
project's own settings (``QMT_CLICKHOUSE_URL``, ``QMT_DATA_DIR``).

Bars carry the start of their window, in vn.py's time zone (``database.timezone``). Needs the package vnpy.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NoReturn

from vnpy.trader.constant import Exchange, Interval
from vnpy.trader.database import DB_TZ, BarOverview, BaseDatabase, TickOverview
from vnpy.trader.datafeed import BaseDatafeed
from vnpy.trader.object import BarData, HistoryRequest, TickData
from vnpy.trader.setting import SETTINGS

from qmt_orchestration.client import reading
from qmt_orchestration.client.errors import QueryError, WarehouseAway
from qmt_orchestration.client.symbols import lot_size_of
from qmt_orchestration.export.start_labels import start_bars
from qmt_orchestration.market.sessions import from_ms, to_ms

_MARKETS: Final = {Exchange.SSE: "SH", Exchange.SZSE: "SZ", Exchange.BSE: "BJ"}
_EXCHANGES: Final = {market: exchange for exchange, market in _MARKETS.items()}
_PERIODS: Final = {Interval.MINUTE: "1m", Interval.HOUR: "60m", Interval.DAILY: "1d", Interval.WEEKLY: "1w"}
_VOLUMES: Final = ("shares", "lots")
_SETTING: Final = "qmt_orchestration.volume"


class ReadOnly(RuntimeError):
    """Something was to be written into the warehouse through vn.py."""


class Database(BaseDatabase):  # type: ignore[misc]
    """vn.py's database over the warehouse."""

    def load_bar_data(
        self, symbol: str, exchange: Exchange, interval: Interval, start: datetime, end: datetime
    ) -> list[BarData]:
        """Bars whose start lies in [start, end]; times without a zone are vn.py's (``database.timezone``)."""
        return _bars(symbol, exchange, interval, start, end)

    def load_tick_data(self, symbol: str, exchange: Exchange, start: datetime, end: datetime) -> list[TickData]:
        """Ticks in [start, end], without withdrawn ones."""
        return _ticks(symbol, exchange, start, end)

    def get_bar_overview(self) -> list[BarOverview]:
        """Count, first and last bar of each symbol, of minutes and days."""
        out = []
        for name, minutes, count, first, last in reading.rows(None, "bar_overview"):
            interval = Interval.MINUTE if minutes else Interval.DAILY
            out.append(BarOverview(*_vt(name), interval, count, _local(first * 1000), _local(last * 1000)))
        return out

    def get_tick_overview(self) -> list[TickOverview]:
        """Count, first and last tick of each symbol."""
        return [
            TickOverview(*_vt(name), count, _local(first), _local(last))
            for name, count, first, last in reading.rows(None, "tick_overview")
        ]

    def save_bar_data(self, bars: list[BarData], stream: bool = False) -> bool:
        """Raises `ReadOnly`."""
        _refuse("save_bar_data")

    def save_tick_data(self, ticks: list[TickData], stream: bool = False) -> bool:
        """Raises `ReadOnly`."""
        _refuse("save_tick_data")

    def delete_bar_data(self, symbol: str, exchange: Exchange, interval: Interval) -> int:
        """Raises `ReadOnly`."""
        _refuse("delete_bar_data")

    def delete_tick_data(self, symbol: str, exchange: Exchange) -> int:
        """Raises `ReadOnly`."""
        _refuse("delete_tick_data")


class Datafeed(BaseDatafeed):  # type: ignore[misc]
    """vn.py's datafeed over the warehouse."""

    def init(self, output: Callable[[str], Any] = print) -> bool:
        """Whether a warehouse answers; *output* receives the reason if none does."""
        try:
            reading.rows(None, "ticks_span")
        except WarehouseAway as error:
            output(str(error))
            return False
        return True

    def query_bar_history(self, req: HistoryRequest, output: Callable[[str], Any] = print) -> list[BarData]:
        """Bars whose start lies in the request's range; *output* receives the reason if there are none."""
        try:
            return _bars(req.symbol, req.exchange, req.interval or Interval.DAILY, req.start, req.end)
        except (QueryError, WarehouseAway) as error:
            output(str(error))
            return []

    def query_tick_history(self, req: HistoryRequest, output: Callable[[str], Any] = print) -> list[TickData]:
        """Ticks of the request's range; *output* receives the reason if there are none."""
        try:
            return _ticks(req.symbol, req.exchange, req.start, req.end)
        except (QueryError, WarehouseAway) as error:
            output(str(error))
            return []


def _bars(symbol: str, exchange: Exchange, interval: Interval, start: datetime, end: datetime | None) -> list[BarData]:
    if interval not in _PERIODS:
        raise QueryError(f"expected an interval of {', '.join(i.name for i in _PERIODS)}, found {interval!r}")
    name = _name(symbol, exchange)
    unit = _unit(name)
    return [
        BarData(
            gateway_name="DB",
            symbol=symbol,
            exchange=exchange,
            datetime=bar.start.astimezone(DB_TZ),
            interval=interval,
            volume=bar.vol / unit,
            turnover=bar.amount,
            open_price=bar.open,
            high_price=bar.high,
            low_price=bar.low,
            close_price=bar.close,
        )
        for bar in start_bars(None, name, _PERIODS[interval], _aware(start), _aware(end))
    ]


def _ticks(symbol: str, exchange: Exchange, start: datetime, end: datetime | None) -> list[TickData]:
    name = _name(symbol, exchange)
    unit = _unit(name)
    until = _aware(end) or datetime.now(DB_TZ)
    parameters = {"symbols": [name], "first": to_ms(_aware(start) or until), "last": to_ms(until)}
    found = reading.table(None, "ticks_between", parameters).to_pylist()
    out = []
    for row in found:
        tick = TickData(
            gateway_name="DB",
            symbol=symbol,
            exchange=exchange,
            datetime=row["time"].astimezone(DB_TZ),
            volume=row["total_volume"] / unit,
            turnover=row["amount"],
            last_price=row["lastPrice"],
            open_price=row["open"],
            high_price=row["high"],
            low_price=row["low"],
            pre_close=row["lastClose"],
            localtime=row["received_at"].astimezone(DB_TZ),
        )
        lots = lot_size_of(name) / unit
        for side, prices, sizes in (("ask", row["askPrice"], row["askVol"]), ("bid", row["bidPrice"], row["bidVol"])):
            for level, (price, size) in enumerate(zip(prices[:5], sizes[:5], strict=True), 1):
                setattr(tick, f"{side}_price_{level}", price)
                setattr(tick, f"{side}_volume_{level}", size * lots)
        out.append(tick)
    return out


def _unit(name: str) -> int:
    """Units of the warehouse's volume per unit of vn.py's."""
    chosen = SETTINGS.get(_SETTING, "shares")
    if chosen not in _VOLUMES:
        raise QueryError(f"expected {_SETTING} of {', '.join(_VOLUMES)} in vt_setting.json, found {chosen!r}")
    return lot_size_of(name) if chosen == "lots" else 1


def _name(symbol: str, exchange: Exchange) -> str:
    if exchange not in _MARKETS:
        known = ", ".join(e.value for e in _MARKETS)
        raise QueryError(f"expected an exchange of {known}, found {getattr(exchange, 'value', exchange)}")
    return f"{symbol}.{_MARKETS[exchange]}"


def _vt(name: str) -> tuple[str, Exchange]:
    code, _, market = name.partition(".")
    return code, _EXCHANGES[market]


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=DB_TZ) if moment is not None and moment.tzinfo is None else moment


def _local(ms: int) -> datetime:
    return from_ms(ms).astimezone(DB_TZ)


def _refuse(method: str) -> NoReturn:
    raise ReadOnly(f"{method}: the warehouse is filled by its own feed and backfills; vn.py only reads it")
