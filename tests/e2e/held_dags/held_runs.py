"""The DAGs of test_deferred_run.py. Their runs go on until the test ends them."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

SHARED = {"deferrable": True, "poll_interval": 0.5, "retries": 0}
OMILIA = {"omilia_conn_id": "held_omilia", **SHARED}

with DAG("through", schedule=None):
    EggplantStartExecutionOperator(
        task_id="eggplant",
        model_id="e0000000-0000-4000-8000-000000000002",
        eggplant_conn_id="held_eggplant",
        **SHARED,
    )
    FutureAGIExecuteTestRunOperator(
        task_id="futureagi",
        run_test_name="nightly-support-sim",
        select_all=True,
        futureagi_conn_id="held_futureagi",
        **SHARED,
    )
    suites = OmiliaCreateRunOperator.partial(task_id="omilia", **OMILIA).expand(
        project_id=["0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"]
    )

# A project for each, so that each run is asked for by its own id.
for number, dag_id in enumerate(("killed", "cleared", "handed_over", "killed_in_place", "hostile")):
    with DAG(dag_id, schedule=None):
        OmiliaCreateRunOperator(
            task_id="run",
            project_id=f"0e000000-0000-4000-8000-00000000000{number}",
            **{**OMILIA, "deferrable": dag_id != "killed_in_place"},
        )

# Runs of one project, which the triggerer polls together, in two DAGs.
for dag_id, numbers in (("crowd_one", (0, 1, 2)), ("crowd_two", (3, 4))):
    with DAG(dag_id, schedule=None, params={"run_ids": []}):
        for number in numbers:
            OmiliaRunSensor(
                task_id=f"run_{number}",
                run_id=f"{{{{ params.run_ids[{number}] }}}}",
                project_id="0e000000-0000-4000-8000-0000000000c0",
                omilia_conn_id="held_omilia",
                deferrable=True,
                poke_interval=0.5,
            )

with DAG("watched", schedule=None, params={"run_id": ""}):
    OmiliaRunSensor(
        task_id="run",
        run_id="{{ params.run_id }}",
        omilia_conn_id="held_omilia",
        deferrable=True,
        poke_interval=0.5,
    )
