"""Tasks whose runs are started by one version of the provider and finished by another. All arguments are of the first
version."""

from __future__ import annotations

import json
import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_testruns.operators.eggplant import (
    EggplantStartExecutionOperator,
    EggplantStartTestConfigurationOperator,
)
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateGenerationOperator, OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.eggplant import EggplantRunProgressSensor
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

#: What each task starts runs of: the ids of the platforms' objects, by the tasks' ids; and what else is up to who runs
#: this.
PLAN = json.loads(os.environ["UPGRADE_PLAN"])
TARGETS = PLAN["targets"]

with DAG(
    "upgrade",
    schedule=None,
    default_args={"poll_interval": 1.0, "retries": 5, "retry_delay": timedelta(0)},
    max_active_tasks=32,
):
    for how in ("deferred", "in_place"):
        waits = {"deferrable": how == "deferred"}
        EggplantStartExecutionOperator(task_id=f"eggplant_{how}", model_id=TARGETS[f"eggplant_{how}"], **waits)
        FutureAGIExecuteTestRunOperator(
            task_id=f"futureagi_{how}", run_test_id=TARGETS[f"futureagi_{how}"], select_all=True, **waits
        )
        OmiliaCreateRunOperator(task_id=f"omilia_{how}", project_id=TARGETS[f"omilia_{how}"], **waits)
        OmiliaCreateRunOperator(
            task_id=f"failing_{how}", project_id=TARGETS[f"failing_{how}"], retry_failed_runs=False, **waits
        )
    OmiliaCreateRunOperator(
        task_id="streaming", project_id=TARGETS["streaming"], utterance="savings", stream_logs=True, deferrable=True
    )
    OmiliaCreateGenerationOperator(task_id="generation", project_id=TARGETS["generation"], deferrable=True)
    EggplantStartTestConfigurationOperator(
        task_id="configuration", test_config_id=TARGETS["configuration"], deferrable=True
    )
    # Is over while another version waits for it.
    OmiliaCreateRunOperator(
        task_id="late",
        project_id=TARGETS["late"],
        timeout=PLAN["timeout"],
        deferrable=True,
        retries=0,
    )
    # The platform does not know it any more.
    OmiliaCreateRunOperator(task_id="vanished", project_id=TARGETS["vanished"], deferrable=True, retries=0)
    start = OmiliaCreateRunOperator(
        task_id="start", project_id=TARGETS["start"], utterance="Lisbon", wait_for_completion=False
    )
    OmiliaRunSensor(
        task_id="watch",
        run_id=start.output["run_id"],
        project_id=TARGETS["start"],
        deferrable=True,
        poke_interval=1.0,
    )
    EggplantRunProgressSensor(
        task_id="watch_model", model_name=PLAN["watched_model"], deferrable=True, poke_interval=1.0
    )
