"""Channels: where messages go, as apprise URLs of the setting ``alert_urls`` (``[owner=]url``, by white space).

A finding of an owner goes to that owner's channels, or, if there are none, to those without an owner.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final

from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.settings import Settings

_ENTRY: Final = re.compile(r"^(?:(?P<owner>[\w.@:-]+)=)?(?P<url>[A-Za-z][A-Za-z0-9+.-]*://\S+)$")
#: Bytes of title and text that a receiver takes in one message, by URL scheme; apprise counts characters, of which a
#: Chinese one has three bytes. WeCom's robot: 2,048 of a text message. DingTalk's robot: 20,000 of a request. Feishu's
#: robot: 20 KB of a request; in both, apprise writes a Chinese character as six bytes.
LIMITS: Final = {"wecombot": 2_000, "dingtalk": 9_000, "feishu": 9_000}
_ELSEWHERE: Final = 30_000


class BadAlertUrl(ValueError):
    """An entry of QMT_ALERT_URLS is no channel. The message gives its place, not its text: it may hold a secret."""


@dataclass(frozen=True)
class Channel:
    """One destination. *name* is safe to show: place, owner and kind, never host, path or token."""

    id: str  # stable over restarts and reordering; says nothing about the URL
    name: str
    owner: str
    target: Any = field(repr=False)
    limit: int = _ELSEWHERE  # bytes

    def send(self, title: str, body: str, *, failed: bool) -> bool:
        """Whether the destination accepted the message. Never raises: what apprise raises is a failed attempt."""
        import apprise

        kind = apprise.NotifyType.FAILURE if failed else apprise.NotifyType.SUCCESS
        try:
            return bool(
                self.target.notify(
                    title=title, body=fit(body, self.limit - len(title.encode())), notify_type=kind, body_format="text"
                )
            )
        except Exception as error:  # a plug-in's bug must not stop the other channels
            logging.getLogger(__name__).warning("channel %s: %s", self.name, type(error).__name__)
            return False


def channels(settings: Settings) -> list[Channel]:
    """The configured channels, none when ``alert_urls`` is empty. `BadAlertUrl` for an entry apprise rejects."""
    if settings.alert_urls is None or not settings.alert_urls.get_secret_value().strip():
        return []
    import apprise

    # Its own log lines show parts of URLs; the outcome of each attempt is reported by us.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    out: list[Channel] = []
    for place, entry in enumerate(settings.alert_urls.get_secret_value().split(), 1):
        found = _ENTRY.match(entry)
        target = apprise.Apprise()
        if found is None or not target.add(found["url"]):
            raise BadAlertUrl(
                f"entry {place} of QMT_ALERT_URLS: expected [owner=]url with a URL of a kind that apprise has "
                "(wecombot://, dingtalk://, feishu://, slack://, mailto://, json:// …; see docs/operations.md)"
            )
        owner, kind = found["owner"] or "", found["url"].partition("://")[0]
        digest = hashlib.sha256(entry.encode()).hexdigest()[:12]
        out.append(
            Channel(
                digest, f"{place} ({kind}{', ' + owner if owner else ''})", owner, target, LIMITS.get(kind, _ELSEWHERE)
            )
        )
    return out


def fit(body: str, limit: int, mark: str = "…") -> str:
    """*body* in at most *limit* bytes: what is cut comes out of its middle, for its last two lines say what to do and
    where the rest stands."""
    if len(body.encode()) <= limit:
        return body
    lines = body.split("\n")
    end = "\n".join(["", mark, *lines[-2:]]).encode()[-limit // 2 :].decode(errors="ignore")
    return body.encode()[: limit - len(end.encode())].decode(errors="ignore") + end


def route(finding: Finding, known: list[Channel]) -> tuple[str, ...]:
    """Ids of the channels that *finding* goes to."""
    own = tuple(c.id for c in known if c.owner and c.owner == finding.owner)
    return own or tuple(c.id for c in known if not c.owner) or tuple(c.id for c in known)
