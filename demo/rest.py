"""What the demo and the end-to-end tests ask of Airflow's REST API."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import requests

#: How long Airflow may take to answer; seconds. For hanging only: on a busy machine half a minute is no rarity.
_TIMEOUT = 180.0
#: How often what only reads is asked when it gets no answer.
_ATTEMPTS = 3


class AirflowApiError(Exception):
    """Airflow answered with an error.

    :param status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A client for ``/api/v2`` of an Airflow that asks for no login.

    Its responses are Airflow's own, as dicts. Whatever can't be reached is a :class:`requests.ConnectionError`,
    whatever does not answer is a :class:`requests.Timeout`. What only reads is asked again before.

    :param url: the address of the API server.
    :param timeout: how long one answer may take; seconds.
    """

    def __init__(self, url: str, timeout: float = _TIMEOUT) -> None:
        self.url = url
        self.timeout = timeout
        self._session = requests.Session()
        # Neither a proxy nor a .netrc has to do with this machine's own servers.
        self._session.trust_env = False

    def ask(self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return the response.

        :param path: the path after ``/api/v2``.
        :raises AirflowApiError: for an error response.
        """
        response = self._send(method, f"/api/v2{path}", json=json, params=params)
        if response.status_code == 401:
            # Airflow 3.1 asks for a token, and has one for everybody.
            token = self._send("GET", "/auth/token").json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
            response = self._send(method, f"/api/v2{path}", json=json, params=params)
        for _ in range(_ATTEMPTS):
            # SQLite has one writer at a time, and whoever waited too long was rolled back: nothing was changed.
            if response.status_code != 500 or "Database error" not in response.text:
                break
            time.sleep(2.0)
            response = self._send(method, f"/api/v2{path}", json=json, params=params)
        if not response.ok:
            raise AirflowApiError(
                f"{method} {path}: {response.status_code} {response.text[:500]}", response.status_code
            )
        return response.json() if response.content else None

    def _send(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"Accept": "application/json"}
        # Whatever changes something is asked once: a DAG run whose answer was lost is there all the same.
        for _ in range(_ATTEMPTS - 1 if method == "GET" else 0):
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                return self._session.request(method, f"{self.url}{path}", headers=headers, timeout=self.timeout, **more)
        return self._session.request(method, f"{self.url}{path}", headers=headers, timeout=self.timeout, **more)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health(self) -> dict[str, str | None]:
        """The state of ``metadatabase, scheduler, triggerer, dag_processor``: ``healthy`` or something else."""
        response = self.ask("GET", "/monitor/health")
        return {name: part and part["status"] for name, part in response.items()}

    def dags(self) -> dict[str, dict[str, Any]]:
        """The DAGs by id."""
        return {dag["dag_id"]: dag for dag in self.ask("GET", "/dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> dict[str, str]:
        """What went wrong in reading DAG files, by file name."""
        errors = self.ask("GET", "/importErrors", params={"limit": 100})["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def make_pool(self, name: str, slots: int) -> None:
        """Make a pool that counts deferred tasks, too."""
        self.ask("POST", "/pools", json={"name": name, "slots": slots, "include_deferred": True})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a DAG run with the form's defaults, but for ``conf``; return its run id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.ask("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One DAG run."""
        response: dict[str, Any] = self.ask("GET", _run(dag_id, run_id))
        return response

    def all_dag_runs(self) -> list[dict[str, Any]]:
        """The DAG runs of all DAGs in one call."""
        # Not the list call that takes a body: Airflow writes each POST down, and SQLite has one writer at a time.
        return list(self.ask("GET", "/dags/~/dagRuns", params={"limit": 100})["dag_runs"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a DAG run, mapped ones included."""
        response = self.ask("GET", f"{_run(dag_id, run_id)}/taskInstances", params={"limit": 100})
        return list(response["task_instances"])

    def all_task_instances(self) -> list[dict[str, Any]]:
        """The task instances of all DAG runs in one call, mapped ones included."""
        response = self.ask("GET", "/dags/~/dagRuns/~/taskInstances", params={"limit": 100})
        return list(response["task_instances"])

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """One task instance; its ``state`` is ``None`` before it is scheduled."""
        path = _task(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else "")
        response: dict[str, Any] = self.ask("GET", path)
        return response

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """An XCom's value; ``None`` when there is none."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        try:
            return self.ask("GET", path, params={"map_index": map_index, "deserialize": "true"})["value"]
        except AirflowApiError as e:
            if e.status == 404:
                return None
            raise

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The addresses behind a task's buttons, by the button's name."""
        path = f"{_task(dag_id, run_id, task_id)}/links"
        response: dict[str, str | None] = self.ask("GET", path, params={"map_index": map_index})["extra_links"]
        return response

    def task_state(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any:
        """A value of the task state store; ``None`` when there is none."""
        path = f"{_task(dag_id, run_id, task_id)}/state-store/{quote(key, safe='')}"
        try:
            return self.ask("GET", path, params={"map_index": map_index})["value"]
        except AirflowApiError as e:
            if e.status == 404:
                return None
            raise

    def log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> list[dict[str, Any]]:
        """A try's log, an entry per line as Airflow keeps it: ``event`` is the text."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        response = self.ask("GET", path, params={"map_index": map_index, "full_content": "true"})
        return [line if isinstance(line, dict) else {"event": line} for line in response["content"]]

    def errors(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> list[tuple[str, str]]:
        """Type and message of the exceptions that a try's log ends with, the outermost one first."""
        details = [line.get("error_detail") for line in self.log(dag_id, run_id, task_id, try_number, map_index)]
        last: list[dict[str, str]] = next((detail for detail in reversed(details) if detail), [])
        return [(error["exc_type"], error["exc_value"]) for error in last]

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], **options: Any) -> None:
        """Clear task instances, whatever their state.

        :param task_ids: tasks, or pairs of a mapped task and an index.
        :param options: others of Airflow's ``clearTaskInstances``, ``include_downstream`` say.
        """
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(task_ids), "only_failed": False, **options}
        self.ask("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance as ``success``, ``failed`` or ``skipped``, as a user does in the UI."""
        path = _task(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else "")
        self.ask("PATCH", path, json={"new_state": state})


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{task_id}"
