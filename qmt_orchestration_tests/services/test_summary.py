"""The live line of `qmt up`."""

from __future__ import annotations

from datetime import date
from typing import Any

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.services.summary import Summary
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.stream.heartbeat import Heartbeat

DAY, LATER = date(2025, 6, 5), date(2025, 6, 6)


def test_the_line_tells_of_the_markets_own_day(settings: Settings, redis_client: Any, clickhouse: Any) -> None:
    """A folder may hold replayed days after the simulated one, and yesterday's last minute is no news this morning."""
    said: list[str] = []
    summary = Summary(settings, redis_client, ui=False, say=said.append)
    assert any(settings.clickhouse_url in line for line in said)
    assert summary.line() == "waiting for the simulated market"
    publish_clock(redis_client, to_ms(at(LATER, 571)), 0.0)
    Heartbeat(redis_client, settings, "subscriber").beat({"symbols": 5123, "rate": 1234.4})
    publisher, writer = (Heartbeat(redis_client, settings, name) for name in ("publisher", "writer"))
    publisher.beat({"last_frame": f"{DAY} 15:00"})

    def bars(day: date, minutes: int) -> None:
        clickhouse.insert("final_frames", [[day, at(day, minutes)]], column_names=["day", "frame"])

    bars(DAY, 900)
    bars(date(2025, 6, 9), 900)
    quiet = "market 2025-06-06 09:31:00 · symbols 5,123 · 1,234 ticks/s · stored 0 · delay – · published – · final –"
    assert summary.line() == quiet
    publisher.beat({"last_frame": f"{LATER} 09:31"})
    writer.beat({"stored": 20000, "delay_p99_ms": 123.4})
    bars(LATER, 570)
    assert summary.line().endswith("stored 20,000 · delay p99 123 ms · published 09:31 · final 09:30")
