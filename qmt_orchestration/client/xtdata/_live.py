"""Live quotes: the newest ticks from ClickHouse, what follows from the tick stream and the bar stream in Redis.

One thread reads for all subscriptions of the process, without a consumer group: nothing has to be acknowledged, and a
program that ends leaves nothing behind.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from qmt_orchestration.client import reading
from qmt_orchestration.client.bar import Bar, Origin, bars_of
from qmt_orchestration.client.moments import Moment
from qmt_orchestration.client.symbols import lot_size_of
from qmt_orchestration.client.xtdata import _shared
from qmt_orchestration.client.xtdata._shared import Partial, codes_or_markets
from qmt_orchestration.client.xtdata._ticks import Tick, day_of, full_ticks, pushes_of
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.batch import PayloadError, decode

log = logging.getLogger("client.xtdata")

Callback = Callable[[Any], object]
#: A new subscription reads this far back, so that nothing is lost between ClickHouse's newest tick and the stream.
_OVERLAP_MS: Final = 5_000
#: `run` gives up when Redis has been away this long.
_AWAY_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.5
_SERVED: Final = ("tick", "1m", "1d")


@dataclass
class _Subscription:
    """*period*: "whole", or one of `_SERVED`."""

    number: int
    codes: frozenset[str]
    markets: frozenset[str]
    period: str
    callback: Callback
    fresh: bool = True
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # newest (time, volume) given of each code

    def wants(self, code: str) -> bool:
        return code in self.codes or code[-2:] in self.markets

    def part_of(self, push: dict[str, Tick]) -> dict[str, Tick]:
        """The part of a push that this subscription gets."""
        if self.markets:
            return {code: tick for code, tick in push.items() if self.wants(code)}
        few, many = sorted((self.codes, push.keys()), key=len)
        return {code: push[code] for code in few if code in many}


class _Reader:
    """The thread and its subscriptions; it ends with the last of them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._subscriptions: dict[int, _Subscription] = {}
        self._thread: threading.Thread | None = None
        self._positions: dict[str, str] = {}
        self._away_since: float | None = None

    def subscribe(self, codes: Iterable[str], period: str, callback: Callback | None) -> int:
        """The number of a new subscription. Raises `StreamAway` and what `codes_or_markets` raises."""
        named, markets = codes_or_markets(codes)
        _shared.check_callback(callback)
        reading.stream(_shared.settings()).close()
        with self._lock:
            number = next(self._numbers)
            self._subscriptions[number] = _Subscription(number, named, markets, period, callback or (lambda _: None))
            if self._thread is None or not self._thread.is_alive():
                self._positions.clear()
                self._thread = threading.Thread(target=self._run, name="xtdata-quotes", daemon=True)
                self._thread.start()
        return number

    def unsubscribe(self, number: int) -> bool:
        with self._lock:
            return self._subscriptions.pop(number, None) is not None

    def check(self) -> None:
        """Raise `StreamAway` when Redis has been away for long."""
        since = self._away_since
        if since is not None and time.monotonic() - since > _AWAY_SECONDS:
            reading.stream(_shared.settings()).close()

    def join(self, seconds: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _all(self) -> list[_Subscription]:
        with self._lock:
            return list(self._subscriptions.values())

    def _run(self) -> None:
        server: redis.Redis | None = None
        while self._all():
            try:
                server = server or reading.stream(_shared.settings())
                self._begin(server)
                self._read(server)
                self._away_since = None
            except (redis.RedisError, OSError) as error:  # both errors of ours for servers that are away are OSErrors
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    log.warning("quotes: %s; trying again", error)
                server = None
                threading.Event().wait(_PAUSE_SECONDS)

    def _begin(self, server: redis.Redis) -> None:
        """Give new subscriptions the newest ticks, and what the streams hold since."""
        shards = [keys.ticks(shard) for shard in range(_shared.settings().stream_shards)]
        for stream in (*shards, keys.MINUTES):
            if stream not in self._positions:
                newest: Any = server.xrevrange(stream, count=1)
                self._positions[stream] = newest[0][0].decode() if newest else "0-0"
        fresh = [s for s in self._all() if s.fresh]
        if not fresh:
            return
        for subscription in fresh:
            if subscription.period != "1m":
                codes = sorted(subscription.codes | subscription.markets)
                self._give(subscription, [full_ticks(codes)] if codes else [])
            subscription.fresh = False
        for stream in shards:
            position = self._positions[stream]
            first = f"{max(int(position.split('-')[0]) - _OVERLAP_MS, 0)}-0"
            entries: Any = server.xrange(stream, first, position)
            for _, fields in entries:
                self._ticks(fields, fresh)

    def _read(self, server: redis.Redis) -> None:
        listeners = [s for s in self._all() if not s.fresh]
        bars = any(s.period == "1m" for s in listeners)
        wanted: Any = {stream: at for stream, at in self._positions.items() if bars or stream != keys.MINUTES}
        found: Any = server.xread(wanted, count=32, block=min(_shared.settings().redis_block_ms, 200))
        for name, entries in found or []:
            stream = name.decode()
            for entry_id, fields in entries:
                if stream == keys.MINUTES:
                    self._minute(fields, listeners)
                else:
                    self._ticks(fields, listeners)
                self._positions[stream] = entry_id.decode()

    def _ticks(self, fields: dict[bytes, bytes], listeners: list[_Subscription]) -> None:
        try:
            table = decode(fields[b"payload"], max_bytes=_shared.settings().stream_max_payload_mb << 20)
        except (PayloadError, KeyError) as error:
            log.warning("quotes: an entry of the tick stream is left out: %s", error)
            return
        pushes = list(pushes_of(table))
        for subscription in listeners:
            if subscription.period != "1m":
                self._give(subscription, [subscription.part_of(push) for push in pushes])

    def _minute(self, fields: dict[bytes, bytes], listeners: list[_Subscription]) -> None:
        try:
            bars = bars_of(fields, Origin("", ""))
        except ValueError as error:
            log.warning("quotes: an entry of the bar stream is left out: %s", error)
            return
        for subscription in listeners:
            if subscription.period == "1m":
                for bar in bars:
                    if subscription.wants(bar.symbol):
                        _call(subscription, {bar.symbol: [_row(bar)]})

    def _give(self, subscription: _Subscription, pushes: list[dict[str, Tick]]) -> None:
        """Call back with what is newer than what was given before."""
        for push in pushes:
            news: dict[str, Any] = {}
            for code, tick in push.items():
                place = (tick["time"], tick["volume"])
                if place > subscription.seen.get(code, (0, -1)):
                    subscription.seen[code] = place
                    news[code] = tick
            if not news:
                continue
            if subscription.period == "tick":
                news = {code: [tick] for code, tick in news.items()}
            elif subscription.period == "1d":
                news = {code: [day_of(tick)] for code, tick in news.items() if tick["open"] > 0}
            if news:
                _call(subscription, news)


def _row(bar: Bar) -> Partial:
    """A closed minute as the terminal gives it."""
    lot = lot_size_of(bar.symbol)
    prices = {"open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close}
    return Partial(time=bar.timestamp * 1000, **prices, volume=(bar.vol + lot // 2) // lot, amount=bar.amount)


def _call(subscription: _Subscription, data: dict[str, Any]) -> None:
    try:
        subscription.callback(data)
    except Exception:  # the program's own: reported, and the next push still comes
        log.error("the callback of subscription %d failed", subscription.number)
        traceback.print_exc()


_reader: Final = _Reader()


def get_full_tick(code_list: list[str]) -> dict[str, Tick]:
    """``{code: tick}``, the newest of each code, or of each of a market (SH, SZ, BJ) on its newest day.

    Five levels of the book; ``time`` epoch ms and ``timetag`` as text. A code without a tick is absent.
    """
    return full_ticks(code_list)


def subscribe_whole_quote(code_list: list[str], callback: Callback | None = None) -> int:
    """A number > 0. *callback* gets ``{code: tick}``: first all newest ticks at once, then what changes.

    Raises `StreamAway` when no Redis answers.
    """
    return _reader.subscribe(code_list, "whole", callback)


def subscribe_quote(
    stock_code: str,
    period: str = "1d",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = 0,
    callback: Callback | None = None,
) -> int:
    """A number > 0. *callback* gets ``{code: [row]}``: ticks, closed minutes (1m), or the day so far (1d).

    The range and *count* load a terminal's cache; here everything stored can be asked for at any time.
    """
    name = _shared.chosen_period(period)
    if name not in _SERVED:
        raise NotImplementedError(f"subscribe_quote has no period {period!r}; there are {', '.join(_SERVED)}")
    return _reader.subscribe([stock_code], name, callback)


def subscribe_quote2(
    stock_code: str,
    period: str = "1d",
    start_time: Moment = "",
    end_time: Moment = "",
    count: int = 0,
    dividend_type: str | None = None,
    callback: Callback | None = None,
) -> int:
    """`subscribe_quote`; prices of today need no adjustment but backward, which is not served."""
    if dividend_type not in (None, "", "none", "front", "front_ratio"):
        raise NotImplementedError(f"subscribe_quote2 has no dividend_type {dividend_type!r}")
    return subscribe_quote(stock_code, period, start_time, end_time, count, callback)


def unsubscribe_quote(seq: int) -> bool:
    """End a subscription; False when there is none of this number."""
    return _reader.unsubscribe(seq)


def run() -> None:
    """Block until the program is interrupted. Raises `StreamAway` when Redis has been away for ten seconds."""
    pause = threading.Event()
    reading.stream(_shared.settings()).close()
    while True:
        pause.wait(1.0)
        _reader.check()


def stop(seconds: float = 5.0) -> None:
    """End all subscriptions and wait for the thread."""
    with _reader._lock:
        _reader._subscriptions.clear()
    _reader.join(seconds)
