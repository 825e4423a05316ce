"""What is known and what is still to be sent: kept over restarts as one JSON file in ``data_dir/alerts``.

The file is replaced atomically after every step, so a crash repeats at most the message that was being sent.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qmt_orchestration.alerts.messages import Finding, Notice
from qmt_orchestration.files import replace_file
from qmt_orchestration.texts import Language, say

log = logging.getLogger(__name__)

FORGET_MS: Final = 7 * 86_400_000  # an open incident that was not observed for this long is closed without a notice
MOST_ANNOUNCED: Final = 3
SAME_SUBJECT_MS: Final = 600_000  # findings of one check on further days wait this long, and go out as one message
_RANK: Final = {"WARN": 0, "ERROR": 1}


@dataclass
class Incident:
    """A failure that is open: announced at least once, or waiting to be."""

    finding: Finding
    since_ms: int
    seen_ms: int
    announced: bool = False  # queued at least once
    repeats: int = 0  # observations since then


@dataclass
class AlertState:
    """Cursors of what has been read, open incidents by key, notices to deliver (oldest first), and the given up."""

    cursors: dict[str, str] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    announced: dict[str, list[int]] = field(default_factory=dict)  # key → when its failure was, within the window
    outbox: list[Notice] = field(default_factory=list)
    given_up: list[Notice] = field(default_factory=list)  # refused again and again while others got through
    failures: dict[str, int] = field(default_factory=dict)  # channel → failed attempts in a row
    retry_ms: dict[str, int] = field(default_factory=dict)  # channel → not before
    services: dict[str, dict[str, Any]] = field(default_factory=dict)  # memory of `services.watch`

    def observe(
        self,
        finding: Finding,
        now_ms: int,
        window_ms: int,
        channels_for: Callable[[Finding], tuple[str, ...]],
        language: Language = "en",
    ) -> None:
        """Take in one finding: open, repeat, worsen or close its incident, and queue what is to be sent.

        A lasting failure is announced once per *window_ms*; one that comes and goes at most `MOST_ANNOUNCED`
        times.
        """
        incident = self.incidents.get(finding.key)
        if not finding.failed:
            if incident is not None:
                self._recover(incident, finding, now_ms, channels_for, language)
            return
        if incident is None:
            incident = self.incidents[finding.key] = Incident(finding, now_ms, now_ms)
        else:
            incident.repeats += 1
        worse = _RANK[finding.severity] > _RANK[incident.finding.severity]
        incident.finding, incident.seen_ms = finding, now_ms
        earlier = [ms for ms in self.announced.get(finding.key, []) if now_ms - ms < window_ms]
        due = worse or not earlier if incident.announced else len(earlier) < MOST_ANNOUNCED
        queued = self._queued(finding.key)
        if queued is not None:  # not delivered everywhere yet: the newest replaces it
            queued.finding, queued.repeats, queued.at_ms = finding, incident.repeats, now_ms
        if due:
            if queued is None:
                notice = Notice(finding, now_ms, incident.repeats, channels_for(finding), since_ms=incident.since_ms)
                notice.not_before_ms = self._other_days(finding, now_ms)
                self.outbox.append(notice)
            else:
                queued.waiting = channels_for(finding)
            incident.announced, incident.repeats = True, 0
            earlier.append(now_ms)
        self.announced[finding.key] = earlier

    def _other_days(self, finding: Finding, now_ms: int) -> int:
        """Until when *finding* waits because its subject was announced of another day before this look; 0: at once."""
        if not finding.partition:
            return 0
        others = [i for i in self.incidents.values() if i.finding.subject == finding.subject and i.announced]
        times = [ms for i in others if i.finding.key != finding.key for ms in self.announced.get(i.finding.key, [])]
        earlier = [ms for ms in times if now_ms - SAME_SUBJECT_MS < ms < now_ms]
        return max(earlier) + SAME_SUBJECT_MS if earlier else 0

    def _recover(
        self,
        incident: Incident,
        finding: Finding,
        now_ms: int,
        channels_for: Callable[[Finding], tuple[str, ...]],
        language: Language,
    ) -> None:
        del self.incidents[finding.key]
        if not incident.announced:
            return
        lasted = say(language, "failed.for", minutes=f"{(now_ms - incident.since_ms) / 60_000:.0f}")
        # the recovery has the title, owner and severity of its failure: it goes the same way at the same hours
        recovery = replace(
            incident.finding,
            failed=False,
            text=f"{lasted}\n{finding.text}".rstrip(),
            link=finding.link or incident.finding.link,
        )
        self.outbox.append(Notice(recovery, now_ms, incident.repeats, channels_for(recovery)))

    def _queued(self, key: str) -> Notice | None:
        """The last notice of *key*, if it is of a failure and has not been delivered everywhere."""
        last = next((notice for notice in reversed(self.outbox) if notice.finding.key == key), None)
        return last if last is not None and last.finding.failed else None

    def forget_old(self, now_ms: int) -> None:
        """Close incidents of what is no longer observed (a renamed check, a removed service)."""
        self.incidents = {k: i for k, i in self.incidents.items() if now_ms - i.seen_ms < FORGET_MS}
        self.announced = {k: t for k, t in self.announced.items() if t and now_ms - t[-1] < FORGET_MS}
        self.given_up = self.given_up[-50:]


def _path(data_dir: Path) -> Path:
    return data_dir / "alerts" / "state.json"


class BrokenState(RuntimeError):
    """The stored state cannot be read; the message names the file."""


def load(data_dir: Path) -> AlertState:
    """The stored state, or a new one. A broken file is renamed, not trusted and not lost."""
    try:
        return read(data_dir)
    except BrokenState as error:
        log.error("%s: it is kept as state.broken.json, what was open is announced again", error)
        os.replace(_path(data_dir), _path(data_dir).with_suffix(".broken.json"))
        return AlertState()


def read(data_dir: Path) -> AlertState:
    """The stored state, or an empty one where there is none; changes nothing. `BrokenState` for a broken file."""
    path = _path(data_dir)
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return AlertState()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenState(f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]})") from error


def _parse(raw: dict[str, Any]) -> AlertState:
    for one in (raw, *raw["incidents"].values()):
        if "told" in one:  # its name in files of earlier versions
            one["announced"] = one.pop("told")
    raw["incidents"] = {
        key: Incident(**{**one, "finding": Finding(**one["finding"])}) for key, one in raw["incidents"].items()
    }
    for name in ("outbox", "given_up"):
        raw[name] = [
            Notice(**{**one, "finding": Finding(**one["finding"]), "waiting": tuple(one["waiting"])})
            for one in raw[name]
        ]
    return AlertState(**raw)


def save(state: AlertState, data_dir: Path) -> None:
    """Replace the file, durably."""
    replace_file(_path(data_dir), json.dumps(asdict(state), ensure_ascii=False), durable=True)
