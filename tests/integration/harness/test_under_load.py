"""The busy loops of ``make test-under-load`` are gone when the command is, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.harness.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_loop_is_left(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.under_load", sys.executable, "-c", "import time; time.sleep(3600)"]
    with subprocess.Popen(command, cwd=ROOT) as under_load:
        process = psutil.Process(under_load.pid)
        wait_until(lambda: len(process.children()) == 5, "all are there")
        children = process.children()
        under_load.send_signal(number)
        under_load.wait()
    if number is signal.SIGKILL:
        # Nobody is left who could end the command itself.
        children.pop().kill()
    wait_until(lambda: not any(child.is_running() for child in children), "all have ended")


def test_the_exit_code_is_the_commands() -> None:
    command = [sys.executable, "-m", "tests.under_load", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 7
