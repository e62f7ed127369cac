"""Results that leave their DAG, under a real scheduler and triggerer: by an asset, by lineage, by a notifier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.airflow import LocalAirflow
from tests.e2e.conftest import SharedAirflow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

TESTS, RELEASE, FAILING = "example_asset_results", "example_asset_results_release", "example_failing_tests"


@dataclass
class World:
    """Airflow when all is over, and the events that its OpenLineage provider has written."""

    airflow: LocalAirflow
    dag_runs: dict[str, str]
    lineage: Path

    def events(self, dag_id: str, task_id: str, kind: str) -> list[dict[str, Any]]:
        """The OpenLineage events of a task, of one kind."""
        found = [json.loads(line) for line in self.lineage.read_text().splitlines()]
        return [event for event in found if (event["job"]["name"], event["eventType"]) == (f"{dag_id}.{task_id}", kind)]

    def report(self, dag_id: str, task_id: str) -> Any:
        """What a task returned."""
        return self.airflow.api.xcom(dag_id, self.dag_runs[dag_id], task_id)


@pytest.fixture(scope="module")
def world(shared: SharedAirflow) -> World:
    airflow = shared.airflow
    airflow.wait_for_dags([TESTS, RELEASE, FAILING])
    dag_runs = {dag_id: shared.dag_run(dag_id) for dag_id in (TESTS, FAILING)}
    for dag_id, run_id in dag_runs.items():
        airflow.wait_for_run(dag_id, run_id)

    # Nobody triggers this one but the asset.
    def released() -> bool:
        dag_runs.update(
            {run["dag_id"]: run["dag_run_id"] for run in airflow.api.all_dag_runs() if run["dag_id"] == RELEASE}
        )
        return RELEASE in dag_runs

    wait_until(released, "the asset's event has triggered a DAG", every=0.5)
    airflow.wait_for_run(RELEASE, dag_runs[RELEASE])
    return World(airflow, dag_runs, shared.lineage)


def test_a_dag_that_an_asset_triggers_reads_the_result_from_its_event(world: World) -> None:
    run = world.airflow.api.dag_run(RELEASE, world.dag_runs[RELEASE])
    assert (run["run_type"], run["state"]) == ("asset_triggered", "success")
    report = world.report(TESTS, "voice_tests")
    assert report["verdict"] == "passed"
    names = ("platform", "run_id", "url", "raw_state", "verdict", "total", "passed", "failed", "unavailable", "not_run")
    expected = {name: report[name] for name in (*names, "pass_rate")}
    assert world.report(RELEASE, "release") == [{**expected, "state": "finished"}]
    said = [line.get("event") for line in world.airflow.api.log(RELEASE, world.dag_runs[RELEASE], "release")]
    assert f"{report['passed']} of {report['total']} passed (100%): {report['url']}" in said


def test_lineage_has_the_tests_of_a_run_that_was_waited_for_in_the_triggerer(world: World) -> None:
    for dag_id, task_id, kind, status in (
        (TESTS, "voice_tests", "COMPLETE", "pass"),
        (FAILING, "run_regression", "FAIL", "fail"),
    ):
        report = world.report(dag_id, task_id)
        events = world.events(dag_id, task_id, kind)
        assert len(events) == 1
        run, *cases = events[0]["run"]["facets"]["test"]["tests"]
        assert (run["name"], run["status"], run["actual"]) == (report["run_id"], status, report["verdict"])
        assert len(cases) == report["total"]
        assert sum(case["status"] == "pass" for case in cases) == report["passed"]
        assert [case["name"] for case in cases if case["status"] == "fail"] == [
            case["name"] for case in report["failures"]
        ]
    assert "errorMessage" in world.events(FAILING, "run_regression", "FAIL")[0]["run"]["facets"]


def test_a_notifier_reads_the_report_of_the_task_that_failed(world: World) -> None:
    log = world.airflow.api.log(FAILING, world.dag_runs[FAILING], "run_regression")
    told = [str(line.get("event")) for line in log if str(line.get("event")).startswith("Notification:")]
    report = world.report(FAILING, "run_regression")
    assert len(told) == 1
    assert told[0].splitlines()[1:] == [
        f"omilia tests failed: 6 of 9 passed, {report['url']}",
        *(f"* {case['name']}: {case['message']}" for case in report["failures"]),
    ]


def test_a_run_that_somebody_else_started_has_an_event_and_the_dag_that_follows_reads_it(
    shared: SharedAirflow, world: World
) -> None:
    following, project = "example_finished_runs", "0a000000-0000-4000-8000-000000000005"
    control, api = shared.examples.control, world.airflow.api

    def polls() -> int:
        return sum(project in seen.path for seen in control.requests("omilia.list_project_runs"))

    # Whatever has finished at the first poll is noted and has no event.
    wait_until(lambda: polls() >= 1, "the project is watched", every=0.5)
    (run_id,) = control.add_runs("omilia", project, ending="failed", duration=1.0)

    def told() -> list[Any]:
        runs = [run for run in api.all_dag_runs() if (run["dag_id"], run["run_type"]) == (following, "asset_triggered")]
        found = [api.xcom(following, run["dag_run_id"], "follow_up") or {} for run in runs]
        return [verdicts[run_id] for verdicts in found if run_id in verdicts]

    wait_until(lambda: told() != [], "the DAG has read the event", every=1.0)
    assert told() == ["failed"]
