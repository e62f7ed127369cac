"""Eggplant's further operators and its progress sensor in real DAGs, and the example of a nightly run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[3] / "example_dags" / "example_eggplant_nightly.py"
EMPTY = "e0000000-0000-4000-8000-000000000004"


def aborted() -> None:
    from airflow_provider_testruns.operators.eggplant import EggplantAbortExecutionOperator
    from airflow_provider_testruns.sensors.eggplant import EggplantRunProgressSensor

    slow = EggplantStartExecutionOperator(
        task_id="slow", model_id="e0000000-0000-4000-8000-000000000002", wait_for_completion=False
    )
    run_id = slow.output["run_id"]
    abort = EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id, poll_interval=0.1)
    again = EggplantAbortExecutionOperator(task_id="again", execution_id=run_id, poll_interval=0.1)
    watched = EggplantRunProgressSensor(
        task_id="watched", run_id=run_id, poke_interval=0.1, timeout=600, soft_fail=True
    )
    abort >> again >> watched


def test_a_run_is_aborted_and_once_more(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.set_target("eggplant", "Returns", duration=60)
    tasks = airflow.run(aborted)
    assert {name: done.state for name, done in tasks.items()} == {
        "slow": "success",
        "abort": "success",
        "again": "success",
        "watched": "skipped",
    }
    (run,) = platforms.runs("eggplant")
    assert run["phase"] == "cancelled"
    abort, again = tasks["abort"], tasks["again"]
    assert abort.result == again.result
    assert abort.result["run_id"] == run["run_id"] == abort.rendered["execution_id"]
    assert abort.result["verdict"] == "cancelled"
    assert abort.xcoms["run_url"] == abort.result["url"] == tasks["slow"].xcoms["run_url"]
    assert f"Run {run['run_id']} has finished as Cancelled: it was stopped." in abort.lines
    assert f"Run {run['run_id']} has already finished as Cancelled: nothing to stop." in again.lines
    assert platforms.count("eggplant.abort_execution") == 1
    assert tasks["watched"].xcoms["return_value"]["verdict"] == "cancelled"


def model(**shared: Any) -> None:
    from airflow_provider_testruns.sensors.eggplant import EggplantRunProgressSensor

    start = EggplantStartExecutionOperator(
        task_id="start", model_id="e0000000-0000-4000-8000-000000000004", wait_for_completion=False
    )
    start >> EggplantRunProgressSensor(
        task_id="watched", model_name="{{ 'Empty' }}", poke_interval=0.1, timeout=600, **shared
    )


@contextmanager
def ends_after_two_looks(platforms: Control) -> Iterator[None]:
    """The run that the DAG starts ends when it was looked at twice, however long the DAG takes."""
    over = threading.Event()

    def watch() -> None:
        before: int | None = None
        while not over.wait(0.02):
            started = [run for run in platforms.runs("eggplant") if run["finished"] is None]
            if started and before is None:
                before = platforms.count("eggplant.run_progress")
            if before is not None and platforms.count("eggplant.run_progress") >= before + 2:
                platforms.finish_run(started[0]["run_id"])
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])
def test_the_runs_of_a_model_are_watched(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    platforms.set_target("eggplant", EMPTY, duration=60)
    platforms.add_runs("eggplant", EMPTY, age=3600, duration=1, ending="failed")
    platforms.add_runs("eggplant", EMPTY, age=60, duration=1)
    with ends_after_two_looks(platforms):
        passed = airflow.run(model, deferrable=deferrable, limit="{{ 2 }}")["watched"]
    ids = [run["run_id"] for run in platforms.runs("eggplant")]
    assert (passed.state, passed.deferrals) == ("success", int(deferrable)), passed.errors
    found = passed.xcoms["return_value"]
    assert [(run["run_id"], run["verdict"]) for run in found] == [(ids[2], "passed"), (ids[1], "passed")]
    with ends_after_two_looks(platforms):
        failed = airflow.run(model, deferrable=deferrable)["watched"]
    assert (failed.state, failed.error.kind) == ("failed", "RunFailedError")
    assert "Of 4 runs of model Empty, 3 passed: 1 failed." in failed.error.message
    assert [run["verdict"] for run in failed.xcoms["return_value"]] == ["passed"] * 3 + ["failed"]


def configurations(folder: str) -> None:
    from airflow_provider_testruns.operators.eggplant import EggplantStartTestConfigurationOperator

    EggplantStartTestConfigurationOperator.partial(
        task_id="nightly",
        deferrable=True,
        poll_interval=0.1,
        artifacts_path=folder + "/{{ task.test_config_id }}",
    ).expand(test_config_id=["e0000000-0000-4000-8000-000000000011", "e0000000-0000-4000-8000-000000000012"])


def test_test_configurations_are_mapped_and_their_files_are_kept(
    airflow: AirflowProcess, platforms: Control, tmp_path: Path
) -> None:
    tasks = airflow.run(configurations, folder=str(tmp_path))
    assert {name: done.state for name, done in tasks.items()} == {"nightly[0]": "success", "nightly[1]": "failed"}
    failed = tasks["nightly[1]"]
    assert failed.error.kind == "RunFailedError"
    assert "Return without receipt: " in failed.error.message
    assert failed.result["passed"] == 3
    assert failed.record is not None
    assert (failed.record["phase"], failed.record["verdict"]) == ("judged", "failed")
    for done in tasks.values():
        files = {Path(path) for path in done.xcoms["artifacts"]}
        assert files == set((tmp_path / done.rendered["test_config_id"]).iterdir())
        assert f"{done.result['run_id']}_junit.xml" in {path.name for path in files}


def test_the_nightly_example(airflow: AirflowProcess, platforms: Control) -> None:
    tasks = airflow.run_file(EXAMPLE.read_text(), "example_eggplant_nightly")
    assert {name: done.state for name, done in tasks.items()} == dict.fromkeys(
        ("selected", "run_model[0]", "run_model[1]", "summary"), "success"
    )
    assert "2 of 2 models passed." in tasks["summary"].log
    assert tasks["run_model[0]"].rendered["sut"] == {"criteria": ["shop", "nightly"]}
    assert {run["target_name"] for run in platforms.runs("eggplant")} == {"Checkout", "Empty"}
    # One that fails is told of, and fails the DAG run.
    source = EXAMPLE.read_text().replace('["Checkout", "Empty"],', '["Returns", "Checkout"],')
    tasks = airflow.run_file(source.replace("example_eggplant_nightly", "nightly_failing"), "nightly_failing")
    assert [tasks[f"run_model[{index}]"].state for index in (0, 1)] == ["failed", "success"]
    assert (tasks["summary"].state, tasks["summary"].error.message) == ("failed", "Not all models passed.")
    assert "1 of 2 models passed." in tasks["summary"].log
    assert "failed: 0 of 1, http" in tasks["summary"].log
