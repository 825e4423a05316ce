"""The console as a service on real engines: what it shows, what it refuses, and the page in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect
from pydantic import SecretStr

from qmt_orchestration.client import BarConsumer, registry
from qmt_orchestration.console import live, service
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.market.sessions import SHANGHAI, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration_tests.client.market import DAY, FRAMES, SYMBOLS, bar, minute, publish, store
from qmt_orchestration_tests.console.browser import chromium
from qmt_orchestration_tests.helpers import free_port, wait_until

TOKEN = "open sesame"
NOW = FRAMES[40]  # the market's time in these tests


@dataclass
class Console:
    """A running console, asked over HTTP as a browser would."""

    settings: Settings

    def ask(
        self, path: str, *, method: str = "GET", token: str = "", body: Any = None, host: str = "", origin: str = ""
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.console_port, timeout=60)
        headers = {"Content-Type": "application/json"} | ({"X-Console-Token": token} if token else {})
        headers |= {"Host": host} if host else {}
        headers |= {"Origin": origin} if origin else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = connection.getresponse()
        raw = reply.read().decode()
        connection.close()
        is_json = "json" in (reply.getheader("Content-Type") or "")
        return reply.status, json.loads(raw) if is_json else raw, reply.headers

    def state(self) -> dict[str, Any]:
        return dict(self.ask("/api/state")[1])


def fill_market(client: Any, clickhouse: Any) -> None:
    """A market in mid-session: an instrument list, ticks of the day, final bars, a failed check."""
    publish_clock(client, to_ms(NOW) - 20_000, 1.0)
    names = {"000001.SZ": "平安银行", "600000.SH": "浦发银行"}
    listed = [[DAY, s, names.get(s, f"Name {s[:6]}"), "main", 10.0, 11.0, 9.0, 0, 1] for s in [*SYMBOLS, "000099.SZ"]]
    columns = ["day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended", "listed"]
    clickhouse.insert("instruments", listed, column_names=columns)
    store(clickhouse, [b for frame in FRAMES[:38] for b in minute(frame)])
    tell_ticks(clickhouse, NOW - timedelta(seconds=70))
    tell_ticks(clickhouse, NOW - timedelta(seconds=30))
    check = [
        DAY,
        "bars_1m",
        "no_missing_frames",
        "run-1",
        0,
        "ERROR",
        "241 frames",
        "38 frames",
        "[]",
        datetime.now(SHANGHAI),
    ]
    clickhouse.insert(
        "quality_results", [check],
        column_names=["day", "asset", "check", "run_id", "passed", "severity", "expected", "found", "evidence", "at"],
    )  # fmt: skip


def tell_ticks(clickhouse: Any, moment: datetime, price: float = 10.5) -> None:
    """One tick per symbol, received now (ticks live by their arrival)."""
    volume = to_ms(moment) % 1_000_000_000 // 100
    rows = [
        [s, moment, price, 10.0, max(price, 10.8), 9.9, 10.0, volume * price, volume // 100, volume, 0, 13, 1,
         [price + 0.01], [price], [5], [7], volume, datetime.now(SHANGHAI), "s", 1, 0, 1.0]
        for s in SYMBOLS
    ]  # fmt: skip
    clickhouse.insert("ticks", rows, column_names=TICK_SCHEMA.names)


@pytest.fixture
def console(
    settings: Settings, redis_client: Any, clickhouse: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Console]:
    monkeypatch.setitem(live._INTERVAL, "worst", 2.0)  # seconds; tests do not wait for 20
    fill_market(redis_client, clickhouse)
    own = settings.model_copy(update={"console_port": free_port(), "console_token": SecretStr(TOKEN)})
    yield from serve(own)


@pytest.fixture
def read_only(settings: Settings, redis_client: Any, clickhouse: Any) -> Iterator[Console]:
    yield from serve(settings.model_copy(update={"console_port": free_port()}))


def serve(settings: Settings) -> Iterator[Console]:
    stop = threading.Event()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(service.run(settings, stop)))
    thread.start()
    made = Console(settings)

    def ready() -> bool:
        try:
            return "days" in made.state()
        except OSError:
            return False

    wait_until(ready, 120, "the console answers")
    yield made
    stop.set()
    thread.join(60)
    assert codes == [0], "the console ends in order, and in time"


def test_the_state_says_what_flows_and_what_does_not(console: Console, redis_client: Any) -> None:
    Heartbeat(redis_client, console.settings, "subscriber").beat({"rate": 8123.0, "symbols": 26, "delay_p99_ms": 40})
    Heartbeat(redis_client, console.settings, "writer").beat({"delay_p99_ms": 180.0, "delay_p50_ms": 60.0})
    state = wait_until(lambda: (s := console.state())["feed"]["rate"] == 8123.0 and s, 60)
    assert state["clock"]["simulated"]
    assert state["clock"]["phase"] == "phase.continuous"
    assert (state["feed"]["stored_p99_ms"], state["feed"]["symbols"]) == (180.0, 26)
    assert (int(state["minute"]["flowing"]), int(state["minute"]["expected"])) == (len(SYMBOLS), len(SYMBOLS) + 1)
    assert [(m["symbol"], m["last"]) for m in state["minute"]["missing"]] == [("000099.SZ", "")]
    assert state["minute"]["frame"] == f"{NOW:%H:%M}"
    assert state["minutes"]["full"] == len(SYMBOLS)
    assert [c[1] for c in state["minutes"]["cells"]] == [len(SYMBOLS)] * 38 + [0] * 203
    assert [(c["asset"], c["check"], c["found"]) for c in state["failed"]] == [
        ("bars_1m", "no_missing_frames", "38 frames")
    ]
    today = state["days"][-1]
    assert (today["day"], today["share"], int(today["errors"])) == ("2025-06-05", round(38 / 241, 4), 1)
    services = {s["name"]: s["state"] for s in state["services"]}
    assert services["writer"] == "running"
    assert services["publisher"] == "silent"


def test_a_quote_without_a_symbol_is_ping_an_bank(console: Console) -> None:
    status, quote, _ = console.ask("/api/quote")
    assert status == 200, quote
    assert (status, quote["symbol"], quote["name"], quote["price"]) == (200, "000001.SZ", "平安银行", 10.5)
    assert quote["change_percent"] == 5.0
    assert [b[0] for b in quote["bars"]][:38] == [int(f.timestamp()) for f in FRAMES[:38]]
    assert quote["bars"][0][1:5] == [getattr(bar("000001.SZ", FRAMES[0]), n) for n in ("open", "high", "low", "close")]
    assert quote["bars"][-1][0] == int(NOW.timestamp()), "the forming minute is there"
    assert console.ask("/api/quote?symbol=600000.sh")[1]["name"] == "浦发银行"
    assert console.ask("/api/quote?symbol=999999.SZ")[0] == 404
    assert console.ask("/api/quote?symbol=';DROP")[0] == 404
    assert [i["symbol"] for i in console.ask("/api/search?q=6000")[1]][:2] == ["600000.SH", "600001.SH"]
    assert [i["symbol"] for i in console.ask("/api/search?q=%E5%B9%B3%E5%AE%89")[1]] == ["000001.SZ"]
    assert [i["symbol"] for i in console.ask("/api/search?q=pfyh")[1]] == ["600000.SH"], "浦发银行 by its initials"


def test_changes_need_the_token(console: Console, redis_client: Any) -> None:
    registry.publish(redis_client, "c1", {"mode": "broadcast", "group": "c1", "seen_ms": int(time.time() * 1000)})
    for path in ("/api/services/writer", "/api/clients/c1", "/api/login"):
        for token in ("", "open sesamE", "open sesame ?"):
            status, reply, _ = console.ask(path, method="POST", token=token, body={"action": "stop"})
            assert (status, "token" in reply["error"]) == (401, True), (path, token)
    assert redis_client.hgetall(keys.DESIRED) == {}
    assert redis_client.get(keys.CLIENT_COMMAND.format(client_id="c1")) is None

    assert console.ask("/api/login", method="POST", token=TOKEN)[0] == 204
    assert console.ask("/api/services/writer", method="POST", token=TOKEN, body={"action": "stop"})[0] == 204
    assert redis_client.hget(keys.DESIRED, "writer") == b"stopped"
    assert console.ask("/api/services/writer", method="POST", token=TOKEN, body={"action": "restart"})[0] == 204
    assert redis_client.hget(keys.DESIRED, "writer") == b"running"
    assert console.ask("/api/clients/c1", method="POST", token=TOKEN, body={"action": "stop"})[0] == 204
    assert redis_client.get(keys.CLIENT_COMMAND.format(client_id="c1")) == b"stop"
    assert console.ask("/api/services/nonsense", method="POST", token=TOKEN, body={"action": "stop"})[0] == 404
    assert console.ask("/api/clients/nobody", method="POST", token=TOKEN, body={"action": "stop"})[0] == 404
    assert console.ask("/api/services/writer", method="POST", token=TOKEN, body={"action": "explode"})[0] == 400
    assert console.ask("/api/services/writer", method="POST", token=TOKEN, body=["stop"])[0] == 400


def test_changes_come_from_the_consoles_own_page_or_from_no_page(console: Console, redis_client: Any) -> None:
    def stop(origin: str) -> int:
        body = {"action": "stop"}
        return console.ask("/api/services/writer", method="POST", token=TOKEN, body=body, origin=origin)[0]

    port = console.settings.console_port
    for origin in ("https://evil.example", f"http://127.0.0.1:{port + 1}", "null", f"http://localhost:{port}"):
        assert stop(origin) == 403, origin
    assert redis_client.hgetall(keys.DESIRED) == {}
    assert stop(f"http://127.0.0.1:{port}") == 204
    assert redis_client.hget(keys.DESIRED, "writer") == b"stopped"


def test_without_a_configured_token_nobody_changes_anything(read_only: Console, redis_client: Any) -> None:
    for token in ("", "None", "anything"):
        status, reply, _ = read_only.ask("/api/services/writer", method="POST", token=token, body={"action": "stop"})
        assert (status, "QMT_CONSOLE_TOKEN" in reply["error"]) == (403, True)
    assert read_only.ask("/api/about")[1]["changes"] is False


def test_foreign_hosts_are_refused_and_every_answer_carries_the_headers(read_only: Console) -> None:
    port = read_only.settings.console_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        assert read_only.ask("/api/state", host=host or "0.0.0.0")[0] == 400, host
    for path in ("/", "/api/state", "/static/console.js", "/nothing", "/static/../guard.py"):
        _, _, headers = read_only.ask(path, host=f"localhost:{port}")
        assert "script-src 'self'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert headers["Cache-Control"] == "no-store"
    assert read_only.ask("/static/../guard.py")[0] == 404


def test_a_day_has_a_report_and_is_made_again_by_token_only(console: Console) -> None:
    assert console.ask("/report?day=2025-06-05")[0] == 200
    status, report, _ = console.ask("/api/report?day=2025-06-05")
    assert (status, report["account"]["bars"], report["account"]["symbols"]) == (200, 38 * len(SYMBOLS), len(SYMBOLS))
    (check,) = report["checks"]
    assert (check["check"], check["expected"]["en"], check["found"]["en"]) == (
        "no_missing_frames",
        "241 frames",
        "38 frames",
    )
    assert console.ask("/api/report?day=2025-06-04")[1]["checks"] == []
    status, drawn, _ = console.ask("/api/report/plots?day=2025-06-05")
    assert (status, [p["name"] for p in drawn["plots"]]) == (
        200,
        ["completeness_by_minute", "delay_by_minute", "volume_against_qmt"],
    )
    assert drawn["plots"][0]["points"][0] == ["09:30", len(SYMBOLS), len(SYMBOLS)]
    assert len(drawn["plots"][0]["points"]) == 38
    assert set(drawn["lowest"][0]) == {"symbol", "bars", "filled", "history", "score"}
    assert console.ask("/api/report?day=2025-06-07")[1]["trading_day"] is False
    for wrong in ("", "today", "0001-01-01", "2025-13-01"):
        assert console.ask(f"/api/report?day={wrong}")[0] == 400, wrong
        assert console.ask(f"/api/report/plots?day={wrong}")[0] == 400, wrong
    make = {"action": "make_day"}
    assert console.ask("/api/days/2025-06-05", method="POST", body=make)[0] == 401
    assert console.ask("/api/days/2025-06-07", method="POST", token=TOKEN, body=make)[0] == 400, "a Saturday"
    assert console.ask("/api/days/2025-06-05", method="POST", token=TOKEN, body={"action": "drop"})[0] == 400
    status, reply, _ = console.ask("/api/days/2025-06-05", method="POST", token=TOKEN, body=make)
    assert (status, "QMT_DAGSTER_URL" in reply["error"]) == (503, True), "no Dagster runs here"


def test_a_client_that_left_is_gone_and_its_lag_does_not_grow(console: Console, redis_client: Any) -> None:
    with BarConsumer("left_in_order", settings=console.settings) as consumer:
        consumer.stop()
    publish(redis_client, minute(FRAMES[1]))
    old = {"mode": "broadcast", "group": "c9", "seen_ms": int((time.time() - 3600) * 1000), "lag_entries": 7}
    registry.publish(redis_client, "silent_for_an_hour", old)
    clients = wait_until(lambda: (c := console.state()["clients"]) and len(c) == 2 and c, 60, "both clients")
    assert [(c["client_id"], c["state"], c["lag_entries"]) for c in clients] == [
        ("left_in_order", "gone", 0),
        ("silent_for_an_hour", "gone", 0),
    ]
    assert not [f for f in console.state()["verdict"]["findings"] if "client" in f["key"]]


def test_the_worst_symbols_are_named_with_the_reason(console: Console, clickhouse: Any) -> None:
    at_ = datetime.now(SHANGHAI)
    rejected = [["600001.SH", NOW, at_, "s", "backwards", "", ""]] * 3
    names = ["symbol", "time", "received_at", "session", "reason", "detail", "payload"]
    clickhouse.insert("ticks_rejected", rejected, column_names=names)
    worst = wait_until(lambda: (w := console.state().get("worst")) and len(w) == 2 and w, 90, "the worst")
    assert [(w["symbol"], w["why"], w["detail"], w["n"]) for w in worst] == [
        ("000099.SZ", "silent", "", 0),
        ("600001.SH", "rejected", "backwards", 3),
    ]
    assert console.state()["minute"]["groups"][0]["expected"] == len([s for s in SYMBOLS if s.endswith(".SZ")]) + 1


def test_a_missing_engine_is_shown_not_hidden(console: Console, clickhouse: Any) -> None:
    clickhouse.command("RENAME TABLE quality_results TO quality_results_away")
    state = wait_until(lambda: "failed_error" in (s := console.state()) and s, 60)
    assert "quality_results" in state["failed_error"]
    assert state["clients"] == []
    read = state["read_ms"]["failed"]
    later = wait_until(lambda: (s := console.state())["at_ms"] > read + 1500 and s, 60)
    assert later["read_ms"]["failed"] == read, "the page can tell how old this part is"
    assert later["read_ms"]["redis"] > read
    clickhouse.command("RENAME TABLE quality_results_away TO quality_results")
    wait_until(lambda: "failed_error" not in console.state(), 60)


@pytest.mark.browser
def test_the_page_finds_a_symbol_shows_its_chart_move_and_stops_a_client_by_token(
    console: Console, redis_client: Any, clickhouse: Any
) -> None:
    publish(redis_client, minute(FRAMES[0]))
    with (
        BarConsumer("client_mac_001", start="beginning", settings=console.settings) as consumer,
        chromium() as (page, messages),
    ):
        reader = threading.Thread(target=lambda: list(consumer))
        reader.start()
        page.goto(f"http://127.0.0.1:{console.settings.console_port}/")
        chart, verdict = page.locator("#chart"), page.locator("#verdict")
        expect(chart).to_have_attribute("data-symbol", "000001.SZ")
        # what needs a look stands at the top, in words: no service beats here, and a check has failed
        expect(verdict).to_have_class(re.compile("bad"))
        expect(verdict).to_contain_text("things need a look")
        expect(verdict).to_contain_text("publisher is absent")
        expect(verdict).to_contain_text("bars_1m / no_missing_frames: minutes are missing (38 frames)")
        expect(page).to_have_title(re.compile(r"^\("))
        page.locator("#symbol").focus()
        page.keyboard.insert_text("600003")
        expect(page.locator("#found li")).to_have_count(1)
        page.keyboard.press("Enter")
        expect(chart).to_have_attribute("data-symbol", "600003.SH")
        expect(chart.locator("canvas").first).to_be_attached()
        before = int(chart.get_attribute("data-bars") or 0)
        tell_ticks(clickhouse, NOW + timedelta(seconds=30), price=10.66)
        expect(page.locator("#q-price")).to_have_text("10.66")
        expect(chart).to_have_attribute("data-bars", str(before + 1))  # the chart has moved

        # without the token: the click asks for it, a wrong one is refused, nothing has happened
        row = page.locator("[data-client=client_mac_001]")
        row.locator("button").click()
        expect(page.locator("#login")).to_be_visible()
        page.keyboard.insert_text("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#login-error")).to_contain_text("wrong")
        assert registry.read_client(redis_client, "client_mac_001").command == "run"

        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#login")).to_be_hidden()
        row.locator("button").click()
        expect(page.locator("#confirm")).to_be_visible()
        page.locator("#confirm-yes").click()
        expect(row).to_contain_text("paused")
        assert registry.read_client(redis_client, "client_mac_001").state == "paused"
        # what only the browser knows: no picture has come for a while
        script = "import('/static/verdict.js').then((v) => [v.findings({}, 0), v.findings({}, 9000)])"
        fresh, old = page.evaluate(script)
        assert fresh == []
        assert old[0]["words"] == "clock, services and clients: last read 9 s ago"
        page.set_viewport_size({"width": 390, "height": 844})  # a phone: nothing is wider, lag and button still there
        wait_until(lambda: page.evaluate("document.documentElement.scrollWidth") <= 390, 60, "the page fits")
        box = row.locator("button").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        refused = [m for m in messages if "401" not in m]
        assert refused == [], "no script error, nothing that the security policy refuses"
        consumer.stop()
        reader.join(60)


def test_wrong_values_in_redis_leave_the_page_alive_and_its_json_readable(console: Console, redis_client: Any) -> None:
    beat = {"service": "writer", "host": "h", "beat_ms": int(time.time() * 1000), "state": "running"}
    redis_client.hset(keys.HEARTBEAT.format(host="h", service="writer"), mapping={**beat, "delay_p99_ms": "nan"})
    redis_client.hset(keys.HEARTBEAT.format(host="h", service="odd"), mapping={b"\xff": b"\xfe"})
    redis_client.hset(keys.DESIRED, mapping={"writer#restart": "x", b"\xff": b"\xff"})
    redis_client.sadd(keys.CLIENTS, b"\xff", "c1", "c2")
    redis_client.hset(
        keys.CLIENT.format(client_id="c1"), mapping={"mode": "broadcast", "seen_ms": "now", "rate": "inf"}
    )
    redis_client.hset(keys.CLIENT.format(client_id="c2"), mapping={"mode": "broadcast", "groups": "a,|,x|y|z"})
    redis_client.set(keys.CLIENT.format(client_id="c3"), "text")
    redis_client.sadd(keys.CLIENTS, "c3")
    begun = console.state()["at_ms"]
    state = wait_until(lambda: (s := console.state())["at_ms"] > begun + 2000 and s, 30)
    assert "error" not in state
    json.dumps(state, allow_nan=False)
    assert {"c1", "c2"} <= {client["client_id"] for client in state["clients"]}
    assert next(s for s in state["services"] if s["name"] == "writer")["state"] == "running"


def test_the_page_serves_many_at_once(console: Console) -> None:
    def listen(out: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", console.settings.console_port, timeout=60)
        connection.request("GET", "/api/events")
        reply = connection.getresponse()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and sum(line.startswith("data:") for line in out) < 3:
            out.append(reply.readline().decode())
        connection.close()

    heard: list[list[str]] = [[] for _ in range(10)]
    threads = [threading.Thread(target=listen, args=(out,)) for out in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for out in heard:
        events = [json.loads(line[5:]) for line in out if line.startswith("data:")]
        assert len(events) == 3
        assert events[-1]["clock"]["ms"] > events[0]["clock"]["ms"]
