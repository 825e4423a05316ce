"""A tiny service whose memory grows in its first run, until it is asked to stop."""

from __future__ import annotations

import threading

from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.services import tiny


def run(settings: Settings, stop: threading.Event) -> int:
    first = not (settings.data_dir / "tiny.log").exists()
    ballast = [bytes(range(256)) * 4096 * 300] if first else []  # 300 MB
    code = tiny.run(settings, stop)
    ballast.clear()
    return code
