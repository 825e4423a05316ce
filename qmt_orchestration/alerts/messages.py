"""Texts: one finding in words, and a group of notices as one message, in the language of the setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.texts import Language, say

Severity = Literal["WARN", "ERROR"]
LONGEST_TEXT: Final = 1500  # characters of evidence in a finding; each transport has its own limit on top
MOST_LISTED: Final = 20
MOST_DAYS: Final = 10


@dataclass(frozen=True)
class Finding:
    """One observation. *key* names the thing watched: findings of the same key replace each other."""

    key: str  # check:bars_1m/ohlc_consistent@2025-06-05, run:finalize_minutes@…, service:writer
    failed: bool
    title: str  # "bars_1m / ohlc_consistent: wrong prices or volumes"
    text: str = ""  # evidence: expected, found, minutes, worst offenders; no secrets
    severity: Severity = "ERROR"
    partition: str = ""
    owner: str = ""  # "market-data"; "" = the default channels
    link: str = ""  # the report of its day, or the page that says more
    todo: str = ""  # a command or an action

    @property
    def subject(self) -> str:
        """What is watched, whatever the day: equal for the findings of one check on several days."""
        return self.key.rpartition("@")[0] or self.key


@dataclass
class Notice:
    """Something to send: a failure (``failed``) or a recovery, and the channels that have not taken it yet."""

    finding: Finding
    at_ms: int  # epoch ms of the observation that it is about
    repeats: int = 0  # further observations that were not announced
    waiting: tuple[str, ...] = ()  # ids of channels
    attempts: int = 0  # failed ones; from the first on it travels alone
    refusals: int = 0  # failed ones while its channel took others
    since_ms: int = 0  # epoch ms of the first observation of its incident
    not_before_ms: int = 0  # the same subject was announced of another day just now: it waits for further days


def render(notices: Sequence[Notice], language: Language = "en") -> tuple[str, str]:
    """Title and body of one message, worst first. All failed or all recovered; of one partition, or of one subject on
    several days, which is said once, with the newest day's evidence."""
    failed = notices[0].finding.failed
    ordered = sorted(notices, key=lambda n: (n.finding.severity != "ERROR", n.at_ms))
    worst = say(language, f"severity.{ordered[0].finding.severity if failed else 'RECOVERED'}")
    days = sorted({n.finding.partition for n in notices})
    if len(days) > 1:
        newest = max(ordered, key=lambda n: n.finding.partition)
        title = f"[{worst}] {newest.finding.title} · {say(language, 'several.days', n=len(days))}"
        listed = ", ".join(days[:MOST_DAYS]) + (" …" if len(days) > MOST_DAYS else "")
        return title, say(language, "days", days=listed) + "\n" + _paragraph(newest, language, heading="")
    subject = ordered[0].finding.title if len(ordered) == 1 else say(language, "several", n=len(ordered))
    title = f"[{worst}] {subject}" + (f" · {days[0]}" if days[0] else "")
    parts = []
    for notice in ordered[:MOST_LISTED]:
        finding = notice.finding
        word = say(language, f"severity.{finding.severity if finding.failed else 'RECOVERED'}")
        named = len(ordered) > 1 or not finding.text
        parts.append(_paragraph(notice, language, heading=f"{word}: {finding.title}" if named else ""))
    if len(ordered) > MOST_LISTED:
        parts.append(
            say(language, "also", titles=", ".join(n.finding.title for n in ordered[MOST_LISTED:])[:LONGEST_TEXT])
        )
    return title, "\n\n".join(part for part in parts if part)


def _paragraph(notice: Notice, language: Language, *, heading: str) -> str:
    finding = notice.finding
    lines = [heading] if heading else []
    if finding.text:
        lines.append(finding.text[:LONGEST_TEXT])
    if finding.failed and notice.since_ms:
        minutes = max(notice.at_ms - notice.since_ms, 0) // 60_000
        lines.append(say(language, "since", at=f"{from_ms(notice.since_ms):%Y-%m-%d %H:%M:%S}", minutes=minutes))
    if notice.repeats:
        lines.append(say(language, "repeats", n=notice.repeats))
    if finding.failed and finding.todo:
        lines.append(say(language, "todo", text=finding.todo))
    if finding.link:
        lines.append(say(language, "report", url=finding.link))
    return "\n".join(lines)
