"""What the subscriber counts: for the log, the heartbeat and, in a replay, the report on its last line."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.feed.edge import Checked
from qmt_orchestration.market.schema import TickFlag

_AHEAD_MS: Final = 2000
_BEHIND_MS: Final = 30_000
_BOUNDS: Final = np.unique(np.round(np.geomspace(1, 600_000, 120)))  # ms


class Delays:
    """Percentiles of delays in ms, over a window, in constant memory (error below 6 %)."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_BOUNDS) + 1, np.int64)

    def add(self, delays_ms: npt.NDArray[Any]) -> None:
        """Count delays; negative ones (clocks apart) as 0."""
        self._counts += np.bincount(np.searchsorted(_BOUNDS, delays_ms), minlength=len(self._counts))

    def percentile(self, share: float) -> float:
        """Upper bound of the bucket in which this share of all delays ends; 0 without any."""
        total = self._counts.sum()
        if not total:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return float(_BOUNDS[min(bucket, len(_BOUNDS) - 1)])


class Statistics:
    """Counters of one run of the subscriber."""

    def __init__(self, session: str, symbols: int) -> None:
        self.session = session
        self.started = time.monotonic()
        self.received = self.published = self.batches = 0
        self.withdrawn = 0
        self.rejected: Counter[str] = Counter()
        self.filtered: Counter[str] = Counter()
        self.seen = np.zeros(symbols, np.bool_)
        self.first_ms = self.last_ms = 0
        self.publish_delay = Delays()  # callback → publish, wall ms
        self.market_delay = Delays()  # tick's time → publish, market ms
        self.ahead_ms = 0  # how far a tick's time lay ahead of the market's clock at most, in this window
        self._window = (time.monotonic(), 0, 0)

    def take(self, outcome: Checked) -> None:
        """Count what came in."""
        self.received += outcome.received
        self.filtered.update(outcome.filtered)
        self.rejected.update(row["reason"] for row in outcome.rejected)

    def sent(self, outcome: Checked, batches: int, now_ms: int, market_now_ms: int | None) -> None:
        """Count what left."""
        self.batches += batches
        if outcome.table is None:
            return
        # a withdrawn tick leaves the published ones, and its second row is no tick
        self.published += outcome.table.num_rows - 2 * outcome.withdrawn
        self.withdrawn += outcome.withdrawn
        self.seen[outcome.ids] = True
        times = outcome.table.column("time").to_numpy().astype("datetime64[ms]").astype(np.int64)
        self.first_ms = min(self.first_ms or int(times.min()), int(times.min()))
        self.last_ms = max(self.last_ms, int(times.max()))
        received = outcome.table.column("received_at").to_numpy().astype("datetime64[ms]").astype(np.int64)
        self.publish_delay.add(np.maximum(now_ms - received, 0))
        if market_now_ms is not None:
            # what comes with a full snapshot may be of long ago
            changes = (outcome.table.column("flags").to_numpy() & TickFlag.SNAPSHOT) == 0
            self.market_delay.add(np.maximum(market_now_ms - times[changes], 0))
            self.ahead_ms = max(self.ahead_ms, int(times.max()) - market_now_ms)

    def numbers(self, **more: float | int | str) -> dict[str, float | int | str]:
        """For the heartbeat. *rate*: ticks published a second since the last window began; delays in ms."""
        since, published, received = self._window
        seconds = max(time.monotonic() - since, 0.001)
        arrived = self.received - received
        return {
            "session": self.session,
            "received": self.received,
            "published": self.published,
            "rejected": sum(self.rejected.values()),
            "filtered": sum(self.filtered.values()),
            "withdrawn": self.withdrawn,
            "batches": self.batches,
            "rate": round((self.published - published) / seconds, 1),
            "received_rate": round(arrived / seconds, 1),
            "success_percent": round(100 * self._success(), 3),
            "symbols": int(self.seen.sum()),
            "last_tick_ms": self.last_ms,
            "delay_p50_ms": self.publish_delay.percentile(0.5),
            "delay_p99_ms": self.publish_delay.percentile(0.99),
            "market_delay_p50_ms": self.market_delay.percentile(0.5),
            "market_delay_p99_ms": self.market_delay.percentile(0.99),
            "market_ahead_ms": self.ahead_ms,
            **{f"rejected_{reason}": count for reason, count in sorted(self.rejected.items())},
            **more,
        }

    def _success(self) -> float:
        """Share published of what belongs to the universe (1 before anything came)."""
        wanted = self.received - sum(self.filtered.values())
        return self.published / wanted if wanted else 1.0

    def new_window(self) -> None:
        """Rates and delays begin again."""
        self._window = (time.monotonic(), self.published, self.received)
        self.publish_delay, self.market_delay = Delays(), Delays()
        self.ahead_ms = 0

    def clock_warning(self) -> str:
        """What the times of this window's ticks say about this machine's clock; "" when it is right.

        An exchange stamps no tick in the future, so one that lies ahead of us shows a slow clock; a fast one cannot be
        told from a slow feed, hence the wide bound.
        """
        behind = self.market_delay.percentile(0.5)
        mend = "set it right (w32tm /resync; chronyc makestep)"
        if self.ahead_ms > _AHEAD_MS:
            return f"ticks are {self.ahead_ms / 1000:.1f} s ahead of this machine's clock, which is slow: {mend}"
        if behind > _BEHIND_MS:
            return f"ticks are {behind / 1000:.0f} s behind this machine's clock: a slow feed, or a fast clock: {mend}"
        return ""

    def report(self) -> str:
        """The FeedReport of docs/architecture.md, one line of JSON.

        received = published + rejected + filtered. A tick that was withdrawn is among the rejected, not the published.
        """
        return json.dumps(
            {
                "session": self.session,
                "received": self.received,
                "published": self.published,
                "rejected": dict(self.rejected),
                "filtered": sum(self.filtered.values()),
                "batches": self.batches,
                "first_ms": self.first_ms,
                "last_ms": self.last_ms,
                "symbols": int(self.seen.sum()),
            }
        )
