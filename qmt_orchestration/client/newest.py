"""The newest tick of symbols: most lie in the last minutes before the newest tick of all, the rest further back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.client import reading
from qmt_orchestration.client.sql import load_sql
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.settings import Settings, get_settings

DEFAULT_SYMBOL: Final = "000001.SZ"  # 平安银行: what the user's page answers when nothing is asked
#: How far back each look goes, milliseconds; after these the whole day, then all days.
_LOOKS_MS: Final = (3 * 60_000, 35 * 60_000)
_BOOK: Final = {"ask": "askPrice", "ask_vol": "askVol", "bid": "bidPrice", "bid_vol": "bidVol"}

Ask = Callable[[str, Mapping[str, Any]], pa.Table]  # the answer of a statement of ours


@dataclass
class _Market:
    """What the last look at the whole market found; the next one begins where it ended."""

    day: date
    until_ms: int
    ticks: pa.Table | None


_markets: dict[tuple[Any, ...], _Market] = {}
_lock = threading.Lock()


def newest_tick(clickhouse: Any, symbol: str) -> dict[str, Any] | None:
    """Newest tick of *symbol* over a client of ClickHouse, None if it never sent one.

    ``symbol, time_ms`` (epoch ms), ``price, open, high, low, pre_close`` (yuan), ``vol`` (shares of the day),
    ``amount`` (yuan), ``ask, ask_vol, bid, bid_vol`` (5 levels, lots), ``change`` (yuan) and ``change_percent`` to the
    previous close.
    """

    def ask(query: str, parameters: Mapping[str, Any]) -> pa.Table:
        return clickhouse.query_arrow(load_sql(query), parameters=dict(parameters))

    found = _of_symbols(ask, [symbol], _until(ask), book=True)
    if found is None or not found.num_rows:
        return None
    tick = found.to_pylist()[0]
    price, pre_close = tick["lastPrice"], tick["lastClose"]
    change = price - pre_close if price and pre_close else 0.0
    return {
        "symbol": symbol,
        "time_ms": to_ms(tick["time"]),
        "price": round(price, 4),
        **{name: round(tick[name], 4) for name in ("open", "high", "low", "amount")},
        "pre_close": pre_close,
        "vol": tick["total_volume"],
        **{name: tick[field][:5] for name, field in _BOOK.items()},
        "change": round(change, 4),
        "change_percent": round(100 * change / pre_close, 3) if pre_close else 0.0,
    }


def newest_ticks(settings: Settings | None, symbols: Sequence[str], *, book: bool) -> pa.Table:
    """The newest tick of *symbols* wherever it lies; without any, of all on the newest day with ticks.

    Columns of ``newest_ticks.sql``, in no order; without *book* its lists are empty, which costs a fraction.
    """
    ask = partial(reading.table, settings)
    until = _until(ask)
    found = _of_symbols(ask, symbols, until, book=book) if symbols else _of_market(settings, ask, until, book=book)
    return _look(ask, 0, 0, ["-"], book=book) if found is None else found


def _until(ask: Ask) -> int:
    """Time of the newest tick of all, epoch ms; 0 when there is none."""
    return int(ask("ticks_span", {}).column(1)[0].as_py())


def _of_symbols(ask: Ask, symbols: Sequence[str], until: int, *, book: bool) -> pa.Table | None:
    found: pa.Table | None = None
    missing = list(symbols)
    midnight = to_ms(at(from_ms(until).date(), 0))
    for since in (*(until - look for look in _LOOKS_MS), midnight, 0):
        if not missing or not until:
            break
        found = _newer(found, _look(ask, since, until, missing, book=book))
        seen = set(found.column("symbol").to_pylist())
        missing = [symbol for symbol in missing if symbol not in seen]
    return found


def _of_market(settings: Settings | None, ask: Ask, until: int, *, book: bool) -> pa.Table | None:
    if not until:
        return None
    chosen = settings or get_settings()
    key = (chosen.clickhouse_url, str(chosen.data_dir), chosen.clickhouse_database, book)
    day = from_ms(until).date()
    with _lock:
        kept = _markets.get(key)
    if kept is None or kept.day != day or kept.until_ms > until:
        kept = _Market(day, to_ms(at(day, 0)) + _LOOKS_MS[0], None)
    found = _newer(kept.ticks, _look(ask, min(until, kept.until_ms) - _LOOKS_MS[0], until, [], book=book))
    with _lock:
        _markets[key] = _Market(day, until, found)
    return found


def _newer(old: pa.Table | None, new: pa.Table) -> pa.Table:
    """*new*, and the rows of *old* of other symbols."""
    if old is None:
        return new
    others = pc.invert(pc.is_in(old.column("symbol"), value_set=new.column("symbol").combine_chunks()))
    return pa.concat_tables([old.filter(others), new])


def _look(ask: Ask, since: int, until: int, symbols: Sequence[str], *, book: bool) -> pa.Table:
    wanted = {"since": since, "until": until, "symbols": list(symbols), "book": int(book)}
    return ask("newest_ticks", wanted)
