"""The pieces of the page "Future AGI: how to", as one DAG file."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_testruns.operators.futureagi import (
    FutureAGICancelTestExecutionOperator,
    FutureAGIExecuteTestRunOperator,
    FutureAGIRerunCallsOperator,
)
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor


@dag
def howto_futureagi():
    # [START start]
    support = FutureAGIExecuteTestRunOperator(
        task_id="support",
        run_test_name="nightly-support-sim",
        select_all=True,
        eval_thresholds={"task_completion": 0.9, "politeness": 0.7},
        rerun_failed_only=True,
        retries=1,
        deferrable=True,
    )
    # [END start]

    # [START rerun]
    FutureAGIRerunCallsOperator(
        task_id="evaluate_again",
        execution_id=support.output["run_id"],
        rerun_type="eval_only",
        select_all=True,
        eval_thresholds={"task_completion": 0.95},
        deferrable=True,
    )
    # [END rerun]

    # [START watch]
    FutureAGITestExecutionSensor(
        task_id="wait", execution_id="{{ params.execution_id }}", deferrable=True, poke_interval=15
    )
    # [END watch]

    # [START cancel]
    FutureAGICancelTestExecutionOperator(task_id="cancel", execution_id="{{ params.execution_id }}")
    # [END cancel]


howto_futureagi()
