"""``python -m demo``: all example DAGs on a real Airflow against the sandbox, with a table of their ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import requests

from airflow_provider_testruns.sandbox.server import SandboxServer

from .airflow import FINAL_RUN_STATES, AirflowFailed, LocalAirflow
from .processes import alive, read_pids, write_pid
from .rest import AirflowApiError
from .results import RunEnd, collect, expected_end, failure, table, task_name

_ROOT = Path(__file__).resolve().parent.parent
#: How long a test run takes on the sandbox. Airflow's scheduler fails a deferred task that is due again before it has
#: noticed that the worker is done with it, which on a busy machine takes it some seconds.
_RUN_SECONDS = 12.0
#: The pools of the example DAGs and their slots.
POOLS = {"eggplant_shop": 1}
#: How long the DAG runs may take in all; seconds.
_RUNS_WITHIN = 900.0
#: A sign of life is given at least so often while nothing changes; seconds.
_QUIET = 15.0
#: What is told about a task while it is on its way. The others (scheduled, queued, running) last for moments.
_NEWS = {
    "deferred": "waits in the triggerer, holding no worker",
    "up_for_retry": "will be tried again",
    "success": "success",
    "failed": "failed",
    "skipped": "skipped",
    "upstream_failed": "not run, as a task before it failed",
}


class Stopped(Exception):
    """Somebody pressed Ctrl-C, or the process was asked to end."""


class Interruption:
    """Turns signals into an exception at the places that wait, so that nothing is left half done."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """While in here, signals only leave a note."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def pause(self, seconds: float) -> None:
        """Wait.

        :raises Stopped: when a signal has come.
        """
        until = time.monotonic() + seconds
        while True:
            if self.asked is not None:
                raise Stopped(self.asked.name)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.2, left))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number)


class Demo:
    """One run of the demo.

    :param folder: where everything goes that it leaves behind.
    :param dags: the folder of the example DAGs; their files are named after them.
    :param keep_open: leave Airflow running at the end, for its UI.
    :param run_seconds: how long a test run takes on the sandbox.
    """

    def __init__(self, folder: Path, dags: Path, *, keep_open: bool, run_seconds: float) -> None:
        self.folder = folder
        self.dags = dags
        self.keep_open = keep_open
        self.run_seconds = run_seconds
        self.interruption = Interruption()
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line with the seconds since the beginning."""
        print(f"[{time.monotonic() - self._began:4.0f} s] {line}", flush=True)

    def run(self) -> int:
        """Do everything; return the exit status."""
        dag_ids = sorted(path.stem for path in self.dags.glob("example_*.py"))
        if not dag_ids:
            print(f"There are no example DAGs in {self.dags}.", file=sys.stderr)
            return 1
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = self._other_owner()
        if owner is not None:
            print(f"Another demo is running in {self.folder} as process {owner}; end it first.", file=sys.stderr)
            return 1
        own_file = write_pid(self.folder, "demo", os.getpid())
        try:
            with self.interruption.heeded():
                return self._run_on_airflow(dag_ids)
        except Stopped:
            self.say("Stopped before the end.")
            return 130
        except (AirflowFailed, AirflowApiError, requests.RequestException, OSError, RuntimeError, ValueError) as e:
            sys.stdout.flush()
            print(f"\nThe demo failed: {e}", file=sys.stderr, flush=True)
            return 1
        finally:
            own_file.unlink(missing_ok=True)

    def _run_on_airflow(self, dag_ids: Sequence[str]) -> int:
        with contextlib.ExitStack() as stack:
            sandbox = stack.enter_context(SandboxServer(run_seconds=self.run_seconds))
            self.say(f"The sandbox stands for the three platforms, at {sandbox.url}")
            airflow = stack.enter_context(
                LocalAirflow(
                    self.folder,
                    dags=self.dags,
                    connections=sandbox.connections(),
                    say=self.say,
                    pause=self.interruption.pause,
                )
            )
            for name, slots in POOLS.items():
                airflow.api.make_pool(name, slots)
            dags = airflow.wait_for_dags(dag_ids)
            expected = {dag_id: expected_end(dag) for dag_id, dag in dags.items()}
            self.say(f"Airflow has read {len(dag_ids)} example DAGs")
            if self.keep_open:
                self.say(f"Airflow's UI, without login: {airflow.url}")
            runs = {dag_id: airflow.api.trigger(dag_id) for dag_id in dag_ids}
            for dag_id in dag_ids:
                self.say(f"{dag_id} is triggered, its end should be: {expected[dag_id]}")
            self._watch(airflow, runs)
            ends = [collect(airflow.api, dag_id, run_id, expected[dag_id]) for dag_id, run_id in runs.items()]
            good = self._tell(ends, sandbox)
            if self.keep_open:
                self._stay_open(airflow)
        self.say("Done." if good else f"Not as expected. Logs are in {airflow.logs}")
        return 0 if good else 1

    def _watch(self, airflow: LocalAirflow, runs: dict[str, str]) -> None:
        """Tell what changes until all DAG runs are over, or the time is."""
        known: dict[tuple[str, str, int], str | None] = {}
        over: set[str] = set()
        began = told = time.monotonic()
        while True:
            airflow.check()
            # A DAG that is scheduled on an asset may have more runs; they are not awaited.
            ours = set(runs.items())
            found = {
                run["dag_id"]: run["state"]
                for run in airflow.api.all_dag_runs()
                if (run["dag_id"], run["dag_run_id"]) in ours
            }
            lines = []
            for task in airflow.api.all_task_instances():
                if (task["dag_id"], task["dag_run_id"]) not in ours:
                    continue
                key = (task["dag_id"], task["task_id"], task["map_index"])
                if known.get(key) != task["state"]:
                    known[key] = task["state"]
                    if task["state"] in _NEWS:
                        lines.append(f"{task['dag_id']}: {task_name(task)} {_NEWS[task['state']]}")
                    if task["state"] == "up_for_retry":
                        # What failed only for now is no surprise in the end; here is the one place to see why.
                        lines += [f"    {line}" for line in failure(airflow.api, task).splitlines()]
            for dag_id, state in found.items():
                if state in FINAL_RUN_STATES and dag_id not in over:
                    over.add(dag_id)
                    lines.append(f"{dag_id} is over: {state}")
            now = time.monotonic()
            missing = sorted(set(runs) - over)
            if not lines and now - told > _QUIET:
                lines.append(f"Waiting for {', '.join(missing)}")
            for line in lines:
                self.say(line)
            if lines:
                told = now
            if not missing:
                return
            if now - began > _RUNS_WITHIN:
                self.say(f"Not over within {_RUNS_WITHIN:.0f} s, given up: {', '.join(missing)}")
                return
            self.interruption.pause(1.5)

    def _tell(self, ends: Sequence[RunEnd], sandbox: SandboxServer) -> bool:
        """Print what came out; return whether all ended as their examples say."""
        print(f"\n{table(ends)}\n")
        for run in ends:
            for task in run.tasks:
                if task.message:
                    print(f"{run.dag_id}: {task.task} failed with this message:")
                    print("\n".join(f"    {line}" for line in task.message.splitlines()) + "\n")
        width = max(len(run.dag_id) for run in ends)
        for run in ends:
            said = f"UNEXPECTED: {run.surprise}" if run.surprise else "as its example says"
            print(f"{run.dag_id:<{width}}  {run.state}, {said}")
        violations = sandbox.control.violations()
        started = sandbox.control.stats()["runs_created"]
        reports = sum(bool(task.report) for run in ends for task in run.tasks)
        print(f"The sandbox has {sum(started.values())} runs for {reports} reports.")
        for violation in violations:
            print(f"UNEXPECTED request to the sandbox: {violation}")
        print(flush=True)
        return not violations and not any(run.surprise for run in ends)

    def _stay_open(self, airflow: LocalAirflow) -> None:
        self.say(f"Airflow stays open at {airflow.url} (no login). The connections are there, each DAG can be")
        self.say("triggered with its form, the links of the tasks lead to the sandbox's pages. Ctrl-C ends it.")
        try:
            while True:
                airflow.check()
                self.interruption.pause(1.0)
        except Stopped:
            self.say("Ending everything, a moment.")

    def _other_owner(self) -> int | None:
        for pid, created in read_pids(self.folder).values():
            if alive(pid, created) and pid != os.getpid():
                return pid
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    :param arguments: the command line's; ``None`` takes the process's own.
    :return: the exit status: 0 when every DAG ended as its example says.
    """
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Run the example DAGs on a real Airflow against the sandbox, and show how they end.",
    )
    parser.add_argument("--ui", action="store_true", help="keep Airflow open at the end and print its address")
    parser.add_argument(
        "--folder", type=Path, default=_ROOT / ".demo", help="where database and logs go (default: .demo)"
    )
    parser.add_argument(
        "--dags", type=Path, default=_ROOT / "example_dags", help="the DAGs to run (default: example_dags)"
    )
    parser.add_argument(
        "--run-seconds", type=float, default=_RUN_SECONDS, help="how long a test run takes (default: %(default)s)"
    )
    options: Any = parser.parse_args(arguments)
    demo = Demo(options.folder, options.dags, keep_open=options.ui, run_seconds=options.run_seconds)
    return demo.run()


if __name__ == "__main__":
    sys.exit(main())
