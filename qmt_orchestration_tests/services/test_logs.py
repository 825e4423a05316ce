"""No secret in any line that leaves a process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from qmt_orchestration.redaction import Redactor
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.heartbeat import Heartbeat, read_all

SETTINGS = Settings(
    redis_password=SecretStr("r3dis/pass word"),
    clickhouse_password=SecretStr("clickp@ss"),
    console_token=SecretStr("console-token-1"),
    alert_urls=SecretStr("feed=slack://TokenAAAAAAAA/TokenBBBBBBBB/TokenCCCCCCCC mailto://me:pa55word@mail.example"),
)


@pytest.mark.parametrize(
    "text",
    [
        "AUTH r3dis/pass word",
        "url-quoted r3dis%2Fpass%20word",
        "http://default:clickp@ss@host:8123",
        "POST https://hooks.slack.com/services/TokenAAAAAAAA/TokenBBBBBBBB/TokenCCCCCCCC",
        "entry feed=slack://TokenAAAAAAAA/TokenBBBBBBBB/TokenCCCCCCCC refused",
        "Authorization: console-token-1",
        "mailto://me:pa55word@mail.example",
        "redis://someone:unknown-secret@elsewhere",
        "connect(password='unknown-secret')",
        '{"token": "unknown-secret"}',
    ],
)
def test_secrets_are_masked(text: str) -> None:
    shown = Redactor.of(SETTINGS)(text)
    assert "***" in shown
    for secret in ("r3dis", "clickp", "Token", "console-token", "pa55word", "unknown-secret"):
        assert secret not in shown.replace('"token"', "")


def test_ordinary_lines_stay_as_they_are() -> None:
    for text in ("writer: 5150 rows, lag 0", "lease publisher, token 7", "http://127.0.0.1:8123/ping"):
        assert Redactor.of(SETTINGS)(text) == text


def test_a_heartbeat_tells_errors_without_secrets_and_memory(redis_client: Any, settings: Settings) -> None:
    guarded = settings.model_copy(update={"clickhouse_password": SETTINGS.clickhouse_password})
    heartbeat = Heartbeat(redis_client, guarded, "probe")
    heartbeat.beat({"error": "refused: http://default:clickp@ss@host:8123", "rate": 1.5})
    (beat,) = [beat for beat in read_all(redis_client) if beat["service"] == "probe"]
    heartbeat.stop()
    assert beat["error"] == "refused: http://***@host:8123"
    assert beat["rate"] == "1.5"
    assert 10 < float(beat["memory_mb"]) < 10_000


def test_arguments_and_tracebacks_are_covered_and_files_rotate(tmp_path: Path) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for handler in handlers:
        root.removeHandler(handler)  # set_up_logging closes what it finds: pytest's own must survive
    try:
        set_up_logging(SETTINGS, "probe", tmp_path)
        try:
            raise RuntimeError("bad r3dis/pass word")
        except RuntimeError:
            logging.getLogger("probe").exception("with %s", {"secret": "clickp@ss"})
        (handler,) = root.handlers
        handler.flush()
        text = (tmp_path / "probe.log").read_text()
        assert "RuntimeError" in text
        assert "r3dis" not in text
        assert "clickp" not in text
        assert isinstance(handler, logging.handlers.RotatingFileHandler)
        handler.maxBytes = 1000
        for i in range(40):
            logging.getLogger("probe").info("line %d %s", i, "x" * 100)
        assert {p.name for p in tmp_path.iterdir()} == {"probe.log", *(f"probe.log.{n}" for n in range(1, 6))}
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
            handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
