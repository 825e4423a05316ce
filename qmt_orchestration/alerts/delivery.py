"""Sending what waits: oldest first, per channel, removing a notice only when its channel has accepted it.

A channel that fails is tried again with growing pauses: nothing is lost while it fails. A message that is
refused again and again while the same channel takes others is itself at fault (too long, refused words): it is given
up after `MOST_REFUSALS`, kept in ``given_up`` and counted, so that it cannot block the rest.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from qmt_orchestration.alerts.messages import Finding, Notice, render
from qmt_orchestration.alerts.state import AlertState
from qmt_orchestration.alerts.transport import Channel
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.sessions import AFTER_HOURS_END, PRE_OPEN, SHANGHAI
from qmt_orchestration.texts import Language

MOST_REFUSALS: Final = 5
LONGEST_PAUSE_MS: Final = 300_000
PASS_SECONDS: Final = 20.0  # of wall time: a sensor may take 60 s

log = logging.getLogger(__name__)


def deliver(
    state: AlertState,
    known: list[Channel],
    now_ms: int,
    market_now: datetime,
    saved: Callable[[], None],
    language: Language = "en",
) -> int:
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
            waiting = deque(_groups(state, channel, now_ms, market_now))
            taken += _deliver_to(channel, state, waiting, now_ms, deadline, saved, language)
    state.outbox = [notice for notice in state.outbox if notice.waiting]
    saved()
    return taken


def _deliver_to(
    channel: Channel,
    state: AlertState,
    waiting: deque[list[Notice]],
    now_ms: int,
    deadline: float,
    saved: Callable[[], None],
    language: Language,
) -> int:
    taken = 0
    refused: list[Notice] = []
    while waiting and time.monotonic() < deadline:
        # Oldest first. If that fails, the newest one shows whether the channel or the message is at fault.
        group = waiting.pop() if refused and not taken else waiting.popleft()
        title, body = render(group, language)
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
        _give_up(channel, state, refused)
    elif refused:
        state.failures[channel.id] = state.failures.get(channel.id, 0) + 1
        pause = min(10_000 * 2 ** min(state.failures[channel.id] - 1, 10), LONGEST_PAUSE_MS)
        state.retry_ms[channel.id] = now_ms + pause
        log.warning("channel %s takes nothing, next try in %d s", channel.name, pause // 1000)
    return taken


def _groups(state: AlertState, channel: Channel, now_ms: int, market_now: datetime) -> list[list[Notice]]:
    """What goes together, the group with the oldest first: findings of one subject on several days, else those of one
    partition; failures and recoveries apart. A refused notice stands alone."""
    due = [
        (place, notice)
        for place, notice in enumerate(state.outbox)
        if channel.id in notice.waiting and now_ms >= notice.not_before_ms and may_send(notice.finding, market_now)
    ]
    days: dict[tuple[str, bool], set[str]] = {}
    for _, notice in due:
        if notice.finding.partition and not notice.attempts:
            subject = (notice.finding.subject, notice.finding.failed)
            days.setdefault(subject, set()).add(notice.finding.partition)
    groups: dict[tuple[object, ...], list[Notice]] = {}
    for place, notice in due:
        finding = notice.finding
        several = len(days.get((finding.subject, finding.failed), ())) > 1
        together = ("subject", finding.subject) if several else ("partition", finding.partition)
        alone = (place,) if notice.attempts else ()
        groups.setdefault((*together, finding.failed, *alone), []).append(notice)
    return list(groups.values())


def may_send(finding: Finding, now: datetime) -> bool:
    """Whether *finding* may be sent at *now* (aware): an ERROR always, a WARN, and its recovery, from 09:15 to 15:30 of
    a trading day."""
    if finding.severity == "ERROR":
        return True
    here = now.astimezone(SHANGHAI)
    return is_trading_day(here.date()) and PRE_OPEN <= here.time() < AFTER_HOURS_END


def _give_up(channel: Channel, state: AlertState, refused: list[Notice]) -> None:
    for notice in refused:
        notice.refusals += 1
        if notice.refusals >= MOST_REFUSALS:
            notice.waiting = tuple(w for w in notice.waiting if w != channel.id)
            state.given_up.append(notice)
            log.error(
                "channel %s refused %r %d times while it took others: given up, see `qmt alerts list`",
                channel.name,
                notice.finding.title,
                notice.refusals,
            )
