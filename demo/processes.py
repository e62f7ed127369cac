"""Child processes that are ended whatever happens: at the end, after an error, and by the next start after a kill.

Each is the leader of a session of its own, and all that it starts stays in that session. So its whole family is found
by the session's id, also when the leader is dead already; the id is kept in a file for the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

#: How long processes may take to end by themselves; seconds.
GRACE = 8.0
#: Times of creation are rounded differently by different readers; seconds.
_SAME_MOMENT = 1.0


class Child:
    """A process, its log, and the file that a later start finds it by.

    :param name: what it is called in messages; also the names of its files.
    :param command: program and arguments.
    :param environment: the whole environment.
    :param log: the file that takes its output.
    :param pids: the folder of the files with process ids.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, pids: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the one who started it, who then ends it in an orderly way.
                start_new_session=True,
            )
        self.pid_file = write_pid(pids, name, self._popen.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; ``None`` while it runs."""
        return self._popen.poll()

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def write_pid(pids: Path, name: str, pid: int) -> Path:
    """Note a process for a later start; the time of its creation tells it from another one with the same id."""
    path = pids / f"{name}.json"
    try:
        created = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        created = time.time()
    path.write_text(json.dumps({"name": name, "pid": pid, "created": created}))
    return path


def read_pids(pids: Path) -> dict[str, tuple[int, float]]:
    """Process id and time of creation of what was noted, by name. Files that are half written, or just gone, are
    passed over.
    """
    noted = {}
    for path in sorted(pids.glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError, FileNotFoundError):
            data = json.loads(path.read_text())
            noted[str(data["name"])] = (int(data["pid"]), float(data["created"]))
    return noted


def alive(pid: int, created: float) -> bool:
    """Whether this very process runs."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - created) < _SAME_MOMENT and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def families(leaders: Mapping[int, float]) -> list[psutil.Process]:
    """The leaders that run and all their descendants, those included whose parents are gone.

    :param leaders: times of creation by process id.
    """
    # A process id that another process has got since is none of ours. While a session has members its id is not given
    # away, so the other ids are safe to look for.
    reused = {pid for pid, created in leaders.items() if psutil.pid_exists(pid) and not _created(pid, created)}
    ours = {pid: created for pid, created in leaders.items() if pid not in reused}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            session = os.getsid(process.pid)
            if session in ours and process.create_time() >= ours[session] - _SAME_MOMENT:
                found[process.pid] = process
                # What has left the session, a shell command of a task, say.
                found.update((child.pid, child) for child in process.children(recursive=True))
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _runs(process)]


def end(leaders: Mapping[int, float], grace: float = GRACE) -> int:
    """End whole families: ask the leaders to, then each process that is left, and kill what stays after a grace.

    :param leaders: times of creation by process id.
    :param grace: seconds.
    :return: how many processes had to be killed.
    """
    family = {process.pid: process for process in families(leaders)}

    def left() -> list[psutil.Process]:
        # Who has left the session is found only while the parent lives: so those seen before count, too.
        family.update({process.pid: process for process in families(leaders)})
        return [process for process in family.values() if _runs(process)]

    asked: set[int] = set()
    began = time.monotonic()
    while (running := left()) and (waited := time.monotonic() - began) < grace:
        for process in running:
            # A leader that ends its own children is done sooner than one whose children die under its hands.
            if process.pid not in asked and (process.pid in leaders or waited > grace / 2):
                asked.add(process.pid)
                _signal(process, signal.SIGTERM)
        # Not by waiting for them: that would take the exit codes of our own children away.
        time.sleep(0.2)
    killed: set[int] = set()
    until = time.monotonic() + 5.0
    while (running := left()) and time.monotonic() < until:
        for process in running:
            killed.add(process.pid)
            _signal(process, signal.SIGKILL)
        time.sleep(0.1)
    return len(killed)


def end_children(children: Iterable[Child], grace: float = GRACE) -> int:
    """End children and all that they started, and forget their files. Not to be interrupted by Ctrl-C.

    :return: how many processes had to be killed.
    """
    children = list(children)
    with _undisturbed():
        noted = {child.pid: _noted(child) for child in children}
        killed = end(noted, grace)
        for child in children:
            # A child that was not waited for stays as a zombie.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child._popen.wait(timeout=1.0)
            child.pid_file.unlink(missing_ok=True)
    return killed


def end_leftovers(pids: Path, grace: float = GRACE) -> list[str]:
    """End what an earlier start left running, and forget its files.

    :return: the names of what still had processes.
    """
    noted = read_pids(pids)
    left = [name for name, (pid, created) in noted.items() if families({pid: created})]
    end(dict(noted.values()), grace)
    for path in pids.glob("*.json"):
        path.unlink()
    return left


def _noted(child: Child) -> float:
    try:
        return float(json.loads(child.pid_file.read_text())["created"])
    except (OSError, ValueError, KeyError):
        return time.time()


def _created(pid: int, created: float) -> bool:
    try:
        return bool(abs(psutil.Process(pid).create_time() - created) < _SAME_MOMENT)
    except psutil.NoSuchProcess:
        return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    # psutil makes sure that the id is still this process's.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing interrupts the ending of processes: half of them would stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
