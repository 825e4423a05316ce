"""Making a day again through Dagster's API: start the job for a day, and how far its run is. Dagster is asked over
HTTP, never imported."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final

from qmt_orchestration.settings import Settings

JOBS: Final = ("make_day", "reconcile_day")
_SECONDS: Final = 15.0

_WHERE: Final = """query { repositoriesOrError { ... on RepositoryConnection {
  nodes { name location { name } jobs { name } } } } }"""
_LAUNCH: Final = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on RunConfigValidationInvalid
  { errors { message } } } }"""
_STATUS: Final = """query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status
  stepStats { stepKey status } tags { key value } executionPlan { steps { key } } } } }"""


class DagsterError(RuntimeError):
    """Dagster does not answer, or refuses; the message says what to do."""


def launch(settings: Settings, job: str, day: str, asked_by: str) -> str:
    """Start *job* (one of `JOBS`) for the trading day *day*; the id of its run. *asked_by*: noted on the run."""
    if job not in JOBS:
        raise ValueError(f"expected {' or '.join(JOBS)}, found {job[:40]!r}")
    nodes = _ask(settings, _WHERE, {})["repositoriesOrError"].get("nodes", [])
    found = [n for n in nodes if job in {j["name"] for j in n["jobs"]}]
    if not found:
        raise DagsterError(f"Dagster at {base(settings)} has no job {job}: is its code location loaded?")
    selector = {
        "jobName": job,
        "repositoryName": found[0]["name"],
        "repositoryLocationName": found[0]["location"]["name"],
    }
    tags = [{"key": "dagster/partition", "value": day}, {"key": "qmt/from", "value": asked_by}]
    params = {"selector": selector, "executionMetadata": {"tags": tags}, "runConfigData": {}}
    answer = _ask(settings, _LAUNCH, {"params": params})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        reasons = answer.get("message") or "; ".join(e["message"] for e in answer.get("errors", [])) or "refused"
        raise DagsterError(f"Dagster did not start {job} of {day}: {answer['__typename']}: {reasons[:300]}")
    return str(answer["run"]["runId"])


def progress(settings: Settings, run_id: str) -> dict[str, Any]:
    """``{status, done, steps}`` of a run; LookupError for an unknown one."""
    found = _ask(settings, _STATUS, {"id": run_id})["runOrError"]
    if found["__typename"] != "Run":
        raise LookupError(f"no run {run_id[:40]!r}")
    steps = [s["key"] for s in (found["executionPlan"] or {"steps": []})["steps"]]
    done = [s for s in found["stepStats"] if s["status"] in ("SUCCESS", "FAILURE", "SKIPPED")]
    return {"status": found["status"], "done": len(done), "steps": len(steps)}


def base(settings: Settings) -> str:
    """Where Dagster answers this process."""
    return settings.dagster_url.rstrip("/") or f"http://127.0.0.1:{settings.dagster_port}"


def _ask(settings: Settings, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(  # noqa: S310  # the address is a setting
        f"{base(settings)}/graphql", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:  # noqa: S310
            answer = json.load(reply)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DagsterError(f"Dagster at {base(settings)} does not answer ({error}): set QMT_DAGSTER_URL") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
        raise DagsterError(f"Dagster at {base(settings)} refuses: {str(answer)[:300]}")
    return dict(answer["data"])
