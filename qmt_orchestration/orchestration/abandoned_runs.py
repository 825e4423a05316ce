"""Runs whose process is gone: Dagster's default launcher does not notice, and they would count as running for hours.

``python -m qmt_orchestration.orchestration.abandoned_runs`` is for the moment before Dagster's daemon starts, when no
run of its instance (DAGSTER_HOME) can live: `qmt up` and the unit of deploy/linux call it. While the daemon runs,
`is_silent` tells a run that was killed from one that works.
"""

import time

import dagster as dg

from qmt_orchestration.orchestration.jobs import FINALIZE_MINUTES

BEGUN = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
SILENT_SECONDS = 300.0  # each step writes events; none of the minutes' takes a tenth of it


def end_abandoned(instance: dg.DagsterInstance) -> int:
    """End every run that has begun; returns how many.

    The minutes' run is asked for again by its sensor, so it is canceled; any other fails, which starts it once more
    (``run_retries``) and is announced.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=list(BEGUN)))
    for run in runs:
        if run.job_name == FINALIZE_MINUTES:
            instance.report_run_canceled(run, "Dagster was stopped while it ran")
        else:
            instance.report_run_failed(run, "Dagster was stopped while it ran")
    return len(runs)


def is_silent(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run has written no event for `SILENT_SECONDS`."""
    newest = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    if newest:
        return time.time() - newest[0].event_log_entry.timestamp > SILENT_SECONDS
    record = instance.get_run_record_by_id(run_id)
    return record is not None and time.time() - record.create_timestamp.timestamp() > SILENT_SECONDS


if __name__ == "__main__":
    with dg.DagsterInstance.get() as own:
        end_abandoned(own)
