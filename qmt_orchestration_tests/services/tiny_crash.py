"""A tiny service that ends at once with exit code 3, having tried to say a secret."""

from __future__ import annotations

import logging
import threading

from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.services.tiny import note


def run(settings: Settings, stop: threading.Event) -> int:
    note(settings, "start")
    assert settings.redis_password is not None
    logging.getLogger("tiny").error("connecting with %s", settings.redis_password.get_secret_value())
    raise RuntimeError(f"cannot reach redis://user:{settings.redis_password.get_secret_value()}@host")
