"""One look: what is wrong with the market now, in words of both languages, worst first; or what was checked, and when.

The verdict is never "clear" while a check of the day fails, while news of a market and kind is missing, or while what
it rests on is old. That no picture arrives any more is added by the browser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from typing import Any, Final
from urllib.parse import urlencode

from qmt_orchestration.services.news import silences
from qmt_orchestration.texts import LANGUAGES, Language, check_title, in_words, say

OLD_MS: Final = {"redis": 6_000}
OLD_OTHERWISE_MS: Final = 30_000
QUIET_SHARE: Final = 0.02
CHECKED_FROM: Final = time(9, 40)  # until then the first minutes are made and checked
CHECKS_OLD_SECONDS: Final = 300.0


def both(text: str) -> dict[str, str]:
    """*text* of a check or of the state, in both languages."""
    return {language: in_words(language, text) for language in LANGUAGES}


def judge(picture: Mapping[str, Any], silence_seconds: tuple[float, float]) -> dict[str, Any]:
    """``{tone, head, findings}`` of a picture of `live.Live`; *silence_seconds*: from where silence warns, and errs."""
    found = [
        *_parts(picture),
        *_state(picture),
        *_news(picture, silence_seconds),
        *_flow(picture),
        *_checks(picture),
        *_clients(picture),
    ]
    found.sort(key=lambda one: one["tone"] != "bad")
    tone = "bad" if any(one["tone"] == "bad" for one in found) else "warn" if found else "ok"
    if not picture.get("clock"):
        tone = "bad" if tone == "bad" else "warn"
    return {"tone": tone, "head": _head(picture, len(found)), "checked": _checked(picture), "findings": found}


def _say(tone: str, key: str, href: str = "", **values: Any) -> dict[str, Any]:
    def value(language: Language, given: Any) -> Any:
        return given[language] if isinstance(given, dict) else given

    text = {lang: say(lang, key, **{k: value(lang, v) for k, v in values.items()}) for lang in LANGUAGES}
    return {"tone": tone, "key": key, "text": text, "href": href}


def _named(key: str) -> dict[str, str]:
    return {language: say(language, key) for language in LANGUAGES}


def _parts(picture: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """What cannot be read, and what was not read for too long."""
    if error := picture.get("error"):
        yield _say("bad", "verdict.text", text=both(error))
    for part, ms in picture.get("read_ms", {}).items():
        if error := picture.get(f"{part}_error"):
            yield _say("bad", "verdict.text", text=both(error))
        elif (age := picture["at_ms"] - ms) > OLD_MS.get(part, OLD_OTHERWISE_MS):
            yield _say("bad", "verdict.old", part=_named(f"part.{part}"), age=round(age / 1000))


def _state(picture: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """What `qmt status` says, and errors that services report."""
    reasons = picture.get("state", {}).get("reasons", ())
    for reason in reasons:
        yield _say("bad", "verdict.text", text=both(reason))
    for service in picture.get("services", ()):
        said = f"{service['name']}: {service['error']}"
        if service["state"] == "running" and service["error"] and said not in reasons:
            yield _say("warn", "verdict.service.error", name=service["name"], error=service["error"])
    feed = picture.get("feed", {})
    if feed.get("lost"):
        yield _say("bad", "verdict.lost", n=f"{feed['lost']:,.0f}")


def _news(picture: Mapping[str, Any], limits: tuple[float, float]) -> Iterable[dict[str, Any]]:
    """Markets and kinds without news in the session, and a feed whose heartbeat has no news."""
    clock, news = picture.get("clock", {}), picture.get("news", {})
    if not clock.get("expects_ticks"):
        return
    if not news:
        yield _say("bad", "verdict.news.missing")
    for group, silent in silences(news, limits[0]).items():
        tone, symbols = "bad" if silent > limits[1] else "warn", f"{news[group]['symbols']:,.0f}"
        yield _say(tone, "verdict.silent", group=group, seconds=round(silent), n=symbols)


def _flow(picture: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    minute = picture.get("minute")
    if not minute or not picture.get("clock", {}).get("in_session") or not minute["flowed"]:
        return
    for group in minute["groups"]:
        quiet = group["expected"] - max(group["flowed"], group["flowing"])
        if quiet > max(QUIET_SHARE * group["expected"], 1):
            what = {lang: _group(lang, group["exchange"], group["kind"]) for lang in LANGUAGES}
            yield _say("warn", "verdict.quiet", n=f"{quiet:,}", of=f"{group['expected']:,}", group=what)


def _group(language: Language, exchange: str, kind: str) -> str:
    return f"{exchange} {say(language, f'kind.{kind}') if kind else ''}".strip()


def _checks(picture: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Failed checks of the day, one by one; those of other days by their number; checks that are old or missing."""
    clock, failed = picture.get("clock"), picture.get("failed", ())
    if not clock:
        return
    today = clock["day"]
    for check in failed:
        if check["day_text"] == today:
            tone = "bad" if check["severity"] == "ERROR" else "warn"
            href = "/report?" + urlencode({"day": today, "asset": check["asset"], "check": check["check"]})
            title = {lang: check_title(lang, check["asset"], check["check"]) for lang in LANGUAGES}
            yield _say(tone, "verdict.check", href, title=title, found=both(check["found"]))
    errors = {check["day_text"] for check in failed if check["severity"] == "ERROR"}
    others = sorted(errors - {today}, reverse=True)
    if others:
        listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        yield _say("warn", "verdict.other.days", f"/report?day={others[0]}", n=len(others), days=listed)
    now = datetime.fromisoformat(clock["now"])
    if clock["in_session"] and now.time() >= CHECKED_FROM:
        seconds = _checked_seconds(picture)
        if seconds is None:
            yield _say("warn", "verdict.unchecked")
        elif seconds > CHECKS_OLD_SECONDS:
            yield _say("warn", "verdict.checks.old", minutes=round(seconds / 60))


def _clients(picture: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for client in picture.get("clients", ()):
        if client["state"] == "down":
            yield _say("warn", "verdict.client.down", name=client["client_id"], lag=f"{client['lag_entries']:,}")
        elif client["dead"] and client["state"] != "gone":
            yield _say("warn", "verdict.client.dead", name=client["client_id"], n=f"{client['dead']:,}")


def _today(picture: Mapping[str, Any]) -> Mapping[str, Any]:
    days: Sequence[Mapping[str, Any]] = picture.get("days", ())
    day = picture.get("clock", {}).get("day")
    return next((d for d in days if d["day"] == day), {})


def _checked_seconds(picture: Mapping[str, Any]) -> float | None:
    """Wall seconds since the newest check of the day; None when there was none."""
    newest = _today(picture).get("checked_s")
    return max(picture["at_ms"] / 1000 - newest, 0.0) if newest else None


def _checked(picture: Mapping[str, Any]) -> dict[str, str]:
    seconds, today = _checked_seconds(picture), _today(picture)
    if seconds is None:
        return _named("checked.none")
    age = {lang: _age(lang, seconds) for lang in LANGUAGES}
    return _say("", "checked", n=today["checks"], age=age)["text"]  # type: ignore[no-any-return]


def _age(language: Language, seconds: float) -> str:
    for size, key in ((86_400, "age.days"), (3_600, "age.hours"), (60, "age.minutes")):
        if seconds >= 2 * size:
            return say(language, key, n=round(seconds / size))
    return say(language, "age.seconds", n=round(seconds))


def _head(picture: Mapping[str, Any], count: int) -> dict[str, str]:
    minute = picture.get("minute", {})
    if count:
        return _say("", "head.one" if count == 1 else "head.several", n=count)["text"]  # type: ignore[no-any-return]
    if not picture.get("clock"):
        return _named("head.waiting")
    if not picture["clock"]["in_session"]:
        return _named("head.closed")
    flowing, of = max(minute.get("flowed", 0), minute.get("flowing", 0)), minute.get("expected", 0)
    return _say("", "head.clear", n=f"{flowing:,}", of=f"{of:,}")["text"]  # type: ignore[no-any-return]
