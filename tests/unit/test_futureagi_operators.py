"""What Future AGI's operators make of their arguments, before anything is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseSensorOperator

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.operators.futureagi import (
    FutureAGICancelTestExecutionOperator,
    FutureAGIExecuteTestRunOperator,
    FutureAGIRerunCallsOperator,
)
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor

pytestmark = pytest.mark.unit

EXECUTION = "0e000000-0000-4000-8000-000000000001"
JUDGING = [
    (FutureAGIExecuteTestRunOperator, {"run_test_name": "nightly", "select_all": True}),
    (FutureAGIRerunCallsOperator, {"execution_id": EXECUTION}),
    (FutureAGITestExecutionSensor, {"execution_id": EXECUTION}),
]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"tone": 1.1}, "tone"),
        ({"tone": -0.1}, "tone"),
        ({"tone": 85}, "from 0 to 1"),
        ({"tone": "85 %"}, "tone"),
        ({"tone": None}, "tone"),
        ({"tone": True}, "tone"),
        (["tone"], "must be a dict"),
        ("{'tone': 0.5}", "must be a dict"),
    ],
)
def test_gates_that_cannot_be_right_are_found_before_anything_is_sent(given, word):
    # There is no connection: what is sent would fail in another way.
    for kind, arguments in JUDGING:
        task = kind(task_id="task", eval_thresholds=given, **arguments)
        with pytest.raises(ConfigurationError, match=rf"eval_thresholds\b.*{word}"):
            task.execute({})


@pytest.mark.parametrize(("kind", "arguments"), JUDGING)
def test_gates_of_a_task(kind, arguments):
    task = kind(task_id="task", eval_thresholds={"tone": "0.85", "speed": 1}, min_pass_rate=0.5, **arguments)
    gates = task.gates()
    assert (gates.eval_thresholds, gates.min_pass_rate) == ({"tone": 0.85, "speed": 1}, 0.5)
    assert kind(task_id="task", **arguments).gates().eval_thresholds == {}


def test_a_start_says_which_evaluations_it_needs():
    arguments: dict[str, Any] = {"run_test_name": "nightly", "scenario_ids": [EXECUTION]}
    task = FutureAGIExecuteTestRunOperator(task_id="task", eval_thresholds={"tone": 0.5, "a": 0.5}, **arguments)
    assert task.start_arguments() == {
        "run_test_id": None,
        "run_test_name": "nightly",
        "scenario_ids": [EXECUTION],
        "exclude_scenario_ids": None,
        "select_all": False,
        "simulator_id": None,
        "evaluations": ["a", "tone"],
    }


def test_a_rerun_without_an_execution_is_no_start_of_something_else():
    for nothing in ("", None):
        task = FutureAGIRerunCallsOperator(task_id="task", execution_id=nothing)
        assert task.start_arguments()["rerun_of"] == ""


@pytest.mark.parametrize(
    ("kind", "arguments"), [*JUDGING, (FutureAGICancelTestExecutionOperator, {"execution_id": EXECUTION})]
)
def test_ids_come_from_templates(kind, arguments):
    task = kind(task_id="task", **arguments)
    own = vars(task).keys() - vars(BaseSensorOperator(task_id="other")).keys()
    ids = {name for name in own if name.endswith(("_id", "_ids", "_path"))}
    assert ids
    assert ids <= set(task.template_fields)


def test_the_time_of_a_cancel():
    def cancel(timeout: Any) -> FutureAGICancelTestExecutionOperator:
        return FutureAGICancelTestExecutionOperator(task_id="task", execution_id=EXECUTION, timeout=timeout)

    assert cancel(timedelta(minutes=2)).timeout == 120.0
    for wrong in (0, -1, "soon", None):
        with pytest.raises(ConfigurationError, match="timeout"):
            cancel(wrong)
