"""What a task does that Airflow resumes with ``__fail__``, as its trigger has failed for whatever reason."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred
from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferralError
from junitparser import JUnitXml

from airflow_provider_testruns.exceptions import (
    ConfigurationError,
    PermissionDeniedError,
    RunTimeoutError,
    TriggerFailedError,
)
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from airflow_provider_testruns.timing import MAX_TRIGGER_FAILURES
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.integration.fake_context.tasks import Task, Told, first_event

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)
_FAILED: dict[str, Any] = {"error": "Trigger failure", "traceback": ["Traceback\n", "ImportError: canary-module\n"]}
_STALE = "<testsuites><testsuite name='older run'/></testsuites>"
Resume = Callable[[], Any]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    with SandboxServer(run_seconds=3600) as server:
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(server.connections()["omilia_default"]))
        yield server.control


class _Failing:
    """A task whose triggers fail.

    :param store: whether Airflow has a place for the record.
    """

    def __init__(self, *, store: bool, try_number: int = 1, **arguments: Any) -> None:
        self.task = Task(try_number=try_number, max_tries=2)
        if not store:
            self.task.context["task_state_store"] = None
        self.arguments = {"task_id": "t", "project_id": _PROJECT, "deferrable": True, "timeout": 600, **arguments}

    def operator(self) -> OmiliaCreateRunOperator:
        return OmiliaCreateRunOperator(**self.arguments)

    def start(self) -> RunTrigger:
        with pytest.raises(TaskDeferred) as deferred:
            self.operator().execute(self.task.context)
        return deferred.value.trigger

    def fail(self) -> RunTrigger:
        """Another process, after a trigger that has failed; it hands the wait over again."""
        with pytest.raises(TaskDeferred) as deferred:
            self.resume()
        return deferred.value.trigger

    def resume(self) -> Any:
        return self.operator().resume_execution("__fail__", dict(_FAILED), self.task.context)


STORE = pytest.mark.parametrize("store", [True, False], ids=["3.3", "before 3.3"])


@STORE
def test_the_wait_is_handed_over_again_with_the_same_deadline_and_the_run_is_judged(control, told: Told, store):
    failing = _Failing(store=store)
    first = failing.start()
    (run,) = control.runs("omilia")
    for _ in range(MAX_TRIGGER_FAILURES):
        again = failing.fail()
        assert again.deadline == first.deadline
        assert again.test_run["run_id"] == run["run_id"]
        assert (again.conn_id, again.poll_interval, again.cancel_on_kill) == ("omilia_default", 10.0, True)
    assert len(control.runs("omilia")) == 1
    assert "ImportError: canary-module" in told
    control.finish_run(run["run_id"])
    # Over at the first look: no further trigger is needed.
    assert failing.resume()["verdict"] == "passed"


@STORE
def test_a_trigger_that_goes_on_failing_fails_the_task_and_the_run_goes_on_for_the_next_try(
    control, tmp_path: Path, store
):
    junit = tmp_path / "report.xml"
    junit.write_text(_STALE)
    failing = _Failing(store=store, junit_path=str(junit))
    failing.start()
    for _ in range(MAX_TRIGGER_FAILURES):
        failing.fail()
    assert junit.read_text() == _STALE
    follows = "the next try resumes it" if store else "the next try starts another one"
    with pytest.raises(TriggerFailedError, match=f"left running; .*{follows}"):
        failing.resume()
    (run,) = control.runs("omilia")
    assert run["phase"] in ("pending", "running")
    # An older run's file would be taken for this one's.
    (suite,) = JUnitXml.fromfile(str(junit))
    assert suite.errors == 1
    assert run["run_id"] in junit.read_text()

    if store:
        failing.task.context["ti"].try_number = 2
        assert failing.start().test_run["run_id"] == run["run_id"]
        assert len(control.runs("omilia")) == 1
        # Failures are counted for each try.
        failing.fail()


@STORE
@pytest.mark.parametrize("cancels", [True, False])
def test_the_last_try_cancels_the_run_that_nobody_would_wait_for_as_cancel_on_timeout_says(control, store, cancels):
    failing = _Failing(store=store, try_number=3, cancel_on_timeout=cancels)
    failing.start()
    for _ in range(MAX_TRIGGER_FAILURES):
        failing.fail()
    with pytest.raises(TriggerFailedError):
        failing.resume()
    (run,) = control.runs("omilia")
    assert (run["phase"] == "cancelled") is cancels


@STORE
@pytest.mark.parametrize("cancels", [True, False])
def test_the_deadline_ends_the_wait_as_ever(control, store, cancels):
    failing = _Failing(store=store, cancel_on_timeout=cancels)
    failing.start()
    kept = failing.task.store["test_run"] if store else failing.task.xcoms["test_run_wait"]
    kept["deadline"] = time.time() - 1
    with pytest.raises(RunTimeoutError):
        failing.resume()
    (run,) = control.runs("omilia")
    assert (run["phase"] == "cancelled") is cancels


@STORE
def test_a_trigger_that_ends_in_an_event_about_a_failure_of_its_own_is_followed_by_another_too(
    control, monkeypatch, store
):
    """An outage, a refusal, a run that is gone are the platform's; a fault in the trigger says nothing of the run."""
    failing = _Failing(store=store)
    first = failing.start()

    def broken() -> Any:
        raise RuntimeError("canary-fault")

    monkeypatch.setattr(first, "_watcher", broken)
    event = asyncio.run(first_event(first))
    assert (event["status"], event["error"]["type"]) == ("error", "ApiError")
    for _ in range(MAX_TRIGGER_FAILURES):
        with pytest.raises(TaskDeferred) as deferred:
            failing.operator().resume_execution("execute_complete", {"event": event}, failing.task.context)
        assert deferred.value.trigger.deadline == first.deadline
    with pytest.raises(TriggerFailedError):
        failing.operator().resume_execution("execute_complete", {"event": event}, failing.task.context)
    assert len(control.runs("omilia")) == 1


@STORE
def test_what_the_platform_says_is_final_is_no_failure_of_the_trigger(control, store):
    failing = _Failing(store=store)
    trigger = failing.start()
    event = {"status": "error", "run": trigger.test_run, "error": {"type": "PermissionDeniedError", "message": "No."}}
    with pytest.raises(PermissionDeniedError):
        failing.operator().resume_execution("execute_complete", {"event": event}, failing.task.context)


@pytest.mark.parametrize("event", [None, {}, {"status": "odd"}])
def test_an_event_that_cannot_be_read_replaces_an_older_runs_file_too(control, tmp_path: Path, event):
    junit = tmp_path / "report.xml"
    junit.write_text(_STALE)
    failing = _Failing(store=True, junit_path=str(junit))
    failing.start()
    with pytest.raises(ConfigurationError):
        failing.operator().resume_execution("execute_complete", {"event": event}, failing.task.context)
    assert "older run" not in junit.read_text()


def test_a_stored_deadline_makes_no_wait_longer(control):
    failing = _Failing(store=True)
    failing.start()
    failing.task.store["test_run"]["deadline"] = time.time() + 10_000_000
    assert failing.fail().deadline <= time.time() + 600


@pytest.mark.parametrize("kept", [None, "x", {}, {"run": {}, "deadline": 1.0}, {"deadline": "soon", "run": None}])
def test_before_3_3_a_task_that_knows_nothing_of_its_run_says_so(control, kept):
    failing = _Failing(store=False)
    failing.start()
    failing.task.xcoms["test_run_wait"] = kept
    with pytest.raises(TriggerFailedError, match=r"has failed \(Trigger failure\), and nothing is stored of the run"):
        failing.resume()
    assert len(control.runs("omilia")) == 1


def test_only_a_deferral_without_a_record_costs_an_xcom_more(control):
    with_store, without = _Failing(store=True), _Failing(store=False)
    with_store.start()
    without.start()
    assert set(with_store.task.xcoms) == {"run_id", "run_url", "test_run"}
    assert set(without.task.xcoms) == {"run_id", "run_url", "test_run", "test_run_wait"}


# Sensors


def _sensor(run_id: str, **arguments: Any) -> OmiliaRunSensor:
    return OmiliaRunSensor(task_id="s", run_id=run_id, deferrable=True, **arguments)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, TaskDeferralError),
        ({"soft_fail": True}, TaskDeferralError),  # that the run could not be seen is no verdict
        ({"never_fail": True}, AirflowSkipException),
    ],
)
def test_a_sensor_whose_trigger_failed_fails_as_its_arguments_say_and_cancels_nothing(
    control, tmp_path: Path, arguments, kind
):
    (run_id,) = control.add_runs("omilia", _PROJECT)
    junit = tmp_path / "report.xml"
    junit.write_text(_STALE)
    sensor = _sensor(run_id, junit_path=str(junit), **arguments)
    with pytest.raises(kind):
        sensor.resume_execution("__fail__", dict(_FAILED), Task().context)
    (suite,) = JUnitXml.fromfile(str(junit))
    assert suite.errors == 1
    assert control.count("omilia.revoke_run") == 0


class _AskedAgain(OmiliaRunSensor):
    def execute_complete(self, context: Any, event: Any = None) -> Any:
        raise AirflowRescheduleException(None)


def test_a_sensor_that_is_to_be_asked_again_later_is_not_skipped_by_never_fail(control):
    sensor = _AskedAgain(task_id="s", run_id="r", never_fail=True)
    with pytest.raises(AirflowRescheduleException):
        sensor.resume_execution("execute_complete", {"event": {}}, Task().context)


def test_a_deferred_sensor_looks_less_and_less_often_as_its_arguments_say(control):
    (run_id,) = control.add_runs("omilia", _PROJECT)
    sensor = _sensor(run_id, poke_interval=5, exponential_backoff=True, max_wait=60)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(Task().context)
    trigger = deferred.value.trigger
    assert (trigger.poll_interval, trigger.max_interval) == (5, 60.0)
    assert trigger.slows_from == pytest.approx(time.time(), abs=60)
    with pytest.raises(TaskDeferred) as deferred:
        _sensor(run_id).execute(Task().context)
    assert deferred.value.trigger.slows_from is None
