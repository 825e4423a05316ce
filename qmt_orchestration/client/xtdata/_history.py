"""Bars and ticks of the past: get_market_data_ex, get_market_data, get_local_data, get_full_kline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from qmt_orchestration.client import adjust, reading
from qmt_orchestration.client.adjust import groups
from qmt_orchestration.client.bar_queries import PRICES, events_of, local_days
from qmt_orchestration.client.moments import EARLIEST_MS, Moment, Range, span
from qmt_orchestration.client.xtdata import _shared
from qmt_orchestration.client.xtdata._columns import Bars, days_back, is_intraday, last_of_each, load, within
from qmt_orchestration.client.xtdata._shared import BAR_FIELDS, TICK_FIELDS, UNSERVED_BAR_FIELDS, UNSERVED_TICK_FIELDS
from qmt_orchestration.market.sessions import at, from_ms, to_ms

_DTYPES: Final = {"time": "<i8", "volume": "<i8", "suspendFlag": "<i4"}
_TICK_DTYPES: Final = {
    "time": "<i8", "volume": "<i8", "pvolume": "<i8", "stockStatus": "<i4", "openInt": "<i4", "transactionNum": "<i8",
    "askPrice": "O", "bidPrice": "O", "askVol": "O", "bidVol": "O",
}  # fmt: skip


def get_market_data_ex(
    field_list: Sequence[str] = (),
    stock_list: str | Sequence[str] = (),
    period: str = "1d",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = -1,
    dividend_type: str = "none",
    fill_data: bool = True,
) -> dict[str, Any]:
    """``{code: DataFrame}``: index text (``20250605093000``, daily ``20250605``), the columns asked for, in that order.

    [start_time, end_time] is closed; *count*: the last n of it, -1 all, 0 none. A code without data has an empty
    frame. volume in lots (手), amount in yuan, ``time`` epoch ms (Shanghai's midnight for 1d). *fill_data*: frames
    before a day's first trade and of suspended days are there at the previous close, with volume 0.
    """
    import pandas as pd

    name, codes = _shared.chosen_period(period), _shared.chosen_codes(stock_list)
    if name == "tick":
        ticks = _ticks(field_list, codes, span(start_time, end_time), _shared.chosen_count(count))
        return {
            code: pd.DataFrame(rows[fields], index=_labels(rows["time"], "%Y%m%d%H%M%S"))
            for code, (fields, rows) in ticks.items()
        }
    fields = _shared.chosen_fields(field_list, BAR_FIELDS, UNSERVED_BAR_FIELDS)
    bars = _bars(codes, name, span(start_time, end_time), _shared.chosen_count(count), dividend_type, fill_data)
    labels = _labels(bars.time, "%Y%m%d%H%M%S" if is_intraday(name) else "%Y%m%d")
    found = {bars.symbol[first]: (first, last) for first, last in groups(bars.symbol)}
    out = {}
    for code in codes:
        first, last = found.get(code, (0, 0))
        data = {f: getattr(bars, f)[first:last].astype(_DTYPES.get(f, "<f8")) for f in fields}
        out[code] = pd.DataFrame(data, index=labels[first:last], columns=fields)
    return out


def get_market_data(
    field_list: Sequence[str] = (),
    stock_list: str | Sequence[str] = (),
    period: str = "1d",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = -1,
    dividend_type: str = "none",
    fill_data: bool = True,
) -> dict[str, Any]:
    """``{field: DataFrame}``, codes × labels of all codes together; for ticks ``{code: record array}``.

    *fill_data*: where a code has no bar, prices are its previous close of the answer, volume and amount 0; else NaN.
    """
    import pandas as pd

    name, codes = _shared.chosen_period(period), _shared.chosen_codes(stock_list)
    if name == "tick":
        ticks = _ticks(field_list, codes, span(start_time, end_time), _shared.chosen_count(count))
        return {code: rows[fields] for code, (fields, rows) in ticks.items()}
    fields = _shared.chosen_fields(field_list, BAR_FIELDS, UNSERVED_BAR_FIELDS)
    bars = _bars(codes, name, span(start_time, end_time), _shared.chosen_count(count), dividend_type, fill_data)
    axis = np.unique(bars.time)
    column = np.searchsorted(axis, bars.time)
    place = {code: position for position, code in enumerate(codes)}
    row = np.array([place[code] for code in bars.symbol.tolist()], dtype=np.int64)
    labels = _labels(axis, "%Y%m%d%H%M%S" if is_intraday(name) else "%Y%m%d")
    close = _matrix(bars.close, row, column, len(codes), len(axis))
    missing = np.isnan(close)
    close = _carried(close) if fill_data else close
    out = {}
    for field in fields:
        values = _matrix(getattr(bars, field), row, column, len(codes), len(axis))
        if field == "time":
            values = np.broadcast_to(axis, values.shape)
        elif fill_data:
            values = np.where(missing, close if field in PRICES or field == "preClose" else 0.0, values)
        whole = field in _DTYPES and not np.isnan(values).any()
        out[field] = pd.DataFrame(values.astype(_DTYPES[field]) if whole else values, index=codes, columns=labels)
    return out


def get_local_data(
    field_list: Sequence[str] = (),
    stock_list: str | Sequence[str] = (),
    period: str = "1d",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = -1,
    dividend_type: str = "none",
    fill_data: bool = True,
    data_dir: Any = None,
) -> dict[str, Any]:
    """`get_market_data_ex`: what is served is local. *data_dir* names files of a terminal and is not used."""
    return get_market_data_ex(field_list, stock_list, period, start_time, end_time, count, dividend_type, fill_data)


def get_full_kline(
    field_list: Sequence[str] = (),
    stock_list: str | Sequence[str] = (),
    period: str = "1m",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = 1,
    dividend_type: str = "none",
    fill_data: bool = True,
) -> dict[str, Any]:
    """`get_market_data` of the newest day that has bars, up to its last closed minute."""
    newest = reading.rows(_shared.settings(), "bars_span", {"table": "bars_1m"})[0][1]
    asked = span(start_time, end_time)
    if not newest:
        return get_market_data(field_list, stock_list, period, count=0)
    midnight = to_ms(at(from_ms(newest * 1000).date(), 0))
    first, last = max(asked.first_ms, midnight), min(asked.last_ms, newest * 1000)
    return get_market_data(field_list, stock_list, period, first, max(last, first), count, dividend_type, fill_data)


def _bars(codes: list[str], period: str, wanted: Range, count: int, dividend_type: str, fill: bool) -> Bars:
    how = adjust.check(dividend_type)
    settings = _shared.settings()
    if count == 0 or not codes:
        return Bars.none()
    wanted = _known(wanted, period)
    if count > 0 and wanted.first_ms == EARLIEST_MS:
        near = Range(to_ms(at(days_back(wanted.last_day, count, period), 0)), wanted.last_ms)
        bars = last_of_each(within(load(settings, codes, period, near, fill=fill), period, near), count)
        rows = {bars.symbol[first]: last - first for first, last in groups(bars.symbol)}
        short = [code for code in codes if rows.get(code, 0) < count]
        if short:  # suspended for long, or listed lately
            rest = last_of_each(within(load(settings, short, period, wanted, fill=fill), period, wanted), count)
            bars = _joined(bars.take(~np.isin(bars.symbol.astype(str), short)), rest)
    else:
        bars = within(load(settings, codes, period, wanted, fill=fill), period, wanted)
        bars = last_of_each(bars, count) if count > 0 else bars
    if how == "none" or not len(bars.time):
        return bars
    prices = {name: getattr(bars, name) for name in (*PRICES, "preClose")}
    events = events_of(settings, codes)
    return bars.with_prices(adjust.adjust_prices(bars.symbol, local_days(bars.time), prices, events, how))


def _known(wanted: Range, period: str) -> Range:
    """*wanted* without what lies after the newest bar."""
    table = "bars_1m" if is_intraday(period) else "bars_1d"
    newest = reading.rows(_shared.settings(), "bars_span", {"table": table})[0][1] * 1000
    end_of_day = to_ms(at(from_ms(newest).date(), 24 * 60)) - 1
    return Range(wanted.first_ms, max(min(wanted.last_ms, end_of_day), wanted.first_ms))


def _joined(first: Bars, second: Bars) -> Bars:
    names = list(vars(first))
    both = Bars(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})
    return both.take(np.lexsort((both.time, both.symbol.astype(str))))


def _ticks(field_list: Sequence[str], codes: list[str], wanted: Range, count: int) -> dict[str, tuple[list[str], Any]]:
    """(fields asked for, record array of all served fields) by code."""
    fields = _shared.chosen_fields(field_list, TICK_FIELDS, UNSERVED_TICK_FIELDS)
    names = [name for name in TICK_FIELDS if name not in UNSERVED_TICK_FIELDS]
    dtype = [(name, _TICK_DTYPES.get(name, "<f8")) for name in names]
    rows: dict[str, list[Any]] = {code: [] for code in codes}
    if count != 0 and codes:
        parameters = {"symbols": codes, "first": wanted.first_ms, "last": wanted.last_ms}
        found = reading.table(_shared.settings(), "ticks_between", parameters)
        columns = [found.column("time").cast("int64").to_pylist(), *(found.column(n).to_pylist() for n in names[1:])]
        for symbol, row in zip(found.column("symbol").to_pylist(), zip(*columns, strict=True), strict=True):
            rows[symbol].append(row)
    chosen = {code: own[-count:] if count > 0 else own for code, own in rows.items()}
    return {code: (fields, np.array(own, dtype=dtype)) for code, own in chosen.items()}


def _matrix(values: Any, row: Any, column: Any, rows: int, columns: int) -> Any:
    out = np.full((rows, columns), np.nan)
    out[row, column] = values
    return out


def _carried(values: Any) -> Any:
    """NaN replaced by the last value before it in the row."""
    place = np.where(np.isnan(values), 0, np.arange(values.shape[1]))
    np.maximum.accumulate(place, axis=1, out=place)
    return values[np.arange(len(values))[:, None], place]


def _labels(time_ms: Any, form: str) -> list[str]:
    unique, inverse = np.unique(time_ms, return_inverse=True)
    texts = [from_ms(ms).strftime(form) for ms in unique.tolist()]
    return [texts[i] for i in inverse.tolist()]
