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


def test_wrong_arrows_are_noticed(tmp_path):
    package = tmp_path / "airflow_provider_testruns"
    shutil.copytree(_ROOT / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, line in [
        ("reporting/text.py", "import airflow_provider_testruns.operators"),
        ("nowhere.py", "x = 1"),
        ("lifecycle/stopping.py", "import airflow_provider_testruns.hooks.base"),
        ("model.py", "import airflow"),
        ("transport/policy.py", "import airflow_provider_testruns.platforms.platform"),
        ("hooks/base.py", "import aiohttp"),
        ("sandbox/clock.py", "import airflow_provider_testruns.model"),
        ("links/run.py", "import airflow_provider_testruns.sandbox"),
    ]:
        with (package / module).open("a") as file:
            file.write(f"\n{line}\n")
    run = _lint(tmp_path)
    assert run.returncode == 1
    assert f"Contracts: 0 kept, {_contracts()} broken." in run.stdout, run.stdout + run.stderr
    assert "nowhere" in run.stdout
