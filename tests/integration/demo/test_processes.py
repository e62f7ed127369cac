"""The demo's care for the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.processes import Child, alive, end_children, end_leftovers, families, read_pids, write_pid
from tests.harness.waiting import WITHIN

pytestmark = pytest.mark.integration

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
    until = time.monotonic() + WITHIN
    while not child.tail().strip():
        assert time.monotonic() < until
        time.sleep(0.05)
    return child, psutil.Process(int(child.tail().split()[0]))


def runs(process: psutil.Process) -> bool:
    # Where nobody looks after orphans they stay as zombies.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_whole_family_is_ended(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path, 300)
    # The parent has time enough to end as it is asked to; its child does not do so.
    assert end_children([child], grace=4.0) == 1
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
