"""What the end of a run of the tests says and finds: each of these runs tests of its own in another pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.integration

CONFTEST = """
from tests.conftest import *
from tests.conftest import _chance_repeats
"""
GOOD = """
import socket, subprocess, sys, tempfile
import pytest

def test_that_cleans_up(tmp_path):
    with tempfile.NamedTemporaryFile(), socket.create_server(("127.0.0.1", 0)):
        (tmp_path / "file").touch()
        subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.skip(reason="there is no moon tonight")
def test_that_is_skipped():
    pass
"""
#: Each leaves something, and one fails in a way that a seed repeats.
BAD = """
import os, random, socket, subprocess, sys, tempfile
from pathlib import Path

KEPT = []

def test_that_leaves_a_process():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True))
    Path(os.environ["TOLD"]).write_text(str(KEPT[0].pid))

def test_that_leaves_a_port():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

def test_that_leaves_a_temporary_file():
    tempfile.mkstemp(suffix=".left_in_tmp")

def test_that_leaves_a_file_where_the_project_is():
    Path("left_in_project.txt").touch()

def test_that_chance_decides():
    print("chance chose", random.randrange(10**9))
"""


def run(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests in another pytest, with the conftest of all tests."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_XDIST", "CI"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder.parent / 'kept'}", *options],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "TOLD": str(folder.parent / "told")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_that_leaves_nothing_passes_and_says_what_it_did(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    done = run(folder, GOOD, "-n", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"=+ 1 passed, 1 skipped in .* =+", lines[-1]), done.stdout
    assert "   1 there is no moon tonight (test_it.py::test_that_is_skipped)" in done.stdout
    slowest = lines.index("The slowest, set-up and clean-up included:")
    assert re.fullmatch(r" +\d+\.\d s  test_it.py::test_that_cleans_up", lines[slowest + 1])
    assert re.search(r"^Seed: \d+\. To repeat", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("options", [("-n", "1"), ()], ids=["in a worker", "in one process"])
def test_a_run_that_leaves_something_fails_and_names_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    done = run(folder, BAD, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(r"=+ 5 passed, 1 error in .* =+", done.stdout.splitlines()[-1]), done.stdout
    pid = int((tmp_path / "told").read_text())
    assert re.search(rf"process {pid}.*time\.sleep\(3600\)", done.stdout)
    assert re.search(r"port \d+ is still listened on", done.stdout)
    assert re.search(r"file /.*\.left_in_tmp", done.stdout)
    assert "file left_in_project.txt" in done.stdout
    # What was left is in nobody's way any more.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_seed_repeats_what_chance_chose(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    chosen = [
        re.findall(r"chance chose (\d+)", run(folder, BAD, "-s", "-k", "chance", *options).stdout)
        for options in (["--hypothesis-seed=7"], ["--hypothesis-seed=7"], ["--hypothesis-seed=8"])
    ]
    assert [len(numbers) for numbers in chosen] == [1, 1, 1]
    assert chosen[0] == chosen[1] != chosen[2]
