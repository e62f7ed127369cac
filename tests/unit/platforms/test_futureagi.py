"""Future AGI's API, as its documents and the product have it. No sockets: responses are small descriptions of our
own."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    StartOutcomeUnknownError,
    TransportError,
)
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import (
    CaseTexts,
    Counts,
    Metric,
    Outcome,
    Progress,
    Run,
    RunReport,
    RunState,
    Verdict,
)
from airflow_provider_testruns.platforms.futureagi import FutureAGIPlatform, responses
from airflow_provider_testruns.platforms.platform import PollCache, Start
from airflow_provider_testruns.steps import Response
from tests.unit.platforms.steps import InTurn, Wire, cancel, lost, poll
from tests.unit.responses import response

pytestmark = pytest.mark.unit

RUN_TEST = "0a000000-0000-4000-8000-000000000001"
OTHER_RUN_TEST = "0a000000-0000-4000-8000-000000000002"
EXECUTION = "0e000000-0000-4000-8000-000000000001"
SIMULATOR = "0d000000-0000-4000-8000-000000000001"
ONE, TWO, THREE = (f"0c000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))

CURRENT = FutureAGIPlatform("current")
DOCUMENTED = FutureAGIPlatform("documented")

EXECUTE = f"POST /simulate/run-tests/{RUN_TEST}/execute/"
CANCEL = f"POST /simulate/test-executions/{EXECUTION}/cancel/"
RERUN = f"POST /simulate/test-executions/{EXECUTION}/rerun-calls/"
METRICS = f"GET /sdk/api/v1/simulation/metrics/?execution_id={EXECUTION}"
RUN_TEST_DETAIL = f"GET /simulate/run-tests/{RUN_TEST}/"
EVAL_SUMMARY = f"GET /simulate/run-tests/{RUN_TEST}/eval-summary/?execution_id={EXECUTION}"


def page_key(path: str, page: int = 1, limit: int = 100, before: str = "") -> str:
    return f"GET {path}?{before}page={page}&limit={limit}"


def scenarios_key(page: int = 1) -> str:
    return page_key(f"/simulate/run-tests/{RUN_TEST}/scenarios/", page)


def executions_key(page: int = 1, limit: int = 100) -> str:
    return page_key(f"/simulate/run-tests/{RUN_TEST}/executions/", page, limit)


def calls_key(page: int | None = None) -> str:
    if page is None:
        return f"GET /sdk/api/v1/simulation/runs/?execution_id={EXECUTION}"
    return page_key("/sdk/api/v1/simulation/runs/", page, before=f"execution_id={EXECUTION}&")


def listed(rows: list[Any], page: int = 1, pages: int = 1) -> dict[str, Any]:
    return {
        "count": len(rows) * pages,
        "next": "https://elsewhere.example.com/never-followed" if page < pages else None,
        "previous": None,
        "results": rows,
        "total_pages": pages,
        "current_page": page,
    }


def named(*ids: str) -> list[dict[str, Any]]:
    return [{"id": i, "name": f"scenario {i[-1]}", "row_count": 1} for i in ids]


def metrics_response(status: str = "completed", calls: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "execution_id": EXECUTION,
        "status": status,
        "started_at": "2026-11-22T12:00:00.500000Z",
        "completed_at": None,
        "total_calls": 0,
        "completed_calls": 0,
        "failed_calls": 0,
        "metrics": {"calls": calls} if calls is not None else {},
    }
    return {"status": True, "result": {**result, **more}}


def calls(completed: int = 0, failed: int = 0, pending: int = 0, total: int | None = None) -> dict[str, int]:
    total = completed + failed + pending if total is None else total
    return {"completed": completed, "failed": failed, "pending": pending, "total": total}


def execution_row(execution_id: str = EXECUTION, status: str = "Running", **more: Any) -> dict[str, Any]:
    return {
        "id": execution_id,
        "status": status,
        "start_time": "2026-11-22T12:00:00.500000+00:00",
        "duration": 0,
        "calls": 5,
        "calls_attempted": 2,
        "connected_calls": 2,
        "success_rate": 40.0,
        "error_reason": None,
        **more,
    }


def call_row(number: int, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "call_execution_id": f"0b000000-0000-4000-8000-{number:012d}",
        "status": status,
        "scenario_id": ONE,
        "scenario_name": "Refund request",
        "duration_seconds": 40 + number,
        "eval_outputs": {},
        **more,
    }


def runs_response(rows: list[dict[str, Any]], page: int = 1, pages: int = 1, **more: Any) -> dict[str, Any]:
    return {"status": True, "result": {"execution_id": EXECUTION, "call_results": listed(rows, page, pages), **more}}


def evaluation(name: str, kind: str, total: float | dict[str, float], scored: int, **config: Any) -> dict[str, Any]:
    names = {"Pass/Fail": "total_pass_rate", "score": "total_avg", "choices": "total_choices_avg"}
    return {
        "name": name,
        "id": "template",
        "output_type": kind,
        "result": [{"name": name, "id": "config", "total_cells": scored, "output": {}, **config}],
        names.get(kind, "total_avg"): total,
    }


SUMMARY = [
    evaluation("tone", "score", 80.0, 3, avg_score=80.0, output={"p50": 81.0}),
    evaluation("resolved", "Pass/Fail", 75.0, 4, output={"pass": 75.0, "fail": 25.0, "pass_count": 3, "fail_count": 1}),
    evaluation("escalated", "choices", {"['No']": 75.0}, 4, output={"['No']": 75.0, "['Yes']": 25.0}),
]


def error(status: int, kind: str, detail: str, **more: Any) -> Response:
    body = {"status": False, "type": kind, "code": "x", "detail": detail, "message": detail, "result": detail, **more}
    return response(body, status)


def started_response(status: str = "started") -> dict[str, Any]:
    return {
        "message": "Test execution started successfully",
        "execution_id": EXECUTION,
        "run_test_id": RUN_TEST,
        "status": status,
        "total_scenarios": 1,
        "total_calls": 0,
        "scenario_ids": [ONE],
    }


def prepare(wire: Wire, platform: FutureAGIPlatform = CURRENT, **arguments: Any) -> Start:
    return wire.run(platform.prepare_start(**arguments))


def sent_body(platform: FutureAGIPlatform = CURRENT, answers: dict[str, Any] | None = None, **arguments: Any) -> Any:
    wire = Wire({scenarios_key(): listed(named(ONE, TWO, THREE)), **(answers or {})})
    return prepare(wire, platform, **{"run_test_id": RUN_TEST, **arguments}).call.json


# The two dialects


def test_bodies_of_the_documented_dialect():
    assert sent_body(DOCUMENTED, select_all=True) == {"selectAll": True, "scenarioIds": []}
    assert sent_body(DOCUMENTED, scenario_ids=[ONE]) == {"selectAll": False, "scenarioIds": [ONE]}
    assert sent_body(DOCUMENTED, select_all=True, simulator_id=SIMULATOR) == {
        "selectAll": True,
        "scenarioIds": [],
        "simulatorId": SIMULATOR,
    }


def test_bodies_of_the_current_dialect():
    assert sent_body(select_all=True) == {"select_all": True, "scenario_ids": []}
    assert sent_body(scenario_ids=[TWO, ONE]) == {"select_all": False, "scenario_ids": [TWO, ONE]}
    assert sent_body(scenario_ids=[ONE], simulator_id=SIMULATOR) == {
        "select_all": False,
        "scenario_ids": [ONE],
        "simulator_id": SIMULATOR,
    }


def test_the_documented_dialect_goes_without_the_list_where_there_is_none():
    wire = Wire()
    assert prepare(wire, DOCUMENTED, run_test_id=RUN_TEST, scenario_ids=[ONE]).call.json["scenarioIds"] == [ONE]
    assert wire.asked == [scenarios_key()]
    wire.requests.clear()
    prepare(wire, DOCUMENTED, run_test_id=RUN_TEST, select_all=True)
    assert wire.asked == []
    with pytest.raises(PermissionDeniedError):
        prepare(Wire({scenarios_key(): error(403, "permission_error", "no")}), run_test_id=RUN_TEST, scenario_ids=[ONE])


def test_no_third_dialect():
    with pytest.raises(ConfigurationError, match="dialect"):
        FutureAGIPlatform("modern")  # type: ignore[arg-type]


# "The seed against itself and against the product", row by row


def test_row_all_except_those():
    """Documented: sent as documented. Current: the server ignores the flag, so the list is made here."""
    assert sent_body(DOCUMENTED, exclude_scenario_ids=[TWO]) == {"selectAll": True, "scenarioIds": [TWO]}
    assert sent_body(CURRENT, exclude_scenario_ids=[TWO]) == {"select_all": False, "scenario_ids": [ONE, THREE]}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scenario_ids": [ONE], "select_all": True},
        {"scenario_ids": [ONE], "exclude_scenario_ids": [TWO]},
        {"exclude_scenario_ids": [TWO], "select_all": True},
        {"scenario_ids": []},
        {"exclude_scenario_ids": []},
        {"scenario_ids": [], "select_all": True},
        {"scenario_ids": ONE},
        {"scenario_ids": [1]},
        {"scenario_ids": ["refund"]},
        {"exclude_scenario_ids": {"a": 1}},
        {"select_all": "True"},
    ],
)
def test_row_empty_scenario_ids_run_everything(arguments):
    """So exactly one way to say it is demanded, before any request."""
    wire = Wire()
    for platform in (CURRENT, DOCUMENTED):
        with pytest.raises(ConfigurationError, match=r"scenario_ids|select_all"):
            prepare(wire, platform, run_test_id=RUN_TEST, **arguments)
    assert wire.asked == []


def test_row_unknown_scenario_ids():
    """They would run nothing and end as completed: refused by name before starting, after a look at all pages."""
    wire = Wire(
        {
            scenarios_key(1): listed(named(ONE), 1, 2),
            scenarios_key(2): listed(named(TWO), 2, 2),
        }
    )
    with pytest.raises(ConfigurationError, match=rf"scenario_ids .*{THREE}.*{ONE} \(scenario 1\)"):
        prepare(wire, run_test_id=RUN_TEST, scenario_ids=[TWO, THREE])
    with pytest.raises(ConfigurationError, match=f"exclude_scenario_ids .*{THREE}"):
        prepare(wire, run_test_id=RUN_TEST, exclude_scenario_ids=[THREE])
    assert all(asked.startswith("GET ") for asked in wire.asked)
    assert prepare(wire, run_test_id=RUN_TEST, scenario_ids=[TWO]).call.json["scenario_ids"] == [TWO]
    with pytest.raises(ConfigurationError, match=f"scenario_ids .*{THREE}"):
        prepare(wire, DOCUMENTED, run_test_id=RUN_TEST, scenario_ids=[THREE])


def test_of_many_scenarios_the_first_are_named():
    many = [f"0c000000-0000-4000-8000-{n:012d}" for n in range(100, 125)]
    with pytest.raises(ConfigurationError, match=rf"{many[19]} \(scenario 9\) and 5 more\.$"):
        prepare(Wire({scenarios_key(): listed(named(*many))}), run_test_id=RUN_TEST, scenario_ids=[ONE])
    with pytest.raises(ConfigurationError, match=rf"{many[19]} \(scenario 9\)\.$"):
        prepare(Wire({scenarios_key(): listed(named(*many[:20]))}), run_test_id=RUN_TEST, scenario_ids=[ONE])


def test_row_double_scenario_ids_run_twice():
    assert sent_body(scenario_ids=[ONE, TWO, ONE.upper()])["scenario_ids"] == [ONE, TWO]
    assert sent_body(DOCUMENTED, scenario_ids=[ONE, ONE])["scenarioIds"] == [ONE]


def test_an_exclusion_that_leaves_none():
    with pytest.raises(ConfigurationError, match="leaves none of the 3 scenarios"):
        sent_body(exclude_scenario_ids=[THREE, ONE, TWO])


def test_row_no_poll_endpoint():
    """The same paths in both dialects."""
    for platform in (CURRENT, DOCUMENTED):
        wire = Wire({METRICS: metrics_response("running", calls(1, 0, 3))})
        assert wire.run(poll(platform, EXECUTION)).state is RunState.RUNNING
        assert wire.asked == [METRICS]


def test_row_total_calls_may_be_0_at_start():
    wire = Wire({METRICS: InTurn(metrics_response("pending", calls()), metrics_response("running", calls(1, 1, 1, 5)))})
    assert wire.run(poll(CURRENT, EXECUTION)).progress is None
    assert wire.run(poll(CURRENT, EXECUTION)).progress == Progress(2, 5)


@pytest.mark.parametrize("status", [408, 409, 422, 500, 503])
def test_row_500_on_start_is_an_unknown_outcome(status):
    assert not responses.nothing_was_started(error(status, "server_error", "broken"))
    assert not responses.nothing_was_started(response(b"<html>", status))


# Starting


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 406, 415, 429])
def test_responses_that_prove_that_nothing_was_started(status):
    assert responses.nothing_was_started(error(status, "whatever", "no"))


@pytest.mark.parametrize("key", ["detail", "message"])
def test_a_400_for_no_scenario_proves_it_wherever_it_says_so(key):
    said = {"type": "validation_error", key: "At least one scenario is required to execute the test."}
    assert responses.nothing_was_started(response(said, 400))


def test_a_400_proves_it_when_the_request_was_refused():
    refused = error(400, "validation_error", "foo: Unknown field.", details={"foo": ["Unknown field."]})
    assert responses.nothing_was_started(refused)
    empty = error(400, "validation_error", "At least one scenario is required to execute the test.")
    assert responses.nothing_was_started(empty)


@pytest.mark.parametrize(
    "answer",
    [
        # The product's answer when its workflow service is down: it leaves a pending execution behind.
        error(400, "validation_error", "Failed to start hosted test execution: tcp connect error"),
        error(400, "validation_error", "Failed to start test execution: tcp connect error", details={}),
        error(400, "client_error", "At least one scenario is required", details={"a": ["b"]}),
        response({"message": "The execution failed to start."}, 400),
        response([1], 400),
        response(b"<h1>Bad Request</h1>", 400),
    ],
)
def test_a_400_that_proves_nothing(answer):
    assert not responses.nothing_was_started(answer)


def test_the_start_call():
    start = prepare(Wire(), DOCUMENTED, run_test_id=RUN_TEST.upper(), select_all=True)
    assert (start.call.method, start.call.path) == ("POST", f"/simulate/run-tests/{RUN_TEST}/execute/")
    assert start.call.idempotent is False
    assert start.ids == {"run_test_id": RUN_TEST}
    assert start.started_with == {}
    assert start.not_compared == ("scenario_ids", "simulator_id")
    assert start.cannot_list is None


@pytest.mark.parametrize("status", ["started", "completed", "what"])
def test_the_status_of_a_start_is_not_believed(status):
    wire = Wire({EXECUTE: started_response(status)})
    run = wire.ask(prepare(wire, run_test_id=RUN_TEST, select_all=True).call)
    assert (run.run_id, run.state, run.raw_state, run.platform_verdict) == (EXECUTION, RunState.QUEUED, status, None)
    assert run.ids == {"run_test_id": RUN_TEST}
    assert run.url == f"https://app.futureagi.com/dashboard/simulate/test/{RUN_TEST}/{EXECUTION}"
    assert run.known_state


@pytest.mark.parametrize("body", [{}, {"execution_id": "4711"}, []])
def test_a_start_without_an_id_is_not_read(body):
    wire = Wire({EXECUTE: response(body)})
    with pytest.raises(InvalidReplyError, match="start") as raised:
        wire.ask(prepare(wire, run_test_id=RUN_TEST, select_all=True).call)
    assert raised.value.not_executed is False


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"run_test_id": RUN_TEST, "run_test_name": "nightly"},
        {"run_test_id": ""},
        {"run_test_id": "nightly"},
        {"run_test_id": RUN_TEST.replace("-", "")},
        {"run_test_id": 5},
        {"run_test_name": ""},
        {"run_test_name": 5},
    ],
)
def test_run_test_arguments(arguments):
    wire = Wire()
    with pytest.raises(ConfigurationError, match=r"run_test_id|run_test_name"):
        prepare(wire, select_all=True, **arguments)
    assert wire.asked == []


def test_a_malformed_simulator():
    with pytest.raises(ConfigurationError, match="simulator_id"):
        prepare(Wire(), run_test_id=RUN_TEST, select_all=True, simulator_id="bot")


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError):
        CURRENT.prepare_start(run_test_id=RUN_TEST, select_all=True, scenarios=[])  # type: ignore[call-arg]


def run_tests(*names: str) -> list[dict[str, Any]]:
    return [{"id": f"0a000000-0000-4000-8000-{n:012d}", "name": name} for n, name in enumerate(names, 1)]


def test_a_name_is_looked_up_on_all_pages():
    wire = Wire(
        {
            page_key("/simulate/run-tests/", 1): listed(run_tests("nightly", "other"), 1, 2),
            page_key("/simulate/run-tests/", 2): listed([{"id": SIMULATOR.upper(), "name": "Smoke  "}], 2, 2),
        }
    )
    assert prepare(wire, run_test_name="nightly", select_all=True).ids == {"run_test_id": RUN_TEST}
    assert wire.asked[2:] == [RUN_TEST_DETAIL]
    assert prepare(wire, run_test_name="Smoke  ", select_all=True).ids == {"run_test_id": SIMULATOR}


def test_an_unknown_name_lists_near_ones():
    wire = Wire({page_key("/simulate/run-tests/"): listed(run_tests("nightly-support-sim", "filler"))})
    with pytest.raises(ConfigurationError, match="Similar names: 'nightly-support-sim'"):
        prepare(wire, run_test_name="Nightly-Support-Sim", select_all=True)
    with pytest.raises(ConfigurationError, match="There are 2 run tests"):
        prepare(wire, run_test_name="zzzz", select_all=True)


def test_a_name_of_several():
    rows = run_tests("nightly", "nightly", "nightly")
    rows[2]["deleted"] = True
    wire = Wire({page_key("/simulate/run-tests/"): listed(rows)})
    with pytest.raises(ConfigurationError, match=f"2 run tests .*{RUN_TEST}, {OTHER_RUN_TEST}"):
        prepare(wire, run_test_name="nightly", select_all=True)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(401, "authentication_error", "Invalid API key or secret key"), AuthenticationError, "Invalid API key"),
        (error(402, "payment_required", "Voice is not available"), PermissionDeniedError, "upgrade"),
        (error(403, "entitlement_error", "Not entitled", error={"feature": "x"}), PermissionDeniedError, "plan"),
        (error(403, "permission_error", "Not allowed"), PermissionDeniedError, "rights"),
        (error(404, "not_found", "Run test not found"), NotFoundError, "Run test not found"),
        (error(429, "rate_limit", "Slow down", result={"retry_after": 7}), RateLimitedError, "minute"),
    ],
)
def test_errors_say_what_can_be_done(answer, kind, words):
    wire = Wire({EXECUTE: answer})
    with pytest.raises(kind, match=words) as raised:
        wire.ask(prepare(wire, run_test_id=RUN_TEST, select_all=True).call)
    assert raised.value.not_executed is True


def test_error_words_name_the_fields():
    body = {"type": "validation_error", "detail": "Validation failed", "details": {"execution_id": ["Must be a UUID."]}}
    assert responses.error_words(body) == "Validation failed. execution_id: Must be a UUID."
    assert responses.error_words({"error": {"reason": "x"}, "result": "y"}) == "x."
    assert responses.error_words("nothing") == ""


def test_the_newest_run_is_one_cheap_call():
    wire = Wire({executions_key(limit=1): InTurn(listed([execution_row()], pages=9), listed([]))})
    start = prepare(wire, run_test_id=RUN_TEST, select_all=True)
    newest = wire.run(CURRENT.newest_run(start))
    assert newest is not None
    assert newest.run_id == EXECUTION
    assert newest.started_with == {}
    assert wire.run(CURRENT.newest_run(start)) is None
    assert wire.asked == [RUN_TEST_DETAIL, *[executions_key(limit=1)] * 2]


# Where a run stands

STATES = [
    ("started", RunState.QUEUED, None),
    ("PENDING", RunState.QUEUED, None),
    ("pending", RunState.QUEUED, None),
    ("Pending", RunState.QUEUED, None),
    ("running", RunState.RUNNING, None),
    ("evaluating", RunState.RUNNING, None),
    ("Cancelling", RunState.RUNNING, None),
    ("completed", RunState.FINISHED, Verdict.PASSED),
    ("Completed", RunState.FINISHED, Verdict.PASSED),
    ("failed", RunState.FINISHED, Verdict.FAILED),
    ("CANCELLED", RunState.FINISHED, Verdict.CANCELLED),
]


@pytest.mark.parametrize(("raw", "state", "ending"), STATES)
def test_status_words(raw, state, ending):
    wire = Wire({METRICS: metrics_response(raw), executions_key(): listed([execution_row(status=raw)])})
    for run in (wire.run(poll(CURRENT, EXECUTION)), wire.run(CURRENT.find_runs(None, RUN_TEST))[0]):
        assert (run.state, run.platform_verdict, run.raw_state, run.known_state) == (state, ending, raw, True)


def test_an_unknown_status_word():
    run = Wire({METRICS: metrics_response("thinking")}).run(poll(CURRENT, EXECUTION))
    assert (run.state, run.platform_verdict, run.raw_state, run.known_state) == (
        RunState.RUNNING,
        None,
        "thinking",
        False,
    )


def test_e2_an_unknown_word_with_an_end_time_ends_the_run_as_errored_and_shows_the_word():
    metrics = metrics_response("archived", completed_at="2026-11-26T10:00:00Z")
    run = Wire({METRICS: metrics}).run(poll(CURRENT, EXECUTION))
    assert (run.state, run.platform_verdict, run.known_state) == (RunState.FINISHED, Verdict.ERRORED, False)
    assert "'archived'" in run.message


def test_e2_a_run_whose_word_is_unknown_is_left_out_of_a_list_so_that_its_own_metrics_are_read():
    def answer(request):
        return listed([execution_row(status="archived")])

    wire = Wire({executions_key(limit=6): answer, executions_key(): answer})
    assert wire.run(CURRENT.list_group(RUN_TEST, {EXECUTION}, None)) == []
    assert len(wire.run(CURRENT.find_runs(None, RUN_TEST))) == 1


def test_a_run_in_full():
    answer = metrics_response(
        "completed", None, total_calls=2, completed_calls=2, completed_at="2026-11-22T12:01:00.500000+00:00"
    )
    run = Wire({METRICS: answer}).run(poll(CURRENT, EXECUTION.upper(), run_test_id=RUN_TEST.upper()))
    assert run == Run(
        "futureagi",
        EXECUTION,
        RunState.FINISHED,
        "completed",
        platform_verdict=Verdict.PASSED,
        started_at=datetime(2026, 11, 22, 12, 0, 0, 500000, UTC),
        finished_at=datetime(2026, 11, 22, 12, 1, 0, 500000, UTC),
        progress=Progress(2, 2),
        url=f"https://app.futureagi.com/dashboard/simulate/test/{RUN_TEST}/{EXECUTION}",
        ids={"run_test_id": RUN_TEST},
    )
    assert CURRENT.group_of(run) == RUN_TEST


def test_a_run_whose_run_test_is_not_known():
    run = Wire({METRICS: metrics_response()}).run(poll(CURRENT, EXECUTION))
    assert (run.url, run.ids, CURRENT.group_of(run)) == ("", {}, None)


def test_calls_that_are_not_counted_yet_are_none():
    answer = metrics_response("running", None, total_calls=5)
    for key in ("completed_calls", "failed_calls"):
        del answer["result"][key]
    assert Wire({METRICS: answer}).run(poll(CURRENT, EXECUTION)).progress == Progress(0, 5)


def test_chat_runs_are_counted_by_their_calls():
    """The counters beside the status stay 0 for ever, and ``pending`` leaves out calls that are analysed."""
    answer = metrics_response("running", calls(3, 1, 0, 5), total_calls=5)
    assert Wire({METRICS: answer}).run(poll(CURRENT, EXECUTION)).progress == Progress(4, 5)


def test_the_metrics_of_another_execution_are_refused():
    wire = Wire({METRICS: metrics_response(execution_id=SIMULATOR)})
    with pytest.raises(InvalidReplyError, match="execution_id"):
        wire.run(poll(CURRENT, EXECUTION))


def test_a_result_that_says_it_is_none():
    wire = Wire({METRICS: {"status": False, "result": "no"}})
    with pytest.raises(InvalidReplyError, match="status"):
        wire.run(poll(CURRENT, EXECUTION))


@pytest.mark.parametrize("bad", ["", "None", "not-a-uuid", "../x", 4711, None])
def test_a_malformed_execution_id_is_not_sent(bad):
    wire = Wire()
    for steps in (
        poll(CURRENT, bad),
        cancel(CURRENT, bad),
        CURRENT.get_kpis(bad),
        CURRENT.get_metrics(bad),
        CURRENT.list_call_results(bad),
        CURRENT.export_csv(bad, Path("x")),
        CURRENT.rerun_calls(bad, "eval_only", select_all=True),
        CURRENT.get_eval_summary(RUN_TEST, bad),
    ):
        with pytest.raises(ConfigurationError, match="execution_id"):
            wire.run(steps)
    assert wire.asked == []


@pytest.mark.parametrize(
    ("base_url", "app_url", "app"),
    [
        ("https://api.futureagi.com", "", "https://app.futureagi.com"),
        ("https://api-us.futureagi.com/", "", "https://us.futureagi.com"),
        ("https://api-eu.futureagi.com", "", "https://eu.futureagi.com"),
        ("https://agi.example.com/api", "", "https://agi.example.com/api"),
        ("https://agi.example.com", "https://ui.example.com/", "https://ui.example.com"),
        ("https://api.futureagi.com", "https://ui.example.com", "https://ui.example.com"),
    ],
)
def test_the_link_to_the_app(base_url, app_url, app):
    platform = FutureAGIPlatform("current", base_url, app_url)
    assert platform.run_url(RUN_TEST, EXECUTION) == f"{app}/dashboard/simulate/test/{RUN_TEST}/{EXECUTION}"


# Lists


def at(second: int) -> str:
    return f"2026-11-22T12:00:{second:02d}+00:00"


def execution_id(number: int) -> str:
    return f"0e000000-0000-4000-8000-{number:012d}"


def test_find_runs_stops_at_the_first_page_that_is_older():
    wire = Wire(
        {
            executions_key(1): listed(
                [execution_row(execution_id(5), start_time=None), execution_row(execution_id(4), start_time=at(40))],
                1,
                9,
            ),
            executions_key(2): listed(
                [
                    execution_row(execution_id(3), start_time=at(30)),
                    execution_row(execution_id(2), start_time=at(20)),
                ],
                2,
                9,
            ),
        }
    )
    runs = wire.run(CURRENT.find_runs(datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC), RUN_TEST))
    assert [run.run_id for run in runs] == [execution_id(5), execution_id(4), execution_id(3)]
    assert wire.asked == [executions_key(1), executions_key(2)]


def test_find_runs_reads_all_pages_and_never_asks_past_the_end():
    wire = Wire(
        {
            executions_key(1): listed([execution_row(execution_id(2)), execution_row(execution_id(1))], 1, 2),
            # A new run has pushed an old one over to the next page meanwhile.
            executions_key(2): listed([execution_row(execution_id(1)), execution_row(execution_id(0))], 2, 2),
        }
    )
    runs = wire.run(CURRENT.find_runs(None, RUN_TEST))
    assert sorted(run.run_id for run in runs) == [execution_id(0), execution_id(1), execution_id(2)]
    assert wire.asked == [executions_key(1), executions_key(2)]


def test_a_list_that_never_ran():
    wire = Wire({executions_key(): listed([])})
    assert wire.run(CURRENT.find_runs(None, RUN_TEST)) == []
    with pytest.raises(ConfigurationError, match="run_test_id"):
        wire.run(CURRENT.find_runs(None))


def test_pages_without_a_number_of_pages_go_by_next():
    first = {"results": named(ONE), "next": "https://elsewhere.example.com", "previous": None}
    wire = Wire({scenarios_key(1): first, scenarios_key(2): {"results": named(TWO), "next": None}})
    assert [row["id"] for row in wire.run(CURRENT.list_scenarios(RUN_TEST))] == [ONE, TWO]


def test_a_list_as_the_contract_has_it():
    wire = Wire({scenarios_key(): response(named(ONE, TWO))})
    assert wire.run(CURRENT.list_scenarios(RUN_TEST)) == named(ONE, TWO)


def test_a_list_without_an_end(monkeypatch):
    monkeypatch.setattr(limits, "PAGES", 20)
    wire = Wire()
    wire.answers = {scenarios_key(n): listed(named(ONE), n, 10**9) for n in range(1, 21)}
    with pytest.raises(InvalidReplyError, match="exceeds the limit of 20 pages"):
        wire.run(CURRENT.list_scenarios(RUN_TEST))


def test_a_list_of_more_rows_than_can_be_meant(monkeypatch):
    monkeypatch.setattr(limits, "ROWS", 3)
    pages = [named(*(str(UUID(int=10 * n + k)) for k in range(2))) for n in range(2)]
    wire = Wire({scenarios_key(n): listed(rows, n, 10**9) for n, rows in enumerate(pages, 1)})
    with pytest.raises(InvalidReplyError, match="too large: 4 rows after 2 pages"):
        wire.run(CURRENT.list_scenarios(RUN_TEST))


def test_rows_that_are_kept_as_they_come_have_an_end_in_memory(monkeypatch):
    monkeypatch.setattr(limits, "RAW_ROWS", 100_000)
    large = [{**row, "text": "x" * 60_000} for row in named(ONE)]
    wire = Wire({scenarios_key(n): listed(large, n, 10**9) for n in (1, 2)})
    with pytest.raises(InvalidReplyError, match="too large: 1 rows after 2 pages"):
        wire.run(CURRENT.list_scenarios(RUN_TEST))


def test_a_choice_with_a_long_name_is_not_parsed():
    key = "[" + "'No', " * 1_000_000 + "]"
    tracemalloc.start()
    try:
        assert responses._made(key) == [key]
        assert responses._made("[" * 400) == ["[" * 400]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert responses._made("['No', 'Yes']") == ["No", "Yes"]


def test_list_group_reads_what_is_wanted():
    rows = [execution_row(execution_id(n), start_time=at(n)) for n in range(9, 0, -1)]
    rows[0]["status"] = 5  # of no interest
    wire = Wire(
        {executions_key(1, limit=7): listed(rows[:7], 1, 2), executions_key(2, limit=7): listed(rows[7:], 2, 2)}
    )
    wanted = {execution_id(8), execution_id(2).upper()}
    runs = wire.run(CURRENT.list_group(RUN_TEST, wanted, None))
    assert [run.run_id for run in runs] == [execution_id(8), execution_id(2)]
    assert runs[0].progress == Progress(2, 5)
    assert runs[0].ids == {"run_test_id": RUN_TEST}
    assert len(wire.asked) == 2
    wire.requests.clear()
    assert len(wire.run(CURRENT.list_group(RUN_TEST, {execution_id(8), execution_id(7)}, None))) == 2
    assert len(wire.asked) == 1, "both were on the first page"
    wire.requests.clear()
    oldest = datetime(2026, 11, 22, 12, 0, 4, tzinfo=UTC)
    assert len(wire.run(CURRENT.list_group(RUN_TEST, wanted, oldest))) == 1
    assert len(wire.asked) == 1, "what comes later is older"


def test_a_row_of_a_list_is_read_again_when_it_has_changed():
    wanted, cache = {execution_id(1), execution_id(2).upper()}, PollCache()
    first = [execution_row(execution_id(1), start_time=at(1)), execution_row(execution_id(2).upper(), start_time=at(0))]
    key = executions_key(1, limit=7)

    def look(rows: list[dict[str, Any]]) -> list[Run]:
        return Wire({key: listed(rows)}).run(CURRENT.list_group(RUN_TEST, wanted, None, cache))

    one, two = look(first)
    # What is not read of a row may change.
    assert look([{**first[0], "duration": 5}, first[1]])[0] is one
    changed, same = look([{**first[0], "status": "Completed"}, first[1]])
    assert (changed.state, same) == (RunState.FINISHED, two)
    assert same is two


@pytest.mark.parametrize(("wanted", "limit"), [(1, 6), (200, 255), (1000, 500)])
def test_list_group_asks_for_pages_that_fit(wanted, limit):
    wire = Wire({executions_key(1, limit): listed([])})
    assert wire.run(CURRENT.list_group(RUN_TEST, {execution_id(n) for n in range(wanted)}, None)) == []


# Cancelling


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_final_run_is_left_as_it_is(status):
    wire = Wire({METRICS: metrics_response(status)})
    wire.run(cancel(CURRENT, EXECUTION, run_test_id=RUN_TEST))
    assert wire.asked == [METRICS]


def test_cancel():
    wire = Wire({METRICS: metrics_response("running"), CANCEL: {"success": True, "message": "ok"}})
    wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL]
    assert wire.body() == {}


@pytest.mark.parametrize(
    ("status", "counts", "failures"),
    [
        ("running", calls(completed=1, failed=2, pending=3), 2),
        ("evaluating", calls(completed=1), 0),
        ("running", {"completed": 1, "total": 3}, None),
        ("completed", calls(completed=1, failed=2), None),
    ],
)
def test_how_many_calls_have_failed_of_an_execution_that_is_running(status, counts, failures):
    more = {"failed_calls": None} if "failed" not in counts else {}
    wire = Wire({METRICS: metrics_response(status, counts, **more)})
    run, found = wire.run(CURRENT.poll_with_failures(failed_run(wire)))
    assert (run.raw_state, found) == (status, failures)


def test_a_cancel_whose_response_is_lost_looks_before_it_is_sent_again():
    wire = Wire({METRICS: InTurn(metrics_response("running"), metrics_response("completed")), CANCEL: lost()})
    wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL, METRICS]
    wire = Wire({METRICS: InTurn(metrics_response("running"), metrics_response("cancelling")), CANCEL: lost()})
    wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL, METRICS]
    wire = Wire({METRICS: metrics_response("running"), CANCEL: lost()})
    with pytest.raises(TransportError):
        wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL] * 3


def test_a_run_that_hangs_in_cancelling_is_asked_again():
    wire = Wire({METRICS: metrics_response("cancelling"), CANCEL: {"success": True}})
    wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL]


def test_a_cancel_that_was_not_done():
    wire = Wire({METRICS: metrics_response("running"), CANCEL: {"success": False, "message": "no such workflow"}})
    with pytest.raises(InvalidRequestError, match="no such workflow"):
        wire.run(cancel(CURRENT, EXECUTION))
    wire.answers[CANCEL] = error(429, "rate_limit", "later")
    wire.answers[CANCEL].headers["retry-after"] = "60"
    wire.requests.clear()
    with pytest.raises(RateLimitedError):
        wire.run(cancel(CURRENT, EXECUTION))
    assert wire.asked == [METRICS, CANCEL], "who cancels can't wait for a minute"


# Reports and verdicts


def report_of(
    status: str,
    counted: dict[str, int],
    rows: list[dict[str, Any]] | None = None,
    summary: Any = None,
    **more: Any,
) -> tuple[Wire, RunReport]:
    wire = Wire({METRICS: metrics_response(status, counted, **more.pop("fields", {}))})
    wire.answers[calls_key()] = runs_response(rows or [])
    wire.answers[EVAL_SUMMARY] = {"status": True, "result": summary or []}
    wire.answers.update(more.pop("answers", {}))
    run = wire.run(poll(CURRENT, EXECUTION, run_test_id=RUN_TEST))
    wire.requests.clear()
    return wire, wire.run(CURRENT.get_report(run))


def test_a_report_in_full():
    rows = [
        call_row(1),
        call_row(
            2,
            "failed",
            duration_seconds=None,
            ended_reason="line busy",
            eval_outputs={"c": {"name": "tone", "output": None, "reason": "model unavailable"}},
        ),
        call_row(3, "cancelled"),
        call_row(4, "analyzing"),
    ]
    wire, report = report_of("completed", calls(1, 1, 0, 4), rows, SUMMARY)
    assert report.counts == Counts(passed=1, failed=1, not_run=2)
    assert [case.outcome for case in report.cases] == [
        Outcome.PASSED,
        Outcome.FAILED,
        Outcome.NOT_RUN,
        Outcome.NOT_RUN,
    ]
    first, second, third, _ = report.cases
    assert (first.name, first.suite, first.duration, first.message) == (
        rows[0]["call_execution_id"],
        "Refund request",
        41.0,
        "",
    )
    assert (second.duration, second.message) == (None, "line busy; tone: model unavailable")
    assert third.message == "The call is cancelled."
    assert report.metrics == {
        "tone": Metric(0.8, 3),
        "resolved": Metric(0.75, 4),
        "escalated=No": Metric(0.75, 4),
        "escalated=Yes": Metric(0.25, 4),
    }
    assert wire.asked == [METRICS, calls_key(), EVAL_SUMMARY, RUN_TEST_DETAIL, detail_key()]


def detail_key(page: int = 1) -> str:
    return page_key(f"/simulate/test-executions/{EXECUTION}/", page)


def test_calls_that_failed_say_why_they_ended():
    """The list of calls does not tell; the execution's details do."""
    rows = [call_row(1), call_row(2, "failed"), call_row(3, "failed"), call_row(4, "cancelled")]
    details = [
        {"id": rows[0]["call_execution_id"], "ended_reason": "customer-ended-call"},
        {"id": rows[1]["call_execution_id"], "ended_reason": "silence-timed-out"},
        {"id": rows[2]["call_execution_id"], "ended_reason": None},
    ]
    pages = {detail_key(n): listed([row], n, 3) for n, row in enumerate(details, start=1)}
    wire, report = report_of("completed", calls(1, 2, 0, 4), rows, answers=pages)
    assert [case.message for case in report.cases] == [
        "",
        "silence-timed-out",
        "The call failed; the platform gives no reason.",
        "The call is cancelled.",
    ]
    assert wire.asked[-3:] == list(pages)
    wire, report = report_of(
        "completed", calls(1, 1), rows[:2], answers={detail_key(): error(500, "server_error", "x")}
    )
    assert "no reason" in report.cases[1].message
    wire, _ = report_of("completed", calls(0), [])
    assert detail_key() not in wire.asked


def test_cases_are_read_from_all_pages():
    pages = {calls_key(n): runs_response([call_row(n)], n, 3) for n in (1, 2, 3)}
    wire, report = report_of("completed", calls(3), answers={calls_key(): runs_response([call_row(1)], 1, 3), **pages})
    assert len(report.cases) == 3
    assert wire.asked[1:5] == [calls_key(), *pages], "paged only where there are several pages"


def test_a_start_of_unknown_time_and_end_is_filled_in():
    wire = Wire({METRICS: metrics_response("completed", calls(1), completed_at="2026-11-22T12:00:10.500000Z")})
    run = Run("futureagi", EXECUTION, RunState.FINISHED, "Completed", platform_verdict=Verdict.PASSED)
    report = wire.run(CURRENT.get_report(run))
    assert (report.duration, report.run.raw_state, report.run.progress) == (10.0, "Completed", Progress(1, 1))


@pytest.mark.parametrize(
    ("status", "counted", "verdict"),
    [
        ("completed", calls(4), Verdict.PASSED),
        ("completed", calls(3, 1), Verdict.FAILED),
        ("failed", calls(0, 2), Verdict.FAILED),
        ("failed", calls(0, 0, 2), Verdict.ERRORED),
        ("failed", calls(), Verdict.ERRORED),
        ("cancelled", calls(4), Verdict.CANCELLED),
        ("completed", calls(), Verdict.FAILED),
    ],
)
def test_verdicts(status, counted, verdict):
    _, report = report_of(status, counted)
    assert judge(report).verdict is verdict


def test_completed_without_a_call_is_no_tests():
    _, report = report_of("completed", calls())
    assert judge(report, Gates(fail_on_no_tests=False)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [
        ({"tone": 0.8, "resolved": 0.75}, Verdict.PASSED),
        ({"tone": 0.81}, Verdict.FAILED),
        ({"escalated=No": 0.7}, Verdict.PASSED),
        ({"escalated=Maybe": 0.1}, Verdict.FAILED),
    ],
)
def test_evaluation_gates(thresholds, verdict):
    _, report = report_of("completed", calls(4), [], SUMMARY)
    assert judge(report, Gates(eval_thresholds=thresholds)).verdict is verdict


@pytest.mark.parametrize("name", ["escalated", "no such evaluation", "tone=Yes"])
def test_a_gate_on_an_unknown_evaluation_is_an_error(name):
    _, report = report_of("completed", calls(4), [], SUMMARY)
    with pytest.raises(ConfigurationError, match=rf"'{name}'.*It has: 'escalated=No', .*'tone'\."):
        judge(report, Gates(eval_thresholds={name: 0.0}))


def test_what_scored_nothing_is_not_compared():
    summary = [evaluation("tone", "score", 0, 0), evaluation("escalated", "choices", {}, 0)]
    _, report = report_of("completed", calls(4), [], summary)
    assert report.metrics == {"tone": Metric(None, 0), "escalated": Metric(None, 0)}
    judged = judge(report, Gates(eval_thresholds={"tone": 0.0}))
    assert judged.verdict is Verdict.FAILED
    assert "has no score" in judged.reasons[0]


def test_a_run_that_could_not_be_set_up_says_why():
    rows = [execution_row(status="Failed", error_reason="no agent version")]
    answers = {executions_key(): listed(rows)}
    _, report = report_of("failed", calls(0, 0, 2), answers=answers)
    for gates in (None, Gates(eval_thresholds={"tone": 0.5})):
        judged = judge(report, gates)
        assert (judged.verdict, judged.reasons) == (Verdict.ERRORED, ("no agent version",))


@pytest.mark.parametrize("status", [404, 500, 501])
def test_details_that_are_lost_do_not_change_the_verdict(status):
    """An evaluation of a kind that the server does not know makes it answer 500 for the whole execution."""
    broken = error(status, "server_error", "Unable to fetch")
    _, report = report_of("completed", calls(2, 1), answers={calls_key(): broken, EVAL_SUMMARY: broken})
    assert (report.cases, report.metrics) == ((), {})
    assert report.counts == Counts(passed=2, failed=1)
    assert judge(report).verdict is Verdict.FAILED
    # A gate on what could not be seen is neither met nor missed.
    wire, report = report_of("completed", calls(2), answers={EVAL_SUMMARY: broken})
    assert wire.asked.count(EVAL_SUMMARY) == (3 if status >= 500 else 1)
    assert judge(report).verdict is Verdict.PASSED
    with pytest.raises(ApiError, match="are not available") as raised:
        judge(report, Gates(eval_thresholds={"tone": 0.1}))
    assert raised.value.status == status
    # Calls that failed decide without it.
    _, report = report_of("completed", calls(2, 1), answers={EVAL_SUMMARY: broken})
    judged = judge(report, Gates(eval_thresholds={"tone": 0.1}))
    assert judged.verdict is Verdict.FAILED
    assert "not checked" in judged.reasons[-1]
    _, report = report_of("failed", calls(), answers={executions_key(): broken})
    assert judge(report).verdict is Verdict.ERRORED


@pytest.mark.parametrize(
    ("key", "answer", "kind"),
    [
        (calls_key(), error(401, "authentication_error", "no"), AuthenticationError),
        (calls_key(), error(403, "permission_error", "no"), PermissionDeniedError),
        (calls_key(), error(503, "service_unavailable", "later"), ServerError),
        (calls_key(), lost(), TransportError),
        (calls_key(), response({"status": True, "result": 5}), InvalidReplyError),
        (EVAL_SUMMARY, error(403, "permission_error", "no"), PermissionDeniedError),
        (EVAL_SUMMARY, error(503, "service_unavailable", "later"), ServerError),
        (EVAL_SUMMARY, response({"status": True, "result": 5}), InvalidReplyError),
    ],
)
def test_details_that_can_be_had_later_are_not_given_up(key, answer, kind):
    with pytest.raises(kind):
        report_of("completed", calls(1), answers={key: answer})


def test_the_counts_are_never_guessed():
    run = Run("futureagi", EXECUTION, RunState.FINISHED, "completed", platform_verdict=Verdict.PASSED)
    wire = Wire({METRICS: metrics_response("completed", {"total": "many"})})
    with pytest.raises(InvalidReplyError, match="total"):
        wire.run(CURRENT.get_report(run))
    with pytest.raises(NotFoundError):
        Wire().run(CURRENT.get_report(run))


def test_figures_of_a_run_whose_run_test_is_not_known_come_with_its_calls():
    wire = Wire(
        {
            METRICS: metrics_response("completed", calls(1)),
            calls_key(): runs_response([call_row(1)], eval_results=SUMMARY),
        }
    )
    report = wire.run(CURRENT.get_report(wire.run(poll(CURRENT, EXECUTION))))
    assert report.metrics["tone"] == Metric(0.8, 3)
    assert EVAL_SUMMARY not in wire.asked


def test_evaluations_that_are_set_up_more_than_once():
    def config(name: str, score: float, scored: int) -> dict[str, Any]:
        return {"name": name, "id": "c", "total_cells": scored, "output": {}, "avg_score": score}

    twice = {
        "name": "tone",
        "id": "t",
        "output_type": "score",
        "result": [config("strict", 40.0, 2), config("loose", 90.0, 2)],
        "total_avg": 65.0,
    }
    same = {**twice, "name": "other", "result": [config("strict", 80.0, 1)], "total_avg": 80.0}
    found = responses.metrics_of([twice, same], "the summary")
    assert found == {
        "strict": Metric(0.4, 2),
        "loose": Metric(0.9, 2),
        "tone": Metric(0.65, 4),
        "other": Metric(0.8, 1),
    }


def test_a_figure_of_all_is_not_taken_for_one_of_several():
    def config(name: str) -> dict[str, Any]:
        return {"name": name, "id": "c", "total_cells": 2, "output": {}}

    template = {"name": "tone", "id": "t", "output_type": "score", "total_avg": 65.0}
    several = {**template, "result": [config("strict"), config("loose")]}
    found = responses.metrics_of([several], "the summary")
    assert {found[name].value for name in ("strict", "loose") if name in found} <= {None}
    alone = responses.metrics_of([{**template, "result": [config("strict")]}], "the summary")
    assert alone["strict"] == Metric(0.65, 2)


def test_a_summary_as_the_contract_has_it():
    flat = [{"name": "resolved", "id": "t", "total_cells": 4, "output": {"pass": 50.0, "fail": 50.0}}]
    assert responses.metrics_of(flat, "the summary") == {"resolved": Metric(0.5, 4)}
    totals = [evaluation("resolved", "Pass/Fail", 62.5, 8)]
    assert responses.metrics_of(totals, "the summary") == {"resolved": Metric(0.625, 8)}


def test_an_evaluation_of_an_unknown_kind_is_left_out():
    assert responses.metrics_of([evaluation("x", "reasoning", None, 3)], "the summary") == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "choice"),
    [("No", "No"), ("['No']", "No"), ("[oops", "[oops"), ("[(1", "[(1"), ("{'score': 0.5, 'choice': 'No'}", "No")],
)
def test_names_of_choices(key, choice):
    summary = [evaluation("e", "choices", {}, 1, output={key: 100.0})]
    assert list(responses.metrics_of(summary, "the summary")) == [f"e={choice}"]


# Running calls again

RERUN_REPLY = {
    "message": "initiated",
    "test_execution_id": EXECUTION,
    "rerun_type": "eval_only",
    "total_processed": 2,
    "successful_reruns": [ONE],
    "failed_reruns": [{"call_execution_id": TWO, "error": "no recording"}],
    "success_count": 1,
    "failure_count": 1,
    "dispatch_error": None,
}


def test_rerun_calls():
    wire = Wire({RERUN: RERUN_REPLY})
    assert wire.run(CURRENT.rerun_calls(EXECUTION, "eval_only", [ONE.upper(), ONE, TWO])) == RERUN_REPLY
    assert wire.body() == {"rerun_type": "eval_only", "call_execution_ids": [ONE, TWO]}
    wire.run(CURRENT.rerun_calls(EXECUTION, "call_and_eval", select_all=True))
    assert wire.body() == {"rerun_type": "call_and_eval", "select_all": True}
    assert all(request.new_connection for request in wire.requests), "never repeated"


@pytest.mark.parametrize(
    ("rerun_type", "arguments"),
    [
        ("all", {"select_all": True}),
        ("eval_only", {}),
        ("eval_only", {"call_execution_ids": []}),
        ("eval_only", {"call_execution_ids": [ONE], "select_all": True}),
        ("eval_only", {"call_execution_ids": ONE}),
        ("eval_only", {"select_all": "yes"}),
    ],
)
def test_arguments_of_a_rerun(rerun_type, arguments):
    wire = Wire()
    with pytest.raises(ConfigurationError, match=r"rerun_type|call_execution_ids"):
        wire.run(CURRENT.rerun_calls(EXECUTION, rerun_type, **arguments))
    assert wire.asked == []


@pytest.mark.parametrize("answer", [lost(), error(500, "server_error", "x"), error(504, "timeout", "x"), response({})])
def test_a_rerun_whose_response_is_lost_is_never_repeated(answer):
    wire = Wire({RERUN: answer})
    with pytest.raises(StartOutcomeUnknownError, match="not known"):
        wire.run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))
    assert wire.asked == [RERUN]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lost(sent=False), TransportError),
        (error(400, "validation_error", "Text/Chat agents only support 'eval_only'"), InvalidRequestError),
        (error(404, "not_found", "Test execution not found"), NotFoundError),
        (error(429, "rate_limit", "later"), RateLimitedError),
    ],
)
def test_a_rerun_that_was_refused(answer, kind):
    with pytest.raises(kind):
        Wire({RERUN: answer}).run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))


def test_a_rerun_that_could_not_be_dispatched():
    body = {**RERUN_REPLY, "success_count": 0, "successful_reruns": [], "dispatch_error": "tcp connect error"}
    with pytest.raises(ServerError, match=r"none of the calls.*tcp connect error"):
        Wire({RERUN: body}).run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))
    with pytest.raises(ServerError, match=r"runs 1 of the calls.*tcp connect error"):
        Wire({RERUN: {**body, "success_count": 1}}).run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))


def test_a_rerun_of_nothing():
    body = {**RERUN_REPLY, "success_count": 0, "successful_reruns": []}
    with pytest.raises(InvalidRequestError, match=f"{TWO}: no recording"):
        Wire({RERUN: body}).run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))


def final(status: str = "completed", *rows: dict[str, Any], agent: str = "voice", **more: Any) -> Wire:
    """A final execution with these calls."""
    return Wire(
        {
            METRICS: metrics_response(status, calls(1, 1)),
            calls_key(): runs_response(list(rows)),
            KPIS: {"agent_type": agent, "total_calls": 2},
            RERUN: RERUN_REPLY,
            **more,
        }
    )


KPIS = f"GET /simulate/test-executions/{EXECUTION}/kpis/"


def call_id(number: int) -> str:
    return str(call_row(number)["call_execution_id"])


def test_a_rerun_is_of_the_calls_that_did_not_complete():
    wire = final("completed", call_row(1), call_row(2, "failed"), call_row(3, "Cancelled"), call_row(4, "Completed"))
    start = wire.run(CURRENT.prepare_start(rerun_of=EXECUTION.upper(), run_test_id=RUN_TEST))
    assert start.call.json == {"rerun_type": "call_and_eval", "call_execution_ids": [call_id(2), call_id(3)]}
    assert (start.call.idempotent, start.existing_run) == (False, None)
    assert start.cannot_list, "no lookup can tell whether a rerun was started"
    assert RERUN not in wire.asked
    run = wire.ask(start.call)
    assert (run.run_id, run.state, run.platform_verdict, run.ids) == (
        EXECUTION,
        RunState.QUEUED,
        None,
        {"run_test_id": RUN_TEST},
    )
    assert run.url == CURRENT.run_url(RUN_TEST, EXECUTION)
    assert run.message == f"Not run again: {TWO}: no recording."


def test_a_rerun_of_chosen_calls_and_of_all():
    wire = final("failed", call_row(1), call_row(2, "failed"))
    start = wire.run(
        CURRENT.prepare_rerun(EXECUTION, rerun_type="eval_only", call_execution_ids=[call_id(1).upper(), call_id(1)])
    )
    assert start.call.json == {"rerun_type": "eval_only", "call_execution_ids": [call_id(1)]}
    start = wire.run(CURRENT.prepare_rerun(EXECUTION, select_all=True))
    assert start.call.json == {"rerun_type": "call_and_eval", "select_all": True}
    with pytest.raises(ConfigurationError, match=f"call_execution_ids has 1 .*{ONE}"):
        wire.run(CURRENT.prepare_rerun(EXECUTION, call_execution_ids=[call_id(1), ONE]))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"rerun_type": "all"}, "rerun_type"),
        ({"select_all": "yes"}, "select_all"),
        ({"select_all": True, "call_execution_ids": [ONE]}, "^Only one"),
        ({"call_execution_ids": []}, "call_execution_ids"),
        ({"run_test_id": "nightly"}, "run_test_id"),
    ],
)
def test_arguments_of_a_prepared_rerun(arguments, word):
    wire = Wire()
    with pytest.raises(ConfigurationError, match=word):
        wire.run(CURRENT.prepare_rerun(EXECUTION, **arguments))
    assert wire.asked == []


def test_nothing_is_left_to_rerun():
    wire = final("completed", call_row(1), call_row(2))
    start = wire.run(CURRENT.prepare_rerun(EXECUTION, RUN_TEST))
    assert start.existing_run is not None
    assert start.existing_run.final
    assert wire.ask(start.call) == start.existing_run
    assert RERUN not in wire.asked


def test_an_execution_that_is_going_is_not_rerun():
    wire = final("evaluating", call_row(1, "failed"))
    with pytest.raises(InvalidRequestError, match="evaluating"):
        wire.run(CURRENT.prepare_rerun(EXECUTION))
    assert wire.asked == [METRICS]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({**RERUN_REPLY, "success_count": 0}, InvalidRequestError, "no recording"),
        ({**RERUN_REPLY, "success_count": 0, "dispatch_error": "tcp connect error"}, ServerError, "tcp connect error"),
        (error(400, "validation_error", "Text/Chat agents only support 'eval_only'"), InvalidRequestError, "Text/Chat"),
    ],
)
def test_a_rerun_that_started_nothing_says_so(answer, kind, words):
    wire = final("completed", call_row(1, "failed"), **{RERUN: answer})
    start = wire.run(CURRENT.prepare_rerun(EXECUTION))
    with pytest.raises(kind, match=words) as raised:
        wire.ask(start.call)
    assert (raised.value.not_executed, raised.value.transient) == (True, False)


@pytest.mark.parametrize(
    "answer", [lost(), error(500, "server_error", "x"), response({}), response({"success_count": "many"})]
)
def test_a_rerun_of_unknown_outcome_proves_nothing(answer):
    wire = final("completed", call_row(1, "failed"), **{RERUN: answer})
    start = wire.run(CURRENT.prepare_rerun(EXECUTION))
    with pytest.raises(ApiError) as raised:
        wire.ask(start.call)
    assert not raised.value.not_executed


def failed_run(wire: Wire) -> Run:
    return wire.run(poll(CURRENT, EXECUTION, run_test_id=RUN_TEST))


def test_what_follows_on_a_failed_run():
    wire = final("completed", call_row(1), call_row(2, "failed"))
    start = wire.run(CURRENT.prepare_rerun_of_failed(failed_run(wire)))
    assert isinstance(start, Start)
    assert start.call.json == {"rerun_type": "call_and_eval", "call_execution_ids": [call_id(2)]}
    assert start.ids == {"run_test_id": RUN_TEST}


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (final("completed", call_row(1)), "none to run again"),
        (final("completed", call_row(1, "failed"), agent="text"), "text agent"),
    ],
)
def test_why_nothing_follows_on_a_failed_run(wire, words):
    found = wire.run(CURRENT.prepare_rerun_of_failed(failed_run(wire)))
    assert words in found


def test_a_failed_run_that_is_going_again_is_waited_for():
    wire = final("running", call_row(1, "failed"))
    start = wire.run(CURRENT.prepare_rerun_of_failed(failed_run(wire)))
    assert isinstance(start, Start)
    assert start.existing_run is not None
    assert not start.existing_run.final


# Evaluations that gates name, before anything is started

DETAIL = f"GET /simulate/run-tests/{RUN_TEST}/"
LATEST_SUMMARY = f"GET /simulate/run-tests/{RUN_TEST}/eval-summary/"


def with_evaluations(names: list[str], *gates: str, **more: Any) -> Wire:
    wire = Wire({DETAIL: {"id": RUN_TEST, "evals_detail": [{"id": ONE, "name": name} for name in names]}, **more})
    for platform in (CURRENT, DOCUMENTED):
        prepare(wire, platform, run_test_id=RUN_TEST, select_all=True, evaluations=gates)
    return wire


def test_known_evaluations_cost_one_call():
    assert with_evaluations(["tone", "escalated", "a=b"], "tone", "escalated=No", "a=b").asked == [DETAIL, DETAIL]
    # In the current dialect it is read for its kind, too.
    assert with_evaluations(["tone"]).asked == [DETAIL]


@pytest.mark.parametrize("key", ["evals_detail", "simulate_eval_configs_detail", "evals"])
def test_evaluations_are_known_under_each_of_their_names(key):
    wire = Wire({DETAIL: {"id": RUN_TEST, key: [{"id": ONE, "name": "tone"}]}})
    prepare(wire, run_test_id=RUN_TEST, select_all=True, evaluations=["tone"])
    with pytest.raises(ConfigurationError, match="It has: 'tone'"):
        prepare(wire, run_test_id=RUN_TEST, select_all=True, evaluations=["speed"])


def test_an_evaluation_that_only_the_summary_knows_by_its_own_name():
    summary = [{"name": "Tone of voice", "id": TWO, "result": [{"name": "strict", "id": ONE}]}]
    with_evaluations(["tone"], "strict", **{LATEST_SUMMARY: {"status": True, "result": summary}})


def test_an_unknown_evaluation_is_refused_before_anything_is_started():
    with pytest.raises(ConfigurationError, match=r"eval_thresholds names 'tune', .*It has: 'speed', 'tone'\."):
        with_evaluations(["tone", "speed"], "tone", "tune")
    with pytest.raises(ConfigurationError, match="It has: none"):
        with_evaluations([], "tone")
    # The template of an evaluation is known to the summary only.
    summary = [{"name": "Tone of voice", "id": TWO, "result": [{"name": "tone", "id": ONE}]}]
    wire = with_evaluations(["tone"], "Tone of voice", **{LATEST_SUMMARY: {"status": True, "result": summary}})
    assert wire.asked[:2] == [DETAIL, LATEST_SUMMARY]
    with pytest.raises(ConfigurationError, match="'Tone of voice', 'tone'"):
        with_evaluations(["tone"], "tune", **{LATEST_SUMMARY: {"status": True, "result": summary}})


@pytest.mark.parametrize(
    "detail", [error(404, "not_found", "no"), error(500, "server_error", "x"), {"id": RUN_TEST}, {"evals_detail": None}]
)
def test_where_the_evaluations_are_not_told_the_report_decides(detail):
    wire = Wire({DETAIL: detail})
    prepare(wire, run_test_id=RUN_TEST, select_all=True, evaluations=["tone"])
    assert set(wire.asked) == {DETAIL}


# The other endpoints


def test_readers_give_the_payload_under_the_apis_own_names():
    wire = Wire(
        {
            page_key("/simulate/run-tests/"): listed(run_tests("a", "b")),
            f"GET /simulate/run-tests/{RUN_TEST}/": {"id": RUN_TEST, "name": "a"},
            f"GET /simulate/run-tests/{RUN_TEST}/status/": {"status": "not_found", "error": "never ran"},
            "GET /simulate/run-tests/get-id-by-name/a%20b%2Fc/": {
                "status": True,
                "result": {"run_test_id": RUN_TEST, "run_test_name": "a b/c"},
            },
            scenarios_key(): listed(named(ONE)),
            METRICS: metrics_response(),
            f"GET /sdk/api/v1/simulation/analytics/?execution_id={EXECUTION}": {"status": True, "result": {"a": 1}},
            calls_key(): runs_response([call_row(1)]),
            f"GET /simulate/test-executions/{EXECUTION}/kpis/": {"total_calls": 5},
            f"GET /simulate/test-executions/{EXECUTION}/performance-summary/": {"top_performing_scenarios": []},
            f"GET /simulate/test-executions/{EXECUTION}/?page=2&limit=5": {"status": "completed"},
            EVAL_SUMMARY: {"status": True, "result": SUMMARY},
            f"GET /simulate/test-executions/{EXECUTION}/transcripts/": {"calls": [{"status": "completed"}]},
            "GET /api/public/health": {"status": "OK", "version": "1.0.0"},
            "GET /health/": {"status": True, "result": "Server is up and running"},
        }
    )
    assert wire.run(CURRENT.list_run_tests()) == run_tests("a", "b")
    assert wire.run(CURRENT.get_run_test(RUN_TEST.upper())) == {"id": RUN_TEST, "name": "a"}
    assert wire.run(CURRENT.get_run_test_status(RUN_TEST))["status"] == "not_found"
    assert wire.run(CURRENT.get_run_test_id("a b/c")) == RUN_TEST
    assert wire.run(CURRENT.list_scenarios(RUN_TEST)) == named(ONE)
    assert wire.run(CURRENT.get_metrics(EXECUTION)) == metrics_response()["result"]
    assert wire.run(CURRENT.get_analytics(EXECUTION)) == {"a": 1}
    assert wire.run(CURRENT.list_call_results(EXECUTION)) == [call_row(1)]
    assert wire.run(CURRENT.get_kpis(EXECUTION)) == {"total_calls": 5}
    assert wire.run(CURRENT.get_performance_summary(EXECUTION)) == {"top_performing_scenarios": []}
    assert wire.run(CURRENT.get_test_execution_detail(EXECUTION, 2, 5)) == {"status": "completed"}
    assert wire.run(CURRENT.get_eval_summary(RUN_TEST, EXECUTION)) == SUMMARY
    assert wire.run(CURRENT.list_transcripts(EXECUTION)) == [{"status": "completed"}]
    assert wire.run(CURRENT.health())["version"] == "1.0.0"
    assert wire.run(DOCUMENTED.health())["result"] == "Server is up and running"
    slashless = [asked for asked in wire.asked if not asked.split("?")[0].endswith("/")]
    assert slashless == ["GET /api/public/health"]
    assert all(request.headers["Accept"] == "application/json" for request in wire.requests)


def test_an_unknown_name_of_the_servers_own_look_up():
    answer = error(400, "validation_error", "Run test not found")
    wire = Wire({"GET /simulate/run-tests/get-id-by-name/x/": answer})
    with pytest.raises(InvalidRequestError, match="Run test not found"):
        wire.run(CURRENT.get_run_test_id("x"))
    with pytest.raises(ConfigurationError, match="name"):
        wire.run(CURRENT.get_run_test_id(" "))


def test_check_proves_the_keys():
    wire = Wire(
        {
            "GET /api/public/health": {"status": "OK", "version": "1.0.0"},
            "GET /health/": {"status": True, "result": "up"},
            page_key("/simulate/run-tests/", limit=1): listed(run_tests("a")),
        }
    )
    assert "version 1.0.0" in wire.run(CURRENT.check())
    assert wire.asked == ["GET /api/public/health", page_key("/simulate/run-tests/", limit=1)]
    assert "documented" in wire.run(DOCUMENTED.check())
    wire.answers[page_key("/simulate/run-tests/", limit=1)] = error(401, "authentication_error", "Invalid API key")
    with pytest.raises(AuthenticationError):
        wire.run(DOCUMENTED.check())


def test_the_export_is_a_file(tmp_path):
    key = f"GET /simulate/export/{EXECUTION}/?type=testexecution"
    wire = Wire({key: Response(200, {"content-type": "text/csv"}, b"")})
    wire.run(CURRENT.export_csv(EXECUTION, tmp_path / "x.csv"))
    assert wire.requests[0].save_to == tmp_path / "x.csv"
    wire.answers[key] = response(b"<html>sign in</html>")
    with pytest.raises(InvalidReplyError, match="CSV"):
        wire.run(CURRENT.export_csv(EXECUTION, tmp_path / "x.csv"))


# Anything at all as a response

HUGE = 10**400
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([HUGE, -HUGE, 10**18, 0, 1e308, -0.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from([EXECUTION, "completed", "Failed", at(1), "['No']", "[[", "\ud800", "9999-99-99T99:99:99Z"]),
)
KEYS = st.sampled_from(
    [
        *("status", "result", "results", "execution_id", "id", "name", "total_pages", "next", "metrics", "calls"),
        *("total", "completed", "failed", "started_at", "start_time", "call_results", "eval_results", "eval_outputs"),
        *("call_execution_id", "duration_seconds", "total_cells", "output", "output_type", "avg_score", "pass"),
        *("total_pass_rate", "total_avg", "reason", "success_count", "failed_reruns", "dispatch_error", "details"),
        *("type", "detail", "error_reason", "calls_attempted", "scenario_name", "RUNID", "current_page"),
    ]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), inner, max_size=6)
    ),
    max_leaves=30,
)


def close_to(shape: Any) -> st.SearchStrategy[Any]:
    """Responses like a good one, with anything in some places."""
    if isinstance(shape, dict):
        whole = st.fixed_dictionaries({}, optional={key: close_to(value) for key, value in shape.items()})
        return st.one_of(whole, SCALARS)
    if isinstance(shape, list):
        return st.one_of(st.lists(st.one_of([close_to(item) for item in shape[:3]]), max_size=3), SCALARS)
    return st.one_of(st.just(shape), ANYTHING)


PARSERS: dict[str, tuple[Any, Any]] = {
    "start": (lambda r: responses.started(r, RUN_TEST, CURRENT.run_url), started_response()),
    "metrics": (
        lambda r: responses.standing(r, EXECUTION, RUN_TEST, CURRENT.run_url),
        metrics_response("x", calls(1, 1)),
    ),
    "executions": (
        lambda r: responses.executions(r, 1, RUN_TEST, CURRENT.run_url, datetime(2026, 1, 1, tzinfo=UTC)),
        listed([execution_row()], 1, 2),
    ),
    "wanted executions": (
        lambda r: responses.executions(r, 1, RUN_TEST, CURRENT.run_url, None, {EXECUTION}),
        listed([execution_row()]),
    ),
    "calls": (
        lambda r: responses.call_page(r, 1, (), CaseTexts(), with_summary=True),
        runs_response([call_row(1)], eval_results=SUMMARY),
    ),
    "call rows": (lambda r: responses.call_rows(r, 1), runs_response([call_row(1)])),
    "evaluations": (responses.eval_summary, {"status": True, "result": SUMMARY}),
    "rows": (lambda r: responses.result_rows(r, "x"), {"status": True, "result": SUMMARY}),
    "object": (lambda r: responses.result_object(r, "x"), metrics_response()),
    "whole": (lambda r: responses.whole(r, "x"), {"a": 1}),
    "transcripts": (responses.transcripts, {"calls": [{}]}),
    "page": (lambda r: responses.page_of(r.json(), 1, "x", responses.with_id("id")), listed(named(ONE))),
    "refusal": (responses.nothing_was_started, {"type": "validation_error", "details": {"a": ["b"]}, "detail": "x"}),
    "words": (
        lambda r: responses.error_words(r.json()),
        {"type": "rate_limit", "details": {"a": ["b"]}, "detail": "x"},
    ),
}


REPLIES = st.one_of(ANYTHING, *(close_to(good) for _, good in PARSERS.values()))


@settings(max_examples=250)
@given(REPLIES)
def test_any_response_is_a_value_or_an_invalid_response(value):
    content = json.dumps(value).encode()
    for name, (parse, _) in PARSERS.items():
        note(name)
        with suppress(InvalidReplyError):
            parse(Response(400 if name == "refusal" else 200, {}, content))


@given(st.one_of(ANYTHING, close_to(RERUN_REPLY)))
def test_any_response_to_a_rerun_is_an_answer(value):
    with suppress(StartOutcomeUnknownError, ServerError, InvalidRequestError):
        result = Wire({RERUN: response(value)}).run(CURRENT.rerun_calls(EXECUTION, "eval_only", select_all=True))
        assert result["success_count"]


def test_what_is_no_json_is_an_invalid_response_to_each_call():
    """What counts as none: ``test_reading.py``."""
    assert responses.nothing_was_started(response(b"<html>", 400)) is False
    taken = []
    for name in PARSERS.keys() - {"refusal"}:
        with suppress(InvalidReplyError):
            PARSERS[name][0](response(b"<html>"))
            taken.append(name)
    assert taken == []


@pytest.mark.parametrize("field", ["started_at", "completed_at", "total_calls", "failed_calls", "metrics"])
def test_what_the_state_does_not_depend_on_fails_no_poll(field):
    for value in ("yesterday", 5.5, ["x"], True, {"calls": {"total": [], "failed": "many"}}, -1, 10**400):
        answer = metrics_response("running", **{field: value})
        run = Wire({METRICS: answer}).run(poll(CURRENT, EXECUTION))
        assert (run.run_id, run.state, run.raw_state) == (EXECUTION, RunState.RUNNING, "running")


def test_counters_that_cannot_be_read_are_no_report():
    wire = Wire({METRICS: metrics_response("completed", failed_calls="many")})
    run = wire.run(poll(CURRENT, EXECUTION))
    assert run.final
    with pytest.raises(InvalidReplyError, match="failed_calls"):
        wire.run(CURRENT.get_report(run))


def test_a_run_of_more_evaluations_than_can_be_stored(monkeypatch):
    monkeypatch.setattr(limits, "METRICS", 2)
    rows = [{"name": f"e{n}", "total_cells": 1, "avg_score": 50} for n in range(3)]
    with pytest.raises(InvalidReplyError, match="more than 2 evaluations"):
        responses.metrics_of(rows, "the summary")
