"""Every text of the console and of alerts, in English and Chinese: key → [English, Chinese].

``console.json`` is the page, ``alerts.json`` the messages, ``checks.json`` a title and a remedy for each check,
``phrases.json`` what the SQL of the checks and `services.state` answer in English, as patterns.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
PARTS: Final = ("console", "alerts", "checks")


@cache
def catalogue(*parts: str) -> dict[str, list[str]]:
    """The texts of *parts* (none: of all but the phrases)."""
    out: dict[str, list[str]] = {}
    for part in parts or PARTS:
        out |= json.loads(files(__package__).joinpath(f"{part}.json").read_text("utf-8"))
    return out


def say(language: Language, key: str, **values: Any) -> str:
    """The text of *key* with its ``{names}`` filled in. KeyError for an unknown key."""
    return catalogue()[key][LANGUAGES.index(language)].format(**values)


def check_title(language: Language, asset: str, check: str) -> str:
    """``bars_1m / rows_present: symbols without bars``; a check that is not ours has its names alone."""
    known = catalogue("checks").get(f"check.{check}")
    names = f"{asset} / {check}"
    return f"{names}: {known[LANGUAGES.index(language)]}" if known else names


def column(language: Language, name: str) -> str:
    """The heading of column *name* of a check's offenders; the name itself when it is not ours."""
    known = catalogue("console").get(f"column.{name}")
    return known[LANGUAGES.index(language)] if known else name.replace("_", " ")


def remedy(language: Language, check: str, day: str) -> str:
    """What to do about a failure of *check* on *day*; "" for a check that is not ours."""
    known = catalogue("checks").get(f"todo.{check}")
    return known[LANGUAGES.index(language)].format(day=day) if known else ""


def in_words(language: Language, text: str) -> str:
    """*text*, which a check or the state of the system gave in English, in *language*, if a phrase is known for it."""
    if language == "en":
        return text
    for pattern, wanted in _phrases():
        if found := pattern.fullmatch(text):
            return wanted.format(*found.groups())
    return text


@cache
def _phrases() -> list[tuple[re.Pattern[str], str]]:
    known = json.loads(files(__package__).joinpath("phrases.json").read_text("utf-8"))
    return [(re.compile(re.escape(english).replace(r"\{\}", "(.+?)")), chinese) for english, chinese in known.items()]
