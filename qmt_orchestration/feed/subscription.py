"""Keeping a subscription alive: whole quote, else a bounded number of single ones, and back as soon as it works.

xtdata's client reconnects silently but subscribes nothing again; a subscription can be alive and bring nothing new. So
`check` looks a few times a second: is the connection up, is there news of every market and kind (`feed.news`), does
whole quote work again.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import numpy as np

from qmt_orchestration.feed.intake import Intake
from qmt_orchestration.feed.memory import LAST, Memory
from qmt_orchestration.feed.news import News
from qmt_orchestration.feed.xt import Terminal
from qmt_orchestration.settings import Settings

log = logging.getLogger("feed.subscription")

_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 5.0


class Subscription:
    """One subscription to the markets of the settings, for one thread. Payloads arrive in *intake*."""

    def __init__(self, terminal: Terminal, settings: Settings, intake: Intake, memory: Memory, news: News) -> None:
        self.news = news
        self.terminal, self.settings, self.intake, self.memory = terminal, settings, intake, memory
        self.mode = "none"  #: none | whole | fallback
        self.subscriptions = 0  #: how often whole quote was subscribed
        self.left_out = 0  #: symbols without a subscription in the fall-back
        self._ids: list[int] = []
        self._symbols: list[str] = []
        self._client: Any = None
        self._covered: set[int] = set()
        self._retry_seconds = _FIRST_RETRY
        self._next_try = 0.0
        self._subscribed_ms = 0  # market time of the last subscription
        self._subscribed_at = time.monotonic()
        self._patience = 1.0  # doubles while subscribing again does not help

    def market_now_ms(self) -> int | None:
        """The market's clock, epoch ms; None in a recording, or before a simulated market has begun."""
        if self.settings.feed == "xtquant":
            return int(time.time() * 1000)
        clock = self.terminal.clock()
        return clock[0] if clock else None

    def _clock(self) -> int:
        return self.market_now_ms() or (self.terminal.now_ms() if self.terminal.now_ms else 0)

    def check(self) -> None:
        """Subscribe, re-subscribe or return to whole quote if it is time to. Never raises for xtdata's errors."""
        now = time.monotonic()
        if self.mode != "none" and not self._connected():
            log.error("the connection to QMT is broken: subscribing again")
            self.mode, self._ids = "none", []
        if self.mode == "whole" and self._symbols is not self.memory.universe.symbols:
            self._follow_universe()
        if self.mode == "whole" and self._silent(now):
            self._break_silence()
        elif self.mode != "whole" and now >= self._next_try:
            self._subscribe()

    def _connected(self) -> bool:
        try:
            return bool(self._client is not None and self._client.is_connected())
        except Exception:
            log.exception("QMT's client failed")
            return False

    def _subscribe(self) -> None:
        """Whole quote; where it is refused, single subscriptions; where nothing answers, again later."""
        xtdata, settings = self.terminal.xtdata, self.settings
        try:
            self._client = xtdata.get_client()
            generation = self.intake.new_generation()
            callback = self.intake.callback(generation, None if settings.feed == "replay" else self._clock)
            number = xtdata.subscribe_whole_quote(list(self.memory.universe.symbols), callback)
        except Exception as error:
            log.error("QMT does not answer (%s): next attempt in %.0f s", error, self._retry_seconds)
            number = 0
        if number > 0:  # the documented success; anything else is a failure
            self.intake.only(generation)
            fed = list(self._covered) if self.mode == "fallback" else []
            self.memory.exempt = np.isin(np.arange(len(self.memory.universe.symbols)), fed) if fed else None
            old, self._ids = self._ids, [number]
            self._forget(old)
            self.mode, self.left_out, self._retry_seconds = "whole", 0, _FIRST_RETRY
            self._symbols = self.memory.universe.symbols
            self.subscriptions += 1
            self._subscribed_ms, self._subscribed_at = self._clock(), time.monotonic()
            log.info("whole quote of %d symbols subscribed, id %d", len(self.memory.universe.symbols), number)
            return
        self._next_try = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(self._retry_seconds * 2, _LAST_RETRY)
        if number < 0:
            log.error("whole quote refused: expected an id above 0, found %d", number)
        if self.mode != "fallback" and self._connected():
            self._fall_back()

    def _follow_universe(self) -> None:
        """A new trading day may have other symbols: subscribe those."""
        before, self._symbols = self._symbols, self.memory.universe.symbols
        if before != self._symbols:
            self._subscribe()

    def _fall_back(self) -> None:
        """Single subscriptions of the most traded symbols, at most QMT_FEED_FALLBACK_SYMBOLS."""
        generation = self.intake.new_generation()
        callback = self.intake.callback(generation, self._clock)
        self.intake.only(generation)
        universe = self.memory.universe
        order = np.argsort(-self.memory.last[:, LAST["amount"]], kind="stable")[: self.settings.feed_fallback_symbols]
        ids: dict[int, int] = {}
        for i in order:
            try:
                number = self.terminal.xtdata.subscribe_quote(universe.symbols[i], "tick", callback=callback)
            except Exception as error:
                log.error("%s cannot be subscribed: %s", universe.symbols[i], error)
                break
            if number > 0:
                ids[int(i)] = number
        self._ids, self._covered = list(ids.values()), set(ids)
        self.mode, self.left_out = ("fallback" if ids else "none"), len(universe.symbols) - len(ids)
        log.warning(
            "fall-back: %d symbols subscribed one by one, %d of the universe left out (QMT_FEED_FALLBACK_SYMBOLS=%d); "
            "whole quote is tried again in %.0f s",
            len(ids),
            self.left_out,
            self.settings.feed_fallback_symbols,
            self._next_try - time.monotonic(),
        )

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            try:
                self.terminal.xtdata.unsubscribe_quote(number)
            except Exception as error:
                log.warning("subscription %d cannot be ended: %s", number, error)

    def _silent(self, now: float) -> bool:
        """Whether a market or kind has had no news for too long, in market time and in wall time."""
        if self.settings.feed == "replay":
            return False
        market_ms = self._clock()
        self.news.judge(market_ms)
        silent, wall = self.news.silent(market_ms)
        limit = self.settings.feed_silence_seconds
        if silent <= limit:
            self._patience = 1.0
            return False
        limit *= self._patience
        silent = min(silent, (market_ms - self._subscribed_ms) / 1000)
        # A fast simulated market must not be called silent because this machine paused for a moment.
        wall_limit = limit if self.settings.feed == "xtquant" else min(limit, 3.0 * self._patience)
        return silent > limit and min(wall, now - self._subscribed_at) > wall_limit

    def _break_silence(self) -> None:
        """Subscribe again and ask for every symbol's last tick. The wait doubles until there are new ticks."""
        seconds, groups = self.settings.feed_silence_seconds, self.news.silent_groups
        silent = groups(self._clock(), seconds)
        what = "the whole market" if len(silent) == len(self.news.universe.groups) else ", ".join(silent)
        log.error("no news of %s for %.0f s of its time: subscribing again", what, self.news.silent(self._clock())[0])
        old, self._ids, self.mode = self._ids, [], "none"
        self._forget(old)
        self._next_try = 0.0
        self._subscribe()
        self._patience = min(self._patience * 2, 8.0)
        try:
            ticks = self.terminal.xtdata.get_full_tick(self.memory.universe.symbols)
        except Exception as error:
            log.error("QMT gives no full tick: %s", error)
            return
        if ticks:
            self.intake.put(ticks, moment_ms=self._clock(), wait=False)

    def end(self) -> None:
        """End all subscriptions."""
        self._forget(self._ids)
        self._ids, self.mode = [], "none"
