"""Findings to messages at a real receiver: once per window, one recovery, nothing lost, nothing stalled."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from qmt_orchestration.alerts.delivery import MOST_REFUSALS, deliver
from qmt_orchestration.alerts.messages import Finding, Notice, render
from qmt_orchestration.alerts.state import AlertState, load, save
from qmt_orchestration.alerts.transport import BadAlertUrl, channels, route
from qmt_orchestration.market.sessions import SHANGHAI, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.alerts.conftest import Receiver

TEN = datetime(2025, 6, 5, 10, 0, tzinfo=SHANGHAI)  # a Thursday in session
HOUR_MS = 3_600_000


class Desk:
    """The alerts of one deployment with a clock that the test moves; the state goes through its file each time."""

    def __init__(self, settings: Settings, now: datetime = TEN) -> None:
        self.settings, self.now = settings, now

    def look(self, *findings: Finding) -> int:
        """One look of the sensor: observe, store, deliver. Returns the messages taken."""
        state, known, now_ms = load(self.settings.data_dir), channels(self.settings), to_ms(self.now)
        for finding in findings:
            state.observe(finding, now_ms, HOUR_MS, lambda f: route(f, known))
        save(state, self.settings.data_dir)
        return deliver(state, known, now_ms, self.now, lambda: save(state, self.settings.data_dir))

    def later(self, **span: float) -> None:
        """Move the clock."""
        self.now += timedelta(**span)

    @property
    def state(self) -> AlertState:
        """As stored."""
        return load(self.settings.data_dir)


def bad(key: str = "check:bars_1m/rows@2025-06-05", **fields: Any) -> Finding:
    return Finding(**{"key": key, "failed": True, "title": key.split("@")[0], "text": "expected 241", **fields})


def well(key: str = "check:bars_1m/rows@2025-06-05") -> Finding:
    return Finding(key, False, key.split("@")[0], "found 241")


def test_a_failure_repeated_over_ten_minutes_is_announced_once_and_its_recovery_once(
    alerting: Settings, receiver: Receiver
) -> None:
    desk = Desk(alerting)
    for _ in range(40):
        desk.look(bad(partition="2025-06-05"))
        desk.later(seconds=15)
    assert len(receiver.messages) == 1
    for _ in range(3):
        desk.look(well())
        desk.later(seconds=15)
    assert [title.split("]")[0] for title in receiver.titles()] == ["[ERROR", "[RECOVERED"]
    assert "seen 39 more times" in receiver.messages[1]["message"]
    assert "failed for 10 min" in receiver.messages[1]["message"]
    assert desk.state.incidents == {}


def test_after_the_window_it_is_announced_again_with_what_was_suppressed(
    alerting: Settings, receiver: Receiver
) -> None:
    desk = Desk(alerting)
    for _ in range(62):
        desk.look(bad())
        desk.later(minutes=1)
    assert len(receiver.messages) == 2
    assert "seen 60 more times" in receiver.messages[1]["message"]


def test_a_warning_that_becomes_an_error_is_announced_at_once(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)
    desk.look(bad(severity="WARN"))
    desk.look(bad(severity="ERROR"))
    desk.look(bad(severity="WARN"))
    assert [title[:6] for title in receiver.titles()] == ["[WARN]", "[ERROR"]


def test_what_comes_and_goes_is_announced_three_times_an_hour_at_most(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)
    for _ in range(20):
        desk.look(bad())
        desk.later(minutes=1)
        desk.look(well())
        desk.later(minutes=1)
    assert len(receiver.messages) == 6
    desk.later(hours=1)
    desk.look(bad())
    assert len(receiver.messages) == 7


def test_a_receiver_down_for_five_minutes_loses_nothing(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)
    receiver.down()
    for i in range(20):
        desk.look(bad(f"check:a/b{i}@d", partition=f"d{i % 4}"))
        desk.later(seconds=15)
    assert receiver.messages == []
    receiver.up()
    for _ in range(30):
        desk.look()
        desk.later(seconds=15)
    text = "".join(m["title"] + m["message"] for m in receiver.messages)
    assert all(f"a/b{i}\n" in text or f"a/b{i} " in text for i in range(20))
    assert desk.state.outbox == []
    assert len(receiver.messages) <= 20


def test_a_failure_and_its_recovery_while_down_arrive_in_order(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)
    receiver.down()
    desk.look(bad())
    desk.later(minutes=5)
    desk.look(well())
    receiver.up()
    desk.later(minutes=5)
    desk.look()
    assert [title.split("]")[0] for title in receiver.titles()] == ["[ERROR", "[RECOVERED"]


@pytest.mark.parametrize("poison_first", [True, False])
def test_a_poison_message_stalls_nothing_and_is_kept(
    alerting: Settings, receiver: Receiver, poison_first: bool
) -> None:
    desk = Desk(alerting)
    receiver.refuses = lambda message: "poison" in message["title"] + message["message"]
    poison = [bad(f"check:poison/{i}@p", partition="p") for i in range(4)]
    good = [bad(f"check:good/{i}@g", partition="p" if i else "g") for i in range(4)]
    desk.look(*(poison + good if poison_first else good + poison))
    desk.later(minutes=6)
    desk.look()
    text = "".join(m["title"] + m["message"] for m in receiver.messages)
    assert all(f"good/{i}" in text for i in range(4)), "what is good has passed by the second try"
    for i in range(MOST_REFUSALS):
        desk.later(minutes=6)
        desk.look(bad(f"check:other/{i}@o{i}", partition=f"o{i}"))
    assert sorted(n.finding.key for n in desk.state.given_up) == [f"check:poison/{i}@p" for i in range(4)]
    assert desk.state.outbox == []


def test_one_dead_channel_neither_stops_nor_doubles_another(
    alerting: Settings, receiver: Receiver, second: Receiver
) -> None:
    both = alerting.model_copy(update={"alert_urls": SecretStr(f"{receiver.url}\n{second.url}")})
    desk = Desk(both)
    second.down()
    desk.look(bad())
    for _ in range(10):
        desk.later(minutes=1)
        desk.look()
    assert (len(receiver.messages), len(second.messages)) == (1, 0)
    second.up()
    desk.later(minutes=6)
    desk.look()
    assert (len(receiver.messages), len(second.messages)) == (1, 1)


def test_owners_have_their_channel_and_others_the_default(
    alerting: Settings, receiver: Receiver, second: Receiver
) -> None:
    desk = Desk(alerting.model_copy(update={"alert_urls": SecretStr(f"{receiver.url} feed={second.url}")}))
    desk.look(bad("service:writer", owner="feed"), bad("check:a/b@", owner="market-data"))
    assert second.titles() == ["[ERROR] service:writer"]
    assert receiver.titles() == ["[ERROR] check:a/b"]


def test_warnings_wait_for_the_session_errors_do_not(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting, now=datetime(2025, 6, 6, 20, 0, tzinfo=SHANGHAI))  # Friday evening
    desk.look(bad("check:a/warn@", severity="WARN"), bad("check:a/error@"))
    assert receiver.titles() == ["[ERROR] check:a/error"]
    desk.later(days=2)
    desk.look()
    assert len(receiver.messages) == 1, "Sunday"
    desk.now = datetime(2025, 6, 9, 9, 16, tzinfo=SHANGHAI)
    desk.look()
    assert receiver.titles()[1:] == ["[WARN] check:a/warn"]


def test_findings_of_one_partition_are_one_message(alerting: Settings, receiver: Receiver) -> None:
    desk = Desk(alerting)
    desk.look(*(bad(f"check:a/c{i}@d", partition="2025-06-05", link=f"http://x/{i}") for i in range(3)))
    desk.look(bad("check:a/c9@e", partition="2025-06-06"))
    assert receiver.titles() == ["[ERROR] 3 findings · 2025-06-05", "[ERROR] check:a/c9 · 2025-06-06"]
    assert "http://x/2" in receiver.messages[0]["message"]


def test_a_crash_between_sending_and_storing_repeats_at_most_that_message(
    alerting: Settings, receiver: Receiver
) -> None:
    state, known = AlertState(), channels(alerting)
    for i in range(3):
        state.observe(bad(f"check:a/{i}@{i}", partition=str(i)), to_ms(TEN), HOUR_MS, lambda f: route(f, known))
    save(state, alerting.data_dir)

    def crash() -> None:
        raise SystemExit("killed")

    with pytest.raises(SystemExit):
        deliver(state, known, to_ms(TEN), TEN, crash)
    Desk(alerting).look()
    titles = receiver.titles()
    assert set(titles) == {f"[ERROR] check:a/{i} · {i}" for i in range(3)}
    assert len(titles) == 4


def test_a_broken_state_file_is_kept_under_another_name(alerting: Settings) -> None:
    folder = alerting.data_dir / "alerts"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{half")
    assert load(alerting.data_dir) == AlertState()
    assert (folder / "state.broken.json").read_text() == "{half"


def test_the_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    state = AlertState()
    state.observe(Finding("check:a/b@d", True, "a / b"), 1_000_000, 3_600_000, lambda _: ("x",))
    save(state, tmp_path)
    path = tmp_path / "alerts" / "state.json"
    path.write_text(path.read_text().replace('"announced"', '"told"'))
    assert load(tmp_path) == state


def test_a_misspelt_channel_is_named_by_place_never_by_text(alerting: Settings) -> None:
    wrong = alerting.model_copy(update={"alert_urls": SecretStr("json://127.0.0.1/x no-such-kind://hunter2secret")})
    with pytest.raises(BadAlertUrl, match="entry 2") as caught:
        channels(wrong)
    assert "hunter2secret" not in str(caught.value)


def test_channel_names_hide_the_url(alerting: Settings, receiver: Receiver) -> None:
    (channel,) = channels(alerting)
    assert str(receiver.port) not in repr(channel)
    assert "hook" not in repr(channel)


def test_long_groups_are_cut_but_name_everything() -> None:
    notices = [Notice(bad(f"check:a/{i}@d", title=f"a / c{i}", text="x" * 5000), i) for i in range(25)]
    _, body = render(notices)
    assert len(body) < 40_000
    assert all(f"a / c{i}" in body for i in range(25))
