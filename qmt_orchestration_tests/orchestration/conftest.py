"""Settings of these tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmt_orchestration.settings import Settings


@contextmanager
def passwords_in_environment(settings: Settings) -> Iterator[None]:
    """Where resources read them: their configuration holds none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("redis_password", "clickhouse_password"):
            secret = getattr(settings, name)
            if secret is not None:
                patch.setenv(f"QMT_{name.upper()}", secret.get_secret_value())
        yield


@pytest.fixture
def settings(settings: Settings, empty_home: Path) -> Iterator[Settings]:
    """The test's settings, with a home of Dagster."""
    shutil.copytree(empty_home, settings.data_dir / "dagster")
    with passwords_in_environment(settings):
        yield settings
