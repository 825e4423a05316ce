"""A strategy that shares the market with the other members of its group: start it three times with three names.

``python strategy.py member_1`` (settings from the environment, see docs/clients.md)
"""

import sys

from qmt_orchestration.client import Bar, BarConsumer, by_hash


def on_bar(bar: Bar) -> None:
    """Called for each bar of this member's shards, in order per symbol; raise RetryLater while a broker is away."""
    if bar.close > bar.open * 1.01:
        print(f"{bar.frame:%H:%M} {bar.symbol} rose more than 1 %: {bar.open} → {bar.close}", flush=True)


if __name__ == "__main__":
    with BarConsumer(sys.argv[1], mode="hybrid", group="strategies", rule=by_hash(8)) as consumer:
        consumer.run(on_bar)
