"""The example DAGs: they parse alone, show a form that refuses nonsense, and are what the demo takes them for."""

from __future__ import annotations

import json
import os
import runpy
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAll
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_testruns.operators.base import StartRunOperator
from demo.__main__ import POOLS
from demo.results import NO_RUNS, expected_end

pytestmark = pytest.mark.unit

FILES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))
NAMES = [file.stem for file in FILES]
#: How those end that do not pass.
ENDS = {"example_failing_tests": "failed", "example_finished_runs": NO_RUNS, "example_nightly_collector": NO_RUNS}
#: Values that the forms must not let through.
NONSENSE = [
    ("example_asset_results", "known_failures", "transfer_*"),
    ("example_eggplant", "model_id", "Checkout"),
    ("example_eggplant", "model_id", None),
    ("example_eggplant", "test_case_id", 0),
    ("example_eggplant", "test_case_id", "eleven"),
    ("example_eggplant", "agent", {"is_hosted_agent": True}),
    ("example_eggplant", "agent", {"agent_id": "1", "speed": 2}),
    ("example_eggplant_nightly", "models", []),
    ("example_eggplant_nightly", "models", ["Broken"]),
    ("example_eggplant_nightly", "sut_tags", [""]),
    ("example_futureagi", "run_test_id", "nightly-support-sim"),
    ("example_futureagi", "scenario_ids", []),
    ("example_futureagi", "scenario_ids", ["Parcel is late"]),
    ("example_futureagi", "eval_thresholds", {"politeness": 85}),
    ("example_futureagi_gates", "run_test_id", "flaky-support-sim"),
    ("example_futureagi_gates", "eval_thresholds", {"politeness": 85}),
    ("example_futureagi_gates", "strict_thresholds", {"politeness": "high"}),
    ("example_omilia", "project_id", "smoke"),
    ("example_omilia", "group", "nobody"),
    ("example_omilia", "utterance", "x" * 201),
    ("example_omilia_ci", "project", "CI smoke"),
    ("example_omilia_ci", "group", "nobody"),
    ("example_omilia_ci", "artifacts_path", "results"),
    ("example_release_gate", "version", "next"),
    ("example_release_gate", "test_cases", ["eleven"]),
    ("example_release_gate", "scenario_selections", [[]]),
    ("example_release_gate", "projects", []),
    ("example_failing_tests", "group", 7),
    ("example_finished_runs", "alert_on", ["green"]),
    ("example_finished_runs", "alert_on", "failed"),
    ("example_nightly_collector", "folder", "reports"),
    ("example_nightly_collector", "hours", 0),
]
#: They follow runs that others start.
STARTING_NOTHING = ("example_finished_runs", "example_nightly_collector")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Reads an example DAG where there are no connections and no network."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a DAG file talks to somebody: {args[1:]}")

    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def read(name: str) -> DAG:
        dag = runpy.run_path(str(next(file for file in FILES if file.stem == name)))["dag"]
        assert isinstance(dag, DAG)
        return dag

    return read


def test_all_examples_are_here() -> None:
    assert NAMES == [
        "example_asset_results",
        "example_eggplant",
        "example_eggplant_nightly",
        "example_failing_tests",
        "example_finished_runs",
        "example_futureagi",
        "example_futureagi_gates",
        "example_nightly_collector",
        "example_omilia",
        "example_omilia_ci",
        "example_release_gate",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_is_named_after_its_file_and_serialises(load, name: str) -> None:
    dag = load(name)
    assert dag.dag_id == name
    data = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(data)
    again = DagSerialization.from_dict(json.loads(json.dumps(data)))
    assert set(again.task_ids) == set(dag.task_ids)


@pytest.mark.parametrize("name", NAMES)
def test_every_param_is_typed_explained_and_valid(load, name: str) -> None:
    params = load(name).params
    assert params
    for key in params:
        param = params.get_param(key)
        assert {"type", "title"} <= set(param.schema), key
        assert param.description, key
        param.resolve()


@pytest.mark.parametrize("name", NAMES)
def test_form_refuses(load, name: str) -> None:
    params, let_through = load(name).params, []
    for _, key, value in (each for each in NONSENSE if each[0] == name):
        with suppress(ParamValidationError):
            params.get_param(key).resolve(value)
            let_through.append((key, value))
    assert let_through == []


def test_nonsense_is_tried_on_every_param(load) -> None:
    tried = {(name, key) for name, key, _ in NONSENSE}
    assert tried == {(name, key) for name in NAMES for key in load(name).params}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STARTING_NOTHING])
def test_runs_are_started_and_waited_for_without_a_worker(load, name: str) -> None:
    starts = 0
    dag = load(name)
    for task in dag.tasks:
        if isinstance(task, MappedOperator) and issubclass(task.operator_class, StartRunOperator):
            starts += 1
            assert {**dag.default_args, **task.partial_kwargs}["deferrable"] is True
            # Airflow can't start a mapped task for which these are None.
            assert task.inlets == []
            assert task.outlets == []
        elif isinstance(task, StartRunOperator):
            starts += 1
            assert task.deferrable is True
    assert starts >= 1


@pytest.mark.parametrize("name", NAMES)
def test_says_how_it_ends(load, name: str) -> None:
    tags = [{"name": tag} for tag in load(name).tags]
    assert expected_end({"dag_id": name, "tags": tags}) == ENDS.get(name, "passed")


def test_release_waits_for_every_platform(load) -> None:
    release = load("example_release_gate").get_task("release")
    assert release.upstream_task_ids == {"checkout", "support", "voice"}
    assert release.trigger_rule == "all_success"


def test_the_pool_of_the_nightly_runs_is_one_that_the_demo_makes(load) -> None:
    run_model = load("example_eggplant_nightly").get_task("run_model")
    assert run_model.partial_kwargs["pool"] in POOLS
    assert (
        f"pools set --include-deferred {run_model.partial_kwargs['pool']} " in load("example_eggplant_nightly").doc_md
    )


def test_the_assets_example_is_two_dags_and_an_asset() -> None:
    path = next(file for file in FILES if file.stem == "example_asset_results")
    found = runpy.run_path(str(path))
    tests, release = found["dag"], found["release_dag"]
    assert release.dag_id == "example_asset_results_release"
    assert tests.get_task("voice_tests").outlets == [found["voice_tests"]]
    assert release.timetable.asset_condition == AssetAll(found["voice_tests"])


def test_each_project_of_the_finished_runs_has_an_asset_and_a_watcher() -> None:
    path = next(file for file in FILES if file.stem == "example_finished_runs")
    found = runpy.run_path(str(path))
    assets = [found["smoke"], found["broken"]]
    assert {asset.name for asset in assets} == {f"voice-runs-{name}" for name in found["PROJECTS"]}
    for asset in assets:
        (watcher,) = asset.watchers
        assert watcher.trigger.asset_name == asset.name
    (inlets,) = [task.inlets for task in runpy.run_path(str(path.with_stem("example_nightly_collector")))["dag"].tasks]
    assert {inlet.name for inlet in inlets} == {asset.name for asset in assets}
