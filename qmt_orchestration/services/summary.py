"""The live summary of `qmt up`: one glance tells whether the market flows, how late, and which minute is final."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from qmt_orchestration.settings import Settings


class Summary:
    """Addresses once, then a live line: rewritten in a terminal, one line every ten seconds elsewhere."""

    def __init__(self, settings: Settings, redis: Any, *, ui: bool, say: Callable[[str], None]) -> None:
        self.settings, self.redis, self.say = settings, redis, say
        self.live = sys.stdout.isatty()
        self.last_shown = 0.0
        self.client: Any = None
        for name, address in self._addresses(ui):
            say(f"{name:<12} {address}")
        say("Ctrl-C ends everything and leaves the data")

    def _addresses(self, ui: bool) -> list[tuple[str, str]]:
        pages = [
            ("Dagster", f"http://127.0.0.1:{self.settings.dagster_port}"),
            ("Console", f"http://127.0.0.1:{self.settings.console_port}"),
        ]
        engines = [("ClickHouse", self.settings.clickhouse_url), ("Redis", self.settings.redis_url)]
        return [*(pages if ui else []), *engines]

    def show(self) -> None:
        """Print the summary if it is time to."""
        if time.monotonic() - self.last_shown < (1.0 if self.live else 10.0):
            return
        self.last_shown = time.monotonic()
        line = self.line()
        if self.live:
            sys.stdout.write("\r\x1b[2K" + line)
            sys.stdout.flush()
        else:
            self.say(line)

    def close(self) -> None:
        """Leave the last line standing."""
        if self.live:
            sys.stdout.write("\n")

    def line(self) -> str:
        """Market time · symbols · ticks a second · delay · last minute of the market's day published and final."""
        from qmt_orchestration.stream.clock import read_clock
        from qmt_orchestration.stream.heartbeat import read_all

        try:
            clock = read_clock(self.redis)
            beats = {beat["service"]: beat for beat in read_all(self.redis)}
            day = clock.today()
            final = self._last_final(day)
        except Exception as error:  # an engine that restarts is shown, not a reason to end
            return f"waiting for the engines ({type(error).__name__})"
        if self.settings.feed == "simulator" and not clock.simulated:
            return "waiting for the simulated market"
        feed, writer, publisher = (beats.get(name, {}) for name in ("subscriber", "writer", "publisher"))
        last = str(publisher.get("last_frame", ""))
        delay = number(writer, "delay_p99_ms") if writer else -1.0
        parts = [
            f"market {clock.now():%Y-%m-%d %H:%M:%S}",
            f"symbols {number(feed, 'symbols'):,.0f}",
            f"{number(feed, 'rate'):,.0f} ticks/s",
            f"stored {number(writer, 'stored'):,.0f}",
            f"delay p99 {delay:,.0f} ms" if delay >= 0 else "delay –",
            f"published {last[-5:] if last.startswith(str(day)) else '–'}",
            f"final {final}",
        ]
        return " · ".join(parts)

    def _last_final(self, day: date) -> str:
        from qmt_orchestration.warehouse.client import connect, load_sql

        if self.client is None:
            self.client = connect(self.settings)
        frame = self.client.query(load_sql("last_final_frame"), parameters={"day": day}).first_row[0]
        return frame.strftime("%H:%M") if frame.year > 1970 else "–"


def number(beat: dict[str, Any], name: str) -> float:
    """A statistic of a heartbeat as a number, 0 when the service has not sent it yet."""
    try:
        return float(beat.get(name, 0) or 0)
    except ValueError:
        return 0.0
