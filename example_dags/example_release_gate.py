"""
### Release only what passed everywhere

Three platforms side by side, each mapped over what the form selects: a run, a verdict and a link for every test case,
scenario selection and project. The release step runs only if all of them passed.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

PROJECTS = {
    "smoke": "0a000000-0000-4000-8000-000000000001",
    "regression": "0a000000-0000-4000-8000-000000000002",
    "smoke-git": "0a000000-0000-4000-8000-000000000005",
}
SCENARIO = "fa000000-0000-4000-8000-00000001000"

with DAG(
    dag_id="example_release_gate",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "eggplant", "futureagi", "omilia", "ends: passed"],
    # A retry goes on with the run that is there; it starts no second one.
    default_args={"deferrable": True, "poll_interval": 5, "retries": 2, "retry_delay": 10},
    params={
        "version": Param(
            "1.4.0",
            title="Version",
            description="What to release, such as 1.4.0.",
            type="string",
            pattern=r"^\d+\.\d+\.\d+$",
        ),
        "test_cases": Param(
            [11, 12],
            title="Eggplant: test cases",
            description="Numbers of test cases of the model Checkout.",
            type="array",
            items={"type": "integer", "minimum": 1},
            minItems=1,
        ),
        "scenario_selections": Param(
            [[f"{SCENARIO}1"], [f"{SCENARIO}2", f"{SCENARIO}3"]],
            title="Future AGI: scenario selections",
            description="A list of lists: the scenarios of each run of nightly-support-sim.",
            type="array",
            items={"type": "array", "items": {"type": "string"}, "minItems": 1},
            minItems=1,
        ),
        "projects": Param(
            [PROJECTS["smoke"], PROJECTS["smoke-git"]],
            title="Omilia: projects",
            description="Projects whose test suites must pass.",
            type="array",
            items={"type": "string", "enum": list(PROJECTS.values())},
            minItems=1,
            examples=list(PROJECTS.values()),
            values_display={project_id: name for name, project_id in PROJECTS.items()},
        ),
    },
) as dag:

    @task
    def selected(what: str, params: dict[str, Any] | None = None) -> list[Any]:
        """The form's selection, as a list to map over."""
        assert params is not None
        return list(params[what])

    checkout = EggplantStartExecutionOperator.partial(
        task_id="checkout",
        model_id="e0000000-0000-4000-8000-000000000001",
        agent={"agent_id": "1", "is_hosted_agent": True},
        asset={"asset_path": "/suites/shop"},
        map_index_template="test case {{ task.test_case_id }}",
    ).expand(test_case_id=selected.override(task_id="test_cases")("test_cases"))

    support = FutureAGIExecuteTestRunOperator.partial(
        task_id="support",
        run_test_name="nightly-support-sim",
        eval_thresholds={"task_completion": 0.9},
        map_index_template="{{ task.scenario_ids | length }} scenario(s)",
    ).expand(scenario_ids=selected.override(task_id="scenario_selections")("scenario_selections"))

    voice = OmiliaCreateRunOperator.partial(task_id="voice").expand(
        project_id=selected.override(task_id="projects")("projects")
    )

    @task
    def release(*platforms: Sequence[dict[str, Any]], params: dict[str, Any] | None = None) -> str:
        """Stands for your deployment. Its trigger rule is the default one: every run before it passed."""
        assert params is not None
        for report in (report for reports in platforms for report in reports):
            print(f"{report['platform']}: {report['passed']} of {report['total']} passed, {report['url']}")
        return f"Version {params['version']} is released."

    release(checkout.output, support.output, voice.output)
