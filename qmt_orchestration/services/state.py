"""The state of the whole system in one object: what `qmt status --json` prints.

The live line of `qmt up`, the control of the simulated market's speed, the console and alerts read it here, so that
they never disagree.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.sessions import CLOSE, CLOSING_CALL, OPEN, SHANGHAI, from_ms, in_session
from qmt_orchestration.services.desired import Desired, read_desired
from qmt_orchestration.services.speed import BEHIND_LIMIT_MINUTES, DELAY_LIMIT_S
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields, keys
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.heartbeat import read_all, reported
from qmt_orchestration.warehouse.client import load_sql

#: Services without which nothing flows; the others count when some host's agent has them.
NEEDED: Final = ("subscriber", "gateway", "writer", "publisher")
_SILENT_MS: Final = 5000
_RUNNING: Final = frozenset({"running", "standby", "finished"})


@dataclass(frozen=True)
class SystemState:
    """Delays are wall seconds from the feed's callback until the row is visible, over the last 10 s (None: nothing
    was stored). ``last_published`` and ``last_final`` are minutes of the market's day; ``final_behind_minutes`` are
    market minutes between the newest final one and now, breaks left out. ``reasons`` is empty when all is well."""

    market_time: str
    simulated: bool
    speed: float
    speed_reason: str
    delay_p50_s: float | None
    delay_p99_s: float | None
    lag_s: float
    last_published: str | None
    last_final: str | None
    final_behind_minutes: float
    symbols: int
    ticks_per_s: float
    stored: int
    instruments: int
    services: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 degraded (``reasons`` say why); 2, unreachable, is the caller's."""
        return 1 if self.reasons else 0


def read_state(redis: Any, clickhouse: Any, settings: Settings) -> SystemState:
    """The state now; *clickhouse* is None when it cannot be reached, which is one of the reasons. Raises
    `redis.RedisError`."""
    clock, beats, desired = read_clock(redis), read_all(redis), read_desired(redis)
    now = clock.now()
    newest = {beat["service"]: beat for beat in sorted(beats, key=lambda b: fields.integer(b, "beat_ms"))}
    feed, writer = newest.get("subscriber", {}), newest.get("writer", {})
    reasons = []
    final, instruments = None, 0
    try:
        if clickhouse is None:
            raise ConnectionError
        final, instruments = _of_warehouse(clickhouse, now)
    except Exception as error:  # whatever the driver raises: the engine restarts, hangs or refuses
        reasons.append(f"ClickHouse does not answer ({type(error).__name__})")
    services = service_states(beats, time.time() * 1000)
    reasons += _missing(services, desired)
    reasons += [
        f"{name}: {beat['error']}"
        for name, beat in newest.items()
        if services.get(name) == "running" and beat.get("error")
    ]
    behind = _trading_minutes(now) - (_trading_minutes(final) if final else 0.0) if is_trading_day(now.date()) else 0.0
    p50, p99 = (_seconds(writer, name) for name in ("delay_p50_ms", "delay_p99_ms"))
    lag = fields.number(writer, "lag_seconds", low=0.0)
    rate = fields.number(feed, "rate", low=0.0)
    if max(p99 or 0.0, lag) > DELAY_LIMIT_S:
        reasons.append(f"ticks visible after {max(p99 or 0.0, lag):.1f} s, expected at most {DELAY_LIMIT_S:g} s")
    if behind > BEHIND_LIMIT_MINUTES:
        reasons.append(f"final bars {behind:.1f} market minutes behind, expected at most {BEHIND_LIMIT_MINUTES:g}")
    if _continuous(now) and "subscriber" in newest and rate == 0 and clock.speed > 0:
        reasons.append("no ticks arrive in a trading session")
    return SystemState(
        market_time=now.isoformat(timespec="seconds"),
        simulated=clock.simulated,
        speed=round(clock.speed, 2),
        speed_reason=clock.reason,
        delay_p50_s=p50,
        delay_p99_s=p99,
        lag_s=round(lag, 3),
        last_published=_last_published(redis, clock),
        last_final=f"{final:%H:%M}" if final else None,
        final_behind_minutes=round(max(behind, 0.0), 2),
        symbols=fields.integer(feed, "symbols", low=0),
        ticks_per_s=rate,
        stored=fields.integer(writer, "stored_total", low=0),
        instruments=instruments,
        services=services,
        reasons=tuple(reasons),
    )


def service_states(beats: Sequence[Mapping[str, str]], now_ms: float) -> dict[str, str]:
    """What each service does, by heartbeats and agents' reports; the best one where several hosts have it."""
    out: dict[str, str] = {}

    for beat in beats:
        fresh = now_ms - fields.integer(beat, "beat_ms") < _SILENT_MS
        if out.get(beat["service"]) not in _RUNNING:
            out[beat["service"]] = beat.get("state", "running") if fresh else "silent"
    for beat in beats:
        for name, report in reported(beat).items():
            out.setdefault(name, report.get("state", "running"))
    return out


def _missing(services: Mapping[str, str], desired: Mapping[str, Desired]) -> list[str]:
    out = []
    for name in sorted({*NEEDED, "agent", *services}):
        state = services.get(name, "absent")
        if state not in _RUNNING and desired.get(name, Desired()).state == "running":
            out.append(f"{name} is {state}")
    return out


def _of_warehouse(clickhouse: Any, now: datetime) -> tuple[datetime | None, int]:
    """The newest minute of the market's day that is final, and how many instruments of the day are stored."""
    frame, instruments = clickhouse.query(load_sql("state"), parameters={"day": now.date()}).first_row
    moment: datetime = frame.astimezone(SHANGHAI) if frame.tzinfo else frame.replace(tzinfo=SHANGHAI)
    return min(moment, now) if moment.year > 1970 else None, int(instruments)


def _last_published(redis: Any, clock: MarketClock) -> str | None:
    """The newest minute of the market's day on the stream; the publisher marks a revised day with 15:05."""
    raw = redis.hget(keys.PUBLISHED, clock.today().isoformat())
    ms = fields.integer({"ms": raw}, "ms", low=0, high=fields.LAST_MS) if raw is not None else 0
    return f"{min(from_ms(ms).time(), CLOSE):%H:%M}" if ms else None


def _trading_minutes(moment: datetime) -> float:
    """Trading minutes of its day that have passed, breaks left out: 0 up to 09:30, 240 from 15:00 on."""
    minutes = moment.hour * 60 + moment.minute + moment.second / 60
    return min(max(minutes - 570, 0.0), 120.0) + min(max(minutes - 780, 0.0), 120.0)


def _continuous(moment: datetime) -> bool:
    """Whether the market trades without a call auction, so that ticks come all the time."""
    return is_trading_day(moment.date()) and in_session(moment) and OPEN <= moment.time() < CLOSING_CALL


def _seconds(beat: Mapping[str, str], name: str) -> float | None:
    value = fields.number(beat, name, default=-1.0)
    return round(value / 1000, 3) if value >= 0 else None
