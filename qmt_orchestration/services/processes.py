"""Process groups and pid files: what is needed to end services and to recognize those of an earlier life."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger("agent")


def own_group() -> dict[str, Any]:
    """A group of its own: Ctrl-C in a terminal reaches the agent alone, which then stops its services in order."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def kill_group(pid: int) -> None:
    """SIGKILL to every process of the group led by *pid* (POSIX); nothing where there is none."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def write_pid_file(path: Path, pid: int) -> None:
    """Record a process by its pid and start time: a pid alone may be somebody else's tomorrow.

    A disk that is full is no reason to run nothing: then the file is missing, and the log says so.
    """
    try:
        content = {"pid": pid, "create_time": psutil.Process(pid).create_time()}
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(content))
        os.replace(draft, path)
    except psutil.NoSuchProcess:
        return
    except OSError as error:
        log.error("%s cannot be written (%s): an agent that follows would not know process %d", path, error, pid)


def tell_systemd(state: str) -> None:
    """Send *state* (``READY=1``, ``WATCHDOG=1``) to the systemd that started us, as sd_notify(3); else nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if sys.platform == "win32" or not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def end_orphans(pid_dir: Path, grace_seconds: float) -> int:
    """End the services that an earlier life of the agent left running. Returns how many there were."""
    orphans: list[psutil.Process] = []
    for path in pid_dir.glob("*.json"):
        try:
            record = json.loads(path.read_text())
            process = psutil.Process(int(record["pid"]))
            if abs(process.create_time() - float(record["create_time"])) < 1.0:
                process.terminate()
                orphans.append(process)
                log.warning("%s of an earlier agent still runs (pid %d): ending it", path.stem, process.pid)
        except psutil.NoSuchProcess:
            pass
        except (ValueError, KeyError, OSError) as error:
            log.warning("pid file %s is unreadable (%s): ignored", path, error)
        path.unlink(missing_ok=True)
    _, alive = psutil.wait_procs(orphans, timeout=grace_seconds)
    for process in alive:
        log.error("pid %d of an earlier agent did not stop, killed", process.pid)
        kill_group(process.pid)
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(orphans)
