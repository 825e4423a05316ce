"""Settings of these tests: their days lie years back, so ticks must not expire on arrival."""

from __future__ import annotations

import pytest

from qmt_orchestration.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The test's settings, keeping ticks for ever."""
    return settings.model_copy(update={"ticks_ttl_days": 20_000})
