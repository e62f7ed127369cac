"""
### Run a model on Eggplant DAI

Starts the model that the form names, waits for its verdict in the triggerer (no worker is held meanwhile), and hands
the report to the next task through XCom. A run that does not pass fails its task.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator

MODELS = {
    "Checkout": "e0000000-0000-4000-8000-000000000001",
    "Returns": "e0000000-0000-4000-8000-000000000002",
    "Broken": "e0000000-0000-4000-8000-000000000003",
}

with DAG(
    dag_id="example_eggplant",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "eggplant", "ends: passed"],
    # Numbers and objects of the form reach the operator as such, not as text.
    render_template_as_native_obj=True,
    params={
        "model_id": Param(
            MODELS["Checkout"],
            title="Model",
            description="What to run. Returns has a test that fails, Broken can't be run at all.",
            type="string",
            enum=list(MODELS.values()),
            values_display={model_id: name for name, model_id in MODELS.items()},
        ),
        "test_case_id": Param(
            None,
            title="Test case",
            description="The number of one test case of the model; empty for an exploratory run of the model.",
            type=["integer", "null"],
            minimum=1,
        ),
        "agent": Param(
            {"agent_id": "1", "is_hosted_agent": True},
            title="Agent",
            description="The agent that carries the tests out.",
            type="object",
            required=["agent_id"],
            properties={
                "agent_id": {"type": "string", "minLength": 1},
                "is_hosted_agent": {"type": "boolean"},
            },
            additionalProperties=False,
        ),
    },
) as dag:
    run_model = EggplantStartExecutionOperator(
        task_id="run_model",
        model_id="{{ params.model_id }}",
        test_case_id="{{ params.test_case_id }}",
        agent="{{ params.agent }}",
        # Without one, DAI would run the model without snippets, and test nothing.
        asset={"asset_path": "/suites/shop"},
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

    show(run_model.output)
