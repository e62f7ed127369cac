"""The tasks of the plan, mapped from one task for each platform and way of waiting."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

OPERATORS = {
    "eggplant": EggplantStartExecutionOperator,
    "script": EggplantStartExecutionOperator,
    "futureagi": FutureAGIExecuteTestRunOperator,
    "omilia": OmiliaCreateRunOperator,
}

with DAG("chaos", schedule=None, max_active_tasks=int(os.environ["CHAOS_AT_ONCE"])):
    groups: dict[str, list[dict]] = {}
    for task in json.loads(Path(os.environ["CHAOS_PLAN"]).read_text()):
        groups.setdefault(task["group"], []).append({"timeout": 900, "retry_failed_runs": True, **task["arguments"]})
    for group, arguments in groups.items():
        kind, _, how = group.partition("_")
        OPERATORS[kind].partial(
            task_id=group,
            deferrable=how == "deferred",
            poll_interval=1.0,
            retries=3 if kind == "script" else 30,
            retry_delay=timedelta(seconds=1),
        ).expand_kwargs(arguments)
