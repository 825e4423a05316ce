"""The Redis client of every process: time-outs, TLS, password, and retries that cannot duplicate."""

from __future__ import annotations

import json
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from qmt_orchestration.settings import Settings


def connect(settings: Settings, *, url: str = "", retries: int = 3) -> redis.Redis:
    """A client of the configured Redis, or of the embedded one of ``data_dir``.

    The socket time-out lies above the longest blocking read. Replies are bytes. Retries are safe because every
    XADD of ours carries its own id (a repeat is refused as "equal or smaller").
    """
    address = url or settings.redis_url or embedded_url(settings)
    options: dict[str, Any] = {}
    if address.startswith("rediss://") and settings.redis_ca_file:
        options["ssl_ca_certs"] = str(settings.redis_ca_file)
    return redis.Redis.from_url(
        address,
        username=settings.redis_username or None,
        password=settings.engine_password("redis", address) or None,
        socket_timeout=settings.redis_block_ms / 1000 + 5,
        socket_connect_timeout=3,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries),
        **options,
    )


def embedded_url(settings: Settings) -> str:
    """URL of the embedded Redis of ``data_dir`` (its run file has the port in use)."""
    return f"redis://127.0.0.1:{embedded_port(settings, 'redis', settings.redis_port)}/0"


def embedded_port(settings: Settings, engine: str, default: int) -> int:
    """Port in ``<data_dir>/run/<engine>.json``, else the preferred one."""
    try:
        return int(json.loads((settings.run_dir / f"{engine}.json").read_text())["port"])
    except (OSError, ValueError, KeyError):
        return default
