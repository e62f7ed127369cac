"""Runs a command on a busy machine: ``python -m tests.under_load make test``, with four busy loops beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

LOOPS = 4
#: Computes until its parent is gone, in whatever way.
BUSY = """
import os, sys

parent = int(sys.argv[1])
while os.getppid() == parent:
    sum(range(1_000_000))
"""


def main(command: Sequence[str]) -> int:
    """Run it.

    :return: its exit code.
    """
    # An interrupt, too: whoever is started in the background by a shell ignores it otherwise.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    loops: list[subprocess.Popen[bytes]] = []
    try:
        loops += [subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]) for _ in range(LOOPS)]
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
