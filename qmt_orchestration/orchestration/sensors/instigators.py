"""Findings about Dagster's own sensors and schedules: a tick that raises starts no run, so nothing else reports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.texts import Language, say

#: A sensor comes again within seconds: one failed evaluation is repeated. A schedule comes again tomorrow.
FAILED_TICKS: Final = {InstigatorType.SENSOR: 3, InstigatorType.SCHEDULE: 1}
_ENDED: Final = (TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE)


def failing(instance: dg.DagsterInstance, base: str, language: Language = "en") -> Iterator[Finding]:
    """One finding for each sensor and schedule that is on; it fails when its last ticks all raised."""
    for state in instance.all_instigator_state():
        wanted = FAILED_TICKS.get(state.instigator_type)
        if wanted is None or not state.is_running:
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=wanted, statuses=list(_ENDED))
        if len(ticks) < wanted:
            continue
        kind = state.instigator_type.value.lower()
        error = ticks[0].error
        failed = all(tick.status == TickStatus.FAILURE for tick in ticks)
        while error is not None and error.cause is not None:
            error = error.cause  # the outer ones say only that user code raised
        text = error.message.strip()[:600] if failed and error is not None else say(language, "instigator.recovered")
        title = say(language, f"{kind}.failing", name=state.instigator_name)
        link = f"{base}/automation"
        yield Finding(
            f"{kind}:{state.instigator_name}", failed, title, text, link=link, todo=say(language, "instigator.todo")
        )
