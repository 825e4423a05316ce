"""The alert sensor: reads Dagster's events since its last evaluation and the services' state; queues notifications.

Plain `@sensor`, not a run-failure sensor: that one ignores a failed check of a successful run, and loses an alert
when sending fails. Works on SQLite and PostgreSQL: ended runs come by storage id, oldest first; a run's check
evaluations by its run id; evaluations outside runs under the run id "". The first look begins at now.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg
from dagster import DagsterEventType as Event

from qmt_orchestration.alerts.delivery import deliver
from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.alerts.state import load, save
from qmt_orchestration.alerts.transport import channels, route
from qmt_orchestration.orchestration.resources import RedisResource
from qmt_orchestration.orchestration.sensors import instigators
from qmt_orchestration.orchestration.sensors.alerts_live import WATCHED_HERE, watch_live
from qmt_orchestration.orchestration.sensors.evidence import Evaluation, Reporter
from qmt_orchestration.redaction import Redactor
from qmt_orchestration.settings import Settings
from qmt_orchestration.texts import say

RUNS_PER_LOOK: Final = 50
EVALUATIONS_PER_LOOK: Final = 500
_NO_PARTITION: Final = ("tick_stream",)  # verdicts on the system now, not on a day: the next one of any day counts
_ENDED: Final = (Event.RUN_SUCCESS, Event.RUN_FAILURE)


def build_alert_sensor() -> dg.SensorDefinition:
    """The sensor ``alerts``. Without QMT_ALERT_URLS it skips, with that reason."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies of failed and crashed checks, failed runs, silent services, a stale feed; once each.",
    )
    def alerts(context: dg.SensorEvaluationContext, redis: RedisResource) -> dg.SkipReason:
        graph = context.repository_def.asset_graph if context.repository_def else None

        def owner_of(asset: str) -> str:
            key = dg.AssetKey(asset.split("/"))
            owners = graph.get(key).owners if graph is not None and graph.has(key) else []
            return owners[0].removeprefix("team:") if owners else ""

        return dg.SkipReason(look(redis.settings, context.instance, owner_of))

    return alerts


def look(settings: Settings, instance: dg.DagsterInstance, owner_of: Callable[[str], str], now_ms: int = 0) -> str:
    """One look: read, remember, deliver. *now_ms*: wall clock, epoch ms (0 = now). Returns a summary.

    `transport.BadAlertUrl` when a channel is misspelt: the sensor's page then shows which.
    """
    now_ms = now_ms or int(time.time() * 1000)
    state = load(settings.data_dir)
    known = channels(settings)
    if not known:
        if state.cursors:
            state.cursors = {}  # a channel that is set later gets new findings, not old ones
            save(state, settings.data_dir)
        return "no channels: set QMT_ALERT_URLS (docs/operations.md)"
    redact = Redactor.of(settings)
    events = EventReader(instance, settings, owner_of, state.cursors)
    findings = list(events.read())
    live, market_now = watch_live(settings, state, now_ms)
    window_ms = int(settings.alert_window_minutes * 60_000)
    for finding in [*findings, *instigators.failing(instance, events.base, settings.language), *live]:
        safe = Finding(**{**finding.__dict__, "title": redact(finding.title), "text": redact(finding.text)})
        state.observe(safe, now_ms, window_ms, lambda f: route(f, known), settings.language)
    state.cursors = dict(events.cursors)
    state.forget_old(now_ms)
    save(state, settings.data_dir)
    taken = deliver(
        state, known, now_ms, market_now, lambda: save(state, settings.data_dir), language=settings.language
    )
    return f"{taken} messages sent, {len(state.outbox)} notices wait, {len(state.incidents)} incidents open"


@dataclass
class EventReader:
    """Reads an instance from *cursors* on; they move as `read` goes and are to be stored after it."""

    instance: dg.DagsterInstance
    settings: Settings
    owner_of: Callable[[str], str]
    cursors: Mapping[str, str]

    def __post_init__(self) -> None:
        self.cursors, self.reporter = dict(self.cursors), Reporter(self.settings)
        self.base = (self.settings.dagster_base_url or f"http://127.0.0.1:{self.settings.dagster_port}").rstrip("/")

    def read(self) -> Iterator[Finding]:
        """Findings of runs that ended and of evaluations outside runs, oldest first."""
        newest = self._newest_run_event()
        if "runs" not in self.cursors or int(self.cursors["runs"]) > newest:
            # the first look, or another event log than last time (its ids are below ours): begin at now
            self.cursors = {"runs": str(newest), "runless": self._newest_runless()}
            return
        records: list[dg.EventLogRecord] = []
        bound: float = float("inf")
        for kind in _ENDED:
            found = self.instance.fetch_run_status_changes(
                dg.RunStatusChangeRecordsFilter(event_type=kind, after_storage_id=int(self.cursors["runs"])),
                limit=RUNS_PER_LOOK,
                ascending=True,
            ).records
            if len(found) == RUNS_PER_LOOK:
                bound = min(bound, found[-1].storage_id)
            records += found
        for record in sorted(records, key=lambda r: r.storage_id):
            if record.storage_id <= bound:
                yield from self._readable(record)
                self.cursors = {**self.cursors, "runs": str(record.storage_id)}
        yield from self._runless()

    def _newest_run_event(self) -> int:
        newest = 0
        for kind in _ENDED:
            found = self.instance.fetch_run_status_changes(kind, limit=1, ascending=False).records
            newest = max([newest, *(record.storage_id for record in found)])
        return newest

    def _newest_runless(self) -> str:
        page = self.instance.get_records_for_run("", of_type=Event.ASSET_CHECK_EVALUATION, limit=1, ascending=False)
        return str(page.cursor) if page.records else ""

    def _runless(self) -> Iterator[Finding]:
        page = self.instance.get_records_for_run(
            "",
            cursor=self.cursors.get("runless") or None,
            of_type=Event.ASSET_CHECK_EVALUATION,
            limit=EVALUATIONS_PER_LOOK,
        )
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is not None:
                yield from self._of_check(event.event_specific_data, "")
        if page.records:
            self.cursors = {**self.cursors, "runless": str(page.cursor)}

    def _readable(self, record: dg.EventLogRecord) -> list[Finding]:
        """`_of_run`; what cannot be read is a finding too: it must not stop what comes after it."""
        try:
            return list(self._of_run(record))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            run_id = record.event_log_entry.run_id
            text = f"{type(error).__name__}: {error}"
            title = say(self.settings.language, "run.unread")
            return [Finding(f"unread:{run_id}", True, title, text, link=f"{self.base}/runs/{run_id}")]

    def _of_run(self, record: dg.EventLogRecord) -> Iterator[Finding]:
        """The run itself, its evaluations, and planned checks that never got a verdict."""
        run_id = record.event_log_entry.run_id
        run = self.instance.get_run_by_id(run_id)
        if run is None:
            return  # deleted meanwhile
        event = record.event_log_entry.dagster_event
        failed = event is not None and event.event_type == Event.RUN_FAILURE
        if failed and run.tags.get("dagster/will_retry") == "true":
            return  # its retry decides
        partition = _partition(run.tags)
        planned: set[str] = set()
        evaluated: set[str] = set()
        reasons: list[str] = []
        kinds = {Event.ASSET_CHECK_EVALUATION, Event.ASSET_CHECK_EVALUATION_PLANNED, Event.STEP_FAILURE}
        for one in self.instance.get_records_for_run(run_id, of_type=kinds).records:
            detail = one.event_log_entry.dagster_event
            if detail is None:
                continue
            data: Any = detail.event_specific_data
            if detail.event_type == Event.STEP_FAILURE:
                reasons.append(f"{detail.step_key}: {_cause(data)}")
            elif detail.event_type == Event.ASSET_CHECK_EVALUATION_PLANNED:
                planned.add(_name(data))
            else:
                evaluated.add(_name(data))
                yield from self._of_check(data, partition)
        crashed = sorted(planned - evaluated)
        if not failed:
            yield from (self._crashed(name, partition) for name in crashed)
        yield self._run(run, failed, partition, reasons or [_said(record)], crashed)

    def _run(self, run: Any, failed: bool, partition: str, reasons: list[str], crashed: list[str]) -> Finding:
        language = self.settings.language
        lines = reasons[:5]
        if crashed:
            lines.append(say(language, "run.crashed", names=", ".join(crashed)))
        dated = len(partition) == len("2025-06-05")
        return Finding(
            key=f"run:{run.job_name}@{partition}",
            failed=failed,
            title=say(language, "run.failed", job=run.job_name),
            text="\n".join(lines) if failed else say(language, "run.recovered"),
            partition=partition,
            link=f"{self.base}/runs/{run.run_id}",
            todo=say(language, "run.todo" if dated else "run.todo.undated", day=partition),
        )

    def _of_check(self, data: Any, partition: str) -> Iterator[Finding]:
        name = _name(data)
        if name in WATCHED_HERE:
            return
        said = {key: str(value.value) for key, value in data.metadata.items() if key != "worst"}
        day = said.get("partition") or data.partition or partition
        seen = Evaluation(
            data.asset_key.to_user_string(),
            data.check_name,
            data.passed,
            "ERROR" if data.severity == dg.AssetCheckSeverity.ERROR else "WARN",
            day,
            said.get("expected", ""),
            said.get("found", ""),
            data.description or "",
            () if data.passed else _worst(data),
            said.get("days_failed", ""),
        )
        yield self._check(seen, "" if seen.asset in _NO_PARTITION else day)

    def _crashed(self, name: str, partition: str) -> Finding:
        asset, _, check = name.rpartition("/")
        said = say(self.settings.language, "no.verdict")
        return self._check(Evaluation(asset, check, False, "ERROR", partition, said=said), partition)

    def _check(self, seen: Evaluation, partition: str) -> Finding:
        return self.reporter.finding(seen, partition, self.owner_of(seen.asset))


def _name(data: Any) -> str:
    return f"{data.asset_key.to_user_string()}/{data.check_name}"


def _partition(tags: Mapping[str, str]) -> str:
    first, last = tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")
    return tags.get("dagster/partition") or (f"{first} … {last}" if first else "")


def _worst(data: Any) -> list[dict[str, str]]:
    """The worst offenders of an evaluation, their columns in the order of its table."""
    worst = data.metadata.get("worst")
    if not isinstance(worst, dg.TableMetadataValue):
        return []
    columns = [column.name for column in worst.schema.columns]  # a record's own keys are sorted by Dagster
    return [{name: str(row.data.get(name, "")) for name in columns} for row in worst.records]


def _cause(failure: Any) -> str:
    """The innermost error of a failed step in one line: the outer ones say only that a step failed."""
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip()[:600] if error is not None else "no error recorded"


def _said(record: dg.EventLogRecord) -> str:
    event = record.event_log_entry.dagster_event
    return (event.message if event is not None else "") or "no step failed: see the run's page"
