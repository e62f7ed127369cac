"""The arrows between the modules point one way, as pyproject.toml has them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter import cli

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[2]
_SETTINGS = _ROOT / "pyproject.toml"


def _contracts() -> int:
    return len(tomllib.loads(_SETTINGS.read_text())["tool"]["importlinter"]["contracts"])


def test_the_contracts_are_kept(capsys, monkeypatch):
    monkeypatch.chdir(_ROOT)
    status = cli.lint_imports(config_filename=str(_SETTINGS), no_cache=True)
    said = capsys.readouterr().out
    assert status == cli.EXIT_STATUS_SUCCESS, said
    assert f"Contracts: {_contracts()} kept, 0 broken." in said


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
    lint = f"import sys; from importlinter import cli; sys.exit(cli.lint_imports({str(_SETTINGS)!r}, no_cache=True))"
    run = subprocess.run([sys.executable, "-c", lint], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"Contracts: 0 kept, {_contracts()} broken." in run.stdout, run.stdout + run.stderr
    assert "nowhere" in run.stdout
