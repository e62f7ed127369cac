"""A storm from start to balance, on an Airflow of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import requests

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import START_WITHIN, LocalAirflow, free_port
from demo.rest import AirflowApi, AirflowApiError

from .books import Balance, balance
from .ledger import Ledger
from .plan import DAG_ID, make_plan
from .storm import Storm, Weather

DAGS = Path(__file__).parent / "dags"
OPTIONS = {
    # So that the dead are noticed within the time of a test.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    # Nobody changes the DAG files.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
    # A worker that dies while it reports leaves its task in the queue.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "10",
}


def chaos(
    folder: Path,
    *,
    seed: int,
    tasks: int,
    weather: Weather,
    within: float,
    parallelism: int = 8,
    say: Callable[[str], None] = print,
    database: Path | None = None,
) -> Balance:
    """Run tasks through a storm and close the books.

    :param folder: where Airflow keeps all it has.
    :param seed: repeats all choices.
    :param tasks: how many task instances.
    :param within: seconds for the storm.
    :param database: as for :class:`~demo.airflow.LocalAirflow`.
    """
    random = Random(seed)
    with SandboxServer(seed=seed) as sandbox:
        plan = make_plan(random, tasks, sandbox.control)
        folder.mkdir(parents=True, exist_ok=True)
        plan.write(folder / "plan.json")
        connections = sandbox.connections()
        for connection in connections.values():
            # The window of a lost start is this and a minute.
            connection["extra"]["timeout"] = 5
        airflow = LocalAirflow(
            folder,
            dags=DAGS,
            connections=connections,
            options={
                **OPTIONS,
                "CHAOS_PLAN": str(folder / "plan.json"),
                "CHAOS_AT_ONCE": str(parallelism),
            },
            parallelism=parallelism,
            say=say,
            database=database,
        )
        with airflow:
            ledger = Ledger(airflow.home / "airflow.db")
            ledger.begin()
            airflow.wait_for_dags([DAG_ID])
            users = server_for_users(airflow, say)
            storm = Storm(airflow, users, sandbox.control, plan, ledger, random, weather, say)
            storm.begin()
            began = time.monotonic()
            storm.run(airflow.api.trigger(DAG_ID), within)
            # What was asked to stop gets the time that it may take.
            time.sleep(3.0)
            books = balance(storm, ledger, airflow.logs / "tasks")
            books.counts["seconds"] = round(time.monotonic() - began)
        secrets = set(sandbox.control.issued_tokens()) | set(passwords(connections))
        books.counts["secrets searched for"] = len(secrets)
        books.faults += search(secrets, ledger.dump(), airflow.logs)
    return books


def server_for_users(airflow: LocalAirflow, say: Callable[[str], None]) -> AirflowApi:
    """Start an API server for users alone.

    What a user asks for is written down first, for which the server waits in its event loop. With SQLite, which has one
    writer at a time, the writer may be a worker's request to the same server, which waits for its turn in that loop:
    nothing moves until one of them gives up.
    """
    port = free_port()
    airflow.start_component("api-server", "api-server for users", "--apps", "core", "--port", str(port))
    api = AirflowApi(f"http://127.0.0.1:{port}")
    until = time.monotonic() + START_WITHIN
    while True:
        airflow.check()
        try:
            api.health()
        except (requests.ConnectionError, requests.Timeout, AirflowApiError):
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            say("The API server for users is up")
            return api


def passwords(connections: dict[str, dict]) -> list[str]:
    return [connection["password"] for connection in connections.values()] + [
        connection["extra"]["secret_key"] for connection in connections.values() if "secret_key" in connection["extra"]
    ]


def search(secrets: set[str], dump: str, logs: Path) -> list[str]:
    """Where secrets are in the database (XComs, trigger arguments and records with it) and in all logs."""
    pattern = re.compile("|".join(re.escape(secret) for secret in sorted(secrets)))
    places = {"the metadata database": dump}
    places |= {str(path): path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file()}
    return [f"a secret is in {place}" for place, text in places.items() if pattern.search(text)]
