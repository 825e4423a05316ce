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

ERROR_PAUSE_SECONDS: Final = 1.0
_lock = threading.Lock()
_errors = 0


def errors() -> int:
    """Steps of this process's threads that raised, since its start."""
    return _errors


def repeat(step: Callable[[], object], stop: threading.Event, every_seconds: float) -> None:
    """Call *step*, wait *every_seconds* (after an error at least a second), and so on until *stop*.

    *step* handles the errors it expects (an engine that is away); any other one is logged with its traceback when it
    is new, and counted.
    """
    last = ""
    while not stop.is_set():
        pause = every_seconds
        try:
            step()
            last = ""
        except Exception as error:  # the point of this function: whatever it is, the thread goes on
            pause = max(every_seconds, ERROR_PAUSE_SECONDS)
            text = f"{type(error).__name__}: {error}"[:500]
            name = threading.current_thread().name
            if text != last:
                log.exception("thread %s: a step failed and is tried again", name)
            last = text
            _note()
        stop.wait(pause)


def start(name: str, step: Callable[[], object], stop: threading.Event, every_seconds: float) -> threading.Thread:
    """A daemon thread called *name* that runs `repeat`, started."""
    thread = threading.Thread(target=repeat, args=(step, stop, every_seconds), name=name, daemon=True)
    thread.start()
    return thread


def _note() -> None:
    global _errors
    with _lock:
        _errors += 1
