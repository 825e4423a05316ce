"""QMT's history over xtdata, made safe: with a deadline, checked row by row, in the instrument's own unit.

``download_history_data2`` waits without limit, so it runs in a thread of its own that can be given up. Ranges that were
not downloaded come back as padding rows (volume 0 with suspendFlag 1, price 0 or the previous close): they are left out
and counted; so are rows that are no bars (`LEFT_OUT`). Volume comes in lots and leaves in shares, fund units or bonds.
Prices are never adjusted (``dividend_type="none"``).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qmt_orchestration.feed.compare import PRICE_EPS
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.instruments import LOT_CANDIDATES, instrument_of
from qmt_orchestration.market.quality import DAY_MS, LATEST_MS, MAX_VOLUME, SHANGHAI_OFFSET_MS, local_day
from qmt_orchestration.market.schema import BAR_SCHEMA
from qmt_orchestration.market.sessions import MINUTE_LABELS

log = logging.getLogger("feed.history")
CHUNK_SYMBOLS: Final = 200
_CLOSE_MS: Final = 15 * 3_600_000
_VALUES: Final = ("open", "high", "low", "close", "volume", "amount")
PADDING: Final = "padding"
#: Why a row of QMT's history is left out; "bad_time" = outside the session table, or no midnight of a trading day.
LEFT_OUT: Final = (
    "",
    "not_finite",
    PADDING,
    "negative",
    "volume_too_large",
    "zero_price",
    "price_outside_range",
    "bad_time",
    "duplicate",
)


class HistoryError(RuntimeError):
    """A request that cannot be served; the message says what was expected, and what QMT said."""


@dataclass
class Progress:
    """How far a request is: symbols done of all, rows given, padding rows left out, rows rejected by reason."""

    symbols: int = 0
    total: int = 0
    rows: int = 0
    padding: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


class History:
    """Serves one request at a time from *xtdata*; several threads may ask."""

    def __init__(self, xtdata: Any) -> None:
        self.xtdata = xtdata
        self.given_up = 0  #: downloads that did not end before their deadline
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None

    def fetch(
        self,
        symbols: Sequence[str],
        period: str,
        start: str,
        end: str,
        *,
        remaining: Callable[[], float],
        report: Callable[[Progress], None],
    ) -> Iterator[pa.Table]:
        """Bars (BAR_SCHEMA) of *symbols* in [start, end] (``YYYYMMDD``, or with ``hhmmss``), some symbols at a time.

        *remaining*: seconds left. Raises `HistoryError`, `TimeoutError`.
        """
        if period != "1d":  # a bare end date would mean its midnight
            start, end = _with_time(start, "000000"), _with_time(end, "235959")
        progress = Progress(total=len(symbols))
        for at in range(0, len(symbols), CHUNK_SYMBOLS):
            chunk = list(symbols[at : at + CHUNK_SYMBOLS])
            with self._lock:
                self._download(chunk, period, start, end, remaining)
                frames = self.xtdata.get_market_data_ex(
                    [], chunk, period, start, end, dividend_type="none", fill_data=False
                )
            table, left_out = to_bars(frames, period)
            progress.symbols += len(chunk)
            progress.rows += table.num_rows
            progress.padding += left_out.pop(PADDING, 0)
            progress.rejected = dict(Counter(progress.rejected) + left_out)
            report(progress)
            yield table
        if progress.padding:
            log.info("%s %s…%s: %d padding rows left out", period, start, end, progress.padding)
        if progress.rejected:
            found = ", ".join(f"{count} {reason}" for reason, count in sorted(progress.rejected.items()))
            log.warning("%s %s…%s: rows of QMT's history that are no bars: %s", period, start, end, found)

    def _download(self, symbols: list[str], period: str, start: str, end: str, remaining: Callable[[], float]) -> None:
        """Let QMT fetch what it does not have, for as long as the request may take."""
        self._end_former()
        problem: list[str] = []

        def work() -> None:
            try:
                self.xtdata.download_history_data2(symbols, period, start, end, callback=note)
            except Exception as error:  # xtquant raises bare Exception
                problem.append(str(error))

        def note(data: dict[str, Any]) -> None:
            if data.get("total", 0) < 0:
                problem.append(str(data.get("message", "")))

        thread = threading.Thread(target=work, name="download", daemon=True)
        thread.start()
        thread.join(remaining())
        if thread.is_alive():
            self.given_up += 1
            self._running = thread
            raise TimeoutError(
                f"QMT did not download {period} of {len(symbols)} symbols in time; ask for fewer at once, or for "
                "longer (QMT_HISTORY_TIMEOUT_SECONDS)"
            )
        if problem:
            raise HistoryError(f"QMT cannot download {period} of {symbols[0]} and others: {problem[0]}")

    def _end_former(self) -> None:
        """A download that was given up still waits inside xtdata, until its connection ends."""
        if self._running is not None and self._running.is_alive():
            log.warning("an earlier download still waits: connecting to QMT again to end it")
            self.xtdata.reconnect()
            self._running.join(10)
        self._running = None


def _with_time(text: str, time: str) -> str:
    return text + time if len(text) == 8 else text


def to_bars(frames: dict[str, Any], period: str) -> tuple[pa.Table, Counter[str]]:
    """BAR_SCHEMA of what ``get_market_data_ex`` gave ({symbol: DataFrame}), and the rows left out by `LEFT_OUT`."""
    tables, left_out = [], Counter[str]()
    for symbol, frame in frames.items():
        if len(frame) == 0:
            continue
        missing = [name for name in ("time", *_VALUES) if name not in frame]
        if missing:
            raise HistoryError(f"{symbol}: expected columns {', '.join(missing)}; found {', '.join(map(str, frame))}")
        values = {name: _numbers(frame[name]) for name in ("time", *_VALUES)}
        flags = _numbers(frame["suspendFlag"]) if "suspendFlag" in frame else np.zeros(len(frame))
        reason = _reasons(values, flags, period)
        left_out.update(LEFT_OUT[code] for code in reason[reason > 0].tolist())
        keep = reason == 0
        if not keep.any():
            continue
        kept = {name: array[keep] for name, array in values.items()}
        seconds = (kept["time"].astype(np.int64) + (_CLOSE_MS if period == "1d" else 0)) // 1000
        columns = {
            "symbol": pa.repeat(symbol, len(seconds)),
            "frame": pa.array(seconds).cast(BAR_SCHEMA.field("frame").type),
            **{name: pa.array(kept[name]) for name in ("open", "high", "low", "close", "amount")},
            "vol": pa.array(kept["volume"].astype(np.int64) * _lot(symbol, kept)),
        }
        tables.append(pa.table([columns[name] for name in BAR_SCHEMA.names], schema=BAR_SCHEMA))
    return (pa.concat_tables(tables) if tables else BAR_SCHEMA.empty_table()), left_out


def _numbers(column: Any) -> npt.NDArray[np.float64]:
    """A column as floats; what is no number is NaN."""
    try:
        return np.asarray(column.to_numpy(), np.float64)
    except (TypeError, ValueError):
        return np.array([float(v) if isinstance(v, (int, float)) else np.nan for v in column.tolist()], np.float64)


def _reasons(values: dict[str, Any], flags: Any, period: str) -> npt.NDArray[np.int64]:
    """Why each row is no bar: index into `LEFT_OUT`, 0 = it is one."""
    time, volume, amount = values["time"], values["volume"], values["amount"]
    prices = [values[name] for name in ("open", "high", "low", "close")]
    finite = np.logical_and.reduce([np.isfinite(array) for array in values.values()])
    bounded = [np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) for array in prices]
    low, high = values["low"], values["high"]
    inside = np.logical_and.reduce(
        [(p >= low - PRICE_EPS) & (p <= high + PRICE_EPS) for p in (values["open"], values["close"])]
    )
    tests = {
        "not_finite": ~finite,
        PADDING: (volume == 0) & ((flags == 1) | (values["close"] <= 0)),
        "negative": np.logical_or.reduce([array < 0 for array in (*prices, volume, amount)]),
        "volume_too_large": volume >= MAX_VOLUME,
        "zero_price": np.minimum.reduce(bounded) == 0,
        "price_outside_range": ~inside,
        "bad_time": ~_stamped(np.where(finite, time, 0), period),
    }
    out = np.zeros(len(time), np.int64)
    for reason, where in tests.items():
        out[where & (out == 0)] = LEFT_OUT.index(reason)
    kept = np.flatnonzero(out == 0)
    _, first = np.unique(time[kept], return_index=True)
    again = np.ones(len(kept), np.bool_)
    again[first] = False
    out[kept[again]] = LEFT_OUT.index("duplicate")
    return out


def _stamped(time_ms: Any, period: str) -> Any:
    """Where a time is one that a bar of *period* can have: a frame of the table, a midnight (1d)."""
    stamps = np.clip(time_ms, 0, LATEST_MS).astype(np.int64)
    numbers, row = np.unique(local_day(stamps), return_inverse=True)
    trading = np.array([is_trading_day(date(1970, 1, 1) + timedelta(days=int(n))) for n in numbers], np.bool_)[row]
    of_day = (stamps + SHANGHAI_OFFSET_MS) % DAY_MS
    if period == "1d":
        return trading & (of_day == 0)
    return trading & (of_day % 60_000 == 0) & np.isin(of_day // 60_000, MINUTE_LABELS)


def _lot(symbol: str, values: dict[str, Any]) -> int:
    """Units per 手: that of its kind, unless the amounts prove another one."""
    about = instrument_of(symbol)
    volume, amount = values["volume"], values["amount"]
    traded = (volume > 0) & (amount > 0)
    if not about.priced or not traded.any():
        return about.lot_size
    low, high = (about.par, about.par) if about.par else (values["low"][traded], values["high"][traded])

    def fits(lot: int) -> int:
        average = amount[traded] / volume[traded] / lot
        return int(((average >= low * 0.98) & (average <= high * 1.02)).sum())

    best = max(LOT_CANDIDATES, key=fits)
    return best if fits(best) > max(fits(about.lot_size), traded.sum() // 2) else about.lot_size
