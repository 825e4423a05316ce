"""The live price of a symbol: its newest tick in ClickHouse."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

_RECENT_MS: Final = 1_800_000
DEFAULT_SYMBOL: Final = "000001.SZ"  # 平安银行: what the user's page answers when nothing is asked


@cache
def load_sql(name: str) -> str:
    """The statement in the client library's ``queries/<name>.sql``."""
    return files("qmt_orchestration.client").joinpath(f"queries/{name}.sql").read_text("utf-8")


def newest_tick(clickhouse: Any, symbol: str) -> dict[str, Any] | None:
    """Newest tick of *symbol*, None if it never sent one.

    ``symbol, time_ms`` (epoch ms), ``price, open, high, low, pre_close`` (yuan), ``vol`` (shares of the day),
    ``amount`` (yuan), ``ask, ask_vol, bid, bid_vol`` (5 levels, lots), ``change`` (yuan) and ``change_percent`` to the
    previous close.
    """
    newest, day = clickhouse.query(load_sql("newest_time")).first_row
    rows: list[dict[str, Any]] = []
    for since in (newest - _RECENT_MS, day, 0):  # most symbols ticked just now; others are looked for further back
        parameters = {"symbol": symbol, "since": since}
        rows = list(clickhouse.query(load_sql("newest_tick"), parameters=parameters).named_results())
        if rows:
            break
    else:
        return None
    tick = rows[0]
    change = tick["price"] - tick["pre_close"] if tick["price"] and tick["pre_close"] else 0.0
    percent = 100 * change / tick["pre_close"] if tick["pre_close"] else 0.0
    return {**tick, "change": round(change, 4), "change_percent": round(percent, 3)}
