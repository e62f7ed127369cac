"""
### Models on Eggplant DAI, every night

One run for each model, on a system under test that carries all tags of the form (`sut.criteria`). A system under test
takes so many runs at once and no more, so the runs go through an Airflow pool, which has to be made once:

    airflow pools set --include-deferred eggplant_shop 1 "Runs on the shop's systems under test"

`--include-deferred` is what makes it hold: the runs wait in the triggerer, and only such a pool counts them there.

The summary comes however the runs end, and fails the DAG run when a model did not pass.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator

MODELS = {
    "Checkout": "e0000000-0000-4000-8000-000000000001",
    "Returns": "e0000000-0000-4000-8000-000000000002",
    "Empty": "e0000000-0000-4000-8000-000000000004",
}

with DAG(
    dag_id="example_eggplant_nightly",
    # For every night at one: schedule="0 1 * * *". The examples are triggered by hand.
    schedule=None,
    # Two nights at once would be in each other's way.
    max_active_runs=1,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "eggplant", "ends: passed"],
    # Lists and objects of the form reach the operator as such, not as text.
    render_template_as_native_obj=True,
    params={
        "models": Param(
            ["Checkout", "Empty"],
            title="Models",
            description="What to run. Returns has a test that fails.",
            type="array",
            items={"type": "string", "enum": list(MODELS)},
            minItems=1,
            examples=list(MODELS),
        ),
        "sut_tags": Param(
            ["shop", "nightly"],
            title="Tags of the system under test",
            description="DAI runs the models on a system under test that has all of them.",
            type="array",
            items={"type": "string", "minLength": 1},
            minItems=1,
        ),
    },
) as dag:

    @task
    def selected(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """The arguments of each run."""
        assert params is not None
        # With its name a model's run is found again when the response to its start was lost.
        return [{"model_id": MODELS[name], "model_name": name} for name in params["models"]]

    models = selected()

    run_model = EggplantStartExecutionOperator.partial(
        task_id="run_model",
        agent={"agent_id": "1", "is_hosted_agent": True},
        asset={"asset_path": "/suites/shop"},
        require_assets=True,
        sut={"criteria": "{{ params.sut_tags }}"},
        pool="eggplant_shop",
        deferrable=True,
        poll_interval=5,
        timeout=timedelta(hours=4),
        # For an agent or a server that is not there for a while. A retry goes on with the run that is there, and tests
        # that failed are not run again.
        retries=2,
        retry_delay=timedelta(seconds=10),
        retry_failed_runs=False,
        map_index_template="{{ task.model_name }}",
    ).expand_kwargs(models)

    @task(trigger_rule="all_done")
    def summary(models: Sequence[dict[str, str]], reports: Sequence[dict[str, Any]]) -> None:
        """Stands for your mail. A run has a report unless it could not be started or seen."""
        for report in reports:
            print(f"{report['verdict']}: {report['passed']} of {report['total']}, {report['url']}")
        passed = sum(report["verdict"] == "passed" for report in reports)
        print(f"{passed} of {len(models)} models passed.")
        if passed < len(models):
            # Without this the DAG run would succeed: Airflow goes by its last task.
            raise RuntimeError("Not all models passed.")

    summary(models, run_model.output)
