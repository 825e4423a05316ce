"""Settings of these tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qmt_orchestration.settings import Settings


@pytest.fixture
def settings(settings: Settings, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's settings, with a home of Dagster. Passwords are in the environment: resources hold none."""
    for name in ("redis_password", "clickhouse_password"):
        secret = getattr(settings, name)
        if secret is not None:
            monkeypatch.setenv(f"QMT_{name.upper()}", secret.get_secret_value())
    shutil.copytree(empty_home, settings.data_dir / "dagster")
    return settings
