"""The arrows between the modules point one way, as pyproject.toml has them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[2]
_SETTINGS = _ROOT / "pyproject.toml"


def _contracts() -> int:
    return len(tomllib.loads(_SETTINGS.read_text())["tool"]["importlinter"]["contracts"])


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # In a process of its own: it silences every logger that is there.
    lint = f"import sys; from importlinter import cli; sys.exit(cli.lint_imports({str(_SETTINGS)!r}, no_cache=True))"
    return subprocess.run([sys.executable, "-c", lint], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept():
    run = _lint(_ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"Contracts: {_contracts()} kept, 0 broken." in run.stdout


def _with_lines(folder: Path, *lines: tuple[str, str]) -> str:
    """What is reported of a copy of the package with more lines; it is refused."""
    package = folder / "airflow_provider_testruns"
    shutil.copytree(_ROOT / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, line in lines:
        with (package / module).open("a") as file:
            file.write(f"\n{line}\n")
    run = _lint(folder)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("operators", "sensors"),
        ("sensors", "operators"),
        ("tasks", "operators"),
        ("reporting", "triggers"),
        ("hooks", "reporting"),
        ("hooks", "lifecycle"),
        ("lifecycle", "links"),
        ("links", "hooks"),
    ],
)
def test_siblings_know_nothing_of_each_other(tmp_path, one, other):
    reported = _with_lines(tmp_path, (f"{one}/__init__.py", f"import airflow_provider_testruns.{other}"))
    assert f"airflow_provider_testruns.{one} -> airflow_provider_testruns.{other} (l." in " ".join(reported.split())


def test_wrong_arrows_are_noticed(tmp_path):
    reported = _with_lines(
        tmp_path,
        ("reporting/text.py", "import airflow_provider_testruns.operators"),
        ("nowhere.py", "x = 1"),
        ("lifecycle/stopping.py", "import airflow_provider_testruns.hooks.base"),
        ("model.py", "import airflow"),
        ("transport/policy.py", "import airflow_provider_testruns.platforms.platform"),
        ("hooks/base.py", "import aiohttp"),
        ("sandbox/clock.py", "import airflow_provider_testruns.model"),
        ("links/run.py", "import airflow_provider_testruns.sandbox"),
    )
    assert f"Contracts: 0 kept, {_contracts()} broken." in reported
    assert "nowhere" in reported
