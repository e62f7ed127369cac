"""
### When any run finishes

Test teams also start runs from the platform's own pages, from other schedulers and by webhooks. Here each project has
an asset whose watcher sends an event for every run that finishes, whoever started it. This DAG is scheduled on the
assets: it runs soon after a run has finished, and reads from the events which runs those were and how they ended.

Start a run of one of the projects anywhere and wait a moment. Airflow watches an asset as long as a DAG that is
not paused is scheduled on it. If triggerers are killed an event may come twice, so the task counts each `run_id` once.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, Param, task

from airflow_provider_testruns.triggers.finished import FinishedRunsTrigger

PROJECTS = {
    "smoke-git": "0a000000-0000-4000-8000-000000000005",
    "broken": "0a000000-0000-4000-8000-000000000003",
}


def finished_runs(project: str, project_id: str) -> Asset:
    """The asset of a project, with an event for each of its finished runs."""
    name = f"voice-runs-{project}"
    trigger = FinishedRunsTrigger(
        "omilia",
        "omilia_default",
        asset_name=name,
        project_id=project_id,
        # The event has the verdict and the counts of the run's report, not only the platform's own word.
        judge=True,
        poll_interval=10,
    )
    return Asset(name, watchers=[AssetWatcher(name=f"omilia-{project}", trigger=trigger)])


smoke, broken = (finished_runs(project, project_id) for project, project_id in PROJECTS.items())

with DAG(
    dag_id="example_finished_runs",
    schedule=smoke | broken,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["example", "omilia", "ends: no runs of its own"],
    params={
        "alert_on": Param(
            ["failed", "errored"],
            title="Alert on",
            description="Verdicts that somebody should know of.",
            type="array",
            items={"type": "string", "enum": ["passed", "failed", "errored", "cancelled"]},
        ),
    },
) as dag:

    @task
    def follow_up(params: dict[str, Any], triggering_asset_events: Any = None) -> dict[str, str]:
        """The verdict of each run that has finished since this ran last. Stands for your own reaction."""
        events = [event for events in triggering_asset_events.values() for event in events]
        runs = {event.extra["payload"]["run_id"]: event.extra["payload"] for event in events}
        for run in runs.values():
            line = f"{run['verdict']}: {run['passed']} of {run['total']} passed, {run['url']}"
            print(f"ALERT {line}" if run["verdict"] in params["alert_on"] else line)
        return {run_id: run["verdict"] for run_id, run in runs.items()}

    follow_up()
