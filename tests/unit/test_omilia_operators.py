"""Omilia's operators and sensors where a DAG is written: arguments, template fields, and what Airflow stores."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.operators import omilia as operators
from airflow_provider_testruns.sensors import omilia as sensors

pytestmark = pytest.mark.unit

TOKEN = "canary-of-a-git-token"
TASKS = [
    task
    for module in (operators, sensors)
    for name, task in vars(module).items()
    if name.startswith("Omilia") and isinstance(task, type) and issubclass(task, BaseOperator)
]
#: What every class needs, and a value that can be right.
GIVEN = {
    "project_id": "p",
    "run_id": "r",
    "generation_id": "g",
    "dialog_id": "d",
    "name": "n",
    "group": "qa",
    "path": "/tmp/x",
}
#: Chosen by who writes the DAG, not by its data; and the token, which is rendered in another way.
NOT_TEMPLATED = {"field", "timeout", "poll_interval", "git_token"}


def arguments_of(task: type[BaseOperator]) -> dict[str, inspect.Parameter]:
    own = inspect.signature(task.__init__).parameters.values()
    return {parameter.name: parameter for parameter in own if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def make(task: type[BaseOperator], **more: Any) -> Any:
    needed = {
        name: GIVEN[name]
        for name, parameter in arguments_of(task).items()
        if parameter.default is inspect.Parameter.empty
    }
    if "project_name" in arguments_of(task) and "project_name" not in more:
        needed["project_id"] = GIVEN["project_id"]
    return task(**{"task_id": "t", **needed, **more})


def test_all_of_them_are_here() -> None:
    assert sorted(task.__name__ for task in TASKS) == [
        "OmiliaCreateGenerationOperator",
        "OmiliaCreateProjectOperator",
        "OmiliaCreateRunOperator",
        "OmiliaDeleteProjectOperator",
        "OmiliaDownloadGenerationArtifactOperator",
        "OmiliaDownloadRunArtifactOperator",
        "OmiliaDownloadTestSuitesOperator",
        "OmiliaGenerateGoldenDialogOperator",
        "OmiliaGenerationSensor",
        "OmiliaRevokeRunOperator",
        "OmiliaRunSensor",
        "OmiliaUpdateProjectOperator",
        "OmiliaUploadTestSuitesOperator",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_every_argument_is_a_template(task: type[BaseOperator]) -> None:
    made = make(task)
    assert "omilia_conn_id" in made.template_fields
    for name in arguments_of(task):
        assert (name in made.template_fields) is (name not in NOT_TEMPLATED), name
    assert all(hasattr(made, field) for field in made.template_fields)


@pytest.mark.parametrize("task", TASKS)
def test_arguments_come_from_default_args_and_can_be_mapped(task: type[BaseOperator]) -> None:
    with DAG("d", schedule=None, default_args={"omilia_conn_id": "other", **GIVEN}) as dag:
        made: Any = task(task_id="t")
        if not issubclass(task, BaseSensorOperator):
            first = next(iter(arguments_of(task)))
            rest = {name: value for name, value in GIVEN.items() if name in arguments_of(task) and name != first}
            task.partial(task_id="m", **rest).expand(**{first: ["a", "b"]})
    assert made.conn_id == "other"
    assert all(getattr(made, name) == GIVEN[name] for name in arguments_of(task) if name in GIVEN)
    assert json.dumps(DagSerialization.to_dict(dag))


@pytest.mark.parametrize("task", TASKS)
def test_what_is_missing_or_not_known_is_said_where_the_dag_is_written(task: type[BaseOperator]) -> None:
    with pytest.raises((TypeError, ConfigurationError), match=r"missing keyword argument|one of project_id and"):
        task(task_id="t")
    with pytest.raises(TypeError, match="polling"):
        make(task, polling=3)


@pytest.mark.parametrize("task", [task for task in TASKS if "project_id" in arguments_of(task)])
def test_wherever_a_project_id_is_taken_a_name_is_too(task: type[BaseOperator]) -> None:
    made = make(task, project_name="{{ params.project }}")
    assert (made.project_id, made.project_name) == (None, "{{ params.project }}")
    with pytest.raises(ConfigurationError, match=r"one of project_id and project_name must be given; given: both"):
        make(task, project_id="p", project_name="n")
    optional = task in (operators.OmiliaDownloadGenerationArtifactOperator, sensors.OmiliaRunSensor)
    if optional:
        assert make(task, project_id=None).project_id is None
    else:
        with pytest.raises(ConfigurationError, match="given: none"):
            make(task, project_id=None)


def test_the_arguments_of_a_start_by_id_are_what_they_were() -> None:
    """By them a retry knows whether it is the same start."""
    for task in (operators.OmiliaCreateRunOperator, operators.OmiliaCreateGenerationOperator):
        assert "project_name" not in make(task).start_arguments()
        assert "project_id" not in make(task, project_name="n").start_arguments()


@pytest.mark.parametrize("argument", ["timeout", "poll_interval"])
def test_a_time_that_can_be_none_is_refused(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        make(operators.OmiliaRevokeRunOperator, **{argument: 0})


def test_airflow_stores_no_git_token_of_an_operator() -> None:
    with DAG("d", schedule=None) as dag:
        for task in (operators.OmiliaCreateProjectOperator, operators.OmiliaUpdateProjectOperator):
            make(task, task_id=task.__name__, url="https://git.example.com/a", git_token=TOKEN, git_provider="gitlab")
    stored = json.dumps(DagSerialization.to_dict(dag))
    assert "git.example.com" in stored
    assert TOKEN not in stored


def test_a_token_of_digits_stays_a_text() -> None:
    with DAG("d", schedule=None, render_template_as_native_obj=True):
        made = make(operators.OmiliaCreateProjectOperator, git_token="{{ token }}")
    assert made._rendered_token({"token": "0012"}) == "0012"
    assert made.git_token == "{{ token }}"
