"""Runs in a row, with known changes, each compared with the one before: whole DAGs, mapped tasks, in one Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess, TaskRun

pytestmark = pytest.mark.integration

_DAG = """
import datetime

from airflow.sdk import DAG, Asset

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

SMOKE, REGRESSION = (f"0a000000-0000-4000-8000-00000000000{n}" for n in (1, 2))

with DAG("compared", schedule=None, params={"known": "block_stolen_card_abroad"}) as dag:
    suites = OmiliaCreateRunOperator.partial(
        task_id="suite",
        compare_with="previous",
        max_new_failures=0,
        junit_path="FOLDER/{{ ti.map_index }}.xml",
        outlets=[Asset("suites")],
        poll_interval=0.1,
        deferrable=True,
    ).expand_kwargs(
        [
            {"project_id": SMOKE, "allowed_failures": [
                {"name": "{{ params.known }}", "until": datetime.date(2999, 12, 31), "why": "PAY-1"},
            ]},
            {"project_id": REGRESSION},
        ]
    )
    watched = OmiliaRunSensor(
        task_id="watched",
        run_id="{{ ti.xcom_pull(task_ids='suite', key='run_id', map_indexes=0) }}",
        compare_with="last_passed",
        max_new_failures=0,
        allowed_failures=["block_stolen_card_abroad"],
        poke_interval=0.1,
        trigger_rule="all_done",
    )
    suites >> watched
"""


@pytest.fixture
def compared(airflow: AirflowProcess, platforms: Control, tmp_path: Any) -> Any:
    """Takes the DAG through a run whose cases fail as ordered: those of each suite."""

    def run(smoke: list[str], regression: list[str], **arguments: Any) -> dict[str, TaskRun]:
        platforms.set_target("omilia", "smoke", failing=smoke)
        platforms.set_target("omilia", "regression", failing=regression)
        return airflow.run_file(_DAG.replace("FOLDER", str(tmp_path)), "compared", arguments=arguments)

    return run


def _named(report: dict[str, Any], *fields: str) -> tuple[str, ...]:
    return tuple(" ".join(sorted(case["name"] for case in report[field])) for field in fields)


_CHANGES = ("new_failures", "still_failing", "fixed")


def test_runs_in_a_row(compared: Any, tmp_path: Any) -> None:
    known = "block_stolen_card_abroad"
    first = compared([known], ["greeting_known_caller"])
    assert first["suite[0]"].state == "success"
    assert first["suite[0]"].result["baseline"] is None
    assert first["suite[1]"].error.message.startswith(
        f"Run {first['suite[1]'].result['run_id']} failed. 1 new failure (all count as new without a baseline)"
    )
    assert first["watched"].state == "success"

    # A DAG run without a logical date, as one that an asset has triggered.
    second = compared([known, "balance_savings"], ["greeting_known_caller"], logical_date=None)
    smoke, regression = second["suite[0]"], second["suite[1]"]
    assert _named(smoke.result, *_CHANGES) == ("balance_savings", "", "")
    assert smoke.result["baseline"]["run_id"] == first["suite[0]"].result["run_id"]
    assert "1 new failure of 3 test cases: max_new_failures is 0." in smoke.error.message
    assert (regression.state, _named(regression.result, *_CHANGES)) == ("success", ("", "greeting_known_caller", ""))
    assert "1 new failure" in second["watched"].error.message
    text = (tmp_path / "0.xml").read_text()
    assert 'name="new_failures.1" value="balance_savings"' in text

    third = compared([], [])
    smoke, regression, watched = third["suite[0]"], third["suite[1]"], third["watched"]
    assert smoke.result["baseline"]["run_id"] == second["suite[0]"].result["run_id"]
    assert _named(smoke.result, *_CHANGES) == ("", "", f"balance_savings {known}")
    assert _named(regression.result, *_CHANGES) == ("", "", "greeting_known_caller")
    # It passed, failed and passed.
    assert _named(smoke.result, "flaky") == ("balance_savings",)
    assert "<flakyFailure" in (tmp_path / "0.xml").read_text()
    assert "Flaky, by the last runs: balance_savings." in smoke.log
    # The last run that passed, of the sensor, is the first one.
    assert watched.result["baseline"]["run_id"] == first["suite[0]"].result["run_id"]
    assert _named(watched.result, *_CHANGES) == ("", "", known)
