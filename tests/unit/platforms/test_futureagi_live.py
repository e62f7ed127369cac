"""Future AGI as its own running server answers: each test names its row of what was learned from it.

The rows: F1 workspaces; F2 prompt simulations; F3 balance and quota; L1 and L2 choices and scores that are objects; L3
tools; L4 refused starts; L5 simulators; L6 dialects; L7 the words of a 429; L8 progress while calls are made; L9 names
of cases; L10 rounding; L11 unknown ids; L12 recordings. Beside them, 001: the fields of a start's response; durations.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError, NotFoundError, ServerError
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.hooks.recordings import download, ending_of
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.lifecycle.waiting import Wait
from airflow_provider_testruns.model import Metric, Progress, Verdict
from airflow_provider_testruns.platforms.futureagi import responses
from airflow_provider_testruns.platforms.futureagi.metrics import Evaluations
from airflow_provider_testruns.reporting import junit
from airflow_provider_testruns.reporting.xcom import to_xcom
from airflow_provider_testruns.steps import Response
from tests.unit.platforms.steps import Wire, poll, response
from tests.unit.platforms.test_futureagi import (
    CURRENT,
    EVAL_SUMMARY,
    EXECUTION,
    METRICS,
    ONE,
    OTHER_RUN_TEST,
    RUN_TEST,
    RUN_TEST_DETAIL,
    THREE,
    TWO,
    call_row,
    calls,
    calls_key,
    detail_key,
    error,
    evaluation,
    execution_row,
    executions_key,
    listed,
    metrics_response,
    page_key,
    prepare,
    report_of,
    runs_response,
)

pytestmark = pytest.mark.unit


def outputs(*values: Any, kind: str = "choices", name: str = "escalated") -> list[dict[str, Any]]:
    """Calls with one evaluation each, whose id is that of the summary."""
    return [
        call_row(number, eval_outputs={"config": {"name": name, "output": value, "output_type": kind, "reason": "r"}})
        for number, value in enumerate(values, 1)
    ]


def metrics(rows: list[dict[str, Any]], *summary: dict[str, Any]) -> Any:
    _, report = report_of("completed", calls(len(rows)), rows, list(summary))
    return report.metrics


# --- L1, L2: what the calls were given -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [{"score": 0.5, "choice": "No"}] * 3 + [{"score": 1.0, "choice": "Yes"}],
        [{"score": 0.5, "choices": ["No"]}] * 3 + [{"choices": ["Yes"]}],
        [["No"]] * 3 + [["Yes"]],
        ["No"] * 3 + ["Yes"],
    ],
)
def test_l1_choices_are_counted_in_whatever_form_they_are_given(values: list[Any]) -> None:
    reprs = {str(value): 25.0 for value in values}
    found = metrics(outputs(*values), evaluation("escalated", "choices", reprs, 4, output=reprs))
    assert found == {"escalated=No": Metric(0.75, 4), "escalated=Yes": Metric(0.25, 4)}


def test_l1_scores_that_are_objects_are_averaged_where_the_summary_has_none() -> None:
    rows = outputs({"score": 0.9, "choice": "Great"}, {"score": 0.7, "choice": "Good"}, kind="score", name="tone")
    summary = {**evaluation("tone", "score", 0.0, 2), "name": "tone-t"}
    summary["result"][0]["name"] = "tone"
    assert metrics(rows, summary) == {"tone": Metric(0.8, 2), "tone-t": Metric(0.8, 2)}
    assert judge(
        report_of("completed", calls(2), rows, [summary])[1], Gates(eval_thresholds={"tone": 0.8})
    ).verdict is (Verdict.PASSED)


def test_l1_without_the_calls_an_average_of_0_over_nothing_is_unavailable_and_that_of_the_analytics_serves() -> None:
    summary = [evaluation("tone", "score", 0.0, 12)]
    analytics = f"GET /sdk/api/v1/simulation/analytics/?execution_id={EXECUTION}"
    lost_calls = {calls_key(): error(404, "not_found", "gone")}
    _, report = report_of("completed", calls(12), [], summary, answers=dict(lost_calls))
    assert report.metrics == {"tone": Metric(None, 12)}
    averages = {"status": True, "result": {"eval_averages": {"avg_tone": 80.0, "avg_other": "?"}}}
    _, report = report_of("completed", calls(12), [], summary, answers={**lost_calls, analytics: averages})
    assert report.metrics == {"tone": Metric(0.8, 12)}


def test_l2_each_of_several_choices_counts() -> None:
    values = [["No"]] * 4 + [["Yes"]] * 3 + [["No", "Yes"]] * 4
    reprs = {"['No']": 36.36, "['Yes']": 27.27, "['No', 'Yes']": 36.36}
    summary = evaluation("escalated", "choices", reprs, 11, output=reprs)
    found = metrics(outputs(*values), summary)
    assert found == {"escalated=No": Metric(0.7273, 11), "escalated=Yes": Metric(0.6364, 11)}
    # The same without the calls, as far as the summary's own rounding allows.
    assert responses.metrics_of([summary], "it")["escalated=No"].value == pytest.approx(8 / 11, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["Passed", "Failed", "passed", None], "Pass/Fail", Metric(0.6667, 3)),
        ([True, False], "Pass/Fail", Metric(0.5, 2)),
        ([{"choice": "Passed", "score": 1}], "Pass/Fail", Metric(1.0, 1)),
        ([0.9, "0.7", {"score": 0.8}, float("nan"), True, "x"], "score", Metric(0.85, 2)),
        ([1, 0], "numeric", Metric(0.5, 2)),
        ([3, 4, None], "choices", Metric(0.035, 2)),
        ([10**400], "score", None),
        (["a"], "essay", None),
    ],
)
def test_l1_every_output_type(values: list[Any], kind: str, expected: Metric | None) -> None:
    found = Evaluations()
    for value in values:
        found.add({"id": {"name": "e", "output": value, "output_type": kind}})
    own = responses.metrics_of(None, "it", found)
    assert own == ({} if expected is None else {"e": expected}) or own == {"e": Metric(None, 0)}
    assert expected is None or own["e"] == expected


def test_a_call_that_two_pages_show_is_added_once() -> None:
    rows = outputs("No", "Yes")
    wire = Wire({METRICS: metrics_response("completed", calls(2)), calls_key(): runs_response(rows, 1, 2)})
    wire.answers[calls_key(1)] = runs_response(rows, 1, 2)
    wire.answers[calls_key(2)] = runs_response([rows[1], *outputs("Yes", "No", "Yes")[2:]], 2, 2)
    wire.answers[EVAL_SUMMARY] = {"status": True, "result": []}
    report = wire.run(CURRENT.get_report(wire.run(poll(CURRENT, EXECUTION, run_test_id=RUN_TEST))))
    assert report.metrics["escalated=Yes"] == Metric(0.6667, 3)


def test_l10_a_rate_has_as_many_places_as_the_platform_shows() -> None:
    summary = evaluation("resolved", "Pass/Fail", 81.82, 11, output={"pass": 81.82, "fail": 18.18})
    assert responses.metrics_of([summary], "it") == {"resolved": Metric(0.8182, 11)}
    rows = outputs(*["Passed"] * 9, "Failed", "Failed", kind="Pass/Fail", name="resolved")
    assert metrics(rows, summary) == {"resolved": Metric(0.8182, 11)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["no", "No", "NO"], {"e=no": Metric(1.0, 3)}),
        (["[No]", " No "], {"e=No": Metric(1.0, 2)}),
        ([["No", "no"], []], {"e=No": Metric(1.0, 1)}),
        ([[3, "No"]], {"e=3": Metric(1.0, 1), "e=No": Metric(1.0, 1)}),
        ([None, None], {"e": Metric(None, 0)}),
    ],
)
def test_l1_choices_are_told_apart_as_the_platform_does(values: list[Any], expected: dict[str, Metric]) -> None:
    found = Evaluations()
    for value in values:
        found.add({"id": {"name": "e", "output": value, "output_type": "choices"}})
    assert responses.metrics_of(None, "it", found) == expected


def test_l1_a_gate_on_a_choice_is_about_it_in_upper_and_lower_case() -> None:
    _, report = report_of("completed", calls(2), outputs("no", "no"))
    assert judge(report, Gates(eval_thresholds={"escalated=No": 1.0})).verdict is Verdict.PASSED
    assert judge(report, Gates(eval_thresholds={"escalated=Yes": 0.5})).verdict is Verdict.FAILED


def test_l1_pages_with_nothing_scored_and_pages_with_something_add_up() -> None:
    empty, full = Evaluations(), Evaluations()
    for found, values in ((empty, [None]), (full, ["Yes", ["No", "yes"]])):
        for value in values:
            found.add({"id": {"name": "e", "output": value, "output_type": "choices"}})
    empty.merge(full)
    assert responses.metrics_of(None, "it", empty) == {"e=Yes": Metric(1.0, 2), "e=No": Metric(0.5, 2)}


def test_l1_the_outputs_of_a_deleted_evaluation_stay_with_the_calls_and_count_nowhere() -> None:
    kpis = f"GET /simulate/test-executions/{EXECUTION}/kpis/"
    rows = outputs("Passed", "Failed", kind="Pass/Fail", name="Old one")
    _, report = report_of("completed", calls(2), rows, answers={kpis: {"avg_score": 8.0}})
    assert report.metrics == {}
    _, report = report_of("completed", calls(2), rows, answers={kpis: {"avg_old_one": 50.0}})
    assert report.metrics == {"Old one": Metric(0.5, 2)}


def test_l1_what_the_calls_show_is_judged_without_the_summary_and_what_they_do_not_is_an_error() -> None:
    # The product breaks on the summary for ever where an evaluation is of the kind "numeric".
    answers = {EVAL_SUMMARY: error(500, "server_error", "Invalid output type: numeric")}
    rows = outputs(0.9, 0.7, kind="score", name="tone")
    _, report = report_of("completed", calls(2), rows, answers=answers)
    assert judge(report, Gates(eval_thresholds={"tone": 0.8})).verdict is Verdict.PASSED
    assert judge(report, Gates(eval_thresholds={"tone": 0.81})).verdict is Verdict.FAILED
    with pytest.raises(ServerError, match="are not available"):
        judge(report, Gates(eval_thresholds={"tone": 0.8, "other": 0.5}))


# --- L3: tools -------------------------------------------------------------------------------------------------------


def test_l3_evaluations_of_tools_are_metrics_that_can_be_gated() -> None:
    def detail(number: int, output: str) -> dict[str, Any]:
        tools = {
            "call_1": {"name": "lookup", "output": output, "output_type": "Pass/Fail", "value": output},
            "call_2": {"name": "lookup", "output": "Passed", "output_type": "Pass/Fail"},
        }
        return {"id": f"0b000000-0000-4000-8000-{number:012d}", "status": "completed", "tool_outputs": tools}

    details = {"count": 2, "total_pages": 1, "results": [detail(1, "Failed"), detail(2, "Failed")]}
    answers = {RUN_TEST_DETAIL: {"id": RUN_TEST, "enable_tool_evaluation": True}, detail_key(): details}
    _, report = report_of("completed", calls(2), [call_row(1), call_row(2)], [], answers=answers)
    assert report.metrics == {"tool:lookup": Metric(0.5, 4)}
    assert judge(report, Gates(eval_thresholds={"tool:lookup": 0.9})).verdict is Verdict.FAILED


def test_l3_a_gate_on_a_tool_is_accepted_before_the_start_where_tools_are_evaluated() -> None:
    detail = {"id": RUN_TEST, "evals": [], "enable_tool_evaluation": True}
    prepare(Wire({RUN_TEST_DETAIL: detail}), run_test_id=RUN_TEST, select_all=True, evaluations=["tool:lookup"])
    with pytest.raises(ConfigurationError, match="tool:lookup"):
        prepare(
            Wire({RUN_TEST_DETAIL: {**detail, "enable_tool_evaluation": False}}),
            run_test_id=RUN_TEST,
            select_all=True,
            evaluations=["tool:lookup"],
        )


def test_l3_a_tool_whose_uses_could_not_be_evaluated_misses_its_gate() -> None:
    broken = {"name": "lookup #1", "value": "", "type": "Pass/Fail", "error": True, "status": "failed"}
    details = listed([{"id": call_row(1)["call_execution_id"], "tool_outputs": {"a": broken}}])
    answers = {RUN_TEST_DETAIL: {"id": RUN_TEST, "enable_tool_evaluation": True}, detail_key(): details}
    _, report = report_of("completed", calls(1), [call_row(1)], answers=answers)
    assert report.metrics == {"tool:lookup #1": Metric(None, 0)}
    assert judge(report, Gates(eval_thresholds={"tool:lookup #1": 0.5})).verdict is Verdict.FAILED


# --- L9: the names of cases, and durations ---------------------------------------------------------------------------


def details_of(*calls_: dict[str, Any]) -> dict[str, Any]:
    return {detail_key(): listed(list(calls_))}


def detail(number: int, columns: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": call_row(number)["call_execution_id"], "scenario_columns": columns, **more}


def column(value: Any) -> dict[str, Any]:
    return {"value": value, "dataset_column_id": "another one in each data set"}


def test_l9_a_case_is_named_by_its_scenario_and_row_with_the_id_of_the_call_beside_it() -> None:
    persona = {"name": "Ada", "age": 36}
    answers = details_of(
        detail(1, {"situation": column("card  lost"), "Ideal Outcome": column("blocked")}),
        detail(2, {"situation": column("card found"), "persona": column(persona), "empty": column("")}),
    )
    _, report = report_of("completed", calls(1, 1), [call_row(1), call_row(2, "failed")], answers=answers)
    assert [(case.suite, case.name) for case in report.cases] == [
        ("Refund request", "Ideal Outcome=blocked, situation=card lost"),
        ("Refund request", 'persona={"age": 36, "name": "Ada"}, situation=card found'),
    ]
    ids = [call_row(number)["call_execution_id"] for number in (1, 2)]
    assert [case.details for case in report.cases] == [{"call_execution_id": call_id} for call_id in ids]
    judgement = judge(report, Gates(allowed_failures=("Refund request/*situation=card found",)))
    assert judgement.verdict is Verdict.PASSED
    (failure,) = to_xcom(report, judge(report))["failures"]
    assert failure["details"] == {"call_execution_id": ids[1]}
    assert f"[[PROPERTY|call_execution_id={ids[1]}]]" in junit.build(report, judge(report)).tostring().decode()


def test_l9_names_are_the_same_whatever_the_ids_and_the_order_of_the_calls() -> None:
    def names(order: tuple[int, ...], first: int) -> dict[str, str]:
        """Of three calls, two of which are made from rows that say the same: the names by the situation's start."""
        rows, shown = [], []
        for number in order:
            rows.append(call_row(first + number))
            says = {"situation": column("alike" if number < 3 else "x" * 500)}
            shown.append(detail(first + number, says, start_time=f"2026-11-22T12:00:0{number}Z"))
        _, report = report_of("completed", calls(3), rows, answers=details_of(*shown))
        return {str(case.details["call_execution_id"])[-1]: case.name for case in report.cases}

    one = names((1, 2, 3), 0)
    assert one == {"1": "situation=alike", "2": "situation=alike #2", "3": one["3"]}
    assert one["3"].startswith("situation=xxx")
    assert len(one["3"]) < 100
    assert list(names((3, 1, 2), 10).values()) == [one["3"], one["1"], one["2"]]


@pytest.mark.parametrize("columns", [None, {}, [], "text", {"situation": column(None)}])
def test_l9_calls_of_a_scenario_without_columns_are_numbered_in_the_order_of_their_start(columns: Any) -> None:
    answers = details_of(
        detail(1, columns, start_time="2026-11-22T12:00:09Z"), detail(2, columns, start_time="2026-11-22T12:00:01Z")
    )
    _, report = report_of("completed", calls(2), [call_row(1), call_row(2)], answers=answers)
    assert [case.name for case in report.cases] == ["Refund request #2", "Refund request #1"]


@pytest.mark.parametrize("answer", [error(404, "not_found", "gone"), {"results": [{"id": None}]}, {"results": 1}])
def test_l9_without_the_details_a_case_is_named_by_its_call_and_a_note_says_so(answer: Any) -> None:
    _, report = report_of("completed", calls(1), [call_row(1)], answers={detail_key(): answer})
    assert [case.name for case in report.cases] == [call_row(1)["call_execution_id"]]
    judgement = judge(report)
    assert judgement.verdict is Verdict.PASSED
    assert "named by the ids of their calls" in judgement.notes[-1]


def test_durations_of_cases_and_of_a_run_whose_end_the_platform_does_not_show() -> None:
    answers = details_of(
        detail(1, start_time="2026-11-22T12:00:10.500000Z", duration_seconds=30),
        detail(2, start_time="2026-11-22T12:00:20.500000Z", duration=12.5),
        detail(3, start_time=None, duration_seconds="long"),
    )
    rows = [call_row(1), call_row(2, duration_seconds=None), call_row(3, duration_seconds=None)]
    _, report = report_of("completed", calls(3), rows, answers=answers)
    assert [case.duration for case in report.cases] == [41.0, 12.5, None]
    # It began at 12:00:00.5, and its last call ended at 12:00:40.5.
    assert report.duration == 40.0
    assert to_xcom(report, judge(report))["duration"] == 40.0
    assert 'time="12.5"' in junit.build(report, judge(report)).tostring().decode()
    _, report = report_of(
        "completed", calls(3), rows, fields={"completed_at": "2026-11-22T12:01:00.5Z"}, answers=answers
    )
    assert report.duration == 60.0


# --- L12: recordings -------------------------------------------------------------------------------------------------


def test_l12_the_addresses_of_a_calls_recordings() -> None:
    at = "https://storage.example.com/a.wav"
    shown = {"recordings": {"combined": at, "assistant": None, "../x": at, "stereo": 5}, "audio_url": "other"}
    assert responses.recordings_of(shown) == {"combined": at}
    assert responses.recordings_of({"recordings": {}, "audio_url": at}) == {"combined": at}
    assert responses.recordings_of({"recordings": None, "audio_url": None}) == {}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://storage.example.com/a.wav",
        "file:///etc/passwd",
        "https://user:canary@storage.example.com/a.wav",
        "http://storage.example.com/a.wav",
        "https://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1:8080/a.wav",
        "https://[::1]/a.wav",
        "https://[broken/a.wav",
        "https://10.0.0.7/a.wav",
        "https:///a.wav",
        "/a.wav",
    ],
)
def test_l12_a_recording_is_fetched_from_nowhere_else_than_a_public_host_or_the_connections_own(
    url: str, tmp_path: Path
) -> None:
    settings = Settings("conn", "https://api.example.com", "", "key-canary", {})
    with pytest.raises(InvalidReplyError) as caught:
        download(url, tmp_path / "a.wav", settings, most=1000)
    assert "canary" not in str(caught.value)
    assert ending_of(url) in (".wav",)


# --- 001: the raw form of a start ------------------------------------------------------------------------------------


def test_001_the_fields_of_a_starts_response_are_in_the_runs_raw_form_and_stay_while_it_is_polled() -> None:
    shown = {
        "message": "Test execution started successfully",
        "execution_id": EXECUTION,
        "run_test_id": RUN_TEST,
        "status": "PENDING",
        "total_scenarios": 2,
        "total_calls": 0,
        "scenario_ids": [ONE, RUN_TEST],
    }
    run = responses.started(response(shown), RUN_TEST, CURRENT.run_url)
    assert run.raw == shown
    wait = Wait(run, deadline=2e9, poll_interval=1.0, log=logging.getLogger("test"), clock=lambda: 1e9)
    for status, total in (("running", 5), ("completed", 5)):
        polled = metrics_response(status, calls(5), total_calls=total)
        wait.observe(Wire({METRICS: polled}).run(poll(CURRENT, EXECUTION, run_test_id=RUN_TEST)))
        kept = {name: wait.run.raw[name] for name in ("message", "total_scenarios", "total_calls", "scenario_ids")}
        # What a poll shows, too, is as the poll shows it.
        assert kept == {**{name: shown[name] for name in kept}, "total_calls": total}
        assert wait.run.raw["status"] == status


# --- F3: balance and quota -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason",
    [
        "Insufficient balance to make calls",
        "Free tier voice minutes limit reached",
        "Usage paused: you set a budget limit of $5",
        "You have UNPAID invoices",
    ],
)
def test_f3_a_run_whose_calls_the_account_could_not_pay_for_is_errored(reason: str) -> None:
    rows = [call_row(number, "failed", ended_reason=reason) for number in (1, 2)]
    _, report = report_of("failed", calls(0, 2), rows)
    judgement = judge(report)
    assert (judgement.verdict, judgement.reasons) == (Verdict.ERRORED, (reason,))


def test_f3_a_mix_is_failed_with_a_note() -> None:
    rows = [
        call_row(1, "failed", ended_reason="Insufficient balance to make calls"),
        call_row(2, "failed", ended_reason="wrong answer"),
    ]
    judgement = judge(report_of("completed", calls(1, 2, total=3), rows)[1])
    assert judgement.verdict is Verdict.FAILED
    assert "1 calls failed for the account's balance" in judgement.notes[-1]


# --- the rest --------------------------------------------------------------------------------------------------------


def test_f1_the_workspace_of_a_connection_goes_out_as_a_header_and_into_the_404() -> None:
    extra = {"secret_key": "secret-canary", "workspace_id": ONE}
    auth, _ = FutureAGIHook.make_auth(Settings("conn", "https://api.example.com", "", "key-canary", extra))
    assert (auth.headers() or {})["X-Workspace-Id"] == ONE
    with pytest.raises(ConfigurationError, match="workspace_id"):
        FutureAGIHook.make_auth(
            Settings("conn", "https://api.example.com", "", "key-canary", {**extra, "workspace_id": "a b"})
        )
    missing = Wire({METRICS: error(404, "not_found", "No TestExecution matches the given query.")})
    with pytest.raises(NotFoundError, match=r"organization and workspace only; workspace_id"):
        missing.run(poll(CURRENT, EXECUTION))


def test_l5_a_simulator_that_is_none_is_refused_before_the_start() -> None:
    at = f"GET /simulate/simulator-agents/{ONE}/"
    wire = Wire({at: error(404, "not_found", "No SimulatorAgent matches the given query.")})
    with pytest.raises(ConfigurationError, match=r"simulator_id .* is no simulator"):
        prepare(wire, run_test_id=RUN_TEST, select_all=True, simulator_id=ONE)
    for answer in ({"id": OTHER_RUN_TEST}, {"id": ONE, "deleted": True}):
        with pytest.raises(ConfigurationError, match="simulator_id"):
            prepare(Wire({at: answer}), run_test_id=RUN_TEST, select_all=True, simulator_id=ONE)
    seen = prepare(Wire({at: {"id": ONE, "name": "Customer"}}), run_test_id=RUN_TEST, select_all=True, simulator_id=ONE)
    assert (seen.call.json["simulator_id"], seen.warnings) == (ONE, ())
    # Where it can't be seen, the log says what may come of it.
    for answer in (response({}, 404), error(403, "permission_error", "no")):
        start = prepare(Wire({at: answer}), run_test_id=RUN_TEST, select_all=True, simulator_id=ONE)
        assert start.call.json["simulator_id"] == ONE
        assert "is not known" in start.warnings[0]


PROMPT = {"id": RUN_TEST, "source_type": "prompt", "prompt_template": TWO, "prompt_version": THREE}
PROMPT_START = f"POST /simulate/prompt-templates/{TWO}/simulations/{RUN_TEST}/execute/"


@pytest.mark.parametrize("template", [TWO.upper(), {"id": TWO}])
def test_f2_the_start_of_a_prompt_simulation_is_wrapped(template: Any) -> None:
    wire = Wire({RUN_TEST_DETAIL: {**PROMPT, "prompt_template": template}})
    wire.answers[PROMPT_START] = {"status": True, "result": {"execution_id": EXECUTION, "status": "pending"}}
    start = prepare(wire, run_test_id=RUN_TEST, select_all=True)
    assert start.call.json == {"scenario_ids": [], "select_all": True}
    assert wire.ask(start.call).run_id == EXECUTION
    assert wire.asked == [RUN_TEST_DETAIL, PROMPT_START]


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ({**PROMPT, "prompt_template": None}, "no prompt template"),
        ({**PROMPT, "prompt_version": None, "prompt_version_detail": None}, "has been deleted"),
        ({**PROMPT, "prompt_version_detail": {"id": THREE, "deleted": True}}, "has been deleted"),
    ],
)
def test_f2_a_prompt_simulation_that_cannot_be_started(detail: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        prepare(Wire({RUN_TEST_DETAIL: detail}), run_test_id=RUN_TEST, select_all=True)


def test_f2_whether_it_is_a_prompt_simulation_that_could_not_be_seen_is_said() -> None:
    wire = Wire({RUN_TEST_DETAIL: error(500, "server_error", "broken")})
    start = prepare(wire, run_test_id=RUN_TEST, select_all=True)
    assert (start.call.path, len(start.warnings)) == (f"/simulate/run-tests/{RUN_TEST}/execute/", 1)
    assert "prompt simulation" in start.warnings[0]


@pytest.mark.parametrize(
    ("body", "proven"),
    [
        ({"type": "validation_error", "detail": "Prompt version has been deleted. Please update."}, True),
        ({"result": {"error": "No scenarios", "detail": "At least one scenario is required to execute"}}, True),
        ({"result": {"error": "Scenarios incomplete", "detail": "2 scenario(s) are not completed. Wait"}}, True),
        ({"type": "validation_error", "detail": "Failed to start test execution: they are not completed"}, False),
        ({"details": {"field": ["x"]}, "detail": "x"}, False),
        ({"result": {"result": {"result": {"detail": "are not completed"}}}}, False),
    ],
)
def test_l4_what_proves_that_nothing_was_started(body: dict[str, Any], proven: bool) -> None:
    assert responses.nothing_was_started(response(body, 400)) is proven


def test_l6_fields_of_the_other_dialect_are_explained() -> None:
    details = {"scenarioIds": ["Unknown field."], "selectAll": ["Unknown field."]}
    body = {"type": "validation_error", "detail": "scenarioIds: Unknown field.", "details": details}
    assert "secret_key of the connection" in responses.start_error_words(body, "documented")
    assert responses.start_error_words(body, "current") == responses.error_words(body)
    other = {**body, "details": {"scenario_ids": ["Unknown field."]}}
    assert "dialect=documented" in responses.start_error_words(other, "current")
    assert responses.start_error_words(None, "current") == ""


@pytest.mark.parametrize(
    "reason", ["Conversation turn limit reached", "Max duration limit reached", "no balance found"]
)
def test_f3_other_limits_are_failures_of_the_test(reason: str) -> None:
    assert not responses.is_unpaid(reason)


DETAIL_PAGE = page_key(f"/simulate/test-executions/{EXECUTION}/", limit=30)


def test_l11_a_500_that_names_no_match_is_not_found() -> None:
    wire = Wire({DETAIL_PAGE: error(500, "server_error", "Failed: No TestExecution matches the given query.")})
    with pytest.raises(NotFoundError, match=r"HTTP 500: .*organization and workspace only"):
        wire.run(CURRENT.get_test_execution_detail(EXECUTION))
    wire = Wire({DETAIL_PAGE: error(500, "server_error", "Failed: database")})
    with pytest.raises(ServerError):
        wire.run(CURRENT.get_test_execution_detail(EXECUTION))
    assert responses.status_meant(Response(500, {}, b"no JSON")) == 500


def test_l7_the_words_of_a_429_are_inside_its_result() -> None:
    body = {
        "status": False,
        "result": {
            "code": "RATE_LIMITED",
            "message": "Rate limit exceeded: 1 api requests per minute",
            "retry_after": 16,
        },
    }
    assert responses.error_words(json.loads(json.dumps(body))) == "Rate limit exceeded: 1 api requests per minute."
    assert (
        responses.error_words({"status": False, "result": {"code": "RATE_LIMITED", "retry_after": 1}})
        == "RATE_LIMITED."
    )
    assert responses.error_words({"error": {"message": "slow down"}, "result": {"code": 1}}) == "slow down."


def test_l8_there_is_no_progress_while_the_calls_are_still_being_made() -> None:
    early = metrics_response("pending", {"total": 69, "completed": 0, "failed": 0, "pending": 69}, total_calls=0)
    assert Wire({METRICS: early}).run(poll(CURRENT, EXECUTION)).progress is None
    rows = [execution_row(status="Pending", calls=69, calls_attempted=0)]
    (row,) = Wire({executions_key(): listed(rows)}).run(CURRENT.find_runs(None, RUN_TEST))
    assert row.progress is None
    later = metrics_response("running", {"total": 130, "completed": 2, "failed": 0, "pending": 128}, total_calls=0)
    assert Wire({METRICS: later}).run(poll(CURRENT, EXECUTION)).progress == Progress(2, 130)


def test_choices_of_all_evaluations_together_have_a_limit() -> None:
    found = Evaluations()
    for number in range(20):
        page = Evaluations()
        page.add({f"e{at}": {"name": f"e{at}", "output_type": "choices", "output": f"c{number}"} for at in range(200)})
        found.merge(page)
    assert sum(len(tally.choices) for tally in found.by_id.values()) == limits.METRICS + 1
    with pytest.raises(InvalidReplyError, match="more than 2,000 evaluations, choices included"):
        responses.metrics_of(None, "the evaluation summary", found)
