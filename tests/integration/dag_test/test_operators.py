"""The starting operators in real DAGs: verdicts, results, links, templates, mapping, gates and bad arguments."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk import task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.harness.waiting import wait_until
from tests.integration.dag_test.running import AirflowProcess, DagFileError, TaskRun

pytestmark = pytest.mark.integration

MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])
REPORT_KEYS = {
    "platform",
    "run_id",
    "verdict",
    "reasons",
    "raw_state",
    "url",
    "started_at",
    "finished_at",
    "duration",
    "total",
    "passed",
    "failed",
    "unavailable",
    "not_run",
    "pass_rate",
    "failures",
    "failures_left_out",
    "allowed_failures",
    "allowed_failures_left_out",
    "notes",
    "metrics",
    "junit_path",
}
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def every_verdict(deferrable: bool) -> None:
    shared = {"deferrable": deferrable, "poll_interval": 0.1}
    for number, name in enumerate(("passed", "failed", "errored", "empty"), start=1):
        EggplantStartExecutionOperator(
            task_id=f"eggplant_{name}", model_id=f"e0000000-0000-4000-8000-00000000000{number}", **shared
        )
        FutureAGIExecuteTestRunOperator(
            task_id=f"futureagi_{name}",
            run_test_id=f"fa000000-0000-4000-8000-00000000000{number}",
            select_all=True,
            **shared,
        )
        OmiliaCreateRunOperator(
            task_id=f"omilia_{name}", project_id=f"0a000000-0000-4000-8000-00000000000{number}", **shared
        )
    # Somebody stops these on the platform.
    stopped = "c0000000-0000-4000-8000-000000000009"
    EggplantStartExecutionOperator(task_id="eggplant_cancelled", model_id=stopped, **shared)
    FutureAGIExecuteTestRunOperator(task_id="futureagi_cancelled", run_test_name="stopped", select_all=True, **shared)
    OmiliaCreateRunOperator(task_id="omilia_cancelled", project_id=stopped, **shared)


@dataclass(frozen=True)
class Expected:
    """What a task of :func:`every_verdict` ends in.

    :param counts: total, passed, failed, unavailable, not run.
    """

    verdict: str
    raw_state: str
    counts: tuple[int | None, ...]
    reason: str = ""
    failures: tuple[str, ...] = ()


NOT_TESTED = (None,) * 5
EXPECTED = {
    "eggplant_passed": Expected("passed", "Passed", (1, 1, 0, 0, 0)),
    "eggplant_failed": Expected("failed", "Failed", (1, 0, 1, 0, 0), "1 failed of 1 test cases.", ("Returns",)),
    "eggplant_errored": Expected("errored", "Incomplete", NOT_TESTED, "The platform could not run it (Incomplete)."),
    "eggplant_empty": Expected("passed", "Passed", (1, 1, 0, 0, 0)),
    "eggplant_cancelled": Expected("cancelled", "Cancelled", (1, 0, 0, 0, 1), "The run was cancelled."),
    "futureagi_passed": Expected("passed", "completed", (5, 5, 0, 0, 0)),
    "futureagi_failed": Expected(
        "failed", "completed", (4, 3, 1, 0, 0), "1 failed of 4 test cases.", ("Charged twice",)
    ),
    "futureagi_errored": Expected("errored", "failed", (2, 0, 0, 0, 2), "Failed to set up the test execution"),
    "futureagi_empty": Expected("failed", "completed", (0, 0, 0, 0, 0), "No test case took part in the run."),
    "futureagi_cancelled": Expected("cancelled", "cancelled", (2, 2, 0, 0, 0), "The run was cancelled."),
    "omilia_passed": Expected("passed", "SUCCESS", (4, 4, 0, 0, 0)),
    "omilia_failed": Expected(
        "failed",
        "FAILURE",
        (9, 6, 2, 1, 0),
        "2 failed and 1 unavailable of 9 test cases.",
        ("balance_joint_account", "transfer_above_limit", "block_then_replace"),
    ),
    "omilia_errored": Expected("errored", "FAILURE", (0, 0, 0, 0, 0), "the run itself broke. Its log says: "),
    "omilia_empty": Expected("failed", "SUCCESS", (0, 0, 0, 0, 0), "No test case took part in the run."),
    "omilia_cancelled": Expected("cancelled", "REVOKED", (4, 4, 0, 0, 0), "The run was cancelled."),
}
ERRORS = {"failed": "RunFailedError", "errored": "RunErroredError", "cancelled": "RunCancelledError"}


@dataclass
class Outcome:
    """What became of a DAG run, in Airflow and on the platforms."""

    tasks: dict[str, TaskRun]
    runs: dict[str, dict[str, Any]]
    starts: dict[str, int]


@pytest.fixture(scope="module")
def outcomes(airflow: AirflowProcess) -> dict[bool, Outcome]:
    """The DAG of :func:`every_verdict`, deferrable and in place."""
    found = {}
    for deferrable in (True, False):
        control = airflow.start_anew()
        stopped = "c0000000-0000-4000-8000-000000000009"
        control.create_model("stopped", ending="cancelled", id=stopped)
        control.create_run_test("stopped", ending="cancelled", id=stopped, scenarios={"Opening hours": 2})
        control.create_project("stopped", ending="cancelled", id=stopped)
        tasks = airflow.run(every_verdict, deferrable=deferrable)
        starts = {
            "eggplant": control.count("eggplant.start_execution"),
            "futureagi": control.count("futureagi.execute"),
            "omilia": control.count("omilia.create_run"),
        }
        found[deferrable] = Outcome(tasks, {run["run_id"]: run for run in control.runs()}, starts)
    return found


@MODES
@pytest.mark.parametrize("task_id", EXPECTED)
def test_a_run_ends_in_its_verdict(outcomes: dict[bool, Outcome], task_id: str, deferrable: bool) -> None:
    expected, done = EXPECTED[task_id], outcomes[deferrable].tasks[task_id]
    assert done.state == ("success" if expected.verdict == "passed" else "failed")
    assert done.tries == 1
    assert done.deferrals == int(deferrable)

    report = done.result
    assert report.keys() == REPORT_KEYS
    assert report["verdict"] == expected.verdict
    assert report["raw_state"] == expected.raw_state
    counted = tuple(report[key] for key in ("total", "passed", "failed", "unavailable", "not_run"))
    assert counted == expected.counts
    assert expected.reason in " ".join(report["reasons"])
    assert bool(report["reasons"]) == bool(expected.reason)
    tried = sum(expected.counts[1:4]) if expected.counts[0] else 0  # type: ignore[arg-type]
    assert report["pass_rate"] == (round(expected.counts[1] / tried, 6) if tried else None)  # type: ignore[operator]
    named = " ".join(f"{failure['suite']} {failure['name']}" for failure in report["failures"])
    assert all(name in named for name in expected.failures), named
    assert len(report["failures"]) == len(expected.failures)
    assert all(failure["message"] for failure in report["failures"]) or task_id == "eggplant_failed"
    assert report["failures_left_out"] == 0

    # The run on the platform is the one that the task tells of, under all its names.
    run = outcomes[deferrable].runs[report["run_id"]]
    assert report["platform"] == run["platform"] == task_id.partition("_")[0]
    assert done.xcoms["run_id"] == report["run_id"]
    assert done.xcoms["run_url"] == report["url"]
    assert report["run_id"] in report["url"]
    assert done.xcoms.keys() == {"return_value", "run_id", "run_url", "test_run"}
    mark = done.xcoms["test_run"]
    assert (mark["platform"], mark["run_id"]) == (report["platform"], report["run_id"])
    assert mark.keys() == {"platform", "conn_id", "run_id", "kind"}
    assert done.record is not None
    assert done.record["phase"] == "judged"
    assert done.record["verdict"] == expected.verdict
    assert done.record["run"]["run_id"] == report["run_id"]

    if expected.verdict == "passed":
        assert done.errors == []
    else:
        assert done.error.kind == ERRORS[expected.verdict]
        assert report["run_id"] in done.error.message
        assert report["url"] in done.error.message
        assert expected.reason in done.error.message
        assert all(name in done.error.message for name in expected.failures)


@MODES
def test_each_task_starts_one_run(outcomes: dict[bool, Outcome], deferrable: bool) -> None:
    assert outcomes[deferrable].starts == {"eggplant": 5, "futureagi": 5, "omilia": 5}
    assert len(outcomes[deferrable].runs) == 15
    assert {done.result["run_id"] for done in outcomes[deferrable].tasks.values()} == set(outcomes[deferrable].runs)


def test_deferrable_and_in_place_give_the_same(outcomes: dict[bool, Outcome]) -> None:
    def told(task_id: str, deferrable: bool) -> Any:
        done = outcomes[deferrable].tasks[task_id]
        report = {key: value for key, value in done.result.items() if not key.endswith("_at") and key != "duration"}
        text = repr((done.state, report, done.errors))
        # The two runs differ by their ids, and by those of the calls and dialogs in them.
        return re.sub(rf"{_UUID}|'(dialogId|goldenDialogId)': '[^']*'", "", text)

    assert [told(task_id, True) for task_id in EXPECTED] == [told(task_id, False) for task_id in EXPECTED]


@MODES
@pytest.mark.parametrize("platform", ["eggplant", "futureagi", "omilia"])
def test_the_log_tells_the_story_in_order(outcomes: dict[bool, Outcome], platform: str, deferrable: bool) -> None:
    done = outcomes[deferrable].tasks[f"{platform}_failed"]
    run_id, url = done.result["run_id"], done.result["url"]
    story = [
        rf"Using connection '{platform}_default': http://127\.0\.0\.1:\d+/{platform}",
        rf"Started .*: run {run_id}\.",
        re.escape(f"The run: {url}"),
        rf"Run {run_id} is (queued|running) \(\w+.*\)\.",
        *([rf"Waiting for run {run_id} in the triggerer, until .* at the latest\."] if deferrable else []),
        rf"Run {run_id} is finished \(\w+.*\)\.",
        rf"Result of run {run_id}:\n  verdict +failed\n(?s:.*)",
    ]
    rest = iter(done.lines)
    for line in story:
        assert any(re.fullmatch(line, said) for said in rest), f"{line} is not in the log, or not in its place"


def test_the_log_is_told_once(outcomes: dict[bool, Outcome]) -> None:
    for deferrable, outcome in outcomes.items():
        for task_id, done in outcome.tasks.items():
            for line in (f"Run {done.result['run_id']} is finished", "Result of run", "Started "):
                count = sum(said.startswith(line) for said in done.lines)
                assert count == 1, (deferrable, task_id, line)


def hanging() -> None:
    OmiliaCreateRunOperator(task_id="run", project_id="0a000000-0000-4000-8000-000000000001", poll_interval=0.1)


def test_the_link_is_there_while_a_task_waits_in_place(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.plan_next("omilia", duration=float("inf"))
    found: list[tuple[str, dict[str, str]]] = []

    def observe() -> None:
        wait_until(lambda: platforms.count("omilia.get_run") >= 2, within=100)
        with closing(sqlite3.connect(airflow.database)) as connection:
            of_dag = "FROM {} WHERE dag_id = (SELECT max(dag_id) FROM task_instance WHERE dag_id LIKE 'hanging%')"
            (state,) = connection.execute(f"SELECT state {of_dag.format('task_instance')}").fetchone()
            xcoms = dict(connection.execute(f'SELECT "key", value {of_dag.format("xcom")}').fetchall())
        found.append((state, xcoms))
        platforms.finish_run(platforms.runs()[0]["run_id"])

    looking = threading.Thread(target=observe)
    looking.start()
    done = airflow.run(hanging)["run"]
    looking.join()
    state, xcoms = found[0]
    assert state == "running"
    assert {name: json.loads(value) for name, value in xcoms.items()} == {
        "run_id": done.result["run_id"],
        "run_url": done.result["url"],
        "test_run": {
            "platform": "omilia",
            "conn_id": "omilia_default",
            "run_id": done.result["run_id"],
            "kind": "run",
        },
    }


def without_waiting() -> None:
    shared = {"wait_for_completion": False, "deferrable": True}
    EggplantStartExecutionOperator(task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000002", **shared)
    FutureAGIExecuteTestRunOperator(
        task_id="futureagi", run_test_id="fa000000-0000-4000-8000-000000000002", select_all=True, **shared
    )
    OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000002", **shared)


def test_without_waiting_a_task_ends_with_its_start(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=1000.0)
    tasks = airflow.run(without_waiting)
    runs = {run["platform"]: run for run in platforms.runs()}
    assert len(platforms.runs()) == 3
    for platform, done in tasks.items():
        assert done.state == "success"
        assert done.deferrals == 0
        assert done.result == {
            "run_id": runs[platform]["run_id"],
            "run_url": done.xcoms["run_url"],
            "state": done.result["state"],
        }
        assert done.result["state"] in ("queued", "running")
        assert runs[platform]["run_id"] in done.xcoms["run_url"]
        assert done.xcoms["run_id"] == runs[platform]["run_id"]
        assert runs[platform]["cancelled_by"] is None


def already_final() -> None:
    OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000001", deferrable=True)
    EggplantStartExecutionOperator(task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000002", deferrable=True)
    FutureAGIExecuteTestRunOperator(
        task_id="futureagi", run_test_name="nightly-support-sim", select_all=True, deferrable=True
    )


def test_a_run_that_is_final_at_once_is_not_deferred_for(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=0.0)
    tasks = airflow.run(already_final)
    assert {task_id: done.state for task_id, done in tasks.items()} == {
        "omilia": "success",
        "eggplant": "failed",
        "futureagi": "success",
    }
    assert [done.deferrals for done in tasks.values()] == [0, 0, 0]
    assert tasks["eggplant"].result["verdict"] == "failed"


def templated() -> None:
    @task
    def choose() -> dict[str, Any]:
        return {"project": "0a000000-0000-4000-8000-000000000001", "agent": "agent-7", "case": 12}

    chosen = choose()
    OmiliaCreateRunOperator(
        task_id="omilia",
        project_id=chosen["project"],
        group="{{ ['accounts', 'payments'][0] }}",
        utterance="how much is on {{ ti.task_id and 'my' }} account",
        omilia_conn_id="{{ dag.dag_id and 'omilia' }}_default",
        poll_interval=0.1,
        fail_on_no_tests=False,
    )
    chosen >> EggplantStartExecutionOperator(
        task_id="eggplant",
        model_id="e0000000-0000-4000-8000-00000000000{{ 1 }}",
        test_case_id="{{ ti.xcom_pull(task_ids='choose')['case'] }}",
        agent={"agent_id": "{{ ti.xcom_pull(task_ids='choose')['agent'] }}", "is_hosted_agent": True},
        sut={"criteria": ["{{ 'browser' }}", "staging"]},
        poll_interval=0.1,
    )
    FutureAGIExecuteTestRunOperator(
        task_id="futureagi",
        run_test_id="{{ 'FA' }}000000-0000-4000-8000-000000000001",
        exclude_scenario_ids=["fa000000-0000-4000-8000-0000000100{{ '01' }}"],
        eval_thresholds={"politeness": "{{ 0.5 }}"},
        poll_interval=0.1,
    )


def test_templates_and_results_of_other_tasks_are_rendered(airflow: AirflowProcess, platforms: Control) -> None:
    tasks = airflow.run(templated)
    assert {done.state for done in tasks.values()} == {"success"}, [done.errors for done in tasks.values()]
    sent = {run["platform"]: run["arguments"] for run in platforms.runs()}

    omilia = tasks["omilia"].rendered
    assert omilia["project_id"] == "0a000000-0000-4000-8000-000000000001"
    assert omilia["group"] == "accounts"
    assert omilia["omilia_conn_id"] == "omilia_default"
    assert sent["omilia"]["group"] == "accounts"
    assert sent["omilia"]["utterance"] == "how much is on my account"

    assert tasks["eggplant"].rendered["agent"] == {"agent_id": "agent-7", "is_hosted_agent": True}
    assert sent["eggplant"]["agent"] == {"agent_id": "agent-7", "is_hosted_agent": True}
    assert sent["eggplant"]["test_case_id"] == 12
    assert sent["eggplant"]["sut"] == {"criteria": ["browser", "staging"]}

    chosen = ["fa000000-0000-4000-8000-000000010002", "fa000000-0000-4000-8000-000000010003"]
    assert sorted(sent["futureagi"]["scenario_ids"]) == chosen
    assert tasks["futureagi"].rendered["eval_thresholds"] == {"politeness": "0.5"}
    assert tasks["futureagi"].result["total"] == 3


def mapped(deferrable: bool) -> None:
    shared = {"deferrable": deferrable, "poll_interval": 0.1}
    OmiliaCreateRunOperator.partial(task_id="suites", **shared).expand(
        project_id=["0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"]
    )
    FutureAGIExecuteTestRunOperator.partial(task_id="sims", select_all=True, **shared).expand(
        run_test_name=["nightly-support-sim", "dead-agent-sim"]
    )

    @task
    def models() -> list[dict[str, Any]]:
        return [
            {"model_id": "e0000000-0000-4000-8000-000000000001", "test_case_id": 11},
            {"model_id": "e0000000-0000-4000-8000-000000000002"},
        ]

    EggplantStartExecutionOperator.partial(
        task_id="models_of", agent={"agent_id": "a", "is_hosted_agent": False}, **shared
    ).expand_kwargs(models())


@MODES
def test_operators_expand(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    tasks = airflow.run(mapped, deferrable=deferrable)
    del tasks["models"]
    verdicts = {name: (done.state, done.result["verdict"]) for name, done in tasks.items()}
    assert verdicts == {
        "suites[0]": ("success", "passed"),
        "suites[1]": ("failed", "failed"),
        "sims[0]": ("success", "passed"),
        "sims[1]": ("failed", "errored"),
        "models_of[0]": ("success", "passed"),
        "models_of[1]": ("failed", "failed"),
    }
    # Each has a link, a record and a run of its own.
    assert len({done.xcoms["run_url"] for done in tasks.values()}) == 6
    assert all(done.result["run_id"] in done.xcoms["run_url"] for done in tasks.values())
    assert {done.record["run"]["run_id"] for done in tasks.values() if done.record} == {
        run["run_id"] for run in platforms.runs()
    }
    assert len(platforms.runs()) == 6


def gates(deferrable: bool) -> None:
    regression = {
        "project_id": "0a000000-0000-4000-8000-000000000002",
        "deferrable": deferrable,
        "poll_interval": 0.1,
    }
    OmiliaCreateRunOperator(task_id="enough", min_pass_rate=0.66, **regression)
    OmiliaCreateRunOperator(task_id="too_few", min_pass_rate=0.67, **regression)
    nothing = {**regression, "project_id": "0a000000-0000-4000-8000-000000000004"}
    OmiliaCreateRunOperator(task_id="no_tests_needed", fail_on_no_tests=False, **nothing)
    support = {
        "run_test_name": "nightly-support-sim",
        "select_all": True,
        "deferrable": deferrable,
        "poll_interval": 0.1,
    }
    FutureAGIExecuteTestRunOperator(
        task_id="scores_met", eval_thresholds={"politeness": 0.9, "task_completion": 1}, **support
    )
    FutureAGIExecuteTestRunOperator(task_id="score_missed", eval_thresholds={"politeness": 0.95}, **support)
    FutureAGIExecuteTestRunOperator(task_id="score_unknown", eval_thresholds={"tone": 0.1}, **support)


@MODES
def test_gates(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    tasks = airflow.run(gates, deferrable=deferrable)
    assert {name: done.state for name, done in tasks.items()} == {
        "enough": "success",
        "too_few": "failed",
        "no_tests_needed": "success",
        "scores_met": "success",
        "score_missed": "failed",
        "score_unknown": "failed",
    }
    assert tasks["enough"].result["pass_rate"] == pytest.approx(6 / 9, abs=1e-6)
    assert tasks["too_few"].result["reasons"] == ["Pass rate 66.7% (6 of 9) is below min_pass_rate 67.0%."]
    assert tasks["score_missed"].result["reasons"] == ["Evaluation 'politeness' is 0.92, below its gate 0.95 by 0.03."]
    # Before anything is started.
    assert tasks["score_unknown"].error.kind == "ConfigurationError"
    assert tasks["score_unknown"].error.message.startswith("eval_thresholds names 'tone', and run test ")
    for name in ("too_few", "score_missed"):
        assert tasks[name].error.kind == "RunFailedError"
        assert tasks[name].result["verdict"] == "failed"


def bad_at_run_time() -> None:
    OmiliaCreateRunOperator(task_id="project_id", project_id="{{ '' }}", retries=0)
    EggplantStartExecutionOperator(task_id="model_id")
    EggplantStartExecutionOperator(task_id="agent", script="s", agent={"id": "a"})
    EggplantStartExecutionOperator(task_id="test_case_id", script="s", test_case_id="{{ 'first' }}")
    FutureAGIExecuteTestRunOperator(task_id="scenario_ids", run_test_name="nightly-support-sim")
    FutureAGIExecuteTestRunOperator(
        task_id="select_all",
        run_test_name="nightly-support-sim",
        select_all=True,
        scenario_ids=["fa000000-0000-4000-8000-000000010001"],
    )
    FutureAGIExecuteTestRunOperator(
        task_id="run_test_name", run_test_name="a", run_test_id="fa000000-0000-4000-8000-000000000001", select_all=True
    )
    FutureAGIExecuteTestRunOperator(
        task_id="run_test_id", run_test_id="{{ 'nightly-support-sim' }}", select_all=True, deferrable=True
    )
    FutureAGIExecuteTestRunOperator(
        task_id="eval_thresholds", run_test_name="a", select_all=True, eval_thresholds={"tone": "{{ 85 }}"}
    )


def test_arguments_that_cannot_be_right_are_named_before_any_request(
    airflow: AirflowProcess, platforms: Control
) -> None:
    tasks = airflow.run(bad_at_run_time)
    for argument, done in tasks.items():
        assert (done.state, done.error.kind) == ("failed", "ConfigurationError"), argument
        assert argument in done.error.message
        assert done.record is None
    assert platforms.requests() == []


def test_a_connection_that_is_not_there_is_named(airflow: AirflowProcess, platforms: Control) -> None:
    done = airflow.run(unknown_connection)["run"]
    assert done.state == "failed"
    assert done.error.kind == "AirflowNotFoundException"
    assert "nowhere" in done.error.message


def unknown_connection() -> None:
    OmiliaCreateRunOperator(task_id="run", project_id="p", omilia_conn_id="nowhere")


def bad_pass_rate() -> None:
    OmiliaCreateRunOperator(task_id="run", project_id="p", min_pass_rate=95)


def bad_poll_interval() -> None:
    EggplantStartExecutionOperator(task_id="run", script="s", poll_interval=0)


def bad_timeout() -> None:
    FutureAGIExecuteTestRunOperator(task_id="run", run_test_name="a", select_all=True, timeout="1h")


def unknown_argument() -> None:
    OmiliaCreateRunOperator(task_id="run", project_id="p", polling_interval=3)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (bad_pass_rate, "ConfigurationError: min_pass_rate must be a fraction from 0 to 1 (0.95 is 95 %); got 95."),
        (bad_poll_interval, "ConfigurationError: poll_interval must be a number of seconds of at least 0.1"),
        (bad_timeout, "ConfigurationError: timeout must be a number of seconds greater than 0"),
        (unknown_argument, "polling_interval"),
    ],
)
def test_constant_arguments_are_checked_when_the_file_is_read(airflow: AirflowProcess, build: Any, said: str) -> None:
    with pytest.raises(DagFileError) as caught:
        airflow.run(build)
    assert said in str(caught.value)


def refused() -> None:
    EggplantStartExecutionOperator(task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000005")
    FutureAGIExecuteTestRunOperator(task_id="futureagi", run_test_name="no such simulation", select_all=True)
    OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000077", deferrable=True)
    OmiliaCreateRunOperator(
        task_id="credentials", project_id="0a000000-0000-4000-8000-000000000001", omilia_conn_id="wrong_password"
    )


def test_a_start_that_the_platform_refuses_says_why_and_leaves_no_record(
    airflow: AirflowProcess, platforms: Control
) -> None:
    tasks = airflow.run(refused)
    assert {name: (done.state, done.error.kind) for name, done in tasks.items()} == {
        "eggplant": ("failed", "PermissionDeniedError"),
        "futureagi": ("failed", "ConfigurationError"),
        "omilia": ("failed", "NotFoundError"),
        "credentials": ("failed", "AuthenticationError"),
    }
    assert platforms.runs() == []
    assert [done.record for done in tasks.values()] == [None] * 4
    assert "Server denies access from the resource." in tasks["eggplant"].error.message
    assert "no such simulation" in tasks["futureagi"].error.message
    for name, conn_id in (("eggplant", "eggplant_default"), ("omilia", "omilia_default")):
        assert conn_id in tasks[name].error.message
    assert "'wrong_password'" in tasks["credentials"].error.message
