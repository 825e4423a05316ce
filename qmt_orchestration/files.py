"""Files: written whole or not at all; and those of the project that a wheel carries inside."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write *path* for its owner alone and put it in place in one step; its folder is made. *durable*: on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)


def project_file(name: str) -> Path:
    """Path of ``dagster.yaml`` or ``workspace.yaml``. Raises FileNotFoundError when the installation lacks it."""
    package = Path(__file__).resolve().parent
    for path in (package.parent / name, package / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is neither beside nor inside {package}: install qmt-orchestration again")
