"""Eggplant DAI: what is sent, what responses mean, and every place where the documents contradict themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.eggplant import EggplantHook
from airflow_provider_testruns.judging import judge
from airflow_provider_testruns.model import Counts, Kind, Outcome, Run, RunState, Verdict
from airflow_provider_testruns.platforms.eggplant.platform import POLL_ENDPOINTS, EggplantPlatform
from airflow_provider_testruns.platforms.eggplant.responses import word_of
from airflow_provider_testruns.platforms.platform import PollCache, Start
from airflow_provider_testruns.steps import Call, Response
from airflow_provider_testruns.transport.effects import Request
from tests.unit.platforms.steps import BASE_URL, InTurn, Wire, cancel, form_of, lost, poll
from tests.unit.responses import response

pytestmark = pytest.mark.unit

RUN = "cecaf3f5-c071-46b2-8918-924420e3f954"
OTHER = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
MODEL = "e0000000-0000-4000-8000-000000000001"
START = "POST /execution_service/api/v1/executions"
PROGRESS = "POST /api/run/progress"
EXECUTION = f"GET /execution_service/api/v1/executions/{RUN}"
AI_EXECUTION = f"GET /ai/executions/{RUN}"
ABORT = f"DELETE /execution_service/api/v1/executions/{RUN}"
RESULTS = f"GET /api/v2/test_results?execution_id={RUN}&limit=100&offset=0"
MODELS = {"items": [{"id": 1, "name": "BBCSport", "modeluuid": MODEL}], "total_count": 1}


def row(run_id: str = RUN, status: str = "Running", **fields: Any) -> dict[str, Any]:
    """A progress response, as its document prints it."""
    return {
        "id": run_id,
        "modelname": "BBCSport",
        "username": "tester@example.com",
        "starttime": "2018-05-31 17:00:01.366412+01",
        "endtime": None,
        "type": "model",
        "agentname": None,
        "initiator": "api",
        "status": status,
        "processid": "5637",
        **fields,
    }


def at(minute: int) -> str:
    return f"2018-05-31 17:{minute:02d}:00.000000+00"


def moment(minute: int) -> datetime:
    return datetime(2018, 5, 31, 17, minute, tzinfo=UTC)


def run_list(rows: list[dict[str, Any]], most: int = 1000) -> Callable[[Request], Response]:
    """GET /ai/runs as a server pages it: oldest first."""

    def answer(request: Request) -> Response:
        query = {key: int(value[0]) for key, value in parse_qs(urlsplit(request.url).query).items()}
        offset = query.get("offset", 0)
        page = rows[offset : offset + min(most, query["limit"])]
        return response({"items": page, "total_count": len(rows)})

    return answer


class Paged(Wire):
    """A wire that looks up the path without its query where the whole is not in the table."""

    def _answer(self, request: Request) -> Response | Exception:
        path = f"{request.method} {urlsplit(request.url.removeprefix(BASE_URL)).path}"
        if path in self.answers and "?" in request.url:
            self.answers[request.method + " " + request.url.removeprefix(BASE_URL)] = self.answers[path]
        return super()._answer(request)


def platform(**arguments: str) -> EggplantPlatform:
    return EggplantPlatform(BASE_URL, **arguments)


def prepared(wire: Wire, **arguments: Any) -> Start:
    return wire.run(platform().prepare_start(**arguments))


# --- credentials ------------------------------------------------------------------------------------------------------


def test_the_token_body_printed_as_json_with_a_trailing_comma_is_sent_as_a_form() -> None:
    settings = Settings("conn", BASE_URL, "client-canary", "secret-canary")
    auth, _ = EggplantHook.make_auth(settings)
    sent: list[Request] = []

    def execute(request: Request, fields: str) -> Any:
        sent.append(request)
        yield from ()
        return json.dumps({"access_token": "token-canary", "expires_in": 300}).encode()

    assert list(auth.renew(execute)) == []
    assert auth.headers() == {"Authorization": "Bearer token-canary"}
    (request,) = sent
    assert (request.method, request.url) == ("POST", f"{BASE_URL}/auth/realms/eggplant/protocol/openid-connect/token")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert form_of(request) == {
        "grant_type": "client_credentials",
        "client_id": "client-canary",
        "client_secret": "secret-canary",
    }


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_start_sends_what_the_document_names_and_nothing_else() -> None:
    wire = Wire({START: {"execution_id": RUN}, "GET /ai/models": MODELS})
    agent = {"agent_id": "1", "is_hosted_agent": True}
    asset = {"asset_version_id": "7", "asset_path": "/suites/shop"}
    sut = {"criteria": ["web", "fast"]}
    start = prepared(wire, model_id=MODEL, test_case_id="11", agent=agent, asset=asset, sut=sut)
    run = wire.ask(start.call)
    assert wire.body() == {
        "execution_type": "executing",
        "model_id": MODEL,
        "test_case_id": 11,
        "agent": agent,
        "asset": asset,
        "sut": sut,
    }
    assert wire.requests[-1].headers["Content-Type"] == "application/json"
    assert not start.call.idempotent
    assert (run.run_id, run.state, run.platform_verdict, run.kind) == (RUN, RunState.QUEUED, None, Kind.RUN)
    assert run.ids == {"model_id": MODEL, "model_name": "BBCSport"}
    assert start.started_with == {"model_name": "BBCSport", "type": "testcase"}
    assert start.ids == {"model_id": MODEL, "model_name": "BBCSport", "type": "testcase"}
    assert start.not_compared == ("test_case_id", "agent", "asset", "sut")
    assert start.cannot_list is None
    assert start.warnings == ()


@pytest.mark.parametrize("arguments", [{"rerun_id": 5, "model_name": "BBCSport"}, {"script": "Checkout.script"}])
def test_one_of_model_rerun_and_script_is_enough(arguments: dict[str, Any]) -> None:
    wire = Wire({START: {"execution_id": RUN}})
    wire.ask(prepared(wire, **arguments).call)
    sent = {key: value for key, value in arguments.items() if key != "model_name"}
    assert wire.body() == {"execution_type": "executing", **sent}
    assert wire.asked == ["GET /ai/runs?limit=100&offset=0", START]


@pytest.mark.parametrize("arguments", [{}, {"test_case_id": 1}, {"agent": {"agent_id": "1"}}])
def test_model_id_required_yes_or_one_of_three_the_second_holds(arguments: dict[str, Any]) -> None:
    wire = Wire()
    with pytest.raises(ConfigurationError, match="At least one of model_id, rerun_id and script"):
        prepared(wire, **arguments)
    assert wire.requests == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model_id": ""}, "model_id"),
        ({"model_id": 5}, "model_id"),
        ({"model_id": MODEL, "test_case_id": "x"}, "test_case_id"),
        ({"model_id": MODEL, "test_case_id": True}, "test_case_id"),
        ({"rerun_id": 1.5}, "rerun_id"),
        ({"script": " "}, "script"),
        ({"model_id": MODEL, "agent": "a-1"}, "agent must be a dict with agent_id"),
        ({"model_id": MODEL, "agent": {"id": "1"}}, r"agent has the key 'id'"),
        ({"model_id": MODEL, "agent": {"is_hosted_agent": "yes"}}, r"agent\['is_hosted_agent'\]"),
        ({"model_id": MODEL, "asset": {"asset_path": 1}}, r"asset\['asset_path'\]"),
        ({"model_id": MODEL, "sut": {"criteria": "web"}}, r"sut\['criteria'\]"),
        ({"model_id": MODEL, "sut": {"criteria": [1]}}, r"sut\['criteria'\]"),
        ({"model_id": MODEL, "model_name": ""}, "model_name"),
        ({"test_config_id": "c-1", "model_id": MODEL}, "test_config_id goes alone, and model_id"),
        ({"test_config_id": "c-1", "model_name": "x"}, "test_config_id goes alone, and model_name"),
        ({"test_config_id": ""}, "test_config_id"),
    ],
)
def test_arguments_that_cannot_be_right_are_named_before_any_request(arguments: dict[str, Any], named: str) -> None:
    wire = Wire()
    with pytest.raises(ConfigurationError, match=named):
        prepared(wire, **arguments)
    assert wire.requests == []


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        platform().prepare_start(modelid=MODEL)  # type: ignore[call-arg]


def test_an_id_that_native_rendering_made_a_number_of_is_sent_as_a_text() -> None:
    wire = Wire({START: {"execution_id": RUN}})
    given = {"agent_id": 1, "is_hosted_agent": True}
    wire.ask(prepared(wire, script="s", agent=given, sut={"sut_id": 7}).call)
    assert (wire.body()["agent"], wire.body()["sut"]) == ({"agent_id": "1", "is_hosted_agent": True}, {"sut_id": "7"})
    assert given["agent_id"] == 1


def test_null_inside_an_object_is_sent_as_given() -> None:
    wire = Wire({START: {"execution_id": RUN}})
    wire.ask(prepared(wire, script="s", agent={"agent_id": None}).call)
    assert wire.body()["agent"] == {"agent_id": None}


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ({"model_id": MODEL, "test_case_id": 1}, ["No agent", "No asset"]),
        ({"model_id": MODEL, "test_case_id": 1, "agent": {"agent_id": "1"}}, ["No asset"]),
        ({"model_id": MODEL, "agent": {"agent_id": " "}, "asset": {"asset_path": "/s"}}, ["No agent"]),
        ({"model_id": MODEL, "asset": {}}, ["No agent", "No asset"]),
        ({"model_id": MODEL, "agent": {"agent_id": "1"}, "asset": {"asset_path": "/s"}}, []),
        ({"script": "s"}, []),
        ({"rerun_id": 5}, []),
    ],
)
def test_e6_the_start_of_a_model_that_runs_no_snippet_is_warned_of_and_can_be_refused(
    arguments: dict[str, Any], warned: list[str]
) -> None:
    start = prepared(Wire({"GET /ai/models": MODELS}), **arguments)
    assert [warning[:8] for warning in start.warnings] == warned
    wire = Wire({"GET /ai/models": MODELS})
    if not warned:
        assert prepared(wire, require_assets=True, **arguments).warnings == ()
        return
    # A template makes a text of it.
    assert len(prepared(wire, require_assets="False", **arguments).warnings) == len(warned)
    wire.requests.clear()
    with pytest.raises(ConfigurationError, match="require_assets=True"):
        prepared(wire, require_assets="True", **arguments)
    assert wire.requests == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"model_id": MODEL, "model_name": "BBCSport"}, "a run of model BBCSport"),
        ({"model_id": MODEL}, f"a run of model {MODEL}"),
        ({"model_id": MODEL, "test_case_id": 11, "model_name": "BBCSport"}, "test case 11 of model BBCSport"),
        ({"rerun_id": 5, "model_name": "BBCSport"}, "a rerun of 5"),
        ({"script": "Checkout.script"}, "a run of script Checkout.script"),
    ],
)
def test_what_is_started_is_said(arguments: dict[str, Any], what: str) -> None:
    assert prepared(Wire(), **arguments).what == what


def test_what_cannot_be_listed_is_not_compared() -> None:
    start = prepared(Wire(), script="Checkout.script", model_name="BBCSport")
    assert start.cannot_list
    assert start.started_with == {}


@pytest.mark.parametrize("first", [None, 1, "1"])
def test_every_key_of_an_object_is_looked_at(first: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"agent has the key 'speed'"):
        prepared(Wire(), script="s", agent={"agent_id": first, "speed": 2})


def test_rerun_id_a_test_case_id_in_words_stays_an_opaque_integer() -> None:
    wire = Wire({START: {"execution_id": RUN}})
    start = prepared(wire, rerun_id="42")
    wire.ask(start.call)
    assert wire.body() == {"execution_type": "executing", "rerun_id": 42}
    assert "model_name" in str(start.cannot_list)


def start_error(answer: Any) -> Any:
    wire = Wire({START: answer})
    start = prepared(wire, script="s")
    with pytest.raises((ServerError, InvalidRequestError, PermissionDeniedError, TransportError)) as caught:
        wire.ask(start.call)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "proof"),
    [
        (response({"detail": "RabbitMQ is not available"}, 503), True),
        (response(b"<html><h1>503</h1>no RABBITMQ today</html>", 503), True),
        (response(b"<html><h1>503 Service Unavailable</h1></html>", 503), False),
        (response({}, 500), False),
        (response({}, 502), False),
        (response({}, 408), False),
        (response({"detail": "Required parameters were not sent."}, 400), True),
        (response({}, 403), True),
        (response({}, 422), True),
        (lost(sent=True), False),
        (lost(sent=False), True),
    ],
)
def test_which_failed_starts_prove_that_nothing_was_started(answer: Any, proof: bool) -> None:
    assert start_error(answer).not_executed is proof


@pytest.mark.parametrize("key", ["detail", "message", "error", "title"])
def test_the_words_of_an_error_are_told_wherever_they_are(key: str) -> None:
    assert "HTTP 400: no such suite." in str(start_error(response({key: " no such suite "}, 400)))


def test_the_words_of_a_422_are_told_by_field() -> None:
    problem = {"loc": ["body", "model_id"], "msg": "no such model", "type": "value_error"}
    assert "body.model_id: no such model" in str(start_error(response({"detail": [problem, None, 3]}, 422)))


@pytest.mark.parametrize("body", [{}, {"execution_id": ["x"]}, [], b"<html>"])
def test_a_start_without_an_execution_id_is_no_run(body: Any) -> None:
    wire = Wire({START: response(body)})
    start = prepared(wire, script="s")
    with pytest.raises(InvalidReplyError):
        wire.ask(start.call)


# --- the lookup after a lost start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405, 403, 422])
def test_without_a_list_of_models_a_lost_start_cannot_be_looked_up_but_starts(status: int) -> None:
    wire = Wire({"GET /ai/models": response({}, status), START: {"execution_id": RUN}})
    start = prepared(wire, model_id=MODEL)
    assert f"HTTP {status}" in str(start.cannot_list)
    assert "model_name" in str(start.cannot_list)
    assert wire.ask(start.call).ids == {"model_id": MODEL}


@pytest.mark.parametrize("status", [500, 429, 401])
def test_a_list_of_models_that_cannot_be_had_now_is_raised(status: int) -> None:
    with pytest.raises((ServerError, RateLimitedError, AuthenticationError)):
        prepared(Wire({"GET /ai/models": response({}, status)}), model_id=MODEL)


@pytest.mark.parametrize("body", [[], MODELS, {"items": [{"id": 1}], "total_count": 1}])
def test_a_model_that_is_not_listed_cannot_be_looked_up(body: Any) -> None:
    start = prepared(Wire({"GET /ai/models": body}), model_id=OTHER)
    assert OTHER in str(start.cannot_list)


def test_the_list_of_models_may_be_bare_paged_and_in_another_case_and_is_asked_for_once() -> None:
    models = [{"id": n, "name": f"m{n}", "modeluuid": f"uuid-{n}"} for n in range(3)]
    wire = Wire(
        {
            "GET /ai/models": {"items": models[:2], "total_count": 3},
            "GET /ai/models?limit=100&offset=2": {"items": models[2:], "total_count": 3},
        }
    )
    dai = platform()
    assert wire.run(dai.prepare_start(model_id="UUID-2")).started_with == {"model_name": "m2", "type": "model"}
    assert wire.run(dai.prepare_start(model_id="uuid-0")).started_with["model_name"] == "m0"
    assert len([request for request in wire.asked if "models" in request]) == 2
    assert prepared(Wire({"GET /ai/models": models}), model_id="uuid-1").ids["model_name"] == "m1"


def test_the_name_of_the_model_can_be_given() -> None:
    wire = Wire()
    start = prepared(wire, model_id=MODEL, model_name="BBCSport")
    assert (start.ids["model_name"], start.cannot_list) == ("BBCSport", None)
    assert not any("models" in request for request in wire.asked)


def test_script_runs_and_test_configurations_cannot_be_listed() -> None:
    assert "script" in str(prepared(Wire(), script="s", model_name="BBCSport").cannot_list)
    assert prepared(Wire(), test_config_id="c-1").cannot_list


def test_the_newest_run_is_one_cheap_call() -> None:
    wire = Wire({PROGRESS: [row()]})
    start = prepared(wire, model_id=MODEL, model_name="BBCSport")
    newest = wire.run(platform().newest_run(start))
    assert newest is not None
    assert newest.run_id == RUN
    assert form_of(wire.requests[-1]) == {"modelName": "BBCSport", "limit": "1"}
    assert wire.run(platform().newest_run(Start("x", start.call))) is None
    assert Wire({PROGRESS: []}).run(platform().newest_run(start)) is None


def test_runs_since_a_time_newest_first_with_those_that_have_not_begun() -> None:
    listed = [
        row("b", starttime=at(20)),
        row("new", starttime=None),
        row("c", starttime=at(30)),
        row("a", starttime=at(1)),
    ]
    wire = Wire({PROGRESS: listed})
    runs = wire.run(platform().find_runs(moment(20), model_name="BBCSport", model_id=MODEL, type="model"))
    assert [run.run_id for run in runs] == ["new", "c", "b"]
    assert runs[0].started_with == {"model_name": "BBCSport", "type": "model"}
    assert runs[0].ids == {"model_name": "BBCSport", "model_id": MODEL}
    assert wire.run(platform().find_runs(moment(20), model_name="BBCSport", type="testcase")) == []
    assert len(wire.run(platform().find_runs(None, model_name="BBCSport"))) == 4
    assert form_of(wire.requests[-1]) == {"modelName": "BBCSport"}


def test_a_look_up_asks_for_more_until_it_is_behind_the_mark() -> None:
    rows = [row(f"r-{n}", starttime=(moment(0) - timedelta(minutes=n)).isoformat()) for n in range(900)]

    def answer(request: Request) -> Any:
        return response(rows[: int(form_of(request).get("limit", 10_000))])

    wire = Wire({PROGRESS: answer})
    assert len(wire.run(platform().find_runs(moment(0) - timedelta(minutes=300), model_name="BBCSport"))) == 301
    assert [form_of(request)["limit"] for request in wire.requests] == ["100", "400"]


def test_a_list_that_is_not_newest_first_is_asked_for_whole() -> None:
    rows = [row(f"r-{n}", starttime=(moment(0) + timedelta(minutes=n)).isoformat()) for n in range(150)]
    wire = Wire({PROGRESS: lambda request: response(rows[: int(form_of(request).get("limit", 10_000))])})
    runs = wire.run(platform().find_runs(moment(0) + timedelta(minutes=148), model_name="BBCSport"))
    assert [run.run_id for run in runs] == ["r-149", "r-148"]
    assert "limit" not in form_of(wire.requests[-1])


def test_runs_of_all_models_come_from_the_pages_at_the_end() -> None:
    rows = [{"id": n, "modelname": "m", "teststatus": "Passed", "starttime": at(n % 60)} for n in range(60)]
    rows[59]["execution_id"] = RUN
    wire = Paged({"GET /ai/runs": run_list(rows, most=10)})
    runs = wire.run(platform().find_runs(moment(45)))
    assert [run.run_id for run in runs] == [RUN, *(str(n) for n in range(58, 44, -1))]
    assert len(wire.requests) < 6


def test_the_runs_of_a_model_without_a_name_cannot_be_found() -> None:
    with pytest.raises(ConfigurationError, match="model_name"):
        Wire().run(platform().find_runs(None, model_id=MODEL))


# --- polling ----------------------------------------------------------------------------------------------------------


def test_progress_is_form_encoded_and_may_be_sent_again() -> None:
    wire = Wire({PROGRESS: row()})
    run = wire.run(poll(platform(), RUN, model_id=MODEL))
    assert form_of(wire.requests[0]) == {"id": RUN}
    assert wire.requests[0].headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert not wire.requests[0].new_connection
    assert run == Run(
        "eggplant",
        RUN,
        RunState.RUNNING,
        "Running",
        started_at=datetime(2018, 5, 31, 16, 0, 1, 366412, tzinfo=UTC),
        url=BASE_URL,
        ids={"model_id": MODEL, "model_name": "BBCSport"},
        started_with={"model_name": "BBCSport", "type": "model"},
    )


@pytest.mark.parametrize("body", [row(), [row()], {"items": [row()]}, [row(OTHER), row()], row(RUN.upper())])
def test_progress_sample_without_braces_an_object_a_list_or_items(body: Any) -> None:
    assert Wire({PROGRESS: body}).run(platform().get_run_progress(RUN)).run_id == RUN


@pytest.mark.parametrize("body", [{}, [], None, {"items": []}, row(OTHER), [row(OTHER)], {"message": "none"}])
def test_a_progress_response_without_the_run_does_not_show_it(body: Any) -> None:
    with pytest.raises(NotFoundError, match="HTTP 200 without the run"):
        Wire({PROGRESS: response(b"null") if body is None else body}).run(platform().get_run_progress(RUN))


def test_times_with_an_offset_of_two_digits() -> None:
    finished = row(status="Passed", endtime="2018-05-31 17:00:31-0130", starttime="2018-05-31 17:00:01.366412+01")
    run = Wire({PROGRESS: finished}).run(poll(platform(), RUN))
    assert run.started_at == datetime(2018, 5, 31, 16, 0, 1, 366412, tzinfo=UTC)
    assert run.finished_at == datetime(2018, 5, 31, 18, 30, 31, tzinfo=UTC)


@pytest.mark.parametrize("processid", ["5637", 5637, None])
def test_processid_a_string_in_the_sample_is_left_as_it_is(processid: Any) -> None:
    assert Wire({PROGRESS: row(processid=processid)}).run(poll(platform(), RUN)).run_id == RUN


@pytest.mark.parametrize(
    ("raw", "ended", "state", "ending"),
    [
        *[(raw, 0, RunState.RUNNING, None) for raw in ("Running", "started", "in progress", "IN_PROGRESS")],
        *[(raw, 0, RunState.QUEUED, None) for raw in ("pending", "QUEUED")],
        # What goes on by its word does so whatever its time says.
        ("Running", 1, RunState.RUNNING, None),
        ("pending", 1, RunState.QUEUED, None),
        *[(raw, 1, RunState.FINISHED, Verdict.PASSED) for raw in ("Passed", "PASS", "success")],
        ("passed", 0, RunState.FINISHED, Verdict.PASSED),
        ("Failed", 1, RunState.FINISHED, Verdict.FAILED),
        ("Incomplete", 1, RunState.FINISHED, Verdict.ERRORED),
        ("Incomplete", 0, RunState.RUNNING, None),
        *[(raw, 1, RunState.FINISHED, Verdict.ERRORED) for raw in ("Error", "timed out", "TIMED_OUT", "Timed-Out")],
        *[(raw, 1, RunState.FINISHED, Verdict.CANCELLED) for raw in ("Cancelled", "canceled", "ABORTED", " stopped ")],
    ],
)
def test_status_words(raw: str, ended: int, state: RunState, ending: Verdict | None) -> None:
    run = Wire({PROGRESS: row(status=raw, endtime=at(5) if ended else None)}).run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict, run.known_state, run.raw_state) == (state, ending, True, raw)


@pytest.mark.parametrize("raw", ["paused", "?", "Pässed"])
def test_any_other_word_is_active_and_not_known(raw: str) -> None:
    run = Wire({PROGRESS: row(status=raw, endtime=None)}).run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict, run.known_state) == (RunState.RUNNING, None, False)


@given(st.text())
def test_every_text_is_a_word(raw: str) -> None:
    word = word_of(raw, ended=True)
    assert word.known or word.state is RunState.RUNNING


execution = {"execution_id": RUN, "model_id": MODEL, "status": "RUNNING", "start_time": "2018-05-31T16:00:01Z"}
item = {"id": 7, "execution_id": RUN, "modelname": "BBCSport", "runtype": "model", "teststatus": "Passed"}


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ({PROGRESS: row()}, [PROGRESS]),
        ({EXECUTION: execution}, [PROGRESS, EXECUTION]),
        ({PROGRESS: [], EXECUTION: execution}, [PROGRESS, EXECUTION]),
        (
            {PROGRESS: response({}, 405), EXECUTION: response({}, 405), AI_EXECUTION: row()},
            [PROGRESS, EXECUTION, AI_EXECUTION],
        ),
        (
            {EXECUTION: {"execution_id": OTHER, "status": "RUNNING"}, AI_EXECUTION: row()},
            [PROGRESS, EXECUTION, AI_EXECUTION],
        ),
        (
            {"GET /ai/runs?limit=100&offset=0": {"items": [item], "total_count": 1}},
            [PROGRESS, EXECUTION, AI_EXECUTION, "GET /ai/runs?limit=100&offset=0"],
        ),
    ],
)
def test_the_calls_that_poll_are_tried_in_turn_and_what_answered_is_remembered(
    answers: dict[str, Any], asked: list[str]
) -> None:
    wire, dai = Wire(answers), platform()
    assert wire.run(poll(dai, RUN)).run_id == RUN
    assert wire.asked == asked
    wire.run(poll(dai, RUN))
    assert wire.asked == [*asked, asked[-1]]
    assert wire.run(platform().get_execution(RUN)).run_id == RUN


def test_what_answered_once_and_does_not_any_more_is_tried_first_and_then_the_others() -> None:
    wire, dai = Wire({EXECUTION: InTurn(execution, response({}, 404)), PROGRESS: InTurn([], row())}), platform()
    wire.run(poll(dai, RUN))
    wire.run(poll(dai, RUN))
    assert wire.asked == [PROGRESS, EXECUTION, EXECUTION, PROGRESS]


def test_when_none_answers_all_four_are_named() -> None:
    answers = {
        PROGRESS: [],
        EXECUTION: response({}, 405),
        "GET /ai/runs?limit=100&offset=0": {"items": [], "total_count": 0},
    }
    with pytest.raises(NotFoundError) as caught:
        Wire(answers).run(poll(platform(), RUN))
    for part in (
        "POST /api/run/progress: HTTP 200 without the run",
        "GET /execution_service/api/v1/executions/{id}: HTTP 405",
        "GET /ai/executions/{id}: HTTP 404",
        "GET /ai/runs: HTTP 200 without the run",
        BASE_URL,
        RUN,
    ):
        assert part in str(caught.value)
    assert caught.value.status == 404


@pytest.mark.parametrize("name", POLL_ENDPOINTS)
def test_a_pinned_call_is_the_only_one(name: str) -> None:
    wire = Wire()
    with pytest.raises(NotFoundError, match="poll_endpoint"):
        wire.run(poll(platform(poll_endpoint=name), RUN))
    assert len(wire.requests) == 1


def test_only_known_calls_can_be_pinned() -> None:
    with pytest.raises(ConfigurationError, match="poll_endpoint"):
        platform(poll_endpoint="everything")


@pytest.mark.parametrize(
    ("answer", "error", "failing"),
    [
        (response({}, 500), ServerError, PROGRESS),
        (response({}, 429), RateLimitedError, PROGRESS),
        (response({}, 401), AuthenticationError, PROGRESS),
        (response({}, 403), PermissionDeniedError, PROGRESS),
        (response({}, 400), InvalidRequestError, PROGRESS),
        (lost(), TransportError, PROGRESS),
        (response({}, 403), PermissionDeniedError, EXECUTION),
        (response({}, 500), ServerError, AI_EXECUTION),
    ],
)
def test_any_other_error_of_a_step_is_raised_as_it_is(answer: Any, error: type[Exception], failing: str) -> None:
    wire = Wire({failing: answer})
    with pytest.raises(error):
        wire.run(poll(platform(), RUN))
    assert wire.asked[-1] == failing


def test_a_response_that_cannot_be_read_is_not_taken_for_a_run_that_is_not_there() -> None:
    wire, dai = Wire({PROGRESS: InTurn(row(), response(b"<html>sign in</html>"))}), platform()
    wire.run(poll(dai, RUN))
    with pytest.raises(InvalidReplyError):
        wire.run(poll(dai, RUN))
    assert wire.asked == [PROGRESS, PROGRESS]
    # Of a call that has not answered yet it may be the web app's page for unknown addresses: the next may know.
    page = response(b"<html>")
    assert Wire({PROGRESS: page, EXECUTION: execution}).run(poll(platform(), RUN)).raw_state == "RUNNING"
    with pytest.raises(InvalidReplyError, match="not JSON"):
        Wire({PROGRESS: page}).run(poll(platform(), RUN))


@pytest.mark.parametrize("fields", [{"status": None}, {"status": ["Passed"]}])
def test_fields_of_wrong_types_are_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidReplyError, match=next(iter(fields))):
        Wire({PROGRESS: row(**fields)}).run(poll(platform(), RUN))


@pytest.mark.parametrize("field", ["starttime", "endtime", "modelname", "model_id", "type", "error"])
def test_what_the_state_does_not_depend_on_fails_no_poll(field: str) -> None:
    for value in ("yesterday", 12, {}, ["x"], True, -1.5, 10**400):
        run = Wire({PROGRESS: row(status="Running", **{field: value})}).run(poll(platform(), RUN))
        assert (run.run_id, run.state, run.raw_state) == (RUN, RunState.RUNNING, "Running")
        assert run.start_unreadable is (field == "starttime")


def test_an_execution_is_searched_in_the_newest_pages_only_and_a_known_length_saves_a_call() -> None:
    rows = [{"id": n, "teststatus": "Passed", "execution_id": f"x-{n}"} for n in range(2000)]
    wire, dai = Paged({"GET /ai/runs": run_list(rows)}), platform(poll_endpoint="runs")
    assert wire.run(poll(dai, "x-1999")).platform_verdict is Verdict.PASSED
    assert wire.asked == ["GET /ai/runs?limit=100&offset=0", "GET /ai/runs?limit=100&offset=1950"]
    rows.append({"id": 2000, "teststatus": "Running", "execution_id": RUN})
    assert wire.run(poll(dai, RUN)).state is RunState.RUNNING
    assert len(wire.requests) == 3
    with pytest.raises(NotFoundError):
        wire.run(poll(dai, "x-0"))
    assert len(wire.requests) < 8
    del rows[100:]
    assert wire.run(poll(dai, "x-99")).run_id == "x-99"


def test_an_item_that_is_a_rerun_of_the_execution_is_not_taken_for_it() -> None:
    rerun = {"id": 8, "execution_id": OTHER, "rerun_of": RUN, "teststatus": "Failed"}
    with pytest.raises(NotFoundError):
        Wire({"GET /ai/runs?limit=100&offset=0": [rerun]}).run(poll(platform(), RUN))


def test_a_number_is_an_id_of_the_list_of_runs() -> None:
    wire = Wire({"GET /ai/runs/7": {**item, "endtime": at(3), "starttime": at(1)}})
    run = wire.run(poll(platform(), "7"))
    assert (run.run_id, run.platform_verdict, run.started_at) == ("7", Verdict.PASSED, moment(1))
    assert Wire({PROGRESS: row("8")}).run(poll(platform(), "8")).run_id == "8"
    wire = Wire()
    with pytest.raises(NotFoundError):
        wire.run(poll(platform(), "9"))
    # The calls for executions take UUIDs only.
    assert wire.asked == ["GET /ai/runs/9", PROGRESS, "GET /ai/runs?limit=100&offset=0"]


@pytest.mark.parametrize("run_id", ["", " ", None])
def test_an_id_must_be_given(run_id: Any) -> None:
    wire = Wire()
    with pytest.raises(ConfigurationError, match="run_id"):
        wire.run(poll(platform(), run_id))
    assert wire.requests == []


def test_ids_cannot_change_the_path() -> None:
    wire = Wire()
    with pytest.raises(NotFoundError):
        wire.run(poll(platform(poll_endpoint="executions"), "../x?y"))
    assert wire.asked == ["GET /execution_service/api/v1/executions/..%2Fx%3Fy"]


@pytest.mark.parametrize(
    ("template", "context", "url"),
    [
        ("", {}, BASE_URL),
        ("{base_url}/m/{model_id}/r/{run_id}", {"model_id": "a b"}, f"{BASE_URL}/m/a%20b/r/{RUN}"),
        ("{base_url}/m/{model_id}/r/{run_id}", {}, BASE_URL),
        ("{base_url}/r/{run_id}", {}, f"{BASE_URL}/r/{RUN}"),
    ],
)
def test_the_page_of_a_run(template: str, context: dict[str, str], url: str) -> None:
    wire = Wire({PROGRESS: row()})
    assert wire.run(poll(platform(run_url_template=template), RUN, **context)).url == url


def test_a_reason_is_told_of_runs_that_did_not_pass() -> None:
    broken = row(status="Error", error_message="no licence")
    assert Wire({PROGRESS: broken}).run(poll(platform(), RUN)).message == "no licence"
    assert Wire({PROGRESS: {**broken, "status": "Passed"}}).run(poll(platform(), RUN)).message == ""


# --- several runs in one call -----------------------------------------------------------------------------------------


def watched(run_id: str = RUN, **context: str) -> Run:
    return Run("eggplant", run_id, RunState.RUNNING, "Running", ids=context)


def test_runs_of_a_model_are_a_group_where_progress_answers() -> None:
    dai = platform()
    assert dai.group_of(watched(model_name="BBCSport")) == "BBCSport"
    assert dai.group_of(watched()) is None
    assert platform(poll_endpoint="runs").group_of(watched(model_name="BBCSport")) is None
    configured = Run("eggplant", RUN, RunState.RUNNING, "", Kind.TEST_CONFIGURATION, ids={"model_name": "x"})
    assert dai.group_of(configured) is None
    Wire({EXECUTION: execution}).run(poll(dai, RUN))
    assert dai.group_of(watched(model_name="BBCSport")) is None
    Wire({PROGRESS: row()}).run(dai.get_run_progress(RUN))
    assert dai.group_of(watched(model_name="BBCSport")) == "BBCSport"


def test_a_group_is_one_call_and_shows_what_is_wanted() -> None:
    rows = [row(f"r-{n}", starttime=(moment(0) - timedelta(minutes=n)).isoformat()) for n in range(400)]
    wire = Wire({PROGRESS: lambda request: response(rows[: int(form_of(request).get("limit", 10_000))])})
    dai = platform(run_url_template="{base_url}/{model_id}/{run_id}")
    dai.group_of(watched(model_name="BBCSport", model_id=MODEL))
    found = wire.run(dai.list_group("BBCSport", {"r-1", "r-2", "gone"}, moment(0) - timedelta(minutes=2)))
    assert [run.run_id for run in found] == ["r-1", "r-2"]
    assert found[0].url == f"{BASE_URL}/{MODEL}/r-1"
    assert len(wire.requests) == 1
    # An older one costs further calls, but once.
    oldest, cache = moment(0) - timedelta(minutes=150), PollCache()
    assert len(wire.run(dai.list_group("BBCSport", {"r-1", "r-150"}, oldest, cache))) == 2
    before = len(wire.requests)
    assert len(wire.run(dai.list_group("BBCSport", {"r-1", "r-150"}, oldest, cache))) == 2
    assert len(wire.requests) == before + 1
    # Without a time to go back to, what is not there is left out.
    assert wire.run(platform().list_group("BBCSport", {"r-300"}, None)) == []


def test_a_run_of_a_group_that_changed_is_read_anew() -> None:
    wire = Wire({PROGRESS: InTurn([row()], [row()], [row(status="Passed", endtime=at(9))])})
    dai, cache = platform(), PollCache()
    first, second, third = (wire.run(dai.list_group("BBCSport", {RUN}, None, cache)) for _ in range(3))
    assert first[0] is second[0]
    assert third[0].platform_verdict is Verdict.PASSED


def test_a_group_in_another_order_is_asked_for_whole() -> None:
    rows = [row(f"r-{n}", starttime=(moment(0) + timedelta(minutes=n)).isoformat()) for n in range(100)]
    wire = Wire({PROGRESS: lambda request: response(rows[: int(form_of(request).get("limit", 10_000))])})
    assert len(wire.run(platform().list_group("BBCSport", {"r-98", "r-99"}, moment(30)))) == 2
    assert len(wire.requests) == 2


def test_two_models_of_one_name_are_not_told_apart_by_it() -> None:
    dai = platform()
    dai.group_of(watched(model_name="BBCSport", model_id=MODEL))
    dai.group_of(watched(model_name="BBCSport", model_id=OTHER))
    found = Wire({PROGRESS: [row()]}).run(dai.list_model_progress("BBCSport"))
    assert "model_id" not in found[0].ids


# --- the runs of a model as one ---------------------------------------------------------------------------------------

TOGETHER = {"kind": "model", "model_name": "BBCSport"}


def newest(rows: list[dict[str, Any]]) -> Callable[[Request], Response]:
    """POST /api/run/progress by model, in the order of the rows."""
    return lambda request: response(rows[: int(form_of(request).get("limit", 10_000))])


def test_runs_of_a_model_are_over_when_each_of_them_is() -> None:
    rows = [
        row("r-3"),
        row("r-2", "Failed", endtime=at(9)),
        row("r-1", "Passed", endtime=at(5), starttime="2018-05-31"),
    ]
    wire = Wire({PROGRESS: rows})
    run = wire.run(poll(platform(), "BBCSport", **TOGETHER))
    assert (run.kind, run.run_id, run.state, run.platform_verdict, run.parts) == (
        Kind.MODEL,
        "BBCSport",
        RunState.RUNNING,
        None,
        (),
    )
    assert (run.raw_state, str(run.progress)) == ("1 Running, 1 Failed, 1 Passed", "2/3")
    # What the next look needs is what this one had.
    assert run.ids == TOGETHER
    assert run.finished_at is None
    rows[0] = row("r-3", "Incomplete", endtime=at(7))
    run = wire.run(platform().get_run(run))
    assert (run.state, run.platform_verdict, run.started_at, run.finished_at) == (
        RunState.FINISHED,
        None,
        datetime(2018, 5, 31, tzinfo=UTC),
        moment(9),
    )
    assert [(part.run_id, part.platform_verdict) for part in run.parts] == [
        ("r-3", Verdict.ERRORED),
        ("r-2", Verdict.FAILED),
        ("r-1", Verdict.PASSED),
    ]
    assert wire.asked == [PROGRESS] * 2
    assert [form_of(request) for request in wire.requests] == [{"modelName": "BBCSport"}] * 2
    assert platform().group_of(run) is None


def test_a_word_that_is_not_known_keeps_the_runs_of_a_model_going() -> None:
    rows = [row("r-2", "Paused"), row("r-1", "Passed", endtime=at(5))]
    run = Wire({PROGRESS: rows}).run(poll(platform(), "BBCSport", **TOGETHER))
    assert (run.final, run.known_state) == (False, False)


def test_a_cancelled_run_of_a_model_did_not_pass() -> None:
    words = ("Passed", "Failed", "Error", "Cancelled")
    rows = [row(f"r-{n}", word, starttime=at(9 - n), endtime=at(9)) for n, word in enumerate(words)]
    run = Wire({PROGRESS: rows}).run(poll(platform(), "BBCSport", **TOGETHER))
    report = Wire().run(platform().get_report(run))
    assert report.counts == Counts(passed=1, failed=1, unavailable=2)
    assert [(case.name, case.message) for case in report.failures] == [
        ("r-1", "Failed"),
        ("r-2", "Error"),
        ("r-3", "Cancelled"),
    ]
    assert [case.message for case in report.cases if case.outcome is Outcome.PASSED] == [""]
    assert judge(report).verdict is Verdict.FAILED


@pytest.mark.parametrize("answer", [[], {}, {"items": []}])
def test_of_a_model_without_runs_nothing_is_said(answer: Any) -> None:
    with pytest.raises(NotFoundError, match="shows no run of model 'BBCSport'") as caught:
        Wire({PROGRESS: answer}).run(poll(platform(), "BBCSport", **TOGETHER))
    assert caught.value.status == 404


@pytest.mark.parametrize("limit", [1, 2, 30])
def test_a_limit_is_about_the_newest_runs_whatever_the_order_of_the_list(limit: int) -> None:
    old_to_new = [row(f"r-{n}", "Passed", starttime=at(n), endtime=at(n)) for n in range(30)]
    expected = [f"r-{n}" for n in range(29, 29 - limit, -1)]
    for rows, requests in ((old_to_new[::-1], 1), (old_to_new, 2)):
        wire = Wire({PROGRESS: newest(rows)})
        dai = platform()
        for look in range(3):
            run = wire.run(poll(dai, "BBCSport", **TOGETHER, limit=str(limit)))
            assert [part.run_id for part in run.parts] == expected
            # That a server lists the oldest first is found out once.
            assert len(wire.requests) == requests + look
        assert [part.run_id for part in wire.run(dai.list_model_progress("BBCSport", limit))] == expected


@pytest.mark.parametrize("missing", [response({}, 404), response({}, 405)])
def test_without_progress_the_runs_of_a_model_are_in_the_list_of_runs(missing: Response) -> None:
    def listed(number: int, model: str | None, **fields: Any) -> dict[str, Any]:
        return {
            "id": number,
            "modelname": model,
            "runtype": "model",
            "teststatus": "Passed",
            "endtime": at(9),
            **fields,
        }

    rows = [
        listed(number, ("BBCSport", "Other", None)[number % 3], starttime=at(number // 10)) for number in range(500)
    ]
    rows[498]["execution_id"] = RUN
    wire = Paged({PROGRESS: missing, "GET /ai/runs": run_list(rows)})
    dai = platform()
    run = wire.run(poll(dai, "BBCSport", **TOGETHER, limit="40"))
    assert run.final
    assert [part.run_id for part in run.parts] == [RUN, *(str(number) for number in range(495, 495 - 39 * 3, -3))]
    assert wire.asked.count(PROGRESS) == 1
    assert 1 < len(wire.requests) <= 4
    # What is missing is not asked for again.
    run = wire.run(poll(dai, "BBCSport", **TOGETHER))
    assert len(run.parts) == 167
    assert wire.asked.count(PROGRESS) == 1


def test_without_both_calls_the_runs_of_a_model_cannot_be_seen_and_progress_is_tried_again() -> None:
    wire, dai = Wire({PROGRESS: InTurn(response({}, 404), [row(status="Passed")])}), platform()
    with pytest.raises(NotFoundError, match=r"POST /api/run/progress: HTTP 404; GET /ai/runs: HTTP 404"):
        wire.run(poll(dai, "BBCSport", **TOGETHER))
    assert wire.run(poll(dai, "BBCSport", **TOGETHER)).final


@pytest.mark.parametrize("context", [{"limit": "0"}, {"limit": "x"}, {"model_name": " "}])
def test_runs_of_a_model_need_a_name_and_a_limit_that_can_be_right(context: dict[str, str]) -> None:
    wire = Wire()
    with pytest.raises(ConfigurationError):
        wire.run(poll(platform(), "BBCSport", **{**TOGETHER, **context}))
    assert wire.asked == []


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [response(None, 204), response({}, 409), response({}, 200)])
def test_e8_an_abort_is_one_delete(answer: Response) -> None:
    wire = Wire({ABORT: answer})
    wire.run(cancel(platform(), RUN, model_name="BBCSport"))
    assert wire.asked == [ABORT]


@pytest.mark.parametrize("progress", [row(status="Passed", endtime=at(5)), [], response({}, 404)])
def test_an_execution_that_is_over_or_gone_is_no_error(progress: Any) -> None:
    Wire({ABORT: response({}, 404), PROGRESS: progress}).run(platform().abort_execution(RUN))


def test_execution_id_and_execution_status_id_are_the_same_id_and_on_404_resolved_through_progress() -> None:
    other = f"DELETE /execution_service/api/v1/executions/{OTHER}"
    wire = Wire({ABORT: response({}, 404), PROGRESS: row(OTHER), other: response(None, 204)})
    wire.run(cancel(platform(), RUN))
    assert wire.asked == [ABORT, PROGRESS, other]
    wire = Wire({ABORT: response({}, 404), PROGRESS: row(execution_status_id=OTHER), other: response(None, 204)})
    wire.run(cancel(platform(), RUN))
    assert wire.asked == [ABORT, PROGRESS, other]


def test_a_number_of_the_list_of_runs_is_not_aborted() -> None:
    number = {"id": 7, "modelname": "BBCSport", "runtype": "model", "teststatus": "Running"}
    wire = Wire({"GET /ai/runs/7": number})
    with pytest.raises(InvalidRequestError, match="by their UUID"):
        wire.run(cancel(platform(), "7"))
    Wire({"GET /ai/runs/7": {**number, "teststatus": "Passed"}}).run(cancel(platform(), "7"))
    assert wire.asked == ["GET /ai/runs/7"]


def test_a_run_that_goes_on_is_not_said_to_be_stopped() -> None:
    with pytest.raises(NotFoundError):
        Wire({ABORT: response({}, 404), PROGRESS: row()}).run(cancel(platform(), RUN))


@pytest.mark.parametrize("status", [500, 403, 401, 422])
def test_other_errors_of_an_abort_are_raised(status: int) -> None:
    with pytest.raises((ServerError, PermissionDeniedError, AuthenticationError, InvalidRequestError)):
        Wire({ABORT: response({}, status)}).run(cancel(platform(), RUN))


# --- test configurations ----------------------------------------------------------------------------------------------

TASK = "GET /ai/testconfigtasks/t-1"
CONFIGURATION = {"kind": "test_configuration", "test_config_id": "c-1"}


def test_a_test_configuration_from_start_to_report() -> None:
    tested = [
        {"id": "x", "name": "Pay", "status": "PASSED", "test_config_result_id": "cr-1", "duration": 1.5},
        {"id": "y", "name": "Return", "status": "FAILED", "model_name": "Shop", "failure_reason": "no button"},
    ]
    results = "GET /api/v2/test_results?test_config_result_id=cr-1&limit=100&offset=0"
    wire = Wire(
        {
            "POST /task_scheduler_service/api/v1/task_instances/c-1": response({"task_instance_id": "t-1"}, 201),
            TASK: InTurn({"runstatus": "RUNNING"}, {"runstatus": "FAILED", "endtime": at(4), "starttime": at(1)}),
            "GET /api/v2/test_config_results?test_config_id=c-1&limit=100&offset=0": {
                "items": [{"id": "cr-0", "task_instance_id": "t-0"}, {"id": "cr-1", "task_instance_id": "T-1"}],
                "total_count": 2,
            },
            results: {"items": tested, "total_count": 2},
        }
    )
    dai = platform()
    start = wire.run(dai.prepare_start(test_config_id="c-1"))
    run = wire.ask(start.call)
    assert wire.requests[-1].body is None
    assert not start.call.idempotent
    assert (run.run_id, run.kind) == ("t-1", Kind.TEST_CONFIGURATION)
    assert CONFIGURATION.items() <= run.ids.items()
    assert dai.group_of(run) is None
    run = wire.run(dai.get_run(run))
    assert run.state is RunState.RUNNING
    run = wire.run(dai.get_run(run))
    assert (run.platform_verdict, run.kind) == (Verdict.FAILED, Kind.TEST_CONFIGURATION)
    report = wire.run(dai.get_report(run))
    assert report.counts == Counts(passed=1, failed=1)
    assert [(case.name, case.outcome, case.message, case.suite, case.duration) for case in report.cases] == [
        ("Pay", Outcome.PASSED, "", "", 1.5),
        ("Return", Outcome.FAILED, "no button", "Shop", None),
    ]
    assert judge(report).verdict is Verdict.FAILED
    assert report.duration == 180


def test_the_result_that_a_task_names_is_taken() -> None:
    wire = Wire({TASK: {"runstatus": "Passed", "test_config_result_id": "cr-9"}})
    run = wire.run(poll(platform(), "t-1", **CONFIGURATION))
    assert run.ids["test_config_result_id"] == "cr-9"
    report = wire.run(platform().get_report(run))
    assert any(asked.startswith("GET /api/v2/test_results?test_config_result_id=cr-9") for asked in wire.asked)
    assert report.counts == Counts(passed=1)


def test_a_test_configuration_that_goes_on_cannot_be_stopped_and_that_is_said() -> None:
    wire = Wire({TASK: InTurn({"runstatus": "RUNNING"}, {"runstatus": "PASSED"})})
    with pytest.raises(InvalidRequestError, match="no documented call"):
        wire.run(cancel(platform(), "t-1", **CONFIGURATION))
    wire.run(cancel(platform(), "t-1", **CONFIGURATION))
    with pytest.raises(NotFoundError):
        Wire().run(poll(platform(), "t-1", **CONFIGURATION))


# --- reports ----------------------------------------------------------------------------------------------------------


def final(status: str, **fields: Any) -> Run:
    return Wire({PROGRESS: row(status=status, endtime=at(9), **fields)}).run(poll(platform(), RUN))


def result(status: str = "PASSED", result_id: str = "tr-1", **fields: Any) -> dict[str, Any]:
    return {"id": result_id, "execution_id": RUN, "test_case_name": "Pay by card", "status": status, **fields}


def results(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items), "total_count": len(items)}


@pytest.mark.parametrize(
    ("status", "counts", "verdict"),
    [
        ("Passed", Counts(passed=1), Verdict.PASSED),
        ("Failed", Counts(failed=1), Verdict.FAILED),
        ("Incomplete", None, Verdict.ERRORED),
        ("Timed out", None, Verdict.ERRORED),
        ("Aborted", None, Verdict.CANCELLED),
    ],
)
def test_without_results_of_single_tests_the_run_counts_as_one_case(
    status: str, counts: Counts | None, verdict: Verdict
) -> None:
    report = Wire({RESULTS: results()}).run(platform().get_report(final(status)))
    assert (report.counts, report.cases, judge(report).verdict) == (counts, (), verdict)


@pytest.mark.parametrize(
    "answer",
    [
        response({}, 404),
        response({}, 405),
        response({}, 501),
        response({}, 403),
        response({}, 422),
        response(b"<html>the web app</html>"),
        # A server that does not know the filter gives the results of others.
        results(result(execution_id=OTHER)),
        results(result(execution_id=None)),
    ],
)
def test_results_of_single_tests_that_are_not_there_are_none(answer: Any) -> None:
    report = Wire({RESULTS: answer}).run(platform().get_report(final("Failed")))
    assert (report.counts, report.cases, judge(report).verdict) == (Counts(failed=1), (), Verdict.FAILED)


def test_results_of_single_tests_are_the_cases() -> None:
    wire = Wire(
        {
            RESULTS: results(
                result(start_time="2018-05-31T16:00:00Z", end_time="2018-05-31T16:00:02.5Z", duration=9000),
                result("FAILED", "tr-2", test_case_name=None, name="Voucher"),
                result("INCOMPLETE", "tr-3", test_case_name="", model_name="Shop"),
                result("ABORTED", "tr-4", test_case_name=None),
            ),
            "GET /api/v2/test_results/tr-2/logs?limit=100&offset=0": {
                "items": [{"severity": "INFO", "message": "x"}],
                "total_count": 300,
            },
            "GET /api/v2/test_results/tr-2/logs?limit=100&offset=200": results(
                {"severity": "ERROR", "message": "first"},
                {"severity": "CRITICAL", "message": " image not found "},
                {"severity": None, "message": 5},
            ),
        }
    )
    report = wire.run(platform().get_report(final("Failed")))
    assert [(case.name, case.outcome, case.duration, case.message, case.suite) for case in report.cases] == [
        ("Pay by card", Outcome.PASSED, 2.5, "", ""),
        ("Voucher", Outcome.FAILED, None, "image not found", ""),
        ("Shop", Outcome.UNAVAILABLE, None, "", "Shop"),
        ("tr-4", Outcome.NOT_RUN, None, "", ""),
    ]
    assert report.counts == Counts(passed=1, failed=1, unavailable=1, not_run=1)
    assert judge(report).verdict is Verdict.FAILED


@pytest.mark.parametrize("answer", [response({}, 404), response({}, 500), response(b"<html>"), lost()])
def test_a_lost_log_changes_nothing_but_the_reason(answer: Any) -> None:
    wire = Wire(
        {
            RESULTS: results(result("FAILED"), result("FAILED", "tr-2")),
            "GET /api/v2/test_results/tr-1/logs?limit=100&offset=0": answer,
        }
    )
    report = wire.run(platform().get_report(final("Failed")))
    assert report.counts == Counts(failed=2)
    assert judge(report).verdict is Verdict.FAILED
    assert len([asked for asked in wire.asked if "logs" in asked]) == 1


def test_cases_of_a_cancelled_run_are_told_and_do_not_change_the_verdict() -> None:
    report = Wire({RESULTS: results(result(), result("CANCELLED", "tr-2"))}).run(
        platform().get_report(final("Cancelled"))
    )
    assert report.counts == Counts(passed=1, not_run=1)
    assert judge(report).verdict is Verdict.CANCELLED


def test_a_run_is_not_passed_when_a_test_failed() -> None:
    report = Wire({RESULTS: results(result("FAILED"))}).run(platform().get_report(final("Passed")))
    assert judge(report).verdict is Verdict.FAILED


def test_pages_are_complete() -> None:
    rows = [result(result_id=f"tr-{n}") for n in range(250)]

    def answer(request: Request) -> Response:
        query = parse_qs(urlsplit(request.url).query)
        offset = int(query["offset"][0])
        return response({"items": rows[offset : offset + 40], "total_count": len(rows)})

    report = Paged({"GET /api/v2/test_results": answer}).run(platform().get_report(final("Passed")))
    assert report.counts == Counts(passed=250)


def test_results_that_are_not_settled_are_waited_for_briefly() -> None:
    wire = Wire({RESULTS: InTurn(results(result("RUNNING")), results(result()))})
    assert len(wire.run(platform().get_report(final("Passed"))).cases) == 1
    assert wire.sleeps == [2.0]
    wire = Wire({RESULTS: results(result("RUNNING"))})
    assert wire.run(platform().get_report(final("Passed"))).counts == Counts(passed=1)
    assert wire.sleeps == [2.0, 2.0]


@pytest.mark.parametrize("answer", [response({}, 500), response({}, 401), lost(), {"items": [{"execution_id": RUN}]}])
def test_results_that_cannot_be_had_now_or_read_are_raised(answer: Any) -> None:
    with pytest.raises((ServerError, AuthenticationError, TransportError, InvalidReplyError)):
        Wire({RESULTS: answer}).run(platform().get_report(final("Passed")))


# --- the other calls --------------------------------------------------------------------------------------------------


def test_runs_newest_first_from_the_last_pages() -> None:
    rows = [{"id": n} for n in range(250)]
    wire = Paged({"GET /ai/runs": run_list(rows)})
    assert [run["id"] for run in wire.run(platform().list_runs(3))] == [249, 248, 247]
    assert [run["id"] for run in wire.run(platform().list_runs(120))] == list(range(249, 129, -1))
    assert len(wire.run(platform().list_runs(1000))) == 250
    assert len(Paged({"GET /ai/runs": run_list(rows, most=7)}).run(platform().list_runs(30))) == 30
    assert Paged({"GET /ai/runs": run_list([])}).run(platform().list_runs()) == []
    assert Wire({"GET /ai/runs?limit=100&offset=0": rows}).run(platform().list_runs(2)) == [{"id": 249}, {"id": 248}]


@pytest.mark.parametrize("limit", [0, -1, True, "5", None])
def test_a_limit_is_a_whole_number_from_one_on(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        Wire().run(platform().list_runs(limit))


def test_agents_are_listed_with_get_and_with_post_only_where_get_is_not_allowed() -> None:
    wire = Wire({"GET /ai/agents": [{"id": "1"}], "POST /ai/agents": {"created": True}})
    assert wire.run(platform().list_agents()) == [{"id": "1"}]
    assert wire.asked == ["GET /ai/agents"]
    wire = Wire({"GET /ai/agents": response({}, 405), "POST /ai/agents": {"items": [{"id": "2"}]}})
    assert wire.run(platform().list_agents()) == [{"id": "2"}]
    assert wire.requests[1].body is None
    assert wire.requests[1].new_connection
    for status in (404, 403, 500):
        wire = Wire({"GET /ai/agents": response({}, status), "POST /ai/agents": [{"id": "2"}]})
        with pytest.raises((NotFoundError, PermissionDeniedError, ServerError)):
            wire.run(platform().list_agents())
        assert wire.asked == ["GET /ai/agents"]


def test_the_calls_that_give_what_the_api_has() -> None:
    dai = platform()
    wire = Wire(
        {
            "GET /ai/models": MODELS,
            "GET /ai/runs/7": {"id": 7, "teststatus": "Passed"},
            "GET /ai/runlogs/7": ["line"],
            TASK: {"runstatus": "PASSED"},
            "GET /api/v2/test_results?status=FAILED&limit=5&offset=0": results({"id": "a"}),
            "GET /api/v2/test_results/a": {"id": "a"},
            "GET /api/v2/test_results/a/logs?limit=1000&offset=0": results({"message": "m"}),
            "GET /api/v2/test_results/a/logs?limit=2&offset=0": results({"message": "m"}),
            "GET /api/v2/test_results/a/screenshots?limit=100&offset=0": results({"id": "s"}),
            "GET /api/v2/test_config_results?test_config_id=c&limit=100&offset=0": results({"id": "cr"}),
            "GET /api/v2/test_config_results/cr": {"id": "cr"},
            "GET /api/v2/test_config_results/cr/junit": response(b"\xef\xbb\xbf<testsuites/>"),
        }
    )
    assert wire.run(dai.list_models()) == MODELS["items"]
    assert wire.run(dai.get_run_details(7)) == {"id": 7, "teststatus": "Passed"}
    assert wire.run(dai.get_run_logs("7")) == ["line"]
    assert wire.run(dai.get_test_configuration_task("t-1")) == {"runstatus": "PASSED"}
    assert wire.run(dai.list_test_results(5, status="FAILED")) == [{"id": "a"}]
    assert wire.run(dai.get_test_result("a")) == {"id": "a"}
    assert wire.run(dai.get_test_result_logs("a")) == [{"message": "m"}]
    assert wire.run(dai.get_test_result_logs("a", 2)) == [{"message": "m"}]
    assert wire.run(dai.list_screenshots("a")) == [{"id": "s"}]
    assert wire.run(dai.list_test_configuration_results(test_config_id="c")) == [{"id": "cr"}]
    assert wire.run(dai.get_test_configuration_result("cr")) == {"id": "cr"}
    assert wire.run(dai.get_junit("cr")) == "<testsuites/>"


@pytest.mark.parametrize("body", [b"", b"no xml", b"\xff\xfe<", b"<!DOCTYPE html><html/>", b" <html><body/></html>"])
def test_a_junit_file_is_xml(body: bytes) -> None:
    with pytest.raises(InvalidReplyError):
        Wire({"GET /api/v2/test_config_results/cr/junit": response(body)}).run(platform().get_junit("cr"))


def kept(wire: Wire, run: Run) -> tuple[str | None, tuple[str, ...], str | None]:
    found = wire.run(platform().list_kept(run))
    return found.config_result_id, found.test_result_ids, found.run_number


def test_what_files_can_be_made_of() -> None:
    mine = {"id": "tr-1", "execution_id": RUN}
    assert kept(Wire({RESULTS: results(mine)}), final("Failed")) == (None, ("tr-1",), None)
    # Results of others are no one's to give away.
    assert kept(Wire({RESULTS: results({**mine, "execution_id": OTHER})}), final("Failed")) == (None, (), None)
    # Without results the run has a log, where its number is known.
    runs = Paged({"GET /ai/runs": run_list([{"id": 6}, item])})
    assert kept(runs, final("Passed")) == (None, (), "7")
    assert kept(Paged({"GET /ai/runs": run_list([{"id": 6}])}), final("Passed")) == (None, (), None)
    assert kept(Wire(), final("Passed")) == (None, (), None)
    assert kept(Wire(), replace(final("Passed"), run_id="12")) == (None, (), "12")
    configured = replace(
        final("Failed"), run_id="t-1", kind=Kind.TEST_CONFIGURATION, ids={"test_config_result_id": "cr"}
    )
    tests = "GET /api/v2/test_results?test_config_result_id=cr&limit=100&offset=0"
    assert kept(Wire({tests: results({"id": "tr-1"}, {"id": "tr-2"})}), configured) == ("cr", ("tr-1", "tr-2"), None)
    assert kept(Wire(), replace(configured, ids={})) == (None, (), None)


def test_the_check_is_one_cheap_call() -> None:
    wire = Wire({"GET /ai/runs?limit=1": {"items": [{}], "total_count": 12}})
    assert "12 runs" in wire.run(platform().check())
    assert BASE_URL in wire.run(platform().check())
    with pytest.raises(InvalidReplyError):
        Wire({"GET /ai/runs?limit=1": response(b"<html>")}).run(platform().check())


# --- untrusted responses
# ----------------------------------------------------------------------------------

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([RUN, OTHER, "Passed", "Failed", "Incomplete", "running", "2018-05-31 17:00:01.366412+01"])
)
_KEYS = st.text(max_size=5) | st.sampled_from(
    [
        "id",
        "modelname",
        "starttime",
        "endtime",
        "type",
        "status",
        "processid",
        "items",
        "total_count",
        "execution_id",
        "runstatus",
        "teststatus",
        "model_id",
        "task_instance_id",
        "test_config_result_id",
        "severity",
        "message",
        "duration",
        "name",
        "modeluuid",
        "detail",
        "loc",
    ]
)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=8), max_leaves=25
)
_LIKELY = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*row(), "execution_id", "teststatus", "runstatus", "total_count"], _LEAVES)
)
_BODIES = (
    _JSON | _LIKELY | st.lists(_LIKELY, max_size=3) | st.fixed_dictionaries({"items": st.lists(_LIKELY, max_size=3)})
)

_STEPS: dict[str, Callable[[EggplantPlatform], Any]] = {
    "progress": lambda dai: dai.get_run_progress(RUN),
    "poll": lambda dai: poll(dai, RUN),
    "number": lambda dai: poll(dai, "7"),
    "configuration": lambda dai: poll(dai, "t-1", **CONFIGURATION),
    "model": lambda dai: dai.list_model_progress("m", 3),
    "together": lambda dai: poll(dai, "m", kind="model", model_name="m", limit="3"),
    "kept": lambda dai: dai.list_kept(
        Run("eggplant", RUN, RunState.FINISHED, "Failed", platform_verdict=Verdict.FAILED)
    ),
    "group": lambda dai: dai.list_group("m", {RUN, OTHER}, moment(3)),
    "find": lambda dai: dai.find_runs(moment(3), model_name="m"),
    "find all": lambda dai: dai.find_runs(moment(3)),
    "abort": lambda dai: cancel(dai, RUN),
    "runs": lambda dai: dai.list_runs(5),
    "agents": lambda dai: dai.list_agents(),
    "logs": lambda dai: dai.get_test_result_logs("a"),
    "check": lambda dai: dai.check(),
    "start": lambda dai: dai.prepare_start(model_id=MODEL),
    "report": lambda dai: dai.get_report(
        Run("eggplant", RUN, RunState.FINISHED, "Failed", platform_verdict=Verdict.FAILED)
    ),
    "configuration report": lambda dai: dai.get_report(
        Run("eggplant", "t", RunState.FINISHED, "x", Kind.TEST_CONFIGURATION, Verdict.FAILED, ids=CONFIGURATION)
    ),
}


@given(body=_BODIES, status=st.sampled_from([200, 200, 200, 404]))
def test_any_json_gives_a_value_or_an_invalid_response(body: Any, status: int) -> None:
    class Same(Wire):
        def _answer(self, request: Request) -> Response | Exception:
            assert len(self.requests) < 200, "it never ends"
            return response(body, status)

    for name, steps in _STEPS.items():
        note(name)
        with suppress(InvalidReplyError, NotFoundError):
            Same().run(steps(platform()))


@given(body=_BODIES)
def test_any_json_to_a_start_gives_a_run_or_an_invalid_response(body: Any) -> None:
    for arguments in ({"script": "s"}, {"test_config_id": "c-1"}):
        call: Call[Run] = prepared(Wire(), **arguments).call
        try:
            run = call.read(response(body))
        except InvalidReplyError:
            continue
        assert run.run_id
        assert json.dumps(run.to_dict())


def test_what_is_no_json_is_an_invalid_response_to_each_step() -> None:
    """What counts as none: ``test_reading.py``."""

    class Same(Wire):
        def _answer(self, request: Request) -> Response | Exception:
            if request.method == "DELETE":
                return response({}, 404)
            return Response(200, {"content-type": "application/json"}, b"<html>")

    taken = []
    for name in _STEPS.keys() - {"start"}:
        with suppress(InvalidReplyError):
            Same().run(_STEPS[name](platform()))
            taken.append(name)
    assert taken == []


# --- lists that are too large -----------------------------------------------------------------------------------------


def _results_page(offset: int, count: int, total: int) -> dict[str, Any]:
    rows = [result(result_id=f"tr-{offset + index}") for index in range(count)]
    return {"items": rows, "total_count": total}


def _results_key(offset: int, limit: int = 100) -> str:
    return f"GET /api/v2/test_results?execution_id={RUN}&limit={limit}&offset={offset}"


def test_results_that_are_too_many_to_be_read_are_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows of a longer list would pass for all of it."""
    monkeypatch.setattr(limits, "ROWS", 150)
    wire = Wire(
        {
            PROGRESS: row(status="Passed", endtime=at(9)),
            _results_key(0): _results_page(0, 100, 200),
            _results_key(100, 50): _results_page(100, 50, 200),
        }
    )
    run = wire.run(poll(platform(), RUN))
    with pytest.raises(InvalidReplyError, match="too large to be read: 150 rows were, and it has 200"):
        wire.run(platform().get_report(run))


def test_pages_of_one_row_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGES", 5)
    wire = Wire(
        {
            PROGRESS: row(status="Passed", endtime=at(9)),
            **{_results_key(offset): _results_page(offset, 1, 10**15) for offset in range(5)},
        }
    )
    run = wire.run(poll(platform(), RUN))
    with pytest.raises(InvalidReplyError, match="too large to be read: 5 rows were, and it has 1,000,000,000,000,000"):
        wire.run(platform().get_report(run))


def test_rows_that_are_kept_as_they_come_have_an_end_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RAW_ROWS", 100_000)
    rows = [{"id": index, "text": "x" * 1000} for index in range(100)]
    key = "GET /api/v2/test_results?limit=100&offset={}"
    wire = Wire({key.format(n * 100): {"items": rows, "total_count": 1000} for n in range(10)})
    with pytest.raises(InvalidReplyError, match="too large to be read: 100 rows were"):
        wire.run(platform().list_test_results(limit=1000))
    # What is kept of a result is little.
    wire = Wire(
        {
            PROGRESS: row(status="Passed", endtime=at(9)),
            **{_results_key(n * 100): _results_page(n * 100, 100, 1000) for n in range(10)},
        }
    )
    report = wire.run(platform().get_report(wire.run(poll(platform(), RUN))))
    assert report.counts == Counts(passed=1000)


def test_the_list_of_runs_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGES", 3)
    run = {"id": 1, "status": "PASSED", "modelname": "M"}
    wire = Paged({"GET /ai/runs": lambda request: response({"items": [run], "total_count": 10**15})})
    with pytest.raises(InvalidReplyError, match="too large to be read"):
        wire.run(platform().find_runs(None))


def test_a_model_of_more_runs_than_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARTS", 2)
    rows = [row(id=f"run-{n}", starttime=at(n)) for n in range(3)]
    context = {"kind": "model", "model_name": "M"}
    with pytest.raises(InvalidReplyError, match=r"shows 3 runs of model 'M', and 2 is the most.*limit"):
        Wire({"POST /api/run/progress": rows}).run(poll(platform(), "M", **context))
