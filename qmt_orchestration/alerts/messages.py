"""What is said: one finding in words, and a group of notices of one partition as one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["WARN", "ERROR"]
LONGEST_TEXT: Final = 1500  # characters of evidence in a finding; chat transports cut at 2,000 to 4,000
MOST_LISTED: Final = 20


@dataclass(frozen=True)
class Finding:
    """One observation. *key* names the thing watched: findings of the same key replace each other."""

    key: str  # check:bars_1m/ohlc_consistent@2025-06-05, run:finalize_minutes@…, service:writer
    failed: bool
    title: str  # "bars_1m / ohlc_consistent"
    text: str = ""  # evidence: expected, found, worst offenders; no secrets
    severity: Severity = "ERROR"
    partition: str = ""
    owner: str = ""  # "market-data"; "" = the default channels
    link: str = ""


@dataclass
class Notice:
    """Something to tell: a failure (``failed``) or a recovery, and the channels that have not taken it yet."""

    finding: Finding
    at_ms: int  # epoch ms of the first observation
    repeats: int = 0  # further observations that were not told
    waiting: tuple[str, ...] = ()  # ids of channels
    attempts: int = 0  # failed ones; from the first on it travels alone
    refusals: int = 0  # failed ones while its channel took others

    @property
    def group(self) -> tuple[str, bool]:
        """Notices of one partition and verdict travel together."""
        return self.finding.partition, self.finding.failed


def render(notices: Sequence[Notice]) -> tuple[str, str]:
    """Title and body of one message for *notices* of the same group, worst first."""
    failed, partition = notices[0].finding.failed, notices[0].finding.partition
    ordered = sorted(notices, key=lambda n: (n.finding.severity != "ERROR", n.at_ms))
    worst = ordered[0].finding.severity if failed else "RECOVERED"
    subject = ordered[0].finding.title if len(ordered) == 1 else f"{len(ordered)} findings"
    title = f"[{worst}] {subject}" + (f" · {partition}" if partition else "")
    parts = [_paragraph(notice, named=len(ordered) > 1) for notice in ordered[:MOST_LISTED]]
    if len(ordered) > MOST_LISTED:
        parts.append("and also: " + ", ".join(n.finding.title for n in ordered[MOST_LISTED:])[:LONGEST_TEXT])
    return title, "\n\n".join(part for part in parts if part)


def _paragraph(notice: Notice, *, named: bool) -> str:
    finding = notice.finding
    lines: list[str] = []
    if named or not finding.text:
        lines.append(f"{finding.severity if finding.failed else 'well again'}: {finding.title}")
    if finding.text:
        lines.append(finding.text[:LONGEST_TEXT])
    if notice.repeats:
        lines.append(f"seen {notice.repeats} more times since the last message")
    if finding.link:
        lines.append(finding.link)
    return "\n".join(lines)
