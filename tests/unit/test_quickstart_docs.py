"""docs/quickstart.md: what its commands name exists. ``make newcomer`` runs them."""

from __future__ import annotations

import json
import shlex

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_testruns.sandbox.catalogue import connections
from tests.newcomer.__main__ import PAGE, blocks

pytestmark = pytest.mark.unit


def test_its_connections_are_those_that_the_sandbox_prints() -> None:
    (adding,) = [block.code for block in blocks() if "connections add" in block.code]
    found = {}
    for line in adding.splitlines():
        airflow, thing, add, conn_id, option, value = shlex.split(line)
        assert (airflow, thing, add, option) == ("airflow", "connections", "add", "--conn-json")
        found[conn_id] = json.loads(value)
    assert found == connections("http://127.0.0.1:8765", None)


def test_its_dag_is_the_one_that_it_runs() -> None:
    (saved,) = [block for block in blocks() if block.language == "python"]
    module: dict[str, object] = {"__name__": saved.note.removesuffix(".py")}
    exec(compile(saved.code, str(PAGE), "exec"), module)
    dag = module["my_tests"]()  # type: ignore[operator]
    assert [block.code for block in blocks()][-1] == f"airflow dags test {dag.dag_id}\n"
    DagSerialization.validate_schema(DagSerialization.to_dict(dag))
    assert {"checkout", "support", "voice", "release"} == set(dag.task_ids)
