"""Each wait's lines are logged in its own context, by which Airflow's triggerer routes them to the task's log.

Airflow's own :class:`TriggerRunner` runs our triggers, here without its supervisor: it binds the ids, and the
lines are told apart by them, as the supervisor does that writes the log files.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from airflow_provider_testruns import timing
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)
_LIST, _SINGLE = "omilia.list_project_runs", "omilia.get_run"
Lines = dict[int | None, list[str]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of the triggers' loggers, by the trigger in whose context each was logged."""
    found: Lines = defaultdict(list)

    def keep(logger: Any, method: str, line: Any) -> Any:
        found[get_contextvars().get("trigger_id")].append(str(line["event"]) % line.get("positional_args", ()))
        return line

    with capture_logs(processors=[keep]):
        yield found


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    with SandboxServer(run_seconds=3600.0) as server:
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(server.connections()["omilia_default"]))
        yield server.control


class _Triggerer:
    """What the triggerer does with our triggers: a task each, with the ids of the task instance bound."""

    def __init__(self) -> None:
        self.runner = TriggerRunner()
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.ids: dict[str, int] = {}

    def add(self, dag_id: str, run_id: str) -> None:
        number = len(self.tasks) + 1
        run = Run("omilia", run_id, RunState.RUNNING, "QUEUED", ids={"project_id": _PROJECT})
        trigger = RunTrigger("omilia", "omilia_default", run.to_dict(), time.time() + 300, 0.1)
        trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
            id=f"ti-{number}",
            dag_id=dag_id,
            task_id="run",
            run_id="manual",
            try_number=1,
            map_index=number,
            context_carrier=None,
        )
        self.ids[run_id] = number
        self.runner.triggers[number] = {"task": None, "is_watcher": False, "name": run_id, "events": 0}  # type: ignore[typeddict-item]
        self.tasks[run_id] = asyncio.create_task(self.runner.run_trigger(number, trigger))


@pytest.mark.parametrize("how", ["listed", "hidden", "failing"])
def test_five_waits_of_two_dags_keep_their_lines_apart_when_the_first_ends_first(control, lines, monkeypatch, how):
    """A group's poll was made by whoever came first, and all that it found out was logged as that one's."""
    monkeypatch.setattr(timing, "INDIVIDUALLY_FOR", 0.1)
    run_ids = control.add_runs("omilia", _PROJECT, 5)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        triggerer = _Triggerer()
        for number, run_id in enumerate(run_ids):
            triggerer.add("first" if number < 3 else "second", run_id)
        await until(lambda: control.count(_LIST) > 2)
        if how == "hidden":
            # Each is then asked for by a coroutine that the group makes for it.
            for run_id in run_ids:
                control.hide_run(run_id)
        if how == "failing":
            control.fault("status", operation="omilia.*", status=503)
            await until(lambda: all(_with("HTTP 503", mine) for mine in _own(triggerer)))
            control.clear_faults()
        control.finish_run(run_ids[0])
        await until(triggerer.tasks[run_ids[0]].done)
        for run_id in run_ids[1:]:
            control.finish_run(run_id)
        await asyncio.wait_for(asyncio.gather(*triggerer.tasks.values()), 60)

        for run_id, number in triggerer.ids.items():
            mine = "\n".join(lines[number])
            assert f"Run {run_id} is running" in mine
            assert f"Run {run_id} is finished" in mine
            assert not [other for other in run_ids if other != run_id and other in mine]
        assert not [line for line in lines[None] if any(run_id in line for run_id in run_ids)]

    def _own(triggerer: _Triggerer) -> list[list[str]]:
        return [lines[number] for number in triggerer.ids.values()]

    asyncio.run(main())


def _with(what: str, lines: list[str]) -> bool:
    return any(what in line for line in lines)
