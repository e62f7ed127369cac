"""``fail_fast``: a run that can't meet ``max_failures`` any more is stopped before its end, and has failed."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_testruns.exceptions import ConfigurationError, RunFailedError
from airflow_provider_testruns.operators.base import StartRunOperator
from airflow_provider_testruns.operators.eggplant import (
    EggplantStartExecutionOperator,
    EggplantStartTestConfigurationOperator,
)
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator, FutureAGIRerunCallsOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateGenerationOperator, OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.harness.pace import DURATION, getting_on_with_polls
from tests.integration.fake_context.tasks import Store, Task, Told

pytestmark = pytest.mark.integration

REGRESSION = "0a000000-0000-4000-8000-000000000002"
FLAKY = "fa000000-0000-4000-8000-000000000002"
STATS, REVOKE = "omilia.run_stats", "omilia.revoke_run"
POLLED = {"omilia": STATS, "futureagi": "futureagi.metrics"}
CANCELLED_BY = {"omilia": REVOKE, "futureagi": "futureagi.cancel_execution"}
DEFERRABLE = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


@pytest.fixture
def control(control: Control) -> Control:
    """The same, with runs that last until a test lets them end."""
    control.set_target("omilia", REGRESSION, duration=DURATION)
    control.set_target("futureagi", FLAKY, duration=DURATION)
    return control


def operator(platform: str = "omilia", **arguments: Any) -> StartRunOperator:
    shared = {"task_id": "run", "poll_interval": 0.1, "timeout": 600, "fail_fast": True, "max_failures": 0}
    if platform == "omilia":
        return OmiliaCreateRunOperator(project_id=REGRESSION, **{**shared, **arguments})
    return FutureAGIExecuteTestRunOperator(run_test_id=FLAKY, select_all=True, **{**shared, **arguments})


class Diary(Store):
    """A state store that notes, with each record, whether the run had been asked to stop by then."""

    def __init__(self, control: Control, cancel: str) -> None:
        super().__init__()
        self.written: list[tuple[str, str | None, bool]] = []
        self._control, self._cancel = control, cancel

    def set(self, key: str, value: Any) -> None:
        super().set(key, value)
        self.written.append((value["phase"], value["verdict"], self._control.count(self._cancel) > 0))


@DEFERRABLE
@pytest.mark.parametrize("platform", ["omilia", "futureagi"])
def test_a_run_that_can_not_pass_any_more_is_stopped(
    control: Control, told: Told, platform: str, deferrable: bool
) -> None:
    task = Task()
    store = task.context["task_state_store"] = Diary(control, CANCELLED_BY[platform])
    with getting_on_with_polls(control, POLLED[platform]):
        message = task.fail(operator(platform, deferrable=deferrable), RunFailedError)
    report = task.xcoms["return_value"]
    why = "Stopped early (fail_fast=True): 1 test cases have failed before the end of the run, and max_failures is 0."
    assert f"Run {report['run_id']} failed. {why}\n" in message
    assert (report["verdict"], report["stopped_early"], report["reasons"]) == ("failed", True, [why])
    # At the first failure: with the polls that it took to stop it the run got no further.
    assert report["failed"] + report["unavailable"] == 1
    assert report["not_run"] > 0
    assert control.run(report["run_id"])["phase"] == "cancelled"
    # The verdict was noted before the run was asked to stop, and stays.
    assert ("judged", "failed", False) in store.written
    assert {verdict for _, verdict, cancelled in store.written if cancelled} == {"failed"}
    assert [event["status"] for event in task.events] == (["failing"] if deferrable else [])
    # A retry does not take it for a run that somebody cancelled, nor for its own.
    control.set_target(platform, REGRESSION if platform == "omilia" else FLAKY, duration=0.1, ending="passed")
    assert task.run(operator(platform, deferrable=deferrable))["verdict"] == "passed"
    assert len(control.runs(platform)) == 2
    assert f"Run {report['run_id']} of an earlier try ended as failed: starting a new one." in told


def test_a_run_that_could_not_be_stopped_is_stopped_by_the_next_try(control: Control, told: Told) -> None:
    task = Task()
    control.fault("status", operation=REVOKE, status=409, body={"detail": "Not now"}, times=1)
    with getting_on_with_polls(control, STATS):
        message = task.fail(operator(), RunFailedError, "It was asked to stop, and is still STARTED")
    first = task.xcoms["return_value"]["run_id"]
    assert "Stopped early" in message
    assert control.run(first)["phase"] == "running"
    control.set_target("omilia", REGRESSION, duration=0.1, ending="passed")
    assert task.run(operator())["verdict"] == "passed"
    assert control.run(first)["phase"] == "cancelled"
    assert "an earlier try has given it up as failed" in told


def test_counts_that_are_taken_back_stop_nothing(control: Control, told: Told) -> None:
    control.set_target("omilia", REGRESSION, duration=DURATION, ending="passed")
    # One poll sees a failure that the next one does not.
    body = {"data": {"statsId": "s", "pass": 1, "fail": 1, "unavailable": 0}}
    control.fault("wrong_json", operation=STATS, body=body, times=1)
    with getting_on_with_polls(control, "omilia.get_run"):
        assert Task().run(operator())["verdict"] == "passed"
    assert control.count(REVOKE) == 0
    assert told.of("It is not stopped early, as that number is not final.")


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        (OmiliaCreateRunOperator, {"project_id": "p"}, "fail_fast=True needs max_failures"),
        (EggplantStartExecutionOperator, {"max_failures": 0}, "shows no failures of such a run before"),
        (EggplantStartTestConfigurationOperator, {"max_failures": 0}, "shows no failures of such a run before"),
        (OmiliaCreateGenerationOperator, {"project_id": "p", "max_failures": 0}, "shows no failures of such a run"),
        (FutureAGIRerunCallsOperator, {"execution_id": "e", "max_failures": 0}, "shows no failures of such a run"),
        (
            FutureAGIExecuteTestRunOperator,
            {"max_failures": 0, "rerun_failed_only": True},
            "Of fail_fast=True and rerun_failed_only=True only one",
        ),
    ],
)
def test_what_can_not_be_is_said_where_the_dag_is_written(kind: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind(task_id="run", fail_fast=True, **arguments)


def test_what_a_template_makes_of_it_is_checked_before_the_start(control: Control) -> None:
    for arguments, says in (
        ({"fail_fast": "true", "max_failures": None}, "needs max_failures"),
        ({"allowed_failures": ["pay*"]}, "can't be used with allowed_failures"),
    ):
        Task().fail(operator(**arguments), ConfigurationError, says)
    assert control.runs("omilia") == []
