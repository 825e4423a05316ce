"""No secret leaves in a text, and no text, however long, holds up the process that logs it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from qmt_orchestration.redaction import LONGEST, Redactor
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.settings import Settings


@pytest.mark.parametrize("seed", ["a", "a:", "://", "password", "password = ", "https", "token:'", " ", "x@"])
def test_redaction_takes_time_in_proportion_to_the_text(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the cut, so that the patterns themselves are measured: 16 times the text, about 16 times the time."""
    monkeypatch.setattr("qmt_orchestration.redaction.LONGEST", 1 << 30)
    redact = Redactor(["hunter2-hunter2"])

    def seconds(length: int) -> float:
        text = (seed * (length // len(seed) + 1))[:length]
        taken = []
        for _ in range(3):
            began = time.thread_time()  # of the processor: a busy machine changes nothing
            redact(text)
            taken.append(time.thread_time() - began)
        return min(taken)

    assert seconds(320_000) < 100 * max(seconds(20_000), 1e-4)


def test_a_line_of_five_megabytes_is_cut_and_holds_no_secret(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_password=SecretStr("hunter2-hunter2"))
    handlers = list(logging.getLogger().handlers)
    try:
        set_up_logging(settings, "writer", tmp_path)
        for cut in range(0, 16, 3):  # the secret lies across the cut, whole in front of it, or whole behind it
            head = "a" * (LONGEST - 8_192 - cut)
            logging.getLogger("writer").error("entry %s", head + "hunter2-hunter2" + "b" * 5_000_000)
        text = (tmp_path / "writer.log").read_text()
    finally:
        for handler in logging.getLogger().handlers:
            if handler not in handlers:
                handler.close()
        logging.getLogger().handlers = handlers
    lines = text.splitlines()
    assert len(lines) == 6
    assert all(len(line) < LONGEST + 100 and "characters cut" in line for line in lines)
    assert "hunter2" not in text


@given(st.text(max_size=200), st.integers(0, 60_000))
def test_a_secret_never_leaves_wherever_it_stands(around: str, position: int) -> None:
    text = "x" * position + around + "redis://user:pass-word-1@host" + " hunter2-hunter2 " + around + "x" * 30_000
    shown = Redactor(["hunter2-hunter2"])(text)
    assert "hunter2-hunter2" not in shown
    assert "pass-word-1" not in shown


@pytest.mark.parametrize(
    ("url", "hidden", "shown"),
    [
        ("ops=mailtos://user:pass-word-1@smtp.example.com:465/?to=quant", "pass-word-1", "smtp.example.com"),
        ("jsons://hooks.example.com/hook-secret-1", "hook-secret-1", "hooks.example.com"),
        ("json://127.0.0.1:8080/hook-secret-1", "hook-secret-1", "127.0.0.1"),
        ("json://127.0.0.1", "nothing here", "127.0.0.1"),
        ("feed=dingtalk://secret-token-1", "secret-token-1", "nothing to connect to"),
        ("wecombot://bot-key-123456", "bot-key-123456", "nothing to connect to"),
    ],
)
def test_a_host_is_shown_and_a_token_in_its_place_is_not(url: str, hidden: str, shown: str) -> None:
    redact = Redactor.of(Settings(alert_urls=SecretStr(url)))
    text = redact(f"cannot reach {shown}: {hidden} was refused")
    assert text == f"cannot reach {shown}: {'***' if hidden != 'nothing here' else hidden} was refused"
    assert "***" in redact(url) or hidden == "nothing here"
