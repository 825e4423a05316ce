"""Findings about the always-on services, from heartbeats: silent ones, and those that keep being restarted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.stream.fields import integer
from qmt_orchestration.stream.heartbeat import reported
from qmt_orchestration.texts import Language, say

SILENT_MS: Final = 30_000  # an agent restarts a service that ended within seconds: what is silent longer needs a person
FLAPPING_RESTARTS: Final = 3
FLAPPING_MS: Final = 600_000
FORGET_MS: Final = 86_400_000  # an instance on a host that no longer reports
OWNER: Final = "feed"


def watch(
    memory: dict[str, dict[str, Any]],
    beats: Sequence[Mapping[str, str]],
    desired: Mapping[str, str],
    expected: Sequence[str],
    now_ms: int,
    link: str = "",
    language: Language = "en",
) -> list[Finding]:
    """Findings of this look; *memory* (JSON-able, kept by the caller) carries what earlier looks saw.

    Silent: a service of *expected*, or seen in the last day, that should run and beats on no host for 30 s; *desired*
    is service → running | stopped, absent = running. Flapping: three restarts by an agent within ten minutes.
    """
    alive = {beat["service"]: beat for beat in beats if beat.get("state") != "stopped"}
    stopped = {beat["service"] for beat in beats if beat.get("state") == "stopped"} - set(alive)
    findings: list[Finding] = []
    for name in sorted({*expected, *alive, *(n for n in memory if "#" not in n)}):
        seen = memory.setdefault(name, {"seen_ms": now_ms})
        wanted = desired.get(name, "running") == "running"
        if name in alive or not wanted or (name in stopped and name not in expected):
            seen["seen_ms"] = now_ms
        elif name not in expected and now_ms - seen["seen_ms"] > FORGET_MS:
            del memory[name]
            continue
        silent = now_ms - seen["seen_ms"]
        if silent == 0 or silent >= SILENT_MS:
            findings.append(_silent(name, silent, wanted, alive.get(name), link, language))
    for beat in beats:
        findings += _flapping(memory, beat, now_ms, link, language)
    return findings


def _silent(
    name: str, silent_ms: int, wanted: bool, beat: Mapping[str, str] | None, link: str, language: Language
) -> Finding:
    key, title = f"service:{name}", say(language, "service.silent", name=name)
    if silent_ms == 0:
        running = say(language, "service.alive", host=beat.get("host", "?")) if beat else ""
        text = running if beat or wanted else say(language, "service.not.wanted")
        return Finding(key, False, title, text, owner=OWNER, link=link)
    text = say(language, "service.silent.text", seconds=f"{silent_ms / 1000:.0f}")
    return Finding(key, True, title, text, owner=OWNER, link=link, todo=say(language, "service.silent.todo"))


def _flapping(
    memory: dict[str, dict[str, Any]], beat: Mapping[str, str], now_ms: int, link: str, language: Language
) -> list[Finding]:
    out: list[Finding] = []
    host = beat["host"]
    for name, report in reported(beat).items():
        key = f"{name}#{host}"
        restarts = integer(report, "restarts", low=0)
        known = memory.setdefault(key, {"restarts": restarts, "at_ms": []})
        # a smaller number means that the agent was started again and counts from 0
        new = restarts - known["restarts"] if restarts >= known["restarts"] else restarts
        recent = [ms for ms in known["at_ms"] if now_ms - ms < FLAPPING_MS] + [now_ms] * min(new, 20)
        known["restarts"], known["at_ms"] = restarts, recent
        reason = report.get("reason", "") or say(language, "no.reason")
        title = say(language, "service.flapping", name=name, host=host)
        if len(recent) >= FLAPPING_RESTARTS:
            text = say(language, "service.flapping.text", n=len(recent), reason=reason)
            todo = say(language, "service.flapping.todo", name=name, host=host)
            out.append(Finding(f"flapping:{key}", True, title, text, owner=OWNER, link=link, todo=todo))
        elif not recent:
            text = say(language, "service.flapping.over")
            out.append(Finding(f"flapping:{key}", False, title, text, owner=OWNER, link=link))
    return out
