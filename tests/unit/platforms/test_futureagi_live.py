"""Future AGI as its own running server answers: each test names its row of what was learned from it.

The rows: F1 workspaces; F2 prompt simulations; F3 balance and quota; L1 and L2 choices and scores that are objects; L3
tools; L4 refused starts; L5 simulators; L6 dialects; L7 the words of a 429; L8 progress while calls are made; L10
rounding; L11 unknown ids.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_testruns.exceptions import ConfigurationError, NotFoundError, ServerError
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.model import Gates, Metric, Progress, Verdict, assess, judge
from airflow_provider_testruns.platforms import futureagi_replies as replies
from airflow_provider_testruns.platforms.call import Reply
from airflow_provider_testruns.platforms.futureagi_metrics import Evaluations
from tests.unit.platforms.steps import Wire, reply
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
    metrics_reply,
    page_key,
    prepare,
    report_of,
    runs_reply,
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
    assert judge(report_of("completed", calls(2), rows, [summary])[1], Gates(eval_thresholds={"tone": 0.8})) is (
        Verdict.PASSED
    )


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
    assert replies.metrics_of([summary], "it")["escalated=No"].value == pytest.approx(8 / 11, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["Passed", "Failed", "passed", None], "Pass/Fail", Metric(0.6667, 3)),
        ([True, False], "Pass/Fail", Metric(0.5, 2)),
        ([{"choice": "Passed", "score": 1}], "Pass/Fail", Metric(1.0, 1)),
        ([0.9, "0.7", {"score": 0.8}, float("nan"), True, "x"], "score", Metric(0.8, 3)),
        ([1, 0], "numeric", Metric(0.5, 2)),
        ([10**400], "score", None),
        (["a"], "essay", None),
    ],
)
def test_l1_every_output_type(values: list[Any], kind: str, expected: Metric | None) -> None:
    found = Evaluations()
    for value in values:
        found.add({"id": {"name": "e", "output": value, "output_type": kind}})
    own = replies.metrics_of(None, "it", found)
    assert own == ({} if expected is None else {"e": expected}) or own == {"e": Metric(None, 0)}
    assert expected is None or own["e"] == expected


def test_a_call_that_two_pages_show_is_added_once() -> None:
    rows = outputs("No", "Yes")
    wire = Wire({METRICS: metrics_reply("completed", calls(2)), calls_key(): runs_reply(rows, 1, 2)})
    wire.answers[calls_key(1)] = runs_reply(rows, 1, 2)
    wire.answers[calls_key(2)] = runs_reply([rows[1], *outputs("Yes", "No", "Yes")[2:]], 2, 2)
    wire.answers[EVAL_SUMMARY] = {"status": True, "result": []}
    report = wire.run(CURRENT.get_report(wire.run(CURRENT.get_run(EXECUTION, RUN_TEST))))
    assert report.metrics["escalated=Yes"] == Metric(0.6667, 3)


def test_l10_a_rate_has_as_many_places_as_the_platform_shows() -> None:
    summary = evaluation("resolved", "Pass/Fail", 81.82, 11, output={"pass": 81.82, "fail": 18.18})
    assert replies.metrics_of([summary], "it") == {"resolved": Metric(0.8182, 11)}
    rows = outputs(*["Passed"] * 9, "Failed", "Failed", kind="Pass/Fail", name="resolved")
    assert metrics(rows, summary) == {"resolved": Metric(0.8182, 11)}


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
    assert judge(report, Gates(eval_thresholds={"tool:lookup": 0.9})) is Verdict.FAILED


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
    judgement = assess(report)
    assert (judgement.verdict, judgement.reasons) == (Verdict.ERRORED, (reason,))


def test_f3_a_mix_is_failed_with_a_note() -> None:
    rows = [
        call_row(1, "failed", ended_reason="Insufficient balance to make calls"),
        call_row(2, "failed", ended_reason="wrong answer"),
    ]
    judgement = assess(report_of("completed", calls(1, 2, total=3), rows)[1])
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
        missing.run(CURRENT.get_run(EXECUTION))


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
    for answer in (reply({}, 404), error(403, "permission_error", "no")):
        start = prepare(Wire({at: answer}), run_test_id=RUN_TEST, select_all=True, simulator_id=ONE)
        assert start.call.json["simulator_id"] == ONE
        assert "could not be seen" in start.warnings[0]


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
    assert replies.nothing_was_started(reply(body, 400)) is proven


def test_l6_fields_of_the_other_dialect_are_explained() -> None:
    details = {"scenarioIds": ["Unknown field."], "selectAll": ["Unknown field."]}
    body = {"type": "validation_error", "detail": "scenarioIds: Unknown field.", "details": details}
    assert "secret_key of the connection" in replies.start_error_words(body, "documented")
    assert replies.start_error_words(body, "current") == replies.error_words(body)
    other = {**body, "details": {"scenario_ids": ["Unknown field."]}}
    assert "dialect=documented" in replies.start_error_words(other, "current")
    assert replies.start_error_words(None, "current") == ""


@pytest.mark.parametrize(
    "reason", ["Conversation turn limit reached", "Max duration limit reached", "no balance found"]
)
def test_f3_other_limits_are_failures_of_the_test(reason: str) -> None:
    assert not replies.is_unpaid(reason)


DETAIL_PAGE = page_key(f"/simulate/test-executions/{EXECUTION}/", limit=30)


def test_l11_a_500_that_names_no_match_is_not_found() -> None:
    wire = Wire({DETAIL_PAGE: error(500, "server_error", "Failed: No TestExecution matches the given query.")})
    with pytest.raises(NotFoundError, match=r"HTTP 500: .*organization and workspace only"):
        wire.run(CURRENT.get_test_execution_detail(EXECUTION))
    wire = Wire({DETAIL_PAGE: error(500, "server_error", "Failed: database")})
    with pytest.raises(ServerError):
        wire.run(CURRENT.get_test_execution_detail(EXECUTION))
    assert replies.status_meant(Reply(500, {}, b"no JSON")) == 500


def test_l7_the_words_of_a_429_are_inside_its_result() -> None:
    body = {
        "status": False,
        "result": {
            "code": "RATE_LIMITED",
            "message": "Rate limit exceeded: 1 api requests per minute",
            "retry_after": 16,
        },
    }
    assert replies.error_words(json.loads(json.dumps(body))) == "Rate limit exceeded: 1 api requests per minute."
    assert (
        replies.error_words({"status": False, "result": {"code": "RATE_LIMITED", "retry_after": 1}}) == "RATE_LIMITED."
    )
    assert replies.error_words({"error": {"message": "slow down"}, "result": {"code": 1}}) == "slow down."


def test_l8_there_is_no_progress_while_the_calls_are_still_being_made() -> None:
    early = metrics_reply("pending", {"total": 69, "completed": 0, "failed": 0, "pending": 69}, total_calls=0)
    assert Wire({METRICS: early}).run(CURRENT.get_run(EXECUTION)).progress is None
    rows = [execution_row(status="Pending", calls=69, calls_attempted=0)]
    (row,) = Wire({executions_key(): listed(rows)}).run(CURRENT.find_runs(None, RUN_TEST))
    assert row.progress is None
    later = metrics_reply("running", {"total": 130, "completed": 2, "failed": 0, "pending": 128}, total_calls=0)
    assert Wire({METRICS: later}).run(CURRENT.get_run(EXECUTION)).progress == Progress(2, 130)
