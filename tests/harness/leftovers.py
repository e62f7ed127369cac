"""What a run of the tests has left behind: processes, listening ports, and files outside its folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from tests.harness.places import MARK

#: How long a process that was told to end may take; seconds.
GRACE = 20.0
#: Folders of tools in the project's own, which nobody keeps under version control.
TOOLS = frozenset(
    {
        ".bench",
        ".cache",
        ".demo",
        ".git",
        ".dist",
        ".docs",
        ".lowest",
        ".matrix",
        ".mutants",
        ".hypothesis",
        ".import_linter_cache",
        ".mypy_cache",
        ".older",
        ".production",
        ".pytest_cache",
        ".ruff_cache",
        ".upgrade",
        ".venv",
        "__pycache__",
    }
)


def processes(mark: str, grace: float = GRACE) -> list[psutil.Process]:
    """The processes that a run has started and that do not end.

    :param mark: the run's.
    :param grace: seconds until one that does not end is left behind.
    """
    end = time.monotonic() + grace
    while found := list(_marked(mark)):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return found


def end(left: Collection[psutil.Process]) -> list[str]:
    """End processes, so that they are in nobody's way; what each of them was."""
    described = [describe(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE)
    return described


def describe(process: psutil.Process) -> str:
    """A process in words, with the ports that it listens on."""
    try:
        command = " ".join(process.cmdline()) or process.name()
        listens = "".join(f", listening on port {port}" for port in ports(process))
    except psutil.Error:
        command, listens = "(has ended since)", ""
    return f"process {process.pid}{listens}: {command[:200]}"


def ports(process: psutil.Process | None = None) -> list[int]:
    """The ports that a process listens on.

    :param process: this one, when not given.
    """
    connections = (process or psutil.Process()).net_connections(kind="inet")
    return sorted({entry.laddr.port for entry in connections if entry.status == psutil.CONN_LISTEN})


def files(folder: Path, tools: Collection[str] = TOOLS) -> set[str]:
    """All files under a folder, and the folders that are empty, by their paths in it.

    :param tools: names of folders that are not looked into.
    """
    found = set()
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in tools and not name.endswith(".egg-info")]
        here = os.path.relpath(at, folder)
        found.update(os.path.normpath(os.path.join(here, name)) for name in names)
        if not folders and not names and here != ".":
            found.add(here + os.sep)
    return found


def _marked(mark: str) -> Iterator[psutil.Process]:
    me = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            theirs = process.environ().get(MARK, "")
            ours = theirs == mark or theirs.startswith(f"{mark}/")
            if ours and process.pid != me and process.status() != psutil.STATUS_ZOMBIE:
                yield process
