"""What a second try, a lost response or the end of the time does with the run on the platform."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.harness.waiting import wait_until
from tests.integration.dag_test.running import AirflowProcess, TaskRun, in_step

pytestmark = pytest.mark.integration

MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])
#: Far longer than any machine takes to get there: the clock is put forward.
TIMEOUT = 600.0
START = {"eggplant": "eggplant.start_execution", "futureagi": "futureagi.execute", "omilia": "omilia.create_run"}


def one_of_each(**shared: Any) -> None:
    shared = {"poll_interval": 0.1, "retry_delay": timedelta(0), **shared}
    EggplantStartExecutionOperator(task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000001", **shared)
    FutureAGIExecuteTestRunOperator(
        task_id="futureagi", run_test_id="fa000000-0000-4000-8000-000000000001", select_all=True, **shared
    )
    OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000001", **shared)


def one(**shared: Any) -> None:
    shared = {"poll_interval": 0.1, "retry_delay": timedelta(0), **shared}
    OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000001", **shared)


def starts(platforms: Control) -> dict[str, int]:
    return {name: platforms.count(operation) for name, operation in START.items()}


def is_waited_for(airflow: AirflowProcess, platform: str, deferrable: bool) -> bool:
    """Whether the newest run of a platform is waited for: in the triggerer, or by a worker that polls it."""
    runs = airflow.platforms.runs(platform)
    if not runs:
        return False
    if deferrable:
        return f"Waiting for run {runs[-1]['run_id']} in the triggerer" in airflow.log_file.read_text()
    polls = {
        "eggplant": ("eggplant.run_progress",),
        "futureagi": ("futureagi.metrics", "futureagi.list_executions"),
        "omilia": ("omilia.get_run",),
    }
    # Before a start the newest run is asked for, and after it the run is polled once.
    return sum(airflow.platforms.count(operation) for operation in polls[platform]) > 3


def finish(platforms: Control) -> None:
    """End the run of Omilia."""
    platforms.finish_run(platforms.runs("omilia")[-1]["run_id"])


def is_resumed(airflow: AirflowProcess) -> bool:
    """Whether a second try waits for the run of the first."""
    (run,) = airflow.platforms.runs("omilia")
    return f"Run {run['run_id']} was started by an earlier try: waiting for it" in airflow.log_file.read_text()


# A lost response


@MODES
def test_a_run_whose_start_got_no_response_is_adopted(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    platforms.fault("drop", operation=START["eggplant"], when="after", times=1)
    platforms.fault("status", status=500, operation=START["futureagi"], when="after", times=1)
    platforms.fault("status", status=503, operation=START["omilia"], when="after", times=1)
    tasks = airflow.run(one_of_each, deferrable=deferrable)
    runs = {run["platform"]: run["run_id"] for run in platforms.runs()}
    assert len(platforms.runs()) == 3
    assert starts(platforms) == {"eggplant": 1, "futureagi": 1, "omilia": 1}
    for platform, done in tasks.items():
        assert (done.state, done.tries) == ("success", 1), done.errors
        assert done.result["run_id"] == runs[platform]
        assert f"Adopted run {runs[platform]}, whose start response was lost." in done.lines


def test_adoption_can_be_forbidden(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.fault("drop", operation=START["omilia"], when="after", times=1)
    done = airflow.run(one, adopt_lost_start=False, retries=1)["omilia"]
    (run,) = platforms.runs()
    assert (done.state, done.tries) == ("failed", 2)
    # The second try finds the same run, and starts no other.
    assert [error.kind for error in done.errors] == ["StartOutcomeUnknownError"] * 2
    assert all(run["run_id"] in error.message for error in done.errors)
    assert starts(platforms)["omilia"] == 1


def script(**shared: Any) -> None:
    EggplantStartExecutionOperator(
        task_id="script", script="smoke.suite", retries=1, retry_delay=timedelta(0), **shared
    )


def test_a_lost_start_that_cannot_be_looked_up_is_never_repeated(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.fault("drop", operation=START["eggplant"], when="after", times=1)
    done = airflow.run(script, deferrable=True)["script"]
    assert (done.state, done.tries) == ("failed", 2)
    assert [error.kind for error in done.errors] == ["StartOutcomeUnknownError"] * 2
    assert all("it can't be looked up" in error.message for error in done.errors)
    assert len(platforms.runs()) == 1


def test_a_start_that_provably_did_nothing_is_sent_again(airflow: AirflowProcess, platforms: Control) -> None:
    busy = {"detail": "Failed to publish to RabbitMQ"}
    platforms.fault("status", status=503, body=busy, operation=START["eggplant"], times=1)
    platforms.fault("status", status=429, headers={"Retry-After": "1"}, operation=START["futureagi"], times=1)
    platforms.fault("status", status=429, operation=START["omilia"], times=1)
    tasks = airflow.run(one_of_each)
    assert [(done.state, done.tries) for done in tasks.values()] == [("success", 1)] * 3
    assert starts(platforms) == {"eggplant": 2, "futureagi": 2, "omilia": 2}
    assert len(platforms.runs()) == 3
    assert all("Nothing was started; trying again in" in done.log for done in tasks.values())


# Tries after the start


def refuse_one_look(platforms: Control) -> None:
    # The first look at each run is answered, the next one is not.
    platforms.fault("status", status=403, operation="omilia.get_run", skip=1, times=1)
    platforms.fault("status", status=403, operation="futureagi.metrics", skip=1, times=1)
    platforms.fault("status", status=403, operation="futureagi.list_executions", skip=1, times=1)
    # One request more: before a start, the newest run of the model is asked for.
    platforms.fault("status", status=403, operation="eggplant.run_progress", skip=2, times=1)


@MODES
def test_a_second_try_goes_on_with_the_run(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    refuse_one_look(platforms)
    tasks = airflow.run(one_of_each, deferrable=deferrable, retries=1)
    runs = {run["platform"]: run["run_id"] for run in platforms.runs()}
    assert starts(platforms) == {"eggplant": 1, "futureagi": 1, "omilia": 1}
    for platform, done in tasks.items():
        assert (done.state, done.tries) == ("success", 2), (platform, done.errors)
        assert done.error.kind == "PermissionDeniedError"
        assert done.result["run_id"] == runs[platform]
        # Airflow forgets a try's XComs when the next one starts: they are there again.
        assert done.xcoms["run_id"] == runs[platform]
        assert runs[platform] in done.xcoms["run_url"]
        assert f"Run {runs[platform]} was started by an earlier try: waiting for it, no new start." in done.lines


@MODES
def test_a_second_try_judges_what_the_first_could_not(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    platforms.plan_next("omilia", ending="failed")
    platforms.fault("status", status=403, operation="omilia.run_stats", times=1)
    done = airflow.run(one, deferrable=deferrable, retries=1)["omilia"]
    assert [error.kind for error in done.errors] == ["PermissionDeniedError", "RunFailedError"]
    assert done.result["verdict"] == "failed"
    assert len(platforms.runs()) == 1


@MODES
def test_without_a_record_a_second_try_starts_again(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    refuse_one_look(platforms)
    done = airflow.run(one, deferrable=deferrable, retries=1, durable=False)["omilia"]
    assert (done.state, done.tries) == ("success", 2)
    assert done.record is None
    assert starts(platforms)["omilia"] == 2


@MODES
def test_a_run_that_failed_is_followed_by_a_new_one(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    for platform in START:
        platforms.plan_next(platform, ending="errored" if platform == "futureagi" else "failed")
    tasks = airflow.run(one_of_each, deferrable=deferrable, retries=2)
    for platform, done in tasks.items():
        first, second = platforms.runs(platform)
        assert (done.state, done.tries) == ("success", 2)
        assert done.error.kind == ("RunErroredError" if platform == "futureagi" else "RunFailedError")
        assert first["run_id"] in done.error.message
        assert done.result["run_id"] == second["run_id"]
        assert done.record is not None
        assert done.record["run"]["run_id"] == second["run_id"]
        assert any(line.startswith(f"Run {first['run_id']} of an earlier try ended as ") for line in done.lines)


@MODES
def test_a_failed_verdict_can_end_the_task_at_once(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    for platform in ("eggplant", "futureagi"):
        platforms.plan_next(platform, ending="failed")
    # That a platform could not run the tests is worth another try all the same.
    platforms.plan_next("omilia", ending="errored")
    tasks = airflow.run(one_of_each, deferrable=deferrable, retries=2, retry_failed_runs=False)
    for platform in ("eggplant", "futureagi"):
        done = tasks[platform]
        assert (done.state, done.tries) == ("failed", 1)
        assert done.errors[0].kind == "AirflowFailException"
        assert done.result["verdict"] == "failed"
        assert done.result["run_id"] in done.errors[0].message
        assert starts(platforms)[platform] == 1
    assert (tasks["omilia"].state, tasks["omilia"].tries) == ("success", 2)
    assert starts(platforms)["omilia"] == 2


def stumbling_after_the_verdict(**shared: Any) -> None:
    def stumble(context: Any, result: Any = None) -> None:
        if context["ti"].try_number == 1:
            raise OSError("something else went wrong")

    OmiliaCreateRunOperator(
        task_id="omilia",
        project_id="0a000000-0000-4000-8000-000000000001",
        poll_interval=0.1,
        retries=1,
        retry_delay=timedelta(0),
        post_execute=stumble,
        **shared,
    )


@MODES
def test_a_run_that_has_passed_is_not_started_again(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    done = airflow.run(stumbling_after_the_verdict, deferrable=deferrable)["omilia"]
    (run,) = platforms.runs()
    assert (done.state, done.tries) == ("success", 2)
    assert done.error.kind == "OSError"
    assert f"Run {run['run_id']} passed in an earlier try; not starting it again." in done.lines
    assert done.result["verdict"] == "passed"


@MODES
def test_a_run_that_is_gone_is_followed_by_a_new_one(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    platforms.fault("status", status=403, operation="omilia.get_run", skip=1, times=1)
    # Passes over the request that the fault above strikes.
    platforms.fault("status", status=404, operation="omilia.get_run", skip=1, times=1)
    done = airflow.run(one, deferrable=deferrable, retries=1)["omilia"]
    first, second = platforms.runs()
    assert (done.state, done.tries) == ("success", 2)
    assert any(
        line.startswith(f"Run {first['run_id']} no longer exists on the platform; starting") for line in done.lines
    )
    assert done.result["run_id"] == second["run_id"]


# The end of the time


@MODES
def test_a_run_is_cancelled_when_its_time_is_over(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    platforms.configure(run_seconds=float("inf"))
    cancels = {
        "eggplant": "eggplant.abort_execution",
        "futureagi": "futureagi.cancel_execution",
        "omilia": "omilia.revoke_run",
    }
    left, passed = list(cancels), 0.0

    def waited_for() -> list[str]:
        return [platform for platform in left if is_waited_for(airflow, platform, deferrable)]

    def time_is_over() -> None:
        nonlocal passed
        left.remove(waited_for()[0])
        passed += TIMEOUT
        airflow.pass_time(passed)

    with in_step(*[(waited_for, time_is_over)] * len(left)):
        tasks = airflow.run(one_of_each, deferrable=deferrable, timeout=TIMEOUT)
    for platform, done in tasks.items():
        (run,) = platforms.runs(platform)
        assert done.state == "failed"
        assert done.deferrals == int(deferrable)
        assert run["cancelled_by"] == cancels[platform]
        assert run["phase"] == "cancelled"
        assert done.error.kind == "RunTimeoutError"
        assert f"Run {run['run_id']} did not finish within the timeout ({TIMEOUT:g} s)" in done.error.message
        assert "It has ended as" in done.error.message
        assert done.xcoms["run_url"] in done.error.message
        assert "return_value" not in done.xcoms
    # Future AGI counts its calls.
    assert re.search(r"timeout \([\d.]+ s\): \w+, \d/5\. ", tasks["futureagi"].error.message)


@MODES
def test_after_a_cancel_the_next_try_starts_anew(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    platforms.plan_next("omilia", duration=float("inf"))
    with in_step((lambda: is_waited_for(airflow, "omilia", deferrable), lambda: airflow.pass_time(TIMEOUT))):
        done = airflow.run(one, deferrable=deferrable, timeout=timedelta(seconds=TIMEOUT), retries=1)["omilia"]
    first, second = platforms.runs()
    assert (done.state, done.tries) == ("success", 2)
    assert done.error.kind == "RunTimeoutError"
    assert first["phase"] == "cancelled"
    assert done.result["run_id"] == second["run_id"]


@MODES
def test_a_run_that_is_left_alone_is_waited_for_again(
    airflow: AirflowProcess, platforms: Control, deferrable: bool
) -> None:
    platforms.plan_next("omilia", duration=float("inf"))
    with in_step(
        (lambda: is_waited_for(airflow, "omilia", deferrable), lambda: airflow.pass_time(TIMEOUT)),
        (lambda: is_resumed(airflow), lambda: finish(platforms)),
    ):
        done = airflow.run(one, deferrable=deferrable, timeout=TIMEOUT, retries=1, cancel_on_timeout=False)["omilia"]
    (run,) = platforms.runs()
    assert (done.state, done.tries) == ("success", 2)
    assert run["cancelled_by"] is None
    assert done.error.kind == "RunTimeoutError"
    assert "It is still running (cancel_on_timeout=False)" in done.error.message
    assert done.result["run_id"] == run["run_id"]


def test_execution_timeout_counts_while_deferred(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=float("inf"))
    limit = timedelta(seconds=TIMEOUT)
    with in_step((lambda: is_waited_for(airflow, "omilia", True), lambda: airflow.pass_time(TIMEOUT))):
        done = airflow.run(one, deferrable=True, execution_timeout=limit)["omilia"]
    (run,) = platforms.runs()
    assert (done.state, done.error.kind) == ("failed", "RunTimeoutError")
    assert run["phase"] == "cancelled"


def test_execution_timeout_in_place_cancels_the_run(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=float("inf"))
    with in_step((lambda: is_waited_for(airflow, "omilia", False), airflow.alarm)):
        done = airflow.run(one, execution_timeout=timedelta(seconds=TIMEOUT))["omilia"]
    (run,) = platforms.runs()
    # Airflow itself ends the task.
    assert (done.state, done.error.kind) == ("failed", "AirflowTaskTimeout")
    assert run["phase"] == "cancelled"
    assert platforms.count("omilia.revoke_run") == 1


def test_after_an_execution_timeout_in_place_the_next_try_starts_anew(
    airflow: AirflowProcess, platforms: Control
) -> None:
    platforms.plan_next("omilia", duration=float("inf"))
    limit = timedelta(seconds=TIMEOUT)
    with in_step((lambda: is_waited_for(airflow, "omilia", False), airflow.alarm)):
        done = airflow.run(one, execution_timeout=limit, retries=1, cancel_on_kill=False)["omilia"]
    first, second = platforms.runs()
    assert (done.state, done.tries, done.error.kind) == ("success", 2, "AirflowTaskTimeout")
    assert (first["phase"], second["phase"]) == ("cancelled", "finished")
    assert done.result["run_id"] == second["run_id"]


def test_after_an_execution_timeout_in_place_a_run_that_is_left_alone_is_waited_for_again(
    airflow: AirflowProcess, platforms: Control
) -> None:
    platforms.plan_next("omilia", duration=float("inf"))
    limit = timedelta(seconds=TIMEOUT)
    with in_step(
        (lambda: is_waited_for(airflow, "omilia", False), airflow.alarm),
        (lambda: is_resumed(airflow), lambda: finish(platforms)),
    ):
        done = airflow.run(one, execution_timeout=limit, retries=1, cancel_on_timeout=False)["omilia"]
    (run,) = platforms.runs()
    assert (done.state, done.tries, done.error.kind) == ("success", 2, "AirflowTaskTimeout")
    assert run["cancelled_by"] is None


# Trouble that passes


@MODES
def test_a_wait_outlasts_an_outage(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    platforms.fault("status", status=503, operation="omilia.get_run", skip=1, times=4)
    platforms.fault("drop", operation="eggplant.run_progress", skip=2, times=3)
    platforms.fault("status", status=429, operation="futureagi.metrics", skip=1, times=2)
    tasks: dict[str, TaskRun] = airflow.run(one_of_each, deferrable=deferrable)
    for platform, done in tasks.items():
        assert (done.state, done.tries) == ("success", 1), platform
        # Told once at its start and once at its end, however often a look failed.
        assert sum("Still waiting." in line for line in done.lines) == 1, platform
        assert sum("The platform answers again about run" in line for line in done.lines) == 1, platform
    assert starts(platforms) == {"eggplant": 1, "futureagi": 1, "omilia": 1}


@MODES
def test_a_token_that_expires_is_renewed(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    platforms.configure(run_seconds=1000.0, eggplant_generation="executions_get")
    looks = {"eggplant": "eggplant.get_execution", "omilia": "omilia.get_run"}

    def expire() -> None:
        for platform, operation in looks.items():
            # The triggerer has a token of its own, the worker's last look was the first.
            wait_until(lambda operation=operation: platforms.count(operation) > 2)
            platforms.expire_tokens(platform)
            wait_until(lambda operation=operation: platforms.count(operation) > 5)
            (run,) = platforms.runs(platform)
            platforms.finish_run(run["run_id"])

    expiring = threading.Thread(target=expire)
    expiring.start()
    tasks = airflow.run(one_after_the_other, deferrable=deferrable)
    expiring.join()
    assert [(done.state, done.tries, done.errors) for done in tasks.values()] == [("success", 1, [])] * 2
    for platform, operation in looks.items():
        assert any(request.status == 401 for request in platforms.requests(operation)), platform
    assert starts(platforms) == {"eggplant": 1, "futureagi": 0, "omilia": 1}


def one_after_the_other(**shared: Any) -> None:
    shared = {"poll_interval": 0.1, **shared}
    EggplantStartExecutionOperator(
        task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000001", **shared
    ) >> OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000001", **shared)
