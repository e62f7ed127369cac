"""Importing an operator, sensor, trigger or link is cheap: DAG files are parsed all day."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import airflow_provider_testruns

pytestmark = pytest.mark.unit

_PACKAGE = "airflow_provider_testruns"
#: What operators and sensors do: loaded when a task is executed.
_DOING = tuple(f"{_PACKAGE}.tasks.{name}" for name in ("delivery", "execution", "overtime", "record", "stopping"))
#: What DAG files and the triggerer import, beside Airflow.
_SKINS = sorted(
    module.name
    for part in ("operators", "sensors", "tasks", "triggers", "links")
    for path in airflow_provider_testruns.__path__
    for module in pkgutil.walk_packages([f"{path}/{part}"], f"{_PACKAGE}.{part}.")
    if module.name not in _DOING
)
_HOOKS = [f"{_PACKAGE}.hooks.{platform}" for platform in ("eggplant", "futureagi", "omilia")]
_DRIVERS = [f"{_PACKAGE}.transport.blocking", f"{_PACKAGE}.transport.nonblocking"]
#: What is loaded only when something is executed. The first ones are other people's, the last ones ours.
_FORBIDDEN = (
    "requests",
    "urllib3",
    "aiohttp",
    "yarl",
    "fastapi",
    "starlette",
    "uvicorn",
    "airflow.models",
    "airflow.providers_manager",
    "airflow.providers.openlineage",
    "openlineage",
    "junitparser",
    f"{_PACKAGE}.sandbox",
    f"{_PACKAGE}.transport",
    f"{_PACKAGE}.platforms",
    f"{_PACKAGE}.reporting",
    f"{_PACKAGE}.hooks.base",
    f"{_PACKAGE}.hooks.connection",
    f"{_PACKAGE}.lifecycle",
    *_DOING,
    *_HOOKS,
)
_SCRIPT = """
import importlib, json, sys
before, found = set(sys.modules), {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    found[name] = sorted(set(sys.modules) - before)
    before = set(sys.modules)
json.dump(found, sys.stdout)
"""


def _loaded(*modules: str) -> dict[str, list[str]]:
    """What each import loads beyond those before it, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(modules)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


def _heavy(loaded: list[str]) -> list[str]:
    return [name for name in loaded if any(name == each or name.startswith(f"{each}.") for each in _FORBIDDEN)]


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """One process, in which Airflow's own modules come first: what is left is ours. What is executed comes last."""
    airflow = ["airflow.sdk", "airflow.providers.common.compat.sdk", "airflow.triggers.base"]
    return _loaded(f"{_PACKAGE}.get_provider_info", *airflow, *_SKINS, *_HOOKS, *_DRIVERS)


@pytest.mark.parametrize("module", _SKINS)
def test_importing_it_loads_nothing_heavy(module, loaded):
    assert _heavy(loaded[module]) == []


def test_all_skins_are_looked_at():
    parts = {f"{_PACKAGE}.{part}.{name}" for part in ("operators", "sensors") for name in ("eggplant", "omilia")}
    assert parts | {f"{_PACKAGE}.triggers.run", f"{_PACKAGE}.links.run"} <= set(_SKINS)


def test_the_provider_manager_reads_the_provider_without_loading_anything(loaded):
    # Airflow may be there already: a .pth file of the environment loads parts of it at start.
    names = loaded[f"{_PACKAGE}.get_provider_info"]
    assert [name for name in names if name.startswith(_PACKAGE)] == [
        _PACKAGE,
        f"{_PACKAGE}.builtin",
        f"{_PACKAGE}.get_provider_info",
    ]
    assert _heavy(names) == []
    assert "airflow" not in names


def test_what_is_executed_loads_what_is_forbidden_before(loaded):
    # Otherwise the list above could be of names that nobody uses.
    for driver, library in zip(_DRIVERS, ["requests", "aiohttp"], strict=True):
        assert library in loaded[driver]
        assert not [hook for hook in _HOOKS if library in loaded[hook]]
    assert {f"{_PACKAGE}.platforms", f"{_PACKAGE}.hooks.base"} <= set(loaded[_HOOKS[0]])
