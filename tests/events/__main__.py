"""``python -m tests.events``: does an event come for every finished run while triggerers are killed?

A whole Airflow with two triggerers watches a project of the sandbox. Runs finish there a few at a time; meanwhile the
triggerer that has the watcher is killed with SIGKILL, again and again, and started anew. Then the events that Airflow
has stored, and those that a DAG which is scheduled on the asset was given, are compared with the platform's list.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import LocalAirflow
from tests.harness.postgresql import cluster

DAGS = Path(__file__).parent / "dags"
_TRIGGERERS = ("triggerer", "triggerer-2")
#: For hanging only; seconds.
_WITHIN = 480.0


def main(arguments: list[str]) -> int:
    """Try it, and print what came of it; the exit status is 1 when an event is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.events", description=__doc__)
    parser.add_argument("--runs", type=int, default=250)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--every", type=float, default=0.5, help="seconds from one run to the next, on average")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        url = None
        if options.database == "postgresql":
            url = stack.enter_context(cluster(max_connections=100))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return watch(folder, url, options.runs, options.kills, options.every, random.Random(options.seed))


def watch(folder: Path, url: str | None, runs: int, kills: int, every: float, chance: random.Random) -> int:
    """One Airflow, its runs and its kills.

    :param url: of the metadata database; ``None`` for SQLite.
    :return: how many runs have no event.
    """
    noted = folder / "noted.txt"
    noted.touch()
    with SandboxServer(run_seconds=3600.0) as sandbox:
        control = sandbox.control
        project = control.create_project("watched", ending="passed")
        # What has finished before is not to be told of.
        before = control.add_runs("omilia", project, 50, duration=1.0, age=600.0)
        run_ids = control.add_runs("omilia", project, runs)
        settings = {
            "EVENTS_PROJECT": project,
            "EVENTS_NOTED": str(noted),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            # How soon the other triggerer takes over; the default is half a minute.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
            **_database(url),
        }
        airflow = LocalAirflow(
            folder / "airflow", dags=DAGS, connections=sandbox.connections(), options=settings, say=_say
        )
        with airflow:
            found = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
            names = {_newest_triggerer(found): _TRIGGERERS[0]}
            airflow.wait_for_dags(["finished"])
            names[_start(airflow, found, _TRIGGERERS[1])] = _TRIGGERERS[1]
            _until(lambda: _rows(found, "SELECT value FROM asset_state_store"), "the first cursor")
            _say(f"Watching {runs} runs; {kills} kills to come")
            finishing = threading.Thread(target=_finish, args=(control, run_ids, every, chance), daemon=True)
            began = time.monotonic()
            finishing.start()
            for kill in range(kills):
                _until(
                    lambda kill=kill: len(_told(found)) >= (kill + 0.5) * runs / (kills + 1),  # type: ignore[misc]
                    f"kill {kill + 1}",
                )
                time.sleep(chance.uniform(0.0, 3.0))
                name = names[_until(lambda: _holder(found, names), "a triggerer with the watcher")]
                airflow.end_component(name, grace=0)
                _say(f"Killed {name}, {len(set(_told(found)))} runs told of")
                names[_start(airflow, found, name)] = name
            finishing.join()
            with contextlib.suppress(TimeoutError):
                _until(lambda: set(_told(found)) >= set(run_ids), "the last events", 180.0)
            took = time.monotonic() - began
            # What is sent twice is on its way by now.
            time.sleep(10.0)
            told = _told(found)
            # Airflow gives a DAG what was stored after it was queued only with the next event: not all, maybe.
            with contextlib.suppress(TimeoutError):
                _until(lambda: set(noted.read_text().split()) >= set(told), "the DAG's last run", 30.0)
            seen = set(noted.read_text().split())
            (cursor,) = _rows(found, "SELECT value FROM asset_state_store")
            found.dispose()
        listed = {run["run_id"] for run in control.runs("omilia") if run["phase"] == "finished"} - set(before)
    counts = Counter(told)
    lost = listed - set(counts)
    repeated = sum(count - 1 for count in counts.values())
    strangers = set(counts) - listed
    print(
        f"{'PostgreSQL' if url else 'SQLite'}: {len(listed)} runs finished within {took:.0f} s, {kills} kills:"
        f" {len(lost)} lost, {repeated} repeated (each with the run_id of its run), {len(strangers)} of other runs;"
        f" the DAG was told of {len(seen & listed)}; the cursor has {len(cursor)} bytes",
        flush=True,
    )
    return len(lost) + len(strangers)


def _database(url: str | None) -> dict[str, str]:
    if url is None:
        return {}
    # Otherwise Airflow asks for asyncpg.
    asynchronous = url.replace("+psycopg:", "+psycopg_async:")
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": asynchronous}


def _finish(control: Control, run_ids: list[str], every: float, chance: random.Random) -> None:
    """Let runs finish, one to nine at a time, in no order."""
    left = chance.sample(run_ids, len(run_ids))
    while left:
        some, left = left[: (count := chance.randint(1, 9))], left[count:]
        for run_id in some:
            control.finish_run(run_id)
        time.sleep(every * len(some))


def _start(airflow: LocalAirflow, found: Engine, name: str) -> int:
    """Start a triggerer; the id of its job."""
    before = _newest_triggerer(found)
    airflow.start_component("triggerer", name)
    return _until(lambda: newest if (newest := _newest_triggerer(found)) != before else None, f"{name} to start")


def _newest_triggerer(found: Engine) -> int:
    rows = _rows(found, "SELECT max(id) FROM job WHERE job_type = 'TriggererJob'")
    return int(rows[0] or 0)


def _holder(found: Engine, names: dict[int, str]) -> int | None:
    """The job of the living triggerer that has the watcher."""
    living = {name: job for job, name in sorted(names.items())}
    rows = _rows(found, "SELECT triggerer_id FROM \"trigger\" WHERE classpath LIKE '%FinishedRunsTrigger'")
    return next((job for job in rows if job in living.values()), None)


def _told(found: Engine) -> list[str]:
    """The run of each event that is stored."""
    extras = _rows(found, "SELECT extra FROM asset_event ORDER BY id")
    events = [json.loads(extra) if isinstance(extra, str) else extra for extra in extras]
    return [str(event["payload"]["run_id"]) for event in events]


def _rows(found: Engine, query: str) -> list[Any]:
    """The first column."""
    with found.connect() as connection:
        return [row[0] for row in connection.execute(text(query))]


def _until(condition: Any, what: str, within: float = _WITHIN) -> Any:
    end = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {within:.0f} s for {what}")
        time.sleep(0.3)
    return result


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
