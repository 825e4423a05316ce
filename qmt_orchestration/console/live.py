"""What the page shows, gathered once for all viewers: clock, feed, minute, services, clients (Redis, every second), the
strips of minutes and days and the failed checks (ClickHouse, every few seconds). A part that cannot be read has an
``error``; the others go on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any, Final, TypeVar

import redis

from qmt_orchestration.client.registry import list_clients
from qmt_orchestration.console.verdict import both, judge
from qmt_orchestration.market.calendar import is_trading_day, trading_days
from qmt_orchestration.market.sessions import (
    FRAMES_PER_DAY,
    at,
    frame_label,
    from_ms,
    in_session,
    minute_frames,
)
from qmt_orchestration.services.desired import read_desired
from qmt_orchestration.services.news import news, span_start
from qmt_orchestration.services.registry import SERVICES
from qmt_orchestration.services.state import read_state
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import heartbeat, threads
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.fields import finite, number
from qmt_orchestration.warehouse.client import connect as connect_clickhouse
from qmt_orchestration.warehouse.client import load_sql

log = logging.getLogger(__name__)
T = TypeVar("T")

CALENDAR_DAYS: Final = 60
GONE_SECONDS: Final = 600.0  # a client that is silent for longer has left: its lag means nothing any more
MOST_WORST: Final = 10
_HISTORY: Final = 240  # seconds of the sparkline
_DAYS_AT_ONCE: Final = 3
_INTERVAL: Final = {
    "minute": 1.0,
    "state": 2.0,
    "minutes": 4.0,
    "days": 4.0,
    "failed": 5.0,
    "worst": 20.0,
}  # seconds between queries


def phase(clock: MarketClock) -> str:
    """The part of the trading day, as a key of the texts."""
    now = clock.now()
    if not is_trading_day(now.date()):
        return "phase.holiday"
    minute = now.hour * 60 + now.minute
    for end, name in (
        (555, "before"),
        (570, "opening"),
        (690, "continuous"),
        (780, "lunch"),
        (897, "continuous"),
        (901, "closing"),
        (930, "after"),
    ):
        if minute < end:
            return f"phase.{name}"
    return "phase.closed"


class Live:
    """Gathers in a thread of its own; `snapshot` is the newest whole picture, `version` counts them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis: Any = connect(settings, retries=1)
        self._warehouse: Any = None
        self._seen: dict[str, Any] = {}  # what was last read from Redis
        self._parts: dict[str, Any] = {}  # what was last read from ClickHouse
        self._due: dict[str, float] = {}
        self._past_days: dict[date, tuple[float, dict[str, Any]]] = {}
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._stop = threading.Event()
        self._market: MarketClock | None = None
        self._threads: list[threading.Thread] = []
        self._read_ms = dict.fromkeys(("redis", *_INTERVAL), int(time.time() * 1000))  # part -> when it was last read
        self.snapshot: dict[str, Any] = {}
        self.version = 0

    def start(self) -> None:
        """Begin gathering."""
        # ClickHouse has a thread of its own: a busy warehouse must not stop the clock and the services of the page
        self._threads = [
            threads.start("console-redis", self._gather, self._stop, 0.8),
            threads.start("console-clickhouse", self._ask_warehouse, self._stop, 0.2),
        ]

    def stop(self) -> None:
        """End, and close the connections."""
        self._stop.set()
        for thread in self._threads:
            thread.join(3)
        self.redis.close()
        if self._warehouse is not None:
            self._warehouse.close()

    def warehouse(self) -> Any:
        """The ClickHouse client; may be used from several threads."""
        if self._warehouse is None:
            client = connect_clickhouse(self.settings)
            client.set_client_setting("max_execution_time", 20)  # a page that waits longer is no help at 09:30
            self._warehouse = client
        return self._warehouse

    def rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of ``console/queries/<name>.sql`` as dictionaries."""
        return list(self.warehouse().query(load_sql(name, "console"), parameters=parameters).named_results())

    def _ask_warehouse(self) -> None:
        clock = self._market
        if clock is None:
            return
        day = clock.today()
        self._query("minute", self._minute, clock)
        self._query("state", self._state, None)
        self._query("minutes", self._minutes, day)
        self._query("days", self._days, day)
        self._query("failed", self._failed, day)
        self._query("worst", self._worst, day)

    def _gather(self) -> None:
        """Read Redis and publish a new snapshot, with what was last read from ClickHouse."""
        now: dict[str, Any] = {}
        try:
            clock = self._market = read_clock(self.redis)
            beats = heartbeat.read_all(self.redis)
            now |= {"clock": self._clock(clock), "feed": self._feed(beats), "services": self._services(beats)}
            now["news"] = news(beats)
            now["clients"] = [_client(info) for info in list_clients(self.redis)]
        except (redis.RedisError, OSError) as error:
            self._publish({**self._seen, "error": f"Redis does not answer: {error}"[:300]})
            log.warning("console: Redis does not answer: %s", error)
        except Exception as error:  # shown on the page; the thread logs it and goes on
            self._publish({**self._seen, "error": f"Redis cannot be read: {type(error).__name__}: {error}"[:300]})
            raise
        else:
            self._read_ms["redis"] = int(time.time() * 1000)
            self._seen = now
            self._publish(now)

    def _publish(self, now: Mapping[str, Any]) -> None:
        """A new snapshot: *now* with the newest from ClickHouse, and when each part was read (epoch ms, our clock)."""
        picture = {**now, **self._parts, "at_ms": int(time.time() * 1000), "read_ms": dict(self._read_ms)}
        limits = (self.settings.quality_silence_warn_seconds, self.settings.quality_silence_error_seconds)
        picture["verdict"] = judge(picture, limits)
        self.snapshot, self.version = finite(picture), self.version + 1

    def _query(self, name: str, read: Callable[[T], Any], argument: T) -> None:
        if time.monotonic() < self._due.get(name, 0):
            return
        began = time.monotonic()
        try:
            parts = {**self._parts, name: read(argument)}
            parts.pop(f"{name}_error", None)
            self._parts = parts
            self._read_ms[name] = int(time.time() * 1000)
        except Exception as error:  # whatever a database can say is shown on the page, in the part it belongs to
            self._parts = {**self._parts, f"{name}_error": f"ClickHouse: {str(error)[:300]}"}
            log.warning("console: %s cannot be read: %s", name, str(error)[:300])
        # a slow query is made less often: the console must not become the load
        self._due[name] = time.monotonic() + max(_INTERVAL[name], 5 * (time.monotonic() - began))

    # -- the parts --------------------------------------------------------------------------------------------

    def _clock(self, clock: MarketClock) -> dict[str, Any]:
        now = clock.now()
        return {
            "ms": clock.now_ms(),
            "now": now.isoformat(),
            "speed": clock.speed,
            "reason": both(clock.reason),
            "simulated": clock.simulated,
            "expects_ticks": span_start(now) is not None and is_trading_day(now.date()),
            "phase": phase(clock),
            "in_session": is_trading_day(now.date()) and in_session(now),
            "day": now.date().isoformat(),
        }

    def _feed(self, beats: list[dict[str, str]]) -> dict[str, Any]:
        by_name = {beat["service"]: beat for beat in beats if beat.get("state") != "standby"}
        feed, writer = by_name.get("subscriber", {}), by_name.get("writer", {})
        publisher = by_name.get("publisher", {})
        self._rates.append(number(feed, "rate"))
        return {
            "rate": number(feed, "rate"),
            "history": list(self._rates),
            "symbols": number(feed, "symbols"),
            "success_percent": number(feed, "success_percent", 100.0),
            "rejected": number(feed, "rejected"),
            "received": number(feed, "received"),
            "publish_p99_ms": number(feed, "delay_p99_ms"),
            "stored_p50_ms": number(writer, "delay_p50_ms"),
            "stored_p99_ms": number(writer, "delay_p99_ms"),
            "writer_lag": number(writer, "lag_entries"),
            "lost": number(writer, "lost"),
            "last_frame": publisher.get("last_frame", ""),
            "bar_delay_ms": number(publisher, "delay_ms"),
            "alive": bool(feed),
        }

    def _services(self, beats: list[dict[str, str]]) -> list[dict[str, Any]]:
        desired = read_desired(self.redis)
        out = []
        names = [*SERVICES, *sorted({b["service"] for b in beats} - set(SERVICES))]
        for name in names:
            wanted = desired[name].state if name in desired else "running"
            own = [b for b in beats if b["service"] == name] or [{}]
            for beat in own:
                age = time.time() - number(beat, "beat_ms") / 1000 if beat else None
                state = beat.get("state", "silent") if beat else ("stopped" if wanted == "stopped" else "silent")
                if beat and state == "running" and age is not None and age > self.settings.service_stale_seconds:
                    state = "silent"
                out.append(
                    {
                        "name": name,
                        "host": beat.get("host", ""),
                        "state": state,
                        "desired": wanted,
                        "managed": name in SERVICES,
                        "started_ms": number(beat, "started_ms"),
                        "memory_mb": number(beat, "memory_mb"),
                        "error": beat.get("error") or beat.get("last_error") or "",
                    }
                )
        return out

    def _state(self, _: None) -> dict[str, Any]:
        return asdict(read_state(self.redis, self.warehouse(), self.settings))

    def _minute(self, clock: MarketClock) -> dict[str, Any]:
        """What flows in the newest minute, by market and kind, and in all."""
        now = clock.now()
        label = frame_label(now.hour * 60 + now.minute) or 900
        rows = self.rows("flowing", day=now.date(), frame=int(at(now.date(), label).timestamp()))
        groups = [{k: v if k in ("exchange", "kind") else int(v) for k, v in r.items() if k != "missing"} for r in rows]
        total = {name: sum(group[name] for group in groups) for name in _FLOW}
        missing = [
            {"symbol": symbol, "name": name, "last": f"{from_ms(last * 1000):%H:%M}" if last else ""}
            for row in rows
            for symbol, name, last in row["missing"]
        ]
        newest = max((group["newest_frame"] for group in groups), default=0)
        frame = f"{from_ms(newest * 1000):%H:%M}" if newest else ""
        return {**total, "frame": frame, "groups": groups, "missing": missing[:24]}

    def _worst(self, day: date) -> list[dict[str, Any]]:
        """The worst symbols, with why: silent, rejected, thin, suspended; some of each."""
        by_reason: dict[str, list[dict[str, Any]]] = {why: [] for why in ("silent", "rejected", "thin", "suspended")}
        for one in self._parts.get("minute", {}).get("missing", []):
            by_reason["silent"].append({**one, "why": "silent", "detail": one["last"], "n": 0})
        for row in self.rows("worst", day=day):
            by_reason[row["why"]].append({**row, "n": int(row["n"])})
        share = [one for found in by_reason.values() for one in found[:4]]
        more = [one for found in by_reason.values() for one in found[4:]]
        return [*share, *more][:MOST_WORST]

    def _minutes(self, day: date) -> dict[str, Any]:
        rows = {int(row["frame_s"]): row for row in self.rows("minutes", day=day)}
        full = max((int(row["bars"]) for row in rows.values()), default=0)
        cells = []
        for frame in minute_frames(day):
            row = rows.get(int(frame.timestamp()))
            bars, filled = (int(row["bars"]), int(row["filled"])) if row else (0, 0)
            cells.append([f"{frame:%H:%M}", bars, filled, int(row["history"]) if row else 0])
        return {"day": day.isoformat(), "full": full, "cells": cells}

    def _today(self) -> dict[str, Any]:
        """The row of ``day.sql`` for the running day, from the minutes that were read anyway."""
        minutes = self._parts.get("minutes", {"full": 0, "cells": []})
        bars = [cell[1] for cell in minutes["cells"]]
        history = sum(cell[3] for cell in minutes["cells"])
        return {"symbols": minutes["full"], "frames": sum(map(bool, bars)), "bars": sum(bars), "history": history}

    def _failed(self, day: date) -> list[dict[str, Any]]:
        return [
            {**row, "shown": {"expected": both(row["expected"]), "found": both(row["found"])}}
            for row in self.rows("failed", day=day)
        ]

    def _days(self, today: date) -> list[dict[str, Any]]:
        verdicts = {row["day_text"]: row for row in self.rows("verdicts", day=today)}
        days = trading_days(today - timedelta(days=2 * CALENDAR_DAYS), today)[-CALENDAR_DAYS:]
        stale = [day for day in days if time.monotonic() > self._past_days.get(day, (0.0, {}))[0]]
        for day in stale[-1 : -1 - _DAYS_AT_ONCE : -1]:  # newest first, few at once: the page must not become the load
            row = self._today() if day == today else self.rows("day", day=day)[0]
            share = int(row["bars"]) / (int(row["symbols"]) * FRAMES_PER_DAY) if row["symbols"] else 0.0
            # an old day changes only by a backfill: look again in ten minutes, at today every time
            self._past_days[day] = (
                time.monotonic() + (0 if day == today else 600),
                {**row, "share": round(share, 4), "known": True},
            )
        out = []
        for day in days:
            verdict = verdicts.get(day.isoformat(), {})
            known = self._past_days.get(day, (0.0, {}))[1]
            out.append({"day": day.isoformat(), **known, **{k: verdict.get(k, 0) for k in _VERDICT}})
        return out


_VERDICT: Final = ("checks", "errors", "warnings", "checked_s")
_FLOW: Final = ("expected", "flowing", "flowed", "never")


def _client(info: Any) -> dict[str, Any]:
    shown = asdict(info)
    shown.pop("groups")
    shown["seen_seconds"] = None if info.seen_ms == 0 else round(info.seen_seconds, 1)
    if info.state == "stopped" or (info.state == "down" and info.seen_seconds > GONE_SECONDS):
        shown |= {"state": "gone", "lag_entries": 0, "lag_seconds": 0.0, "lag_at_least": False, "pending": 0}
    return shown
