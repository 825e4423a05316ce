"""Child processes that never outlive what started them, and process groups of which only one runs at a time."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from qmt_orchestration.files import replace_file

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

log = logging.getLogger("qmt.processes")


def exit_with_parent(parent_pid: int) -> None:
    """SIGTERM to this process when *parent_pid*, its parent, ends for whatever reason, SIGKILL included.

    On Linux the kernel does it and the setting survives an exec. Elsewhere a thread looks once a second (and an exec
    ends it). The kernel watches the *thread* that started us: start children with :func:`spawn`.
    """
    if sys.platform == "linux":
        die_with_parent()
        if os.getppid() != parent_pid:  # it ended before the call above
            sys.exit(0)
        return

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def die_with_parent() -> None:
    """For ``preexec_fn``, on Linux: SIGTERM to the child when the thread that started it ends. Elsewhere nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_spawners: dict[int, ThreadPoolExecutor] = {}


def spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Popen from a thread that runs as long as this process: the kernel ends the child with that thread."""
    pid = os.getpid()  # a forked process needs a thread of its own
    spawner = _spawners.setdefault(pid, ThreadPoolExecutor(1, thread_name_prefix="child-parent"))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, **options)

    return spawner.submit(start).result()


def record_group(record: Path, leader: int) -> None:
    """Write the group led by *leader* to the file *record* (0600): a pid alone may be another process's tomorrow."""
    try:
        created = psutil.Process(leader).create_time()
    except psutil.NoSuchProcess:  # it has ended already; what it started may run
        created = time.time()
    known = {"pid": leader, "create_time": created, "boot_time": psutil.boot_time()}
    replace_file(record, json.dumps(known))


def end_group(record: Path, grace_seconds: float = 10.0) -> int:
    """End every process of the group named in *record*, also when its leader is gone; how many there were.

    SIGTERM first, SIGKILL to what is left after *grace_seconds*. A record of another boot, or whose leader's pid
    now belongs to another process, names no process. The file is removed.
    """
    members = group_members(record)
    if members:
        log.warning("%s: ending %d processes that an earlier start left behind", record.stem, len(members))
    for number in (signal.SIGCONT, signal.SIGTERM) if sys.platform != "win32" else (signal.SIGTERM,):
        for process in members:  # SIGTERM does not reach a stopped process
            with suppress(psutil.Error):
                process.send_signal(number)
    psutil.wait_procs(members, timeout=grace_seconds)
    left = group_members(record)  # also those that were started meanwhile
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    record.unlink(missing_ok=True)
    return len(members)


def group_members(record: Path) -> list[psutil.Process]:
    """The living processes of the group, or of the session, whose leader *record* names."""
    try:
        known = json.loads(record.read_text())
        leader, created, booted = int(known["pid"]), float(known["create_time"]), float(known["boot_time"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s names no process group (%s): ignored", record, error)
        return []
    if abs(psutil.boot_time() - booted) > 60:  # it is computed from a clock that may be set
        return []
    with suppress(psutil.Error):
        if abs(psutil.Process(leader).create_time() - created) > 1:
            return []  # the pid was given to another process: the kernel does that only when its group is gone
    if sys.platform == "win32":
        return _family(leader)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if leader in (os.getpgid(process.pid), os.getsid(process.pid)) and process.status() != "zombie":
                found.append(process)
    return found


def _family(leader: int) -> list[psutil.Process]:
    """Windows has no groups that outlive their leader: the leader and what it started."""
    try:
        process = psutil.Process(leader)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
