"""Definitions for the launcher's tests: jobs that wait, that are stubborn, that print; quick to import."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import dagster as dg


class Files(dg.Config):
    """Where a run says that it has begun, and what it waits for."""

    begun: str = ""
    until: str = ""
    stubborn: bool = False


@dg.op
def work(context: dg.OpExecutionContext, config: Files) -> None:
    """Say who runs it, then wait for a file."""
    if config.stubborn:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    if config.begun:
        threads = len(list(Path("/proc/self/task").iterdir()))
        with Path(config.begun).open("a") as out:
            out.write(f"{os.getpid()} {os.getppid()} {threads} {threading.active_count()}\n")
    print("printed by the run")  # noqa: T201
    print("an error printed by the run", file=sys.stderr)  # noqa: T201
    while config.until and not Path(config.until).exists():
        time.sleep(0.05)


@dg.job(executor_def=dg.in_process_executor)
def tiny() -> None:
    """One op."""
    work()


defs = dg.Definitions(jobs=[tiny])
