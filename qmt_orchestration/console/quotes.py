"""Answers for single symbols: newest price with its book, today's minutes for the chart, search by code or name."""

from __future__ import annotations

import threading
import time
from datetime import date
from typing import Any, Final

from qmt_orchestration.client.newest import DEFAULT_SYMBOL, newest_tick
from qmt_orchestration.console.live import Live
from qmt_orchestration.market.sessions import MINUTE_LABELS, at, frame_label, from_ms
from qmt_orchestration.market.symbols import is_symbol
from qmt_orchestration.warehouse.bars import live_bars

_KEEP_SECONDS: Final = 0.8  # many viewers of one symbol cost one query
_LIST_SECONDS: Final = 300.0


class NoSuchSymbol(LookupError):
    """Nothing is known of the symbol; the message says what was looked for."""


class Quotes:
    """Safe for several threads."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._list: tuple[float, list[dict[str, str]]] = (0.0, [])
        self._lock = threading.Lock()

    def quote(self, symbol: str) -> dict[str, Any]:
        """Newest price, change, book and today's bars (end labels, epoch s) of *symbol*, the forming minute last."""
        if not is_symbol(symbol):
            raise NoSuchSymbol(f"expected a symbol like {DEFAULT_SYMBOL}, found {symbol[:20]!r}")
        with self._lock:
            kept = self._kept.get(symbol)
        if kept and time.monotonic() < kept[0]:
            return kept[1]
        tick = newest_tick(self._live.warehouse(), symbol)
        if tick is None:
            raise NoSuchSymbol(f"{symbol} has not sent a tick: is it listed, and inside the feed's universe?")
        moment = from_ms(int(tick["time_ms"]))
        label = frame_label(moment.hour * 60 + moment.minute)
        bars = self._bars(symbol, moment.date(), label or MINUTE_LABELS[-1])
        out = {
            **tick,
            "name": self._name(symbol),
            "day": moment.date().isoformat(),
            "bars": bars,
        }
        with self._lock:
            if len(self._kept) > 500:
                self._kept.clear()
            self._kept[symbol] = (time.monotonic() + _KEEP_SECONDS, out)
        return out

    def search(self, text: str, limit: int = 12) -> list[dict[str, str]]:
        """Symbols whose code or initials (pinyin) begin with, or whose name contains, *text*."""
        wanted = text.strip().upper()
        if not wanted:
            return []
        found = [i for i in self._instruments() if i["symbol"].startswith(wanted)]
        found += [i for i in self._instruments() if wanted in i["name"].upper() and i not in found]
        found += [i for i in self._instruments() if i["initials"].startswith(wanted) and i not in found]
        return [{"symbol": i["symbol"], "name": i["name"]} for i in found[:limit]]

    def _bars(self, symbol: str, day: date, label: int) -> list[list[Any]]:
        out = [[int(b["frame_s"]), *(b[n] for n in _BAR)] for b in self._live.rows("chart", symbol=symbol, day=day)]
        later = [m for m in MINUTE_LABELS if not out or int(at(day, m).timestamp()) > out[-1][0]]
        if later and later[0] <= label:
            found = live_bars(self._live.warehouse(), day, at(day, later[0]), at(day, label), symbol)
            out += [[int(b["frame"].timestamp()), *(b[n] for n in _BAR)] for b in found.to_pylist()]
        return out

    def _instruments(self) -> list[dict[str, str]]:
        if time.monotonic() > self._list[0]:
            found = [{**row, "initials": initials(row["name"])} for row in self._live.rows("instruments")]
            self._list = (time.monotonic() + (_LIST_SECONDS if found else 5), found)
        return self._list[1]

    def _name(self, symbol: str) -> str:
        return next((i["name"] for i in self._instruments() if i["symbol"] == symbol), "")


_BAR: Final = ("open", "high", "low", "close", "vol", "source")


def initials(name: str) -> str:
    """First letters of a name, Chinese characters by their pinyin: 贵州茅台 → GZMT."""
    from pypinyin import Style, lazy_pinyin

    return "".join(lazy_pinyin(name, style=Style.FIRST_LETTER)).upper().replace(" ", "")
