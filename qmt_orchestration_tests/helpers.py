"""What tests share: waiting for a condition, free ports, the path of recorded data."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from qmt_orchestration.settings import Settings

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10.0, message: str = "", every: float = 0.02) -> T:
    """The first truthy value of *condition*, asked every *every* seconds; fails the test after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {message or condition} (last value {value!r})")
        time.sleep(every)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def recordings() -> Path:
    """Folder of recorded market data; the test is skipped, saying so, when the setting names none."""
    folder = Settings().recordings_dir
    if folder is None or not folder.is_dir():
        pytest.skip("needs recorded market data: set QMT_RECORDINGS_DIR")
    return folder.resolve()
