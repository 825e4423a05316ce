"""Instruments, sectors, the calendar, dividends, and downloads: look whether it is there, else have it made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Final

from qmt_orchestration.client import dagster, reading, sectors
from qmt_orchestration.client.bar_queries import text
from qmt_orchestration.client.errors import BadTime, HistoryMissing, StreamAway, UnknownMarket
from qmt_orchestration.client.moments import EARLIEST_MS, LATEST_MS, Moment, span
from qmt_orchestration.client.symbols import MARKETS
from qmt_orchestration.client.xtdata import _shared
from qmt_orchestration.client.xtdata._columns import is_intraday
from qmt_orchestration.client.xtdata._shared import Partial
from qmt_orchestration.market import calendar
from qmt_orchestration.market.instruments import Kind, instrument_of
from qmt_orchestration.market.sessions import SHANGHAI, at, from_ms, to_ms
from qmt_orchestration.settings import Settings

_FIRST_CALENDAR_DAY: Final = date(2005, 1, 4)
_FIRST_HOLIDAY_YEAR: Final = 2015
_TYPES: Final = {
    Kind.STOCK: "stock", Kind.INDEX: "index", Kind.FUND: "fund", Kind.CONVERTIBLE: "bond",
    Kind.BOND: "bond", Kind.REPO: "repo",
}  # fmt: skip
#: Details that the instrument list holds where the terminal gave them: column and form.
_DETAILS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "OpenDate": ("open_date", lambda value: f"{_day(value):%Y%m%d}"),
    "ExpireDate": ("expire_date", lambda value: f"{_day(value):%Y%m%d}"),
    "FloatVolume": ("float_volume", float),
    "TotalVolume": ("issued_volume", float),
    "PriceTick": ("price_tick", float),
}
_LOOK_SECONDS: Final = 0.5
_STUCK_SECONDS: Final = 600.0  # a run that shows no new step for so long is given up
_FACTOR_COLUMNS: Final = ("interest", "stockBonus", "stockGift", "allotNum", "allotPrice", "dr")


def get_instrument_detail(stock_code: str, iscomplete: bool = False) -> dict[str, Any] | None:
    """What the newest instrument list holds of a code, under the terminal's names; None for an unknown code.

    Asking for a field that is not stored raises NotImplementedError, which names it (``.get`` gives None).
    """
    code = _shared.one_code(stock_code)
    found = reading.table(_shared.settings(), "instruments_of", {"day": date(2149, 6, 6), "symbols": [code]})
    if not found.num_rows:
        return None
    row = found.slice(0, 1).to_pylist()[0]
    number, _, market = code.partition(".")
    known = {name: form(row[column]) for name, (column, form) in _DETAILS.items() if row.get(column)}
    return Partial(
        ExchangeID=market,
        InstrumentID=number,
        InstrumentName=_plain(row["name"]),
        ExchangeCode=number,
        UniCode=number,
        TradingDay=f"{_day(row['day']):%Y%m%d}",
        PreClose=row["pre_close"],
        UpStopPrice=row["up_stop"],
        DownStopPrice=row["down_stop"],
        InstrumentStatus=int(row.get("suspended_days") or row["suspended"]),
        VolumeMultiple=1,
        **known,
    )


def get_instrument_detail_list(stock_list: Sequence[str], iscomplete: bool = False) -> dict[str, Any]:
    """``{code: get_instrument_detail(code)}``."""
    return {code: get_instrument_detail(code, iscomplete) for code in _shared.chosen_codes(stock_list)}


def get_instrument_type(stock_code: str, variety_list: Sequence[str] | None = None) -> dict[str, bool]:
    """``{"stock": True}``: the kinds a code belongs to (stock, index, fund, etf, bond, repo), by its number range.

    With *variety_list* each kind of it that exists, True or False; ``{}`` for a code of no range.
    """
    code = _shared.one_code(stock_code)
    found = instrument_of(code)
    if found.kind not in _TYPES:
        return {}
    own = {_TYPES[found.kind], *(("etf",) if found.board == "etf" else ())}
    known = {*_TYPES.values(), "etf"}
    return {name: name in own for name in variety_list or sorted(own) if name in known}


def get_sector_list() -> list[str]:
    """Names of the sectors that are served: those stored (QMT_MEMBER_SECTORS), those of exchanges and boards."""
    return list(sectors.known(_shared.settings()))


def get_stock_list_in_sector(sector_name: str, real_timetag: int | str = -1) -> list[str]:
    """Members of a sector, now or at a time (epoch ms or ``20250605``). NotImplementedError for a sector not served."""
    day = None if real_timetag in (-1, "") else span(real_timetag, None).first_day
    found = sectors.members_of(_shared.settings(), sector_name, day)
    if found is None:
        raise NotImplementedError(sectors.missing(_shared.settings(), sector_name))
    return found


def get_trading_dates(market: str, start_time: Moment = "", end_time: Moment = "", count: int = -1) -> list[int]:
    """Midnights (epoch ms, Shanghai) of the trading days in [start_time, end_time] up to the market's today."""
    count = _shared.chosen_count(count)
    days = _trading_days(market, start_time, end_time, reading.market_clock(_shared.settings()).today())
    return [to_ms(at(day, 0)) for day in (days if count < 0 else days[max(len(days) - count, 0) :])]


def get_trading_calendar(market: str, start_time: Moment = "", end_time: Moment = "") -> list[str]:
    """Trading days in [start_time, end_time], ``20250605``, coming ones too, as far as holidays are announced."""
    days = _trading_days(market, start_time, end_time, calendar.horizon())
    return [f"{day:%Y%m%d}" for day in days]


def get_market_last_trade_date(market: str) -> int:
    """Midnight of the last trading day up to the market's today, epoch ms."""
    return get_trading_dates(market, count=1)[-1]


def get_holidays() -> list[str]:
    """Weekdays without trading since 2015, ``20250602``, as far as they are announced."""
    first, last = date(_FIRST_HOLIDAY_YEAR, 1, 1).toordinal(), calendar.horizon().toordinal()
    weekdays = (day for day in map(date.fromordinal, range(first, last + 1)) if day.weekday() < 5)
    return [f"{day:%Y%m%d}" for day in weekdays if not calendar.is_trading_day(day)]


def get_divid_factors(stock_code: str, start_time: Moment = "", end_time: Moment = "") -> Any:
    """Dividend events as a DataFrame by ex-date (``20250605``): time (epoch ms), interest, stockBonus, … dr."""
    import pandas as pd

    code = _shared.one_code(stock_code)
    within = span(start_time, end_time)
    today = reading.market_clock(_shared.settings()).today()
    wanted = {"symbols": [code], "first": within.first_day, "last": min(within.last_day, today)}
    rows = reading.rows(_shared.settings(), "factors_of", wanted)
    data = {f"{row[1]:%Y%m%d}": [float(to_ms(at(row[1], 0))), *map(float, row[2:])] for row in rows}
    return pd.DataFrame.from_dict(data, orient="index", columns=["time", *_FACTOR_COLUMNS], dtype="float64")


def download_history_data(
    stock_code: str, period: str, start_time: Moment = "", end_time: Moment = "", incrementally: bool | None = None
) -> None:
    """`download_history_data2` of one code."""
    download_history_data2([stock_code], period, start_time, end_time, None, incrementally)


def download_history_data2(
    stock_list: str | Sequence[str],
    period: str,
    start_time: Moment = "",
    end_time: Moment = "",
    callback: Callable[[dict[str, Any]], object] | None = None,
    incrementally: bool | None = None,
) -> None:
    """Make sure that the range is in the warehouse, where a terminal would fetch it.

    Days that are not there are made by the system's Dagster, one after the other, from QMT's bars (and its gateway).
    *callback* gets ``{finished, total, stockcode, message}``: of stored codes one each, with the message "already
    there"; while days are made, how far that is, with the day and the steps of its run. Raises `HistoryMissing`, which
    names the days and the command that fetches them, when no Dagster answers or a run fails, and for ticks, of which
    there is no history. Without *start_time* only gaps between stored days count.
    """
    name, codes = _shared.chosen_period(period), _shared.chosen_codes(stock_list)
    _shared.check_callback(callback)

    def tell(finished: int, code: str, message: str) -> None:
        if callback is not None:
            callback({"finished": finished, "total": len(codes), "stockcode": code, "message": message})

    missing = _missing_days(name, start_time, end_time)
    if not missing or not codes:
        for finished, code in enumerate(codes, 1):
            tell(finished, code, "already there")
        return
    reason = ""
    if name != "tick":
        try:
            _make(missing, lambda share, message: tell(min(int(share * len(codes)), len(codes) - 1), "", message))
            missing, reason = _missing_days(name, start_time, end_time), "their runs have found none"
        except (dagster.DagsterError, StreamAway) as error:
            reason = str(error)
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
        fetch = f"fetch them with `qmt backfill --from {missing[0]} --to {missing[-1]}` ({reason})"
        raise HistoryMissing(
            f"the warehouse holds no {period} data of {len(missing)} trading days ({shown}): "
            + (fetch if name != "tick" else "a terminal has no history of ticks to fetch")
        )
    tell(len(codes), codes[-1], "fetched")


def _make(days: Sequence[date], tell: Callable[[float, str], None]) -> None:
    """Have Dagster make *days*; *tell* gets the share that is done. Raises `dagster.DagsterError`, `StreamAway`."""
    settings = _shared.settings()
    reading.stream(settings).close()  # the Dagster of a stopped system is another system's
    for place, day in enumerate(days):
        run = dagster.launch(settings, "reconcile_day", str(day), "xtdata")
        seen: dict[str, Any] = {}
        since = time.monotonic()
        while (found := dagster.progress(settings, run))["status"] != "SUCCESS":
            if found["status"] in ("FAILURE", "CANCELED"):
                raise dagster.DagsterError(f"the run of {day} ended with {found['status']}: {_run_page(settings, run)}")
            if found != seen:
                seen, since = found, time.monotonic()
                steps = max(found["steps"], 1)
                tell((place + found["done"] / steps) / len(days), f"{day}: {found['done']} of {found['steps']} steps")
            elif time.monotonic() - since > _STUCK_SECONDS:
                raise dagster.DagsterError(f"the run of {day} has not moved: {_run_page(settings, run)}")
            time.sleep(_LOOK_SECONDS)


def _run_page(settings: Settings, run: str) -> str:
    return f"{dagster.base(settings)}/runs/{run}"


def download_sector_data() -> None:
    """Nothing to fetch: sectors follow from the stored instrument list."""


def download_holiday_data(incrementally: bool = True) -> None:
    """Nothing to fetch: the calendar is part of the program."""


def timetag_to_datetime(timetag: float, format: str) -> str:
    """Epoch milliseconds as text in Shanghai's time, whatever the machine's zone."""
    try:
        return from_ms(int(timetag)).strftime(format)
    except (ValueError, TypeError, OverflowError, OSError):
        raise BadTime(f"expected epoch milliseconds, found {timetag!r:.40}") from None


def datetime_to_timetag(datetime: str, format: str = "%Y%m%d%H%M%S") -> float:
    """Epoch milliseconds of a Shanghai time as text; eight characters are a date."""
    return _timetag(datetime, "%Y%m%d" if len(datetime) == 8 else format)


def _timetag(moment: str, form: str) -> float:
    try:
        return float(to_ms(datetime.strptime(moment, form).replace(tzinfo=SHANGHAI)))
    except ValueError:
        raise BadTime(f"expected a time of the form {form}, found {moment!r:.40}") from None


def _trading_days(market: str, start: Moment, end: Moment, latest: date) -> list[date]:
    if market not in MARKETS:
        raise UnknownMarket(f"expected a market of {', '.join(MARKETS)}, found {market!r:.20}")
    within = span(start, end)
    return calendar.trading_days(max(within.first_day, _FIRST_CALENDAR_DAY), min(within.last_day, latest))


def _missing_days(period: str, start: Moment, end: Moment) -> list[date]:
    """Trading days of the range, up to the last one that is over, on which no symbol has anything stored."""
    settings = _shared.settings()
    within, clock = span(start, end), reading.market_clock(settings)
    query = "ticks_days" if period == "tick" else "bars_days"
    parameters: dict[str, Any] = {"first": text(within.first_ms), "last": text(within.last_ms)}
    if period != "tick":
        parameters["table"] = "bars_1m" if is_intraday(period) else "bars_1d"
    stored = {row[0] for row in reading.rows(settings, query, parameters)}
    now = clock.now()
    over = now.date() if now.hour >= 16 else from_ms(clock.now_ms() - 86_400_000).date()
    first = within.first_day if within.first_ms != EARLIEST_MS else min(stored, default=over)
    last = within.last_day if within.last_ms != LATEST_MS or not stored else max(stored)
    return [day for day in calendar.trading_days(first, min(last, over)) if day not in stored]


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromordinal(date(1970, 1, 1).toordinal() + int(value))


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
