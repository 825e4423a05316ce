"""The only import of xtquant: `load` gives ``xtquant.xtdata``, beside a running MiniQMT or over the simulator.

Importing xtquant makes a web request for updates (``check_for_update``, through ``requests``), which can hang a machine
without internet for ten seconds; it is switched off for the import.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from qmt_orchestration.settings import Settings

log = logging.getLogger("feed.xt")


@contextlib.contextmanager
def _no_update_check() -> Iterator[None]:
    """Let ``import requests`` fail meanwhile: xtquant catches that and goes on without asking the web."""
    hidden = {name: sys.modules.get(name) for name in ("requests", "pkg_resources")}
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class Terminal:
    """xtdata and what is known about the market behind it.

    *clock*: () -> (market time, epoch ms; market seconds per wall second) of a simulated market, None when there
    is none (live: the wall clock; in a recording nothing). *finished*: whether the last tick was pushed.
    """

    def __init__(
        self,
        xtdata: Any,
        *,
        clock: Callable[[], tuple[int, float] | None],
        now_ms: Callable[[], int] | None,
        finished: Callable[[], bool],
        failed: Callable[[], bool],
    ) -> None:
        self.xtdata, self.clock, self.now_ms, self.finished, self.failed = xtdata, clock, now_ms, finished, failed


def load(settings: Settings) -> Terminal:
    """Import xtdata for ``settings.feed``. On other systems than Windows only the simulator and replays exist.

    Raises ImportError when xtquant's compiled part is missing, and what `simulator.install` raises.
    """
    if settings.feed == "xtquant":
        return Terminal(_import(), clock=lambda: None, now_ms=None, finished=lambda: False, failed=lambda: False)
    from qmt_orchestration import simulator

    simulation = simulator.install(settings)
    return Terminal(
        _import(),
        clock=simulator.current_clock,
        now_ms=simulation.now_ms if settings.feed == "simulator" else None,
        finished=lambda: simulator.wait_finished(0),
        failed=simulator.failed,
    )


def _import() -> Any:
    with _no_update_check(), contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            from xtquant import xtdata
        except ImportError as error:
            raise ImportError(
                f"xtquant's compiled part cannot be loaded ({error}): QMT_FEED=xtquant needs Windows with a Python "
                "that xtquant supports; elsewhere set QMT_FEED=simulator"
            ) from error
    if said.getvalue().strip():
        log.info("xtquant: %s", said.getvalue().strip())
    xtdata.enable_hello = False  # it prints to stdout, which belongs to the report
    return xtdata
