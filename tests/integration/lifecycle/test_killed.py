"""What ``on_kill`` does to the run, and what it leaves alone: the trigger's in an event loop, the operator's in a task.

Only Airflow's answer about the task's state is made up here; ``tests/e2e/test_faults.py`` has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_testruns.exceptions import RunCancelledError
from airflow_provider_testruns.lifecycle.starting import Epoch, Phase, Record, Watermark
from airflow_provider_testruns.model import Kind, Run, RunState
from airflow_provider_testruns.operators.base import StartRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateGenerationOperator, OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.tasks.execution import RunExecution
from airflow_provider_testruns.triggers import run as triggers
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.waiting import WITHIN

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    with SandboxServer(run_seconds=60) as server:
        connection = server.connections()["omilia_default"]
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(connection))
        yield server.control


def _trigger(run_id: str, **arguments: Any) -> RunTrigger:
    run = Run("omilia", run_id, RunState.RUNNING, "STARTED", ids={"project_id": _PROJECT})
    trigger = RunTrigger("omilia", "omilia_default", run.to_dict(), time.time() + 60, 0.1, **arguments)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    return trigger


def _connected(operator: StartRunOperator) -> RunExecution:
    """A task that is about to start its run."""
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0)
    operator._execution = execution = operator.new_execution({"ti": ti})  # type: ignore[typeddict-item]
    execution.connect()
    return execution


def _state_is(monkeypatch: pytest.MonkeyPatch, state: str | None) -> None:
    monkeypatch.setattr(triggers, "task_state", lambda ti: state)


@pytest.mark.parametrize("state", ["failed", "success", "none", "scheduled", "running", "restarting"])
def test_a_trigger_that_is_killed_cancels_its_run(control: Control, monkeypatch, state: str) -> None:
    _state_is(monkeypatch, state)
    (run_id,) = control.add_runs("omilia", _PROJECT)
    asyncio.run(_trigger(run_id).on_kill())
    assert control.run(run_id)["phase"] == "cancelled"


@pytest.mark.parametrize("state", ["deferred", None])
def test_a_trigger_whose_task_goes_on_cancels_nothing(control: Control, monkeypatch, state: str | None) -> None:
    _state_is(monkeypatch, state)
    (run_id,) = control.add_runs("omilia", _PROJECT)
    asyncio.run(_trigger(run_id).on_kill())
    assert control.stats()["requests"] == 0


def test_without_an_answer_about_the_task_nothing_is_cancelled(control: Control, monkeypatch) -> None:
    def unanswered(ti: Any) -> str:
        raise RuntimeError("the supervisor is gone")

    monkeypatch.setattr(triggers, "task_state", unanswered)
    (run_id,) = control.add_runs("omilia", _PROJECT)
    asyncio.run(_trigger(run_id).on_kill())
    assert control.stats()["requests"] == 0


def test_where_it_is_not_wanted_nothing_is_cancelled(control: Control, monkeypatch) -> None:
    _state_is(monkeypatch, "failed")
    (run_id,) = control.add_runs("omilia", _PROJECT)
    asyncio.run(_trigger(run_id, cancel_on_kill=False).on_kill())
    assert control.stats()["requests"] == 0


def test_a_connection_that_cannot_be_read_for_a_moment_keeps_no_run_going(control: Control, monkeypatch) -> None:
    _state_is(monkeypatch, "failed")
    (run_id,) = control.add_runs("omilia", _PROJECT)
    connection = os.environ["AIRFLOW_CONN_OMILIA_DEFAULT"]
    monkeypatch.delenv("AIRFLOW_CONN_OMILIA_DEFAULT")

    async def main() -> None:
        killing = asyncio.create_task(_trigger(run_id).on_kill())
        await asyncio.sleep(0.3)
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", connection)
        await killing

    asyncio.run(main())
    assert control.run(run_id)["phase"] == "cancelled"


def test_a_killed_task_that_its_cancel_did_not_reach_cancels_again_and_hands_nothing_over(control: Control) -> None:
    """With the few seconds of a signal handler gone, the loop continues cancelling; a deferral would end the
    process."""
    operator = OmiliaCreateRunOperator(task_id="t", project_id=_PROJECT, deferrable=True, poll_interval=0.1)
    ti = SimpleNamespace(
        dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, max_tries=0, start_date=None,
        xcom_push=lambda **pushed: operator.on_kill() if pushed["key"] == "run_url" else None,
    )  # fmt: skip
    control.fault("status", operation="omilia.revoke_run", status=503, times=3)
    with pytest.raises(RunCancelledError):
        operator.execute({"ti": ti})
    (run,) = control.runs("omilia")
    assert run["cancelled_by"] == "omilia.revoke_run"
    assert control.count("omilia.revoke_run") >= 4


def test_after_its_event_a_trigger_cancels_nothing(control: Control, monkeypatch) -> None:
    _state_is(monkeypatch, "running")
    (run_id,) = control.add_runs("omilia", _PROJECT, duration=0.1)

    async def main() -> None:
        trigger = _trigger(run_id)
        async for _ in trigger.run():
            await trigger.on_kill()

    asyncio.run(main())
    assert control.count("omilia.revoke_run") == 0


def test_on_kill_outlasts_being_cancelled_again_and_again(control: Control, monkeypatch) -> None:
    """Airflow 3.3.2 cancels a trigger's task with every sync until it is gone, on_kill and all."""
    _state_is(monkeypatch, "failed")
    (run_id,) = control.add_runs("omilia", _PROJECT)
    # A token, a cancel, a look: each longer than the time between two cancels.
    control.configure(latency=0.4)

    async def as_airflow_does(trigger: RunTrigger) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(trigger.on_kill(), 30)
            raise

    async def main() -> None:
        task = asyncio.create_task(as_airflow_does(_trigger(run_id)))
        await asyncio.sleep(0)
        until = time.monotonic() + WITHIN
        while time.monotonic() < until and not (task.done() and not triggers._at_work):
            task.cancel("user-action")
            await asyncio.sleep(0.15)
        assert task.cancelled()
        assert not triggers._at_work

    asyncio.run(main())
    assert control.run(run_id)["phase"] == "cancelled"


def test_on_kill_raises_nothing_into_what_it_interrupted(control: Control, monkeypatch, capsys) -> None:
    operator = OmiliaCreateRunOperator(task_id="t", project_id=_PROJECT)
    (run_id,) = control.add_runs("omilia", _PROJECT)
    execution = _connected(operator)
    execution.run = Run("omilia", run_id, RunState.RUNNING, "STARTED", ids={"project_id": _PROJECT})

    def half_imported(**options: Any) -> Any:
        raise ImportError("partially initialized module")

    monkeypatch.setattr(execution.hook, "new_client", half_imported)
    operator.on_kill()
    assert execution.starter.stopped
    assert "Could not cancel its run; it may still be running. partially initialized module" in capsys.readouterr().out


def test_on_kill_finds_and_cancels_a_run_that_was_starting_before_a_slow_platform_costs_its_time(
    control: Control,
) -> None:
    operator = OmiliaCreateRunOperator(task_id="t", project_id=_PROJECT)
    execution = _connected(operator)
    execution.starter.record = Record(
        Epoch(0, 0, 0), Phase.INTENT, time.time(), 30.0, Watermark(None, None, 0.0), "", {"project_id": _PROJECT}
    )
    (run_id,) = control.add_runs("omilia", _PROJECT)
    control.configure(cancel_seconds=60.0)
    operator.on_kill()
    assert control.run(run_id)["cancelled_by"] == "omilia.revoke_run"
    # After a token, the list and a look: in time, too, when each of these takes the better part of a second.
    asked = [request.operation for request in control.requests()]
    assert asked.index("omilia.revoke_run") <= 3, asked


def test_on_kill_cancels_the_run_from_before_a_clear(control: Control) -> None:
    operator = OmiliaCreateRunOperator(task_id="t", project_id=_PROJECT)
    (run_id,) = control.add_runs("omilia", _PROJECT)
    older = Run("omilia", run_id, RunState.RUNNING, "STARTED", ids={"project_id": _PROJECT})
    _connected(operator).starter.older = older
    operator.on_kill()
    assert control.run(run_id)["phase"] == "cancelled"


@pytest.mark.parametrize("deferred", [True, False])
def test_a_run_that_its_platform_cannot_stop_is_logged(control: Control, monkeypatch, capsys, deferred: bool) -> None:
    _state_is(monkeypatch, "failed")
    operator = OmiliaCreateGenerationOperator(task_id="t", project_id=_PROJECT)
    execution = _connected(operator)
    generation_id = execution.hook.create_generation(_PROJECT)["runId"]
    context = {"project_id": _PROJECT, "kind": Kind.GENERATION.value}
    execution.run = run = Run("omilia", generation_id, RunState.RUNNING, "STARTED", Kind.GENERATION, ids=context)
    if deferred:
        trigger = RunTrigger("omilia", "omilia_default", run.to_dict(), time.time() + 60, 0.1, operator.cancel_on_kill)
        trigger.task_instance = execution._context["ti"]
        asyncio.run(trigger.on_kill())
    else:
        operator.on_kill()
    why = f"Omilia Testing Studio has no call that revokes a generation; generation {generation_id}"
    assert f"Could not cancel run {generation_id} (the task was " in (shown := capsys.readouterr().out)
    assert f"it may still be running. {why}" in shown
    assert control.run(generation_id)["phase"] != "cancelled"
