"""The live line of `qmt up`: one glance shows whether the market flows, how late, and which minute is final."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from qmt_orchestration.services.state import SystemState
from qmt_orchestration.settings import Settings


class LiveLine:
    """Addresses once, then a live line: rewritten in a terminal, one line every ten seconds elsewhere."""

    def __init__(self, settings: Settings, *, ui: bool, say: Callable[[str], None]) -> None:
        self.say = say
        self.live = sys.stdout.isatty()
        self.last_shown = 0.0
        pages = [("Dagster", settings.dagster_port), ("Console", settings.console_port)] if ui else []
        addresses = [(name, f"http://127.0.0.1:{port}") for name, port in pages]
        addresses += [("ClickHouse", settings.clickhouse_url), ("Redis", settings.redis_url)]
        for name, address in addresses:
            say(f"{name:<12} {address}")
        say("Ctrl-C ends everything and leaves the data")

    def show(self, state: SystemState | None) -> None:
        """Print the line if it is time to."""
        if time.monotonic() - self.last_shown < (1.0 if self.live else 10.0):
            return
        self.last_shown = time.monotonic()
        if self.live:
            sys.stdout.write("\r\x1b[2K" + line(state))
            sys.stdout.flush()
        else:
            self.say(line(state))

    def close(self) -> None:
        """Leave the last line standing."""
        if self.live:
            sys.stdout.write("\n")


def line(state: SystemState | None) -> str:
    """Market time, speed and why, symbols, ticks, delay, newest minute published and final; or what it waits for."""
    if state is None:
        return "waiting for Redis"
    parts = [f"market {state.market_time[:19].replace('T', ' ')}"]
    if state.speed_reason:
        parts.append(state.speed_reason)
    if state.last_published is None and state.last_final is None and state.reasons:
        return " · ".join([*parts, "waiting: " + "; ".join(state.reasons)])
    delay = "no tick stored yet" if state.delay_p99_s is None else f"visible after {state.delay_p99_s:.2f} s (p99)"
    parts += [
        f"{state.symbols:,} symbols",
        f"{state.ticks_per_s:,.0f} ticks/s",
        f"{state.stored:,} stored",
        delay,
        f"bars published to {state.last_published}" if state.last_published else "no minute has closed yet",
        f"final to {state.last_final}" if state.last_final else "no minute is final yet",
    ]
    return " · ".join(parts)
