"""The hook over a socket, against the sandbox, in both dialects. The sandbox counts what the API has no place for."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.lifecycle.starting import Epoch, Starter
from airflow_provider_testruns.model import Metric, Run, RunState, Verdict
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import WITHIN

pytestmark = pytest.mark.integration

GOOD, FLAKY, DEAD, EMPTY, BROKEN = (f"fa000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))
NOBODY = "fa000000-0000-4000-8000-0000deadbeef"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.3, seed=1) as running:
        yield running


@pytest.fixture
def sandbox(server: SandboxServer) -> Iterator[SandboxServer]:
    server.control.reset()
    yield server
    assert server.control.violations() == []


@pytest.fixture(params=["current", "documented"])
def hook(request: pytest.FixtureRequest, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> FutureAGIHook:
    return connected(sandbox, monkeypatch, request.param)


@pytest.fixture
def current(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> FutureAGIHook:
    return connected(sandbox, monkeypatch, "current")


def connected(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, dialect: str, **changes: Any) -> FutureAGIHook:
    connection = sandbox.connections()["futureagi_default"]
    connection = {**connection, "extra": {**connection["extra"], "timeout": 60}, **changes}
    if dialect == "documented":
        del connection["extra"]["secret_key"]
    monkeypatch.setenv("AIRFLOW_CONN_FUTUREAGI_DEFAULT", json.dumps(connection))
    return FutureAGIHook()


def finished(hook: FutureAGIHook, run: Run) -> Run:
    until = time.monotonic() + WITHIN
    while time.monotonic() < until:
        run = hook.get_test_execution(run.run_id, run.ids.get("run_test_id"))
        if run.final:
            return run
        time.sleep(0.02)
    raise AssertionError(f"{run} has not ended")


def test_a_run_from_start_to_report(hook, sandbox):
    started = hook.execute_test_run(GOOD, select_all=True)
    assert (started.state, started.final) == (RunState.QUEUED, False)
    assert started.url == f"{sandbox.url}/futureagi/dashboard/simulate/test/{GOOD}/{started.run_id}"
    run = finished(hook, started)
    assert run.platform_verdict is Verdict.PASSED
    report = hook.get_report(run)
    assert report.counts is not None
    assert report.counts.passed == report.counts.total == len(report.cases) > 0
    assert report.metrics["task_completion"] == Metric(1.0, report.counts.total)
    assert 0 < (report.metrics["politeness"].value or 0) <= 1
    assert judge(report, Gates(eval_thresholds={"task_completion": 1.0})).verdict is Verdict.PASSED
    assert judge(report, Gates(eval_thresholds={"politeness": 1.0})).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("run_test", "verdict"),
    [(FLAKY, Verdict.FAILED), (DEAD, Verdict.ERRORED), (EMPTY, Verdict.FAILED), (BROKEN, Verdict.FAILED)],
)
def test_verdicts(hook, run_test, verdict):
    report = hook.get_report(finished(hook, hook.execute_test_run(run_test, select_all=True)))
    assert judge(report).verdict is verdict
    if run_test == DEAD:
        assert report.run.message, "the list's error_reason"


def test_scenarios_are_chosen(hook, sandbox):
    ids = [row["id"] for row in hook.list_scenarios(GOOD)]
    assert len(ids) > 1
    hook.execute_test_run(GOOD, scenario_ids=[ids[0].upper()])
    hook.execute_test_run(GOOD, exclude_scenario_ids=[ids[0]])
    only, but = [run["arguments"] for run in sandbox.control.runs("futureagi")][-2:]
    assert only["scenario_ids"] == [ids[0]]
    expected = ids[1:] if hook.platform.dialect == "current" else [ids[0]]
    assert but["scenario_ids"] == expected


def test_nothing_is_started_with_scenarios_of_another_run_test(current, sandbox):
    other = current.list_scenarios(FLAKY)[0]["id"]
    with pytest.raises(ConfigurationError, match=other):
        current.execute_test_run(GOOD, scenario_ids=[other])
    with pytest.raises(NotFoundError, match="Run test not found"):
        current.execute_test_run(NOBODY, select_all=True)
    assert sandbox.control.runs("futureagi") == []


def test_starting_by_name(hook):
    run = hook.start_run(run_test_name="nightly-support-sim", select_all=True)
    assert run.ids == {"run_test_id": GOOD}
    with pytest.raises(ConfigurationError, match="nightly-support-sim"):
        hook.start_run(run_test_name="Nightly Support Sim", select_all=True)


def test_lists_have_every_page(hook, sandbox):
    ids = sandbox.control.add_runs("futureagi", GOOD, 230, age=60.0)
    runs = hook.list_executions(GOOD)
    assert [run.run_id for run in runs] == ids[::-1]
    since = runs[9].started_at
    assert [run.run_id for run in hook.find_runs(since, run_test_id=GOOD)] == ids[:-11:-1]
    assert hook.find_runs(datetime.now(UTC) + timedelta(hours=1), run_test_id=GOOD) == []
    wanted = {ids[0], ids[-1]}
    polled = hook.ask(hook.platform.list_group(GOOD, wanted, None))
    assert {run.run_id for run in polled} == wanted


def test_polling_alone_and_together_agree(hook):
    started = hook.execute_test_run(FLAKY, select_all=True)
    run = finished(hook, started)
    (listed,) = hook.list_executions(FLAKY)
    assert (listed.run_id, listed.state, listed.platform_verdict) == (run.run_id, run.state, run.platform_verdict)
    assert (listed.started_at, listed.url, listed.ids) == (run.started_at, run.url, run.ids)
    assert hook.get_run(run.run_id, **run.ids) == run


def test_cancelling(hook, sandbox):
    sandbox.control.plan_next("futureagi", duration=60.0)
    run = hook.execute_test_run(GOOD, select_all=True)
    hook.cancel_test_execution(run.run_id)
    assert finished(hook, run).platform_verdict is Verdict.CANCELLED
    hook.cancel_run(run.run_id, **run.ids)
    done = finished(hook, hook.execute_test_run(GOOD, select_all=True))
    hook.cancel_test_execution(done.run_id)
    assert hook.get_run(done.run_id).platform_verdict is Verdict.PASSED, "a final one is left as it is"
    assert sandbox.control.count("futureagi.cancel_execution") == 1
    with pytest.raises(NotFoundError):
        hook.cancel_test_execution(NOBODY)


def test_running_calls_again(hook, sandbox):
    run = finished(hook, hook.execute_test_run(FLAKY, select_all=True))
    ids = sandbox.control.call_ids(run.run_id)
    response = hook.rerun_calls(run.run_id, "call_and_eval", call_execution_ids=ids[:2])
    assert response["success_count"] == 2
    with pytest.raises(InvalidRequestError, match="Cannot rerun"):
        hook.rerun_calls(run.run_id, "eval_only", select_all=True)
    finished(hook, run)
    assert hook.rerun_calls(run.run_id, "eval_only", select_all=True)["success_count"] == len(ids)
    run = finished(hook, run)
    sandbox.control.configure(futureagi_workflow_down=True)
    with pytest.raises(ServerError, match="none of the calls"):
        hook.rerun_calls(run.run_id, "eval_only", select_all=True)
    sandbox.control.configure(futureagi_workflow_down=False)
    sandbox.control.fault("drop", operation="futureagi.rerun_calls", when="after", times=1)
    before = sandbox.control.count("futureagi.rerun_calls")
    with pytest.raises(StartOutcomeUnknownError):
        hook.rerun_calls(run.run_id, "eval_only", select_all=True)
    assert sandbox.control.count("futureagi.rerun_calls") == before + 1


def test_every_reader(hook):
    run = finished(hook, hook.execute_test_run(GOOD, select_all=True))
    assert {row["name"] for row in hook.list_run_tests()} >= {"nightly-support-sim", "empty-sim"}
    assert hook.get_run_test(GOOD)["name"] == "nightly-support-sim"
    assert hook.get_run_test_id("nightly-support-sim") == GOOD
    assert hook.get_run_test_status(GOOD)["execution_id"] == run.run_id
    assert hook.get_run_test_status(BROKEN)["status"] == "not_found"
    assert hook.get_metrics(run.run_id)["status"] == "completed"
    assert hook.get_analytics(run.run_id)["run_test_name"] == "nightly-support-sim"
    calls = hook.list_call_results(run.run_id)
    assert len(calls) == hook.get_kpis(run.run_id)["total_calls"]
    assert "top_performing_scenarios" in hook.get_performance_summary(run.run_id)
    assert len(hook.get_test_execution_detail(run.run_id, limit=1)["results"]) == 1
    assert [row["name"] for row in hook.get_eval_summary(GOOD, run.run_id)] == [
        "task_completion",
        "politeness",
        "handover",
    ]
    assert len(hook.list_transcripts(run.run_id)) == len(calls)
    assert hook.health()
    with pytest.raises(InvalidRequestError, match="Run test not found"):
        hook.get_run_test_id("no such thing")


def test_the_export_is_complete_or_absent(hook, sandbox, tmp_path):
    run = finished(hook, hook.execute_test_run(GOOD, select_all=True))
    target = tmp_path / "deep" / "calls.csv"
    assert hook.export_csv(run.run_id, target) == str(target)
    rows = list(csv.reader(target.read_text().splitlines()))
    assert rows[0][0] == "ID"
    assert len(rows) == 1 + len(hook.list_call_results(run.run_id))
    assert hook.export_csv(run.run_id, f"{tmp_path}/") == str(tmp_path / f"testexecution_{run.run_id}.csv")
    before = target.read_bytes()
    with pytest.raises(NotFoundError):
        hook.export_csv(NOBODY, target)
    sandbox.control.fault("truncate", operation="futureagi.export", times=50)
    with pytest.raises(Exception, match="export"):
        hook.ask(hook.platform.export_csv(run.run_id, tmp_path / "part"), patience=0)
    sandbox.control.clear_faults()
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_the_connection_is_tested(sandbox, monkeypatch):
    for dialect in ("current", "documented"):
        good, words = connected(sandbox, monkeypatch, dialect).test_connection()
        assert (good, dialect in words) == (True, True), words
    good, words = connected(sandbox, monkeypatch, "documented", password="canary-of-nobody").test_connection()
    assert not good
    assert "secret_key" in words
    assert "canary-of-nobody" not in words
    monkeypatch.setenv("AIRFLOW_CONN_FUTUREAGI_DEFAULT", json.dumps({"conn_type": "futureagi"}))
    good, words = FutureAGIHook().test_connection()
    assert not good
    assert "password" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "two words"}, "password"),
        ({"password": "schlüssel"}, "password"),
        ({"extra": {"secret_key": "two words"}}, "secret_key"),
        ({"extra": {"secret_key": ["5"]}}, "secret_key"),
        ({"extra": {"app_url": "not an address"}}, "app_url"),
    ],
)
def test_fields_that_cannot_be_right(sandbox, monkeypatch, changes, words):
    hook = connected(sandbox, monkeypatch, "current", **changes)
    with pytest.raises(ConfigurationError, match=words):
        hook.list_run_tests()


def test_keys_never_go_out_together(sandbox, monkeypatch):
    for dialect, sent in (("current", {"X-Api-Key", "X-Secret-Key"}), ("documented", {"Authorization"})):
        hook = connected(sandbox, monkeypatch, dialect)
        auth, _ = hook.make_auth(hook.settings)
        assert set(auth.headers() or ()) == sent


def test_a_key_that_is_refused_starts_nothing(current, sandbox):
    sandbox.control.reject_tokens(60, "futureagi")
    with pytest.raises(AuthenticationError, match="secret_key") as raised:
        current.execute_test_run(GOOD, select_all=True)
    assert raised.value.not_executed
    assert sandbox.control.runs("futureagi") == []


def obtain(hook: FutureAGIHook, window: float = 5.0) -> Any:
    client = hook.new_client()
    starter = Starter(
        hook.platform,
        store=None,
        epoch=Epoch(0, 0, 0),
        window=window,
        log=hook.log,
        clock_offset=lambda: client.session.clock_offset,
    )
    with client:
        return client.run(starter.obtain({"run_test_id": GOOD, "select_all": True}))


def test_a_lost_start_is_adopted(hook, sandbox):
    sandbox.control.add_runs("futureagi", GOOD, 3, age=5.0)
    sandbox.control.fault("drop", operation="futureagi.execute", when="after", times=1)
    obtained = obtain(hook)
    assert obtained.how == "adopted"
    assert sandbox.control.count("futureagi.execute") == 1
    assert len(sandbox.control.runs("futureagi")) == 4


def test_a_start_that_left_an_execution_behind_is_not_repeated(hook, sandbox):
    """The 400 of a workflow service that is down has the type of a refusal, and the execution is there."""
    sandbox.control.configure(futureagi_workflow_down=True)
    obtained = obtain(hook)
    assert obtained.how == "adopted"
    assert not obtained.run.final
    assert sandbox.control.count("futureagi.execute") == 1
    assert len(sandbox.control.runs("futureagi")) == 1


# What a running Future AGI does: each test names its row

QUALITY = "fa000000-0000-4000-8000-000000000006"


def test_l1_l2_l3_l10_metrics_are_the_platforms_own_figures_whatever_the_form_of_an_output(
    hook: FutureAGIHook, sandbox: SandboxServer
) -> None:
    (execution_id,) = sandbox.control.add_runs("futureagi", QUALITY, 1, age=60.0)
    report = hook.get_report(hook.get_run(execution_id, run_test_id=QUALITY))
    kpis, averages = hook.get_kpis(execution_id), hook.get_analytics(execution_id)["eval_averages"]
    # A score, a pass, a score out of a choice, and numbers in the place of choices: percentages with one decimal.
    for name in ("tone", "resolved", "warmth", "rating"):
        value = report.metrics[name].value
        assert value is not None
        assert round(value * 100, 1) == kpis[f"avg_{name}"] == averages[f"avg_{name}"], name
    # One choice, one of a template with scores, several in one answer, and several of such a template: counts.
    for name in ("escalated", "mood", "topics", "moods"):
        counts = {choice: count for choice, count in kpis[name].items() if choice != "choices"}
        shares = {key.partition("=")[2]: metric for key, metric in report.metrics.items() if key.startswith(f"{name}=")}
        assert {choice: round((metric.value or 0) * (metric.scored or 0)) for choice, metric in shares.items()} == {
            choice: count for choice, count in counts.items() if count
        }, name
        assert {choice.lower(): count for choice, count in counts.items() if count} == averages[name]
    assert sum(count for choice, count in kpis["topics"].items() if choice != "choices") > 7, "several in one answer"
    # Of the use of tools there is no summary: the second use failed in every other call of 7, and once was not judged.
    tools = {name: metric for name, metric in report.metrics.items() if name.startswith("tool:")}
    first, second = Metric(1.0, 7), Metric(0.5, 6)
    assert tools == {
        f"tool:{tool} #{use}": metric for tool in ("lookup", "refund") for use, metric in ((1, first), (2, second))
    }
    gates = {"warmth": 0.6, "mood=Great": 0.4, "topics=Yes": 0.5, "tool:lookup #1": 1.0}
    assert judge(report, Gates(eval_thresholds=gates)).verdict is Verdict.PASSED
    assert judge(report, Gates(eval_thresholds={"tool:refund #2": 0.51})).verdict is Verdict.FAILED
    # The platform's summary has none of it right.
    summary = {row["name"]: row for row in hook.get_eval_summary(QUALITY, execution_id)}
    assert summary["warmth"]["total_avg"] == 0
    assert "{'score': 0.9, 'choice': 'Great'}" in summary["mood"]["total_choices_avg"]


def test_l9_the_cases_of_two_executions_have_the_same_names(hook: FutureAGIHook, sandbox: SandboxServer) -> None:
    reports = [
        hook.get_report(hook.get_run(execution_id, run_test_id=QUALITY))
        for execution_id in sandbox.control.add_runs("futureagi", QUALITY, 2, age=60.0)
    ]
    one, other = ([(case.suite, case.name) for case in report.cases] for report in reports)
    assert one == other
    assert len(set(one)) == 7
    ids = [case.details["call_execution_id"] for report in reports for case in report.cases]
    assert len(set(ids)) == 14


def test_durations_are_known_of_chats_too(hook: FutureAGIHook, sandbox: SandboxServer) -> None:
    (execution_id,) = sandbox.control.add_runs("futureagi", GOOD, 1, age=60.0)
    run = hook.get_run(execution_id, run_test_id=GOOD)
    assert run.finished_at is None, "the platform shows no end of a chat"
    report = hook.get_report(run)
    assert report.duration == max(case.duration or 0.0 for case in report.cases) > 0


def test_001_the_fields_of_a_starts_response_are_in_the_raw_form_of_the_run(hook: FutureAGIHook) -> None:
    raw = hook.execute_test_run(GOOD, select_all=True).raw
    assert (raw["message"], raw["total_scenarios"], raw["total_calls"]) == ("Test execution started successfully", 3, 5)
    assert sorted(raw["scenario_ids"]) == sorted(row["id"] for row in hook.list_scenarios(GOOD))
