"""The sensors in real DAGs: every mode, every ending, with and without ``soft_fail``."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from airflow.sdk import task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sensors.eggplant import EggplantExecutionSensor
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from tests.integration.dag_test.running import AirflowProcess, TaskRun, in_step, when_looked_at

pytestmark = pytest.mark.integration

#: Far longer than any machine takes to get there: the clock is put forward.
TIMEOUT = 3600.0
SMOKE = "0a000000-0000-4000-8000-000000000001"
MODES = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}
ENDINGS = ("passed", "failed", "cancelled", "timeout", "not_seen", "final_passed", "final_failed")
MATRIX = [
    (f"{ending}_{mode}{'_soft' if soft_fail else ''}", ending, mode, soft_fail)
    for ending, mode, soft_fail in itertools.product(ENDINGS, MODES, (False, True))
    if not soft_fail or ending in ("failed", "timeout", "not_seen", "final_failed")
]


def watch_all(sensors: dict[str, dict[str, Any]]) -> None:
    for task_id, arguments in sensors.items():
        OmiliaRunSensor(task_id=task_id, **{"poke_interval": 0.1, **arguments})


@pytest.fixture(scope="module")
def watched(airflow: AirflowProcess) -> tuple[dict[str, TaskRun], dict[str, dict[str, Any]]]:
    """A sensor for each line of the matrix, and the runs that they have watched, by task."""
    control = airflow.start_anew()
    sensors: dict[str, dict[str, Any]] = {}
    when_seen, deferred = {}, {}
    for task_id, ending, mode, soft_fail in MATRIX:
        is_final = ending.startswith("final_")
        wanted = ending.removeprefix("final_")
        (run_id,) = control.add_runs(
            "omilia",
            SMOKE,
            ending=wanted if wanted in ("failed", "cancelled") else "passed",
            duration=0.0 if is_final else float("inf"),
        )
        sensors[task_id] = {"run_id": run_id, "soft_fail": soft_fail, **MODES[mode]}
        if ending == "timeout" and mode == "deferrable":
            sensors[task_id]["timeout"] = TIMEOUT
            deferred[task_id] = run_id
        elif ending == "timeout":
            # Here Airflow goes by a clock that nobody puts forward. In place the first look is never too late; to be
            # rescheduled, it must come in time.
            sensors[task_id] |= {"timeout": 1.0} if mode == "poke" else {"timeout": 8.0, "poke_interval": 4.0}
        elif ending == "not_seen":
            # Seen once; then the platform does not let us look any more.
            control.fault("status", status=403, path=run_id, skip=1)
        elif not is_final:
            when_seen[run_id] = control.finish_run

    def waiting() -> list[str]:
        log = airflow.log_file.read_text()
        return [task_id for task_id, run_id in deferred.items() if f"Waiting for run {run_id} in the triggerer" in log]

    passed = 0.0

    def time_is_over() -> None:
        nonlocal passed
        del deferred[waiting()[0]]
        passed += TIMEOUT
        airflow.pass_time(passed)

    over = when_looked_at(control, when_seen)
    with in_step(*[(waiting, time_is_over)] * len(deferred)):
        tasks = airflow.run(watch_all, sensors=sensors)
    over.set()
    return tasks, {task_id: control.run(sensor["run_id"]) for task_id, sensor in sensors.items()}


@pytest.mark.parametrize(("task_id", "ending", "mode", "soft_fail"), MATRIX, ids=[line[0] for line in MATRIX])
def test_a_sensor_behaves_the_same_in_every_mode(
    watched: tuple[dict[str, TaskRun], dict[str, dict[str, Any]]],
    task_id: str,
    ending: str,
    mode: str,
    soft_fail: bool,
) -> None:
    done, run = watched[0][task_id], watched[1][task_id]
    assert done.tries == 1
    if (ending, mode) != ("not_seen", "reschedule"):
        # Airflow forgets a task's XComs with each reschedule, and the last look in that case was without a response.
        assert done.xcoms["run_id"] == run["run_id"]
        assert run["run_id"] in done.xcoms["run_url"]
        assert done.xcoms["test_run"]["run_id"] == run["run_id"]
    # It waited in the way that it was told to; for a run that is over already it did not wait at all.
    waited = not ending.startswith("final_")
    assert done.deferrals == int(waited and mode == "deferrable")
    assert ("Rescheduling task, marking task as UP_FOR_RESCHEDULE" in done.log) == (waited and mode == "reschedule")
    # A sensor never stops what it watches.
    assert run["cancelled_by"] is None

    verdict = ending.removeprefix("final_")
    if verdict == "passed":
        assert (done.state, done.errors) == ("success", [])
        assert done.result["verdict"] == "passed"
        assert (done.result["total"], done.result["passed"]) == (4, 4)
    elif verdict in ("failed", "cancelled"):
        assert done.state == ("skipped" if soft_fail else "failed")
        assert done.result["verdict"] == verdict
        if not soft_fail:
            assert done.error.kind == {"failed": "RunFailedError", "cancelled": "RunCancelledError"}[verdict]
            assert done.result["url"] in done.error.message
    elif verdict == "timeout":
        assert done.state == ("skipped" if soft_fail else "failed")
        assert "return_value" not in done.xcoms
        assert run["phase"] == "running"
        if not soft_fail:
            assert done.error.kind == "AirflowSensorTimeout"
    else:
        # Not to see a run says nothing about it.
        assert (done.state, done.error.kind) == ("failed", "PermissionDeniedError")
        assert run["run_id"] in done.error.message
        assert "return_value" not in done.xcoms


def each_platform(runs: dict[str, str]) -> None:
    for name, mode in {"poke": {}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}.items():
        EggplantExecutionSensor(
            task_id=f"eggplant_{name}", execution_id=runs[f"eggplant_{name}"], poke_interval=0.1, **mode
        )
        FutureAGITestExecutionSensor(
            task_id=f"futureagi_{name}",
            execution_id=runs[f"futureagi_{name}"],
            run_test_id="fa000000-0000-4000-8000-000000000001",
            eval_thresholds={"politeness": 0.95},
            poke_interval=0.1,
            **mode,
        )
        OmiliaRunSensor(
            task_id=f"omilia_{name}",
            run_id=runs[f"omilia_{name}"],
            project_id="0a000000-0000-4000-8000-000000000002",
            min_pass_rate=0.6,
            poke_interval=0.1,
            **mode,
        )


def test_the_sensors_of_all_platforms_judge_as_the_operators_do(airflow: AirflowProcess, platforms: Control) -> None:
    # Only this generation of the server has the id in the address of a look, which the test goes by.
    platforms.configure(eggplant_generation="executions_get")
    targets = {"eggplant": "Returns", "futureagi": "nightly-support-sim", "omilia": "regression"}
    runs = {
        f"{platform}_{mode}": platforms.add_runs(platform, target, duration=float("inf"))[0]
        for platform, target in targets.items()
        for mode in MODES
    }
    over = when_looked_at(platforms, dict.fromkeys(runs.values(), platforms.finish_run))
    tasks = airflow.run(each_platform, runs=runs)
    over.set()
    for mode in MODES:
        eggplant, futureagi, omilia = (tasks[f"{platform}_{mode}"] for platform in targets)
        assert (eggplant.state, eggplant.error.kind) == ("failed", "RunFailedError"), mode
        assert eggplant.result["raw_state"].casefold() == "failed"
        # A gate of evaluations that all calls have passed through.
        assert (futureagi.state, futureagi.error.kind) == ("failed", "RunFailedError"), mode
        assert futureagi.result["reasons"] == ["Evaluation 'politeness' is 0.92, below its gate 0.95 by 0.03."]
        # Six of nine are enough here.
        assert (omilia.state, omilia.errors) == ("success", []), mode
        assert (omilia.result["passed"], omilia.result["total"]) == (6, 9)
        for platform, done in zip(targets, (eggplant, futureagi, omilia), strict=True):
            assert done.deferrals == int(mode == "deferrable")
            assert done.result["run_id"] == done.xcoms["run_id"] == runs[f"{platform}_{mode}"]
            assert done.result["run_id"] in done.xcoms["run_url"]


def start_then_watch() -> None:
    shared = {"wait_for_completion": False}
    eggplant = EggplantStartExecutionOperator(
        task_id="start_eggplant", model_id="e0000000-0000-4000-8000-000000000001", **shared
    )
    futureagi = FutureAGIExecuteTestRunOperator(
        task_id="start_futureagi", run_test_name="nightly-support-sim", select_all=True, **shared
    )
    omilia = OmiliaCreateRunOperator.partial(task_id="start_omilia", **shared).expand(
        project_id=["0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"]
    )
    EggplantExecutionSensor(
        task_id="eggplant", execution_id=eggplant.output["run_id"], deferrable=True, poke_interval=0.1
    )
    FutureAGITestExecutionSensor(
        task_id="futureagi",
        execution_id="{{ ti.xcom_pull(task_ids='start_futureagi')['run_id'] }}",
        mode="reschedule",
        poke_interval=0.1,
    )
    futureagi >> futureagi.dag.get_task("futureagi")
    OmiliaRunSensor.partial(task_id="omilia", deferrable=True, poke_interval=0.1).expand(
        run_id=omilia.output.map(lambda started: started["run_id"])
    )


def test_a_run_is_started_by_one_task_and_watched_by_another(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=2.0)
    tasks = airflow.run(start_then_watch)
    assert {name: done.state for name, done in tasks.items()} == {
        "start_eggplant": "success",
        "start_futureagi": "success",
        "start_omilia[0]": "success",
        "start_omilia[1]": "success",
        "eggplant": "success",
        "futureagi": "success",
        "omilia[0]": "success",
        "omilia[1]": "failed",
    }
    for name in ("eggplant", "futureagi", "omilia[0]", "omilia[1]"):
        start, watch = tasks[f"start_{name}"], tasks[name]
        assert watch.result["run_id"] == start.result["run_id"]
        assert (
            watch.rendered["execution_id" if "execution_id" in watch.rendered else "run_id"] == start.result["run_id"]
        )
    assert len(platforms.runs()) == 4


def ids_that_cannot_be_right() -> None:
    FutureAGITestExecutionSensor(task_id="execution_id", execution_id="{{ 'nightly' }}", soft_fail=True)
    FutureAGITestExecutionSensor(
        task_id="run_test_id",
        execution_id="fa000000-0000-4000-8000-0000000000ee",
        run_test_id="nightly",
        deferrable=True,
    )
    OmiliaRunSensor(task_id="run_id", run_id="{{ '' }}")
    EggplantExecutionSensor(task_id="eggplant_execution_id", execution_id="{{ '' }}", deferrable=True)


def test_ids_that_cannot_be_right_are_named_before_any_request(airflow: AirflowProcess, platforms: Control) -> None:
    tasks = airflow.run(ids_that_cannot_be_right)
    for argument, done in tasks.items():
        assert (done.state, done.error.kind) == ("failed", "ConfigurationError"), argument
        assert argument.removeprefix("eggplant_") in done.error.message
    assert platforms.requests() == []


def renewing() -> None:
    @task
    def unrelated() -> None:
        pass

    unrelated() >> OmiliaRunSensor.partial(task_id="watch", poke_interval=0.1, timeout=5, never_fail=True).expand(
        run_id=["11111111-1111-4111-8111-111111111111"]
    )


def test_never_fail_skips_whatever_happens(airflow: AirflowProcess, platforms: Control) -> None:
    # With never_fail Airflow skips on any error, and so do these sensors.
    platforms.fault("status", status=403, operation="omilia.get_run")
    assert airflow.run(renewing)["watch[0]"].state == "skipped"
