"""``python -m tests.short_runs``: how many tasks Airflow fails because their runs are over too soon.

Airflow puts a task whose trigger has fired into the queue again. If its scheduler has not yet processed its executor's
word of the end of the part before the deferral, it takes that for the end of the whole task and fails it: "executor
finished with state success, but the task instance's state attribute is queued". The setting ``[testruns] event_delay``
is there for that. This starts a whole Airflow once for each value, lets it wait for many runs of 0 to 5 seconds, and
counts.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import LocalAirflow

DAGS = Path(__file__).parent / "dags"
#: What the scheduler writes when it fails a task for this.
FAILED_BY_AIRFLOW = "but the task instance's state attribute is"
_LIMIT = 3600.0


def main(arguments: list[str]) -> int:
    """Measure, and print a line for each delay; the exit status is that of the last one."""
    parser = argparse.ArgumentParser(prog="python -m tests.short_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds that a run takes at most")
    parser.add_argument("--delays", default="0,5", help="values of [testruns] event_delay, one after the other")
    parser.add_argument("--parallelism", type=int, default=8, help="tasks that the executor runs at once")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    failed = 0
    for delay in options.delays.split(","):
        failed = measure(options.runs, options.longest, float(delay), options.parallelism, options.seed)
    return 1 if failed else 0


def measure(runs: int, longest: float, delay: float, parallelism: int, seed: int) -> int:
    """One Airflow and its runs.

    :return: how many tasks did not succeed.
    """
    chance = random.Random(seed)
    with SandboxServer() as sandbox, tempfile.TemporaryDirectory() as folder:
        projects = [
            sandbox.control.create_project(f"p{number}", ending="passed", duration=chance.uniform(0.0, longest))
            for number in range(runs)
        ]
        settings = {"AIRFLOW__TESTRUNS__EVENT_DELAY": str(delay), "SHORT_RUNS_PROJECTS": ",".join(projects)}
        with LocalAirflow(
            Path(folder),
            dags=DAGS,
            connections=sandbox.connections(),
            options=settings,
            parallelism=parallelism,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        ) as airflow:
            airflow.wait_for_dags(["short_runs"])
            began = time.monotonic()
            dag_run = airflow.api.trigger("short_runs")
            airflow.wait_for_run("short_runs", dag_run, within=_LIMIT)
            took = time.monotonic() - began
            states = Counter(str(task["state"]) for task in airflow.api.task_instances("short_runs", dag_run))
            log = (airflow.logs / "scheduler.log").read_text()
        blamed = sum(FAILED_BY_AIRFLOW in line for line in log.splitlines())
        started = len(sandbox.control.runs("omilia"))
    lost = runs - states["success"]
    print(
        f"event_delay {delay:g} s: {runs} runs of 0 to {longest:g} s, {parallelism} at once, {took:.0f} s in all:"
        f" {states['success']} tasks succeeded, {lost} did not; {blamed} lines of the scheduler say that it failed one"
        f" for its executor's late word; {started} runs were started",
        flush=True,
    )
    return lost


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
