"""A whole Airflow on this machine: scheduler, triggerer, DAG processor and API server, each a child process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from .processes import Child, end_children, end_leftovers
from .rest import AirflowApi, AirflowApiError

#: The components and their arguments. The two that serve logs would do so to the whole network; here logs are files.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
#: The names of the components in the response to a look at Airflow's health.
_IN_HEALTH = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}
#: How long Airflow may take until all components are healthy; seconds. Without compiled files a minute is normal.
START_WITHIN = 600.0
#: How long a DAG may take from its file to the API; seconds.
DAGS_WITHIN = 600.0
#: While it waits a sign of life is given so often; seconds.
_QUIET = 15.0
#: How long DAG runs and tasks may take, if nobody says otherwise; seconds. For hanging only.
_RUN_WITHIN = 600.0
#: How long a process waits for its turn to write to SQLite; seconds. On a busy machine the default of 5 is too short.
_LOCK_PATIENCE = 60
#: How long Airflow's own limits are made that are there for hanging; seconds. On a busy machine a worker that is not
#: answered within the default of 5 gives its try up before the task has begun, and a DAG file may take longer than 30.
_PATIENCE = 180
FINAL_RUN_STATES = ("success", "failed")


class AirflowFailed(Exception):
    """Airflow did not start, or one of its processes has ended. The message has the end of the log."""


class LocalAirflow:
    """An Airflow of its own, with SQLite, on a free port of 127.0.0.1, that asks for no login.

    .. code-block:: python

        with LocalAirflow(folder, dags=Path("example_dags"), connections=sandbox.connections()) as airflow:
            airflow.wait_for_dags(["example_omilia"])
            run_id = airflow.api.trigger("example_omilia")
            state = airflow.wait_for_run("example_omilia", run_id)

    :param folder: where its database, its logs and its process ids go. What an earlier start left there is removed, and
        its processes are ended.
    :param dags: the folder of the DAG files.
    :param connections: Airflow connections by their ids, as dicts.
    :param options: further environment variables (``AIRFLOW__SECTION__OPTION``).
    :param parallelism: how many tasks run at once.
    :param say: told about each step, one line each.
    :param database: a SQLite database that ``airflow db migrate`` has made, to begin with a copy of it; without, one is
        made.
    :param pause: waits for some seconds; may raise to end the waiting.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dags: Path,
        connections: Mapping[str, Mapping[str, Any]],
        options: Mapping[str, str] | None = None,
        parallelism: int = 2,
        say: Callable[[str], None] = lambda line: None,
        database: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder.resolve()
        self.home = self.folder / "airflow"
        self.logs = self.folder / "logs"
        self._pids = self.folder / "pids"
        self._temporary = self.folder / "tmp"
        self._database = database
        self._say = say
        self._pause = pause
        self._children: dict[str, Child] = {}
        port = free_port()
        #: The interpreter of the components that are started from now on.
        self.python: str | Path = sys.executable
        #: The address of the UI and the API.
        self.url = f"http://127.0.0.1:{port}"
        self.api = AirflowApi(self.url)
        self.environment = _environment(self.home, self.logs, self.url, port, dags.resolve(), parallelism)
        # What is killed leaves its temporary files: here they are in nobody's way.
        self.environment["TMPDIR"] = str(self._temporary)
        for conn_id, connection in connections.items():
            self.environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
        self.environment.update(options or {})

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the database, start the components and wait until all are healthy.

        :raises AirflowFailed: saying which part failed, with the end of its log.
        """
        self._prepare_folder()
        began = time.monotonic()
        self._say("Making Airflow's database")
        if self._database is None:
            self._run_to_end("db-migrate", "db", "migrate")
        else:
            shutil.copy(self._database, self.home / "airflow.db")
        self._say(f"The database is made ({time.monotonic() - began:.0f} s). Starting {', '.join(COMPONENTS)}")
        for name in COMPONENTS:
            self.start_component(name)
        self.wait_until_healthy()

    def stop(self) -> None:
        """End everything that was started. Does nothing the second time."""
        self.api.close()
        if not self._children:
            return
        began = time.monotonic()
        count = len(self._children)
        killed = end_children(self._children.values())
        self._children.clear()
        how = f" ({killed} of their processes had to be killed)" if killed else ""
        self._say(f"Ended {count} Airflow components in {time.monotonic() - began:.0f} s{how}")

    def start_component(self, kind: str, name: str | None = None, *arguments: str) -> Child:
        """Start one of :data:`COMPONENTS`, once more after :meth:`end_component`.

        :param name: what to call it, when there is one of its kind already.
        :param arguments: further ones of its command line.
        """
        name = name or kind
        child = self._child(name, *COMPONENTS[kind], *arguments)
        self._children[name] = child
        return child

    def end_component(self, name: str, grace: float = 8.0) -> None:
        """End one component with all its processes.

        :param grace: seconds until it is killed; 0 kills at once.
        """
        end_children([self._children.pop(name)], grace)

    def pid(self, name: str) -> int:
        """The process id of a component."""
        return self._children[name].pid

    def has_ended(self, name: str) -> bool:
        """Whether a component does not run any more."""
        return self._children[name].exit_code is not None

    def check(self) -> None:
        """Make sure that all components still run.

        :raises AirflowFailed: naming the one that does not.
        """
        for child in self._children.values():
            if child.exit_code is not None:
                raise AirflowFailed(_ended(child))

    def wait_until_healthy(self, within: float = START_WITHIN) -> None:
        """Wait until the API server answers and reports every other component as healthy.

        :param within: seconds.
        :raises AirflowFailed: when one ends, or the time is over.
        """
        began = time.monotonic()
        missing = [name for name in COMPONENTS if name in self._children]
        heartbeat = began
        while True:
            self.check()
            healthy = self._healthy()
            for name in [name for name in missing if name in healthy]:
                missing.remove(name)
                heartbeat = time.monotonic()
                self._say(f"{name} is up" + (f", at {self.url}" if name == "api-server" else ""))
            if not missing:
                return
            now = time.monotonic()
            if now - began > within:
                child = self._children[missing[0]]
                raise AirflowFailed(
                    f"Airflow's {', '.join(missing)} did not get healthy within {within:.0f} s. The end of"
                    f" {child.log}:\n{child.tail()}"
                )
            if now - heartbeat > _QUIET:
                heartbeat = now
                self._say(f"Waiting for {', '.join(missing)}")
            self._pause(0.5)

    def wait_for_dags(self, dag_ids: Collection[str], within: float = DAGS_WITHIN) -> dict[str, dict[str, Any]]:
        """Wait until Airflow knows these DAGs.

        :param within: seconds.
        :return: them, by id, as the API tells of them.
        :raises AirflowFailed: when a DAG file can't be read, or the time is over.
        """
        began = heartbeat = time.monotonic()
        while True:
            self.check()
            errors = self.api.import_errors()
            if errors:
                told = "\n\n".join(f"{name}:\n{trace.strip()}" for name, trace in sorted(errors.items()))
                raise AirflowFailed(f"Airflow can't read {len(errors)} DAG file(s).\n{told}")
            known = self.api.dags()
            missing = sorted(set(dag_ids) - set(known))
            if not missing:
                return {dag_id: known[dag_id] for dag_id in dag_ids}
            now = time.monotonic()
            if now - heartbeat > _QUIET:
                heartbeat = now
                self._say(f"Waiting for Airflow to read {', '.join(missing)}")
            if now - began > within:
                child = self._children["dag-processor"]
                raise AirflowFailed(
                    f"Airflow did not find the DAGs {', '.join(missing)} within {within:.0f} s. The end of"
                    f" {child.log}:\n{child.tail()}"
                )
            self._pause(0.5)

    def wait_for_run(self, dag_id: str, run_id: str, within: float = _RUN_WITHIN) -> str:
        """Wait until a DAG run is over.

        :param within: seconds.
        :return: its state, ``success`` or ``failed``.
        :raises AirflowFailed: when a component ends, or the time is over.
        """
        until = time.monotonic() + within
        while True:
            self.check()
            state = str(self.api.dag_run(dag_id, run_id)["state"])
            if state in FINAL_RUN_STATES:
                return state
            if time.monotonic() > until:
                tasks = self.api.task_instances(dag_id, run_id)
                told = ", ".join(f"{task['task_id']} {task['state']}" for task in tasks)
                raise AirflowFailed(f"The run {run_id} of {dag_id} was not over within {within:.0f} s: {told}.")
            self._pause(0.5)

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str],
        map_index: int = -1,
        within: float = _RUN_WITHIN,
    ) -> str:
        """Wait until a task instance is in one of some states.

        :param states: Airflow's words, ``deferred`` say.
        :param within: seconds.
        :return: the one that it is in.
        :raises AirflowFailed: when a component ends, or the time is over.
        """
        until = time.monotonic() + within
        while True:
            self.check()
            state: str | None = None
            with contextlib.suppress(AirflowApiError):  # mapped instances come to be later
                state = self.api.task_instance(dag_id, run_id, task_id, map_index)["state"]
            if state in states:
                return str(state)
            if time.monotonic() > until:
                wanted = " or ".join(states)
                raise AirflowFailed(f"{dag_id}.{task_id} was not {wanted} within {within:.0f} s, but {state}.")
            self._pause(0.3)

    def _healthy(self) -> set[str]:
        try:
            health = self.api.health()
        except (requests.ConnectionError, requests.Timeout, AirflowApiError):
            return set()
        return {"api-server"} | {name for name, key in _IN_HEALTH.items() if health.get(key) == "healthy"}

    def _prepare_folder(self) -> None:
        if self._pids.is_dir():
            left = end_leftovers(self._pids)
            if left:
                self._say(f"An earlier Airflow was left running here; ended its {', '.join(left)}")
        for path in (self.home, self.logs, self._pids, self._temporary):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(
            name,
            [str(self.python), "-m", "airflow", *arguments],
            environment=self.environment,
            log=self.logs / f"{name}.log",
            pids=self._pids,
        )

    def _run_to_end(self, name: str, *arguments: str) -> None:
        child = self._child(name, *arguments)
        self._children[name] = child
        began = heartbeat = time.monotonic()
        while child.exit_code is None:
            if time.monotonic() - began > START_WITHIN:
                said = f"Airflow's {name} was not done within {START_WITHIN:.0f} s."
                raise AirflowFailed(f"{said} The end of {child.log}:\n{child.tail()}")
            if time.monotonic() - heartbeat > _QUIET:
                heartbeat = time.monotonic()
                self._say(f"Waiting for {name}")
            self._pause(0.2)
        if child.exit_code:
            raise AirflowFailed(_ended(child))
        end_children([self._children.pop(name)])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _ended(child: Child) -> str:
    return f"Airflow's {child.name} has ended with exit code {child.exit_code}. The end of {child.log}:\n{child.tail()}"


def _environment(home: Path, logs: Path, url: str, port: int, dags: Path, parallelism: int) -> dict[str, str]:
    # Whatever the caller's environment says about another Airflow must not reach this one: neither its database nor
    # its connections.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    ours = {
        "AIRFLOW_HOME": home,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout={_LOCK_PATIENCE}",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": parallelism,
        "AIRFLOW__CORE__DAGS_FOLDER": dags,
        "AIRFLOW__CORE__LOAD_EXAMPLES": False,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": 1,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": _PATIENCE,
        # Nor is a task killed whose worker could not tell for some seconds that it lives.
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": 30,
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": _PATIENCE,
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": _PATIENCE,
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": 10,
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": home / "bundles",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": logs / "tasks",
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": logs / "dag-files",
        "NO_COLOR": 1,
        # The components talk to one another here, whatever proxy leads elsewhere.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return inherited | {name: str(value) for name, value in ours.items()}
