"""Logging of every process of ours: one format, rotation, and no secret in any line."""

from __future__ import annotations

import logging
import sys
import threading
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from qmt_orchestration.redaction import Redactor
from qmt_orchestration.settings import Settings

MAX_BYTES: Final = 20_000_000
BACKUPS: Final = 5
_FORMAT: Final = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


class _RedactingFormatter(logging.Formatter):
    """Redacts the finished line, so that arguments and tracebacks are covered too."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__(_FORMAT, "%Y-%m-%d %H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def set_up_logging(settings: Settings, service: str, log_dir: Path | None = None) -> None:
    """Log to stderr, or to ``<log_dir>/<service>.log`` (20 MB, 5 old ones kept). Uncaught exceptions are logged too."""
    handler: logging.Handler = logging.StreamHandler()
    if log_dir:
        log_dir.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            log_dir / f"{service}.log", maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
        )
    handler.setFormatter(_RedactingFormatter(Redactor.of(settings)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    log = logging.getLogger(service)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))

    def uncaught_in_thread(args: Any) -> None:
        if args.exc_value is not None:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
