"""Runs DAGs with ``dag.test()``, one after the other, in one process: Airflow takes seconds to start.

Reads a JSON line from stdin for each DAG (``file``, ``dag_id``, ``arguments`` of ``dag.test()``) and answers with one
on the original stdout (``state``, ``run_id``, or ``error`` when the file can't be read). All that Airflow says goes to
the log, which is stderr. It ends with the process that has started it, in whatever way that one ends and whatever is
being run.
"""

from __future__ import annotations

import json
import mmap
import os
import runpy
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

#: Seconds between two polls at whether the parent lives.
_EVERY = 0.5


def main(parent: int) -> None:
    """Run DAGs.

    :param parent: the process that has started this one.
    """
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _move_clock(Path(os.environ["AIRFLOW_HOME"], "clock"))
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import airflow.settings

    airflow.settings.configure_orm()
    _answer(responses, {"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            dag = runpy.run_path(command["file"])["dag"]
        except Exception as e:  # as Airflow does: a DAG file that can't be read is an import error
            _answer(responses, {"error": f"{type(e).__name__}: {e}"})
            continue
        run = dag.test(**command["arguments"])
        _answer(responses, {"state": str(run.state), "run_id": run.run_id})
    # Threads of Airflow's in-process API would keep the process for seconds.
    os._exit(0)


def _move_clock(file: Path) -> None:
    """Add the seconds that a test writes to a file to ``time.time()``: so time is over when a test says so.

    :param file: has one number, of eight bytes.
    """
    with file.open("rb") as opened:
        passed = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    clock = time.time
    time.time = lambda: clock() + struct.unpack("d", passed)[0]


def _end_with(parent: int) -> None:
    # The end of stdin says it only between two DAGs, and not at all when another process has got the pipe.
    while os.getppid() == parent:
        time.sleep(_EVERY)
    # This process, and what its DAGs have started: it leads a group of its own.
    os.killpg(0, signal.SIGKILL)


def _answer(responses: Any, response: dict[str, Any]) -> None:
    print(json.dumps(response), file=responses, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
