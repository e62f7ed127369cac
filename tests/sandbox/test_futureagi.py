"""Future AGI: both dialects, the life of executions, calls and evaluations, and how strict it is."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
import requests

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.futureagi import API_KEY, SECRET_KEY
from airflow_provider_testruns.sandbox.futureagi_calls import named_id
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

NIGHTLY, FLAKY, DEAD, EMPTY, FAILING = (named_id(number) for number in range(1, 6))
UNKNOWN = "81924a8d-e584-428f-8c38-58b53cccb332"
METRICS = "/sdk/api/v1/simulation/metrics/"


def scenario(run_test: int, number: int) -> str:
    return named_id(run_test * 10_000 + number)


def start(futureagi: Any, run_test: str, **body: Any) -> dict[str, Any]:
    response = futureagi.post(f"/simulate/run-tests/{run_test}/execute/", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def metrics(futureagi: Any, execution_id: str) -> dict[str, Any]:
    response = futureagi.json(METRICS, params={"execution_id": execution_id})
    assert response["status"] is True
    return dict(response["result"])


def row(futureagi: Any, run_test: str) -> dict[str, Any]:
    """Return the newest execution as the list shows it."""
    return dict(futureagi.json(f"/simulate/run-tests/{run_test}/executions/?limit=1")["results"][0])


# What the responses look like: a type, a list of one type, the fields of an object, or alternatives.

NULL = type(None)
TEXT_OR_NULL = (str, NULL)
PAGE = {"count": int, "next": TEXT_OR_NULL, "previous": TEXT_OR_NULL, "total_pages": int, "current_page": int}
CALLS = {"completed": int, "failed": int, "pending": int, "total": int}
HEAD = {
    "execution_id": str,
    "status": str,
    "started_at": str,
    "completed_at": TEXT_OR_NULL,
    "total_calls": int,
    "completed_calls": int,
    "failed_calls": int,
}
EVALUATIONS = [
    {
        "name": str,
        "id": str,
        "output_type": str,
        "result": [{"name": str, "id": str, "total_cells": int, "output": dict}],
    }
]
SHAPES: dict[str, Any] = {
    "/simulate/run-tests/": {**PAGE, "results": [{"id": str, "name": str, "scenarios": [str]}]},
    "/simulate/run-tests/{run_test}/": {"id": str, "name": str, "evals_detail": [{"id": str, "name": str}]},
    "/simulate/run-tests/{run_test}/scenarios/": {**PAGE, "results": [{"id": str, "name": str, "row_count": int}]},
    "/simulate/run-tests/{run_test}/status/": {
        "run_test_id": str,
        "execution_id": str,
        "status": str,
        "total_scenarios": int,
        "total_calls": int,
        "completed_calls": int,
        "failed_calls": int,
        "success_rate": (int, float),
        "start_time": str,
        "end_time": TEXT_OR_NULL,
        "message": str,
    },
    "/simulate/run-tests/{run_test}/executions/": {
        **PAGE,
        "results": [
            {
                "id": str,
                "status": str,
                "start_time": str,
                "duration": int,
                "calls": int,
                "calls_attempted": int,
                "connected_calls": int,
                "success_rate": float,
                "error_reason": TEXT_OR_NULL,
            }
        ],
    },
    "/simulate/run-tests/{run_test}/eval-summary/?execution_id={id}": {"status": bool, "result": EVALUATIONS},
    "/simulate/test-executions/{id}/": {
        **PAGE,
        "status": str,
        "error_messages": [str],
        "results": [{"id": str, "status": str, "scenario": str, "ended_reason": TEXT_OR_NULL}],
    },
    "/simulate/test-executions/{id}/kpis/": {"total_calls": int, "failed_calls": int, "avg_score": float},
    "/simulate/test-executions/{id}/performance-summary/": {
        "test_run_performance_metrics": {"pass_rate": float, "latest_fail_rate": float, "total_test_runs": float},
        "top_performing_scenarios": [{"scenario_name": str, "performance_score": str, "test_count": str}],
    },
    "/simulate/test-executions/{id}/analytics/": {
        "fail_rate_over_test_runs": dict,
        "evaluation_categories_over_test_runs": dict,
        "metadata": dict,
    },
    "/simulate/test-executions/{id}/transcripts/": {
        "test_execution_id": str,
        "total_calls": int,
        "total_transcripts": int,
        "calls": [{"call_execution_id": str, "status": str, "transcripts": [{"speaker_role": str, "content": str}]}],
    },
    f"{METRICS}?execution_id={{id}}": {"status": bool, "result": {**HEAD, "metrics": {"calls": CALLS}}},
    "/sdk/api/v1/simulation/analytics/?execution_id={id}": {
        "status": bool,
        "result": {
            "execution_id": str,
            "run_test_name": str,
            "status": str,
            "eval_results": EVALUATIONS,
            "eval_averages": dict,
            "system_summary": {"total_calls": int, "completed_calls": int, "failed_calls": int, "avg_score": float},
        },
    },
    "/sdk/api/v1/simulation/runs/?execution_id={id}": {
        "status": bool,
        "result": {
            **HEAD,
            "eval_results": EVALUATIONS,
            "call_results": {
                "count": int,
                "total_pages": int,
                "current_page": int,
                "results": [
                    {
                        "call_execution_id": str,
                        "scenario_id": str,
                        "scenario_name": str,
                        "status": str,
                        "duration_seconds": (int, NULL),
                        "eval_outputs": dict,
                    }
                ],
            },
        },
    },
}


def problems(shape: Any, value: Any, where: str = "response") -> list[str]:
    """Return where a response does not look as described."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        missing = [f"{where}.{name} is missing" for name in shape if name not in value]
        return missing + [p for n, s in shape.items() if n in value for p in problems(s, value[n], f"{where}.{n}")]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [p for i, item in enumerate(value) for p in problems(shape[0], item, f"{where}[{i}]")]
    if not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        return [f"{where} is {value!r}, not {shape}"]
    return []


@pytest.mark.parametrize("run_test", [NIGHTLY, FLAKY, DEAD, EMPTY, FAILING])
def test_responses_look_as_described_at_every_moment(futureagi: Any, control: Control, run_test: str) -> None:
    execution_id = start(futureagi, run_test)["execution_id"]
    for seconds in (0, 5, 4, 2):
        control.advance(seconds)
        for path, shape in SHAPES.items():
            response = futureagi.json(path.format(run_test=run_test, id=execution_id))
            assert problems(shape, response, path) == []
    assert control.violations() == []


def test_the_life_of_a_chat_execution(futureagi: Any, control: Control) -> None:
    started = start(futureagi, NIGHTLY)
    assert started == {
        "message": "Test execution started successfully",
        "execution_id": started["execution_id"],
        "run_test_id": NIGHTLY,
        "status": "started",
        "total_scenarios": 3,
        "total_calls": 5,
        "scenario_ids": [scenario(1, n) for n in (1, 2, 3)],
    }
    execution_id = started["execution_id"]
    seen = []
    for _ in range(12):
        found = metrics(futureagi, execution_id)
        assert row(futureagi, NIGHTLY)["status"] == found["status"].title()
        seen.append(found["status"])
        control.advance(1)
    assert list(dict.fromkeys(seen)) == ["pending", "running", "evaluating", "completed"]
    assert found["metrics"]["calls"] == {"completed": 5, "failed": 0, "pending": 0, "total": 5}
    # The product leaves these as they are for chats.
    assert (found["completed_at"], found["completed_calls"]) == (None, 0)


def test_progress_while_running(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, NIGHTLY)["execution_id"]
    control.advance(4.6)
    calls = metrics(futureagi, execution_id)["metrics"]["calls"]
    assert calls == {"completed": 2, "failed": 0, "pending": 2, "total": 5}, "the fifth is ongoing"
    statuses = [c["status"] for c in futureagi.json(f"/simulate/test-executions/{execution_id}/")["results"]]
    assert statuses == ["completed", "completed", "ongoing", "pending", "pending"]


def test_a_voice_execution_has_no_calls_at_first(futureagi: Any, control: Control) -> None:
    started = start(futureagi, FLAKY)
    assert started["total_calls"] == 0
    assert metrics(futureagi, started["execution_id"])["metrics"]["calls"]["total"] == 0
    control.advance(11)
    found = metrics(futureagi, started["execution_id"])
    assert (found["total_calls"], found["completed_calls"], found["failed_calls"]) == (4, 3, 1)
    assert found["completed_at"] is not None


@pytest.mark.parametrize(
    ("run_test", "status", "calls", "attempted"),
    [
        (NIGHTLY, "completed", (5, 0, 0, 5), 5),
        (FLAKY, "completed", (3, 1, 0, 4), 4),
        (DEAD, "failed", (0, 0, 2, 2), 0),
        (EMPTY, "completed", (0, 0, 0, 0), 0),
        (FAILING, "failed", (0, 3, 0, 3), 3),
    ],
)
def test_how_executions_end(
    futureagi: Any, control: Control, run_test: str, status: str, calls: tuple[int, ...], attempted: int
) -> None:
    execution_id = start(futureagi, run_test)["execution_id"]
    control.advance(11)
    found = metrics(futureagi, execution_id)
    assert found["status"] == status
    assert tuple(found["metrics"]["calls"].values()) == calls
    listed = row(futureagi, run_test)
    assert listed["calls_attempted"] == attempted
    assert (listed["error_reason"] is not None) == (run_test == DEAD)


def test_times_are_written_in_two_ways(futureagi: Any) -> None:
    execution_id = start(futureagi, NIGHTLY)["execution_id"]
    assert re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{6}Z", metrics(futureagi, execution_id)["started_at"])
    assert re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{6}\+00:00", row(futureagi, NIGHTLY)["start_time"])


@pytest.mark.parametrize(
    ("body", "chosen", "calls"),
    [
        ({}, [1, 2, 3], 5),
        ({"select_all": True}, [1, 2, 3], 5),
        ({"scenario_ids": []}, [1, 2, 3], 5),
        ({"scenario_ids": [scenario(1, 2)], "simulator_id": None}, [2], 2),
        # The flag is ignored, and an id that is given twice runs twice.
        ({"scenario_ids": [scenario(1, 3)], "select_all": True}, [3], 1),
        ({"scenario_ids": [scenario(1, 3), scenario(1, 3)]}, [3, 3], 2),
    ],
)
def test_which_scenarios_run(futureagi: Any, body: dict[str, Any], chosen: list[int], calls: int) -> None:
    started = start(futureagi, NIGHTLY, **body)
    assert started["scenario_ids"] == [scenario(1, n) for n in chosen]
    assert started["total_calls"] == calls


def test_unknown_scenarios_run_to_nothing_and_others_run(futureagi: Any, control: Control) -> None:
    nothing = start(futureagi, NIGHTLY, scenario_ids=[UNKNOWN])
    foreign = start(futureagi, NIGHTLY, scenario_ids=[scenario(3, 1)])
    assert (nothing["total_calls"], foreign["total_calls"]) == (0, 2)
    control.advance(11)
    assert metrics(futureagi, nothing["execution_id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "chosen"),
    [
        ({"selectAll": True, "scenarioIds": [], "simulatorId": UNKNOWN}, [1, 2, 3]),
        ({"selectAll": False, "scenarioIds": []}, [1, 2, 3]),
        ({"selectAll": False, "scenarioIds": [scenario(1, 2)]}, [2]),
        ({"selectAll": True, "scenarioIds": [scenario(1, 2)]}, [1, 3]),
    ],
)
def test_the_documented_dialect(documented: Any, body: dict[str, Any], chosen: list[int]) -> None:
    started = start(documented, NIGHTLY, **body)
    assert started["status"] == "PENDING"
    assert started["scenario_ids"] == [scenario(1, n) for n in chosen]
    assert metrics(documented, started["execution_id"])["status"] == "pending"


def test_each_dialect_refuses_the_fields_of_the_other(futureagi: Any, documented: Any, control: Control) -> None:
    path = f"/simulate/run-tests/{NIGHTLY}/execute/"
    response = futureagi.post(path, json={"scenarioIds": [], "selectAll": True})
    assert response.status_code == 400
    assert response.json()["type"] == "validation_error"
    assert response.json()["details"] == {"scenarioIds": ["Unknown field."], "selectAll": ["Unknown field."]}
    assert documented.post(path, json={"scenario_ids": []}).status_code == 400
    assert len(control.violations()) == 2


def test_credentials(sandbox: SandboxServer, control: Control) -> None:
    def ask(path: str = "/simulate/run-tests/", **headers: str) -> tuple[int, str | None]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = requests.get(f"{sandbox.url}/futureagi{path}", headers=named, timeout=60)
        return response.status_code, response.json().get("code") if response.status_code != 200 else None

    bearer = f"Bearer {API_KEY}"
    assert ask(X_Api_Key=API_KEY, X_Secret_Key=SECRET_KEY) == (200, None)
    assert ask(Authorization=bearer) == (200, None)
    assert ask() == (401, "not_authenticated")
    assert ask(X_Api_Key=API_KEY) == (401, "not_authenticated")
    assert ask(X_Api_Key=API_KEY, X_Secret_Key="wrong") == (401, "authentication_failed")
    assert ask(Authorization="Bearer wrong") == (401, "authentication_failed")
    assert ask(X_Api_Key=API_KEY, X_Secret_Key=SECRET_KEY, Authorization=bearer) == (401, "authentication_failed")
    assert ask("/health/") == (200, None)
    assert ask("/health/", X_Api_Key=API_KEY, X_Secret_Key="wrong") == (401, "authentication_failed")
    assert ask("/api/public/health") == (401, "not_authenticated")
    assert ask("/api/public/health", Authorization=bearer) == (200, None)
    # Without credentials, with half of them, and with too many.
    assert len(control.violations()) == 4


def test_missing_slashes_are_redirected(futureagi: Any, control: Control) -> None:
    path = f"/simulate/run-tests/{NIGHTLY}/execute"
    response = futureagi.post(path, json={})
    assert (response.status_code, response.headers["Location"]) == (301, f"/futureagi{path}/")
    response = futureagi.get("/simulate/run-tests?limit=1")
    assert response.headers["Location"] == "/futureagi/simulate/run-tests/?limit=1"
    assert futureagi.get("/api/public/health/").status_code == 404
    assert len(control.violations()) == 3
    assert control.runs() == []


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/simulate/run-tests/?page_size=2", {}, 400, "invalid"),
        ("GET", "/simulate/run-tests/?page=0", {}, 400, "min_value"),
        ("GET", "/simulate/run-tests/?limit=all", {}, 400, "invalid"),
        ("GET", "/simulate/run-tests/?page=9", {}, 500, "server_error"),
        ("GET", f"/simulate/run-tests/{NIGHTLY}/executions/?page=9", {}, 500, "server_error"),
        ("GET", f"/simulate/run-tests/{NIGHTLY}/eval-summary/?foo=1", {}, 400, "invalid"),
        ("GET", f"{METRICS}?execution_id=no-uuid", {}, 400, "invalid"),
        ("GET", METRICS, {}, 400, "invalid"),
        ("GET", f"{METRICS}?executionId={UNKNOWN}", {}, 400, "invalid"),
        ("GET", f"/simulate/export/{UNKNOWN}/", {}, 400, "invalid"),
        ("GET", "/simulate/run-tests/", {"headers": {"Accept": "text/html"}}, 406, "not_acceptable"),
        ("GET", f"/simulate/run-tests/{NIGHTLY}/execute/", {}, 405, "method_not_allowed"),
        (
            "POST",
            f"/simulate/run-tests/{NIGHTLY}/execute/",
            {"data": "[]", "headers": {"Content-Type": "application/json"}},
            400,
            "invalid",
        ),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"foo": 1}}, 400, "invalid"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"scenario_ids": None}}, 400, "null"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"scenario_ids": "x"}}, 400, "not_a_list"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"scenario_ids": ["x"]}}, 400, "invalid"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"select_all": "yes"}}, 400, "invalid"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"json": {"simulator_id": "x"}}, 400, "invalid"),
        ("POST", f"/simulate/run-tests/{NIGHTLY}/execute/", {"data": {"a": "b"}}, 415, "unsupported_media_type"),
        (
            "POST",
            f"/simulate/run-tests/{NIGHTLY}/execute/",
            {"data": "{", "headers": {"Content-Type": "application/json"}},
            400,
            "parse_error",
        ),
    ],
)
def test_violations(
    futureagi: Any,
    control: Control,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str,
) -> None:
    response = futureagi(method, path, **options)
    assert response.status_code == status, response.text
    body = response.json()
    assert (body["status"], body["code"]) == (False, code)
    assert body["detail"] == body["message"] == body["error"] == body["result"]
    assert len(control.violations()) == 1
    assert control.runs() == []


@pytest.mark.parametrize(
    "path",
    [
        f"/simulate/run-tests/{NIGHTLY.upper()}/",
        "/simulate/run-tests/no-uuid/",
        "/simulate/no-such-path/",
        f"/simulate/run-tests/{NIGHTLY}/cancel/",
    ],
)
def test_unknown_paths_get_a_page(futureagi: Any, path: str) -> None:
    response = futureagi.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/simulate/run-tests/{UNKNOWN}/", 404),
        (f"/simulate/run-tests/{UNKNOWN}/status/", 404),
        (f"{METRICS}?execution_id={UNKNOWN}", 404),
        (f"{METRICS}?run_test_name=nobody", 404),
        (f"/simulate/test-executions/{UNKNOWN}/kpis/", 404),
        (f"/simulate/export/{UNKNOWN}/?type=testexecution", 404),
        (f"/simulate/test-executions/{UNKNOWN}/", 500),
        (f"/simulate/test-executions/{UNKNOWN}/transcripts/", 200),
        (f"/simulate/run-tests/{NIGHTLY}/eval-summary/?execution_id={UNKNOWN}", 200),
        ("/simulate/run-tests/get-id-by-name/nobody/", 400),
    ],
)
def test_what_is_missing_is_no_violation(futureagi: Any, control: Control, path: str, status: int) -> None:
    assert futureagi.get(path).status_code == status
    assert control.violations() == []


def test_names_and_lists(futureagi: Any, control: Control) -> None:
    found = futureagi.json("/simulate/run-tests/get-id-by-name/flaky-support-sim/")["result"]
    assert found == {"run_test_id": FLAKY, "run_test_name": "flaky-support-sim"}
    assert [t["id"] for t in futureagi.json("/simulate/run-tests/?search=NIGHTLY")["results"]] == [NIGHTLY]
    page = futureagi.json("/simulate/run-tests/?limit=2&page=2")
    assert (page["count"], page["total_pages"], page["current_page"]) == (6, 3, 2)
    assert page["next"].endswith("/futureagi/simulate/run-tests/?limit=2&page=3")
    assert page["previous"].endswith("/futureagi/simulate/run-tests/?limit=2")
    spaced = control.create_run_test("name with space")
    found = futureagi.json("/simulate/run-tests/get-id-by-name/name%20with%20space/")["result"]
    assert found["run_test_id"] == spaced


def test_the_list_of_executions(futureagi: Any, control: Control) -> None:
    path = f"/simulate/run-tests/{NIGHTLY}/executions/"
    never = futureagi.json(f"/simulate/run-tests/{NIGHTLY}/status/")
    assert never["status"] == "not_found"
    ids = [start(futureagi, NIGHTLY)["execution_id"] for _ in range(12)]
    first, second = futureagi.json(path), futureagi.json(f"{path}?page=2")
    assert [r["id"] for r in first["results"] + second["results"]] == ids[::-1]
    control.finish_run(ids[3])
    assert [r["id"] for r in futureagi.json(f"{path}?status=completed")["results"]] == [ids[3]]
    assert futureagi.json(f"{path}?status=Completed")["count"] == 0
    assert futureagi.json(f"{path}?limit=0")["total_pages"] == 2
    control.hide_run(ids[-1])
    assert futureagi.json(f"{path}?limit=1")["results"][0]["id"] == ids[-2]
    assert futureagi.json(f"/simulate/run-tests/{NIGHTLY}/status/")["execution_id"] == ids[-2]


def test_cancelling(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, NIGHTLY)["execution_id"]
    control.advance(5)
    path = f"/simulate/test-executions/{execution_id}/cancel/"
    assert futureagi.post(path, json={"reason": "x"}).status_code == 400
    response = futureagi.post(path, json={}).json()
    assert response == {
        "success": True,
        "message": "Cancellation signal sent to workflow",
        "test_execution_id": execution_id,
    }
    assert metrics(futureagi, execution_id)["status"] == "cancelling"
    control.advance(1)
    found = metrics(futureagi, execution_id)
    assert found["status"] == "cancelled"
    assert found["metrics"]["calls"] == {"completed": 2, "failed": 0, "pending": 0, "total": 5}
    assert control.run(execution_id)["cancelled_by"] == "futureagi.cancel_execution"


def test_a_cancel_does_not_look_whether_the_execution_is_over(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, NIGHTLY)["execution_id"]
    control.advance(11)
    assert metrics(futureagi, execution_id)["status"] == "completed"
    futureagi.post(f"/simulate/test-executions/{execution_id}/cancel/", json={})
    found = metrics(futureagi, execution_id)
    assert (found["status"], found["metrics"]["calls"]["completed"]) == ("cancelled", 5)


def test_evaluations(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, FLAKY)["execution_id"]
    path = f"/simulate/run-tests/{FLAKY}/eval-summary/?execution_id={execution_id}"
    assert [e["result"][0]["total_cells"] for e in futureagi.json(path)["result"]] == [0, 0, 0]
    assert futureagi.json(path)["result"][0]["total_pass_rate"] == 0
    control.advance(11)
    by_name = {e["name"]: e for e in futureagi.json(path)["result"]}
    assert by_name["task_completion"]["total_pass_rate"] == 66.67
    assert by_name["task_completion"]["result"][0]["output"]["fail_count"] == 1
    # One could not be scored, and is left out.
    assert by_name["politeness"]["result"][0]["total_cells"] == 2
    assert by_name["politeness"]["total_avg"] == by_name["politeness"]["result"][0]["avg_score"] == 93.0
    assert sum(by_name["handover"]["total_choices_avg"].values()) == pytest.approx(100, abs=0.1)
    analytics = futureagi.json(f"/sdk/api/v1/simulation/analytics/?execution_id={execution_id}")["result"]
    assert analytics["eval_averages"]["avg_politeness"] == 93.0
    kpis = futureagi.json(f"/simulate/test-executions/{execution_id}/kpis/")
    assert (kpis["avg_task_completion"], kpis["handover"]["choices"]) == (66.7, ["Yes", "No"])
    calls = futureagi.json(f"/sdk/api/v1/simulation/runs/?execution_id={execution_id}")["result"]["call_results"]
    errored = [o for c in calls["results"] for o in c["eval_outputs"].values() if o["status"] == "Failed"]
    assert [o["output"] for o in errored] == [None]


def test_calls(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, FLAKY)["execution_id"]
    control.advance(11)
    detail = futureagi.json(f"/simulate/test-executions/{execution_id}/")
    (failed,) = (c for c in detail["results"] if c["status"] == "failed")
    assert "hung up" in failed["ended_reason"]
    second = futureagi.json(f"/simulate/test-executions/{execution_id}/?limit=3&page=2")
    assert (len(second["results"]), second["count"]) == (1, 4)
    assert futureagi.json(f"/simulate/test-executions/{execution_id}/?limit=3&page=9")["results"] == []
    assert futureagi.get(f"/sdk/api/v1/simulation/runs/?execution_id={execution_id}&page=9").status_code == 500
    call_id = failed["id"]
    transcript = futureagi.json(f"/simulate/call-executions/{call_id}/transcripts/")
    assert transcript["total_transcripts"] == len(transcript["transcripts"]) == 2
    one = futureagi.json(f"/sdk/api/v1/simulation/runs/?call_execution_id={call_id}")["result"]
    assert (one["status"], one["execution_id"]) == ("failed", execution_id)
    assert futureagi.json(f"{METRICS}?call_execution_id={call_id}")["result"]["status"] == "failed"
    listed = futureagi.json(f"{METRICS}?run_test_name=flaky-support-sim")["result"]
    assert [r["execution_id"] for r in listed["results"]] == [execution_id]


def test_export(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, FLAKY)["execution_id"]
    control.advance(11)
    response = futureagi.get(f"/simulate/export/{execution_id}/?type=testexecution")
    assert response.headers["Content-Type"] == "text/csv"
    assert "attachment" in response.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [r["Status"] for r in rows] == ["completed", "failed", "completed", "completed"]
    assert rows[0]["task_completion"] == "Failed"
    assert futureagi.get(f"/simulate/export/{FLAKY}/?type=runtest").text == response.text


def rerun(futureagi: Any, execution_id: str, **body: Any) -> requests.Response:
    response: requests.Response = futureagi.post(f"/simulate/test-executions/{execution_id}/rerun-calls/", json=body)
    return response


def test_failed_calls_pass_on_the_rerun(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, FLAKY)["execution_id"]
    control.advance(11)
    detail = futureagi.json(f"/simulate/test-executions/{execution_id}/")
    failed = [c["id"] for c in detail["results"] if c["status"] == "failed"]
    response = rerun(futureagi, execution_id, rerun_type="call_and_eval", call_execution_ids=failed).json()
    assert (response["success_count"], response["successful_reruns"], response["dispatch_error"]) == (1, failed, None)
    control.advance(2)
    found = metrics(futureagi, execution_id)
    assert found["status"] == "running"
    assert found["metrics"]["calls"]["completed"] == 3, "the others stay as they are"
    control.advance(9)
    found = metrics(futureagi, execution_id)
    assert (found["status"], found["completed_calls"], found["failed_calls"]) == ("completed", 4, 0)


def test_rerun_of_evaluations_only(futureagi: Any, control: Control) -> None:
    execution_id = start(futureagi, NIGHTLY)["execution_id"]
    assert "'pending'" in rerun(futureagi, execution_id, rerun_type="eval_only", select_all=True).json()["detail"]
    control.advance(11)
    assert rerun(futureagi, execution_id, rerun_type="call_and_eval", select_all=True).status_code == 400
    assert rerun(futureagi, execution_id, rerun_type="eval_only").status_code == 400
    assert rerun(futureagi, execution_id, rerun_type="all", select_all=True).json()["code"] == "invalid_choice"
    unknown = rerun(futureagi, execution_id, rerun_type="eval_only", call_execution_ids=[UNKNOWN])
    assert unknown.json()["detail"] == "No call executions found that can be rerun."
    assert rerun(futureagi, execution_id, rerun_type="eval_only", select_all=True).json()["success_count"] == 5
    assert metrics(futureagi, execution_id)["status"] == "evaluating"
    control.advance(11)
    assert metrics(futureagi, execution_id)["status"] == "completed"


def test_workflow_service_down(futureagi: Any, control: Control) -> None:
    done = start(futureagi, NIGHTLY)["execution_id"]
    control.advance(11)
    control.configure(futureagi_workflow_down=True)
    response = futureagi.post(f"/simulate/run-tests/{NIGHTLY}/execute/", json={})
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    # The execution is there all the same, and stays as it is.
    control.advance(100)
    assert row(futureagi, NIGHTLY)["status"] == "Pending"
    again = rerun(futureagi, done, rerun_type="eval_only", select_all=True)
    assert again.status_code == 200
    body = again.json()
    assert (body["success_count"], body["failure_count"]) == (0, 5)
    assert body["dispatch_error"] == body["failed_reruns"][0]["error"]
