"""A child process that never outlives the process that started it, unless asked to."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_with_parent(parent_pid: int) -> None:
    """SIGTERM to this process when *parent_pid*, its parent, ends for whatever reason, SIGKILL included.

    On Linux the kernel does it and the wish survives an exec. Elsewhere a thread looks once a second (and an exec
    ends it). The kernel watches the *thread* that started us: `engines` starts children from a thread of its own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # it ended before the kernel knew our wish
            sys.exit(0)
        return

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
