"""A failed check as a finding that can be acted on: which minutes, how many of how many, the worst symbols with their
names, what to do, and the report of that day in the console."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from urllib.parse import urlencode

from qmt_orchestration.alerts.messages import Finding, Severity
from qmt_orchestration.settings import Settings
from qmt_orchestration.texts import check_title, column, in_words, remedy, say
from qmt_orchestration.warehouse.client import connect, load_sql

log = logging.getLogger(__name__)

MOST_OFFENDERS: Final = 5
SYMBOL: Final = re.compile(r"\b\d{6}\.[A-Z]{2}\b")
_CLOCK: Final = re.compile(r"\b(\d\d:\d\d)(?::\d\d)?\b")
Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation of a check. *day* is the day it is about, "" when it is about none."""

    asset: str
    check: str
    passed: bool
    severity: Severity = "ERROR"
    day: str = ""
    expected: str = ""
    found: str = ""
    said: str = ""  # in words of its own, where it has no expected and found
    worst: Rows = ()
    days_failed: str = ""  # of a run for several days


@dataclass
class Reporter:
    """Makes findings of checks; names are looked up once a symbol."""

    settings: Settings
    names: dict[str, str] = field(default_factory=dict)

    def finding(self, seen: Evaluation, partition: str, owner: str) -> Finding:
        """*partition*: the day whose incident this is; "" for a check of the system as it is now."""
        language = self.settings.language
        name = f"{seen.asset}/{seen.check}"
        text, todo = "", ""
        if not seen.passed:
            text = "\n".join(self._lines(seen))
            todo = remedy(language, seen.check, seen.day)
        return Finding(
            key=f"check:{name}@{partition}",
            failed=not seen.passed,
            title=check_title(language, seen.asset, seen.check),
            text=text or (seen.said and in_words(language, seen.said)),
            severity=seen.severity,
            partition=partition,
            owner=owner,
            link=report_link(self.settings, seen.day, seen.asset, seen.check),
            todo=todo,
        )

    def _lines(self, seen: Evaluation) -> list[str]:
        language = self.settings.language
        lines = []
        if seen.expected or seen.found:
            lines.append(say(language, "expected", text=in_words(language, seen.expected)))
            lines.append(say(language, "found", text=in_words(language, seen.found)))
        elif seen.said:
            lines.append(seen.said)
        if "," in seen.days_failed:
            lines.append(say(language, "days", days=seen.days_failed))
        moments = sorted({m for row in seen.worst for value in row.values() for m in _CLOCK.findall(value)})
        if moments:
            span = moments[0] if len(moments) == 1 else f"{moments[0]} … {moments[-1]}"
            lines.append(say(language, "minutes", text=f"{seen.day} {span}".strip()))
        shown = list(seen.worst[:MOST_OFFENDERS])
        if shown:
            self._look_up(SYMBOL.findall(" ".join(row.get("symbol", "") for row in shown)))
            lines.append(say(language, "worst", text="; ".join(self._offender(row) for row in shown)))
        return lines

    def _offender(self, row: Mapping[str, str]) -> str:
        # one row may name several symbols that fail alike
        named = SYMBOL.sub(lambda code: f"{code[0]} {self.names.get(code[0], '')}".strip(), row.get("symbol", ""))
        language = self.settings.language
        rest = ", ".join(f"{column(language, key)} {value}" for key, value in row.items() if key != "symbol")
        return f"{named} ({rest})" if named and rest else named or rest

    def _look_up(self, symbols: Sequence[str]) -> None:
        import clickhouse_connect

        wanted = sorted(set(symbols) - self.names.keys())
        if not wanted:
            return
        try:
            with connect(self.settings, send_receive_timeout=10) as client:
                found = client.query(load_sql("names"), parameters={"symbols": wanted}).result_rows
        except (clickhouse_connect.driver.exceptions.ClickHouseError, OSError) as error:
            log.warning("names of symbols cannot be read, the alert goes without them: %s", str(error)[:200])
            found = []
        self.names |= dict.fromkeys(wanted, "") | dict(found)


def report_link(settings: Settings, day: str, asset: str = "", check: str = "") -> str:
    """The report of *day* in the console; the console itself when *day* is no day."""
    try:
        date.fromisoformat(day)
    except ValueError:
        return f"{settings.console_url}/"
    wanted = {"day": day, "asset": asset, "check": check}
    return f"{settings.console_url}/report?" + urlencode({key: value for key, value in wanted.items() if value})
