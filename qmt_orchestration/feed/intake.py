"""Between the callbacks and the publisher: a bounded queue that loses nothing and hides no exception.

xtdata calls back from threads of its own and swallows what a callback raises. So the callback does next to nothing: it
stamps the payload and puts it here. When the queue is full it waits (back-pressure), and that is counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from qmt_orchestration.feed.edge import Received

log = logging.getLogger("feed.intake")


class Intake:
    """A queue of `Received`, bounded by rows. Any number of threads put, one takes."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.callbacks = 0
        self.errors = 0  #: exceptions in a callback, logged with their traceback
        self.blocked = 0  #: callbacks that had to wait
        self.stale = 0  #: callbacks of a subscription that had been replaced
        self.rows = 0  #: rows waiting now
        self.last_monotonic = time.monotonic()
        self._generations = 0
        self._oldest = 0
        self._queue: deque[Received] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def new_generation(self) -> int:
        """A number for a new subscription's callbacks."""
        self._generations += 1
        return self._generations

    def only(self, generation: int) -> None:
        """This subscription works: callbacks of earlier ones are ignored from now on, and counted."""
        self._oldest = generation

    def callback(self, generation: int, market_now: Callable[[], int] | None) -> Callable[[Any], None]:
        """The callback of a new subscription.

        Its first payload is the full snapshot and carries the market's time, *market_now* (None in a recording, which
        has neither).
        """
        first = [market_now]

        def on_data(payload: Any) -> None:
            try:
                if generation < self._oldest:
                    self.stale += 1
                    return
                clock, first[0] = first[0], None
                self.put(payload, moment_ms=clock() if clock else 0)
            except Exception:
                self.errors += 1
                log.exception("a callback failed; its payload is lost: %.200r", payload)

        return on_data

    def put(self, payload: Any, *, moment_ms: int = 0, wait: bool = True) -> None:
        """Add a payload; waits while the queue is full, unless the one who takes is the one who puts."""
        rows = len(payload) if hasattr(payload, "__len__") else 1
        now = int(time.time() * 1000)
        with self._changed:
            self.callbacks += 1
            if wait and self.rows >= self.max_rows:
                self.blocked += 1
                while self.rows >= self.max_rows and not self._closed:
                    self._changed.wait(1.0)
            self._queue.append(Received(now, payload, moment_ms, rows))
            self.rows += rows
            self.last_monotonic = time.monotonic()
            self._changed.notify_all()

    def take(self, max_rows: int, *, wait_seconds: float, flush: bool) -> list[Received]:
        """The oldest payloads of together at most *max_rows* (or one larger payload).

        Waits at most *wait_seconds* for *max_rows* to be there; if they are not, *flush* gives what is there, otherwise
        nothing is given. A snapshot only comes first, because it decides about a gap.
        """
        deadline = time.monotonic() + wait_seconds
        with self._changed:
            while self.rows < max_rows and not self._closed and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            taken: list[Received] = []
            count = 0
            if self.rows < max_rows and not flush:
                return taken
            while self._queue and (not taken or count + self._queue[0].rows <= max_rows):
                if taken and self._queue[0].moment_ms:
                    break
                item = self._queue.popleft()
                taken.append(item)
                count += item.rows
            self.rows -= count
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """No more waiting, for callers of either side."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
