"""A real Airflow for tests: a metadata database, and a process that takes DAGs through ``dag.test()``."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import wait_until

_REPOSITORY = Path(__file__).parents[3]
#: How long Airflow may take to start, and for a DAG; seconds. For hanging only.
_START_WITHIN = 300.0
_RUN_WITHIN = 300.0
#: The password of the connection ``wrong_password``, which the sandbox's Omilia does not accept.
WRONG_PASSWORD = "canary-of-a-wrong-password"
_HEADER = """\
import datetime
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import (
    FutureAGICancelTestExecutionOperator,
    FutureAGIExecuteTestRunOperator,
    FutureAGIRerunCallsOperator,
)
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.eggplant import EggplantExecutionSensor
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

"""


class DagFileError(Exception):
    """The DAG file can't be read."""


class AirflowLostError(Exception):
    """Airflow's process has ended while it ran a DAG, or did not come to an end with it. The next DAG gets another."""


@dataclass(frozen=True)
class RaisedError:
    """An exception that ended a try.

    :param kind: the exception's class name.
    :param message: its text.
    """

    kind: str
    message: str


@dataclass
class TaskRun:
    """What became of a task instance, as the metadata database and the log have it."""

    state: str
    tries: int
    xcoms: dict[str, Any] = field(default_factory=dict)
    rendered: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    #: The lines of the log, over all tries.
    lines: list[str] = field(default_factory=list)
    #: The exceptions that ended tries, in order.
    errors: list[RaisedError] = field(default_factory=list)
    #: How often the task was handed to the triggerer.
    deferrals: int = 0

    @property
    def log(self) -> str:
        """The log as one text."""
        return "\n".join(self.lines)

    @property
    def error(self) -> RaisedError:
        """The one exception that was raised."""
        assert len(self.errors) == 1, self.errors
        return self.errors[0]

    @property
    def result(self) -> dict[str, Any]:
        """The return value."""
        value = self.xcoms["return_value"]
        assert isinstance(value, dict)
        return value


class AirflowProcess:
    """A metadata database and a process, with connections to one sandbox.

    A process that ends or hangs fails the test that it ran a DAG for; the next one gets another, with a database and a
    folder of its own.

    :param folder: an empty folder.
    :param sandbox: where the connections lead.
    :param database: a migrated database, which is copied.
    """

    def __init__(self, folder: Path, sandbox: SandboxServer, database: Path) -> None:
        self.platforms = sandbox.control
        #: Every secret that this Airflow has, or has had: of its connections, and the tokens that it was given.
        self.secrets: set[str] = set()
        #: Those of them that are tokens.
        self.issued: set[str] = set()
        self._folder = folder
        self._migrated = database
        self._runs = 0
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        # Neither another Airflow nor a proxy of the environment has a part in this.
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW_") and not name.lower().endswith("_proxy")
        }
        self._environment |= {
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__JSON_LOGS": "True",
            "PYTHONPATH": str(_REPOSITORY),
        }
        connections = sandbox.connections()
        connections["wrong_password"] = {**connections["omilia_default"], "password": WRONG_PASSWORD}
        for name, connection in connections.items():
            self._environment[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(connection)
            self.secrets |= {connection["password"], connection["extra"].get("secret_key", WRONG_PASSWORD)}
        self._begin()

    @property
    def home(self) -> Path:
        """The folder of Airflow that runs now."""
        return self._folder / f"airflow-{self._number}"

    @property
    def dags(self) -> Path:
        """Where its DAG files are."""
        return self.home / "dags"

    @property
    def log_file(self) -> Path:
        """What it says."""
        return self.home / "logs" / "dag-test.log"

    @property
    def _clock(self) -> Path:
        return self.home / "clock"

    @property
    def database(self) -> Path:
        """Its metadata."""
        return self.home / "airflow.db"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def run_file(
        self, source: str, dag_id: str, within: float = _RUN_WITHIN, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, TaskRun]:
        """Take a DAG through ``dag.test()``.

        :param source: the DAG file; it has the DAG under the name ``dag``.
        :param within: seconds; it hangs if it takes longer.
        :param arguments: of ``dag.test()``, plain data.
        :return: its task instances by ``task_id``, mapped ones as ``task_id[0]``.
        :raises DagFileError: when the file can't be read.
        :raises AirflowLostError: when the process ends or hangs.
        """
        try:
            return self._run_file(source, dag_id, within, arguments or {})
        except DagFileError:
            raise
        except BaseException:
            # Whatever it is, an answer that came too late or the end of pytest's patience: nobody knows what the
            # process still does.
            self.close()
            raise

    def _run_file(self, source: str, dag_id: str, within: float, arguments: Mapping[str, Any]) -> dict[str, TaskRun]:
        if self._process is None:
            self._begin()
        if not self._ready:
            self._response(_START_WITHIN)
            self._ready = True
        for older in self.dags.glob("*.py"):
            # dag.test() reads the whole folder.
            older.unlink()
        file = self.dags / f"{dag_id}.py"
        file.write_text(source)
        self.pass_time(0.0)
        begin = self.log_file.stat().st_size
        self._send({"file": str(file), "dag_id": dag_id, "arguments": dict(arguments)})
        response = self._response(within)
        if "error" in response:
            raise DagFileError(response["error"])
        tasks = self._from_database(dag_id, response["run_id"])
        self._from_log(begin, tasks)
        self.issued.update(self.platforms.issued_tokens())
        self.secrets |= self.issued
        # Nothing that any test does may be against the platforms' documents.
        if violations := self.platforms.violations():
            raise AssertionError(f"against the platforms' documents: {violations}")
        return tasks

    def run(self, build: Callable[..., None], *, within: float = _RUN_WITHIN, **arguments: Any) -> dict[str, TaskRun]:
        """Take the tasks that a function makes through ``dag.test()``.

        :param build: makes the tasks. Its source goes into the DAG file, so it can use what a DAG file imports and its
            own arguments, nothing else.
        :param within: as :meth:`run_file`.
        :param arguments: what it is called with: plain data.
        :return: as :meth:`run_file`.
        """
        self._runs += 1
        dag_id = f"{build.__name__.strip('_')}_{self._runs}"
        call = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        source = f"{_HEADER}\n{textwrap.dedent(inspect.getsource(build))}\n\n"
        source += f"with DAG({dag_id!r}, schedule=None) as dag:\n    {build.__name__}({call})\n"
        return self.run_file(source, dag_id, within)

    def start_anew(self) -> Control:
        """Give the sandbox back as new; Airflow's database keeps what it has.

        :return: the sandbox's control.
        """
        self.platforms.reset()
        # However slow the machine is, no run is over before a task has seen it.
        self.platforms.configure(run_seconds=0.3, cancel_seconds=0.1, begin_when_seen=True)
        return self.platforms

    def pass_time(self, seconds: float) -> None:
        """Put the clock of the process forward, to the end of the DAG that it runs: no test waits for time to pass.

        :param seconds: in all.
        """
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def alarm(self) -> None:
        """Let Airflow's own alarm for ``execution_timeout`` go off, for the task that is being executed."""
        os.kill(self.pid, signal.SIGALRM)

    def tables(self) -> dict[str, str]:
        """Every table of the metadata database as text."""
        with closing(sqlite3.connect(self.database)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                name: "\n".join(
                    " | ".join(_text(value) for value in row) for row in connection.execute(f'SELECT * FROM "{name}"')
                )
                for name in names
            }

    def close(self) -> None:
        """End the process, and all that its DAGs have started."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        # Not by waiting for its end: nothing of it is needed any more.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def _begin(self) -> None:
        self._number += 1
        self._ready = False
        for folder in (self.home, self.dags, self.log_file.parent, self.home / "tmp"):
            folder.mkdir()
        shutil.copy(self._migrated, self.database)
        self._clock.write_bytes(struct.pack("d", 0.0))
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.dag_test.runner", str(os.getpid())],
                env={**self._environment, "AIRFLOW_HOME": str(self.home), "TMPDIR": str(self.home / "tmp")},
                cwd=self.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # It leads a group, so that all of it can be ended.
                start_new_session=True,
            )

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # One that has ended is found by its missing answer.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def _response(self, within: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], within)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            why = "has ended" if ready else f"did not answer within {within:.0f} s"
            end = "\n".join(self.log_file.read_text(errors="replace").splitlines()[-30:])
            raise AirflowLostError(f"Airflow {why}. The end of its log:\n{end}")
        response: dict[str, Any] = json.loads(line)
        return response

    def _from_database(self, dag_id: str, run_id: str) -> dict[str, TaskRun]:
        tasks: dict[str, TaskRun] = {}
        where = "WHERE dag_id = ? AND run_id = ?"
        with closing(sqlite3.connect(self.database)) as connection:

            def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
                statement = f"SELECT task_id, map_index, {columns} FROM {table} {where}"
                return connection.execute(statement, (dag_id, run_id)).fetchall()

            for task_id, index, state, tries in rows("state, try_number", "task_instance"):
                tasks[_name(task_id, index)] = TaskRun(state, tries)
            for task_id, index, key, value in rows('"key", value', "xcom"):
                tasks[_name(task_id, index)].xcoms[key] = json.loads(value) if isinstance(value, str) else value
            for task_id, index, fields in rows("rendered_fields", "rendered_task_instance_fields"):
                tasks[_name(task_id, index)].rendered = json.loads(fields)
            for task_id, index, key, value in rows('"key", value', "task_state_store"):
                if key == "test_run":
                    tasks[_name(task_id, index)].record = json.loads(value)
        return tasks

    def _from_log(self, begin: int, tasks: Mapping[str, TaskRun]) -> None:
        with self.log_file.open("rb") as file:
            file.seek(begin)
            text = file.read().decode(errors="replace")
        now: TaskRun | None = None
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line}
            event = str(entry.get("event", ""))
            started = re.match(r"\[DAG TEST\] starting task_id=(\S+) map_index=(-?\d+)", event)
            if started:
                now = tasks[_name(started[1], int(started[2]))]
            if now is None:
                continue
            now.lines.append(event)
            if event == "[DAG TEST] running trigger in line":
                now.deferrals += 1
            if event in ("Task failed with exception", "Task execution failed"):
                detail = entry.get("exception") or entry.get("error_detail")
                now.errors.append(RaisedError(detail[0]["exc_type"], detail[0]["exc_value"]))
            if event.startswith("[DAG TEST] end task"):
                now = None


def when_looked_at(control: Control, runs: Mapping[str, Callable[[str], None]], looks: int = 1) -> threading.Event:
    """Do something with each of some runs as soon as a client has seen it going, so that no test hangs on the time.

    :param control: the sandbox's.
    :param runs: what to do, by run id.
    :param looks: after how many responses about the run.
    :return: to be set to end it.
    """
    over = threading.Event()

    def watch() -> None:
        left = dict(runs)
        while left and not over.wait(0.02):
            seen = [request.path for request in control.requests() if request.status == 200]
            for run_id in [run_id for run_id in left if sum(run_id in path for path in seen) >= looks]:
                left.pop(run_id)(run_id)

    threading.Thread(target=watch, daemon=True).start()
    return over


@contextmanager
def in_step(*steps: tuple[Callable[[], object], Callable[[], object]]) -> Iterator[None]:
    """While a DAG runs: wait for a state, do something, wait for the next."""

    def go() -> None:
        for reached, then in steps:
            wait_until(reached)
            then()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    yield
    thread.join()


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
