"""The query API: bars, ticks, quotes, the whole market's snapshot, instruments, factors, the calendar.

    from qmt_orchestration.client import bars, quotes, snapshot
    day = bars("600519", "2025-06-05", "2025-06-05", "5m")
    gainers = snapshot().nlargest(10, "change_percent")

Every answer is a pandas DataFrame; ``as_="arrow"`` gives a pyarrow Table, ``as_="polars"`` a polars one. An answer
without rows has its columns. Symbols and times are accepted as people write them (`symbols`, `moments`). Every function
raises a `QueryError` that says what is wrong with the question, `WarehouseAway` or `StreamAway` with what to start.
*settings*: of another system than the environment's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import date
from typing import Any, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.client import adjust as adjustment
from qmt_orchestration.client import reading, sectors
from qmt_orchestration.client.bar_queries import period_of, read_bars, refuse_outside, require_stored
from qmt_orchestration.client.errors import BadTime, FutureRange, QueryError, UnknownField, UnknownSector, UnknownSymbol
from qmt_orchestration.client.moments import Moment, span
from qmt_orchestration.client.newest import newest_ticks
from qmt_orchestration.client.symbols import nearest, normalize_all
from qmt_orchestration.market import calendar as trading_calendar
from qmt_orchestration.settings import Settings, get_settings

As = Literal["pandas", "arrow", "polars"]
Symbols = str | Iterable[str] | None
BAR_COLUMNS: Final = [
    "symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks", "quality_score",
]  # fmt: skip
_KNOWN_SECONDS: Final = 300.0
_known: dict[tuple[str, ...], tuple[float, tuple[str, ...]]] = {}
_lock = threading.Lock()


def bars(
    symbols: Symbols = None,
    start: Moment = None,
    end: Moment = None,
    period: str = "1m",
    adjust: str | None = None,
    *,
    as_: As = "pandas",
    settings: Settings | None = None,
) -> Any:
    """Bars with start <= frame <= end, ordered by symbol and frame. *symbols*: one, several, None = the whole market.

    *period*: 1m, any Nm up to 240m (60m = 1h), 1d, 1w, 1mo. *adjust*: front, back, front_ratio, back_ratio
    (`adjust`), None = prices as traded. Columns: symbol, frame (end label, Asia/Shanghai), open, high, low, close, vol
    (shares), amount (yuan), source (live, history, filled), ticks, quality_score. Raises `UnknownPeriod`,
    `UnknownAdjustment`, `UnknownSymbol`, `NoDataInRange` and the errors of `moments` and `symbols`. The daily
    bar of the running day is the day so far, quality_score at most 0.5.
    """
    _check_form(as_)
    name, how, within = period_of(period), adjustment.check(adjust), span(start, end)
    wanted = _require(settings, symbols)
    found = read_bars(settings, wanted, within, name, how, so_far=True)
    if not found.num_rows:
        require_stored(settings, within, name)
    return _as(found.select(BAR_COLUMNS), as_)


def ticks(
    symbols: str | Iterable[str],
    start: Moment,
    end: Moment = None,
    *,
    fields: Iterable[str] | None = None,
    as_: As = "pandas",
    settings: Settings | None = None,
) -> Any:
    """Ticks with start <= time <= end (None: the whole day of *start*), ordered by symbol and time.

    Columns: symbol, time (Asia/Shanghai), the terminal's fields (`market.schema`), total_volume (the day's cumulative
    volume in the instrument's unit), received_at, flags, quality_score; *fields* chooses some. Withdrawn ticks are left
    out.
    """
    _check_form(as_)
    within = span(start, end if end is not None else span(start, None).first_day)
    wanted = _require(settings, symbols)
    if not wanted:
        raise QueryError("ticks of the whole market are too many for one answer: name symbols, or read TickConsumer")
    parameters = {"symbols": wanted, "first": within.first_ms, "last": within.last_ms}
    found = reading.table(settings, "ticks_between", parameters)
    if not found.num_rows:
        first, last = reading.rows(settings, "ticks_span")[0]
        refuse_outside(settings, within, first, last, "ticks")
    if fields is not None:
        asked = [str(name) for name in fields] if isinstance(fields, Iterable) else [str(fields)]
        chosen = ["symbol", "time", *(name for name in asked if name not in ("symbol", "time"))]
        unknown = [name for name in chosen if name not in found.column_names]
        if unknown:
            raise UnknownField(f"expected fields of {', '.join(found.column_names)}, found {', '.join(unknown)}")
        found = found.select(chosen)
    return _as(found, as_)


def quotes(symbols: str | Iterable[str], *, as_: As = "pandas", settings: Settings | None = None) -> Any:
    """The newest price of each symbol, in the order given; a symbol that never sent a tick is left out.

    Columns: symbol, time (Asia/Shanghai), price (yuan; 0 = not traded yet today), change (yuan) and change_percent to
    pre_close, open, high, low, pre_close, vol (shares of the day), amount (yuan), phase (the terminal's trading
    phase), ask1, ask1_vol, bid1, bid1_vol (lots; 0 = no order).
    """
    _check_form(as_)
    wanted = _require(settings, symbols)
    if not wanted:
        raise QueryError("expected symbols, found None: snapshot() gives the whole market")
    newest = newest_ticks(settings, wanted, book=True)
    place = pc.index_in(newest.column("symbol"), value_set=pa.array(wanted))
    newest = newest.take(pc.sort_indices(place))
    return _as(pa.table({**_prices(newest), **_best(newest)}), as_)


def snapshot(*, as_: As = "pandas", settings: Settings | None = None) -> Any:
    """The newest price of every symbol of the newest day with ticks, by symbol; columns of `quotes` but the book."""
    _check_form(as_)
    return _as(pa.table(_prices(newest_ticks(settings, [], book=False))), as_)


def instruments(
    symbols: Symbols = None, day: Moment = None, *, as_: As = "pandas", settings: Settings | None = None
) -> Any:
    """The instrument list of *day* (None = the newest), else the newest before it, else the oldest there is.

    Columns: ``day`` (of that list), symbol, name, board, … as in table ``instruments``.
    """
    _check_form(as_)
    wanted = _require(settings, symbols)
    on = date(2149, 6, 6) if day is None or day == "" else span(day, None).first_day
    found = reading.table(settings, "instruments_of", {"day": on, "symbols": wanted})
    names = [name for name in found.column_names if name != "fetched_at"]
    columns = [
        found.column(name).cast(pa.string()) if pa.types.is_dictionary(found.schema.field(name).type)
        else found.column(name)
        for name in names
    ]  # fmt: skip
    columns[names.index("day")] = _dates(columns[names.index("day")])
    return _as(pa.table(columns, names=names), as_)


def members(sector: str, day: Moment = None, *, settings: Settings | None = None) -> list[str]:
    """Symbols of a sector on *day* (None = now): who was in 沪深300 that day. Raises `UnknownSector`.

    Of the newest list of that day or before it: sectors of QMT_MEMBER_SECTORS are stored every trading day. Those of
    exchanges and boards are known without that, by the instrument list.
    """
    on = None if day is None or day == "" else span(day, None).first_day
    found = sectors.members_of(settings, sector, on)
    if found is None:
        raise UnknownSector(sectors.missing(settings, sector))
    return found


def trading_days(start: Moment, end: Moment) -> list[date]:
    """Trading days in [start, end], ascending. Raises `FutureRange` past the year or so that the calendar knows."""
    within = span(start, end)
    _check_known(within.first_day if end in (None, "") else within.last_day)
    return trading_calendar.trading_days(within.first_day, within.last_day)


def is_trading_day(day: Moment) -> bool:
    """Whether the exchanges trade on *day*. Raises `FutureRange` as `trading_days`."""
    if day is None or day == "":
        raise BadTime(f"expected a day like 20250605, found {day!r}")
    on = span(day, None).first_day
    _check_known(on)
    return trading_calendar.is_trading_day(on)


def _check_known(day: date) -> None:
    known = trading_calendar.horizon()
    if day.year > known.year:
        raise FutureRange(f"the calendar is known to {known}, found {day}: the exchanges announce a year at its end")


def factors(
    symbols: Symbols = None,
    start: Moment = None,
    end: Moment = None,
    *,
    as_: As = "pandas",
    settings: Settings | None = None,
) -> Any:
    """Dividend events with start <= ex_date <= end: symbol, ex_date, interest (yuan a share), stock_bonus, stock_gift,
    allot_num (shares a share), allot_price (yuan), dr (previous close ÷ ex-price)."""
    _check_form(as_)
    within = span(start, end)
    wanted = _require(settings, symbols)
    parameters = {"symbols": wanted, "first": within.first_day, "last": within.last_day}
    found = reading.table(settings, "factors_of", parameters)
    return _as(found.set_column(1, "ex_date", _dates(found.column("ex_date"))), as_)


def known_symbols(settings: Settings | None = None) -> tuple[str, ...]:
    """Every symbol of which the warehouse holds something, sorted; remembered for five minutes."""
    chosen = settings or get_settings()
    key = (chosen.clickhouse_url, str(chosen.data_dir), chosen.clickhouse_database)
    with _lock:
        kept = _known.get(key)
    if kept is None or time.monotonic() - kept[0] > _KNOWN_SECONDS:
        kept = (time.monotonic(), tuple(row[0] for row in reading.rows(chosen, "known_symbols")))
        with _lock:
            _known[key] = kept
    return kept[1]


def forget_known_symbols() -> None:
    """Ask for the list of symbols again at the next query."""
    with _lock:
        _known.clear()


def _require(settings: Settings | None, symbols: Symbols) -> list[str]:
    """Normalized symbols, each known to the warehouse; [] for None. Raises `UnknownSymbol`."""
    if symbols is None:
        return []
    wanted = normalize_all(symbols)
    if not wanted:
        raise QueryError("expected at least one symbol, found none: None asks for the whole market")
    unknown = sorted(set(wanted) - set(known_symbols(settings)))
    if unknown:
        forget_known_symbols()  # listed since it was asked for, or known by old ticks alone
        ticked = {row[0] for row in reading.rows(settings, "symbols_with_ticks", {"symbols": unknown})}
        for symbol in unknown:
            if symbol not in (known := known_symbols(settings)) and symbol not in ticked:
                close = nearest(symbol, known)
                hint = f": the nearest are {', '.join(close)}" if close else "" if known else ", nor of any other"
                raise UnknownSymbol(f"the warehouse holds nothing of {symbol}{hint}", close)
    return wanted


def _prices(newest: pa.Table) -> dict[str, Any]:
    price, pre_close = (newest.column(name).to_numpy() for name in ("lastPrice", "lastClose"))
    both = (price > 0) & (pre_close > 0)
    change = np.where(both, price - pre_close, 0.0)
    return {
        "symbol": newest.column("symbol"),
        "time": newest.column("time"),
        "price": newest.column("lastPrice"),
        "change": np.round(change, 4),
        "change_percent": np.round(100 * change / np.where(both, pre_close, 1.0), 3),
        **{name: newest.column(name) for name in ("open", "high", "low")},
        "pre_close": newest.column("lastClose"),
        "vol": newest.column("total_volume"),
        "amount": newest.column("amount"),
        "phase": newest.column("openInt"),
    }


def _best(newest: pa.Table) -> dict[str, Any]:
    """The first level of the book."""
    names = {"ask1": "askPrice", "ask1_vol": "askVol", "bid1": "bidPrice", "bid1_vol": "bidVol"}
    out = {}
    for name, levels in names.items():
        kind = newest.schema.field(levels).type.value_type
        out[name] = pa.array([level[0] if level else 0 for level in newest.column(levels).to_pylist()], kind)
    return out


def _dates(column: Any) -> Any:
    """ClickHouse's days (a number of 16 bits in Arrow) as dates."""
    return column if pa.types.is_date(column.type) else column.cast(pa.int32()).cast(pa.date32())


def _check_form(as_: str) -> None:
    if as_ not in ("pandas", "arrow", "polars"):
        raise QueryError(f"expected as_ of pandas, arrow, polars, found {as_!r}")


def _as(found: pa.Table, as_: As) -> Any:
    if as_ == "arrow":
        return found
    if as_ == "pandas":
        return found.to_pandas()
    try:
        import polars
    except ImportError:
        raise ImportError('as_="polars" needs the package polars: pip install polars') from None
    return cast(Any, polars).from_arrow(found)
