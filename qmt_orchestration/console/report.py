"""The report of one day: its account, every check with what was expected and found, and the offenders by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from qmt_orchestration.console.live import Live
from qmt_orchestration.console.verdict import both
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.texts import LANGUAGES, catalogue, remedy
from qmt_orchestration.warehouse.client import load_sql

_SYMBOL: Final = re.compile(r"\b\d{6}\.[A-Z]{2}\b")


def report(live: Live, day: date) -> dict[str, Any]:
    """``{day, trading_day, account, checks, names}``; ``checks`` is empty for a day that was never checked."""
    (account,) = live.rows("day_account", day=day)
    checks = [_check(row, day) for row in live.rows("report", day=day)]
    symbols = sorted({s for check in checks for row in check["worst"] for s in _SYMBOL.findall(row.get("symbol", ""))})
    names = live.warehouse().query(load_sql("names"), parameters={"symbols": symbols}).result_rows if symbols else []
    return {
        "day": day.isoformat(),
        "trading_day": is_trading_day(day),
        "account": account,
        "checks": checks,
        "names": dict(names),
    }


def _check(row: Mapping[str, Any], day: date) -> dict[str, Any]:
    try:
        evidence = json.loads(row["evidence"] or "{}")
        evidence = evidence if isinstance(evidence, dict) else {}
    except ValueError:
        evidence = {}
    worst = [{str(k): str(v) for k, v in one.items()} for one in evidence.get("worst", []) if isinstance(one, dict)]
    name = row["check"]
    title = catalogue("checks").get(f"check.{name}", ["", ""])
    return {
        "asset": row["asset"],
        "check": name,
        "passed": bool(row["ok"]),
        "severity": row["level"],
        "title": dict(zip(LANGUAGES, title, strict=True)),
        "expected": both(row["expected"]),
        "found": both(row["found"]),
        "todo": {language: remedy(language, name, day.isoformat()) for language in LANGUAGES},
        "worst": worst,
        "at_s": row["at_s"],
        "changed_s": row["changed_s"],
        "times": row["times"],
        "failures": row["failures"],
        "run_id": row["run_id"],
    }
