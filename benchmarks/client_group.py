"""Broadcast clients in one process, a thread each: ``python -m benchmarks.client_group FIRST COUNT FILE``.

Until SIGTERM; then one JSON line a client goes to FILE: ``{"client", "bars", "frames": {frame ms: [[arrival ms, bars],
…]}}``, one pair a batch, in the order of arrival.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from qmt_orchestration.client import BarConsumer


def consume(client_id: str, consumers: list[BarConsumer], results: list[dict[str, Any]]) -> None:
    """Take batches until the consumer is stopped."""
    frames: dict[int, list[tuple[float, int]]] = {}
    count = 0
    with BarConsumer(client_id, start="now") as consumer:
        consumers.append(consumer)
        for bars in consumer.batches():
            now = time.time() * 1000
            count += len(bars)
            for timestamp, number in Counter(bar.timestamp for bar in bars).items():
                frames.setdefault(timestamp * 1000, []).append((now, number))
    results.append({"client": client_id, "bars": count, "frames": frames})


def main(first: int, count: int, path: Path) -> None:
    """Run *count* clients, numbered from *first*."""
    consumers: list[BarConsumer] = []
    results: list[dict[str, Any]] = []
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [
        threading.Thread(target=consume, args=(f"client_bench_{number:03d}", consumers, results))
        for number in range(first, first + count)
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for consumer in consumers:
        consumer.stop()
    for thread in threads:
        thread.join(15)
    path.write_text("".join(json.dumps(result) + "\n" for result in results))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
