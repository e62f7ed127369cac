"""Future AGI's reruns and cancels in real DAGs: with Airflow's own retries and its own store for the record."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_testruns.operators.futureagi import (
    FutureAGICancelTestExecutionOperator,
    FutureAGIExecuteTestRunOperator,
    FutureAGIRerunCallsOperator,
)
from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[3] / "example_dags" / "example_futureagi_gates.py"
START, RERUN, CANCEL = "futureagi.execute", "futureagi.rerun_calls", "futureagi.cancel_execution"
FLAKY = "fa000000-0000-4000-8000-000000000002"
MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


def test_the_example_with_gates_and_reruns(airflow: AirflowProcess, platforms: Control) -> None:
    tasks = airflow.run_file(EXAMPLE.read_text(), "example_futureagi_gates")
    assert {name: (done.state, done.tries) for name, done in tasks.items()} == {
        "support": ("success", 2),
        "evaluate_again": ("success", 1),
        "show": ("success", 1),
    }
    (run,) = platforms.runs()
    support, evaluate_again = tasks["support"], tasks["evaluate_again"]
    assert support.error.kind == "RunFailedError"
    assert "Evaluation 'task_completion' is 0.667, below its gate 0.7 by 0.0333." in support.error.message
    assert support.record is not None
    assert (support.record["phase"], support.record["verdict"]) == ("judged", "passed")
    assert support.result["run_id"] == evaluate_again.result["run_id"] == run["run_id"]
    assert evaluate_again.result["metrics"]["task_completion"] == 1.0
    assert (platforms.count(START), platforms.count(RERUN)) == (1, 2)
    assert evaluate_again.xcoms["run_url"].endswith(f"/{FLAKY}/{run['run_id']}")


def rerun_of(execution_id: str, **shared: object) -> None:
    FutureAGIRerunCallsOperator(
        task_id="rerun",
        execution_id=execution_id,
        run_test_id="fa000000-0000-4000-8000-000000000002",
        poll_interval=0.1,
        retries=2,
        retry_delay=timedelta(0),
        **shared,
    )


@MODES
def test_a_rerun_without_a_response_is_sent_once_over_all_tries(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    (execution_id,) = platforms.add_runs("futureagi", FLAKY, 1, age=60.0)
    platforms.fault("drop", operation=RERUN, when="after", times=1)
    done = airflow.run(rerun_of, execution_id=execution_id, deferrable=deferrable)["rerun"]
    assert (done.state, done.tries) == ("failed", 3)
    assert [error.kind for error in done.errors] == ["StartOutcomeUnknownError"] * 3
    assert all(execution_id in error.message for error in done.errors)
    assert platforms.count(RERUN) == 1


@MODES
def test_a_rerun_that_was_started_is_waited_for_by_the_next_try(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    (execution_id,) = platforms.add_runs("futureagi", FLAKY, 1, age=60.0)
    # The first look is from before the rerun.
    platforms.fault("status", status=403, operation="futureagi.metrics", skip=1, times=1)
    done = airflow.run(rerun_of, execution_id=execution_id, deferrable=deferrable)["rerun"]
    assert (done.state, done.tries, done.error.kind) == ("success", 2, "PermissionDeniedError")
    assert done.result["run_id"] == execution_id
    assert platforms.count(RERUN) == 1


def start_then_cancel() -> None:
    start = FutureAGIExecuteTestRunOperator(
        task_id="start",
        run_test_id="fa000000-0000-4000-8000-000000000001",
        select_all=True,
        wait_for_completion=False,
    )
    for name in ("cancel", "cancel_again"):
        cancel = FutureAGICancelTestExecutionOperator(task_id=name, execution_id=start.output["run_id"])
        start >> cancel
        start = cancel


def test_an_execution_is_cancelled_once(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.plan_next("futureagi", duration=3600.0)
    tasks = airflow.run(start_then_cancel)
    assert [done.state for done in tasks.values()] == ["success"] * 3
    assert tasks["cancel"].result["raw_state"] == tasks["cancel_again"].result["raw_state"] == "cancelled"
    assert "has already finished as cancelled: nothing to stop." in tasks["cancel_again"].log
    assert platforms.count(CANCEL) == 1
