"""What is tried on older Airflows: all platforms, both ways of waiting, a sensor, a start whose response is lost, and
an event for each run that finishes."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from airflow_provider_testruns.triggers.finished import FinishedRunsTrigger

MODEL = "e0000000-0000-4000-8000-000000000001"
PROJECTS = {name: f"0e000000-0000-4000-8000-00000000000{n}" for n, name in enumerate(("passing", "failing", "losing"))}
#: A run test of the sandbox.
RUN_TEST = "nightly-support-sim"

with DAG("older", schedule=None, default_args={"poll_interval": 0.5, "retries": 1, "retry_delay": timedelta(0)}):
    for how in ("deferred", "in_place"):
        waits = {"deferrable": how == "deferred"}
        EggplantStartExecutionOperator(task_id=f"eggplant_{how}", model_id=MODEL, **waits)
        FutureAGIExecuteTestRunOperator(task_id=f"futureagi_{how}", run_test_name=RUN_TEST, select_all=True, **waits)
        # With retries a failed verdict is followed by another run.
        OmiliaCreateRunOperator(
            task_id=f"failing_{how}", project_id=PROJECTS["failing"], retry_failed_runs=False, **waits
        )
    # Several at once, for the list that the triggerer polls.
    OmiliaCreateRunOperator.partial(task_id="mapped", project_id=PROJECTS["passing"], deferrable=True).expand(
        utterance=["how much", "savings", "lost my card"]
    )
    OmiliaCreateRunOperator(task_id="lost", project_id=PROJECTS["losing"], deferrable=True)
    # The plugin's macros: without them the task would fail.
    BashOperator(task_id="macros", bash_command="true {{ macros.test_runs.markdown(none) | length }}")
    start = OmiliaCreateRunOperator(
        task_id="start", project_id=PROJECTS["passing"], utterance="Lisbon", wait_for_completion=False
    )
    OmiliaRunSensor(
        task_id="watch",
        run_id=start.output["run_id"],
        project_id=PROJECTS["passing"],
        deferrable=True,
        poke_interval=0.5,
    )

watched = FinishedRunsTrigger(
    "omilia", "omilia_default", asset_name="older-runs", project_id=PROJECTS["passing"], poll_interval=0.5
)
# Airflow watches an asset as long as a DAG is scheduled on it.
with DAG("following", schedule=[Asset("older-runs", watchers=[AssetWatcher(name="passing", trigger=watched)])]):
    EmptyOperator(task_id="nothing")
