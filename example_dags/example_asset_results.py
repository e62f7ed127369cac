"""
### Results that travel with an asset

Two DAGs that know nothing of each other but an asset. This one runs the voice tests; when they pass the asset has an
event, which carries the result: platform, run, verdict, counts, pass rate and link. When they fail there is none.

`example_asset_results_release` is scheduled on the asset and reads the result from the event that triggered it.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, Param, task

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

voice_tests = Asset("voice-tests-passed")

with DAG(
    dag_id="example_asset_results",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "omilia", "ends: passed"],
    params={
        "known_failures": Param(
            ["transfer_*"],
            title="Known failures",
            description="Names or patterns of test cases that may fail until they are repaired.",
            type="array",
            items={"type": "string"},
        ),
    },
    # The list of the form reaches the operator as a list, not as text.
    render_template_as_native_obj=True,
) as dag:
    OmiliaCreateRunOperator(
        task_id="voice_tests",
        project_id="0a000000-0000-4000-8000-000000000001",
        allowed_failures="{{ params.known_failures }}",
        outlets=[voice_tests],
        deferrable=True,
        poll_interval=5,
        retries=2,
        retry_delay=10,
    )

with DAG(
    dag_id="example_asset_results_release",
    schedule=[voice_tests],
    doc_md="Runs whenever the voice tests have passed, with their result: see `example_asset_results`.",
    tags=["example", "omilia"],
) as release_dag:

    @task
    def release(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Stands for your deployment. Several runs may have passed since it ran last."""
        results = [event.extra for events in triggering_asset_events.values() for event in events]
        for result in results:
            print(f"{result['passed']} of {result['total']} passed ({result['pass_rate']:.0%}): {result['url']}")
        return results

    release()
