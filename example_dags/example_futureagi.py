"""
### Execute a test run on Future AGI

Simulates the chosen scenarios, waits for the calls and their evaluations in the triggerer, and compares the
evaluations with their gates: an average below its gate fails the task, even if every call was completed.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator

UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
SCENARIOS = {
    "Card blocked abroad": "fa000000-0000-4000-8000-000000010001",
    "Parcel is late": "fa000000-0000-4000-8000-000000010002",
    "Change of address": "fa000000-0000-4000-8000-000000010003",
}

with DAG(
    dag_id="example_futureagi",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "futureagi", "ends: passed"],
    # Lists and numbers of the form reach the operator as such, not as text.
    render_template_as_native_obj=True,
    params={
        "run_test_id": Param(
            "fa000000-0000-4000-8000-000000000001",
            title="Test run",
            description="The id of the test run to execute; the default is nightly-support-sim.",
            type="string",
            pattern=UUID,
        ),
        "scenario_ids": Param(
            [SCENARIOS["Card blocked abroad"], SCENARIOS["Parcel is late"]],
            title="Scenarios",
            description="Which of the test run's scenarios to simulate.",
            type="array",
            items={"type": "string", "pattern": UUID},
            minItems=1,
            uniqueItems=True,
            examples=list(SCENARIOS.values()),
            values_display={scenario_id: name for name, scenario_id in SCENARIOS.items()},
        ),
        "eval_thresholds": Param(
            {"task_completion": 0.9, "politeness": 0.7},
            title="Evaluation gates",
            description="The least average of each evaluation, from 0 to 1.",
            type="object",
            additionalProperties={"type": "number", "minimum": 0, "maximum": 1},
        ),
    },
) as dag:
    execute_test_run = FutureAGIExecuteTestRunOperator(
        task_id="execute_test_run",
        run_test_id="{{ params.run_test_id }}",
        scenario_ids="{{ params.scenario_ids }}",
        eval_thresholds="{{ params.eval_thresholds }}",
        deferrable=True,
        poll_interval=5,
        # A retry goes on with the run that is there; it starts no second one, not even after tests that failed.
        retries=2,
        retry_delay=10,
        retry_failed_runs=False,
    )

    @task
    def show(report: dict[str, Any]) -> None:
        print(f"Run {report['run_id']} {report['verdict']}: {report['passed']} of {report['total']} calls completed.")
        for name, figure in report["metrics"].items():
            print(f"  {name}: {figure}")
        print(f"Details: {report['url']}")

    show(execute_test_run.output)
