"""Versions of the provider, each in an environment of its own with the same Airflow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".upgrade"
#: The first version whose runs have to be finished by all that come after it.
FIRST = "16bc60e"


class NoSuchVersion(Exception):
    """An environment can't be made; the message says why."""


def interpreter(commit: str) -> Path:
    """The interpreter of an environment with the provider of a commit; made if there is none yet.

    :param commit: as git knows it.
    :raises NoSuchVersion: when this checkout does not have it.
    """
    folder = ENVIRONMENTS / commit
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    git = shutil.which("git")
    if git is None:
        raise NoSuchVersion(f"git is not installed, and the provider of commit {commit} comes from there.")
    found = subprocess.run(
        [git, "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=False, timeout=120
    )
    if found.returncode:
        raise NoSuchVersion(
            f"This checkout does not have commit {commit} (git: {found.stderr.decode(errors='replace').strip()})."
            " A clone with the whole history has it: git fetch --unshallow."
        )
    print(f"Making an environment with the provider of commit {commit}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    uv = Path(sys.executable).with_name("uv")
    constraints = ["--constraint", ROOT / "constraints.txt", "--build-constraint", ROOT / "constraints.txt"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    source.mkdir()
    subprocess.run(["tar", "-x", "-C", source], input=found.stdout, check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, *constraints]
    # Not editable: what is imported is what was built.
    subprocess.run([*install, f"{source}[sandbox]"], check=True)
    (folder / "ready").touch()
    return python
