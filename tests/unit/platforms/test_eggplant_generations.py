"""Eggplant DAI's releases as public clients have met them: each test names its row of what was learned from them.

The rows: E1 runs that only GET /ai/runs shows; E2 status words that are not in the table; E3 liveness and verdict.
"""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_testruns.exceptions import InvalidReplyError, NotFoundError
from airflow_provider_testruns.model import Outcome, Run, RunState, Verdict, judge
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from tests.unit.platforms.steps import BASE_URL, Wire, reply
from tests.unit.platforms.test_eggplant import MODEL, PROGRESS, RUN, START, Paged, at, row, run_list

pytestmark = pytest.mark.unit

RUNS = "GET /ai/runs"


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
        wire.run(dai.get_run(run.run_id, **run.context))
    new = numbered(2000)
    rows += [numbered(1999, modelname="Other"), new]
    seen = wire.run(dai.get_run(run.run_id, **run.context))
    assert (seen.run_id, seen.state, seen.context["run_number"]) == (RUN, RunState.RUNNING, "2000")
    # Whatever comes after it is not compared any more.
    rows.append(numbered(2001))
    wire.answers["GET /ai/runs/2000"] = new | {"teststatus": "FAILED", "endtime": at(9)}
    wire.requests.clear()
    ended = wire.run(dai.get_run(seen.run_id, **seen.context))
    assert (ended.run_id, ended.ending, wire.asked) == (RUN, Verdict.FAILED, ["GET /ai/runs/2000"])


def test_e1_a_number_that_has_no_call_of_its_own_is_found_in_the_list() -> None:
    rows = [numbered(7)]
    run, dai, wire = started(rows)
    rows.append(numbered(8))
    seen = wire.run(dai.get_run(run.run_id, **run.context))
    rows[-1] |= {"teststatus": "PASSED", "endtime": at(9)}
    ended = wire.run(dai.get_run(seen.run_id, **seen.context))
    assert (ended.run_id, ended.ending) == (RUN, Verdict.PASSED)


def test_e1_of_several_candidates_none_is_taken_and_all_are_named() -> None:
    rows = [numbered(7)]
    run, dai, wire = started(rows)
    rows += [numbered(8), numbered(9)]
    with pytest.raises(InvalidReplyError, match=r"2 runs could be it: 8, 9"):
        wire.run(dai.get_run(run.run_id, **run.context))


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
        wire.run(dai.get_run(run.run_id, **run.context))
    rows.append(numbered(9, **like))
    assert wire.run(dai.get_run(run.run_id, **run.context)).context["run_number"] == "9"


def test_e1_a_rerun_of_which_the_model_is_not_known_is_not_guessed() -> None:
    rows: list[dict[str, Any]] = []
    run, dai, wire = started(rows, model_id=None, model_name=None, rerun_id=4)
    rows.append(numbered(9))
    with pytest.raises(NotFoundError):
        wire.run(dai.get_run(run.run_id, **run.context))


def test_e1_the_runs_before_a_start_and_after_a_lost_one_come_from_the_list_where_there_is_no_progress() -> None:
    rows = [numbered(7, "PASSED", starttime=at(1)), numbered(8, modelname="Other", starttime=at(2))]
    dai, wire = platform(), Paged({RUNS: run_list(rows)})
    start = wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport"))
    newest = wire.run(dai.newest_run(start))
    assert newest is not None
    assert (newest.run_id, start.cannot_list) == ("7", None)
    rows.append(numbered(9, starttime=at(3)))
    found = wire.run(dai.find_runs(newest.started_at, **start.context))
    assert [run.run_id for run in found] == ["9", "7"]


def test_e1_a_server_without_the_list_starts_as_before() -> None:
    dai, wire = platform(), Wire({START: {"execution_id": RUN}, PROGRESS: row()})
    start = wire.run(dai.prepare_start(model_id=MODEL, model_name="BBCSport"))
    run = wire.ask(start.call)
    assert "after_number" not in run.context
    assert wire.run(dai.get_run(run.run_id, **run.context)).state is RunState.RUNNING


# --- E2: words that are not in the table --------------------------------------------------------------------------


def test_e2_an_unknown_word_with_an_end_time_ends_the_run_as_errored_and_shows_the_word() -> None:
    wire = Wire({PROGRESS: row(status="Evaporated", endtime=at(5)), RUNS: reply({}, 404)})
    run = wire.run(platform().get_run(RUN))
    assert (run.state, run.ending, run.known_state) == (RunState.FINISHED, Verdict.ERRORED, False)
    report = wire.run(platform().get_report(run))
    assert judge(report) is Verdict.ERRORED
    assert "'Evaporated'" in report.run.message


@pytest.mark.parametrize("raw", ["PASSED_AFTER_RERUN", "Passed after re-run", "passed after rerun"])
def test_e2_passed_after_a_rerun_is_passed(raw: str) -> None:
    run = Wire({PROGRESS: row(status=raw, endtime=at(5))}).run(platform().get_run(RUN))
    assert (run.state, run.ending) == (RunState.FINISHED, Verdict.PASSED)


@pytest.mark.parametrize("raw", ["COMPLETED", "Finished", "done"])
@pytest.mark.parametrize(
    ("results", "verdict"), [([], Verdict.ERRORED), (["PASSED"], Verdict.PASSED), (["FAILED"], Verdict.FAILED)]
)
def test_e2_a_word_that_says_only_that_the_run_has_ended_is_judged_by_the_results(
    raw: str, results: list[str], verdict: Verdict
) -> None:
    items = [{"id": f"t-{at}", "name": "x", "status": word, "execution_id": RUN} for at, word in enumerate(results)]
    wire = Paged({PROGRESS: row(status=raw), "GET /api/v2/test_results": {"items": items, "total_count": len(items)}})
    run = wire.run(platform().get_run(RUN))
    assert (run.state, run.ending) == (RunState.FINISHED, None)
    assert judge(wire.run(platform().get_report(run))) is verdict


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
    report = wire.run(platform().get_report(wire.run(platform().get_run(RUN))))
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
    run = Wire({PROGRESS: item}).run(platform().get_run(RUN))
    assert (run.state, run.ending) == (state, ending)
