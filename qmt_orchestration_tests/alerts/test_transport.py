"""What the receivers get: within the lengths that they document, whatever is said, and with what to do at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from qmt_orchestration.alerts.messages import MOST_LISTED, Finding, Notice, render
from qmt_orchestration.alerts.state import SAME_SUBJECT_MS, AlertState
from qmt_orchestration.alerts.transport import channels, fit
from qmt_orchestration.market.sessions import to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.alerts.conftest import Receiver
from qmt_orchestration_tests.alerts.test_delivery import TEN, Desk

LINK = "https://m.example/report?day=2025-06-05"
KEY = "0123456789abcdef0123456789abcdef"


def long_message() -> tuple[str, str]:
    """Twenty findings in Chinese, each as long as a finding may be."""
    text = "应有：二百四十一根K线\n最严重：" + "贵州茅台（缺七根）；" * 200
    notices = [
        Notice(Finding(f"check:a/c{i}@d", True, f"a / c{i}: 缺少分钟", text, link=LINK, todo="qmt backfill"), 1)
        for i in range(MOST_LISTED)
    ]
    return render(notices, "zh")


@pytest.mark.parametrize(
    ("url", "limit", "text_of"),
    [
        ("wecombot://" + KEY, 2048, lambda data: json.loads(data)["text"]["content"].encode()),
        ("dingtalk://" + KEY, 20_000, lambda data: data),
        ("feishu://" + KEY, 20_480, lambda data: data),
    ],
    ids=["wecom: bytes of the text", "dingtalk: bytes of the request", "feishu: bytes of the request"],
)
def test_a_message_is_as_long_as_its_receiver_takes(
    alerting: Settings, monkeypatch: pytest.MonkeyPatch, url: str, limit: int, text_of: Callable[[Any], bytes]
) -> None:
    """The receivers are not ours: what would be posted to them is read instead."""
    posted: list[Any] = []

    def post(_: str, data: Any = None, **__: Any) -> SimpleNamespace:
        posted.append(data)
        answer = {"errcode": 0, "code": 0}
        return SimpleNamespace(status_code=200, content=json.dumps(answer).encode(), text="", json=lambda: answer)

    monkeypatch.setattr("requests.post", post)
    (channel,) = channels(alerting.model_copy(update={"alert_urls": SecretStr(url)}))
    assert channel.send(*long_message(), failed=True)
    (data,) = posted
    assert len(text_of(data)) <= limit
    shown = json.loads(data)
    said = shown.get("text", shown.get("content", {}))
    said = said.get("content", said.get("text", "")) if isinstance(said, dict) else said
    assert "20 个问题" in said, "the beginning is there"
    assert said.rstrip().endswith(f"处理：qmt backfill\n查看：{LINK}"), "and the end: what to do, and where the rest is"


def test_a_webhook_gets_the_whole_message_as_json(alerting: Settings, receiver: Receiver) -> None:
    (channel,) = channels(alerting)
    title, body = "[错误] bars_1m", "应有：241\n处理：qmt backfill\n查看：" + LINK
    assert channel.send(title, body, failed=True)
    (message,) = receiver.messages
    assert (message["title"], message["message"], message["type"]) == (title, body, "failure")


def test_what_fits_is_sent_as_it_is_and_a_cut_never_splits_a_character() -> None:
    assert fit("短", 3) == "短"
    for limit in range(20, 400):
        cut = fit("贵州茅台" * 100 + "\n处理：x\n查看：y", limit)
        assert len(cut.encode()) <= limit


def test_equal_findings_of_several_days_are_one_message(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)

    def missing(day: int) -> Finding:
        date = f"2025-06-{day:02}"
        return Finding(f"check:bars_1m/rows@{date}", True, "bars_1m / rows", f"of {day}", partition=date, link=LINK)

    desk.look(*(missing(day) for day in (2, 3, 4)))
    assert receiver.titles() == ["[ERROR] bars_1m / rows · 3 days"]
    assert "Days: 2025-06-02, 2025-06-03, 2025-06-04\nof 4" in receiver.messages[0]["message"]
    for day in (5, 6, 9):  # further days, one look each: they wait for each other
        desk.later(minutes=1)
        desk.look(missing(day))
    assert len(receiver.messages) == 1
    desk.later(seconds=SAME_SUBJECT_MS / 1000)
    desk.look()
    assert receiver.titles()[1:] == ["[ERROR] bars_1m / rows · 3 days"]
    assert "2025-06-05, 2025-06-06, 2025-06-09" in receiver.messages[1]["message"]


def test_a_repeated_failure_says_since_when() -> None:
    state, hour = AlertState(), 3_600_000
    for minutes in (0, 61):
        state.observe(Finding("service:x", True, "x"), to_ms(TEN) + minutes * 60_000, hour, lambda _: ("c",))
    _, body = render([state.outbox[-1]])
    assert "Since: 2025-06-05 10:00:00 (61 min)" in body
