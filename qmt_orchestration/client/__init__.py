"""What other programs import: consumers of bars and ticks, sinks, queries for analysts. Neither Dagster nor xtquant.

    from qmt_orchestration.client import BarConsumer
    with BarConsumer("client_mac_001") as bars:
        for bar in bars:
            print(bar.symbol, bar.frame, bar.close)

See docs/clients.md. Names are imported on first use, so that a consumer of bars loads neither Arrow nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmt_orchestration.client.bar import Bar, Start
    from qmt_orchestration.client.bar_consumer import BarConsumer
    from qmt_orchestration.client.consumer import ClientInUse, Evicted
    from qmt_orchestration.client.leases import LeaseLost
    from qmt_orchestration.client.outages import RetryLater
    from qmt_orchestration.client.rules import ShardRule, by_board, by_hash, by_list, by_market
    from qmt_orchestration.client.tick_consumer import TickBatch, TickConsumer
    from qmt_orchestration.warehouse.analyst import bars

_HOME = {
    "Bar": "client.bar",
    "BarConsumer": "client.bar_consumer",
    "ClientInUse": "client.consumer",
    "Evicted": "client.consumer",
    "LeaseLost": "client.leases",
    "RetryLater": "client.outages",
    "ShardRule": "client.rules",
    "Start": "client.bar",
    "TickBatch": "client.tick_consumer",
    "TickConsumer": "client.tick_consumer",
    "bars": "warehouse.analyst",
    "by_board": "client.rules",
    "by_hash": "client.rules",
    "by_list": "client.rules",
    "by_market": "client.rules",
}
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
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"qmt_orchestration.{_HOME[name]}"), name)
