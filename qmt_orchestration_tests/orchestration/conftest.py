"""Settings of these tests: their days lie years back, so ticks must not expire on arrival."""

from __future__ import annotations

import pytest

from qmt_orchestration.settings import Settings


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's settings, keeping ticks permanently. Passwords are in the environment: resources hold none."""
    for name in ("redis_password", "clickhouse_password"):
        secret = getattr(settings, name)
        if secret is not None:
            monkeypatch.setenv(f"QMT_{name.upper()}", secret.get_secret_value())
    return settings.model_copy(update={"ticks_ttl_days": 20_000})
