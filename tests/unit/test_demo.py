"""The demo's judgement of its DAG runs, and its care for the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.processes import Child, alive, end_children, end_leftovers, families, read_pids, write_pid
from demo.results import RunEnd, TaskEnd, expected_end, table, task_name

pytestmark = pytest.mark.unit


def task(name: str, state: str, verdict: str = "", **report: Any) -> TaskEnd:
    found = {"verdict": verdict, "platform": "omilia", **report} if verdict else {}
    return TaskEnd(name, state, found, "http://127.0.0.1/run" if verdict else "", "")


PASSED = task("run", "success", "passed", passed=4, failed=0, unavailable=0)
FAILED = task("run", "failed", "failed", passed=6, failed=2, unavailable=1)
SHOWN = task("show", "success")
NOT_REACHED = task("release", "upstream_failed")


@pytest.mark.parametrize(
    ("expected", "state", "tasks", "surprise"),
    [
        ("passed", "success", (PASSED, SHOWN), ""),
        ("passed", "success", (SHOWN,), "without a single report"),
        ("passed", "failed", (FAILED, NOT_REACHED), "ended as failed"),
        ("passed", "running", (PASSED,), "ended as running"),
        # A run that failed and yet did not fail its task would be a fault of the provider.
        ("passed", "success", (PASSED, task("other", "success", "failed")), "not passed: other"),
        ("passed", "success", (PASSED, task("other", "skipped")), "not passed: other"),
        ("failed", "failed", (FAILED, SHOWN, NOT_REACHED), ""),
        ("failed", "success", (PASSED,), "expected was a failed one"),
        # The platform could not be asked, or could not run the tests: that is not the failure that is to be shown.
        ("failed", "failed", (task("run", "failed"), NOT_REACHED), "without a single report"),
        ("failed", "failed", (task("run", "failed", "errored"),), "no test run was judged as failed"),
        ("failed", "failed", (FAILED, task("tell", "failed")), "failed for another reason: tell"),
    ],
)
def test_surprise(expected: str, state: str, tasks: tuple[TaskEnd, ...], surprise: str) -> None:
    said = RunEnd("example", expected, state, tasks).surprise
    assert surprise in said
    assert bool(said) == bool(surprise)


def test_dag_without_an_expected_end_is_refused() -> None:
    with pytest.raises(ValueError, match="example_x must have one tag"):
        expected_end({"dag_id": "example_x", "tags": [{"name": "example"}]})


def test_table_shows_every_task_with_its_counts() -> None:
    lines = table(
        [RunEnd("example_a", "passed", "success", (PASSED, SHOWN)), RunEnd("example_b", "failed", "failed", (FAILED,))]
    ).splitlines()
    assert lines[0].split() == ["DAG", "task", "platform", "state", "passed", "failed", "unavailable", "link"]
    assert [line.split() for line in lines[2:]] == [
        ["example_a", "run", "omilia", "success", "4", "0", "0", "http://127.0.0.1/run"],
        ["show", "-", "success", "-", "-", "-", "-"],
        ["example_b", "run", "omilia", "failed", "6", "2", "1", "http://127.0.0.1/run"],
    ]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"task_id": "run", "map_index": -1}, "run"),
        ({"task_id": "run", "map_index": 0, "rendered_map_index": None}, "run[0]"),
        ({"task_id": "run", "map_index": 1, "rendered_map_index": "1"}, "run[1]"),
        ({"task_id": "run", "map_index": 1, "rendered_map_index": "smoke"}, "run[1] smoke"),
    ],
)
def test_task_name(found: dict[str, Any], name: str) -> None:
    assert task_name(found) == name


#: Starts a process that ignores polite requests, says its id, and then waits or ends.
PARENT = """
import subprocess, sys, time
stubborn = '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(300)
'''
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def start(folder: Path, seconds: float) -> tuple[Child, psutil.Process]:
    """A child, and the process that it has started."""
    child = Child(
        "parent",
        [sys.executable, "-c", PARENT, str(seconds)],
        environment=os.environ,
        log=folder / "parent.log",
        pids=folder,
    )
    until = time.monotonic() + 20
    while not child.tail().strip():
        assert time.monotonic() < until
        time.sleep(0.05)
    return child, psutil.Process(int(child.tail().split()[0]))


def runs(process: psutil.Process) -> bool:
    # Where nobody looks after orphans they stay as zombies.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_whole_family_is_ended(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path, 300)
    assert end_children([child], grace=0.5) == 1
    assert child.exit_code == -signal.SIGTERM
    assert not runs(grandchild)
    assert read_pids(tmp_path) == {}


def test_descendants_are_found_when_their_parent_is_gone(tmp_path: Path) -> None:
    child, orphan = start(tmp_path, 0)
    while child.exit_code is None:
        time.sleep(0.05)
    assert [process.pid for process in families(dict(read_pids(tmp_path).values()))] == [orphan.pid]
    # What the next start does, which knows nothing but the files.
    assert end_leftovers(tmp_path, grace=0.5) == ["parent"]
    assert not runs(orphan)
    assert read_pids(tmp_path) == {}
    assert end_leftovers(tmp_path) == []


def test_a_process_id_that_another_process_has_by_now_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True) as other:
        try:
            path = write_pid(tmp_path, "gone", other.pid)
            created = psutil.Process(other.pid).create_time()
            path.write_text(path.read_text().replace(str(created), str(created - 3600)))
            assert not alive(other.pid, created - 3600)
            assert end_leftovers(tmp_path, grace=0.2) == []
            assert other.poll() is None
        finally:
            other.kill()
