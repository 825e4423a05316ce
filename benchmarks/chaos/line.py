"""A slow line between feed and Redis, and between Redis and warehouse: what it costs, and that nothing is lost.

60 ms round trip, 10 Mbit/s, stalls of 5 s. Judged: delay from the feed's callback to the stored row outside the stalls,
ticks lost or doubled, and that no callback waited. ``control``: a line of 0.2 Mbit/s, whose delay must be found.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.chaos.oracle import Ledger, judge
from benchmarks.chaos.session import settle, wait_until
from benchmarks.chaos.world import FEED, HOST_OF, Market, world

ROUND_TRIP, MEGABITS, STALL = 0.060, 10.0, 5.0
LIMIT_SECONDS = 1.0
_CALM = 12.0  # seconds between stalls
_AFTER = 3.0  # what had gathered in a stall is stored this long after it

_DELAY = """
SELECT count() AS n, quantileExact(0.99)(dateDiff('millisecond', received_at, stored_at)) / 1000 AS p99
FROM ticks WHERE received_at >= fromUnixTimestamp64Milli({begin:Int64}) AND received_at < fromUnixTimestamp64Milli({end:Int64})
  AND arrayAll(s -> toUnixTimestamp64Milli(received_at) NOT BETWEEN s.1 AND s.2, {stalls:Array(Tuple(Int64, Int64))})
SETTINGS final = 0
"""  # noqa: E501


def run(market: Market, *, stalls: int, megabits: float = MEGABITS, say: Callable[[str], None]) -> bool:
    """Run a market through the line with so many stalls; say what was found, and return whether it is within limits."""
    with world(market) as there:
        ledger = Ledger(there)
        ledger.start()
        wait_until(lambda: all(there.beat(n).get("state") == "running" for n in HOST_OF), 120, "the start")
        proxies = (there.feed_redis, there.warehouse_redis)
        for proxy in proxies:
            proxy.slow(ROUND_TRIP, megabits)
        time.sleep(_AFTER)
        begin, windows = _now(), list[tuple[int, int]]()
        for number in range(stalls):
            time.sleep(_CALM)
            windows.append((_now() - 1000, _now() + round(1000 * (STALL + _AFTER))))
            proxies[number % 2].stall(STALL)
            time.sleep(STALL + _AFTER)
        time.sleep(_CALM)
        end = _now()
        time.sleep(_AFTER)
        text = "[" + ",".join(f"({a},{b})" for a, b in windows) + "]"
        [[ticks, p99]] = there.ask(_DELAY, begin=str(begin), end=str(end), stalls=text)
        waited = "Callbacks wait meanwhile" in there.logs(FEED, "subscriber")
        for proxy in proxies:
            proxy.slow(0, 0)
        problems = settle(there, ledger)
        verdict = judge(there, ledger)
    lost, doubled = sum(verdict.lost.values()), sum(verdict.doubled.values())
    say(
        f"line of {1000 * ROUND_TRIP:g} ms and {megabits:g} Mbit/s, {stalls} stalls of {STALL:g} s: delay p99 outside "
        f"them {p99:.2f} s over {ticks:,} ticks, {lost} lost, {doubled} doubled of {verdict.produced:,}, "
        f"callbacks {'waited' if waited else 'never waited'}" + "".join(f"; {problem}" for problem in problems)
    )
    return ticks > 0 and p99 <= LIMIT_SECONDS and not (lost or doubled or waited or problems)


def _now() -> int:
    return int(time.time() * 1000)
