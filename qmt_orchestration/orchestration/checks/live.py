"""Checks of the running system: is the feed fresh, do the services run, does the writer keep up, are there dead
letters.

Computed from heartbeats and Redis, not from SQL: by the sensor ``stream`` about twice a minute, and by hand from the
asset's page. Times are of the market's clock; a simulated market that runs faster than the wall is measured in wall
seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from qmt_orchestration.market.sessions import to_ms
from qmt_orchestration.orchestration.checks.evaluate import CheckResults, Outcome, find, judge, record, results, specs
from qmt_orchestration.orchestration.resources import ClickHouseResource, RedisResource, ServicesResource
from qmt_orchestration.quality import names
from qmt_orchestration.quality.names import checks_of
from qmt_orchestration.services.news import news, silences, span_start
from qmt_orchestration.services.state import NEEDED
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import dead_letters, keys
from qmt_orchestration.stream.clock import MarketClock, read_clock
from qmt_orchestration.stream.fields import LAST_MS, integer, number, text

ASSET: Final = "tick_stream"
Rows = Sequence[Mapping[str, str]]


def newest_tick_ms(server: Any, shards: int) -> int:
    """Exchange time (epoch ms) of the newest tick on the stream; 0 when there is none."""
    newest = 0
    for shard in range(shards):
        for _, fields in server.xrevrange(keys.ticks(shard), count=1):
            newest = max(newest, integer(fields, "last_ms", low=0, high=LAST_MS))
    return newest


def feed_fresh(
    settings: Settings,
    clock: MarketClock,
    newest_ms: int,
    *,
    trading_day: bool,
    beats: Sequence[Mapping[str, str]] = (),
) -> Outcome:
    """Seconds without news of a market and kind, inside the session; outside it, silence is right.

    The subscriber's heartbeat has the news (`feed.news`). Without its heartbeat the newest tick on the stream decides.
    """
    now = clock.now()
    check = find(ASSET, names.FEED_FRESH)
    start = span_start(now) if trading_day else None
    if start is None:
        return judge(check, settings, now.date(), 0.0, "silence outside the session", f"{now:%H:%M:%S}, no ticks due")
    silent_ms = max(to_ms(now) - max(newest_ms, to_ms(start)), 0)
    seconds, silent = silent_ms / 1000 / max(clock.speed, 1.0), "the stream"
    found, session = news(beats), (to_ms(now) - to_ms(start)) / 1000
    worst = sorted(((min(s, session), group) for group, s in silences(found, 0.0).items()), reverse=True)
    if worst and worst[0][0] > seconds:
        seconds, silent = worst[0]
    offenders = [
        {
            "group": group,
            "seconds": str(s),
            "with_news": f"{found[group]['advanced']:.0f}",
            "of": f"{found[group]['symbols']:.0f}",
        }
        for s, group in worst
        if s > settings.quality_silence_warn_seconds
    ]
    expected = "news of every market and kind without a pause"
    text = f"none of {silent} for {seconds:.1f} s at {now:%H:%M:%S}"
    return judge(check, settings, now.date(), round(seconds, 1), expected, text, offenders)


def _verdict(
    settings: Settings, clock: MarketClock, name: str, measure: float, expected: str, found: str, worst: Rows = ()
) -> Outcome:
    return judge(find(ASSET, name), settings, clock.today(), measure, expected, found, worst)


def services_alive(
    settings: Settings, clock: MarketClock, beats: Sequence[Mapping[str, str]], desired: Mapping[str, str]
) -> Outcome:
    """Services that should run and have no heartbeat."""
    alive = {b["service"] for b in beats if b.get("state") == "running"}
    due = [s for s in NEEDED if desired.get(s, "running") == "running"]
    missing = [s for s in due if s not in alive]
    return _verdict(
        settings,
        clock,
        names.SERVICES_ALIVE,
        float(len(missing)),
        f"heartbeats of {', '.join(due) or 'none'}",
        "all running" if not missing else f"silent: {', '.join(missing)} (is `qmt agent` running on their host?)",
        [{"service": s, "desired": desired.get(s, "running")} for s in missing],
    )


def stream_lag(settings: Settings, clock: MarketClock, beats: Sequence[Mapping[str, str]]) -> Outcome:
    """How far the writer is behind."""
    writers = [b for b in beats if b["service"] == "writer"]
    lag = max((number(b, "lag_seconds") for b in writers), default=0.0)
    return _verdict(settings, clock, names.STREAM_LAG, lag, "the writer keeps up", f"{lag:.1f} s behind")


def nothing_lost(settings: Settings, clock: MarketClock, beats: Sequence[Mapping[str, str]], server: Any) -> Outcome:
    """Batches whose numbers never came today, as the writer counts them."""
    writers = [b for b in beats if b["service"] == "writer"]
    lost = lost_today(server, clock, sum(number(b, "lost") for b in writers)) if writers else 0.0
    return _verdict(settings, clock, names.NOTHING_LOST, lost, "every batch number", f"{lost:.0f} batches lost")


def lost_today(server: Any, clock: MarketClock, total: float) -> float:
    """What was lost on the market's day of *total*, which the writer adds up: a loss is a finding of its day only."""
    today, known = clock.today().isoformat(), server.hgetall(keys.LOST_BEFORE)
    if text(known, "day") == today:
        return max(total - number(known, "before"), 0.0)
    before = total if known else 0.0  # the very first look has no day before it
    server.hset(keys.LOST_BEFORE, mapping={"day": today, "before": before})
    return total - before


def no_dead_letters(settings: Settings, clock: MarketClock, server: Any) -> Outcome:
    """Entries given up, by stream."""
    counts = dead_letters.streams(server)
    total = sum(counts.values())
    return _verdict(
        settings,
        clock,
        names.NO_DEAD_LETTERS,
        float(total),
        "no dead letters",
        f"{total} dead letters" + (": see `qmt dead-letters list`" if total else ""),
        [{"stream": s, "entries": str(n)} for s, n in counts.items()],
    )


def live_outcomes(
    settings: Settings,
    server: Any,
    beats: Sequence[Mapping[str, str]],
    desired: Mapping[str, str],
    *,
    trading_day: bool,
) -> list[Outcome]:
    """The verdicts on the running system now."""
    clock = read_clock(server)
    return [
        feed_fresh(
            settings, clock, newest_tick_ms(server, settings.stream_shards), trading_day=trading_day, beats=beats
        ),
        services_alive(settings, clock, beats, desired),
        stream_lag(settings, clock, beats),
        nothing_lost(settings, clock, beats, server),
        no_dead_letters(settings, clock, server),
    ]


def build_live_checks(days: dg.DailyPartitionsDefinition) -> dg.AssetChecksDefinition:
    """The checks of ``tick_stream``, runnable from its page."""

    @dg.multi_asset_check(specs=specs(checks_of(ASSET)), name="tick_stream_checks")
    def tick_stream_checks(
        context: dg.AssetCheckExecutionContext,
        clickhouse: ClickHouseResource,
        redis: RedisResource,
        services: ServicesResource,
    ) -> CheckResults:
        server = redis.connect()
        today = read_clock(server).today().isoformat()
        trading_day = days.has_partition_key(today)
        outcomes = live_outcomes(redis.settings, server, services.beats(), services.desired(), trading_day=trading_day)
        record(clickhouse.connect(), outcomes, context.run.run_id)
        yield from results(outcomes)

    return tick_stream_checks
