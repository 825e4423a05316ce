"""No secret leaves in a text: logs, heartbeats and alerts are redacted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr

from qmt_orchestration.settings import Settings

MASK: Final = "***"
_SCHEMES_WITH_HOSTS: Final = frozenset(
    {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "ntfy", "ntfys", "http", "https"}
)
# Text is cut before it is searched: what is longer keeps its beginning and its end (a traceback ends with its cause).
LONGEST: Final = 32_768
_TAIL: Final = 8_192
_MARGIN: Final = 1_024  # searched beyond the cut, so that a secret across it is found whole
# Every pattern begins with a literal and ends at the first character that is none of its own: linear in the text.
# user:password@ in any URL, whoever's it is
_USERINFO: Final = re.compile(r"://[^\s/@'\"]+@")
# password=…, token: …, "api_key": "…"
_ASSIGNED: Final = re.compile(
    r"(?P<name>(?:password|passwd|secret|token|api_?key)[\"']?\s{0,8}[=:]\s{0,8}[\"']?)(?P<value>[^\s\"',;&)]{3,})",
    re.IGNORECASE,
)


class Redactor:
    """Replaces known secrets, and what looks like one, by ``***``."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # 1 and 2 characters would blank out half of every text, and protect nothing
        words = {word for secret in secrets for word in (secret, quote(secret, safe="")) if len(word) >= 3}
        ordered = sorted(words, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._margin = max([_MARGIN, *map(len, ordered)])

    @classmethod
    def of(cls, settings: Settings) -> Redactor:
        """A redactor that knows the secrets of *settings*; of alert URLs also everything behind the scheme."""
        secrets: list[str] = []
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, SecretStr):
                secrets.append(value.get_secret_value())
        if settings.alert_urls:
            for entry in settings.alert_urls.get_secret_value().split():
                secrets += _url_secrets(entry)
        return cls(secrets)

    def __call__(self, text: str) -> str:
        """*text* without secrets; of more than `LONGEST` characters only the beginning and the end."""
        if len(text) <= LONGEST:
            return self._clean(text)
        head = self._clean(text[: LONGEST - _TAIL + self._margin])[: LONGEST - _TAIL]
        tail = self._clean(text[-_TAIL - self._margin :])[-_TAIL:]
        return f"{head} … ({len(text) - LONGEST} characters cut) … {tail}"

    def _clean(self, text: str) -> str:
        if self._known:
            text = self._known.sub(MASK, text)
        text = _USERINFO.sub(f"://{MASK}@", text)
        return _ASSIGNED.sub(rf"\g<name>{MASK}", text)


def _url_secrets(entry: str) -> list[str]:
    """The parts of one ``[owner=]url`` that must not be shown: all behind the scheme, and each long path part.

    The host of a URL that has one is no secret: an error that hides it helps nobody. Behind ``dingtalk://``,
    ``feishu://`` and the like stands a token in its place.
    """
    before, _, rest = entry.partition("://")
    scheme = before.rpartition("=")[2]
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2].partition(":")[0]
    parts = [part for part in re.split(r"[/?&=@:]", rest) if len(part) >= 8]
    if scheme.lower() in _SCHEMES_WITH_HOSTS:
        parts = [part for part in parts if part != host]
        rest = "" if rest.strip("/") == host else rest
    return [entry, rest, *parts]
