"""What other programs import: queries, consumers of bars and ticks, sinks. Neither Dagster nor xtquant.

    from qmt_orchestration.client import bars, snapshot
    bars("600519", "2025-06-05", period="5m")

    from qmt_orchestration.client import BarConsumer
    with BarConsumer("client_mac_001") as bars:
        for bar in bars:
            print(bar.symbol, bar.frame, bar.close)

See docs/clients.md. Names are imported on first use, so that a consumer loads only what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmt_orchestration.client.api import (
        bars,
        factors,
        instruments,
        is_trading_day,
        members,
        quotes,
        snapshot,
        ticks,
        trading_days,
    )
    from qmt_orchestration.client.bar import Bar, Start
    from qmt_orchestration.client.bar_consumer import BarConsumer
    from qmt_orchestration.client.consumer import ClientInUse, Evicted
    from qmt_orchestration.client.leases import LeaseLost
    from qmt_orchestration.client.outages import RetryLater
    from qmt_orchestration.client.rules import ShardRule, by_board, by_hash, by_list, by_market
    from qmt_orchestration.client.tick_consumer import TickBatch, TickConsumer

_MODULES = {
    "api": (
        "bars", "factors", "instruments", "is_trading_day", "members", "quotes", "snapshot", "ticks",
        "trading_days",
    ),
    "bar": ("Bar", "Start"),
    "bar_consumer": ("BarConsumer",),
    "consumer": ("ClientInUse", "Evicted"),
    "leases": ("LeaseLost",),
    "outages": ("RetryLater",),
    "rules": ("ShardRule", "by_board", "by_hash", "by_list", "by_market"),
    "tick_consumer": ("TickBatch", "TickConsumer"),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "Bar",
    "BarConsumer",
    "ClientInUse",
    "Evicted",
    "LeaseLost",
    "RetryLater",
    "ShardRule",
    "Start",
    "TickBatch",
    "TickConsumer",
    "bars",
    "by_board",
    "by_hash",
    "by_list",
    "by_market",
    "factors",
    "instruments",
    "is_trading_day",
    "members",
    "quotes",
    "snapshot",
    "ticks",
    "trading_days",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"qmt_orchestration.client.{_HOME[name]}"), name)
