"""
### When tests fail

The regression suites have test cases that fail, so the run's task fails: its message, the last thing in its log, names
them. The report is in XCom all the same: `tell_the_team` reads it, while `release` is never reached.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, task

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

with DAG(
    dag_id="example_failing_tests",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "omilia", "ends: failed"],
    # What is left empty in the form reaches the operator as None, not as text.
    render_template_as_native_obj=True,
    params={
        "group": Param(
            None,
            title="Group",
            description="Only test cases of this group; empty for all.",
            type=["string", "null"],
            enum=["accounts", "payments", None],
        ),
    },
) as dag:
    run_regression = OmiliaCreateRunOperator(
        task_id="run_regression",
        project_id="0a000000-0000-4000-8000-000000000002",
        group="{{ params.group }}",
        deferrable=True,
        poll_interval=5,
        # The retries are for a platform that can't be reached: tests that failed would fail again.
        retries=2,
        retry_delay=10,
        retry_failed_runs=False,
    )

    @task(trigger_rule=TriggerRule.ONE_FAILED)
    def tell_the_team(report: dict[str, Any]) -> None:
        """Stands for your chat or mail."""
        print(f"{report['failed'] + report['unavailable']} of {report['total']} test cases did not pass:")
        for case in report["failures"]:
            print(f"  {case['name']}: {case['message']}")

    @task
    def release() -> None:
        print("Every test case passed.")

    tell_the_team(run_regression.output)
    run_regression >> release()
