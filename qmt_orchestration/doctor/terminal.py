"""xtquant: importable, and with QMT_FEED=xtquant a terminal that answers, in bounded time.

The question runs in a process of its own (`python -m qmt_orchestration.doctor.terminal`): xtquant waits without a
limit in several places, and only a process can be ended.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Final

from qmt_orchestration.doctor import Diagnosis, error, ok
from qmt_orchestration.extras import hint
from qmt_orchestration.settings import Settings

SECONDS: Final = 20.0


def xtquant(settings: Settings, seconds: float = SECONDS) -> Diagnosis:
    """Whether xtquant is there, and answers when the feed is a real terminal."""
    if importlib.util.find_spec("xtquant") is None:
        return error("xtquant", hint("xtquant"), "on the QMT machine: deploy/windows/requirements-feed.txt")
    if settings.feed != "xtquant":
        return ok("xtquant", f"installed; QMT_FEED={settings.feed}: no terminal is asked")
    argv = [sys.executable, "-m", "qmt_orchestration.doctor.terminal"]
    environment = {**settings.child_environment(secrets=()), "QMT_FEED": "xtquant"}
    try:
        asked = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return error("terminal", f"no answer within {seconds:g} s", "start MiniQMT, log in, and wait until it is ready")
    said = asked.stdout.decode("utf-8", errors="replace").strip().splitlines()
    last = said[-1] if said else asked.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
    if asked.returncode == 0 and said:
        return ok("terminal", said[-1])
    mend = "start MiniQMT in 独立交易/极简 mode, log in, check the right to quotes; see docs/install.md"
    return error("terminal", str(last or f"exit code {asked.returncode}")[:300], mend)


def main() -> int:
    """Ask the terminal for the members of the feed's sector; one line on stdout."""
    from qmt_orchestration.feed import universe, xt

    settings = Settings()
    try:
        members = universe.load(xt.load(settings).xtdata, settings)
    except Exception as problem:  # xtquant raises bare Exception while QMT is not there
        sys.stdout.write(f"{type(problem).__name__}: {problem}\n".replace("\n", " ").strip() + "\n")
        return 1
    sys.stdout.write(f"the terminal answers: {len(members.symbols)} instruments of {settings.feed_sector}\n")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # xtquant's threads must not hold the process
