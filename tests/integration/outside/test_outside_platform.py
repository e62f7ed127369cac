"""A fourth platform, in a package of its own: nothing of the provider knows it but by its entry point."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_testruns.exceptions import RunFailedError
from airflow_provider_testruns.hooks.registry import hook_class
from tests.harness.outside import ACME, visible
from tests.integration.fake_context.tasks import Task, first_event

pytestmark = pytest.mark.integration

_TOKEN = "canary-of-acme-token"


class _Server(ThreadingHTTPServer):
    """Acme Labs: a run is over when it was polled three times; what is in the suite ``bad`` fails."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.polls: dict[str, int] = {}
        self.starts = 0

    def start(self, suite: str) -> dict[str, Any]:
        self.starts += 1
        run = {"id": f"run-{self.starts}", "status": "waiting", "suite": suite, "startedAt": "2026-11-01T05:00:00Z"}
        return self.runs.setdefault(str(run["id"]), run)

    def poll(self, run_id: str) -> dict[str, Any]:
        self.polls[run_id] = self.polls.get(run_id, 0) + 1
        run = self.runs[run_id]
        if run["status"] != "stopped":
            run["status"] = "running" if self.polls[run_id] < 3 else "done"
        return run


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer(200 if self.headers["Authorization"] == f"Bearer {_TOKEN}" else 401)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer(201)

    def _answer(self, status: int) -> None:
        match [self.command, *self.path.strip("/").split("/")]:
            case ["GET", "ping"]:
                body: Any = {}
            case ["POST", "suites", suite, "runs"]:
                body = self.server.start(suite)
            case ["GET", "suites", suite, "runs"]:
                body = [run for run in reversed(self.server.runs.values()) if run["suite"] == suite]
            case ["GET", "runs", run_id]:
                body = self.server.poll(run_id)
            case ["POST", "runs", run_id, "stop"]:
                body = self.server.runs[run_id] | {"status": "stopped"}
            case ["GET", "runs", run_id, "cases"]:
                good = self.server.runs[run_id]["suite"] != "bad"
                body = [{"name": "login", "ok": True}, {"name": "refund", "ok": good}]
            case _:
                status, body = 404, {}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    with _Server() as server, visible(ACME):
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        conn = {"conn_type": "acme", "host": f"http://127.0.0.1:{server.server_port}", "password": _TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_ACME_DEFAULT", json.dumps(conn))
        yield server
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_run_is_started_waited_for_and_judged(acme: _Server, deferrable: bool) -> None:
    from acme_testruns.operators import AcmeRunSuiteOperator

    task = Task()
    report = task.run(AcmeRunSuiteOperator(task_id="t", suite="good", deferrable=deferrable, poll_interval=0.1))
    assert (report["platform"], report["run_id"], report["verdict"]) == ("acme", "run-1", "passed")
    assert (report["passed"], report["total"]) == (2, 2)
    assert acme.starts == 1
    assert task.xcoms["test_run"] == {
        "platform": "acme",
        "conn_id": "acme_default",
        "run_id": "run-1",
        "kind": "run",
    }
    assert task.xcoms["run_url"] == report["url"]
    # What the trigger had stored is the name, as of every platform: by it the hook was found.
    stored = [trigger.serialize() for trigger in task.triggers]
    assert [(path, kwargs["platform"]) for path, kwargs in stored] == (
        [("airflow_provider_testruns.triggers.run.RunTrigger", "acme")] if deferrable else []
    )
    assert [event["status"] for event in task.events] == ["finished"] * deferrable
    assert task.record["run"]["platform"] == "acme"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_judges_a_run_that_somebody_else_has_started(acme: _Server, deferrable: bool) -> None:
    from acme_testruns.sensors import AcmeRunSensor

    run_id = acme.start("bad")["id"]
    task = Task()
    sensor = AcmeRunSensor(task_id="t", run_id=run_id, deferrable=deferrable, poke_interval=0.1)
    message = task.fail(sensor, RunFailedError, "refund")
    assert _TOKEN not in message
    assert task.deferrals == int(deferrable)
    assert task.xcoms["test_run"]["run_id"] == run_id


def test_a_triggerer_without_the_package_says_so(acme: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed on the workers alone."""
    from acme_testruns.operators import AcmeRunSuiteOperator

    operator = AcmeRunSuiteOperator(task_id="t", suite="good", deferrable=True, timeout=600)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(Task().context)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "path", [folder for folder in sys.path if folder != str(ACME)])
        with visible():
            event = asyncio.run(first_event(deferred.value.trigger))
    assert event["status"] == "error"
    assert "There is no platform 'acme'. Known here: eggplant, futureagi, omilia. If" in event["error"]["message"]


def test_its_connection_can_be_tested(acme: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = hook_class("acme")("acme_default")
    assert hook.test_connection() == (True, "Acme Labs is there.")
    conn = {"conn_type": "acme", "host": f"http://127.0.0.1:{acme.server_port}", "password": "canary-of-a-wrong-one"}
    monkeypatch.setenv("AIRFLOW_CONN_ACME_DEFAULT", json.dumps(conn))
    works, message = hook_class("acme")("acme_default").test_connection()
    assert not works
    assert "password" in message
