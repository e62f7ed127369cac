"""What a task does with an event that is not about its run."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_testruns.lifecycle.waiting import WaitEnd, WaitStatus
from airflow_provider_testruns.model import Run, RunState, Verdict
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)


class Store:
    """As a task's state store: plain JSON."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self._kept[key]) if key in self._kept else None

    def set(self, key: str, value: Any) -> None:
        self._kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._kept.pop(key, None)


def test_a_task_that_gets_the_event_of_another_run_goes_on_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(run_seconds=60) as server:
        connection = server.connections()["omilia_default"]
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(connection))
        ti = MagicMock(try_number=1, max_tries=0, map_index=-1)
        context: Any = {"ti": ti, "task_state_store": Store()}

        def operator() -> OmiliaCreateRunOperator:
            return OmiliaCreateRunOperator(task_id="t", project_id=_PROJECT, deferrable=True)

        with pytest.raises(TaskDeferred):
            operator().execute(context)
        (own,) = server.control.runs()
        older = Run("omilia", omilia.named_id(99), RunState.FINISHED, "REVOKED", platform_verdict=Verdict.CANCELLED)
        event = WaitEnd(WaitStatus.FINISHED, older).to_event()
        with pytest.raises(TaskDeferred) as again:
            operator().execute_complete(context, event)
        assert again.value.trigger.test_run["run_id"] == own["run_id"]

        server.control.finish_run(own["run_id"])
        ended = operator().make_hook().get_run(own["run_id"])
        report = operator().execute_complete(context, WaitEnd(WaitStatus.FINISHED, ended).to_event())
        assert (report["run_id"], report["verdict"]) == (own["run_id"], "passed")
        assert len(server.control.runs()) == 1
        assert server.control.run(own["run_id"])["cancelled_by"] is None
