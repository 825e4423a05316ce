"""`qmt doctor`: what can be wrong with a machine, its packages and its servers, looked at one by one.

Each check is a small function that returns a `Diagnosis` or a list of them and changes nothing. `machine` looks at this
host, `servers` at Redis, ClickHouse and Dagster's storage, `terminal` at xtquant. A check that raises is a bug of the
check: what can fail is caught where it can fail and becomes a finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

Role = Literal["all", "feed", "warehouse", "client"]
ROLES: Final[tuple[Role, ...]] = ("all", "feed", "warehouse", "client")


class Level(str, Enum):
    """How bad it is: only an error makes `qmt doctor` end with exit code 1."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Diagnosis:
    """One line: what was looked at, how it is, what was found, and for a warning or an error the step that mends it."""

    check: str
    level: Level
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Diagnosis:
    """Nothing to do."""
    return Diagnosis(check, Level.OK, found)


def warning(check: str, found: str, mend: str) -> Diagnosis:
    """It works, with a limitation."""
    return Diagnosis(check, Level.WARNING, found, mend)


def error(check: str, found: str, mend: str) -> Diagnosis:
    """It does not work, or data will be lost."""
    return Diagnosis(check, Level.ERROR, found, mend)
