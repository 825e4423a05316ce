"""Starting and ending processes in groups of their own, and what systemd wants to hear."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from qmt_orchestration.local.process import die_with_parent
from qmt_orchestration.local.process import spawn as spawn_from_lasting_thread
from qmt_orchestration.settings import SECRETS, Settings


def spawn(
    argv: list[str],
    settings: Settings,
    output: str,
    environment: Mapping[str, str] | None = None,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    secrets: Collection[str] = SECRETS,
) -> subprocess.Popen[bytes]:
    """Start *argv* with these settings as the leader of a process group, so that Ctrl-C in a terminal reaches only us.

    Of the settings that are secrets it gets those named. What it prints is appended to ``data_dir/logs/<output>``, with
    *stdout* only its errors. On Linux it gets SIGTERM when this process ends, SIGKILL included.
    """
    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": die_with_parent}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / output).open("ab") as out:
        return spawn_from_lasting_thread(
            argv,
            env={**settings.child_environment(secrets=secrets), **(environment or {})},
            stdin=stdin,
            stdout=out if stdout is None else stdout,
            stderr=out,
            **options,
        )


def stop_group(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a process in order, then what is left of its group by force."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    kill_group(process.pid)
    if process.poll() is None:
        process.kill()
    process.wait()


def kill_group(pid: int) -> None:
    """SIGKILL to every process of the group led by *pid* (POSIX); nothing where there is none."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def tell_systemd(state: str) -> None:
    """Send *state* (``READY=1``, ``WATCHDOG=1``) to the systemd that started us, as sd_notify(3); else nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if sys.platform == "win32" or not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
