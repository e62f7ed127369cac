"""
### Run test suites on Omilia Testing Studio

Starts a run of the chosen project, waits for it in the triggerer (no worker is held meanwhile), and hands the report
to the next task through XCom. A run with a failed test case fails its task.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

PROJECTS = {
    "smoke": "0a000000-0000-4000-8000-000000000001",
    "regression": "0a000000-0000-4000-8000-000000000002",
    "broken": "0a000000-0000-4000-8000-000000000003",
}

with DAG(
    dag_id="example_omilia",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "omilia", "ends: passed"],
    # What is left empty in the form reaches the operator as None, not as text.
    render_template_as_native_obj=True,
    params={
        "project_id": Param(
            PROJECTS["smoke"],
            title="Project",
            description="Whose test suites to run. Regression has failing test cases, broken can't be run at all.",
            type="string",
            enum=list(PROJECTS.values()),
            values_display={project_id: name for name, project_id in PROJECTS.items()},
        ),
        "group": Param(
            None,
            title="Group",
            description="Only test cases of this group; empty for all.",
            type=["string", "null"],
            enum=["accounts", "payments", None],
            values_display={"null": "all"},
        ),
        "utterance": Param(
            None,
            title="Utterance",
            description="Only test cases with this text; empty for all.",
            type=["string", "null"],
            maxLength=200,
        ),
    },
) as dag:
    run_suites = OmiliaCreateRunOperator(
        task_id="run_suites",
        project_id="{{ params.project_id }}",
        group="{{ params.group }}",
        utterance="{{ params.utterance }}",
        deferrable=True,
        poll_interval=5,
        # A retry goes on with the run that is there; it starts no second one, not even after tests that failed.
        retries=2,
        retry_delay=10,
        retry_failed_runs=False,
    )

    @task
    def show(report: dict[str, Any]) -> None:
        print(f"Run {report['run_id']} {report['verdict']}: {report['passed']} of {report['total']} test cases passed.")
        print(f"Details: {report['url']}")

    show(run_suites.output)
