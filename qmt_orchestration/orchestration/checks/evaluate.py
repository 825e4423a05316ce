"""Running checks: SQL in, verdict out, kept twice: as Dagster check results and as rows of ``quality_results``.

Dagster keeps one status per check; the verdicts of earlier days are kept too, so each (day, asset, check, run) is a
row in ClickHouse. An exception is never turned into a failed check: a check that cannot run fails the run,
and the alert names the run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.quality.names import CHECKS, Check
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.fields import finite
from qmt_orchestration.warehouse.client import load_sql

WORST_SHOWN = 20

if TYPE_CHECKING:
    CheckResults = Iterator[dg.AssetCheckResult]
else:
    # Dagster reads the annotation and rejects an iterator for several checks; a returned tuple is accepted and its
    # results are never recorded. So they are yielded, and there is no annotation.
    CheckResults = inspect.Signature.empty


@dataclass(frozen=True)
class Window:
    """Frames of one day that a check looks at, both ends included (Asia/Shanghai)."""

    day: date
    first: datetime
    last: datetime

    @classmethod
    def whole(cls, day: date, now: datetime | None = None) -> Window:
        """The whole day, or what has passed of it when *now* lies inside it."""
        last = at(day, 900)
        if now is not None and now < last:
            last = max(now.replace(second=0, microsecond=0), at(day, 570))
        return cls(day, at(day, 570), last)


@dataclass(frozen=True)
class Outcome:
    """The verdict of one check on one day. *worst* are the worst offenders, as rows of a table."""

    check: Check
    day: date
    measure: float
    expected: str
    found: str
    worst: Sequence[Mapping[str, str]]
    passed: bool
    severity: dg.AssetCheckSeverity

    @property
    def key(self) -> tuple[str, str]:
        """Asset and name of the check."""
        return self.check.asset, self.check.name


def specs(checks: Iterable[Check]) -> list[dg.AssetCheckSpec]:
    """The Dagster specs of *checks*."""
    return [dg.AssetCheckSpec(c.name, asset=c.asset, description=c.description, blocking=c.blocking) for c in checks]


def limit(value: str | float | None, settings: Settings) -> float | None:
    """A limit given as a number or as the name of a setting."""
    return float(getattr(settings, value)) if isinstance(value, str) else value


def judge(
    check: Check,
    settings: Settings,
    day: date,
    measure: float,
    expected: str,
    found: str,
    worst: Sequence[Mapping[str, str]] = (),
) -> Outcome:
    """The verdict on a measure: passed up to ``allowed``, WARN above it, ERROR above ``fatal``."""
    allowed = limit(check.allowed, settings) or 0.0
    fatal = limit(check.fatal, settings)
    severe = fatal is not None and measure > fatal
    severity = dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN
    return Outcome(check, day, measure, expected, found, worst, measure <= allowed, severity)


def run_checks(checks: Iterable[Check], client: Any, settings: Settings, window: Window) -> list[Outcome]:
    """Run the SQL checks among *checks* on *window*."""
    return [run_check(c, client, settings, window) for c in checks if c.sql]


def run_check(check: Check, client: Any, settings: Settings, window: Window) -> Outcome:
    """Run one check's SQL; it answers with exactly one row ``measure, expected, found, worst``."""
    parameters = {
        "day": window.day,
        "first": _text(window.first),
        "last": _text(window.last),
        "shards": settings.stream_shards,
        **check.parameters,
    }
    sql = load_sql(f"checks/{check.sql}")
    # only the parameters of the statement: without any, the client must not be given one at all
    asked = {name: value for name, value in parameters.items() if f"{{{name}:" in sql}
    rows = client.query(sql, parameters=asked or None).result_rows
    if len(rows) != 1:
        raise RuntimeError(
            f"check {check.asset}/{check.name}: expected one row from {check.sql}.sql, found {len(rows)}"
        )
    measure, expected, found, worst = rows[0]
    return judge(check, settings, window.day, float(measure), expected, found, json.loads(worst)[:WORST_SHOWN])


def _text(moment: datetime) -> str:
    return moment.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def record(client: Any, outcomes: Sequence[Outcome], run_id: str) -> None:
    """Keep the verdicts in ``quality_results``: one row per day, asset, check and run."""
    if not outcomes:
        return
    at_ = datetime.now(SHANGHAI)
    columns = ["day", "asset", "check", "run_id", "passed", "severity", "expected", "found", "evidence", "at"]
    rows = [
        [o.day, *o.key, run_id, int(o.passed), o.severity.value, o.expected, o.found, _json(o), at_] for o in outcomes
    ]
    client.insert("quality_results", rows, column_names=columns)


def _json(outcome: Outcome) -> str:
    return json.dumps(finite({"measure": outcome.measure, "worst": list(outcome.worst)}), ensure_ascii=False)


def results(outcomes: Sequence[Outcome]) -> list[dg.AssetCheckResult]:
    """One Dagster result per check; over several days, that of the worst day with all failing days listed."""
    by_check: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_check.setdefault(outcome.key, []).append(outcome)
    return [_result(group) for group in by_check.values()]


def _result(group: list[Outcome]) -> dg.AssetCheckResult:
    failed = [o for o in group if not o.passed]
    shown = max(failed or group[-1:], key=lambda o: (o.severity == dg.AssetCheckSeverity.ERROR, o.measure))
    return dg.AssetCheckResult(
        asset_key=shown.check.asset,
        check_name=shown.check.name,
        passed=not failed,
        severity=shown.severity,
        description=f"{shown.day}: expected {shown.expected}, found {shown.found}",
        metadata=metadata(shown, group, failed),
    )


def metadata(shown: Outcome, group: Sequence[Outcome], failed: Sequence[Outcome]) -> dict[str, Any]:
    """Evidence: the partition, what was expected and found, the measure (plotted over time), the worst offenders."""
    out: dict[str, Any] = {
        "partition": shown.day.isoformat(),
        "expected": shown.expected,
        "found": shown.found,
        "measure": shown.measure,
    }
    if len(group) > 1:
        out["days_checked"] = len(group)
        out["days_failed"] = ", ".join(o.day.isoformat() for o in failed) or "none"
    if shown.worst:
        out["worst"] = table(shown.worst)
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a Dagster table, every value as text."""
    names = list(rows[0])
    return dg.MetadataValue.table(
        records=[dg.TableRecord({n: str(r.get(n, "")) for n in names}) for r in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(n, "string") for n in names]),
    )


def find(asset: str, name: str) -> Check:
    """The check of *asset* called *name*."""
    for check in CHECKS:
        if (check.asset, check.name) == (asset, name):
            return check
    raise KeyError(f"no check {name} of {asset}: they are in quality/names.py")
