"""A tiny service that beats and never stops when asked."""

from __future__ import annotations

import signal
import threading

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.services.tiny import note


def run(settings: Settings, stop: threading.Event) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(settings, "start")
    heartbeat = Heartbeat(connect(settings), settings, "tiny")
    while True:
        heartbeat.beat()
        threading.Event().wait(0.1)
