"""Metrics: the promised names, values from real heartbeats and tables, bounded and cached, and what the files use."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qmt_orchestration.doctor import Level
from qmt_orchestration.doctor.servers import clickhouse_findings
from qmt_orchestration.market.sessions import SHANGHAI, to_ms
from qmt_orchestration.services import metrics
from qmt_orchestration.services.metrics import make_registry, start_metrics_server
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import DELAY_BUCKETS_MS, Heartbeat
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.ingest.commit import LaneCounters
from qmt_orchestration.warehouse.migrate import migrate
from qmt_orchestration.warehouse.writer import delay_histogram
from qmt_orchestration_tests.client.market import DAY, FRAMES, minute, store
from qmt_orchestration_tests.helpers import free_port
from qmt_orchestration_tests.services.test_deploy import served_as

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMISED = {
    "qmt_ticks_received_total": set(),
    "qmt_ticks_rejected_total": {"reason"},
    "qmt_feed_delay_seconds_bucket": {"le"},
    "qmt_market_time_timestamp_seconds": set(),
    "qmt_consumer_lag_entries": {"group"},
    "qmt_bars_final_timestamp_seconds": {"period"},
    "qmt_check_passed": {"asset", "check"},
    "qmt_service_up": {"service"},
    "qmt_process_resident_memory_bytes": {"service"},
    "qmt_insert_seconds_sum": set(),
    "qmt_insert_seconds_count": set(),
}
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


class Lane:
    """A lane with its counters of delays, in ms."""

    def __init__(self, *delays: int) -> None:
        self.counters = LaneCounters()
        self.counters.delays = np.bincount(delays, minlength=60_001)


def parse(text: str) -> Samples:
    """Name → labels → value; what Prometheus' own parser understands."""
    out: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return out


def value(samples: Samples, name: str, **labels: str) -> float:
    """The value of the one sample with these labels."""
    (found,) = [v for k, v in samples[name].items() if set(labels.items()) <= k]
    return found


def fill(settings: Settings, client: Any, clickhouse: Any) -> None:
    """Heartbeats of two services, a market clock, a lagging group, bars and verdicts."""
    own = settings.model_copy(update={"host_name": "h1"})
    publish_clock(client, to_ms(FRAMES[40]), 1.0)
    Heartbeat(client, own, "subscriber").beat(
        {"received": 1000, "rejected_backwards": 3, "rejected_bad price": 2, "rejected": 5, "rejected_x": "many"}
    )
    inserts = {"inserts": 4, "insert_seconds": 0.5}
    Heartbeat(client, own, "writer").beat({**inserts, **delay_histogram([Lane(20, 90, 90, 700, 60_000)])})  # type: ignore[list-item]
    client.xgroup_create(keys.BARS, "minute_bar_consumers:mac", "0", mkstream=True)
    for number in range(3):
        client.xadd(keys.BARS, {"symbol": "x", "seq": number + 1}, id=f"{number + 1}-1")
    store(clickhouse, [b for frame in FRAMES[:38] for b in minute(frame)])
    names = ["day", "asset", "check", "run_id", "passed", "severity", "expected", "found", "evidence", "at"]
    for hour, passed in ((10, 1), (11, 0)):
        at = datetime(2025, 6, 5, hour, tzinfo=SHANGHAI)
        row = [DAY, "bars_1m", "no_missing_frames", f"r{hour}", passed, "ERROR", "", "", "[]", at]
        clickhouse.insert("quality_results", [row], column_names=names)


def test_every_promised_metric_with_its_value(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    fill(settings, redis_client, clickhouse)
    samples = parse(generate_latest(make_registry(settings, redis_client, warehouse=lambda: clickhouse)).decode())
    for name, labels in PROMISED.items():
        assert name in samples, name
        assert labels <= {label for label, _ in next(iter(samples[name]))}, name
    assert value(samples, "qmt_ticks_received_total") == 1000
    assert value(samples, "qmt_ticks_rejected_total", reason="backwards") == 3
    assert value(samples, "qmt_ticks_rejected_total", reason="bad price") == 2
    assert value(samples, "qmt_feed_delay_seconds_bucket", le="0.05") == 1
    assert value(samples, "qmt_feed_delay_seconds_bucket", le="0.1") == 3
    assert value(samples, "qmt_feed_delay_seconds_bucket", le="1.0") == 4
    assert value(samples, "qmt_feed_delay_seconds_bucket", le="+Inf") == 5
    assert value(samples, "qmt_feed_delay_seconds_sum") == pytest.approx(60.9)
    assert value(samples, "qmt_insert_seconds_sum") == 0.5
    assert value(samples, "qmt_insert_seconds_count") == 4
    assert value(samples, "qmt_service_up", service="writer") == 1
    assert value(samples, "qmt_service_up", service="publisher") == 0
    assert value(samples, "qmt_process_resident_memory_bytes", service="writer", host="h1") > 1e6
    assert value(samples, "qmt_consumer_lag_entries", group="minute_bar_consumers:mac") == 3
    assert value(samples, "qmt_market_time_timestamp_seconds") == pytest.approx(FRAMES[40].timestamp(), abs=2)
    assert value(samples, "qmt_bars_final_timestamp_seconds", period="1m") == FRAMES[37].timestamp()
    assert value(samples, "qmt_check_passed", asset="bars_1m", check="no_missing_frames") == 0, "the last verdict"
    assert value(samples, "qmt_scrape_error", source="redis") == 0
    assert all(label != "symbol" for found in samples.values() for key in found for label, _ in key)


def test_many_scrapes_ask_once_in_five_seconds(
    settings: Settings, redis_client: Any, clickhouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, redis_client, clickhouse)
    asked: list[str] = []
    query: Callable[..., Any] = clickhouse.query
    monkeypatch.setattr(clickhouse, "query", lambda text, **more: (asked.append(text), query(text, **more))[1])
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    registry = make_registry(settings, redis_client, warehouse=lambda: clickhouse)
    for _ in range(20):
        generate_latest(registry)
    assert len(asked) == 2
    now[0] += metrics.CACHE_SECONDS + 0.1
    generate_latest(registry)
    assert len(asked) == 4


def test_labels_from_outside_are_bounded(settings: Settings, redis_client: Any) -> None:
    told: dict[str, int | float | str] = {f"rejected_reason{i:04}": 1 for i in range(500)}
    Heartbeat(redis_client, settings, "subscriber").beat({**told, "received": 'x"} evil 1\n'})
    for number in range(100):
        redis_client.xgroup_create(keys.BARS, f"group{number}", "0", mkstream=True)
    samples = parse(generate_latest(make_registry(settings, redis_client)).decode())
    assert len(samples["qmt_ticks_rejected_total"]) == metrics.LABELS_AT_MOST
    assert len(samples["qmt_consumer_lag_entries"]) <= metrics.LABELS_AT_MOST + 1
    assert "qmt_ticks_received_total" not in samples, "what is no number is left out"


def test_a_source_that_is_away_is_shown_and_the_others_go_on(settings: Settings, redis_client: Any) -> None:
    Heartbeat(redis_client, settings, "writer").beat({})
    nobody = settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{free_port()}"})
    registry = make_registry(settings, redis_client, warehouse=lambda: connect_clickhouse(nobody))
    samples = parse(generate_latest(registry).decode())
    assert value(samples, "qmt_scrape_error", source="clickhouse") == 1
    assert value(samples, "qmt_service_up", service="writer") == 1
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    samples = parse(generate_latest(make_registry(away, connect(away, retries=0))).decode())
    assert value(samples, "qmt_scrape_error", source="redis") == 1


def test_the_roles_of_the_services_may_read_what_is_measured_and_examined(
    settings: Settings, redis_client: Any
) -> None:
    with served_as("qmt_owner", settings) as owner:
        migrate(owner)
        found = clickhouse_findings(owner, lambda: connect_clickhouse(owner, database=""))
        assert {finding.level for finding in found if finding.check != "clickhouse disk"} == {Level.OK}, found
    with served_as("qmt_service", settings) as service, connect_clickhouse(service) as client:
        samples = parse(generate_latest(make_registry(service, redis_client, warehouse=lambda: client)).decode())
        assert value(samples, "qmt_scrape_error", source="clickhouse") == 0
        found = clickhouse_findings(service, lambda: connect_clickhouse(service, database=""))
        assert not [finding for finding in found if finding.level is Level.ERROR], found


def test_an_agent_serves_its_own_host_on_loopback(settings: Settings, redis_client: Any) -> None:
    own = settings.model_copy(update={"host_name": "h1", "metrics_port": free_port()})
    Heartbeat(redis_client, own, "agent").beat({"services": "subscriber,gateway"})
    Heartbeat(redis_client, own, "subscriber").beat({"received": 7})
    Heartbeat(redis_client, own.model_copy(update={"host_name": "h2"}), "writer").beat({"inserts": 1})
    stop = start_metrics_server(own)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", own.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        samples = parse(connection.getresponse().read().decode())
        connection.close()
        assert value(samples, "qmt_service_up", service="subscriber") == 1
        assert value(samples, "qmt_service_up", service="gateway") == 0
        assert not any(("service", "writer") in key for key in samples["qmt_service_up"])
        assert value(samples, "qmt_agent_start_timestamp_seconds") > 1e9
        second = start_metrics_server(own, redis_client)  # the port is in use: a warning, no end
        second()
    finally:
        stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own.metrics_port)) != 0, "nothing listens after its end"


# -- the files that use them -------------------------------------------------------------------------------------------


def used(text: str) -> set[str]:
    """Names of metrics in an expression or a file."""
    return set(re.findall(r"\bqmt_[a-z_]+", text))


def shown_names(settings: Settings, client: Any, clickhouse: Any) -> set[str]:
    """Every name of the exposition."""
    fill(settings, client, clickhouse)
    return set(parse(generate_latest(make_registry(settings, client, warehouse=lambda: clickhouse)).decode()))


def test_dashboard_and_rules_use_names_that_exist(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    told = shown_names(settings, redis_client, clickhouse)
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    dashboard = json.loads((DEPLOY / "grafana/qmt.json").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    for expression in expressions:
        assert used(expression) <= told, used(expression) - told
        promql_parser.parse(expression)  # raises on what Prometheus would refuse
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in PROMISED}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used(" ".join(expressions))}
    assert bases <= shown, "each promised metric is on the dashboard or in a rule"


def test_rules_and_scrapes_have_what_prometheus_asks_for() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
            assert re.fullmatch(r"\d+[sm]", rule["for"])
            assert rule["labels"]["severity"] in ("warning", "error")
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    targets = [
        target for job in config["scrape_configs"] for static in job["static_configs"] for target in static["targets"]
    ]
    defaults = Settings()
    assert targets == [f"127.0.0.1:{defaults.console_port}", f"127.0.0.1:{defaults.metrics_port}"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "grafana/qmt.json").read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_buckets_lie_within_what_the_writer_measures() -> None:
    assert list(DELAY_BUCKETS_MS) == sorted(set(DELAY_BUCKETS_MS))
    assert DELAY_BUCKETS_MS[-1] < 60_000
