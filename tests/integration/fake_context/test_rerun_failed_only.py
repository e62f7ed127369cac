"""``rerun_failed_only`` on Omilia: the failed cases again, in a run of their own, where filters select exactly those.

That of Future AGI, which runs them again in the same execution, is in ``test_futureagi.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_testruns.exceptions import (
    ConfigurationError,
    RunFailedError,
    RunTimeoutError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.operators.eggplant import (
    EggplantStartExecutionOperator,
    EggplantStartTestConfigurationOperator,
)
from airflow_provider_testruns.operators.omilia import OmiliaCreateGenerationOperator, OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.integration.fake_context.tasks import Task, Told

pytestmark = pytest.mark.integration

SMOKE, REGRESSION = "0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"
#: Of the case that fails in each of them, among those of the group accounts.
BALANCE, JOINT = "Balance of the current account", "Both owners hear the same balance"


def operator(**arguments: Any) -> OmiliaCreateRunOperator:
    shared = {"project_id": SMOKE, "poll_interval": 0.1, "timeout": 600, "rerun_failed_only": True}
    return OmiliaCreateRunOperator(task_id="run", **{**shared, **arguments})


def filters(control: Control) -> list[tuple[Any, Any]]:
    return [(run["arguments"].get("group"), run["arguments"].get("description")) for run in control.runs("omilia")]


def test_the_failed_case_is_run_again_by_its_description(control: Control, told: Told) -> None:
    task = Task()
    control.plan_next("omilia", ending="failed")
    task.fail(operator(), RunFailedError, "1 failed of 4 test cases")
    first = task.xcoms["return_value"]["run_id"]
    report = task.run(operator())
    assert sorted(filters(control), key=str) == sorted([(None, None), (None, BALANCE)], key=str)
    assert (report["verdict"], report["total"], report["passed"]) == ("passed", 1, 1)
    assert report["notes"] == [
        f"Only the test cases were run again that had not passed in run {first}; the others passed there."
    ]
    assert "for 1 failed test cases" in told
    # It is this task's: one more try does not start anything.
    assert task.run(operator())["run_id"] == report["run_id"]
    assert len(control.runs("omilia")) == 2


def test_those_that_fail_again_are_run_again_with_the_same_filters(control: Control) -> None:
    task = Task()
    for _ in range(3):
        task.fail(operator(project_id=REGRESSION, group="accounts"), RunFailedError)
    assert sorted(filters(control), key=str) == sorted(
        [("accounts", None), ("accounts", JOINT), ("accounts", JOINT)], key=str
    )


@pytest.mark.parametrize("lost", [False, True], ids=["resumed", "after a lost response"])
def test_a_rerun_is_resumed(control: Control, lost: bool) -> None:
    task = Task()
    control.plan_next("omilia", ending="failed")
    task.fail(operator(), RunFailedError)
    control.plan_next("omilia", duration=1e6)
    if lost:
        control.fault("drop", operation="omilia.create_run", when="after", times=1)
    task.fail(operator(timeout=1.0, cancel_on_timeout=False), RunTimeoutError)
    rerun = task.record["run"]["run_id"]
    control.finish_run(rerun)
    assert task.run(operator())["run_id"] == rerun
    assert len(control.runs("omilia")) == 2


def test_a_record_does_not_choose_the_filters(control: Control) -> None:
    task = Task()
    control.plan_next("omilia", ending="failed")
    task.fail(operator(), RunFailedError)
    Task().run(operator(description="A lost card is blocked at once"))
    (other,) = [run for run in control.runs("omilia") if run["arguments"]["description"]]
    record = task.record
    record["rerun_of"] = record["run"]["run_id"]
    record["run"] = {**record["run"], "run_id": other["run_id"]}
    task.fail(operator(), StartOutcomeUnknownError, "its description is 'A lost card is blocked at once'")
    assert len(control.runs("omilia")) == 2


def test_what_no_filter_selects_is_a_whole_run(control: Control, told: Told) -> None:
    task = Task()
    for _ in range(2):
        task.fail(operator(project_id=REGRESSION), RunFailedError, "of 9 test cases")
    assert filters(control) == [(None, None), (None, None)]
    assert told.of("they have no description in common, by which they could be selected. Starting a new run.")


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        (OmiliaCreateRunOperator, {"project_id": "p", "min_pass_rate": 0.9}, "whose pass rate is not that of all"),
        (OmiliaCreateGenerationOperator, {"project_id": "p"}, "has no documented call that runs the failed cases"),
        (EggplantStartTestConfigurationOperator, {}, "has no documented call that runs the failed cases"),
        (EggplantStartExecutionOperator, {"model_id": "m"}, "needs one of test_case_id, test_case_name, rerun_id"),
    ],
)
def test_where_it_can_not_be_it_is_an_error(kind: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind(task_id="run", rerun_failed_only=True, **arguments)


def test_an_execution_of_one_test_case_is_that_case_again() -> None:
    assert EggplantStartExecutionOperator(task_id="run", model_id="m", test_case_id=11, rerun_failed_only=True)
