"""Arguments of all operators and sensors that are true or false, times or numbers: read, or refused with the name."""

from __future__ import annotations

import inspect
import math
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator

from airflow_provider_testruns import arguments, timing
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.operators.base import StartRunOperator
from airflow_provider_testruns.sensors.base import RunSensor
from airflow_provider_testruns.tasks.connected import ConnectedTask
from airflow_provider_testruns.triggers.run import RunTrigger

pytestmark = pytest.mark.unit

_MODULES = [
    f"{kind}.{platform}" for kind in ("operators", "sensors") for platform in ("eggplant", "futureagi", "omilia")
]


def _tasks() -> list[type[Any]]:
    found: dict[str, type[Any]] = {}
    for name in _MODULES:
        module = import_module(f"airflow_provider_testruns.{name}")
        for task in vars(module).values():
            if inspect.isclass(task) and issubclass(task, ConnectedTask) and task.__module__ == module.__name__:
                found[task.__name__] = task
    return [task for name, task in sorted(found.items()) if not name.startswith("_")]


TASKS = _tasks()
BOOLEANS = [(task, name) for task in TASKS for name in task.boolean_fields]
TIMES = [
    (task, name)
    for task in TASKS
    for name in ("poll_interval", "poke_interval", "timeout")
    if any(name in inspect.signature(each.__init__).parameters for each in task.__mro__)
]


def _make(task: type[Any], **given: Any) -> Any:
    needed = {
        name: "id"
        for each in task.__mro__
        if each.__module__.startswith("airflow_provider_testruns")
        for name, parameter in inspect.signature(each.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }
    # It or its name must be given.
    if "project_name" in inspect.signature(task.__init__).parameters:
        needed["project_id"] = "id"
    return task(task_id="t", **{**needed, **given})


def test_there_are_tasks_of_each_kind():
    assert len(TASKS) > 20
    assert {name for _, name in BOOLEANS} >= {
        "deferrable",
        "cancel_on_kill",
        "durable",
        "fail_on_no_tests",
        "select_all",
    }
    for task in TASKS:
        if issubclass(task, StartRunOperator | RunSensor):
            annotated = {
                name
                for each in task.__mro__
                if each.__module__.startswith("airflow_provider_testruns")
                for name, parameter in inspect.signature(each.__init__).parameters.items()
                if parameter.annotation in ("bool", bool)
            }
            assert annotated == set(task.boolean_fields)


@pytest.mark.parametrize(("task", "name"), BOOLEANS)
@pytest.mark.parametrize("native", [False, True])
def test_texts_that_are_true_or_false_are_read_after_rendering(task, name, native):
    for word, meant in [("false", False), ("TRUE", True), (False, False), (True, True)]:
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            made = _make(task, **{name: "{{ params.flag }}"})
        made.render_template_fields({"params": {"flag": word}})
        made.read_booleans()
        assert getattr(made, name) is meant


@pytest.mark.parametrize(("task", "name"), BOOLEANS)
def test_all_other_texts_are_refused_before_anything_else(task, name, monkeypatch):
    monkeypatch.setattr(task, "make_hook", lambda self: pytest.fail("a hook was made"))
    for word in ("yes", "0", "", "{{ params.flag }}", "None", 1, None):
        made = _make(task, **{name: word})
        with pytest.raises(ConfigurationError, match=rf"^{name} must be True or False.*; got ") as caught:
            made.execute({})
        assert repr(word) in str(caught.value)


@pytest.mark.parametrize("sensor", [task for task in TASKS if issubclass(task, RunSensor)])
def test_airflows_own_booleans_of_sensors_are_read_too(sensor):
    made = _make(sensor, soft_fail="False", never_fail="false", exponential_backoff="TRUE")
    assert (made.soft_fail, made.never_fail, made.exponential_backoff) == (False, False, True)
    with DAG("d", schedule=None, default_args={"soft_fail": "true"}):
        assert _make(sensor).soft_fail is True
    with pytest.raises(ConfigurationError, match=r"^soft_fail must be True or False.*'no'"):
        _make(sensor, soft_fail="no")


@pytest.mark.parametrize(("task", "name"), TIMES)
def test_times_that_cannot_be(task, name):
    wrong: list[Any] = [
        -1,
        math.nan,
        math.inf,
        -math.inf,
        "soon",
        "10",
        True,
        [],
        1e300,
        10**400,
        timedelta(seconds=-1),
    ]
    if name != "timeout":
        wrong += [0, 0.0, 0.099, timedelta(milliseconds=99), timedelta(0)]
    if not issubclass(task, BaseSensorOperator):
        wrong += [0]
    # Where it starts a run, the deployment's default.
    if not issubclass(task, BaseSensorOperator | StartRunOperator):
        wrong += [None]
    for value in wrong:
        with pytest.raises(ConfigurationError, match=rf"^{name} must be a number of seconds .*; got "):
            _make(task, **{name: value})
    for value, seconds in [(0.1, 0.1), (5, 5.0), (timedelta(minutes=1), 60.0)]:
        assert getattr(_make(task, **{name: value}), name) == seconds


def test_default_args_are_checked_as_well():
    for task, name in TIMES:
        if name == "timeout" and issubclass(task, BaseSensorOperator):
            continue
        with (
            DAG("d", schedule=None, default_args={name: 0 if name == "timeout" else 0.05}),
            pytest.raises(ConfigurationError, match=rf"^{name} "),
        ):
            _make(task)


@pytest.mark.parametrize("stored", [0, 0.0, -5, math.nan, 1e-9])
def test_a_stored_trigger_does_not_hammer_the_platform(stored):
    assert RunTrigger("omilia", "c", {}, 1.0, stored).poll_interval == timing.MIN_INTERVAL


def test_a_value_is_not_shown_whole():
    with pytest.raises(ConfigurationError) as caught:
        arguments.boolean("flag", "x" * 10_000)
    assert len(str(caught.value)) < 250


def test_every_task_is_an_operator():
    assert all(issubclass(task, BaseOperator) for task in TASKS)


def test_a_dict_of_fractions_by_name():
    assert arguments.fractions("eval_thresholds", None) == {}
    assert arguments.fractions("eval_thresholds", {1: "0.5"}) == {"1": 0.5}
