"""
### Evaluation gates and reruns on Future AGI

Executes a test run whose evaluations must reach their gates. A call of it fails at first: Airflow's retry runs that
call again, in the same execution, instead of starting (and paying for) another one. Then the evaluations are run once
more over all calls, as after a change of their prompts, with stricter gates.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator, FutureAGIRerunCallsOperator

GATES = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}}

with DAG(
    dag_id="example_futureagi_gates",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "futureagi", "ends: passed"],
    default_args={"deferrable": True, "poll_interval": 5},
    # The gates of the form reach the operators as such, not as text.
    render_template_as_native_obj=True,
    params={
        "run_test_id": Param(
            "fa000000-0000-4000-8000-000000000002",
            title="Test run",
            description="The id of a test run with a voice agent; the default is flaky-support-sim.",
            type="string",
            pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        ),
        "eval_thresholds": Param(
            {"task_completion": 0.7, "politeness": 0.8},
            title="Evaluation gates",
            description="The least average of each evaluation, from 0 to 1.",
            **GATES,
        ),
        "strict_thresholds": Param(
            {"task_completion": 0.95, "handover=No": 0.9},
            title="Stricter gates",
            description="For the evaluations that are run once more. name=choice is the share of a choice.",
            **GATES,
        ),
    },
) as dag:
    support = FutureAGIExecuteTestRunOperator(
        task_id="support",
        run_test_id="{{ params.run_test_id }}",
        select_all=True,
        eval_thresholds="{{ params.eval_thresholds }}",
        rerun_failed_only=True,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )

    evaluate_again = FutureAGIRerunCallsOperator(
        task_id="evaluate_again",
        execution_id=support.output["run_id"],
        run_test_id="{{ params.run_test_id }}",
        rerun_type="eval_only",
        select_all=True,
        eval_thresholds="{{ params.strict_thresholds }}",
    )

    @task
    def show(report: dict[str, Any]) -> None:
        print(f"Run {report['run_id']} {report['verdict']}: {report['passed']} of {report['total']} calls completed.")
        for name, figure in report["metrics"].items():
            print(f"  {name}: {figure}")
        print(f"Details: {report['url']}")

    show(evaluate_again.output)
