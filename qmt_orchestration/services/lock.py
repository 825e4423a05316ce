"""A lock file that only one process holds, gone with it however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """An operating-system lock on *path*, gone with the process however it ends. Yields whether it is ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        yield try_lock(file)


def try_lock(file: IO[str]) -> bool:
    """Lock the open *file* for this process without waiting; False when another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
