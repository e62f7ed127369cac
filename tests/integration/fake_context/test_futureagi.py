"""The operators and the sensor for Future AGI against the sandbox, driven as Airflow drives them, in both dialects."""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import (
    ApiError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RunFailedError,
    RunTimeoutError,
    ServerError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.operators.futureagi import (
    FutureAGICancelTestExecutionOperator,
    FutureAGIExecuteTestRunOperator,
    FutureAGIRerunCallsOperator,
)
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from tests.integration.fake_context.tasks import Task

pytestmark = pytest.mark.integration

GOOD, FLAKY, DEAD, EMPTY, BROKEN = (f"fa000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))
NOBODY = "fa000000-0000-4000-8000-0000deadbeef"
START, RERUN, CANCEL = "futureagi.execute", "futureagi.rerun_calls", "futureagi.cancel_execution"
#: For what has nothing to do with the dialect.
ONE_DIALECT = pytest.mark.parametrize("dialect", ["current"])
DEFERRABLE = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.3, seed=5) as server:
        yield server


@pytest.fixture(params=["current", "documented"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def control(server: SandboxServer, dialect: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """The sandbox behind the connection, as new. Nothing that a test does may be against the documents."""
    server.control.reset()
    server.control.configure(cancel_seconds=0.2, begin_when_seen=True)
    connection = server.connections()["futureagi_default"]
    connection = {**connection, "extra": {**connection["extra"], "timeout": 60}}
    if dialect == "documented":
        del connection["extra"]["secret_key"]
    monkeypatch.setenv("AIRFLOW_CONN_FUTUREAGI_DEFAULT", json.dumps(connection))
    # The server that breaks on something is asked again without a pause.
    monkeypatch.setattr(timing, "DETAIL_PAUSE", 0.0)
    yield server.control
    assert server.control.violations() == []


def execute(run_test_id: str | None = GOOD, **arguments: Any) -> FutureAGIExecuteTestRunOperator:
    chosen = {} if {"scenario_ids", "exclude_scenario_ids"} & arguments.keys() else {"select_all": True}
    shared: dict[str, Any] = {"poll_interval": 0.1, "timeout": 600, "retries": 3, "deferrable": False}
    return FutureAGIExecuteTestRunOperator(
        task_id="execute", run_test_id=run_test_id, **{**shared, **chosen, **arguments}
    )


def rerun(execution_id: str, **arguments: Any) -> FutureAGIRerunCallsOperator:
    shared: dict[str, Any] = {"poll_interval": 0.1, "timeout": 600, "retries": 3, "deferrable": False}
    return FutureAGIRerunCallsOperator(task_id="rerun", execution_id=execution_id, **{**shared, **arguments})


def ended(control: Control, run_test: str = FLAKY, **plan: Any) -> str:
    """A final execution that somebody has started."""
    (execution_id,) = control.add_runs("futureagi", run_test, 1, age=60.0, **plan)
    return execution_id


def going(control: Control, run_test: str = GOOD) -> str:
    """An execution that goes on for ever."""
    (execution_id,) = control.add_runs("futureagi", run_test, 1, age=0.0, duration=1e6)
    return execution_id


def executions(control: Control) -> list[str]:
    return [run["run_id"] for run in control.runs("futureagi")]


# Executing


@DEFERRABLE
def test_an_execution_that_meets_its_gates(control, deferrable):
    task = Task()
    report = task.run(execute(eval_thresholds={"task_completion": 1.0, "handover=No": "0.9"}, deferrable=deferrable))
    assert (report["verdict"], report["total"], task.deferrals) == ("passed", 5, int(deferrable))
    assert report["metrics"]["task_completion"] == 1.0
    assert executions(control) == [report["run_id"]]
    assert f"/dashboard/simulate/test/{GOOD}/{report['run_id']}" in task.xcoms["run_url"]
    assert (task.record["phase"], task.record["verdict"]) == ("judged", "passed")


@DEFERRABLE
def test_the_message_names_missed_gates_and_failed_calls(control, deferrable):
    task = Task()
    gates = {"task_completion": 0.9, "politeness": 0.5, "handover=No": 1.0}
    said = task.fail(execute(FLAKY, eval_thresholds=gates, deferrable=deferrable), RunFailedError)
    assert "1 failed of 4 test cases." in said
    assert "Evaluation 'task_completion' is 0.667, below its gate 0.9 by 0.233." in said
    assert "Evaluation 'handover=No' is 0.667, below its gate 1 by 0.333." in said
    assert "politeness" not in said
    row = "Ideal Outcome=the request is settled, situation=Charged twice, customer 2"
    assert f"failed: Charged twice / {row}: The agent hung up before" in said
    (failure,) = task.xcoms["return_value"]["failures"]
    assert failure["name"] == row
    assert failure["details"]["call_execution_id"] in control.call_ids(executions(control)[0])
    assert failure["message"].startswith("The agent hung up before")


def test_what_scored_nothing_misses_its_gate(control):
    said = Task().fail(execute(BROKEN, eval_thresholds={"politeness": 0.0}), RunFailedError)
    assert "Evaluation 'politeness' has no score; its gate is 0." in said


def test_min_pass_rate_replaces_all_passed(control):
    assert Task().run(execute(FLAKY, min_pass_rate=0.75))["verdict"] == "passed"
    Task().fail(execute(FLAKY, min_pass_rate=0.76), RunFailedError, r"below\s+min_pass_rate 76.0%")


def test_an_unknown_evaluation_is_an_error_before_anything_is_started(control):
    task = Task()
    said = task.fail(execute(eval_thresholds={"polite": 0.5}), ConfigurationError)
    assert "'polite'" in said
    assert "'handover', 'politeness', 'task_completion'" in said
    assert executions(control) == []
    assert task.store == {}


def test_an_unknown_evaluation_in_the_report_is_no_failed_verdict(control):
    """Where the run test does not tell its evaluations, the report does; nothing is started for it a second time."""
    control.fault("status", status=500, operation="futureagi.get_run_test", times=6)
    task = Task()
    for _ in range(2):
        said = task.fail(execute(eval_thresholds={"polite": 0.5}), ConfigurationError)
        assert "It has: 'handover=No', 'politeness', 'task_completion'." in said
    assert len(executions(control)) == 1
    assert task.run(execute(eval_thresholds={"politeness": 0.5}))["verdict"] == "passed"
    assert len(executions(control)) == 1


@DEFERRABLE
def test_evaluations_that_could_not_be_seen_are_no_failed_verdict(control, deferrable):
    """The product answers 500 for the whole execution when one evaluation is of a kind that it does not know."""
    control.fault("status", status=500, operation="futureagi.eval_summary")
    control.fault("status", status=404, operation="futureagi.runs")
    task = Task()
    operator = {"eval_thresholds": {"task_completion": 0.5}, "deferrable": deferrable}
    said = task.fail(execute(**operator), ServerError)
    assert "are not available" in said
    assert task.record["phase"] == "started"
    control.clear_faults()
    assert task.run(execute(**operator))["verdict"] == "passed"
    assert len(executions(control)) == 1, "judged again, not started again"


def test_evaluations_that_nobody_asks_for_may_be_missing(control):
    control.fault("status", status=500, operation="futureagi.eval_summary")
    report = Task().run(execute())
    # What the calls were given is known without the summary.
    assert (report["verdict"], report["metrics"]["politeness"]) == ("passed", 0.92)


def test_scenarios_of_another_run_test_are_refused_by_name(control):
    foreign = FutureAGIHook().list_scenarios(FLAKY)[0]["id"]
    own = [row["id"] for row in FutureAGIHook().list_scenarios(GOOD)]
    for chosen in ({"scenario_ids": [own[0], foreign]}, {"exclude_scenario_ids": [foreign]}):
        task = Task()
        said = task.fail(execute(**chosen), ConfigurationError)
        assert foreign in said.partition("Its scenarios are")[0]
        assert own[0] not in said.partition("Its scenarios are")[0]
    assert executions(control) == []
    report = Task().run(execute(exclude_scenario_ids=[own[0]]))
    (run,) = control.runs("futureagi")
    assert (run["run_id"], run["arguments"]["scenario_ids"]) == (
        report["run_id"],
        own[1:] if run["arguments"]["dialect"] == "current" else [own[0]],
    )


@pytest.mark.parametrize(
    ("status", "kind", "detail", "words"),
    [
        (402, "payment_required", "Voice simulation is not available", "upgrade, or run fewer scenarios"),
        (403, "entitlement_error", "Not entitled", "does not have this feature"),
        (403, "permission_error", "Not allowed", "Use a key whose user has the rights"),
    ],
)
def test_a_start_that_is_not_paid_for_or_not_allowed(control, status, kind, detail, words):
    body = {"status": False, "type": kind, "detail": detail}
    control.fault("status", status=status, body=body, operation=START)
    task = Task()
    said = task.fail(execute(), PermissionDeniedError, f"HTTP {status}: {detail}")
    assert words in said
    assert executions(control) == []
    assert task.store == {}, "nothing was started: there is nothing to look for"


def test_too_many_requests_are_waited_for(control, monkeypatch):
    control.fault("status", status=429, headers={"Retry-After": "1"}, operation=START, times=1)
    assert Task().run(execute())["verdict"] == "passed"
    assert control.count(START) == 2
    assert len(executions(control)) == 1
    body = {"status": False, "type": "rate_limit", "detail": "Slow down"}
    control.fault("status", status=429, headers={"Retry-After": "301"}, body=body, operation=START)
    said = Task().fail(execute(), RateLimitedError)
    assert "all requests of the organization" in said


# Rerunning the failed calls of an execution


@DEFERRABLE
def test_the_failed_calls_are_run_again_and_judged(control, told, deferrable):
    execution_id = ended(control)
    task = Task()
    report = task.run(rerun(execution_id, run_test_id=FLAKY, deferrable=deferrable))
    assert (report["run_id"], report["verdict"], report["passed"]) == (execution_id, "passed", 4)
    assert "a rerun (call_and_eval) of 1 call of execution" in told
    assert (control.count(RERUN), executions(control)) == (1, [execution_id])
    assert task.deferrals == int(deferrable)
    assert task.xcoms["run_id"] == execution_id
    assert task.run(rerun(execution_id, run_test_id=FLAKY))["verdict"] == "passed"
    assert control.count(RERUN) == 1, "a task that has passed sends nothing"


def test_a_rerun_is_judged_by_its_gates(control):
    execution_id = ended(control)
    gates = {"task_completion": 0.76}
    assert "0.75, below its gate 0.76" in Task().fail(rerun(execution_id, eval_thresholds=gates), RunFailedError)
    passed = Task().run(rerun(ended(control), run_test_id=FLAKY, eval_thresholds={"task_completion": 0.75}))
    assert passed["metrics"]["task_completion"] == 0.75
    with_unknown = rerun(ended(control), run_test_id=FLAKY, eval_thresholds={"polite": 0.5})
    Task().fail(with_unknown, ConfigurationError, "'politeness'")
    assert control.count(RERUN) == 2


def test_calls_beyond_the_first_page(control):
    """The server's own page has 10 calls."""
    run_test = control.create_run_test(
        "many-calls", ending="failed", scenarios={"Refund": 12, "Delay": 113}, agent_type="voice", recovers=True
    )
    task = Task()
    task.fail(execute(run_test, rerun_failed_only=True), RunFailedError, "of 125 test cases")
    failed = task.xcoms["return_value"]["failed"]
    assert failed > 0
    assert task.xcoms["return_value"]["failures"][0]["message"].startswith("The agent hung up")
    assert task.run(execute(run_test, rerun_failed_only=True))["passed"] == 125
    (execution_id,) = executions(control)
    assert len(FutureAGIHook().list_call_results(execution_id)) == 125


def test_without_failed_calls_the_execution_is_judged_as_it_is(control, told):
    execution_id = ended(control, GOOD)
    report = Task().run(rerun(execution_id, run_test_id=GOOD))
    assert (report["run_id"], report["verdict"]) == (execution_id, "passed")
    assert "no call of it is left to run again" in told
    assert control.count(RERUN) == 0


def test_chosen_calls_and_evaluations_only(control):
    execution_id = ended(control)
    call_ids = control.call_ids(execution_id)
    Task().fail(rerun(execution_id, call_execution_ids=[call_ids[0], NOBODY]), ConfigurationError, NOBODY)
    assert control.count(RERUN) == 0
    failed = rerun(execution_id, call_execution_ids=call_ids[2:], rerun_type="eval_only")
    assert "1 failed of 4" in Task().fail(failed, RunFailedError)
    assert Task().run(rerun(execution_id, select_all=True))["verdict"] == "passed"
    assert control.count(RERUN) == 2


@DEFERRABLE
def test_a_rerun_whose_response_was_lost_is_never_sent_again(control, deferrable):
    execution_id = ended(control)
    control.fault("drop", operation=RERUN, when="after", times=1)
    task = Task()
    for number in range(3):
        said = task.fail(rerun(execution_id, deferrable=deferrable), StartOutcomeUnknownError)
        assert execution_id in said
        assert "FutureAGITestExecutionSensor" in said
        assert task.record["phase"] == "intent", number
    assert control.count(RERUN) == 1
    sensor = FutureAGITestExecutionSensor(task_id="watch", execution_id=execution_id, poke_interval=0.1, timeout=600)
    assert Task().run(sensor)["verdict"] == "passed", "what the message says to do"


@ONE_DIALECT
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 504}, {"status": 200, "body": "{}"}])
def test_a_rerun_of_unknown_outcome_is_never_sent_again(control, fault):
    execution_id = ended(control)
    control.fault("status", operation=RERUN, when="before", **fault)
    task = Task()
    for _ in range(2):
        task.fail(rerun(execution_id), StartOutcomeUnknownError)
    assert control.count(RERUN) == 1


@DEFERRABLE
def test_a_rerun_that_was_started_is_attached_to(control, told, deferrable):
    execution_id = ended(control)
    # The first look is from before the rerun; the one after it is refused.
    control.fault("status", status=403, operation="futureagi.metrics", skip=1, times=1)
    task = Task()
    task.fail(rerun(execution_id, deferrable=deferrable), PermissionDeniedError)
    assert task.record["phase"] == "started"
    report = task.run(rerun(execution_id, deferrable=deferrable))
    assert (report["run_id"], report["verdict"]) == (execution_id, "passed")
    assert "was started by an earlier try: waiting for it" in told
    assert control.count(RERUN) == 1


def test_the_retry_of_a_rerun_that_failed_runs_the_failed_calls_again(control):
    execution_id = ended(control, BROKEN)
    control.set_target("futureagi", BROKEN, duration=0.2)
    task = Task()
    arguments: dict[str, Any] = {"rerun_type": "eval_only"}
    for count in (1, 2):
        task.fail(rerun(execution_id, **arguments), RunFailedError, "3 failed of 3")
        assert control.count(RERUN) == count
        assert task.record["phase"] == "judged"


def test_an_execution_that_is_not_final_is_not_rerun(control):
    execution_id = going(control)
    Task().fail(rerun(execution_id), InvalidRequestError, "when it is final")
    Task().fail(rerun(NOBODY), NotFoundError)
    Task().fail(rerun("{{ nothing }}"), ConfigurationError, "execution_id")
    Task().fail(rerun(""), ConfigurationError, "execution_id")
    assert (control.count(RERUN), control.count(START)) == (0, 0)


def test_calls_of_a_text_agent_are_not_made_again(control):
    execution_id = ended(control, BROKEN)
    task = Task()
    task.fail(rerun(execution_id), InvalidRequestError, "only support 'eval_only'")
    assert task.store == {}, "refused: nothing was started"


def test_a_rerun_that_could_not_be_dispatched(control):
    execution_id = ended(control)
    control.configure(futureagi_workflow_down=True)
    task = Task()
    task.fail(rerun(execution_id), ServerError, "none of the calls")
    assert control.count(RERUN) == 1, "not again in the same try"
    control.configure(futureagi_workflow_down=False)
    assert task.run(rerun(execution_id))["verdict"] == "passed"


def test_a_rerun_that_takes_too_long_is_cancelled(control):
    execution_id = ended(control)
    control.set_target("futureagi", FLAKY, duration=1e6)
    task = Task()
    task.fail(rerun(execution_id, timeout=0.5), RunTimeoutError, "ended as cancelled")
    assert control.run(execution_id)["phase"] == "cancelled"
    control.set_target("futureagi", FLAKY, duration=0.2)
    assert task.run(rerun(execution_id))["verdict"] == "passed", "the calls that were cancelled are run again"


# A retry that runs the failed calls again


@DEFERRABLE
def test_a_retry_runs_the_failed_calls_of_the_same_execution_again(control, told, deferrable):
    task = Task()
    arguments: dict[str, Any] = {"rerun_failed_only": True, "deferrable": deferrable}
    task.fail(execute(FLAKY, **arguments), RunFailedError)
    (execution_id,) = executions(control)
    assert (task.record["phase"], task.record["verdict"]) == ("judged", "failed")
    report = task.run(execute(FLAKY, **arguments))
    assert (report["run_id"], report["verdict"], report["passed"]) == (execution_id, "passed", 4)
    assert "a rerun (call_and_eval) of 1 call of execution" in told
    assert (control.count(START), control.count(RERUN)) == (1, 1)
    assert task.record["run"]["run_id"] == execution_id


def test_without_it_a_retry_starts_another_execution(control):
    task = Task()
    for count in (1, 2):
        task.fail(execute(FLAKY), RunFailedError)
        assert len(executions(control)) == count
    assert control.count(RERUN) == 0


@pytest.mark.parametrize(
    ("run_test", "gates", "words"),
    [
        (BROKEN, {}, "is a text agent, whose calls Future AGI evaluates again but does not make again"),
        (GOOD, {"politeness": 1.0}, "All calls of execution"),
    ],
)
def test_a_retry_that_cannot_run_calls_again_says_so_and_starts_anew(control, told, run_test, gates, words):
    task = Task()
    for count in (1, 2):
        task.fail(execute(run_test, rerun_failed_only=True, eval_thresholds=gates), RunFailedError)
        assert len(executions(control)) == count
    assert words in told
    assert control.count(RERUN) == 0


@ONE_DIALECT
def test_a_retry_whose_rerun_is_refused_starts_anew(control, told):
    task = Task()
    task.fail(execute(FLAKY, rerun_failed_only=True), RunFailedError)
    body = {"status": False, "type": "validation_error", "detail": "No call executions found that can be rerun."}
    control.fault("status", status=400, body=body, operation=RERUN)
    task.fail(execute(FLAKY, rerun_failed_only=True), RunFailedError)
    assert "No call executions found" in told
    assert len(executions(control)) == 2


def test_a_retry_whose_rerun_got_no_response_starts_nothing(control):
    task = Task()
    task.fail(execute(FLAKY, rerun_failed_only=True), RunFailedError)
    control.fault("drop", operation=RERUN, when="after", times=1)
    for _ in range(2):
        task.fail(execute(FLAKY, rerun_failed_only=True), StartOutcomeUnknownError)
    assert (control.count(START), control.count(RERUN)) == (1, 1)


@ONE_DIALECT
def test_a_retry_that_may_not_rerun_can_later(control):
    task = Task()
    task.fail(execute(FLAKY, rerun_failed_only=True), RunFailedError)
    control.fault("status", status=402, operation=RERUN, times=1)
    task.fail(execute(FLAKY, rerun_failed_only=True), PermissionDeniedError)
    assert task.record["phase"] == "judged"
    assert task.run(execute(FLAKY, rerun_failed_only=True))["verdict"] == "passed"
    assert (control.count(START), control.count(RERUN)) == (1, 2)


def test_an_execution_that_broke_is_not_rerun(control):
    task = Task()
    with pytest.raises(Exception, match="could not be run"):
        task.run(execute(DEAD, rerun_failed_only=True))
    with pytest.raises(Exception, match="could not be run"):
        task.run(execute(DEAD, rerun_failed_only=True))
    assert (control.count(START), control.count(RERUN)) == (2, 0)


# Cancelling


def cancel(execution_id: str, **arguments: Any) -> FutureAGICancelTestExecutionOperator:
    return FutureAGICancelTestExecutionOperator(task_id="cancel", execution_id=execution_id, **arguments)


def test_a_running_execution_is_cancelled_and_watched_until_it_has_stopped(control):
    execution_id = going(control)
    task = Task()
    result = task.run(cancel(execution_id.upper(), run_test_id=GOOD))
    assert (result["run_id"], result["verdict"], result["raw_state"]) == (execution_id, "cancelled", "cancelled")
    assert result["url"] == task.xcoms["run_url"]
    assert task.xcoms["run_url"].endswith(execution_id)
    assert control.count(CANCEL) == 1


@pytest.mark.parametrize(("run_test", "state"), [(GOOD, "completed"), (DEAD, "failed")])
def test_a_final_execution_is_left_alone(control, told, run_test, state):
    execution_id = ended(control, run_test)
    assert Task().run(cancel(execution_id))["raw_state"] == state
    assert f"Run {execution_id} has already finished as {state}: nothing to stop." in told
    assert control.count(CANCEL) == 0
    assert FutureAGIHook().get_test_execution(execution_id).raw_state == state


def test_a_cancel_that_takes_too_long(control):
    control.configure(cancel_seconds=60.0)
    Task().fail(cancel(going(control), timeout=0.5), RunTimeoutError, "still cancelling after 0.5 s")
    assert control.count(CANCEL) == 1


def test_what_cannot_be_cancelled(control):
    Task().fail(cancel(NOBODY), NotFoundError)
    Task().fail(cancel("nonsense"), ConfigurationError, "execution_id")
    with pytest.raises(ConfigurationError, match="timeout"):
        cancel(NOBODY, timeout=0)
    assert control.count(CANCEL) == 0


# Files


@pytest.mark.parametrize("run_test", [GOOD, FLAKY])
def test_files_are_saved_whatever_the_verdict(control, tmp_path, run_test):
    folder = tmp_path / "not" / "there"
    task = Task()
    operator = execute(run_test, artifacts_path=str(folder))
    if run_test == FLAKY:
        task.fail(operator, RunFailedError)
    else:
        task.run(operator)
    table, transcripts, *recordings = [Path(place) for place in task.xcoms["artifacts"]]
    (execution_id,) = executions(control)
    assert [path.name for path in (table, transcripts)] == [
        f"testexecution_{execution_id}.csv",
        f"transcripts_{execution_id}.json",
    ]
    calls = control.call_ids(execution_id)
    assert [row["ID"] for row in csv.DictReader(table.read_text().splitlines())] == calls
    said = json.loads(transcripts.read_text())
    assert said["execution_id"] == execution_id
    assert [call["call_execution_id"] for call in said["calls"]] == calls
    assert all(call["transcripts"] for call in said["calls"])
    # L12: of a voice agent, what was said can be heard.
    spoken = [f"recording_{execution_id}_{call}_{kind}.wav" for call in calls for kind in ("combined", "assistant")]
    assert [path.name for path in recordings] == (spoken if run_test == FLAKY else [])
    for path in recordings:
        with wave.open(str(path)) as sound:
            assert sound.getnframes() == 8000
    assert sorted(folder.iterdir()) == sorted([table, transcripts, *recordings])
    assert control.violations() == [], "no keys went to where the recordings are"


@ONE_DIALECT
@pytest.mark.parametrize(("operation", "status"), [("recording", 403), ("get_call", 404), ("get_execution", 500)])
def test_l12_recordings_that_are_not_available_are_warnings_and_cost_nothing_else(
    control, told, tmp_path, operation, status
):
    control.fault("status", status=status, operation=f"futureagi.{operation}")
    task = Task()
    task.fail(execute(FLAKY, artifacts_path=str(tmp_path)), RunFailedError)
    assert ("is not saved" if operation == "recording" else "are not available") in told
    assert sorted(Path(place).suffix for place in task.xcoms["artifacts"]) == [".csv", ".json"]


@ONE_DIALECT
@pytest.mark.parametrize("operation", ["export", "transcripts"])
def test_files_are_complete_or_absent(control, told, tmp_path, monkeypatch, operation):
    monkeypatch.setattr("airflow_provider_testruns.hooks.base.PlatformHook.ask.__defaults__", (0.0,))
    control.fault("truncate", operation=f"futureagi.{operation}")
    task = Task()
    assert task.run(execute(artifacts_path=str(tmp_path)))["verdict"] == "passed"
    assert "Could not save all files of run" in told
    left = [path.suffix for path in tmp_path.iterdir()]
    assert left == ([] if operation == "export" else [".csv"])


# The sensor


def watch(execution_id: str, mode: str, **arguments: Any) -> FutureAGITestExecutionSensor:
    return FutureAGITestExecutionSensor(
        task_id="watch",
        execution_id=execution_id,
        deferrable=mode == "deferrable",
        **{"poke_interval": 0.1, "timeout": 600, **arguments},
    )


MODE = pytest.mark.parametrize("mode", ["poke", "deferrable"])


@MODE
@pytest.mark.parametrize("run_test_id", [FLAKY, None])
def test_the_sensor_judges_by_the_same_gates(control, mode, run_test_id):
    execution_id = ended(control, FLAKY)
    gates = {"task_completion": 0.9}
    said = Task().fail(watch(execution_id, mode, run_test_id=run_test_id, eval_thresholds=gates), RunFailedError)
    assert "below its gate 0.9 by 0.233" in said
    assert "The agent hung up" in said
    lenient = watch(execution_id, mode, run_test_id=run_test_id, min_pass_rate=0.5, eval_thresholds={"politeness": 0.5})
    assert Task().run(lenient)["verdict"] == "passed"


@MODE
def test_the_sensor_waits(control, mode):
    (execution_id,) = control.add_runs("futureagi", GOOD, 1, age=0.0, duration=0.6)
    assert Task().run(watch(execution_id, mode, run_test_id=GOOD))["verdict"] == "passed"
    with pytest.raises(AirflowSensorTimeout):
        Task().run(watch(going(control), mode, timeout=0.3))
    assert control.count(CANCEL) == 0


@MODE
def test_what_the_sensor_could_not_see_is_neither_failed_nor_skipped(control, mode):
    execution_id = ended(control, GOOD)
    arguments = {"run_test_id": GOOD, "soft_fail": True}
    unknown = watch(execution_id, mode, eval_thresholds={"polite": 0.5}, **arguments)
    Task().fail(unknown, ConfigurationError, "'politeness'")
    control.fault("status", status=500, operation="futureagi.eval_summary")
    control.fault("status", status=404, operation="futureagi.runs")
    metrics_error = watch(execution_id, mode, eval_thresholds={"politeness": 0.5}, **arguments)
    with pytest.raises(ApiError, match="are not available"):
        Task().run(metrics_error)
