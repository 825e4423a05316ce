"""The newest tick of symbols: most lie in the last minutes before the newest tick of all, the rest further back.

A process keeps what it found of the whole market; for a minute the next question reads only what was stored since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
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
_MARKET_LOOK_MS: Final = 60_000  # the same for the whole market: the rest is asked for by name
_KEPT_SECONDS: Final = 60.0  # tables may be replaced under a process
_COMMIT_MICROS: Final = 20_000_000  # a row is visible this long after its `stored_at` at the latest
_BOOK: Final = {"ask": "askPrice", "ask_vol": "askVol", "bid": "bidPrice", "bid_vol": "bidVol"}

Ask = Callable[[str, Mapping[str, Any]], pa.Table]  # the answer of a statement of ours


@dataclass(frozen=True)
class _Market:
    """The newest ticks of a day, of all that was stored by *stored* (ClickHouse's time, epoch µs)."""

    day: date
    ticks: pa.Table
    stored: int
    looked: float  # when it was found from scratch, monotonic seconds


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

    found = _of_symbols(ask, [symbol], _until(ask), book=True).to_pylist()
    if not found:
        return None
    tick = found[0]
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
    """The newest tick of *symbols* wherever it lies; without any, of all on the newest day with ticks, by symbol.

    Columns of ``newest_ticks.sql``. Without *book* those from ``volume`` on may be 0 or empty, which costs a fraction.
    """
    ask = partial(reading.table, settings)
    return _of_symbols(ask, symbols, _until(ask), book=book) if symbols else _of_market(settings, ask, book=book)


def _until(ask: Ask) -> int:
    """Time of the newest tick of all, epoch ms; 0 when there is none."""
    return int(ask("ticks_span", {}).column(1)[0].as_py())


def _of_symbols(ask: Ask, symbols: Sequence[str], until: int, *, book: bool) -> pa.Table:
    found, missing = [], list(symbols)
    for since in (*(until - look for look in _LOOKS_MS), _midnight(until), 0):
        wanted = {"since": since, "until": until, "symbols": missing, "book": int(book)}
        found.append(ask("newest_ticks", wanted))
        seen = set(found[-1].column("symbol").to_pylist())
        missing = [symbol for symbol in missing if symbol not in seen]
        if not missing:
            break
    return pa.concat_tables(found)


def _of_market(settings: Settings | None, ask: Ask, *, book: bool) -> pa.Table:
    chosen = settings or get_settings()
    key = (chosen.clickhouse_url, str(chosen.data_dir), chosen.clickhouse_database, book)
    with _lock:
        kept = _markets.get(key)
    new = None
    if kept is not None and time.monotonic() - kept.looked < _KEPT_SECONDS:
        new = _stored(ask, to_ms(at(kept.day, 0)), kept.stored - _COMMIT_MICROS, book=book)
    if kept is None or new is None or (new.num_rows and _reached(new).date() != kept.day):
        looked, until = time.monotonic(), _until(ask)
        near = max(until - _MARKET_LOOK_MS, _midnight(until))
        new = _stored(ask, near, 0, book=book)
        rest = ask("symbols_before", {"since": near}).column("symbol").to_pylist()
        kept = _Market(from_ms(until).date(), _of_symbols(ask, rest, until, book=book), 0, looked)
    if new.num_rows:
        kept = _Market(kept.day, _newer(ask, kept, new, book=book), pc.max(new.column("asked")).as_py(), kept.looked)
    with _lock:
        _markets[key] = kept
    return kept.ticks


def _newer(ask: Ask, kept: _Market, new: pa.Table, *, book: bool) -> pa.Table:
    """The newest of each symbol of *kept* and of what was stored since, by symbol."""
    doubtful = new.filter(new.column("doubtful")).column("symbol")
    both = pa.concat_tables([new.select(kept.ticks.column_names), kept.ticks])
    if len(doubtful):
        again = _of_symbols(ask, doubtful.to_pylist(), to_ms(_reached(new)), book=book)
        today = pc.greater_equal(again.column("time").cast(pa.int64()), to_ms(at(kept.day, 0)))
        others = pc.invert(pc.is_in(both.column("symbol"), value_set=doubtful.combine_chunks()))
        both = pa.concat_tables([both.filter(others), again.filter(today)])
    both = both.sort_by([("symbol", "ascending"), ("time", "descending"), ("total_volume", "descending")])
    symbols = both.column("symbol").combine_chunks()
    return both.filter(pa.concat_arrays([pa.array([True]), pc.not_equal(symbols[1:], symbols[:-1])]))


def _reached(new: pa.Table) -> datetime:
    return from_ms(new.column("reached")[0].as_py())


def _midnight(ms: int) -> int:
    return to_ms(at(from_ms(ms).date(), 0))


def _stored(ask: Ask, since: int, stored: int, *, book: bool) -> pa.Table:
    return ask("newest_of_market", {"since": since, "stored": stored, "book": int(book)})
