"""Sending what waits: oldest first, per channel, forgetting a notice only when its channel has taken it.

A channel that fails is tried again with growing pauses, for ever: nothing is lost while it is dead. A message that is
refused again and again while the same channel takes others is itself the trouble (too long, refused words): it is set
aside after `MOST_ATTEMPTS`, kept in ``given_up`` and counted, so that it cannot stall the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from qmt_orchestration.alerts.messages import Notice, render
from qmt_orchestration.alerts.quiet import may_tell
from qmt_orchestration.alerts.state import State
from qmt_orchestration.alerts.transport import Channel
from qmt_orchestration.market.sessions import from_ms

MOST_ATTEMPTS: Final = 5
FAILURES_PER_PASS: Final = 3  # then the channel is taken for dead until its next try
LONGEST_PAUSE_MS: Final = 300_000
PASS_SECONDS: Final = 20.0  # of wall time: a sensor may take 60 s

log = logging.getLogger(__name__)


def deliver(state: State, known: list[Channel], now_ms: int, saved: Callable[[], None]) -> int:
    """Send what may be sent now; *saved* stores the state after each success. Returns the messages taken."""
    ids = {channel.id for channel in known}
    for notice in state.outbox:  # a channel that is no longer configured cannot be waited for; its notices go elsewhere
        if notice.waiting and not ids.intersection(notice.waiting):
            notice.waiting = tuple(c.id for c in known if not c.owner) or tuple(ids)
        else:
            notice.waiting = tuple(w for w in notice.waiting if w in ids)
    taken = 0
    deadline = time.monotonic() + PASS_SECONDS
    for channel in known:
        if now_ms >= state.retry_ms.get(channel.id, 0):
            taken += _deliver_to(channel, state, now_ms, deadline, saved)
    state.outbox = [notice for notice in state.outbox if notice.waiting]
    saved()
    return taken


def _deliver_to(channel: Channel, state: State, now_ms: int, deadline: float, saved: Callable[[], None]) -> int:
    taken, failed = 0, 0
    refused: list[Notice] = []
    for group in _groups(state, channel, now_ms):
        if failed >= FAILURES_PER_PASS or time.monotonic() > deadline:
            break
        for part in [group] if max(n.attempts for n in group) == 0 else [[notice] for notice in group]:
            title, body = render(part)
            if channel.send(title, body, failed=part[0].finding.failed):
                taken += 1
                for notice in part:
                    notice.waiting = tuple(w for w in notice.waiting if w != channel.id)
                saved()
            else:
                failed += 1
                refused += part
                for notice in part:
                    notice.attempts += 1
    if taken:
        state.failures[channel.id] = 0
        _set_aside(channel, state, refused)
    elif failed:
        state.failures[channel.id] = state.failures.get(channel.id, 0) + 1
        pause = min(10_000 * 2 ** (state.failures[channel.id] - 1), LONGEST_PAUSE_MS)
        state.retry_ms[channel.id] = now_ms + pause
        log.warning("channel %s takes nothing, next try in %d s", channel.name, pause // 1000)
    return taken


def _groups(state: State, channel: Channel, now_ms: int) -> list[list[Notice]]:
    """Notices of one partition and verdict together, the group with the oldest first; a refused one stands alone."""
    now = from_ms(now_ms)
    groups: dict[tuple[object, ...], list[Notice]] = {}
    for place, notice in enumerate(state.outbox):
        if channel.id in notice.waiting and may_tell(notice.finding, now):
            alone = (place,) if notice.attempts else ()
            groups.setdefault((*notice.group, *alone), []).append(notice)
    return list(groups.values())


def _set_aside(channel: Channel, state: State, refused: list[Notice]) -> None:
    for notice in refused:
        if notice.attempts >= MOST_ATTEMPTS:
            notice.waiting = tuple(w for w in notice.waiting if w != channel.id)
            state.given_up.append(notice)
            log.error(
                "channel %s refused %r %d times while it took others: set aside, see `qmt alerts list`",
                channel.name,
                notice.finding.title,
                notice.attempts,
            )
