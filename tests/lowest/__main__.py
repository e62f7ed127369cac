"""``python -m tests.lowest [PYTEST ARGUMENT …]``: the unit and transport tests on the lowest versions that are allowed.

Of every requirement in ``pyproject.toml``, that is, in an environment of its own (``.lowest``). Airflow, and what is
not named there, are those of ``constraints.txt``: older Airflows are what ``make older`` is for. Where Airflow
asks for a later version than we do, that is the lowest.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".lowest"
#: What the clients are tested by, and whatever needs nothing but Python.
TESTS = ("tests/unit", "tests/integration/transport")
_AIRFLOW = re.compile(r"apache-airflow(-core|-task-sdk)?$")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def direct() -> set[str]:
    """The names of all requirements in ``pyproject.toml``, the package itself aside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {_name(line) for line in lines} - {project["name"]}


def _name(line: str) -> str:
    found = _NAME.match(line)
    assert found is not None, line
    return found[0].lower().replace("_", "-").replace(".", "-")


def constraints() -> str:
    """The lines of ``constraints.txt``, without our requirements and what those ask for; with Airflow itself."""
    ours = {name for name in direct() if not _AIRFLOW.match(name)}
    # A later version of what they are built on may need a later one of them.
    ours |= {_name(line) for name in ours for line in requires(name) or () if not _AIRFLOW.match(_name(line))}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if _NAME.match(line)]
    return "".join(f"{line}\n" for line in lines if _name(line) not in ours)


def environment() -> Path:
    """Make the environment, if there is none for these requirements yet.

    :return: its interpreter.
    """
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "made-of"
    pinned = constraints()
    made_of = hashlib.sha256(((ROOT / "pyproject.toml").read_text() + pinned).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == made_of:
        return python
    print("Making an environment with the lowest versions", flush=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER], check=True)
    limits = FOLDER / "constraints.txt"
    limits.write_text(pinned)
    command: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct"]
    subprocess.run([*command, "--constraint", limits, "--editable", f"{ROOT}[dev]"], check=True)
    stamp.write_text(made_of)
    return python


def main(arguments: list[str]) -> int:
    """Run the tests; the exit status is pytest's."""
    python = environment()
    uv = Path(sys.executable).with_name("uv")
    shown = subprocess.run([uv, "pip", "freeze", "--python", python], capture_output=True, text=True, check=True).stdout
    ours = direct()
    print("With", ", ".join(line for line in shown.splitlines() if "==" in line and _name(line) in ours), flush=True)
    command = [str(python), "-m", "pytest", "-q", *(arguments or TESTS)]
    cache = {"PYTHONPYCACHEPREFIX": str(FOLDER / "pycache")}
    return subprocess.run(command, cwd=ROOT, env=os.environ | cache, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
