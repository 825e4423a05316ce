"""A consumer as a process of its own: writes what it handled and what it had acknowledged to a file, until killed.

``python -m qmt_orchestration_tests.client.member ID MODE GROUP FILE``; lines are ``h|a symbol frame-epoch ns``.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from qmt_orchestration.client import BarConsumer


def main(client_id: str, mode: Any, group: str, path: str) -> None:
    with open(path, "a", encoding="utf-8", buffering=1) as out:

        def say(what: str, bar: Any) -> None:
            out.write(f"{what} {bar.symbol} {bar.timestamp} {time.monotonic_ns()}\n")

        with BarConsumer(client_id, mode=mode, group=group, batch_bars=20, start="beginning") as consumer:
            signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
            handled: Any = None
            for bar in consumer:
                if handled is not None:
                    say("a", handled)
                say("h", bar)
                handled = bar
                time.sleep(0.0005)  # a real handler takes time: kills fall between handling and acknowledging


if __name__ == "__main__":
    main(*sys.argv[1:])
