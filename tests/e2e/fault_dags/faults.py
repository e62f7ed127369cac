"""The DAGs of test_faults.py: each has a task ``run`` and a connection to a sandbox of its own.

Where a fault is a kill at a place that nobody outside can see, the process kills itself there, as the kernel would.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

TARGETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "eggplant": (EggplantStartExecutionOperator, {"model_id": "e0000000-0000-4000-8000-000000000001"}),
    "futureagi": (
        FutureAGIExecuteTestRunOperator,
        {"run_test_id": "fa000000-0000-4000-8000-000000000001", "select_all": True},
    ),
    "omilia": (OmiliaCreateRunOperator, {"project_id": "0a000000-0000-4000-8000-000000000001"}),
}
#: Of the platform: the triggerer is hit by each, and who waits in place by some.
OUTAGES = ("503", "refused", "hang", "429", "401", "expired", "truncated", "wrong_json", "huge", "elsewhere")
OUTAGES_IN_PLACE = ("503", "refused", "hang", "401")
#: DAG: platform and what its task is told.
DAGS: dict[str, tuple[str, dict[str, Any]]] = {
    # Whoever comes first to these places of its own process dies there.
    "dies_after_intent": ("omilia", {"deferrable": True}),
    "dies_before_started_omilia": ("omilia", {"deferrable": True}),
    "dies_before_started_futureagi": ("futureagi", {"deferrable": True}),
    "dies_before_started_eggplant": ("eggplant", {}),
    "dies_after_started": ("omilia", {"deferrable": True}),
    "dies_after_passed": ("omilia", {}),
    "dies_after_failed": ("omilia", {}),
    # The test kills it.
    "killed_in_start": ("omilia", {"deferrable": True}),
    "killed_in_place": ("omilia", {}),
    "killed_in_resume": ("omilia", {"deferrable": True}),
    # Its machine asks it to go, while it is far from its next look.
    "evicted_in_place": ("omilia", {"poll_interval": 60}),
    # Users end it.
    "failed_in_start": ("omilia", {"deferrable": True}),
    "failed_while_it_hangs": ("omilia", {}),
    "failed_before_it_defers": ("omilia", {"deferrable": True}),
    "cleared_in_place": ("omilia", {}),
    "cleared_without_triggerer": ("omilia", {"deferrable": True}),
    "handed_over": ("omilia", {"deferrable": True}),
    # Time ends it: enough of it for a slow machine to get as far as the triggerer.
    "timeout": ("omilia", {"deferrable": True, "timeout": 60}),
    "execution_timeout": ("omilia", {"deferrable": True, "execution_timeout": timedelta(seconds=60)}),
    **{f"outage_{kind}": ("omilia", {"deferrable": True}) for kind in OUTAGES},
    **{f"outage_{kind}_in_place": ("omilia", {}) for kind in OUTAGES_IN_PLACE},
}


def kill_itself(starter: Any, dag_id: str) -> None:
    """Let the first process that comes to a place in the middle of the bookkeeping of a start die there."""
    keep, started, judged = starter._keep, starter._started, starter.judged
    where = dag_id.removeprefix("dies_")

    def die() -> None:
        # Not the try counts: on a busy machine Airflow may lose one before its task has begun.
        try:
            Path(os.environ["AIRFLOW_HOME"], f"{dag_id}.died").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_keep(record: Any) -> None:
        keep(record)
        if where == "after_intent" and record.phase == "intent":
            die()

    def dying_started(run: Any, **more: Any) -> None:
        if where.startswith("before_started"):
            die()
        started(run, **more)
        if where == "after_started":
            die()

    def dying_judged(run: Any, verdict: Any) -> None:
        judged(run, verdict)
        if where in ("after_passed", "after_failed"):
            die()

    starter._keep, starter._started, starter.judged = dying_keep, dying_started, dying_judged


def make(dag_id: str, platform: str, arguments: dict[str, Any]) -> None:
    """One DAG with its task."""
    base, target = TARGETS[platform]

    class Dying(base):  # type: ignore[misc,valid-type]
        def new_execution(self, context: Any) -> Any:
            execution = super().new_execution(context)
            connect = execution.connect

            def connect_and_die() -> None:
                connect()
                kill_itself(execution.starter, dag_id)

            execution.connect = connect_and_die
            return execution

    with DAG(dag_id, schedule=None):
        (Dying if dag_id.startswith("dies_") else base)(
            task_id="run",
            **{f"{platform}_conn_id": dag_id},
            **{
                "poll_interval": 0.5,
                # One for the fault, the others for a machine that is too slow for Airflow.
                "retries": 4 if dag_id.startswith(("dies_", "killed_", "evicted_")) else 0,
                "retry_delay": timedelta(seconds=1),
                **target,
                **arguments,
            },
        )


for name, (platform, arguments) in DAGS.items():
    make(name, platform, arguments)
