"""Eggplant DAI's releases as public clients have met them: each test names its row of what was learned from them.

The rows: E1 runs that only GET /ai/runs shows; E2 status words that are not in the table; E3 liveness and verdict; E4
test configurations; E5 tests that the platform ran again; E7 tokens; E9 reasons, screenshots and commits; E10 names for
ids.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_testruns.exceptions import ConfigurationError, InvalidReplyError, NotFoundError
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.eggplant import EggplantHook
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import Counts, Kind, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from airflow_provider_testruns.platforms.eggplant.responses import error_of
from airflow_provider_testruns.platforms.platform import Identity
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.steps import Response
from airflow_provider_testruns.transport.effects import Request
from tests.unit.platforms.steps import BASE_URL, Wire, poll, response
from tests.unit.platforms.test_eggplant import MODEL, PROGRESS, RUN, START, Paged, at, row, run_list

pytestmark = pytest.mark.unit

RUNS = "GET /ai/runs"
SUBMITTED = "Thu, 31 May 2018 17:10:00 GMT"


def platform(**arguments: str) -> EggplantPlatform:
    return EggplantPlatform(BASE_URL, **arguments)


def numbered(number: int, teststatus: str | None = "INCOMPLETE", **fields: Any) -> dict[str, Any]:
    """An item of GET /ai/runs as public clients show it: a number, and nothing of the execution."""
    return {
        "id": number,
        "modelname": "BBCSport",
        "groupid": 1,
        "runtype": "exploratory",
        "testcase": None,
        "teststatus": teststatus,
        "starttime": at(1),
        "endtime": None,
        **fields,
    }


# --- E1: only GET /ai/runs ----------------------------------------------------------------------------------------


def started(rows: list[dict[str, Any]], **arguments: Any) -> tuple[Run, EggplantPlatform, Paged]:
    """Start on a server that has only GET /ai/runs, whose list is ``rows`` and may grow afterwards."""
    dai, wire = platform(), Paged({START: {"execution_id": RUN}, RUNS: run_list(rows)})
    start = wire.run(dai.prepare_start(**({"model_id": MODEL, "model_name": "BBCSport"} | arguments)))
    return wire.ask(start.call), dai, wire


@pytest.mark.parametrize("before", [0, 3, 250])
def test_e1_the_one_new_run_of_the_model_is_adopted_and_polled_by_its_number(before: int) -> None:
    rows = [numbered(1000 + at, "PASSED") for at in range(before)]
    run, dai, wire = started(rows)
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))
    new = numbered(2000)
    rows += [numbered(1999, modelname="Other"), new]
    seen = wire.run(dai.get_run(run))
    assert (seen.run_id, seen.state, seen.ids["run_number"]) == (RUN, RunState.RUNNING, "2000")
    # Whatever comes after it is not compared any more.
    rows.append(numbered(2001))
    wire.answers["GET /ai/runs/2000"] = new | {"teststatus": "FAILED", "endtime": at(9)}
    wire.requests.clear()
    ended = wire.run(dai.get_run(seen))
    assert (ended.run_id, ended.platform_verdict, wire.asked) == (RUN, Verdict.FAILED, ["GET /ai/runs/2000"])


def test_e1_a_number_that_has_no_call_of_its_own_is_found_in_the_list() -> None:
    rows = [numbered(7)]
    run, dai, wire = started(rows)
    rows.append(numbered(8))
    seen = wire.run(dai.get_run(run))
    rows[-1] |= {"teststatus": "PASSED", "endtime": at(9)}
    ended = wire.run(dai.get_run(seen))
    assert (ended.run_id, ended.platform_verdict) == (RUN, Verdict.PASSED)


def test_e1_of_several_candidates_none_is_taken_and_all_are_named() -> None:
    rows = [numbered(7)]
    run, dai, wire = started(rows)
    rows += [numbered(8), numbered(9)]
    with pytest.raises(InvalidReplyError, match=r"2 runs could be it: 8, 9"):
        wire.run(dai.get_run(run))


#: What a server says of how many rows there are, by those of the page and all.
COUNTS: dict[str, Any] = {
    "of the page": lambda page, rows: {"items": page, "total_count": len(page)},
    "none": lambda page, rows: {"items": page},
    "a bare list": lambda page, rows: page,
    "too many": lambda page, rows: {"items": page, "total_count": len(rows) + 137},
}


def oddly_counted(rows: list[dict[str, Any]], count: str) -> Any:
    """A list in pages whose count is of little use."""

    def answer(request: Request) -> Response:
        query = parse_qs(urlsplit(request.url).query)
        offset = int(query["offset"][0])
        return response(COUNTS[count](rows[offset : offset + int(query["limit"][0])], rows))

    return answer


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("before", [99, 100, 101, 250])
def test_e1_the_new_run_is_found_whatever_the_list_says_of_its_length(before: int, count: str) -> None:
    rows = [numbered(at, "PASSED") for at in range(before)]
    dai, wire = platform(), Paged({START: {"execution_id": RUN}, RUNS: oddly_counted(rows, count)})
    run = wire.ask(wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport")).call)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            wire.run(dai.get_run(run))
    rows.append(numbered(2000))
    assert wire.run(dai.get_run(run)).ids["run_number"] == "2000"


@pytest.mark.parametrize(
    ("start", "adopted"),
    [
        ("2018-05-31 17:09:00+00", True),
        ("2018-05-31 16:59:00+00", False),
        # Of any zone.
        ("2018-05-31 10:09:00", True),
        ("2018-05-30 17:09:00", False),
        (None, True),
    ],
)
def test_e1_a_run_that_began_before_the_start_is_not_adopted(start: str | None, adopted: bool) -> None:
    dai, wire = platform(), Paged({START: response({"execution_id": RUN}, date=SUBMITTED), RUNS: run_list([])})
    run = wire.ask(wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport")).call)
    wire.answers[RUNS] = run_list([numbered(8, starttime=start)])
    with nullcontext() if adopted else pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))


def test_e1_one_run_is_never_taken_for_two_executions() -> None:
    dai, wire = platform(), Paged({RUNS: run_list([])})
    runs = []
    for execution in ("e-1", "e-2"):
        wire.answers[START] = {"execution_id": execution}
        runs.append(wire.ask(wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport")).call))
    wire.answers[RUNS] = run_list([numbered(8)])
    first = wire.run(poll(dai, "e-1", **runs[0].ids))
    for run in (runs[1], first):
        with pytest.raises(InvalidReplyError, match=r"run 8 of the list could be each of 2 executions.*: e-1, e-2"):
            wire.run(dai.get_run(run))


@pytest.mark.parametrize(
    ("arguments", "like", "unlike"),
    [
        ({}, {"runtype": "exploratory"}, {"runtype": "directed"}),
        ({"test_case_id": 3}, {"runtype": "directed"}, {"runtype": "exploratory"}),
        ({"test_case_id": 3}, {"runtype": "a word of 2027"}, {"modelname": "Other"}),
        ({"model_id": None, "script": "s"}, {"runtype": "script", "modelname": None}, {"runtype": "directed"}),
    ],
)
def test_e1_only_a_run_like_the_start_is_a_candidate(
    arguments: dict[str, Any], like: dict[str, Any], unlike: dict[str, Any]
) -> None:
    if "script" in arguments:
        arguments = arguments | {"model_name": None}
    rows: list[dict[str, Any]] = []
    run, dai, wire = started(rows, **arguments)
    rows.append(numbered(8, **unlike))
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))
    rows.append(numbered(9, **like))
    assert wire.run(dai.get_run(run)).ids["run_number"] == "9"


def test_e1_a_rerun_of_which_the_model_is_not_known_is_not_guessed() -> None:
    rows: list[dict[str, Any]] = []
    run, dai, wire = started(rows, model_id=None, model_name=None, rerun_id=4)
    rows.append(numbered(9))
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))


def test_e1_the_runs_before_a_start_and_after_a_lost_one_come_from_the_list_where_there_is_no_progress() -> None:
    rows = [numbered(7, "PASSED", starttime=at(1)), numbered(8, modelname="Other", starttime=at(2))]
    dai, wire = platform(), Paged({RUNS: run_list(rows)})
    start = wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport"))
    newest = wire.run(dai.newest_run(start))
    assert newest is not None
    assert (newest.run_id, start.cannot_list) == ("7", None)
    rows.append(numbered(9, starttime=at(3)))
    found = wire.run(dai.find_runs(newest.started_at, **start.ids))
    assert [run.run_id for run in found] == ["9", "7"]


def test_e1_a_server_without_the_list_starts_as_before() -> None:
    dai, wire = platform(), Wire({START: {"execution_id": RUN}, PROGRESS: row()})
    start = wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport"))
    run = wire.ask(start.call)
    assert "after_number" not in run.ids
    assert wire.run(dai.get_run(run)).state is RunState.RUNNING


# --- E2: words that are not in the table --------------------------------------------------------------------------


def test_e2_an_unknown_word_with_an_end_time_ends_the_run_as_errored_and_shows_the_word() -> None:
    wire = Wire({PROGRESS: row(status="Evaporated", endtime=at(5)), RUNS: response({}, 404)})
    run = wire.run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict, run.known_state) == (RunState.FINISHED, Verdict.ERRORED, False)
    report = wire.run(platform().get_report(run))
    assert judge(report).verdict is Verdict.ERRORED
    assert "'Evaporated'" in report.run.message


@pytest.mark.parametrize("raw", ["PASSED_AFTER_RERUN", "Passed after re-run", "passed after rerun"])
def test_e2_passed_after_a_rerun_is_passed(raw: str) -> None:
    run = Wire({PROGRESS: row(status=raw, endtime=at(5))}).run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict) == (RunState.FINISHED, Verdict.PASSED)


@pytest.mark.parametrize("raw", ["COMPLETED", "Finished", "done"])
@pytest.mark.parametrize(
    ("results", "verdict"), [([], Verdict.ERRORED), (["PASSED"], Verdict.PASSED), (["FAILED"], Verdict.FAILED)]
)
def test_e2_a_word_that_says_only_that_the_run_has_ended_is_judged_by_the_results(
    raw: str, results: list[str], verdict: Verdict
) -> None:
    items = [{"id": f"t-{at}", "name": "x", "status": word, "execution_id": RUN} for at, word in enumerate(results)]
    wire = Paged({PROGRESS: row(status=raw), "GET /api/v2/test_results": {"items": items, "total_count": len(items)}})
    run = wire.run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict) == (RunState.FINISHED, None)
    assert judge(wire.run(platform().get_report(run))).verdict is verdict


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        ("NOT_RUN", Outcome.NOT_RUN),
        ("Skipped", Outcome.NOT_RUN),
        ("blocked", Outcome.NOT_RUN),
        ("sideways", Outcome.UNAVAILABLE),
    ],
)
def test_e2_words_of_single_tests(raw: str, outcome: Outcome) -> None:
    item = {"id": "t-1", "name": "x", "status": raw, "execution_id": RUN}
    wire = Paged(
        {
            PROGRESS: row(status="Passed", endtime=at(5)),
            "GET /api/v2/test_results": {"items": [item], "total_count": 1},
        }
    )
    report = wire.run(platform().get_report(wire.run(poll(platform(), RUN))))
    assert [case.outcome for case in report.cases] == [outcome]
    assert (outcome is Outcome.NOT_RUN) or "'sideways'" in report.cases[0].message


# --- E3: liveness and verdict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "state", "ending"),
    [
        ({"runstatus": "STARTED", "teststatus": "FAILED", "endtime": None}, RunState.RUNNING, None),
        ({"runstatus": "STARTED", "teststatus": "PASSED"}, RunState.RUNNING, None),
        ({"runstatus": "QUEUED", "teststatus": "INCOMPLETE"}, RunState.QUEUED, None),
        ({"runstatus": "TEARING DOWN", "teststatus": "PASSED", "endtime": None}, RunState.RUNNING, None),
        ({"runstatus": "TORN DOWN", "teststatus": "PASSED", "endtime": at(5)}, RunState.FINISHED, Verdict.PASSED),
        ({"runstatus": "COMPLETED", "teststatus": "PASSED"}, RunState.FINISHED, Verdict.PASSED),
        ({"runstatus": "COMPLETED", "teststatus": "FAILED"}, RunState.FINISHED, Verdict.FAILED),
        ({"runstatus": "COMPLETED", "teststatus": "INCOMPLETE"}, RunState.FINISHED, Verdict.ERRORED),
        ({"runstatus": "COMPLETED", "teststatus": "RUNNING"}, RunState.FINISHED, None),
        ({"runstatus": "STOPPED", "teststatus": "PASSED"}, RunState.FINISHED, Verdict.PASSED),
        ({"runstatus": "CANCELLED", "teststatus": "PASSED"}, RunState.FINISHED, Verdict.CANCELLED),
        ({"runstatus": "CANCELLED", "teststatus": "FAILED"}, RunState.FINISHED, Verdict.CANCELLED),
        ({"runstatus": "ERROR", "teststatus": "PASSED"}, RunState.FINISHED, Verdict.ERRORED),
        ({"runstatus": "PASSED"}, RunState.FINISHED, Verdict.PASSED),
    ],
)
def test_e3_runstatus_says_whether_a_run_continues_and_the_other_words_how_it_ended(
    fields: dict[str, Any], state: RunState, ending: Verdict | None
) -> None:
    item = {"id": RUN, "modelname": "BBCSport", **fields}
    run = Wire({PROGRESS: item}).run(poll(platform(), RUN))
    assert (run.state, run.platform_verdict) == (state, ending)


# --- E7: tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ({"auth": "v2"}, f"{BASE_URL}/api/v2/auth"),
        ({"auth_url": "https://dai.example.com/api/v2/auth"}, "https://dai.example.com/api/v2/auth"),
    ],
)
def test_e7_a_token_of_api_v2_is_asked_for_with_json(extra: dict[str, str], url: str) -> None:
    settings = Settings("conn", BASE_URL, "client-canary", "secret-canary", extra)
    auth, _ = EggplantHook.make_auth(settings)
    sent: list[Request] = []

    def execute(request: Request, fields: str) -> Any:
        sent.append(request)
        yield from ()
        return b'{"access_token": "token-canary"}'

    assert list(auth.renew(execute)) == []
    assert auth.headers() == {"Authorization": "Bearer token-canary"}
    (request,) = sent
    assert (request.method, request.url) == ("POST", url)
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body or b"") == {"client_id": "client-canary", "client_secret": "secret-canary"}


# --- E4: test configurations ---------------------------------------------------------------------------------------

TASK = "GET /ai/testconfigtasks/t-1"
RUN_CONFIG = "POST /task_scheduler_service/api/v1/task_instances/c-1"
CONFIG_RESULTS = "GET /api/v2/test_config_results"
RESULTS = "GET /api/v2/test_results"


def paged(rows: list[dict[str, Any]], *filters: str) -> Any:
    """A list of API v2 as a server pages it, with the filters that it knows."""

    def answer(request: Request) -> Response:
        query = {key: value[0] for key, value in parse_qs(urlsplit(request.url).query).items()}
        found = [row for row in rows if all(str(row.get(name)) == query[name] for name in filters if name in query)]
        offset = int(query.get("offset", 0))
        return response({"items": found[offset : offset + int(query["limit"])], "total_count": len(found)})

    return answer


def configuration(rows: list[dict[str, Any]], **answers: Any) -> tuple[Run, EggplantPlatform, Paged]:
    """Start a test configuration on a server whose list of results is ``rows`` and may grow afterwards."""
    dai = platform()
    wire = Paged({RUN_CONFIG: response({"task_instance_id": "t-1"}, 201, date=SUBMITTED), CONFIG_RESULTS: paged(rows)})
    wire.answers |= answers
    start = wire.run(dai.prepare_start(test_config_id="c-1"))
    assert start.cannot_list is None
    return wire.ask(start.call), dai, wire


def config_result(result_id: str, status: str = "PASSED", minute: int | None = 10) -> dict[str, Any]:
    return {"id": result_id, "status": status, "start_time": None if minute is None else at(minute)}


@pytest.mark.parametrize("task", [response({}, 404), response({}, 405), response(b"<html>")])
@pytest.mark.parametrize("before", [0, 1, 150])
def test_e4_where_no_call_shows_the_task_the_one_new_result_is_the_runs(task: Any, before: int) -> None:
    rows = [config_result(f"old-{at}") for at in range(before)]
    run, dai, wire = configuration(rows, **{TASK: task})
    with pytest.raises(NotFoundError, match="no new result"):
        wire.run(dai.get_run(run))
    # The order of the list is not documented.
    rows.insert(0, config_result("new", "RUNNING"))
    seen = wire.run(dai.get_run(run))
    assert (seen.run_id, seen.state, seen.ids["test_config_result_id"]) == ("t-1", RunState.RUNNING, "new")
    rows[0]["status"] = "FAILED"
    wire.answers[f"{CONFIG_RESULTS}/new"] = rows[0]
    wire.requests.clear()
    ended = wire.run(dai.get_run(seen))
    assert (ended.run_id, ended.platform_verdict) == ("t-1", Verdict.FAILED)
    assert wire.asked == [TASK, f"{CONFIG_RESULTS}/new"]


def test_e4_of_two_new_results_the_one_that_began_with_the_start_is_taken() -> None:
    rows = [config_result("old")]
    run, dai, wire = configuration(rows)
    rows += [config_result("late", minute=30), config_result("ours", minute=10)]
    assert wire.run(dai.get_run(run)).ids["test_config_result_id"] == "ours"


def test_e4_a_result_that_is_listed_late_and_began_before_the_start_is_not_ours() -> None:
    rows = [config_result("old")]
    run, dai, wire = configuration(rows)
    rows.append(config_result("theirs", minute=1))
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))
    rows.append(config_result("ours", minute=11))
    assert wire.run(dai.get_run(run)).ids["test_config_result_id"] == "ours"


@pytest.mark.parametrize("minute", [None, 10])
def test_e4_two_new_results_that_could_both_be_it_are_named_and_none_is_taken(minute: int | None) -> None:
    rows = [config_result("old")]
    run, dai, wire = configuration(rows)
    rows += [config_result("r-1", minute=minute), config_result("r-2", minute=minute)]
    with pytest.raises(InvalidReplyError, match="r-1, r-2"):
        wire.run(dai.get_run(run))


def test_e4_results_of_other_configurations_are_not_ours_where_the_filter_is_ignored() -> None:
    rows = [config_result("old") | {"test_config_id": "c-1"}]
    run, dai, wire = configuration(rows)
    rows.append(config_result("other") | {"test_config_id": "c-2"})
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))


@pytest.mark.parametrize("count", [count for count in COUNTS if count != "too many"])
@pytest.mark.parametrize("before", [100, 250])
def test_e4_all_pages_are_read_whatever_the_list_says_of_its_length(before: int, count: str) -> None:
    rows = [config_result(f"old-{at}") for at in range(before)]
    run, dai, wire = configuration(rows, **{CONFIG_RESULTS: oddly_counted(rows, count)})
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run))
    rows.insert(120, config_result("new", "RUNNING"))
    assert wire.run(dai.get_run(run)).ids["test_config_result_id"] == "new"


def test_e4_thousands_of_results_are_remembered_in_little_room() -> None:
    rows = [config_result(f"old-{at}", minute=at % 50) for at in range(3000)]
    run, dai, wire = configuration(rows)
    assert sum(map(len, run.ids.values())) < 4000
    rows.insert(5, config_result("new", minute=55))
    assert wire.run(dai.get_run(run)).ids["test_config_result_id"] == "new"


def test_e4_a_lost_start_is_looked_up_among_the_new_results_and_not_sent_again_in_the_same_try() -> None:
    rows = [config_result("old")]
    dai, wire = platform(), Paged({CONFIG_RESULTS: paged(rows)})
    start = wire.run(dai.prepare_start(test_config_id="c-1"))
    assert not start.start_after_lookup
    assert wire.run(dai.newest_run(start)) is None
    assert wire.run(dai.find_runs(None, **start.ids)) == []
    rows.append(config_result("new", "RUNNING"))
    (found,) = wire.run(dai.find_runs(None, **start.ids))
    assert (found.run_id, found.kind) == ("new", Kind.TEST_CONFIGURATION)
    wire.answers[f"{CONFIG_RESULTS}/new"] = config_result("new", "PASSED")
    ended = wire.run(dai.get_run(found))
    assert (ended.run_id, ended.platform_verdict) == ("new", Verdict.PASSED)


@pytest.mark.parametrize("shown", ["c-1", None])
def test_e4_the_next_try_finds_a_run_again_that_was_found_by_its_result(shown: str | None) -> None:
    rows: list[dict[str, Any]] = [{"id": 7, "status": "PASSED"}]
    run, dai, wire = configuration(rows)
    rows += [{"id": 8, "status": "RUNNING"}]
    seen = wire.run(dai.get_run(run))
    rows += [{"id": 9, "status": "FAILED"}]
    rows[1] |= {"status": "PASSED", **({"test_config_id": shown} if shown else {})}
    ours = Identity({"kind": "test_configuration", "test_config_id": "c-1"})
    again = wire.run(dai.get_stored_run(seen, ours, None))
    assert (again.run_id, again.platform_verdict, again.ids["test_config_result_id"]) == ("t-1", Verdict.PASSED, "8")
    # What is stored can be written by people: only a result of this task's test configuration is taken.
    rows[1]["test_config_id"] = "c-2"
    with pytest.raises(NotFoundError):
        wire.run(dai.get_stored_run(seen, ours, None))


@pytest.mark.parametrize(
    ("word", "ending"), [("FAILED", Verdict.FAILED), ("PASSED", Verdict.PASSED), ("RUNNING", None), (None, None)]
)
@pytest.mark.parametrize("named", [True, False])
def test_e4_a_task_that_only_says_that_it_has_finished_is_judged_by_its_result(
    word: str | None, ending: Verdict | None, named: bool
) -> None:
    rows = [config_result("old")]
    run, dai, wire = configuration(rows)
    rows += [config_result("new", word)] if word else []
    wire.answers[TASK] = {"runstatus": "FINISHED", **({"test_config_result_id": "new"} if named else {})}
    seen = wire.run(dai.get_run(run))
    assert (seen.final, seen.platform_verdict) == (word != "RUNNING", ending)


def test_e4_a_server_without_results_is_waited_for_by_its_task_and_cannot_be_looked_up() -> None:
    dai, wire = (
        platform(),
        Wire({RUN_CONFIG: response({"task_instance_id": "t-1"}, 201), TASK: {"runstatus": "RUNNING"}}),
    )
    start = wire.run(dai.prepare_start(test_config_id="c-1"))
    assert start.cannot_list
    run = wire.ask(start.call)
    assert wire.run(dai.get_run(run)).state is RunState.RUNNING


@pytest.mark.parametrize("wanted", ["cr-1", "7"])
def test_e4_children_carry_the_results_id_as_a_number_too(wanted: str) -> None:
    shown: Any = int(wanted) if wanted.isdecimal() else wanted.upper()
    tested = [{"id": 5, "name": "Pay", "status": "FAILED", "error": "no", "test_config_result_id": shown}]
    dai, wire = platform(), Paged({RESULTS: paged(tested), TASK: {"runstatus": "FAILED"}})
    context = {"kind": "test_configuration", "test_config_id": "c-1", "test_config_result_id": wanted}
    report = wire.run(dai.get_report(wire.run(poll(dai, "t-1", **context))))
    assert [(case.name, case.outcome) for case in report.cases] == [("Pay", Outcome.FAILED)]


@pytest.mark.parametrize("filtered", [True, False])
def test_e4_children_of_older_servers_come_from_the_list_of_runs_unless_it_lists_everything(filtered: bool) -> None:
    rows = [
        numbered(8, "FAILED", testcase="Return", task_instance_id=None) | {"of": "t-1"},
        numbered(9, "PASSED", testcase="Pay") | {"of": "t-2"},
    ]

    def runs(request: Request) -> Response:
        query = {key: value[0] for key, value in parse_qs(urlsplit(request.url).query).items()}
        found = [row for row in rows if not filtered or query.get("task_instance_id") in (None, row["of"])]
        return response({"items": found[: int(query["limit"])], "total_count": len(found)})

    dai, wire = platform(), Paged({RUNS: runs, TASK: {"runstatus": "FAILED"}})
    run = wire.run(poll(dai, "t-1", kind="test_configuration", test_config_id="c-1"))
    report = wire.run(dai.get_report(run))
    assert [case.name for case in report.cases] == (["Return"] if filtered else [])
    assert judge(report).verdict is Verdict.FAILED


# --- E5: passed after a re-run ---------------------------------------------------------------------------------------


def tried(*tries: tuple[str, str, int | None], status: str = "PASSED") -> RunReport:
    """The report of a configuration whose tests were tried so: name, status, minute of the start."""
    tested = [
        {
            "id": f"r-{n}",
            "name": name,
            "model_name": "Shop",
            "status": word,
            "error": "no" if word == "FAILED" else None,
        }
        | {"start_time": None if minute is None else at(minute)}
        for n, (name, word, minute) in enumerate(tries)
    ]
    dai, wire = platform(), Paged({RESULTS: paged(tested), TASK: {"runstatus": status}})
    context = {"kind": "test_configuration", "test_config_id": "c-1", "test_config_result_id": "cr-1"}
    report: RunReport = wire.run(dai.get_report(wire.run(poll(dai, "t-1", **context))))
    return report


@pytest.mark.parametrize("minutes", [(1, 2), (None, None), (5, 5)])
@pytest.mark.parametrize("newest_first", [False, True])
def test_e5_what_passed_after_a_rerun_has_passed_with_a_note(minutes: Any, newest_first: bool) -> None:
    tries = [("Pay", "FAILED", minutes[0]), ("Pay", "PASSED", minutes[1])]
    report = tried(*(tries[::-1] if newest_first else tries), ("Return", "PASSED", 3))
    assert report.counts == Counts(passed=2)
    judgement = judge(report)
    assert judgement.verdict is Verdict.PASSED
    assert judgement.notes == ("Passed after a re-run: Shop/Pay (after 2 tries).",)
    strict = judge(report, Gates(fail_on_rerun=True))
    assert (strict.verdict, "Shop/Pay" in strict.reasons[0]) == (Verdict.FAILED, True)
    assert judge(report, Gates(fail_on_rerun=True, allowed_failures=("Pay",))).verdict is Verdict.PASSED


def test_e5_the_last_try_counts_and_a_failed_configuration_is_not_helped_by_a_try_that_passed() -> None:
    assert tried(("Pay", "PASSED", 1), ("Pay", "FAILED", 2)).counts == Counts(failed=1)
    assert tried(("Pay", "FAILED", 1), ("Pay", "PASSED", 2), status="FAILED").counts == Counts(passed=1, failed=1)


# --- E9: results, reasons, commits -----------------------------------------------------------------------------------


def test_e9_the_result_of_a_numbered_run_is_asked_for_by_its_number() -> None:
    result = {"id": 2000, "name": "Pay", "status": "FAILED", "test_case_name": "tc"}
    lines = [
        {"message": "Using Git commit SHA: '" + "a1" * 20 + "'", "severity": "INFORMATIONAL"},
        {"message": "Image 'cart' not found", "severity": "INFORMATIONAL", "message_type": "imagefound"},
        {"message": "Test ended", "severity": "INFORMATIONAL"},
    ]
    rows: list[dict[str, Any]] = []
    run, dai, wire = started(rows)
    rows.append(numbered(2000, "FAILED", endtime=at(9)))
    wire.answers[f"{RESULTS}/2000"] = result
    wire.answers[f"{RESULTS}/2000/logs"] = {"items": lines, "total_count": 3}
    report = wire.run(dai.get_report(wire.run(dai.get_run(run))))
    assert [(case.name, case.message) for case in report.cases] == [("tc", "Image 'cart' not found")]
    assert report.commit == "a1" * 20
    assert not report.run.ids.keys() & {"after_number", "run_type"}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([("INFO", None, "a"), ("ERROR", None, "b"), ("INFO", None, "not found")], "b"),
        ([("INFO", None, "a"), ("INFO", "ScriptException", "b"), ("INFO", None, "c")], "b"),
        ([("INFO", None, "Unable to log in"), ("INFO", None, "c")], "Unable to log in"),
        ([("INFO", None, "a"), ("INFO", None, "c"), ("INFO", None, "")], "c"),
        ([(None, 5, None)], ""),
        ([], ""),
    ],
)
def test_e9_the_reason_is_the_last_line_that_says_best_why(lines: list[tuple[Any, Any, Any]], reason: str) -> None:
    log = [{"severity": severity, "message_type": kind, "message": message} for severity, kind, message in lines]
    assert error_of([Fields(line, "line") for line in log]) == reason


# --- what a response shows beside the vocabulary -------------------------------------------------------------------


def test_the_raw_form_of_a_run_has_what_the_document_names_and_is_bounded_clean_and_never_stored() -> None:
    run = Wire(
        {
            PROGRESS: row(
                long="x" * 100_000,
                api_token="canary",
                headers={"x": 1, "X-Api-Key": "canary"},
                list=[{"id": 2, "db_pwd": "canary"}],
                odd="a\x00\x1b[31mb",
                many=[0] * 9999,
            )
        }
    ).run(poll(platform(), RUN))
    assert run.raw["username"] == "tester@example.com"
    assert (run.raw["initiator"], run.raw["processid"], run.raw["agentname"]) == ("api", "5637", None)
    assert len(repr(run.raw)) < 10_000
    assert "api_token" not in run.raw
    assert (run.raw["headers"], run.raw["list"]) == ({"x": 1}, [{"id": 2}])
    assert run.to_dict().keys().isdisjoint({"source", "raw"})
    assert (Run.from_dict(run.to_dict()), Run.from_dict(run.to_dict()).raw) == (run, {})


# --- E10: names for ids ----------------------------------------------------------------------------------------------

MODEL_ROWS = [
    {"id": 4, "name": "BBCSport", "modeluuid": MODEL},
    {"id": 5, "name": "Twice", "modeluuid": "uuid-5"},
    {"id": 6, "name": "Twice", "modeluuid": "uuid-6"},
]
CASES = [{"id": 12, "testcaseName": "Pay"}, {"id": 13, "testcaseName": "Both"}, {"id": 14, "testcaseName": "Both"}]
NAMED = {
    "GET /ai/models": MODEL_ROWS,
    "GET /ai/models/4/testcases": CASES,
    "GET /ai/agents": [{"id": 9, "name": "Agent A"}, {"id": 10, "name": "Agent B"}, {"id": 11, "name": "Agent B"}],
    "GET /test_config_service/api/v1/test_configurations": {
        "items": [{"id": "c-1", "name": "Nightly"}, {"id": "c-2", "name": "Other"}, {"id": "c-3", "name": "Other"}],
        "total_count": 3,
    },
}


def test_e10_a_start_by_names() -> None:
    wire = Wire(NAMED | {START: {"execution_id": RUN}})
    arguments = {"model_name": "BBCSport", "test_case_name": "Pay", "agent_name": "Agent A"}
    start = wire.run(
        platform().prepare_start(**arguments, agent={"is_hosted_agent": True}, asset={"asset_path": "/suites/shop"})
    )
    wire.ask(start.call)
    assert wire.body() == {
        "execution_type": "executing",
        "model_id": MODEL,
        "test_case_id": 12,
        "agent": {"agent_id": "9", "is_hosted_agent": True},
        "asset": {"asset_path": "/suites/shop"},
    }
    assert start.started_with == {"model_name": "BBCSport", "type": "testcase"}


def test_e10_the_test_case_of_a_model_that_is_given_by_its_id() -> None:
    start = Wire(NAMED).run(platform().prepare_start(model_id=MODEL.upper(), test_case_name="Pay"))
    assert start.call.json["test_case_id"] == 12


def test_e10_a_configuration_by_name_with_a_body_that_is_passed_through() -> None:
    wire = Wire(NAMED | {RUN_CONFIG: response({"task_instance_id": "t-1"}, 201)})
    body = {"parameters": {"browser": "firefox"}}
    start = wire.run(platform().prepare_start(test_config_name="Nightly", task_instance_body=body))
    assert wire.ask(start.call).ids["test_config_id"] == "c-1"
    assert wire.body() == body


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model_name": "Shop"}, "'Shop' does not exist. The server lists: 'BBCSport', 'Twice', 'Twice'"),
        ({"model_name": "Twice"}, "names 2 of them .uuid-5, uuid-6.. Give model_id"),
        ({"model_name": "BBCSport", "test_case_name": "Return"}, "test_case_name 'Return' does not exist"),
        ({"model_name": "BBCSport", "test_case_name": "Both"}, "names 2 of them .13, 14."),
        ({"model_id": MODEL, "agent_name": "Agent B"}, "agent_name 'Agent B' names 2 of them .10, 11."),
        ({"model_id": MODEL, "agent_name": "?"}, "agent_name '.' does not exist"),
        ({"test_config_name": "Other"}, "test_config_name 'Other' names 2 of them .c-2, c-3."),
        ({"test_config_name": "Weekly"}, "test_config_name 'Weekly' does not exist"),
    ],
)
def test_e10_a_name_of_none_or_of_several_is_an_error_that_lists_them(arguments: dict[str, Any], said: str) -> None:
    wire = Wire(dict(NAMED))
    with pytest.raises(ConfigurationError, match=said):
        wire.run(platform().prepare_start(**arguments))
    assert not any(asked.startswith("POST") for asked in wire.asked)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"test_case_name": "Pay"}, "At least one of model_id"),
        ({"rerun_id": 3, "test_case_name": "Pay"}, "give model_id or model_name"),
        ({"model_id": MODEL, "test_case_id": 1, "test_case_name": "Pay"}, "Only one of test_case_id"),
        ({"model_id": MODEL, "agent": {"agent_id": "1"}, "agent_name": "A"}, "Only one of agent_name"),
        ({"test_config_id": "c-1", "agent_name": "A"}, "goes alone"),
        ({"test_config_id": "c-1", "test_config_name": "A"}, "Only one of test_config_id"),
        ({"model_id": MODEL, "task_instance_body": {}}, "task_instance_body is only for"),
        ({"test_config_id": "c-1", "task_instance_body": {"a": float("nan")}}, "sent as JSON"),
        ({"test_config_id": "c-1", "task_instance_body": "a"}, "must be a dict"),
        ({"model_name": ""}, "model_name must be"),
    ],
)
def test_e10_names_that_do_not_go_together_are_refused_before_any_request(arguments: dict[str, Any], said: str) -> None:
    wire = Wire(dict(NAMED))
    with pytest.raises(ConfigurationError, match=said):
        wire.run(platform().prepare_start(**arguments))
    assert wire.requests == []


def test_e10_a_server_without_the_list_says_which_id_to_give() -> None:
    with pytest.raises(ConfigurationError, match=r"HTTP 404.* Give model_id instead"):
        Wire().run(platform().prepare_start(model_name="BBCSport"))
