"""The newest tick of symbols: most lie in the last minutes before the newest tick of all, the rest further back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, Final

from qmt_orchestration.client import reading
from qmt_orchestration.client.sql import load_sql
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings, get_settings

DEFAULT_SYMBOL: Final = "000001.SZ"  # 平安银行: what the user's page answers when nothing is asked
#: How far back each look goes, milliseconds; after these the whole day, then all days.
_LOOKS_MS: Final = (3 * 60_000, 35 * 60_000)
#: What `newest_ticks.sql` gives of each tick.
FIELDS: Final = (
    "time", "lastPrice", "open", "high", "low", "lastClose", "total_volume", "amount", "volume", "pvolume",
    "stockStatus", "openInt", "transactionNum", "askPrice", "bidPrice", "askVol", "bidVol",
)  # fmt: skip

Tick = tuple[Any, ...]
Ask = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]  # the rows of a statement of ours


@dataclass
class _Market:
    """What the last look at the whole market found; the next one begins where it ended."""

    day: date
    until_ms: int
    ticks: dict[str, Tick] = field(default_factory=dict)


_markets: dict[tuple[str, ...], _Market] = {}
_lock = threading.Lock()


def newest_tick(clickhouse: Any, symbol: str) -> dict[str, Any] | None:
    """Newest tick of *symbol* over a client of ClickHouse, None if it never sent one.

    ``symbol, time_ms`` (epoch ms), ``price, open, high, low, pre_close`` (yuan), ``vol`` (shares of the day),
    ``amount`` (yuan), ``ask, ask_vol, bid, bid_vol`` (5 levels, lots), ``change`` (yuan) and ``change_percent`` to the
    previous close.
    """

    def ask(query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return list(clickhouse.query(load_sql(query), parameters=dict(parameters)).result_rows)

    found = _of_symbols(ask, [symbol], _until(ask))
    if not found:
        return None
    tick = dict(zip(FIELDS, found[symbol], strict=True))
    price, pre_close = tick["lastPrice"], tick["lastClose"]
    change = price - pre_close if price and pre_close else 0.0
    book = {name: list(tick[field])[:5] for name, field in _BOOK.items()}
    return {
        "symbol": symbol,
        "time_ms": to_ms(tick["time"]),
        "price": price,
        **{name: tick[name] for name in ("open", "high", "low", "amount")},
        "pre_close": pre_close,
        "vol": tick["total_volume"],
        **book,
        "change": round(change, 4),
        "change_percent": round(100 * change / pre_close, 3) if pre_close else 0.0,
    }


_BOOK: Final = {"ask": "askPrice", "ask_vol": "askVol", "bid": "bidPrice", "bid_vol": "bidVol"}


def newest_ticks(settings: Settings | None, symbols: Sequence[str]) -> list[tuple[str, Tick]]:
    """(symbol, newest tick) of *symbols* wherever it lies; without any, of all on the newest day with ticks.

    A tick has `FIELDS`.
    """
    ask = partial(reading.rows, settings)
    until = _until(ask)
    if not until:
        return []
    return list((_of_symbols(ask, symbols, until) if symbols else _of_market(settings, ask, until)).items())


def _until(ask: Ask) -> int:
    """Time of the newest tick of all, epoch ms; 0 when there is none."""
    return int(ask("ticks_span", {})[0][1])


def _of_symbols(ask: Ask, symbols: Sequence[str], until: int) -> dict[str, Tick]:
    found: dict[str, Tick] = {}
    midnight = to_ms(at(from_ms(until).date(), 0))
    for since in (*(until - look for look in _LOOKS_MS), midnight, 0):
        missing = [symbol for symbol in symbols if symbol not in found]
        if not missing or not until:
            break
        found.update(_look(ask, since, until, missing))
    return found


def _of_market(settings: Settings | None, ask: Ask, until: int) -> dict[str, Tick]:
    chosen = settings or get_settings()
    key = (chosen.clickhouse_url, str(chosen.data_dir), chosen.clickhouse_database)
    day = from_ms(until).date()
    with _lock:
        kept = _markets.get(key)
    if kept is None or kept.day != day or kept.until_ms > until:
        kept = _Market(day, to_ms(at(day, 0)) + _LOOKS_MS[0])
    found = {**kept.ticks, **_look(ask, min(until, kept.until_ms) - _LOOKS_MS[0], until, [])}
    with _lock:
        _markets[key] = _Market(day, until, found)
    return found


def _look(ask: Ask, since: int, until: int, symbols: Sequence[str]) -> dict[str, Tick]:
    rows = ask("newest_ticks", {"since": since, "until": until, "symbols": list(symbols)})
    return {row[0]: row[1] for row in rows}
