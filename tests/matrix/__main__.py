"""``python -m tests.matrix``: unit and integration tests on pairs of Python and Airflow, each in its own environment.

A pair is left out, and named, where this machine has no such Python, or where Airflow's release has no version for it.
Airflow is the last of each series; what it needs besides is as new as constraints of our own and its own allow, but for
the older series, which get what there was soon after their release (as in ``make older``).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.older.__main__ import VERSIONS, as_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".matrix"
#: What runs for each pair: what needs no whole Airflow. The rest is in ``make test`` and ``make older``.
TESTS = ("tests/unit", "tests/integration/transport", "tests/integration/hooks", "tests/integration/lifecycle")
_UV = Path(sys.executable).with_name("uv")
_CURRENT = re.search(r"^apache-airflow==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
assert _CURRENT is not None
#: The last of each series, and the day up to which what it needs is taken; ``None``: constraints.txt has its versions.
AIRFLOWS: dict[str, tuple[str, str | None]] = {
    **{version.rpartition(".")[0]: (version, day) for version, day in VERSIONS.items()},
    _CURRENT[1].rpartition(".")[0]: (_CURRENT[1], None),
}


#: What the tests need is newer than the older series of Airflow.
_TESTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
_NEWER = (
    *(re.split(r"[^A-Za-z0-9._-]", line)[0] for line in _TESTS if not line.startswith("airflow-provider-testruns")),
    "apache-airflow-providers-common-sql",
    "apache-airflow-providers-openlineage",
    "openlineage-integration-common",
    "openlineage-python",
    "openlineage-sql",
    "psycopg-binary",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a pair.

    :param pair: Python and Airflow.
    :param word: ``passed``, ``failed`` or ``left out``.
    :param why: pytest's last line, or the reason.
    """

    pair: str
    word: str
    why: str


def main(arguments: list[str]) -> int:
    """Run all pairs that are asked for; the exit status says whether none failed, and at least one ran."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--pythons", nargs="+", default=["3.11", "3.12", "3.13", "3.14"])
    parser.add_argument("--airflows", nargs="+", default=list(AIRFLOWS), choices=list(AIRFLOWS))
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    options = parser.parse_args(arguments)
    outcomes = []
    for airflow in options.airflows:
        for python in options.pythons:
            outcomes.append(outcome := one(python, airflow, options.tests or list(TESTS)))
            print(f"{outcome.pair}: {outcome.word}: {outcome.why}", flush=True)
    ran = [outcome for outcome in outcomes if outcome.word != "left out"]
    failed = [outcome.pair for outcome in ran if outcome.word == "failed"]
    print(f"{len(ran)} of {len(outcomes)} pairs ran; failed: {', '.join(failed) or 'none'}")
    return 1 if failed or not ran else 0


def one(python: str, airflow: str, tests: list[str]) -> Outcome:
    """The tests on one pair."""
    version, day = AIRFLOWS[airflow]
    pair = f"Python {python}, Airflow {version}"
    interpreter = find_python(python)
    if interpreter is None:
        return Outcome(pair, "left out", "this machine has no such Python")
    folder = FOLDER / f"{python}-{version}"
    if problem := environment(folder, interpreter, version, day):
        return Outcome(pair, "left out" if "requires-python" in problem else "failed", problem)
    command = [folder / "bin" / "python", "-m", "pytest", "-q", "-n", "2", *tests]
    done = subprocess.run(
        [str(each) for each in command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "pycache")},
        capture_output=True,
        text=True,
        check=False,
    )
    (FOLDER / f"{python}-{version}.log").write_text(done.stdout + done.stderr)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    return Outcome(pair, "failed" if done.returncode else "passed", last)


def find_python(python: str) -> str | None:
    """An interpreter of this machine; none is fetched."""
    command = [_UV, "python", "find", "--no-python-downloads", "--no-project", python]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip()
    # Those of pyenv are on the path as shims, which answer for the version that is switched on only.
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return next((str(path) for path in sorted(root.glob(f"versions/{python}.*/bin/python"))), None)


def environment(folder: Path, interpreter: str, version: str, day: str | None) -> str:
    """Make an environment of a pair, if there is none yet.

    :return: why there can be none; empty when there is one.
    """
    if (folder / "ready").exists():
        return ""
    python = folder / "bin" / "python"
    command: list[str | Path] = [_UV, "pip", "install", "--quiet", "--python", python, f"apache-airflow=={version}"]
    command += ["--constraint", ROOT / "constraints.txt"] if day is None else as_of(day, *_NEWER)
    command += ["--editable", f"{ROOT}[test]"]
    for step in ([_UV, "venv", "--quiet", "--clear", "--python", interpreter, folder], command):
        done = subprocess.run([str(each) for each in step], capture_output=True, text=True, check=False)
        if done.returncode:
            text = " ".join(done.stderr.split())
            refused = re.search(r"[^.:]*(Requires-Python|Python[<>=!~ ]|requires-python)[^.]*", text)
            return f"requires-python: {refused[0].strip()[:200]}" if refused else text[:400]
    (folder / "ready").touch()
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
