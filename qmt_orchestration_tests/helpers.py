"""What tests share: waiting for a condition, free ports, the path of recorded data."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from qmt_orchestration.settings import Settings

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 30.0, message: str = "", every: float = 0.1) -> T:
    """The first truthy value of *condition*; fails the test after *timeout* seconds.

    It is asked often at first and then every *every* seconds: what is waited for needs the processor.
    """
    deadline, pause = time.monotonic() + timeout, min(every, 0.01)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {message or condition} (last value {value!r})")
        time.sleep(pause)
        pause = min(every, pause * 1.3)


def redis_with_selectors() -> str:
    """Path of a Redis of at least 7.0, which the users of ``deploy/redis`` need; the test is skipped without one."""
    found = [shutil.which(name, path=f"{os.environ['PATH']}:/usr/bin") for name in ("redis-server", "valkey-server")]
    for path in [*found, "/usr/bin/redis-server"]:
        if path and os.access(path, os.X_OK):
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            if (major := re.search(r"v=(\d+)\.", version)) and int(major[1]) >= 7:
                return path
    pytest.skip("needs a Redis of at least 7.0 on the PATH (Debian: apt-get install redis-server)")


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
