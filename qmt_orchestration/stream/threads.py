"""Threads that cannot end by an error: what a step raises is logged and counted, and the next step is tried.

A service's side threads (heartbeat, snapshots of the console, the agent's exchange with Redis) use `repeat`. A thread
that ended by itself would leave a process that looks alive and does nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS: Final = 5.0
_lock = threading.Lock()
_errors = 0


def errors() -> int:
    """Steps of this process's threads that raised, since its start."""
    return _errors


def repeat(step: Callable[[], object], stop: threading.Event, every_seconds: float) -> None:
    """Call *step*, wait *every_seconds*, and so on until *stop*. After errors the pauses grow to five seconds.

    *step* handles the errors it expects (an engine that is away); any other one is logged with its traceback when it
    is new, and counted.
    """
    failures, last = 0, ""
    while not stop.is_set():
        try:
            step()
            failures, last = 0, ""
        except Exception as error:  # the point of this function: whatever it is, the thread goes on
            failures += 1
            text = f"{type(error).__name__}: {error}"[:500]
            name = threading.current_thread().name
            if text != last:
                log.exception("thread %s: a step failed and is tried again", name)
            last = text
            _note()
        stop.wait(min(every_seconds * 2 ** min(failures, 10), max(every_seconds, LONGEST_PAUSE_SECONDS)))


def start(name: str, step: Callable[[], object], stop: threading.Event, every_seconds: float) -> threading.Thread:
    """A daemon thread called *name* that runs `repeat`, started."""
    thread = threading.Thread(target=repeat, args=(step, stop, every_seconds), name=name, daemon=True)
    thread.start()
    return thread


def _note() -> None:
    global _errors
    with _lock:
        _errors += 1
