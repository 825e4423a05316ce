"""The simulated terminal: connections, subscriptions and the thread that pushes.

One `Simulation` per process. Its thread wakes every 50 ms and pushes what has fallen due since, in order and without
skipping a snapshot; the callback is called on that thread and holds it up as long as it takes. With speed 0 it does
not wait at all, plays the first day (or the recording) to its end and then reports `finished`.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.running_time import PARTS
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, from_ms, to_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.clock import SimClock
from qmt_orchestration.simulator.faults import FaultPlan, Push
from qmt_orchestration.simulator.history import SimulatedHistory
from qmt_orchestration.simulator.replay import ReplaySource, load_recording
from qmt_orchestration.simulator.source import MarketSource

log = logging.getLogger(__name__)

PUSH_SECONDS: Final = 0.05
MAX_QUOTES: Final = 500  # per-symbol subscriptions a terminal takes

Callback = Callable[[Any], object]


@dataclass
class Listener:
    """One subscription; *codes* are symbols or markets, *period* is "whole", "tick" or "1m"."""

    number: int
    codes: frozenset[str]
    period: str
    callback: Callback
    fresh: bool = True  # the first push, a full snapshot, is still to come
    bars_until_ms: int = 0

    def wants(self, push: Push) -> Push:
        """The part of a push that this subscription gets."""
        if {"SH", "SZ", "BJ"} <= self.codes:
            return push
        codes = self.codes
        return {s: t for s, t in push.items() if s in codes or s[-2:] in codes}


class Simulation:
    """A simulated (or replayed) terminal; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.replay = settings.feed == "replay"
        self.source: MarketSource | ReplaySource
        if self.replay:
            self.source = ReplaySource(load_recording(settings.replay_files))
            self.speed, self.clock = settings.replay_speed, None
        else:
            self.source = MarketSource(settings)
            self.speed, self.clock = settings.sim_speed, SimClock(settings)
        self.faults = FaultPlan.parse(settings.sim_faults, self.source.members.listed)
        self.history = SimulatedHistory(settings.sim_seed)
        self.finished = threading.Event()
        self.pushes = 0
        self.ticks = 0
        self._numbers = itertools.count(1)
        self._subscriptions: dict[int, Listener] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._generation = 0  # connections of an older generation are broken
        self._epoch: tuple[float, int] | None = None
        self.failed = False
        self.known = frozenset(self.source.members.all)

    # -- time -----------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Market time, epoch ms: the clock's, or how far a replay has come."""
        if self.clock is None:
            return self.source.position_ms
        if self.speed == 0 and self._thread is not None:
            return self.source.position_ms
        return self.clock.now_ms()

    def market_clock(self) -> tuple[int, float] | None:
        """(market time up to which all was pushed, speed); None in a replay and before the first subscription."""
        if self.replay or self._thread is None:
            return None
        return self.source.position_ms, self.clock.speed if self.clock else self.speed

    # -- connections ----------------------------------------------------------------------------------------

    def connect(self) -> int | None:
        """A connection's generation; None while a planted fault keeps the connection down."""
        if not self.replay and self.speed != 0 and self.faults.get("drop-connection", _minute(self.now_ms())):
            return None
        return self._generation

    def alive(self, generation: int | None) -> bool:
        """Whether a connection of this generation still stands."""
        return generation == self._generation and not self._closed

    def break_connections(self) -> None:
        """Break every connection; all subscriptions are gone, as with a real terminal."""
        with self._lock:
            self._generation += 1
            self._subscriptions.clear()

    def full_tick(self, codes: list[str]) -> Push:
        """The last tick of these symbols or markets, copied."""
        wanted = Listener(0, frozenset(codes), "whole", lambda _: None)
        if isinstance(self.source, ReplaySource):
            return {s: dict(t) for s, t in wanted.wants(self.source.snapshot()).items()}
        looker = MarketSource(self.settings, self._named(codes))  # its own: any thread may ask at any time
        looker.seek(self.now_ms())
        return {s: dict(t) for s, t in wanted.wants(looker.snapshot()).items()}

    def _named(self, codes: list[str]) -> tuple[str, ...] | None:
        """The known symbols among *codes*; None if there are markets among them."""
        return None if {"SH", "SZ", "BJ"} & set(codes) else tuple(sorted(self.known & set(codes)))

    # -- subscriptions --------------------------------------------------------------------------------------

    def subscribe(self, codes: list[str], period: str, callback: Callback) -> int:
        """A number > 0, or -1 where a terminal refuses."""
        if period == "whole" and self.faults.get("subscribe-fails", _minute(self.now_ms())):
            return -1
        with self._lock:
            single = sum(1 for s in self._subscriptions.values() if s.period != "whole")
            if period not in ("whole", "tick", "1m") or (period != "whole" and single >= MAX_QUOTES):
                return -1
            number = next(self._numbers)
            self._subscriptions[number] = Listener(number, frozenset(codes), period, callback)
            if self._thread is None:
                self.source.seek(self.clock.start_ms if self.clock and self.speed == 0 else self.now_ms())
                self._thread = threading.Thread(target=self._run, name="simulated-market", daemon=True)
                self._thread.start()
        self._wake.set()
        return number

    def unsubscribe(self, number: int) -> bool:
        """End a subscription; False if there is none of this number."""
        with self._lock:
            return self._subscriptions.pop(number, None) is not None

    def close(self) -> None:
        """Stop pushing and break all connections; waits for the pushing thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)

    # -- the pushing thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed and not self.finished.is_set():
                self._cycle()
                if self.speed == 0 and self._subscriptions and not self.finished.is_set():
                    continue
                self._wake.wait(PUSH_SECONDS)
                self._wake.clear()
        except Exception:
            log.exception("the simulated market stopped: %s", self.now_ms())
            self.failed = self._closed = True
            self.break_connections()

    def _until_ms(self) -> int:
        """How far to push in this cycle."""
        if self.clock is not None:
            # at speed 0 now_ms() is the push position, so ask the clock itself for the day's end
            return self.clock.now_ms() if self.speed else self._day_end()
        assert isinstance(self.source, ReplaySource)
        if self.speed == 0:
            return 1 << 62
        import time

        if self._epoch is None:
            self._epoch = (time.time(), self.source.first_ms)
        return self._epoch[1] + int((time.time() - self._epoch[0]) * 1000 * self.speed)

    def _day_end(self) -> int:
        assert self.clock is not None
        return to_ms(at(self.clock.first_day, PARTS[-1][1]))

    def _cycle(self) -> None:
        """Give new subscriptions their snapshot, then push what has fallen due."""
        with self._lock:
            listeners = list(self._subscriptions.values())
        until = self._until_ms()
        if not listeners:
            if self.speed != 0:
                self.source.seek(until)
            return
        for listener in (s for s in listeners if s.fresh):
            listener.fresh = False
            listener.bars_until_ms = self.source.position_ms
            # A replay gives each recorded row once: no snapshot of what is still to come or was given already.
            if listener.period != "1m" and not self.replay:
                self._give(listener, self.source.snapshot())
        for due_ms, push in self.source.pushes(until):
            self._push(due_ms, push)
            if self._interrupted(due_ms):
                return
        self._bars(self.source.position_ms)
        if self.source.exhausted or (self.speed == 0 and self.source.position_ms >= until):
            self.finished.set()

    def _interrupted(self, due_ms: int) -> bool:
        """Whether pushing must pause: closed, a new listener waits for its snapshot, or a fault broke the line."""
        moment = from_ms(due_ms)
        if self.faults.faults and self.faults.once("drop-connection", moment.date(), _minute(due_ms)):
            log.warning("planted fault: the connection breaks at %s", moment)
            self.break_connections()
        with self._lock:
            nobody = not self._subscriptions
            return self._closed or nobody or any(s.fresh for s in self._subscriptions.values())

    def _push(self, due_ms: int, push: Push) -> None:
        faulty: Iterator[Push] = iter((push,))
        if self.faults.faults:
            faulty = self.faults.apply(push, from_ms(due_ms).date(), due_ms, _minute(due_ms))
        with self._lock:
            listeners = [s for s in self._subscriptions.values() if not s.fresh and s.period != "1m"]
        for part in faulty:
            self.pushes += 1
            self.ticks += len(part)
            for listener in listeners:
                self._give(listener, listener.wants(part))

    def _give(self, listener: Listener, push: Push) -> None:
        """Call back with a push; whole quote gives ``{symbol: tick}``, a quote ``{symbol: [tick]}``."""
        if listener.period == "whole":
            wanted: Any = listener.wants(push)
        else:
            wanted = {s: [t] for s, t in listener.wants(push).items()}
        if not wanted and push:
            return
        try:
            listener.callback(wanted)
        except Exception:
            log.exception("the callback of subscription %d failed", listener.number)

    def _bars(self, position_ms: int) -> None:
        """Give the 1m subscriptions the bars that closed (market time a second past the label)."""
        with self._lock:
            listeners = [s for s in self._subscriptions.values() if s.period == "1m" and not s.fresh]
        if not listeners or self.replay or not is_trading_day(from_ms(position_ms).date()):
            return
        day = from_ms(position_ms).date()
        closed = [ms for ms in (to_ms(at(day, m)) for m in MINUTE_LABELS) if ms + 4000 <= position_ms]
        for listener in listeners:
            due = [ms for ms in closed if ms > listener.bars_until_ms]
            if not due:
                continue
            listener.bars_until_ms = due[-1]
            symbols = sorted(s for s in listener.codes if len(s) == 9)
            rows = self.history.bars(
                symbols, "1m", due[0], due[-1], -1, now_ms=position_ms, fill=False, everything=True
            )
            for symbol, labels, bars in rows:
                for i in range(len(labels)):
                    self._call_bar(listener, symbol, {name: array[i].item() for name, array in bars.items()})

    def _call_bar(self, listener: Listener, symbol: str, bar: dict[str, Any]) -> None:
        names = ("time", "open", "high", "low", "close", "volume", "amount")
        row = {name: bar[name] for name in names}
        # The real callback leaves these two uninitialised; nobody may rely on them.
        row |= {"settlementPrice": 0.0, "openInterest": 13, "dr": 1.0, "totaldr": 1.0}
        row |= {"preClose": float(np.float64(6.95330214337296e-310)), "suspendFlag": 370262668}
        try:
            listener.callback({symbol: [row]})
        except Exception:
            log.exception("the callback of subscription %d failed", listener.number)


def _minute(ms: int) -> float:
    """Minutes since midnight, with a fraction."""
    moment = from_ms(ms)
    return moment.hour * 60 + moment.minute + moment.second / 60
