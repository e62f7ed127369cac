"""The pieces of the page "Eggplant DAI: how to", as one DAG file."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_testruns.operators.eggplant import (
    EggplantAbortExecutionOperator,
    EggplantStartExecutionOperator,
    EggplantStartTestConfigurationOperator,
)
from airflow_provider_testruns.sensors.eggplant import EggplantExecutionSensor, EggplantRunProgressSensor


@dag
def howto_eggplant():
    # [START start]
    EggplantStartExecutionOperator(
        task_id="checkout",
        model_name="Checkout",
        test_case_name="pay_by_card",
        agent_name="Sandbox agent",
        asset={"asset_path": "/suites/shop"},
        require_assets=True,
        deferrable=True,
    )
    # [END start]

    # [START configuration]
    EggplantStartTestConfigurationOperator(
        task_id="regression",
        test_config_name="Regression",
        fail_on_rerun=True,
        deferrable=True,
    )
    # [END configuration]

    # [START watch]
    start = EggplantStartExecutionOperator(
        task_id="start",
        model_name="Checkout",
        agent_name="Sandbox agent",
        asset={"asset_path": "/suites/shop"},
        wait_for_completion=False,
    )
    EggplantExecutionSensor(
        task_id="wait", execution_id=start.output["run_id"], deferrable=True, poke_interval=10, timeout=3600
    )
    # [END watch]

    # [START model]
    EggplantRunProgressSensor(task_id="all_of_checkout", model_name="Checkout", limit=20, deferrable=True)
    # [END model]

    # [START abort]
    EggplantAbortExecutionOperator(task_id="abort", execution_id="{{ params.execution_id }}")
    # [END abort]


howto_eggplant()
