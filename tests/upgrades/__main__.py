"""``python -m tests.upgrades``: runs that one version of the provider has started, finished by another, on a running
Airflow.

Deferred tasks and tasks that wait in place, sensors, a timeout, a run that the platform has lost: started by the first
version and finished by this one; started by this one and finished by the first, as after a step back; and with a worker
and a triggerer of different versions side by side, both ways.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from .environment import FIRST, NoSuchVersion, interpreter
from .play import EXPECTED, Play, Versions

_FIXTURES = Path(__file__).parent / "fixtures"
#: Of the task whose time ends: after the change of versions.
_TIMEOUT = 150.0


def main() -> int:
    """Do it; the exit status says whether all was as it should be, 2 that it could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrades", description=__doc__)
    parser.add_argument("--commit", default=FIRST, help="the other version (default: %(default)s)")
    parser.add_argument("--rounds", default="1,2,3,4", help="which of the four (default: %(default)s)")
    parser.add_argument("--write", metavar="NAME", help="only write down what a version stores, as a fixture's name")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    arguments = parser.parse_args()
    # What is asked to end leaves no process behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", flush=True)

    try:
        then, now = _versions(arguments.commit)
    except NoSuchVersion as e:
        print(e, file=sys.stderr)
        return 2
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="upgrades-"))
    if arguments.write:
        versions = then if arguments.write == arguments.commit else now
        faults = _write(folder, versions, arguments.write, say)
    else:
        faults = _prove(folder, then, now, {int(one) for one in arguments.rounds.split(",")}, arguments.commit, say)
    for fault in faults:
        print(f"  FAULT  {fault}")
    print("All as it should be" if not faults else f"{len(faults)} faults; all is in {folder}")
    if not faults and arguments.folder is None:
        shutil.rmtree(folder)
    return 1 if faults else 0


def _versions(commit: str) -> tuple[Versions, Versions]:
    then, now = interpreter(commit), Path(sys.executable)
    return Versions(then, then, then), Versions(now, now, now)


def _prove(folder: Path, then: Versions, now: Versions, rounds: set[int], commit: str, say) -> list[str]:
    # The API server and the DAG processor change with the first two, as in a rolling deployment.
    steps = {
        1: (f"started by {commit}, finished by this version", then, now),
        2: (f"started by this version, finished by {commit}", now, then),
        3: (f"workers of {commit}, a triggerer of this version", *[Versions(then.worker, now.triggerer, now.rest)] * 2),
        4: (f"workers of this version, a triggerer of {commit}", *[Versions(now.worker, then.triggerer, now.rest)] * 2),
    }
    chosen = [steps[number] for number in sorted(rounds)]
    faults = []
    with Play(folder, chosen[0][1], timeout=_TIMEOUT, say=say) as play:
        for name, before, after in chosen:
            say(f"{len(EXPECTED)} tasks, {name}")
            found = play.round(before, after)
            faults += [f"{name}: {fault}" for fault in found]
            say(f"{len(found)} faults")
    return faults


def _write(folder: Path, versions: Versions, name: str, say) -> list[str]:
    with Play(folder, versions, timeout=20.0, say=say) as play:
        faults = play.round(versions, versions)
        path = _FIXTURES / f"{name}.json"
        path.write_text(json.dumps(play.forms.caught(), indent=1, sort_keys=True) + "\n")
        say(f"Written to {path}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
