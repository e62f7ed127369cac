"""Everything in README.md that is code is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_testruns.hooks.registry import hook_class
from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

README = Path(__file__).parents[3] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
JSON = [code for language, code in BLOCKS if language == "json"]


def _called(code: str) -> str:
    return re.findall(r"^(\w+)\(\)$", code, re.MULTILINE)[-1]


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "json"}
    assert len(PYTHON) >= 4


@pytest.mark.parametrize("code", PYTHON, ids=_called)
def test_a_dag_of_the_readme_runs_and_succeeds(airflow: AirflowProcess, platforms: Control, code: str) -> None:
    # Runs that are over at once: these DAGs have the patience of real ones.
    platforms.configure(run_seconds=0.0)
    dag_id = _called(code)
    tasks = airflow.run_file(code.replace(f"\n{dag_id}()", f"\ndag = {dag_id}()"), dag_id)
    assert tasks
    for task_id, done in tasks.items():
        assert (done.state, done.errors) == ("success", []), task_id
    assert len(platforms.runs()) == 1
    last = list(tasks.values())[-1] if len(tasks) == 1 else tasks["wait"]
    assert last.result["verdict"] == "passed"
    assert last.result["passed"] > 0


@pytest.mark.parametrize("code", JSON, ids=lambda code: json.loads(code)["conn_type"])
def test_a_connection_of_the_readme_is_accepted(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    kind = json.loads(code)["conn_type"]
    monkeypatch.setenv(f"AIRFLOW_CONN_{kind.upper()}_DEFAULT", code)
    hook_type = hook_class(kind)
    hook = hook_type(f"{kind}_default")
    given = json.loads(code)
    assert hook.settings.base_url == given["host"]
    assert hook.settings.login == given["login"]
    assert hook.settings.password == given["password"]
    assert hook.settings.verify is True
    assert hook.settings.timeout == 30
    auth, _ = hook_type.make_auth(hook.settings)
    assert given["password"] in auth.secrets()
    assert hook.platform.name == kind


def test_the_readme_names_every_argument_that_the_starting_operators_share() -> None:
    import inspect

    from airflow_provider_testruns.operators.base import StartRunOperator

    shared = set(inspect.signature(StartRunOperator.__init__).parameters) - {"self", "kwargs"}
    table = (
        README.read_text().partition("### Common arguments of the operators that start a run")[2].partition("\n## ")[0]
    )
    assert shared == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
