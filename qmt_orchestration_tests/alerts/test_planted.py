"""Three planted faults, on real engines: a dead feed, a spiked price, a deleted minute. Each turns the console red and
sends one message that says what to do, with a link to the report of its day."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg
import pytest

from qmt_orchestration.console.live import Live
from qmt_orchestration.console.report import report
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.orchestration.checks import evaluate
from qmt_orchestration.orchestration.checks.evaluate import Window
from qmt_orchestration.orchestration.sensors.alerts import look
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.alerts.conftest import Receiver
from qmt_orchestration_tests.client.market import DAY, FRAMES, SYMBOLS, bar, minute, store
from qmt_orchestration_tests.helpers import wait_until

NOW = FRAMES[40]
ALIVE = {"symbols": 26, "advanced": 26, "silent_s": 0.5, "wall_s": 0.5}


@pytest.fixture
def market(alerting: Settings, redis_client: Any, clickhouse: Any) -> Settings:
    """A healthy market at 10:09: services beat, the feed has news, the day's list and names are known."""
    publish_clock(redis_client, to_ms(NOW) - 20_000, speed=0)
    for service in ("gateway", "writer", "publisher", "agent"):
        Heartbeat(redis_client, alerting, service).beat({"lag_seconds": 0})
    feed(redis_client, alerting, ALIVE)
    names = {"000001.SZ": "平安银行", "600000.SH": "浦发银行"}
    rows = [[DAY, s, names.get(s, s), "main", 10.0, 11.0, 9.0, 0, 1, "stock"] for s in SYMBOLS]
    columns = ["day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended", "listed", "kind"]
    clickhouse.insert("instruments", rows, column_names=columns)
    return alerting


def feed(redis_client: Any, settings: Settings, said: dict[str, float]) -> None:
    Heartbeat(redis_client, settings, "subscriber").beat({"rate": 9.0, "news": json.dumps({"SH stock": said})})


def check(clickhouse: Any, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
    """Run a check of bars_1m as the finalization does: its verdict is in ClickHouse and in Dagster afterwards."""
    outcomes = [evaluate.run_check(evaluate.find("bars_1m", name), clickhouse, settings, Window(DAY, FRAMES[0], NOW))]
    evaluate.record(clickhouse, outcomes, f"run-{name}")
    (result,) = evaluate.results(outcomes)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("bars_1m"),
            check_name=name,
            passed=bool(result.passed),
            severity=result.severity,
            description=result.description,
            metadata=result.metadata,
        )
    )


@contextmanager
def console(settings: Settings) -> Iterator[Live]:
    live = Live(settings)
    live.start()
    try:
        yield live
    finally:
        live.stop()


def red(live: Live, key: str) -> dict[str, Any]:
    """The finding *key* of a console that is red."""

    def seen() -> dict[str, Any] | None:
        verdict = live.snapshot.get("verdict", {})
        found = [f for f in verdict.get("findings", ()) if f["key"] == key]
        return dict(found[0]) if found and verdict["tone"] == "bad" else None

    found: dict[str, Any] = wait_until(seen, 60, key)
    assert "All clear" not in live.snapshot["verdict"]["head"]["en"]
    return found


def of(receiver: Receiver, words: str) -> list[str]:
    return [m["title"] + "\n" + m["message"] for m in receiver.messages if words in m["title"]]


def test_a_dead_feed_turns_the_console_red_and_sends_one_message(
    market: Settings, redis_client: Any, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    look(market, instance, lambda _: "")
    receiver.messages.clear()  # no tick has ever come here: the first look says so
    feed(redis_client, market, {**ALIVE, "advanced": 0, "silent_s": 300.0, "wall_s": 300.0})
    with console(market) as live:
        assert "no news of SH stock (26 symbols) for 300 s" in red(live, "verdict.silent")["text"]["en"]
    fresh = market.model_copy(update={"data_dir": market.data_dir / "fresh"})
    for i in range(3):
        look(fresh, instance, lambda _: "", int(time.time() * 1000) + i * 20_000)
    (message,) = of(receiver, "tick_stream / feed_fresh: no news of the market")
    assert message.startswith("[ERROR]")
    assert "To do: check that QMT is logged in, then restart the service subscriber in the console" in message
    assert "See: https://m.example/report?day=2025-06-05&asset=tick_stream&check=feed_fresh" in message
    assert "Since: " in message


def test_a_spiked_price_turns_the_console_red_and_sends_one_message(
    market: Settings, clickhouse: Any, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    look(market, instance, lambda _: "")
    spiked = bar("000001.SZ", FRAMES[5])
    store(clickhouse, [*(b for b in minute(FRAMES[5]) if b.symbol != spiked.symbol), replace(spiked, close=999.0)])
    for _ in range(2):
        check(clickhouse, market, instance, "ohlc_consistent")
    with console(market) as live:
        finding = red(live, "verdict.check")
        assert "bars_1m / ohlc_consistent: wrong prices or volumes" in finding["text"]["en"]
        assert finding["href"] == "/report?day=2025-06-05&asset=bars_1m&check=ohlc_consistent"
    look(market, instance, lambda _: "")
    (message,) = of(receiver, "ohlc_consistent")
    assert "Found: 1 bars of 1 symbols" in message
    assert "000001.SZ 平安银行" in message
    assert "Minutes: 2025-06-05 09:35" in message
    assert "To do: look at the symbols in the report" in message


def test_a_deleted_minute_turns_the_console_red_and_sends_one_message_in_chinese_too(
    market: Settings, clickhouse: Any, receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    chinese = market.model_copy(update={"language": "zh"})
    look(chinese, instance, lambda _: "")
    store(clickhouse, [b for frame in FRAMES[:41] if frame != FRAMES[20] for b in minute(frame)])
    check(clickhouse, market, instance, "no_missing_frames")
    with console(market) as live:
        assert "缺少分钟" in red(live, "verdict.check")["text"]["zh"]
        told = report(live, DAY)
    (checked,) = told["checks"]
    assert (checked["check"], checked["passed"], checked["severity"]) == ("no_missing_frames", False, "ERROR")
    assert checked["todo"]["en"].startswith("qmt backfill --from 2025-06-05 --to 2025-06-05 --history")
    assert checked["worst"]
    look(chinese, instance, lambda _: "")
    (message,) = of(receiver, "no_missing_frames")
    assert message.startswith("[错误] bars_1m / no_missing_frames: 缺少分钟 · 2025-06-05")
    assert f"实际：缺 {len(SYMBOLS)} 根，涉及 {len(SYMBOLS)} 只代码" in message
    assert f"{FRAMES[20]:%H:%M}" in message
    assert "处理：qmt backfill --from 2025-06-05 --to 2025-06-05 --history" in message
    assert "https://m.example/report?day=2025-06-05&asset=bars_1m&check=no_missing_frames" in message


def test_a_day_without_data_has_a_report_that_says_so(market: Settings) -> None:
    with console(market) as live:
        told = report(live, date(2025, 6, 4))
    assert (told["trading_day"], told["checks"], told["account"]["bars"]) == (True, [], 0)


def test_a_day_made_from_history_is_not_asked_for_ticks(market: Settings, clickhouse: Any) -> None:
    present = evaluate.find("ticks", "rows_present")

    def outcome() -> Any:
        return evaluate.run_check(present, clickhouse, market, Window.whole(DAY))

    assert not outcome().passed, "a day with neither ticks nor bars of QMT lacks its ticks"
    row = ["1m", "000001.SZ", at(DAY, 571), 10.0, 10.0, 10.0, 10.0, 100, 1000.0]
    names = ["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    clickhouse.insert("qmt_bars", [row], column_names=names)
    assert outcome().passed
    assert "no ticks" in outcome().expected
