"""Reference data of the simulated market: instrument details and dividend factors, in QMT's shape."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Any, Final

from qmt_orchestration.market.calendar import is_trading_day, previous_trading_day, trading_days
from qmt_orchestration.market.instruments import instrument_of
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.simulator.kinds import COUNTS
from qmt_orchestration.simulator.market import MarketDay, ex_dates
from qmt_orchestration.simulator.universe import name_of, universe

_ALL: Final = 7000


@lru_cache(maxsize=2)
def _market(seed: int, day: date) -> dict[str, tuple[float, float, float, bool]]:
    """(last close, up limit, down limit, suspended) of every symbol that can be simulated."""
    members = universe(_ALL, tuple(kind.value for kind in COUNTS)).all
    plan = MarketDay(seed, day, members, reference_only=True)
    scale, limited = plan.traits.scale, ~plan.traits.plain  # an index and a repo have no limits
    columns = (plan.last_close / scale, plan.up / scale * limited, plan.down / scale * limited, plan.suspended)
    return dict(zip(members, zip(*(c.tolist() for c in columns), strict=True), strict=True))


def instrument(seed: int, day: date, symbol: str, recorded_closes: dict[str, float] | None) -> dict[str, Any]:
    """An instrument's detail on *day* (or the last trading day before it) with QMT's field names.

    With *recorded_closes* (a replay) only the last close is known: limits are 0, which means unknown.
    """
    if recorded_closes is not None:
        close, up, down, suspended = recorded_closes[symbol], 0.0, 0.0, False
    else:
        close, up, down, suspended = _market(seed, day if is_trading_day(day) else previous_trading_day(day))[symbol]
    code, market = symbol.split(".")
    return {
        "ExchangeID": market,
        "InstrumentID": code,
        "InstrumentName": name_of(symbol),
        "ProductID": "",
        "ProductName": "",
        "ProductType": "",
        "ExchangeCode": code,
        "UniCode": code,
        "CreateDate": "0",
        "OpenDate": "20040102",
        "ExpireDate": "99999999",
        "TradingDay": day.strftime("%Y%m%d"),
        "PreClose": close,
        "SettlementPrice": close,
        "UpStopPrice": up,
        "DownStopPrice": down,
        "FloatVolumn": 1e9,
        "TotalVolumn": 1.2e9,
        "PriceTick": instrument_of(symbol).price_tick,
        "VolumeMultiple": 1,
        "MainContract": 0,
        "LastVolume": 0,
        "InstrumentStatus": 1 if suspended else 0,
        "IsTrading": not suspended,
        "IsRecent": False,
        "ExtendInfo": {},
    }


def dividends(seed: int, symbol: str, start: str, end: str, today: date) -> dict[str, dict[str, float]]:
    """Dividend factors with ex-dates in [start, end] (``YYYYMMDD``, empty = the last year to today).

    ``interest`` is yuan a share, ``dr`` the factor: close before / (close before - interest).
    """
    if not start and not end:  # what a first start asks for, of the whole market
        return _last_year(seed, today).get(symbol, {})
    first = date(int(start[:4]), int(start[4:6]), int(start[6:8])) if start else today - timedelta(days=365)
    last = date(int(end[:4]), int(end[4:6]), int(end[6:8])) if end else today
    return _dividends(seed, (symbol,), first, min(last, today)).get(symbol, {})


@lru_cache(maxsize=2)
def _last_year(seed: int, today: date) -> dict[str, dict[str, dict[str, float]]]:
    return _dividends(seed, universe(_ALL).all, today - timedelta(days=365), today)


def _dividends(seed: int, symbols: tuple[str, ...], first: date, last: date) -> dict[str, dict[str, dict[str, float]]]:
    """By symbol and ex-date. All symbols of a day at once: deriving one alone takes milliseconds."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for day, due in ex_dates(seed, symbols, trading_days(max(first, date(2005, 3, 1)), last)):
        plan = MarketDay(seed, day, due, reference_only=True)
        columns = (plan.previous_close / plan.traits.scale, plan.dividend / plan.traits.scale)
        for symbol, close, interest in zip(due, *(c.tolist() for c in columns), strict=True):
            values = dict.fromkeys(("stockBonus", "stockGift", "allotNum", "allotPrice", "gugai"), 0.0)
            values |= {"time": float(to_ms(at(day, 0))), "interest": interest, "dr": close / (close - interest)}
            out.setdefault(symbol, {})[day.strftime("%Y%m%d")] = values
    return out
