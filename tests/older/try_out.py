"""The provider on the Airflow of this environment, from the start of runs to their verdicts.

``python -m tests.older.try_out FOLDER``; the exit status says whether all was as it should be.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import LocalAirflow
from tests.harness.waiting import wait_until
from tests.older.dags.older import PROJECTS

_PASSED, _FAILED = ("success", "passed"), ("failed", "failed")
#: Each task instance: its end, and the verdict in its result.
EXPECTED: dict[tuple[str, int], tuple[str, str | None]] = {
    **{
        (f"{platform}_{how}", -1): _PASSED for platform in ("eggplant", "futureagi") for how in ("deferred", "in_place")
    },
    **{(f"failing_{how}", -1): _FAILED for how in ("deferred", "in_place")},
    **{("mapped", index): _PASSED for index in range(3)},
    ("lost", -1): _PASSED,
    ("start", -1): ("success", None),
    ("watch", -1): _PASSED,
    ("macros", -1): ("success", None),
}
#: The sensor and the task with macros start none.
RUNS = len(EXPECTED) - 2


def main(folder: Path) -> int:
    """Try it out."""
    # Longer than a slow round of the scheduler: Airflow fails a task whose trigger fires before it has taken note of
    # the deferral, and without a record the next try starts another run.
    with SandboxServer(run_seconds=20.0) as sandbox:
        control = sandbox.control
        for name, project_id in PROJECTS.items():
            control.create_project(name, id=project_id, ending="failed" if name == "failing" else "passed")
        connections = sandbox.connections()
        # For a lookup that is over soon.
        connections["omilia_default"]["extra"]["timeout"] = 5
        dags = Path(__file__).parent / "dags"
        with LocalAirflow(folder, dags=dags, connections=connections, parallelism=4, say=print) as airflow:
            airflow.wait_for_dags(["older", "following"])
            # What has finished before the watcher looks is not told of.
            wait_until(lambda: control.count("omilia.list_project_runs") > 1, "the project is watched")
            # Which of Omilia's starts it hits is all the same: none may be sent again.
            control.fault("drop", operation="omilia.create_run", when="after", times=1)
            run_id = airflow.api.trigger("older")
            airflow.wait_for_run("older", run_id, within=240)
            # Fails, if it ended: older triggerers end when their channel is spoken to from the wrong thread.
            airflow.check()
            found = _ends(airflow.home / "airflow.db")
            finished = {run["run_id"] for run in control.runs("omilia") if run["target_id"] == PROJECTS["passing"]}
            wait_until(lambda: set(_told(airflow.home / "airflow.db")) >= finished, "an event for each run")
            told = _told(airflow.home / "airflow.db")
            logs = "\n".join(path.read_text(errors="replace") for path in airflow.logs.rglob("attempt=*.log*"))
        faults = [f"{key} is {found.get(key)}, not {end}" for key, end in EXPECTED.items() if found.get(key) != end]
        if (count := len(control.runs())) != RUNS:
            faults.append(f"{count} runs were started, not {RUNS}")
        if sorted(told) != sorted(finished):
            faults.append(f"{len(told)} events came of {len(set(told))} runs; {len(finished)} have finished")
        if "whose start response was lost" not in logs:
            faults.append("no lost start was adopted")
        faults += [f"against the platforms' documents: {violation}" for violation in control.violations()]
    for fault in faults:
        print(f"  FAULT  {fault}")
    print("All as it should be" if not faults else f"{len(faults)} faults; logs are in {folder}")
    return 1 if faults else 0


def _told(database: Path) -> list[str]:
    """The run of each event of the watched project."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        events = [json.loads(extra) for (extra,) in connection.execute("SELECT extra FROM asset_event")]
    return [event["payload"]["run_id"] for event in events if "payload" in event]


def _ends(database: Path) -> dict[tuple[str, int], tuple[str, str | None]]:
    """What became of each task instance."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        states = connection.execute("SELECT task_id, map_index, state FROM task_instance").fetchall()
        values = connection.execute("SELECT task_id, map_index, value FROM xcom WHERE \"key\" = 'return_value'")
        results: dict[tuple[str, int], Any] = {(task, index): json.loads(value) for task, index, value in values}
    return {(task, index): (state, (results.get((task, index)) or {}).get("verdict")) for task, index, state in states}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
