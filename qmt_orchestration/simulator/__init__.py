"""A simulated terminal: a deterministic market, or recorded ticks, behind the real ``xtquant`` Python layer.

`install` registers a module in place of xtquant's compiled module; from then on ``import xtquant.xtdata`` works on any
platform and talks to the simulated market (``settings.feed == "simulator"``) or to a recording (``"replay"``). See
docs/simulator.md.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmt_orchestration.settings import Settings
    from qmt_orchestration.simulator.engine import Simulation

_lock = threading.Lock()
_current: Simulation | None = None


def install(settings: Settings) -> Simulation:
    """Register the module; call before xtquant is imported. Once per process: a second call returns the first's.

    Raises `market.recordings.RecordingError` (nothing was pushed), `faults.FaultError`, ValueError on settings that
    make no market, RuntimeError when the real compiled module is already loaded.
    """
    global _current
    from qmt_orchestration.simulator.datacenter import build_module
    from qmt_orchestration.simulator.engine import Simulation

    with _lock:
        if _current is None:
            if "xtquant.datacenter" in sys.modules:
                raise RuntimeError("xtquant was imported before simulator.install(settings); install first")
            _current = Simulation(settings)
            sys.modules["xtquant.datacenter"] = build_module(_current)
        return _current


def current_clock() -> tuple[int, float] | None:
    """(market time in epoch ms up to which all was pushed, speed); None in a replay and before the first subscription.

    The subscriber polls it and publishes it (`stream.clock.publish_clock`).
    """
    return _current.market_clock() if _current else None


def wait_finished(timeout_seconds: float | None = None) -> bool:
    """Wait until the last tick was pushed (a replay, or speed 0); False when the time is up first."""
    if _current is None:
        raise RuntimeError("no simulation: call simulator.install(settings) first")
    return _current.finished.wait(timeout_seconds)


def failed() -> bool:
    """Whether the pushing thread stopped because of an error (it is in the log)."""
    return _current is not None and _current.failed


def shutdown() -> None:
    """Stop pushing; connections break. The module stays registered."""
    if _current is not None:
        _current.close()
