"""Logging of every process of ours: one format, rotation, and no secret in any line.

`redact` is also for texts that leave by other doors (alerts, errors shown to people, heartbeats, run metadata).
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from qmt_orchestration.settings import Settings

MASK: Final = "***"
MAX_BYTES: Final = 20_000_000
BACKUPS: Final = 5
_FORMAT: Final = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
# user:password@ in any URL, whoever's it is
_USERINFO: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE)
# password=…, token: …, "api_key": "…"
_ASSIGNED: Final = re.compile(
    r"(?P<name>(?:password|passwd|secret|token|api_?key)[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s\"',;&)]{3,})",
    re.IGNORECASE,
)


class Redactor:
    """Replaces known secrets, and what looks like one, by ``***``."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # 1 and 2 characters would blank out half of every text, and protect nothing
        words = {word for secret in secrets for word in (secret, quote(secret, safe="")) if len(word) >= 3}
        ordered = sorted(words, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @classmethod
    def of(cls, settings: Settings) -> Redactor:
        """A redactor that knows the secrets of *settings*; of alert URLs also everything behind the scheme."""
        secrets: list[str] = []
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, SecretStr):
                secrets.append(value.get_secret_value())
        if settings.alert_urls:
            for entry in settings.alert_urls.get_secret_value().split():
                secrets += _url_secrets(entry)
        return cls(secrets)

    def __call__(self, text: str) -> str:
        """*text* without secrets."""
        if self._known:
            text = self._known.sub(MASK, text)
        text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
        return _ASSIGNED.sub(rf"\g<name>{MASK}", text)


def _url_secrets(entry: str) -> list[str]:
    """The parts of one ``[owner=]url`` that must not be shown: all behind the scheme, and each long path part."""
    _, _, rest = entry.partition("://")
    parts = [part for part in re.split(r"[/?&=@:]", rest) if len(part) >= 8]
    return [entry, rest, *parts]


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
