"""What a running Future AGI does, played by the sandbox, through hook and operators. Each test names its row.

The rows: F1 workspaces; F2 prompt simulations; F3 balance and quota; F4 executions that never close; F5 and L6
dialects; L4 starts that the workflow service refused; L5 simulators; L7 Retry-After on the way into the deferral; L8
progress while calls are made; L11 unknown ids.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    RunErroredError,
    RunFailedError,
    RunTimeoutError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.model import Progress
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.futureagi import LOGIN_TOKEN, UNBOUND_API_KEY, UNBOUND_SECRET_KEY
from airflow_provider_testruns.sandbox.futureagi_views import SIMULATOR_ID
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from tests.integration.fake_context.tasks import Task

pytestmark = pytest.mark.integration

GOOD, FLAKY = (f"fa000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
NOBODY = "fa000000-0000-4000-8000-0000deadbeef"
TEMPLATE = "fa000000-0000-4000-8000-0000000000c1"
ELSEWHERE = "fa000000-0000-4000-8000-0000000000b2"
START, START_PROMPT = "futureagi.execute", "futureagi.execute_prompt"
DEFERRABLE = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])

Connect = Callable[..., FutureAGIHook]


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.3, seed=5) as server:
        yield server


@pytest.fixture
def control(server: SandboxServer, connect: Connect) -> Control:
    server.control.reset()
    server.control.configure(cancel_seconds=0.1, begin_when_seen=True)
    connect()
    return server.control


@pytest.fixture
def connect(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Changes the connection."""

    def change(password: str | None = None, **extra: Any) -> FutureAGIHook:
        connection = server.connections()["futureagi_default"]
        kept = {key: value for key, value in {**connection["extra"], **extra}.items() if value is not None}
        changed = {**connection, "extra": {**kept, "timeout": 3}, "password": password or connection["password"]}
        monkeypatch.setenv("AIRFLOW_CONN_FUTUREAGI_DEFAULT", json.dumps(changed))
        return FutureAGIHook()

    return change


def execute(run_test_id: str = GOOD, **arguments: Any) -> FutureAGIExecuteTestRunOperator:
    chosen = {} if {"scenario_ids", "exclude_scenario_ids"} & arguments.keys() else {"select_all": True}
    shared: dict[str, Any] = {"poll_interval": 0.1, "timeout": 600, "retries": 3, "deferrable": False}
    return FutureAGIExecuteTestRunOperator(
        task_id="execute", run_test_id=run_test_id, **{**shared, **chosen, **arguments}
    )


# F1: workspaces


def test_f1_the_workspace_of_the_connection_decides_what_unbound_keys_see(control, connect):
    run_test = control.create_run_test("elsewhere", workspace=ELSEWHERE)
    hook = connect(UNBOUND_API_KEY, secret_key=UNBOUND_SECRET_KEY, workspace_id=ELSEWHERE.upper())
    assert [row["id"] for row in hook.list_run_tests()] == [run_test]
    assert Task().run(execute(run_test))["verdict"] == "passed"
    # Keys that are bound to a workspace stay with it, whatever the header says.
    connect(workspace_id=ELSEWHERE)
    assert "workspace_id of the connection" in Task().fail(execute(run_test), NotFoundError)
    by_name = execute(None, run_test_name="elsewhere")  # type: ignore[arg-type]
    assert "organization and workspace only" in Task().fail(by_name, ConfigurationError)


def test_f1_without_it_the_workspace_that_was_opened_last_counts(control, connect):
    control.create_run_test("elsewhere", workspace=ELSEWHERE)
    hook = connect(UNBOUND_API_KEY, secret_key=UNBOUND_SECRET_KEY)
    assert "elsewhere" not in [row["name"] for row in hook.list_run_tests()]
    control.configure(futureagi_open_workspace=ELSEWHERE)
    assert [row["name"] for row in hook.list_run_tests()] == ["elsewhere"]


# F2: prompt simulations


@DEFERRABLE
def test_f2_a_prompt_simulation_has_a_start_of_its_own(control, deferrable):
    run_test = control.create_run_test("summary", prompt_template=TEMPLATE)
    report = Task().run(execute(run_test, deferrable=deferrable))
    assert (report["verdict"], report["total"]) == ("passed", 4)
    (run,) = control.runs("futureagi")
    assert (run["run_id"], run["arguments"]["prompt_template_id"]) == (report["run_id"], TEMPLATE)
    assert (control.count(START_PROMPT), control.count(START)) == (1, 0)
    assert control.violations() == []


def test_f2_scenarios_of_a_prompt_simulation_are_left_out_as_those_of_others(control):
    run_test = control.create_run_test("summary", prompt_template=TEMPLATE)
    first, second = [row["id"] for row in FutureAGIHook().list_scenarios(run_test)]
    FutureAGIHook().execute_test_run(run_test, exclude_scenario_ids=[first])
    (run,) = control.runs("futureagi")
    assert (run["arguments"]["scenario_ids"], run["arguments"]["select_all"]) == ([second], False)


def test_f2_a_lost_start_of_a_prompt_simulation_is_adopted(control):
    run_test = control.create_run_test("summary", prompt_template=TEMPLATE)
    control.fault("drop", operation=START_PROMPT, when="after", times=1)
    assert Task().run(execute(run_test))["verdict"] == "passed"
    assert len(control.runs("futureagi")) == 1


def test_f2_what_a_prompt_simulation_cannot_do_is_refused_before_its_start(control):
    run_test = control.create_run_test("summary", prompt_template=TEMPLATE)
    with_simulator = execute(run_test, simulator_id=SIMULATOR_ID)
    assert "prompt simulation" in Task().fail(with_simulator, ConfigurationError, "simulator_id")
    control.delete_prompt_version(run_test)
    assert "another version" in Task().fail(execute(run_test), ConfigurationError, "has been deleted")
    assert (control.count(START_PROMPT), control.count(START)) == (0, 0)


# F3: balance and quota


@pytest.mark.parametrize(
    "reason",
    ["Insufficient balance to make calls.", "Free tier Voice Minutes limit reached (60.00 / 60.00 minutes)"],
)
def test_f3_calls_that_could_not_be_paid_for_are_no_failed_tests(control, reason):
    run_test = control.create_run_test(
        "no-money", ending="failed", agent_type="voice", scenarios={"One": 1}, failure_reason=reason
    )
    task = Task()
    assert reason in task.fail(execute(run_test), RunErroredError)
    assert task.xcoms["return_value"]["verdict"] == "errored"


def test_f3_a_limit_of_the_talk_is_a_failed_test(control):
    run_test = control.create_run_test(
        "too-long", ending="failed", scenarios={"One": 1}, failure_reason="Conversation turn limit reached"
    )
    Task().fail(execute(run_test), RunFailedError, "turn limit reached")


# F4: executions that never close


@DEFERRABLE
def test_f4_an_execution_that_is_never_closed_ends_as_errored_and_is_asked_for_again(control, deferrable):
    run_test = control.create_run_test("stuck", never_closes=True)
    task = Task()
    arguments: dict[str, Any] = {"stalled_after": 0.3, "deferrable": deferrable}
    said = task.fail(execute(run_test, **arguments), RunErroredError)
    assert "All 4/4 items are done, and the platform has not closed the run" in said
    assert control.count("futureagi.cancel_execution") == 0
    (run,) = control.runs("futureagi")
    control.set_run(run["run_id"], stuck=False)
    report = task.run(execute(run_test, **arguments))
    assert (report["run_id"], report["verdict"], control.count(START)) == (run["run_id"], "passed", 1)


def test_f4_the_sensor_ends_as_errored_too(control):
    run_test = control.create_run_test("stuck", never_closes=True)
    (execution_id,) = control.add_runs("futureagi", run_test, 1, age=60.0)
    sensor = FutureAGITestExecutionSensor(
        task_id="watch", execution_id=execution_id, run_test_id=run_test, stalled_after=0.3, poke_interval=0.1
    )
    Task().fail(sensor, RunErroredError, "has not closed the run")


# F5, L6: the dialects


def test_f5_a_key_alone_is_told_that_both_are_needed(control, connect):
    control.configure(futureagi_dialects="current")
    hook = connect(secret_key=None)
    good, said = hook.test_connection()
    assert not good
    assert "needs both keys" in said
    assert "needs both keys" in Task().fail(execute(), AuthenticationError)
    assert control.runs("futureagi") == []


def test_f5_the_dialect_can_be_said(control, connect):
    hook = connect(dialect="documented")
    auth, _ = hook.make_auth(hook.settings)
    assert set(auth.headers() or ()) == {"Authorization"}
    assert Task().run(execute())["verdict"] == "passed"
    assert control.runs("futureagi")[0]["arguments"]["dialect"] == "documented"
    with pytest.raises(ConfigurationError, match="secret_key must be filled in: dialect is 'current'"):
        connect(dialect="current", secret_key=None).list_run_tests()
    with pytest.raises(ConfigurationError, match="dialect must be one of"):
        connect(dialect="modern").list_run_tests()


def test_l6_a_token_that_reads_and_cannot_start_is_explained(control, connect):
    control.configure(futureagi_dialects="current")
    hook = connect(LOGIN_TOKEN, secret_key=None)
    good, said = hook.test_connection()
    assert good
    assert "This does not prove that runs can be started" in said
    assert "secret_key of the connection" in said
    said = Task().fail(execute(), InvalidRequestError, "scenarioIds: Unknown field")
    assert "This server does not take the documented dialect" in said
    assert "secret_key of the connection" in said
    assert control.runs("futureagi") == []


def test_f5_an_older_installation_names_the_extra(control):
    control.configure(futureagi_dialects="documented")
    said = Task().fail(execute(), InvalidRequestError, "scenario_ids: Unknown field")
    assert "dialect=documented" in said
    assert control.runs("futureagi") == []


# L4: starts that the workflow service refused

WORKFLOW = "the workflow service does not answer"


@DEFERRABLE
def test_l4_the_words_of_the_refused_start_are_in_the_timeout(control, deferrable):
    control.configure(futureagi_workflow_down=True)
    said = Task().fail(execute(timeout=0.5, deferrable=deferrable), RunTimeoutError)
    assert "It was found after its start had failed" in said
    assert WORKFLOW in said


def test_l4_they_are_in_the_error_where_nothing_is_adopted(control):
    control.configure(futureagi_workflow_down=True)
    said = Task().fail(execute(adopt_lost_start=False), StartOutcomeUnknownError)
    assert WORKFLOW in said


def test_l4_a_run_that_never_begins_is_waited_for_where_nothing_may_be_cancelled(control, monkeypatch):
    monkeypatch.setattr(timing, "BEGINS_WITHIN", 0.3)
    control.configure(futureagi_workflow_down=True)
    task = Task()
    for _ in range(2):
        assert WORKFLOW in task.fail(execute(cancel_on_kill=False), RunErroredError)
    assert (control.count(START), control.count("futureagi.cancel_execution")) == (1, 0)


@DEFERRABLE
def test_l4_a_run_that_never_begins_is_errored_and_replaced_by_the_next_try(control, told, monkeypatch, deferrable):
    monkeypatch.setattr(timing, "BEGINS_WITHIN", 0.3)
    control.configure(futureagi_workflow_down=True)
    task = Task()
    said = task.fail(execute(deferrable=deferrable), RunErroredError)
    assert "The run has not begun" in said
    assert WORKFLOW in said
    assert control.count("futureagi.cancel_execution") == 0
    control.configure(futureagi_workflow_down=False)
    assert task.run(execute(deferrable=deferrable))["verdict"] == "passed"
    old, new = control.runs("futureagi")
    assert (old["phase"], new["phase"], control.count(START)) == ("cancelled", "finished", 2)
    assert "has still not begun" in told


def test_l4_one_that_has_begun_meanwhile_is_waited_for(control, monkeypatch):
    monkeypatch.setattr(timing, "BEGINS_WITHIN", 0.3)
    control.configure(futureagi_workflow_down=True)
    task = Task()
    task.fail(execute(), RunErroredError)
    (run,) = control.runs("futureagi")
    control.finish_run(run["run_id"])
    report = task.run(execute())
    assert (report["run_id"], report["verdict"], control.count(START)) == (run["run_id"], "passed", 1)


# L5: simulators


def test_l5_an_unknown_simulator_starts_nothing(control):
    Task().fail(execute(simulator_id=NOBODY), ConfigurationError, "is no simulator of this connection's workspace")
    assert control.count(START) == 0
    assert Task().run(execute(simulator_id=SIMULATOR_ID))["verdict"] == "passed"
    assert control.runs("futureagi")[0]["arguments"]["simulator_id"] == SIMULATOR_ID


# L7: Retry-After on the way into the deferral


def test_l7_the_retry_after_of_the_first_look_goes_along(control):
    body = {"status": False, "result": {"code": "RATE_LIMITED", "message": "Rate limit exceeded", "retry_after": 2}}
    headers = {"Retry-After": "2"}
    control.fault("status", status=429, headers=headers, body=body, operation="futureagi.metrics", times=1)
    before = time.time()
    task = Task()
    assert task.run(execute(deferrable=True))["verdict"] == "passed"
    not_before = task.triggers[0].not_before
    assert not_before is not None
    assert not_before >= before + 2


# L8: progress while calls are made


def test_l8_calls_that_are_still_being_made_are_no_progress(control):
    run_test = control.create_run_test("many", agent_type="voice", scenarios={"Rows": 130}, duration=100.0)
    control.configure(begin_when_seen=False)
    hook = FutureAGIHook()
    run = hook.execute_test_run(run_test, select_all=True)
    control.advance(5.0)
    shown = hook.get_metrics(run.run_id)
    assert shown["total_calls"] == 0
    assert 0 < shown["metrics"]["calls"]["total"] < 130
    assert hook.get_test_execution(run.run_id).progress is None
    assert hook.list_executions(run_test)[0].progress is None
    control.advance(20.0)
    progress = hook.get_test_execution(run.run_id).progress
    assert progress is not None
    assert progress.total == 130
    assert isinstance(hook.list_executions(run_test)[0].progress, Progress)


# L11: unknown ids


@pytest.mark.parametrize(
    "ask",
    [
        lambda hook: hook.get_test_execution(NOBODY),
        lambda hook: hook.get_metrics(NOBODY),
        lambda hook: hook.get_analytics(NOBODY),
        lambda hook: hook.get_kpis(NOBODY),
        lambda hook: hook.get_performance_summary(NOBODY),
        lambda hook: hook.get_test_execution_detail(NOBODY),
        lambda hook: hook.get_eval_summary(GOOD, NOBODY),
        lambda hook: hook.get_eval_summary(NOBODY, NOBODY),
        lambda hook: hook.list_call_results(NOBODY),
        lambda hook: hook.list_transcripts(NOBODY),
        lambda hook: hook.export_csv(NOBODY, Path("calls.csv")),
        lambda hook: hook.cancel_test_execution(NOBODY),
        lambda hook: hook.rerun_calls(NOBODY, "eval_only", select_all=True),
        lambda hook: hook.get_run_test(NOBODY),
        lambda hook: hook.get_run_test_status(NOBODY),
        lambda hook: hook.list_scenarios(NOBODY),
        lambda hook: hook.list_executions(NOBODY),
        lambda hook: hook.execute_test_run(NOBODY, select_all=True),
    ],
)
def test_l11_an_unknown_id_is_not_found_whichever_call_it_is(control, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="organization and workspace only"):
        ask(FutureAGIHook())
    assert list(tmp_path.iterdir()) == []
