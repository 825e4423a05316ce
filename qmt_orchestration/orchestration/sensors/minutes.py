"""The minute sensor: requests one run that finalizes what has closed, at the moment it closes.

What is to do follows from ClickHouse's own state (`warehouse.bars.pending`), not from the sensor's memory: a lost or
failed run leaves its frames pending, so the next request covers them. There is never more than one such run in
flight; behind the market, one run takes all minutes that have closed meanwhile. After a failed run the next request
waits, longer each time.

Dagster's sensor loop comes by every 5 s. So that a minute need not wait for it, an evaluation in which the next minute
is about to close waits for that. It waits without a connection until the close is due, and no longer than
`WAIT_SECONDS`, so that the daemon stops promptly.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

import dagster as dg

from qmt_orchestration.market.periods import intraday, minutes_of
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, minute_frames, to_ms
from qmt_orchestration.orchestration.assets.plugins import computed_check
from qmt_orchestration.orchestration.jobs import FINALIZE_MINUTES
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource
from qmt_orchestration.plugins import Plugins, Processor
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.warehouse.bars import closed_watermark, pending, stored_late

IN_FLIGHT: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
ENDED: Final = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
LONGEST_PAUSE_SECONDS: Final = 300
WAIT_SECONDS: Final = 8.0  # more than Dagster's 5 s between two evaluations: no close falls between them
POLL_SECONDS: Final = (0.25, 1.0)  # at first; when the minute is late
LATE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 60.0  # everything is looked at this often; for late ticks alone, every evaluation looks
CLOCKS_SECONDS: Final = 5.0  # by so much this host's clock and ClickHouse's may differ


@dataclass(frozen=True)
class Cursor:
    """What the sensor remembers: a number per request (run keys are permanent), the newest ended run, failures in a
    row; up to where everything was final when it looked last."""

    generation: int = 0
    run_id: str = ""
    failures: int = 0
    failed_at: float = 0.0  # epoch s
    closed_ms: int = 0  # the newest closed frame then, epoch ms
    looked_at: float = 0.0  # epoch s; 0: something was pending

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """From the stored cursor, or new."""
        known = json.loads(text) if text else {}
        return cls(**{name: value for name, value in known.items() if name in cls.__dataclass_fields__})

    def text(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    def pause_left(self, now: float) -> float:
        """Seconds to wait before the next request, after failures."""
        if not self.failures:
            return 0.0
        return max(self.failed_at + min(5.0 * 2.0**self.failures, LONGEST_PAUSE_SECONDS) - now, 0.0)


def build_minutes_sensor(
    days: dg.DailyPartitionsDefinition, settings: Settings, plugins: Plugins
) -> dg.SensorDefinition:
    """The sensor ``minutes``. *settings*: the periods that follow the minutes; *plugins*: processors of their bars."""
    periods = intraday(settings.rollup_periods)

    @dg.sensor(
        name="minutes",
        job_name=FINALIZE_MINUTES,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Waits for minutes to close and requests one run that finalizes them, with what closed with them.",
    )
    def minutes(context: dg.SensorEvaluationContext, clickhouse: ClickHouseResource, redis: RedisResource) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        if running := _still_running(context.instance, deadline):
            return dg.SensorResult(skip_reason=f"run {running} is in flight", cursor=context.cursor)
        cursor = _learn(context.instance, Cursor.read(context.cursor))
        if (left := cursor.pause_left(time.time())) > 0:
            reason = f"{cursor.failures} runs failed in a row, the last was {cursor.run_id}: waiting {left:.0f} s more"
            return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
        if reason := _wait_for_close(cursor, days, clickhouse, redis, deadline):
            return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
        return _ask(cursor, days, clickhouse, redis, periods, plugins.of_period(("1m", *periods)))

    return minutes


def _ask(
    cursor: Cursor,
    days: dg.DailyPartitionsDefinition,
    clickhouse: ClickHouseResource,
    redis: RedisResource,
    periods: Sequence[str],
    processors: Sequence[Processor],
) -> dg.SensorResult:
    settings = clickhouse.settings
    clock = _clock(redis)
    with clickhouse.connect() as client:

        def closed(day: Any) -> datetime | None:
            return closed_watermark(client, settings, day, clock.now_ms(), speed=clock.speed)

        newest = closed(clock.today())
        found = pending(client, settings, clock.now_ms(), speed=clock.speed)
        chosen = [p for p in found if days.has_partition_key(p.day.isoformat())]
        if not chosen:
            looked = replace(cursor, closed_ms=to_ms(newest) if newest else 0, looked_at=time.time())
            return dg.SensorResult(skip_reason=_nothing(found, str(settings.first_day)), cursor=looked.text())
        turn = chosen[cursor.failures % len(chosen)]  # a day that fails again and again must not hold up the others
        until = max(closed(turn.day) or turn.last_frame, turn.last_frame)
    advanced = replace(cursor, generation=cursor.generation + 1, looked_at=0.0)
    asked = request(turn, advanced.generation, periods, until, processors)
    return dg.SensorResult(run_requests=[asked], cursor=advanced.text())


def _wait_for_close(
    cursor: Cursor,
    days: dg.DailyPartitionsDefinition,
    clickhouse: ClickHouseResource,
    redis: RedisResource,
    deadline: float,
) -> str:
    """Return when it is time to look at what is pending (""), or why there is nothing to look at."""
    settings = clickhouse.settings
    if not 0 <= time.time() - cursor.looked_at < LOOK_SECONDS:
        return ""
    clock = _clock(redis)
    with clickhouse.connect() as client:
        until = cursor.closed_ms or to_ms(at(clock.today(), 0))
        if stored_late(client, until, cursor.looked_at - CLOCKS_SECONDS):
            return ""
    if not days.has_partition_key(clock.today().isoformat()):
        return f"{clock.today()} is no trading day"
    due = next((f for f in minute_frames(clock.today()) if to_ms(f) > cursor.closed_ms), None)
    if due is None:
        return "every minute of the day is final"
    left = max(to_ms(due) + settings.close_grace_ms - clock.now_ms(), 0) / 1000 / max(clock.speed, 1e-3)
    if time.monotonic() + left >= deadline:
        return f"no minute has closed: {due:%H:%M} is due in {left:.0f} s"
    time.sleep(left)
    with clickhouse.connect() as client, redis.connect() as server:
        for _ in _polls(deadline):
            clock = read_clock(server)
            closed = closed_watermark(client, settings, due.date(), clock.now_ms(), speed=clock.speed)
            if closed is not None and closed >= due:
                return ""
    return f"no minute has closed: {due:%H:%M} is late"


def _still_running(instance: dg.DagsterInstance, deadline: float) -> str:
    """The run that is in flight even at the deadline; "" as soon as there is none."""
    chosen = dg.RunsFilter(job_name=FINALIZE_MINUTES, statuses=list(IN_FLIGHT))
    running = instance.get_runs(chosen, limit=1)
    for _ in _polls(deadline if running else 0.0):
        running = instance.get_runs(chosen, limit=1)
        if not running:
            break
    return running[0].run_id if running else ""


def _polls(deadline: float) -> Iterator[None]:
    """Moments to look again until *deadline* (monotonic): often at first."""
    started = time.monotonic()
    while (now := time.monotonic()) < deadline:
        yield
        time.sleep(POLL_SECONDS[now - started > LATE_SECONDS])


def _clock(redis: RedisResource) -> MarketClock:
    with redis.connect() as server:
        return read_clock(server)


def _nothing(found: Sequence[Any], first_date: str) -> str:
    if found:
        day = found[0].day
        return f"{day} is pending but no partition: no trading day, or before QMT_FIRST_DATE ({first_date})"
    return "no minute has closed"


def _learn(instance: dg.DagsterInstance, cursor: Cursor) -> "Cursor":
    """Count failures in a row: look at the newest ended run, once."""
    ended = instance.get_run_records(dg.RunsFilter(job_name=FINALIZE_MINUTES, statuses=list(ENDED)), limit=1)
    if not ended or ended[0].dagster_run.run_id == cursor.run_id:
        return cursor
    run = ended[0].dagster_run
    if run.status != dg.DagsterRunStatus.FAILURE:  # success, or ended by a person or with Dagster itself
        return replace(cursor, run_id=run.run_id, failures=0, failed_at=0.0)
    failed_at = ended[0].end_time or time.time()
    return replace(cursor, run_id=run.run_id, failures=cursor.failures + 1, failed_at=failed_at)


def request(
    turn: Any,
    generation: int,
    periods: Sequence[str],
    closed: datetime,
    processors: Sequence[Processor] = (),
) -> dg.RunRequest:
    """The run for one `warehouse.bars.Pending`: 1m and those of *periods* of which a window has closed, with their
    checks, and the *processors* of these bars. *generation* makes its key a new one; *closed*: the day's last closed
    frame."""
    first, last = f"{turn.first_frame:%H:%M}", f"{turn.last_frame:%H:%M}"
    assets = ["bars_1m", *(f"bars_{p}" for p in periods if window_end(turn.first_frame, p) <= closed)]
    frames = {"config": {"first_frame": first, "last_frame": last}}
    day = turn.day.isoformat()
    checks = [dg.AssetCheckKey(dg.AssetKey(a), c.name) for a in assets for c in checks_of(a)]
    chosen = [p for p in processors if f"bars_{p.period}" in assets]
    assets += [p.name for p in chosen]
    checks += [dg.AssetCheckKey(dg.AssetKey(p.name), computed_check(p).name) for p in chosen]
    return dg.RunRequest(
        run_key=f"{day}/{first}-{last}/{generation}",
        partition_key=day,
        run_config={"ops": dict.fromkeys(assets, frames)},
        asset_selection=[dg.AssetKey(a) for a in assets],
        asset_check_keys=checks,
        tags={"qmt/frames": f"{first}-{last}", "qmt/minutes": str(turn.frames)},
    )


def window_end(frame: datetime, period: str) -> datetime:
    """The end label of the window of *period* (Nm) that holds *frame*; windows count trading minutes."""
    n = minutes_of(period)
    index = max(MINUTE_LABELS.index(frame.hour * 60 + frame.minute), 1)  # 09:30 joins the first window
    return at(frame.date(), MINUTE_LABELS[min(-(-index // n) * n, len(MINUTE_LABELS) - 1)])
