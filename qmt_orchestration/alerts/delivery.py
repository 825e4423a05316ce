"""Sending what waits: oldest first, per channel, forgetting a notice only when its channel has taken it.

A channel that fails is tried again with growing pauses, for ever: nothing is lost while it is dead. A message that is
refused again and again while the same channel takes others is itself the trouble (too long, refused words): it is set
aside after `MOST_REFUSALS`, kept in ``given_up`` and counted, so that it cannot stall the rest.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from qmt_orchestration.alerts.messages import Notice, render
from qmt_orchestration.alerts.quiet import may_tell
from qmt_orchestration.alerts.state import State
from qmt_orchestration.alerts.transport import Channel

MOST_REFUSALS: Final = 5
LONGEST_PAUSE_MS: Final = 300_000
PASS_SECONDS: Final = 20.0  # of wall time: a sensor may take 60 s

log = logging.getLogger(__name__)


def deliver(state: State, known: list[Channel], now_ms: int, market_now: datetime, saved: Callable[[], None]) -> int:
    """Send what may be sent now; *saved* stores the state after each success. Returns the messages taken.

    *now_ms* (wall clock) rules the pauses, *market_now* the quiet hours: a simulated market has its own.
    """
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
            taken += _deliver_to(channel, state, now_ms, market_now, deadline, saved)
    state.outbox = [notice for notice in state.outbox if notice.waiting]
    saved()
    return taken


def _deliver_to(
    channel: Channel, state: State, now_ms: int, market_now: datetime, deadline: float, saved: Callable[[], None]
) -> int:
    taken = 0
    refused: list[Notice] = []
    waiting = deque(_groups(state, channel, market_now))
    while waiting and time.monotonic() < deadline:
        # Oldest first. If that fails, the newest tells whether the channel is dead or the message is the trouble.
        group = waiting.pop() if refused and not taken else waiting.popleft()
        title, body = render(group)
        if channel.send(title, body, failed=group[0].finding.failed):
            taken += 1
            for notice in group:
                notice.waiting = tuple(w for w in notice.waiting if w != channel.id)
            saved()
            continue
        dead = bool(refused) and not taken
        refused += group
        if dead:
            break
    for notice in refused:
        notice.attempts += 1
    if taken:
        state.failures[channel.id] = 0
        _set_aside(channel, state, refused)
    elif refused:
        state.failures[channel.id] = state.failures.get(channel.id, 0) + 1
        pause = min(10_000 * 2 ** min(state.failures[channel.id] - 1, 10), LONGEST_PAUSE_MS)
        state.retry_ms[channel.id] = now_ms + pause
        log.warning("channel %s takes nothing, next try in %d s", channel.name, pause // 1000)
    return taken


def _groups(state: State, channel: Channel, now: datetime) -> list[list[Notice]]:
    """Notices of one partition and verdict together, the group with the oldest first; a refused one stands alone."""
    groups: dict[tuple[object, ...], list[Notice]] = {}
    for place, notice in enumerate(state.outbox):
        if channel.id in notice.waiting and may_tell(notice.finding, now):
            alone = (place,) if notice.attempts else ()
            groups.setdefault((*notice.group, *alone), []).append(notice)
    return list(groups.values())


def _set_aside(channel: Channel, state: State, refused: list[Notice]) -> None:
    for notice in refused:
        notice.refusals += 1
        if notice.refusals >= MOST_REFUSALS:
            notice.waiting = tuple(w for w in notice.waiting if w != channel.id)
            state.given_up.append(notice)
            log.error(
                "channel %s refused %r %d times while it took others: set aside, see `qmt alerts list`",
                channel.name,
                notice.finding.title,
                notice.refusals,
            )
