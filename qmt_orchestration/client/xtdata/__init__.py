"""xtdata's documented functions, answered from the warehouse and the streams: on any system, with the terminal off.

    from qmt_orchestration.client import xtdata
    bars = xtdata.get_market_data_ex(["close"], ["600519.SH"], "1d", "20250101", "20250605", dividend_type="front")

Names, arguments, shapes and types are those of ``xtquant.xtdata`` (xtquant's ``doc/xtdata.md``); neither xtquant nor a
terminal is needed. `install_alias` makes ``from xtquant import xtdata`` mean this module. Nothing is made up: what
the warehouse does not hold is absent, and a function or field that cannot be served raises NotImplementedError with its
name. docs/xtdata.md lists every difference.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, Final

from qmt_orchestration.client import reading
from qmt_orchestration.client.errors import (
    BadRange,
    BadSymbol,
    BadTime,
    HistoryMissing,
    QueryError,
    StreamAway,
    UnknownAdjustment,
    UnknownField,
    UnknownMarket,
    WarehouseAway,
)
from qmt_orchestration.client.xtdata._history import (
    get_full_kline,
    get_local_data,
    get_market_data,
    get_market_data_ex,
)
from qmt_orchestration.client.xtdata._live import (
    get_full_tick,
    run,
    stop,
    subscribe_quote,
    subscribe_quote2,
    subscribe_whole_quote,
    unsubscribe_quote,
)
from qmt_orchestration.client.xtdata._reference import (
    datetime_to_timetag,
    download_history_data,
    download_history_data2,
    download_holiday_data,
    download_sector_data,
    get_divid_factors,
    get_holidays,
    get_instrument_detail,
    get_instrument_detail_list,
    get_instrument_type,
    get_market_last_trade_date,
    get_sector_list,
    get_stock_list_in_sector,
    get_trading_calendar,
    get_trading_dates,
    timetag_to_datetime,
)
from qmt_orchestration.client.xtdata._shared import PERIODS, use
from qmt_orchestration.client.xtdata._shared import settings as _shared_settings
from qmt_orchestration.market.periods import UnknownPeriod

__all__ = [
    "BadRange", "BadSymbol", "BadTime", "HistoryMissing", "QueryError", "StreamAway", "UnknownAdjustment",
    "UnknownField", "UnknownMarket", "UnknownPeriod", "WarehouseAway",
    "connect", "datetime_to_timetag", "disconnect", "download_history_data", "download_history_data2",
    "download_holiday_data", "download_sector_data", "get_divid_factors", "get_full_kline", "get_full_tick",
    "get_holidays", "get_instrument_detail", "get_instrument_detail_list", "get_instrument_type",
    "get_local_data", "get_market_data", "get_market_data_ex", "get_market_last_trade_date", "get_period_list",
    "get_sector_list", "get_stock_list_in_sector", "get_stock_type", "get_trading_calendar",
    "get_trading_dates", "install_alias", "reconnect", "run", "stop", "subscribe_quote", "subscribe_quote2",
    "subscribe_whole_quote", "timetag_to_datetime", "unsubscribe_quote", "use",
]  # fmt: skip

#: Functions of xtdata that need what the warehouse does not hold.
UNSERVED: Final = frozenset((
    "add_sector", "bnd_get_amount_change", "bnd_get_call_info", "bnd_get_conversion_price", "bnd_get_put_info",
    "call_formula", "compute_coming_trading_calendar", "create_sector", "create_sector_folder", "download_cb_data",
    "download_etf_info", "download_financial_data", "download_financial_data2", "download_his_st_data",
    "download_history_contracts", "download_index_weight", "download_tabular_data", "gen_factor_index",
    "generate_index_data", "get_all_kline_trading_periods", "get_all_trading_periods", "get_broker_queue_data",
    "get_cb_info", "get_client", "get_data_dir", "get_etf_info", "get_financial_data", "get_fullspeed_orderbook",
    "get_his_option_list", "get_his_option_list_batch", "get_his_st_data", "get_hk_broker_dict", "get_index_weight",
    "get_ipo_info", "get_kline_trading_period", "get_l2_order", "get_l2_quote", "get_l2_transaction",
    "get_l2thousand_queue", "get_main_contract", "get_markets", "get_option_detail_data", "get_option_list",
    "get_option_undl_data", "get_order_rank", "get_sec_main_contract", "get_sector_info", "get_tabular_data",
    "get_tabular_formula", "get_trading_contract_list", "get_trading_period", "get_transactioncount",
    "get_wp_market_list", "is_stock_type", "push_custom_data", "read_feather", "remove_sector",
    "remove_stock_from_sector", "reset_market_stock_list", "reset_market_trading_day_list", "reset_sector",
    "subscribe_formula", "subscribe_l2thousand", "subscribe_l2thousand_queue", "unsubscribe_formula",
    "watch_quote_server_status", "watch_xtquant_status", "write_feather",
))  # fmt: skip

enable_hello = False  # programs set it; nothing is printed here either way
get_stock_type = get_instrument_type


def connect(ip: str = "", port: int | None = None, remember_if_success: bool = True) -> None:
    """Check that a warehouse answers (`WarehouseAway`); the arguments name a terminal and are not used."""
    reading.rows(_shared_settings(), "ticks_span")


def reconnect(ip: str = "", port: int | None = None, remember_if_success: bool = True) -> None:
    """Drop the connections and look for the warehouse again."""
    reading.close()
    connect()


def disconnect() -> None:
    """End all subscriptions and connections."""
    stop()
    reading.close()


def get_period_list() -> list[dict[str, str]]:
    """The periods that are served, ``[{"name": "tick"}, …]``."""
    return [{"name": period} for period in PERIODS]


def install_alias() -> None:
    """Make ``import xtquant.xtdata`` and ``from xtquant import xtdata`` mean this module, for this process.

    Raises ImportError when the real xtquant is already imported.
    """
    present = sys.modules.get("xtquant.xtdata")
    if present is sys.modules[__name__]:
        return
    if present is not None or "xtquant" in sys.modules:
        raise ImportError("xtquant is imported already: call install_alias() before any import of it")
    package = types.ModuleType("xtquant", "An alias of qmt_orchestration.client.xtdata, made by its install_alias().")
    package.__path__ = []
    package.xtdata = sys.modules[__name__]  # type: ignore[attr-defined]
    sys.modules["xtquant"] = package
    sys.modules["xtquant.xtdata"] = sys.modules[__name__]


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in UNSERVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def unserved(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"xtdata.{name} is not served: the warehouse does not hold what it needs")

    unserved.__name__ = name
    return unserved
