"""QMT's history over xtdata, made safe: with a deadline, without padding rows, in shares.

``download_history_data2`` waits without limit, so it runs in a thread of its own that can be given up. Ranges that were
not downloaded come back as padding rows (volume 0 with suspendFlag 1, price 0 or the previous close): they are left out
and counted. Volume comes in lots and leaves in shares. Prices are never adjusted (``dividend_type="none"``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qmt_orchestration.market.quality import SHARES_PER_LOT
from qmt_orchestration.market.schema import TZ

log = logging.getLogger("feed.history")

BAR_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("frame", pa.timestamp("s", TZ), nullable=False),  # end label; of a daily bar the day's 15:00
        pa.field("open", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("vol", pa.int64(), nullable=False),  # shares
        pa.field("amount", pa.float64(), nullable=False),  # yuan
    ]
)
CHUNK_SYMBOLS: Final = 200
_CLOSE_MS: Final = 15 * 3_600_000


class HistoryError(RuntimeError):
    """A request that cannot be served; the message says what was expected, and what QMT said."""


@dataclass
class Progress:
    """How far a request is: symbols done of all, rows given, padding rows left out."""

    symbols: int = 0
    total: int = 0
    rows: int = 0
    padding: int = 0


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
            table, padding = to_bars(frames, period)
            progress.symbols += len(chunk)
            progress.rows += table.num_rows
            progress.padding += padding
            report(progress)
            yield table
        if progress.padding:
            log.info("%s %s…%s: %d padding rows left out", period, start, end, progress.padding)

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
            log.warning("an earlier download still waits: connecting to QMT anew to end it")
            self.xtdata.reconnect()
            self._running.join(10)
        self._running = None


def _with_time(text: str, time: str) -> str:
    return text + time if len(text) == 8 else text


def to_bars(frames: dict[str, Any], period: str) -> tuple[pa.Table, int]:
    """BAR_SCHEMA of what ``get_market_data_ex`` gave ({symbol: DataFrame}), and the number of padding rows left out."""
    tables, padding = [], 0
    for symbol, frame in frames.items():
        if len(frame) == 0:
            continue
        volume = frame["volume"].to_numpy(np.int64)
        suspended = frame["suspendFlag"].to_numpy(np.int64) == 1 if "suspendFlag" in frame else volume < 0
        prices = {name: frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")}
        keep = ~((volume == 0) & (suspended | (prices["close"] <= 0)))
        padding += int((~keep).sum())
        if not keep.any():
            continue
        time_ms = frame["time"].to_numpy(np.int64)[keep]
        seconds = (time_ms + (_CLOSE_MS if period == "1d" else 0)) // 1000
        columns = {
            "symbol": pa.repeat(symbol, len(seconds)),
            "frame": pa.array(seconds).cast(BAR_SCHEMA.field("frame").type),
            **{name: pa.array(values[keep]) for name, values in prices.items()},
            "vol": pa.array(volume[keep] * SHARES_PER_LOT),
            "amount": pa.array(frame["amount"].to_numpy(np.float64)[keep]),
        }
        tables.append(pa.table([columns[name] for name in BAR_SCHEMA.names], schema=BAR_SCHEMA))
    return (pa.concat_tables(tables) if tables else BAR_SCHEMA.empty_table()), padding
