"""``python -m tests.dist``: build sdist and wheel, and try them as somebody does who has nothing else.

1. Both are built, the wheel from the sdist, and checked with twine and check-wheel-contents.
2. The wheel alone is installed in an environment of its own: every module is imported, Airflow lists the provider, and an
   example DAG of the wheel runs against its sandbox.
3. The sdist is unpacked, and some of its tests run in that environment.

The files are in ``dist`` afterwards; the environments are in ``.dist``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".dist"
DIST = ROOT / "dist"
PACKAGE = "airflow_provider_testruns"
#: Of the sdist's tests: some without a socket, some over one, and those that read files beside the package.
TESTS = ("tests/unit/test_model.py", "tests/unit/test_provider_info.py", "tests/sandbox/test_server.py")
#: An example DAG, and what its task says when its run has passed.
EXAMPLE, PASSED = "example_omilia", "passed: "
_UV = Path(sys.executable).with_name("uv")
_IMPORTS = f"""
import importlib, pkgutil, sys
import {PACKAGE} as package
names = [each.name for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
print(len(names), package.__file__)
"""
#: Where a wheel's metadata would lead nowhere: links that begin with neither a scheme nor a place on the same page.
_RELATIVE = re.compile(r"\]\((?![a-z][a-z0-9+.-]*:|#)[^)]*\)", re.IGNORECASE)


class Refused(Exception):
    """What was built is not fit to be published. The message says why."""


def main() -> int:
    """Do all of it; the exit status says whether the files are fit to be published."""
    try:
        wheel, sdist = build()
        check(wheel, sdist)
        python = install(wheel)
        try_out(python)
        test_sdist(python, sdist)
    except Refused as problem:
        print(f"FAULT  {problem}")
        return 1
    print(f"As it should be: {wheel.relative_to(ROOT)}, {sdist.relative_to(ROOT)}")
    return 0


def build() -> tuple[Path, Path]:
    """Make both files.

    :return: wheel and sdist.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    # Not isolated: hatchling is the one of constraints.txt.
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT])
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    say(f"Built {wheel.name} ({wheel.stat().st_size >> 10} KiB) and {sdist.name} ({sdist.stat().st_size >> 10} KiB)")
    return wheel, sdist


def check(wheel: Path, sdist: Path) -> None:
    """Look at the files without installing them."""
    tools = environment("tools", "--requirement", Path(__file__).with_name("requirements.txt"))
    run([tools.with_name("twine"), "--no-color", "check", "--strict", wheel, sdist])
    run([tools.with_name("check-wheel-contents"), wheel])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    if lost := _RELATIVE.findall(metadata.get_payload()):
        raise Refused(f"The long description has links that lead nowhere: {', '.join(lost)}.")
    links = {str(line).partition(",")[0] for line in metadata.get_all("Project-URL") or ()}
    if links != {"Documentation", "Changelog", "Source", "Issues"}:
        raise Refused(f"The metadata has these links: {', '.join(sorted(links)) or 'none'}.")
    examples = {path.name for path in (ROOT / "example_dags").glob("*.py")}
    there = {Path(name).name for name in names if name.startswith(f"{PACKAGE}/example_dags/")}
    if there != examples:
        raise Refused(f"Other example DAGs are in the wheel than in the repository: {sorted(there ^ examples)}.")
    say("twine and check-wheel-contents find nothing; links are whole; the example DAGs are in the wheel")


def install(wheel: Path) -> Path:
    """The wheel and what it asks for, and nothing else.

    :return: the interpreter of that environment.
    """
    python = environment("clean", "--constraint", ROOT / "constraints.txt", wheel)
    # An environment that was there already has the wheel of another build.
    run([_UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--reinstall", wheel])
    # Airflow's own warnings may stand before it.
    count, place = run([python, "-I", "-c", _IMPORTS]).splitlines()[-1].split(maxsplit=1)
    if not Path(place).is_relative_to(FOLDER):
        raise Refused(f"The package was imported from {place}, not from the wheel.")
    say(f"Installed alone; its {count} modules can be imported")
    return python


def try_out(python: Path) -> None:
    """Airflow's view of it, and a DAG."""
    home = FOLDER / "home"
    shutil.rmtree(home, ignore_errors=True)
    examples = run([python, "-I", "-c", f"import {PACKAGE}; print({PACKAGE}.__path__[0])"]).strip()
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": f"{examples}/example_dags",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__TESTRUNS__EVENT_DELAY": "0",
    }
    airflow = python.with_name("airflow")
    listed = json.loads(run([airflow, "providers", "list", "--output", "json"], settings))
    versions = {each["package_name"]: each["version"] for each in listed}
    if "airflow-provider-testruns" not in versions:
        raise Refused(f"Airflow does not list the provider among {', '.join(versions)}.")
    say(f"Airflow lists it: version {versions['airflow-provider-testruns']}")
    run([airflow, "db", "migrate"], settings)
    with sandbox(python) as connections:
        shown = run([airflow, "dags", "test", EXAMPLE], settings | connections)
    if PASSED not in shown:
        raise Refused(f"{EXAMPLE} did not pass against the sandbox:\n{shown[-3000:]}")
    say(f"{EXAMPLE}, from the wheel, ran against its sandbox and passed")


@contextmanager
def sandbox(python: Path) -> Iterator[dict[str, str]]:
    """The sandbox of an environment, while it is needed.

    :return: the connections that it says to set.
    """
    command = [str(python), "-I", "-u", "-m", f"{PACKAGE}.sandbox", "--port", "0", "--run-seconds", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=FOLDER)
    try:
        assert process.stdout is not None
        connections = {}
        for line in process.stdout:
            if line.startswith("export "):
                (assignment,) = shlex.split(line.removeprefix("export "))
                name, _, value = assignment.partition("=")
                connections[name] = value
            elif connections:
                break
        if len(connections) != 3:
            raise Refused(f"The sandbox names {len(connections)} connections, not 3.")
        yield connections
    finally:
        process.terminate()
        process.wait(30)


def test_sdist(python: Path, sdist: Path) -> None:
    """The sdist's own tests, against the package in it."""
    folder = FOLDER / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    tests = environment("tests", "--constraint", unpacked / "constraints.txt", "--editable", f"{unpacked}[test]")
    run([_UV, "pip", "install", "--quiet", "--python", tests, "--no-deps", "--editable", unpacked])
    shown = run([tests, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], cwd=unpacked)
    say(f"Tests of the unpacked sdist: {shown.splitlines()[-1]}")


def environment(name: str, *wanted: str | Path) -> Path:
    """An environment of its own, made when there is none or when other things were wanted of it.

    :param name: its folder in ``.dist``.
    :param wanted: arguments of ``uv pip install``.
    :return: its interpreter.
    """
    python = FOLDER / name / "bin" / "python"
    texts = [path.read_text() for path in (*map(Path, wanted), ROOT / "pyproject.toml") if path.suffix in (".txt", ".toml")]
    made_of = json.dumps([*map(str, wanted), *texts])
    stamp = FOLDER / name / "made-of"
    if not stamp.exists() or stamp.read_text() != made_of:
        run([_UV, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER / name])
        run([_UV, "pip", "install", "--quiet", "--python", python, *wanted])
        stamp.write_text(made_of)
    return python


def run(command: list[str | Path], settings: Mapping[str, str] | None = None, cwd: Path = ROOT.parent) -> str:
    """Run a command away from the repository, where nothing of it can be imported by chance.

    :return: what it printed.
    :raises Refused: when it failed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))}
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=inherited | {"PYTHONPYCACHEPREFIX": str(FOLDER / "pycache")} | dict(settings or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if settings else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"{shlex.join(map(str, command))} failed:\n{done.stdout[-4000:]}{(done.stderr or '')[-2000:]}")
    return done.stdout


def say(line: str) -> None:
    """Tell what was found."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
