"""What the package imports is among its requirements, each with a floor and a reason, and pinned for development."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[2]
_PACKAGE = _ROOT / "airflow_provider_testruns"
_TEXT = (_ROOT / "pyproject.toml").read_text()
_PROJECT = tomllib.loads(_TEXT)["project"]
#: What an import of these names needs, where it is not the distribution of that name.
_AIRFLOW = {
    "airflow": "apache-airflow",
    "airflow.providers.common.compat": "apache-airflow-providers-common-compat",
    "airflow.providers.openlineage": "apache-airflow-providers-openlineage",
    # The facet's own package comes with the provider that sends it, whose floor names it.
    "openlineage": "apache-airflow-providers-openlineage",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


@cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def _distribution(module: str) -> str | None:
    """What must be installed for a module; ``None`` when Python itself or the package has it."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == _PACKAGE.name:
        return None
    for prefix, distribution in sorted(_AIRFLOW.items(), reverse=True):
        if module == prefix or module.startswith(prefix + "."):
            return distribution
    found = _installed().get(top)
    assert found, f"{module} is imported and not installed"
    return _name(found[0])


def test_every_import_is_declared():
    always = {_name(line) for line in _PROJECT["dependencies"]}
    extras = {name: {_name(line) for line in lines} for name, lines in _PROJECT["optional-dependencies"].items()}
    missing = set()
    for path in _PACKAGE.rglob("*.py"):
        declared = always | extras["openlineage"]
        if path.is_relative_to(_PACKAGE / "sandbox"):
            declared |= extras["sandbox"]
        for module in _imports(path):
            distribution = _distribution(module)
            if distribution is not None and distribution not in declared:
                missing.add((distribution, str(path.relative_to(_ROOT))))
    assert missing == set()


def test_every_requirement_is_imported():
    used = {_distribution(module) for path in _PACKAGE.rglob("*.py") for module in _imports(path)}
    assert {_name(line) for line in _PROJECT["dependencies"]} - used == set()


def test_every_requirement_has_a_floor_and_a_reason():
    for line in _PROJECT["dependencies"]:
        assert re.search(r">=\d", line), line
        assert re.search(re.escape(f'"{line}"') + r",\s+# .+", _TEXT), f"{line} has no reason"


def test_every_requirement_is_pinned_for_development():
    pinned = {_name(line) for line in (_ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {_name(line) for line in _PROJECT["dependencies"]} <= pinned


def test_what_is_pinned_is_allowed():
    from packaging.requirements import Requirement

    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (_ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pins = {_name(name): version for name, version in pins.items()}
    for extra in _PROJECT["optional-dependencies"].values():
        for line in [*_PROJECT["dependencies"], *extra]:
            requirement = Requirement(line)
            if _name(requirement.name) in pins:
                assert requirement.specifier.contains(pins[_name(requirement.name)], prereleases=True), line


#: What we ask for, as Airflow's constraints file for its main branch pinned it on 1 October 2026. The files for 3.3 are
#: made of the same releases. They know nothing of junitparser.
_OFFICIAL = {
    "aiohttp": "3.14.3",
    "apache-airflow-providers-common-compat": "1.20.0",
    "apache-airflow-providers-openlineage": "2.20.2",
    "asgiref": "3.12.1",
    "certifi": "2026.7.22",
    "fastapi": "0.136.3",
    "fsspec": "2026.9.0",
    "jinja2": "3.1.6",
    "pydantic": "2.13.5",
    "python-multipart": "0.0.32",
    "requests": "2.34.2",
    "sqlalchemy": "2.1.1",
    "starlette": "1.7.0",
    "structlog": "26.1.0",
    "urllib3": "2.7.0",
    "uvicorn": "0.54.0",
}


def test_it_can_be_installed_with_the_constraints_of_airflow_3_3():
    from packaging.requirements import Requirement

    extras = _PROJECT["optional-dependencies"]
    wanted = [Requirement(line) for line in [*_PROJECT["dependencies"], *extras["sandbox"], *extras["openlineage"]]]
    assert {_name(each.name) for each in wanted} - {"apache-airflow", "junitparser"} == set(_OFFICIAL)
    shut_out = [str(each) for each in wanted if each.name in _OFFICIAL and _OFFICIAL[each.name] not in each.specifier]
    assert shut_out == []
