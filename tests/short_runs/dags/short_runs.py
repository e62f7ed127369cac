"""Many deferred runs that are over in no time."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

with DAG("short_runs", schedule=None, max_active_tasks=1000):
    OmiliaCreateRunOperator.partial(
        task_id="run",
        deferrable=True,
        poll_interval=0.5,
        timeout=900,
        retries=0,
        map_index_template="{{ task.project_id }}",
    ).expand(project_id=os.environ["SHORT_RUNS_PROJECTS"].split(","))
