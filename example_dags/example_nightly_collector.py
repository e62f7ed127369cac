"""
### A JUnit file of everything that ran elsewhere

Every night this DAG reads the day's events of the assets of `example_finished_runs` and writes a JUnit file for each
run that has none yet. Runs of Airflow's own tasks have theirs already, if the tasks write to the same folder
(`junit_path`); what is left was started elsewhere. So a dashboard that reads the folder misses nothing.

The assets are only named here: they are defined, with their watchers, where `example_finished_runs` is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, ObjectStoragePath, Param, task

WATCHED = [Asset.ref(name="voice-runs-smoke-git"), Asset.ref(name="voice-runs-broken")]

with DAG(
    dag_id="example_nightly_collector",
    # For every night at one: schedule="0 1 * * *". The examples are triggered by hand.
    schedule=None,
    doc_md=__doc__,
    tags=["example", "omilia", "ends: no runs of its own"],
    params={
        "folder": Param(
            "file:///tmp/testruns/junit",
            title="Folder",
            description="Where the JUnit files are: a local folder or object storage, such as s3://reports/junit.",
            type="string",
            pattern="^[a-z0-9]+://.+$",
        ),
        "hours": Param(
            25,
            title="Hours",
            description="How far back to read events. An hour more than a day, so that no night misses one.",
            type="integer",
            minimum=1,
            maximum=720,
        ),
    },
) as dag:

    @task(inlets=WATCHED, retries=2)
    def collect(params: dict[str, Any], inlet_events: Any = None) -> list[str]:
        """Write what is missing. After an error a retry goes on with the rest."""
        from airflow_provider_testruns.hooks.registry import hook_class
        from airflow_provider_testruns.judging import judge
        from airflow_provider_testruns.reporting import junit

        since = datetime.now(UTC) - timedelta(hours=params["hours"])
        events = [event for asset in WATCHED for event in inlet_events[asset].after(since.isoformat())]
        runs = {event.extra["payload"]["run_id"]: event.extra["payload"] for event in events}
        folder = ObjectStoragePath(params["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for run_id, run in runs.items():
            file = folder / f"{run['platform']}-{run_id}.xml"
            if file.exists():
                continue
            hook = hook_class(run["platform"])(run["conn_id"])
            report = hook.get_report(hook.get_run(run_id, **run["context"]))
            written.append(junit.write(str(file), report, judge(report)))
        return written

    collect()
