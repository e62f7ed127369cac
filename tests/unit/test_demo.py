"""The demo's judgement of its DAG runs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from demo.airflow import COMPONENTS, LocalAirflow
from demo.results import RunEnd, TaskEnd, expected_end, table, task_name

pytestmark = pytest.mark.unit


def task(name: str, state: str, verdict: str = "", **report: Any) -> TaskEnd:
    found = {"verdict": verdict, "platform": "omilia", **report} if verdict else {}
    return TaskEnd(name, state, found, "http://127.0.0.1/run" if verdict else "", "")


PASSED = task("run", "success", "passed", passed=4, failed=0, unavailable=0)
FAILED = task("run", "failed", "failed", passed=6, failed=2, unavailable=1)
SHOWN = task("show", "success")
NOT_REACHED = task("release", "upstream_failed")


@pytest.mark.parametrize(
    ("expected", "state", "tasks", "surprise"),
    [
        ("passed", "success", (PASSED, SHOWN), ""),
        ("passed", "success", (SHOWN,), "without a single report"),
        ("passed", "failed", (FAILED, NOT_REACHED), "ended as failed"),
        ("passed", "running", (PASSED,), "ended as running"),
        # A run that failed and yet did not fail its task would be a fault of the provider.
        ("passed", "success", (PASSED, task("other", "success", "failed")), "not passed: other"),
        ("passed", "success", (PASSED, task("other", "skipped")), "not passed: other"),
        ("failed", "failed", (FAILED, SHOWN, NOT_REACHED), ""),
        ("failed", "success", (PASSED,), "expected was a failed one"),
        # The platform could not be asked, or could not run the tests: that is not the failure that is to be shown.
        ("failed", "failed", (task("run", "failed"), NOT_REACHED), "without a single report"),
        ("failed", "failed", (task("run", "failed", "errored"),), "no test run was judged as failed"),
        ("failed", "failed", (FAILED, task("tell", "failed")), "failed for another reason: tell"),
        ("no runs of its own", "success", (SHOWN,), ""),
        ("no runs of its own", "success", (PASSED, SHOWN), "with a report: run"),
        ("no runs of its own", "failed", (SHOWN,), "failed, or with a report"),
    ],
)
def test_surprise(expected: str, state: str, tasks: tuple[TaskEnd, ...], surprise: str) -> None:
    said = RunEnd("example", expected, state, tasks).surprise
    assert surprise in said
    assert bool(said) == bool(surprise)


def test_dag_without_an_expected_end_is_refused() -> None:
    with pytest.raises(ValueError, match="example_x must have one tag"):
        expected_end({"dag_id": "example_x", "tags": [{"name": "example"}]})


def test_table_shows_every_task_with_its_counts() -> None:
    lines = table(
        [RunEnd("example_a", "passed", "success", (PASSED, SHOWN)), RunEnd("example_b", "failed", "failed", (FAILED,))]
    ).splitlines()
    assert lines[0].split() == ["DAG", "task", "platform", "state", "passed", "failed", "unavailable", "link"]
    assert [line.split() for line in lines[2:]] == [
        ["example_a", "run", "omilia", "success", "4", "0", "0", "http://127.0.0.1/run"],
        ["show", "-", "success", "-", "-", "-", "-"],
        ["example_b", "run", "omilia", "failed", "6", "2", "1", "http://127.0.0.1/run"],
    ]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"task_id": "run", "map_index": -1}, "run"),
        ({"task_id": "run", "map_index": 0, "rendered_map_index": None}, "run[0]"),
        ({"task_id": "run", "map_index": 1, "rendered_map_index": "1"}, "run[1]"),
        ({"task_id": "run", "map_index": 1, "rendered_map_index": "smoke"}, "run[1] smoke"),
    ],
)
def test_task_name(found: dict[str, Any], name: str) -> None:
    assert task_name(found) == name


def test_a_sign_of_life_is_given_while_airflow_starts(tmp_path: Path, mocker: Any) -> None:
    now, said = 0.0, []

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    mocker.patch("demo.airflow.time").monotonic.side_effect = lambda: now
    mocker.patch("demo.airflow.free_port", return_value=1)
    airflow = LocalAirflow(
        tmp_path, dags=tmp_path, connections={}, say=lambda line: said.append((now, line)), pause=pause
    )
    airflow._children = {name: mocker.Mock(exit_code=None) for name in COMPONENTS}
    mocker.patch.object(airflow, "_healthy", side_effect=lambda: set(COMPONENTS) if now >= 100 else {"scheduler"})
    airflow.wait_until_healthy()
    moments = [0.0, *(moment for moment, _ in said), 100.0]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) <= 16
    assert (0.0, "scheduler is up") in said
    assert said[1][1] == "Waiting for api-server, triggerer, dag-processor"
