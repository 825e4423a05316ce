"""Passwords of the embedded engines: made at their first start, kept in ``<data_dir>/run``, for their owner alone.

``<name>.password`` is that of clients (`Settings.engine_password` finds it); ``redis.admin.password`` is that of the
Redis user ``admin``, who alone may CONFIG, SAVE and SHUTDOWN.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final, Literal

from qmt_orchestration.files import replace_file
from qmt_orchestration.settings import Settings

ADMIN: Final = "admin"


def password_file(settings: Settings, name: Literal["redis", "clickhouse", "redis.admin"]) -> Path:
    """The file of a password, with the configured password in it, else with a generated one."""
    path = private_folder(settings.run_dir) / f"{name}.password"
    configured = None if name == "redis.admin" else getattr(settings, f"{name}_password")
    if configured:
        replace_file(path, configured.get_secret_value() + "\n")
    elif not path.exists() or not path.read_text().strip():
        replace_file(path, secrets.token_urlsafe(24) + "\n")
    return path


def private_folder(path: Path) -> Path:
    """*path*, made when absent, closed to other users of the machine also when an earlier version made it."""
    path.mkdir(parents=True, exist_ok=True)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path
