"""Tiny services for the tests, run as real processes: ``--module qmt_orchestration_tests.services.tiny`` and kin.

Its name says what one does: `QMT_HOST_NAME`, `QMT_DATA_DIR` come with the settings. Each line of
``<data_dir>/tiny.log`` is ``<event> <pid> <token>``.
"""

from __future__ import annotations

import os
import threading

import redis

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat


def note(settings: Settings, event: str) -> None:
    with (settings.data_dir / "tiny.log").open("a") as file:
        file.write(f"{event} {os.getpid()}\n")


def run(settings: Settings, stop: threading.Event) -> int:
    """Beats ten times a second, also over an absent Redis; flushes at the end."""
    client = connect(settings, retries=0)
    heartbeat = Heartbeat(client, settings, "tiny")
    note(settings, "start")
    while not stop.wait(0.1):
        try:
            heartbeat.beat({"rate": 1})
        except redis.RedisError:
            continue
    note(settings, "flush")
    return 0
