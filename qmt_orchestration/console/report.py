"""The report of one day: its account, every check with what was expected and found, the offenders by name, plots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

from qmt_orchestration.console.live import Live
from qmt_orchestration.console.verdict import both
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.texts import LANGUAGES, catalogue, remedy
from qmt_orchestration.warehouse.client import load_sql

#: Query → the lines that it draws over the minutes of the day.
PLOTS: Final = {
    "completeness_by_minute": ("bars", "traded"),
    "delay_by_minute": ("p50_ms", "p99_ms"),
    "volume_against_qmt": ("ours", "qmt"),
}
_SYMBOL: Final = re.compile(r"\b\d{6}\.[A-Z]{2}\b")


def report(live: Live, day: date) -> dict[str, Any]:
    """``{day, trading_day, account, checks, names}``; ``checks`` is empty for a day that was never checked."""
    (account,) = live.rows("day_account", day=day)
    checks = [_check(row, day) for row in live.rows("report", day=day)]
    named = [row.get("symbol", "") for check in checks for row in check["worst"]]
    return {
        "day": day.isoformat(),
        "trading_day": is_trading_day(day),
        "account": account,
        "checks": checks,
        "names": _names(live, named),
    }


def plots(live: Live, day: date) -> dict[str, Any]:
    """``{plots: [{name, lines, points: [[minute, one value a line]]}], lowest: [{symbol, …}], names}`` of *day*."""

    def rows(name: str) -> Any:
        return live.warehouse().query(load_sql(f"report/{name}"), parameters={"day": day})

    lowest = [{name: str(value) for name, value in row.items()} for row in rows("worst_symbols").named_results()]
    drawn = [{"name": name, "lines": lines, "points": rows(name).result_rows} for name, lines in PLOTS.items()]
    return {"plots": drawn, "lowest": lowest, "names": _names(live, [row["symbol"] for row in lowest])}


def _names(live: Live, texts: Iterable[str]) -> dict[str, str]:
    """Names of the symbols in *texts*."""
    symbols = sorted({symbol for text in texts for symbol in _SYMBOL.findall(text)})
    if not symbols:
        return {}
    return dict(live.warehouse().query(load_sql("names"), parameters={"symbols": symbols}).result_rows)


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
