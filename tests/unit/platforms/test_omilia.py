"""Omilia Testing Studio's API as its page has it, and what is done where the page contradicts itself."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.get_provider_info import get_provider_info
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.omilia import OmiliaHook
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import Counts, Kind, Outcome, Progress, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.platforms.omilia.responses import log_of, trouble_in, without_git_token
from airflow_provider_testruns.platforms.platform import PollCache
from airflow_provider_testruns.steps import Response
from airflow_provider_testruns.transport.auth import FixedHeaders, OAuthToken
from tests.unit.platforms.steps import BASE_URL, InTurn, Wire, cancel, lost, poll
from tests.unit.responses import response

pytestmark = pytest.mark.unit

PROJECT = "c2a9ec59-0c38-4372-bff5-83cd7f9c721f"
RUN = "e6fa9e9a-5055-4773-9652-309b05e88c49"
OTHER = "cce602f1-80af-437a-883d-015ace310802"
GENERATION = "ee6a56f0-1d2b-4266-bbe8-d4374156c400"
GIT_TOKEN = "canary-jDdEdsfFRGr4"

GET_RUN = f"GET /api/runs/{RUN}"
REVOKE = f"POST /api/runs/{RUN}/revoke/"
STATS = f"GET /api/runs/{RUN}/run_stats/"
CASES = f"GET /api/runs/{RUN}/test_cases/"
LOGS = f"GET /api/runs/{RUN}/logs/"
GET_PROJECT = f"GET /api/projects/{PROJECT}"
RUNS = f"GET /api/projects/{PROJECT}/runs/"
GENERATIONS = f"GET /api/projects/{PROJECT}/generations/"

platform = OmiliaPlatform("https://studio.example.com/ts", "{base_url}/projects/{project_id}/runs/{run_id}")


def run_json(run_id: str = RUN, status: str = "SUCCESS", **more: Any) -> dict[str, Any]:
    """A run, as the sample of the model *Run* has it."""
    return {
        "projectId": PROJECT,
        "parallelTestCases": 1,
        "group": None,
        "utterance": None,
        "description": None,
        "runId": run_id,
        "status": status,
        "createdAt": "2023-04-11T15:22:50.193226",
        "finishedAt": "2023-04-11T15:22:53.568724",
        "tasks": [],
        "artifact": {
            "artifactId": "b96f6c0d-c08f-4454-a624-99564dbf8fb4",
            "name": f"{run_id}_artifacts.zip",
            "createdAt": "2023-04-11T15:22:52.916354",
            "deletedAt": None,
            "ttl": 604800,
            "isExpired": False,
            "runId": run_id,
        },
        "isRevocable": False,
        "executionMeta": None,
        "duration": "0:00:03",
        **more,
    }


def generation_json(run_id: str = GENERATION, status: str = "SUCCESS", **more: Any) -> dict[str, Any]:
    """A generation, as the sample of the model *Generated Test Case* has it."""
    return {
        "projectId": PROJECT,
        "group": None,
        "testSuite": None,
        "overwrite": True,
        "simulationData": None,
        "runId": run_id,
        "status": status,
        "createdAt": "2023-04-10T14:24:39.345269",
        "finishedAt": "2023-04-10T14:24:41.812109",
        "tasks": [],
        "artifact": None,
        "isRevocable": False,
        "executionMeta": None,
        **more,
    }


def project_json(**more: Any) -> dict[str, Any]:
    return {
        "name": "ia_iandronis_app_1",
        "gitUrl": "https://gitlab.example.com/iandronis/my_testing_studio_repo.git",
        "gitToken": GIT_TOKEN,
        "gitProvider": "gitlab",
        "id": PROJECT,
        "userId": "f7e3d168-053c-47ff-b592-eea2071ff794",
        "group": "iandronis",
        "latestRun": run_json(),
        "gitStorage": True,
        "s3Storage": False,
        **more,
    }


def case_json(name: str = "scenario_1", status: Any = "success", **more: Any) -> dict[str, Any]:
    return {
        "numberOfTries": 1,
        "executionTime": 889.0,
        "testCaseName": name,
        "dialogId": "iandronis_SND_ia_iandronis_app_1.1681812519019.7db27172adc94a3cbc648c8456f6f796",
        "goldenDialogId": "c0bf3e121907d0b2ca2beb219c38926858201a18.1681143584265.83db1d064122481b848adad10fb5c0f3",
        "testCaseId": "c43143e9-1ec5-45be-8565-539382a3fd01",
        "testCaseDescription": None,
        "status": status,
        "assertionErrors": [],
        "generalErrors": [],
        "warnings": [],
        "hadDelays": False,
        **more,
    }


def stats_json(passed: int, failed: int = 0, unavailable: int = 0, run_id: str = RUN) -> dict[str, Any]:
    return {
        "statsId": "9fc2cc39-f533-4557-a844-bc3ee0fd5d0e",
        "runId": run_id,
        "pass": passed,
        "fail": failed,
        "unavailable": unavailable,
    }


def data(value: Any) -> dict[str, Any]:
    return {"data": value, "meta": {"count": len(value) if isinstance(value, list) else 1}}


def run_as(status: str = "SUCCESS", **more: Any) -> Run:
    """A run, as a poll gives it."""
    return Wire({GET_RUN: data([run_json(status=status, **more)])}).run(poll(platform, RUN))


def report_of(answers: dict[str, Any], status: str = "SUCCESS") -> RunReport:
    return Wire(answers).run(platform.get_report(run_as(status)))


# Status words


@pytest.mark.parametrize(
    ("word", "state", "ending"),
    [
        ("PENDING", RunState.QUEUED, None),
        ("STARTED", RunState.RUNNING, None),
        ("RETRY", RunState.RUNNING, None),
        ("SUCCESS", RunState.FINISHED, Verdict.PASSED),
        ("FAILURE", RunState.FINISHED, Verdict.FAILED),
        ("REVOKED", RunState.FINISHED, Verdict.CANCELLED),
        # In any spelling.
        ("revoked", RunState.FINISHED, Verdict.CANCELLED),
        (" Started ", RunState.RUNNING, None),
    ],
)
def test_words_of_the_enum(word, state, ending):
    run = run_as(word)
    assert (run.state, run.platform_verdict, run.raw_state, run.known_state) == (state, ending, word, True)


@pytest.mark.parametrize(
    ("word", "state", "ending"),
    [
        ("pending", RunState.QUEUED, None),
        ("starting", RunState.RUNNING, None),
        ("successful", RunState.FINISHED, Verdict.PASSED),
        ("failed", RunState.FINISHED, Verdict.FAILED),
    ],
)
def test_run_status_words_in_the_guide_differ_from_the_enum(word, state, ending):
    run = run_as(word)
    assert (run.state, run.platform_verdict, run.known_state) == (state, ending, True)


@pytest.mark.parametrize("word", ["PAUSED", "COMPLETED", "SUCCESS!", "0"])
def test_an_unknown_word_is_a_run_that_goes_on(word):
    run = run_as(word, finishedAt=None)
    assert (run.state, run.platform_verdict, run.known_state, run.raw_state) == (RunState.RUNNING, None, False, word)


@pytest.mark.parametrize("word", ["PAUSED", "COMPLETED"])
def test_e2_an_unknown_word_with_an_end_time_ends_the_run_as_errored_and_shows_the_word(word):
    run = run_as(word, finishedAt="2026-11-26T10:00:00")
    assert (run.state, run.platform_verdict, run.known_state) == (RunState.FINISHED, Verdict.ERRORED, False)
    assert repr(word) in run.message


@pytest.mark.parametrize("word", [None, "", [], {}, True])
def test_no_word_is_no_response(word):
    with pytest.raises(InvalidReplyError, match="'status'"):
        run_as(word)  # type: ignore[arg-type]


# Runs


def test_a_run_as_documented():
    run = run_as()
    assert run == Run(
        platform="omilia",
        run_id=RUN,
        state=RunState.FINISHED,
        raw_state="SUCCESS",
        platform_verdict=Verdict.PASSED,
        started_at=datetime(2023, 4, 11, 15, 22, 50, 193226, UTC),
        finished_at=datetime(2023, 4, 11, 15, 22, 53, 568724, UTC),
        url=f"https://studio.example.com/ts/projects/{PROJECT}/runs/{RUN}",
        ids={"project_id": PROJECT},
        started_with={"group": None, "utterance": None, "description": None},
    )
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_what_the_api_says_of_a_run_beside_its_state_is_its_raw_form():
    more = {"parallelTestCases": 4, "tasks": [{"name": "clone", "gitToken": GIT_TOKEN}], "isRevocable": True}
    raw = Wire({GET_RUN: data(run_json(**more))}).run(poll(platform, RUN)).raw
    assert (raw["parallelTestCases"], raw["duration"], raw["isRevocable"]) == (4, "0:00:03", True)
    assert raw["tasks"] == [{"name": "clone"}]
    assert raw["artifact"]["ttl"] == 604800
    large = run_json(tasks=[{"log": "x" * 1000}] * 1_000, artifact={"name": "a\u202e"})
    run = Wire({GET_RUN: data(large)}).run(poll(platform, RUN))
    assert "tasks" not in run.raw
    assert run.raw["artifact"] == {"name": "a"}
    assert GIT_TOKEN not in json.dumps(run.to_dict())


def test_progress():
    assert run_as("STARTED", executionMeta={"current": 3, "total": 9}).progress == Progress(3, 9)
    assert run_as("STARTED", executionMeta={"current": 3}).progress == Progress(3)
    assert run_as("STARTED", executionMeta={}).progress == Progress(0)


def test_a_run_without_a_template_links_to_the_address():
    wire = Wire({GET_RUN: data(run_json())})
    assert wire.run(poll(OmiliaPlatform("https://studio.example.com"), RUN)).url == "https://studio.example.com"


def test_a_run_that_does_not_name_its_project_keeps_the_one_it_was_asked_with():
    row = run_json()
    del row["projectId"]
    run = Wire({GET_RUN: data(row)}).run(poll(platform, RUN, project_id=PROJECT))
    assert run.ids == {"project_id": PROJECT}
    assert Wire({GET_RUN: data(row)}).run(poll(platform, RUN)).ids == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runId", None),
        ("runId", ""),
        ("runId", "a\nb"),
        ("runId", "\ud800"),
        ("status", None),
        ("status", ["SUCCESS"]),
    ],
)
def test_a_field_of_a_wrong_type_is_named(field, value):
    row = run_json(**{field: value})
    with pytest.raises(InvalidReplyError, match=f"'?{field}'?"):
        Wire({GET_RUN: data(row)}).run(poll(platform, RUN))


@pytest.mark.parametrize("field", ["projectId", "createdAt", "finishedAt", "executionMeta", "group", "utterance"])
def test_what_the_state_does_not_depend_on_fails_no_poll(field):
    expected = Wire({GET_RUN: data(run_json())}).run(poll(platform, RUN))
    for value in ("yesterday", 5, {}, ["a"], True, {"current": "x", "total": []}, -1.5, 10**400, "a\nb"):
        row = run_json(**{"createdAt": "2026-01-02T03:04:05Z", field: value})
        run = Wire({GET_RUN: data(row)}).run(poll(platform, RUN))
        assert (run.run_id, run.state, run.raw_state) == (RUN, expected.state, expected.raw_state)
        assert run.start_unreadable is (field == "createdAt")


def test_what_a_run_shows_of_its_start_and_is_no_text_is_not_what_it_was_started_with():
    run = Wire({GET_RUN: data(run_json(group=["smoke"]))}).run(poll(platform, RUN))
    assert run.started_with["group"] not in (None, "smoke")


@pytest.mark.parametrize("run_id", ["", " ", ".", "..", None, 5, "a\nb"])
def test_an_id_that_can_be_none_is_refused_before_any_request(run_id):
    wire = Wire()
    with pytest.raises(ConfigurationError, match="run_id"):
        wire.run(poll(platform, run_id))
    assert wire.asked == []


def test_an_id_cannot_change_the_path():
    wire = Wire()
    with pytest.raises(NotFoundError):
        wire.run(poll(platform, "../projects/x?a=b#c"))
    assert wire.asked == ["GET /api/runs/..%2Fprojects%2Fx%3Fa%3Db%23c"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigurationError, match="kind"):
        Wire().run(poll(platform, RUN, kind="dialog"))


# The API page against itself: one test for each row of the table, named after it


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        *((word, Outcome.PASSED) for word in ("pass", "passed", "success", "successful", "PASS")),
        *((word, Outcome.FAILED) for word in ("fail", "failed", "failure", "FAIL")),
        ("unavailable", Outcome.UNAVAILABLE),
        *((word, Outcome.NOT_RUN) for word in (None, "None", "none", "")),
    ],
)
def test_test_case_status_of_the_table_and_of_the_samples(word, outcome):
    report = report_of({CASES: data([case_json(status=word)])})
    assert [case.outcome for case in report.cases] == [outcome]


def test_any_other_test_case_status_is_unavailable_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        report = report_of({CASES: data([case_json(status="skipped"), case_json()])})
    assert [case.outcome for case in report.cases] == [Outcome.UNAVAILABLE, Outcome.PASSED]
    assert "'skipped' is not known to the provider" in report.cases[0].message
    assert "1 of 2 test cases is not a word" in caplog.text


def test_execution_time_is_in_milliseconds():
    # The sample of the test case says 889.0, and the sample of the log of the same case:
    log = "scenario_1 : success [ 889.000 ms ]"
    report = report_of({CASES: data([case_json(executionTime=889.0)])})
    assert report.cases[0].duration == 0.889
    assert f"{report.cases[0].duration * 1000:.3f} ms" in log


def test_field_names_of_the_tables():
    row = run_json()
    row["createAt"] = row.pop("createdAt")
    row["run_id"] = row.pop("runId")
    row["PROJECT_ID"] = row.pop("projectId")
    run = Wire({GET_RUN: data([row])}).run(poll(platform, RUN))
    assert run == run_as()


def test_git_token_and_git_provider_are_sent_as_in_the_sample():
    wire = Wire({"POST /api/projects/": data(project_json())})
    wire.ask(platform.create_project("my_project_1", "my_group", "gitlab_url.git", GIT_TOKEN, "gitlab"))
    assert wire.body() == {
        "name": "my_project_1",
        "group": "my_group",
        "url": "gitlab_url.git",
        "gitToken": GIT_TOKEN,
        "gitProvider": "gitlab",
    }


@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: [row], lambda row: [run_json(OTHER, "FAILURE"), row]])
def test_data_is_a_list_around_one_run_or_an_object(wrap):
    run = Wire({GET_RUN: data(wrap(run_json()))}).run(poll(platform, RUN))
    assert (run.run_id, run.raw_state) == (RUN, "SUCCESS")


@pytest.mark.parametrize("rows", [[], [run_json(OTHER), run_json(OTHER)]])
def test_data_without_the_run_that_was_asked_for(rows):
    with pytest.raises(InvalidReplyError, match="data should be one object"):
        Wire({GET_RUN: data(rows)}).run(poll(platform, RUN))


def test_several_started_runs_cannot_be_told_apart():
    wire = Wire({"POST /api/runs/": data([run_json(), run_json(OTHER)])})
    with pytest.raises(InvalidReplyError) as caught:
        wire.ask(platform.create_run(PROJECT))
    assert not caught.value.not_executed


def test_broken_json_of_the_samples():
    lines = log_of(
        response(
            {
                "data": [
                    {"sectionName": "Clone Repository", "content": [{"text": "one"}], "offset": 1},
                    {},
                    {
                        "sectionName": "Run Test Suites",
                        "content": [
                            {"text": "two"},
                            {"sectionName": "Load Test Suites", "content": [{"text": "three"}, {}], "completed": 1},
                            {"text": "four"},
                            {},
                            {"sectionName": "Nothing"},
                        ],
                    },
                    {"content": [{"text": "five"}]},
                    {"sectionName": "Aggregate Results", "content": None},
                ],
                "completed": True,
            }
        )
    )
    assert lines == [
        ("Clone Repository", "one"),
        ("Run Test Suites", "two"),
        ("Load Test Suites", "three"),
        ("Run Test Suites", "four"),
        ("", "five"),
    ]


def test_a_log_may_be_one_section_without_an_envelope():
    section = {"sectionName": "Clone Repository", "content": [{"text": "one"}], "completed": None}
    assert log_of(response(section)) == log_of(response({"data": section})) == [("Clone Repository", "one")]


def test_created_runs_sample_is_already_success():
    wire = Wire({"POST /api/runs/": data([run_json()]), GET_RUN: data([run_json(status="STARTED")])})
    start = wire.run(platform.prepare_start(PROJECT))
    started = wire.ask(start.call)
    assert started.final
    # Nobody trusts that: the lifecycle polls a run that it has just started, whatever the response says.
    assert not wire.run(platform.get_run(started)).final


def test_no_get_for_one_generation():
    wire = Wire({GENERATIONS: data([generation_json("other", "FAILURE"), generation_json(status="STARTED")])})
    run = wire.run(poll(platform, GENERATION, project_id=PROJECT, kind="generation"))
    assert (run.run_id, run.raw_state, run.kind) == (GENERATION, "STARTED", Kind.GENERATION)
    assert run.ids == {"project_id": PROJECT, "kind": "generation"}
    assert wire.asked == [GENERATIONS]
    assert wire.run(poll(platform, GENERATION, **run.ids)) == run


@pytest.mark.parametrize(
    "stamp",
    ["2023-04-11T15:22:50.193226", "2023-04-11T15:22:50.193226Z", "2023-04-11T17:22:50.193226+02:00"],
)
def test_naive_timestamps_are_utc(stamp):
    assert run_as(createdAt=stamp).started_at == datetime(2023, 4, 11, 15, 22, 50, 193226, UTC)


def test_git_token_comes_back_in_clear():
    wire = Wire(
        {
            GET_PROJECT: data(project_json(gitUrl=f"https://oauth2:{GIT_TOKEN}@git.example.com/a.git")),
            "GET /api/projects/": data([project_json(), project_json(note=f"cloned with {GIT_TOKEN}")]),
            "POST /api/projects/": data(project_json()),
            f"PUT /api/projects/{PROJECT}": data([project_json(git_token="another-canary")]),
        }
    )
    seen = [
        wire.ask(platform.get_project(PROJECT)),
        wire.ask(platform.list_projects()),
        wire.ask(platform.create_project("n", "g")),
        wire.ask(platform.update_project(PROJECT, "n", "g")),
    ]
    assert "canary" not in json.dumps(seen)
    assert "gitToken" not in seen[0]
    assert seen[0]["gitUrl"] == "https://***@git.example.com/a.git"
    assert seen[2]["gitProvider"] == "gitlab"


@pytest.mark.parametrize(
    "answer",
    [
        {"detail": f"cannot clone with {GIT_TOKEN}"},
        {"detail": [{"loc": ["gitToken"], "input": {"gitToken": GIT_TOKEN}}]},
        {"project": project_json()},
        f"<html>{GIT_TOKEN}</html>".encode(),
        ("x" * 490 + GIT_TOKEN).encode(),
    ],
)
def test_git_token_is_in_no_error(answer):
    wire = Wire({"POST /api/projects/": response(answer, 400)})
    with pytest.raises(InvalidRequestError) as caught:
        wire.ask(platform.create_project("n", "g", "https://git.example.com/a.git", GIT_TOKEN, "github"))
    assert "canary" not in str(caught.value)
    assert GIT_TOKEN not in repr(platform.create_project("n", "g", "u", GIT_TOKEN, "github").what)


def test_get_run_test_suites_returns_names_only_so_failures_come_from_the_test_cases():
    error = {"step": 2, "assertion": "prompt", "expected": "hello", "found": "good bye"}
    wire = Wire(
        {
            STATS: data(stats_json(1, 1)),
            CASES: data([case_json("good"), case_json("bad", "fail", assertionErrors=[error])]),
        }
    )
    report = wire.run(platform.get_report(run_as("FAILURE")))
    assert [(case.name, case.message) for case in report.failures] == [
        ("bad", "step 2, prompt: expected 'hello', found 'good bye'")
    ]
    assert not any("suites" in asked for asked in wire.asked)


@pytest.mark.parametrize(
    ("status", "stats", "failures"),
    [
        ("STARTED", stats_json(3, 1, 2), 3),
        ("STARTED", stats_json(3, run_id=OTHER), None),
        # It tries something again: what has failed may pass.
        ("RETRY", stats_json(3, 1, 2), None),
        ("FAILURE", stats_json(3, 1, 2), None),
    ],
)
def test_how_many_have_failed_of_a_run_that_is_running(status, stats, failures):
    wire = Wire({GET_RUN: data(run_json(status=status, finishedAt=None)), STATS: data(stats)})
    run, found = wire.run(platform.poll_with_failures(run_as("STARTED")))
    assert (run.raw_state, found) == (status, failures)


def test_one_stats_id_stands_for_two_runs():
    # Both rows have the statsId 9fc2cc39…: the run's own is the one with its runId.
    rows = [stats_json(7, run_id=OTHER), stats_json(2, 1)]
    assert rows[0]["statsId"] == rows[1]["statsId"]
    assert report_of({STATS: data(rows)}).counts == Counts(2, 1)
    assert report_of({STATS: data(rows[0])}).counts is None


def test_trailing_slashes_are_as_documented():
    calls = [
        platform.healthcheck(),
        platform.list_projects(),
        platform.create_project("n", "g"),
        platform.get_project("p"),
        platform.update_project("p", "n", "g"),
        platform.delete_project("p"),
        platform.list_project_runs("p"),
        platform.list_project_generations("p"),
        platform.list_project_run_stats("p"),
        platform.upload_test_suites("p", Path("x.zip")),
        platform.download_test_suites("p", Path("x.zip")),
        platform.create_run("p"),
        platform.get_run_call("r"),
        platform.download_run_artifact("r", Path("x.zip")),
        platform.revoke_run("r"),
        platform.list_run_test_suites("r"),
        platform.get_run_stats("r"),
        platform.list_run_test_cases("r"),
        platform.get_run_logs("r"),
        platform.create_generation("p"),
        platform.get_generation("g", "p"),
        platform.download_generation_artifact("g", Path("x.zip")),
        platform.get_golden_dialog("a b. c"),
    ]
    assert [f"{call.method} {call.path}" for call in calls] == [
        "GET /api/healthcheck/",
        "GET /api/projects/",
        "POST /api/projects/",
        "GET /api/projects/p",
        "PUT /api/projects/p",
        "DELETE /api/projects/p",
        "GET /api/projects/p/runs/",
        "GET /api/projects/p/generations/",
        "GET /api/projects/p/runs_stats/",
        "POST /api/projects/p/suites/",
        "GET /api/projects/p/suites/download/",
        "POST /api/runs/",
        "GET /api/runs/r",
        "GET /api/runs/r/artifacts/",
        "POST /api/runs/r/revoke/",
        "GET /api/runs/r/suites/",
        "GET /api/runs/r/run_stats/",
        "GET /api/runs/r/test_cases/",
        "GET /api/runs/r/logs/",
        "POST /api/generations/",
        "GET /api/projects/p/generations/",
        "GET /api/generations/g/artifacts/",
        "GET /api/dialogs/a%20b.%20c/golden/",
    ]
    changing = [call.what for call in calls if not call.idempotent]
    assert len(changing) == len([call for call in calls if call.method != "GET"])


def test_a_redirect_is_followed_on_get_only():
    wire = Wire(
        {
            GET_RUN: response(status=307, location=f"{BASE_URL}/api/runs/{RUN}/"),
            f"{GET_RUN}/": data(run_json()),
            "POST /api/runs/": response(status=307, location=f"{BASE_URL}/api/runs"),
        }
    )
    assert wire.run(poll(platform, RUN)).run_id == RUN
    with pytest.raises(InvalidReplyError, match="not followed"):
        wire.ask(platform.create_run(PROJECT))


# Verdicts


def test_success_with_cases_passes():
    report = report_of({STATS: data(stats_json(2)), CASES: data([case_json(), case_json("scenario_2")])})
    assert report.counts == Counts(2)
    assert (report.pass_rate, judge(report).verdict) == (1.0, Verdict.PASSED)


@pytest.mark.parametrize("counts", [(1, 1, 0), (1, 0, 1), (0, 2, 3)])
def test_failure_with_a_failed_or_unavailable_case_failed(counts):
    report = report_of({STATS: data(stats_json(*counts))}, "FAILURE")
    assert report.counts == Counts(*counts)
    assert judge(report).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {STATS: data(stats_json(0)), CASES: data([])},
        {STATS: data(stats_json(0))},
        {STATS: data([])},
        {STATS: {"data": None}},
        {STATS: response({"detail": "no"}, 405), CASES: response({"detail": "no"}, 501)},
    ],
)
def test_failure_with_stats_missing_or_all_zero_errored(answers):
    report = report_of(answers, "FAILURE")
    assert judge(report).verdict is Verdict.ERRORED
    assert "the run itself broke" in judge(report).reasons[0]


def test_a_broken_run_says_what_its_log_says():
    log = [
        {
            "sectionName": "Clone Repository",
            "content": [{"text": "---- Cloning ----"}, {"text": "fatal: no access\n"}],
        },
        {"sectionName": "Clean up", "content": [{"text": "could not delete"}]},
    ]
    report = report_of({STATS: data(stats_json(0)), LOGS: data(log)}, "FAILURE")
    assert judge(report).reasons == (
        "The run ended as FAILURE without a test that failed: the run itself broke."
        " Its log says: Clone Repository: fatal: no access",
    )


def test_the_log_of_a_run_with_failed_tests_is_not_asked_for():
    wire = Wire({STATS: data(stats_json(1, 1)), CASES: data([case_json("x", "fail")])})
    wire.run(platform.get_report(run_as("FAILURE")))
    assert wire.asked == [STATS, CASES]


def test_revoked_is_cancelled():
    assert judge(report_of({}, "REVOKED")).verdict is Verdict.CANCELLED
    assert judge(report_of({STATS: data(stats_json(5))}, "REVOKED")).verdict is Verdict.CANCELLED


def test_success_without_a_test_case_fails_unless_the_task_allows_it():
    report = report_of({STATS: data(stats_json(0)), CASES: data([])})
    assert report.counts == Counts()
    assert judge(report).verdict is Verdict.FAILED
    assert judge(report, Gates(fail_on_no_tests=False)).verdict is Verdict.PASSED


def test_counts_come_from_the_cases_when_there_are_no_statistics():
    cases = [case_json(), case_json("b", "fail"), case_json("c", "unavailable"), case_json("d", None)]
    report = report_of({CASES: data(cases)}, "FAILURE")
    assert report.counts == Counts(1, 1, 1, 1)
    assert judge(report).verdict is Verdict.FAILED


def test_there_are_no_counts_without_statistics_and_cases():
    report = report_of({})
    assert (report.counts, report.cases) == (None, ())


def test_cases_that_did_not_run_are_counted_beside_the_statistics():
    report = report_of({STATS: data(stats_json(1)), CASES: data([case_json(), case_json("b", "None")])})
    assert report.counts == Counts(1, not_run=1)
    assert judge(report).verdict is Verdict.PASSED


def test_a_failure_that_the_statistics_deny_is_not_lost():
    for stats in (stats_json(0), stats_json(2)):
        report = report_of({STATS: data(stats), CASES: data([case_json(), case_json("b", "fail")])}, "FAILURE")
        assert report.counts == Counts(1, 1)
        assert judge(report).verdict is Verdict.FAILED


def test_a_word_that_is_not_known_does_not_outweigh_the_statistics():
    report = report_of({STATS: data(stats_json(1)), CASES: data([case_json(status="splendid")])})
    assert judge(report).verdict is Verdict.PASSED


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_lost_detail_call_does_not_change_the_verdict(status):
    gone = response({"detail": "no"}, status)
    assert judge(report_of({STATS: data(stats_json(2)), CASES: gone})).verdict is Verdict.PASSED
    assert judge(report_of({STATS: gone, CASES: data([case_json()])})).verdict is Verdict.PASSED
    assert judge(report_of({STATS: data(stats_json(1, 1)), CASES: gone}, "FAILURE")).verdict is Verdict.FAILED


@pytest.mark.parametrize("answer", [response(b"<html>", 200), response(None, 403), response(None, 500), lost()])
def test_results_that_cannot_be_had_are_an_error(answer):
    with pytest.raises(ApiError):
        report_of({STATS: answer})


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({**stats_json(1), "pass": "many"}, "pass"),
        ({**stats_json(1), "fail": -1}, "fail"),
        ({"runId": RUN, "pass": 1, "fail": 0}, "unavailable"),
    ],
)
def test_mandatory_figures_that_cannot_be_read_are_an_error(row, field):
    with pytest.raises(InvalidReplyError, match=field):
        report_of({STATS: data(row)})


def test_messages_of_cases():
    cases = [
        case_json("a", "unavailable", generalErrors=[{"text": "no answer"}, {"text": "twice"}]),
        case_json("b", "fail", warnings=[{"text": "late"}]),
        case_json("c", "fail", assertionErrors=[{"step": None, "found": {"x": 1}}], warnings=[{"text": "late"}]),
        case_json("d", "pass", warnings=[{"text": "late"}]),
    ]
    assert [case.message for case in report_of({CASES: data(cases)}).cases] == [
        "no answer; twice",
        "warning: late",
        "step null, null: expected 'null', found '{\"x\": 1}'",
        "",
    ]


DIALOGS = {
    "dialogId": "iandronis_SND_ia_iandronis_app_1.1681812519019.7db27172adc94a3cbc648c8456f6f796",
    "goldenDialogId": "c0bf3e121907d0b2ca2beb219c38926858201a18.1681143584265.83db1d064122481b848adad10fb5c0f3",
}


@pytest.mark.parametrize(
    ("more", "details"),
    [
        ({}, {"numberOfTries": 1, "hadDelays": False, **DIALOGS}),
        ({"numberOfTries": 3, "hadDelays": True}, {"numberOfTries": 3, "hadDelays": True, **DIALOGS}),
        # As texts, as the page has the booleans of another table.
        ({"numberOfTries": "2", "hadDelays": "True"}, {"numberOfTries": 2, "hadDelays": True, **DIALOGS}),
        # What is null, empty or can't be read is left out, and fails nothing.
        ({"numberOfTries": None, "hadDelays": None, "dialogId": "", "goldenDialogId": None}, {}),
        ({"numberOfTries": -1, "hadDelays": "maybe", "dialogId": {}, "goldenDialogId": []}, {}),
        ({"numberOfTries": 10**30, "hadDelays": 1, "dialogId": 7, "goldenDialogId": True}, {"dialogId": "7"}),
        # An id with a space and a line break in it, as the page's own sample.
        (
            {"goldenDialogId": "76a0.\n 168"},
            {"numberOfTries": 1, "hadDelays": False, **DIALOGS, "goldenDialogId": "76a0.  168"},
        ),
    ],
)
def test_tries_delays_and_dialogs_of_a_case(more, details):
    report = report_of({STATS: data(stats_json(1)), CASES: data([case_json(**more)])})
    assert report.cases[0].details == details
    assert judge(report).verdict is Verdict.PASSED


def test_cases_that_took_several_tries_or_had_delays_are_noted():
    rows = [
        case_json("steady"),
        case_json("flaky", numberOfTries=3),
        case_json("slow", hadDelays=True),
        case_json("bad", "fail", numberOfTries=2, hadDelays=True),
    ]
    wire = Wire({STATS: data(stats_json(3, 1)), CASES: data(rows)})
    judgement = judge(wire.run(platform.get_report(run_as("FAILURE"))), Gates(max_failures=1))
    assert judgement.notes == ("Had delays: slow, bad.", "Passed after a re-run: flaky (after 3 tries).")


def test_a_single_case_may_stand_without_a_list():
    assert report_of({CASES: data(case_json())}).counts == Counts(1)


@pytest.mark.parametrize(("status", "verdict"), [("SUCCESS", Verdict.PASSED), ("FAILURE", Verdict.ERRORED)])
def test_a_generation_has_no_results_to_ask_for(status, verdict):
    wire = Wire({GENERATIONS: data([generation_json(status=status)])})
    run = wire.run(poll(platform, GENERATION, project_id=PROJECT, kind="generation"))
    report = wire.run(platform.get_report(run))
    assert wire.asked == [GENERATIONS]
    assert (report.counts, judge(report).verdict) == (None, verdict)


# Starting


def test_a_run():
    wire = Wire({"POST /api/runs/": data([run_json(status="PENDING")])})
    start = wire.run(platform.prepare_start(PROJECT, group="g", utterance="", description="d"))
    assert wire.asked == []
    assert start.ids == {"project_id": PROJECT}
    assert start.started_with == {"group": "g", "utterance": None, "description": "d"}
    assert (start.not_compared, start.cannot_list, start.warnings) == ((), None, ())
    assert wire.ask(start.call).run_id == RUN
    assert wire.body() == {"projectId": PROJECT, "group": "g", "utterance": None, "description": "d"}
    assert wire.requests[0].new_connection


def test_filters_that_are_not_used_are_sent_as_null():
    wire = Wire({"POST /api/runs/": data([run_json()])})
    wire.ask(platform.create_run(PROJECT))
    assert wire.body() == {"projectId": PROJECT, "group": None, "utterance": None, "description": None}


def test_a_generation():
    wire = Wire({"POST /api/generations/": data(generation_json(status="PENDING"))})
    start = wire.run(
        platform.prepare_start(kind="generation", project_id=PROJECT, test_suite="a,b", simulation_data="Ani,Dnis")
    )
    assert start.ids == {"project_id": PROJECT, "kind": "generation"}
    assert start.started_with == {
        "group": None,
        "test_suite": "a,b",
        "overwrite": False,
        "simulation_data": "Ani,Dnis",
    }
    run = wire.ask(start.call)
    assert (run.run_id, run.kind, run.ids) == (GENERATION, Kind.GENERATION, start.ids)
    # What is not used is left out, as in the sample.
    assert wire.body() == {
        "projectId": PROJECT,
        "overwrite": False,
        "testSuite": "a,b",
        "simulationData": "Ani,Dnis",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"project_id": ""}, "project_id"),
        ({"project_id": None}, "project_id"),
        ({"project_id": 5}, "project_id"),
        ({"project_id": "p", "group": 5}, "group"),
        ({"project_id": "p", "utterance": ["a"]}, "utterance"),
        ({"project_id": "p", "description": {}}, "description"),
        ({"project_id": "p", "kind": "other"}, "kind"),
        ({"project_id": "p", "kind": ["run"]}, "kind"),
        ({"project_id": "p", "test_suite": "a"}, "test_suite"),
        ({"project_id": "p", "overwrite": True}, "overwrite"),
        ({"project_id": "p", "kind": "generation", "utterance": "a"}, "utterance"),
        ({"project_id": "p", "kind": "generation", "overwrite": "False"}, "overwrite"),
        ({"project_id": "p", "kind": "generation", "simulation_data": 1}, "simulation_data"),
    ],
)
def test_an_argument_that_cannot_be_right_is_named(arguments, named):
    wire = Wire()
    with pytest.raises(ConfigurationError, match=named):
        wire.run(platform.prepare_start(**arguments))
    assert wire.asked == []


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match="grupo"):
        platform.prepare_start(PROJECT, grupo="g")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("answer", "not_executed", "kind"),
    [
        (response({"detail": "no"}, 400), True, "run"),
        (response({"detail": "no"}, 401), True, "run"),
        (response({"detail": "No available licenses"}, 403), True, "run"),
        (response({"detail": "slow down"}, 429), True, "run"),
        (response(None, 408), False, "run"),
        (response({"detail": "oops"}, 500), False, "run"),
        (response(None, 503), False, "run"),
        (lost(sent=True), False, "run"),
        (lost(sent=False), True, "run"),
        ({"data": [{}]}, False, "run"),
        (response({"detail": "no"}, 400), True, "generation"),
        (response({"detail": "oops"}, 500), False, "generation"),
        (lost(sent=True), False, "generation"),
        ({"data": [{}]}, False, "generation"),
    ],
)
def test_which_errors_prove_that_nothing_was_started(answer, not_executed, kind):
    wire = Wire({"POST /api/runs/": answer, "POST /api/generations/": answer})
    start = wire.run(platform.prepare_start(PROJECT, kind=kind))
    with pytest.raises(ApiError) as caught:
        wire.ask(start.call)
    assert caught.value.not_executed is not_executed
    assert len(wire.asked) == 1


def test_the_newest_run_is_the_projects_latest():
    wire = Wire({GET_PROJECT: data(project_json())})
    newest = wire.run(platform.newest_run(wire.run(platform.prepare_start(PROJECT))))
    assert newest == run_as()
    assert wire.asked == [GET_PROJECT]


def test_a_project_without_a_run():
    wire = Wire({GET_PROJECT: data(project_json(latestRun=None))})
    assert wire.run(platform.newest_run(wire.run(platform.prepare_start(PROJECT)))) is None


def test_a_project_that_does_not_tell_its_latest_run():
    # "There is none" would make every older run a candidate for one whose start got no response.
    project = project_json()
    del project["latestRun"]
    wire = Wire({GET_PROJECT: data(project), RUNS: data([run_json(OTHER, createdAt="2023-01-01"), run_json()])})
    newest = wire.run(platform.newest_run(wire.run(platform.prepare_start(PROJECT))))
    assert newest is not None
    assert newest.run_id == RUN


def test_the_newest_generation():
    rows = [generation_json("old", createdAt="2023-03-01T09:31:26"), generation_json()]
    wire = Wire({GENERATIONS: data(rows)})
    start = wire.run(platform.prepare_start(PROJECT, kind="generation"))
    newest = wire.run(platform.newest_run(start))
    assert newest is not None
    assert newest.run_id == GENERATION
    wire.answers[GENERATIONS] = data([])
    assert wire.run(platform.newest_run(start)) is None


# Listing


def test_runs_since_a_time_newest_first():
    rows = [
        run_json("before", createdAt="2023-04-11T10:00:00"),
        run_json("at", createdAt="2023-04-11T10:00:01"),
        run_json("unknown", createdAt=None),
        run_json("after", createdAt="2023-04-11T10:00:02"),
    ]
    wire = Wire({RUNS: data(rows)})
    since = datetime(2023, 4, 11, 10, 0, 1, tzinfo=UTC)
    found = wire.run(platform.find_runs(since, project_id=PROJECT))
    assert [run.run_id for run in found] == ["unknown", "after", "at"]
    assert len(wire.run(platform.find_runs(None, project_id=PROJECT))) == 4
    assert wire.asked == [RUNS, RUNS]


def test_generations_are_listed_with_their_arguments():
    wire = Wire({GENERATIONS: data([generation_json(group="g", overwrite="false", simulationData="Ani")])})
    (run,) = wire.run(platform.find_runs(None, project_id=PROJECT, kind="generation"))
    assert run.started_with == {"group": "g", "test_suite": None, "overwrite": False, "simulation_data": "Ani"}
    assert (run.kind, run.ids["kind"]) == (Kind.GENERATION, "generation")


def test_what_a_row_does_not_show_is_not_compared():
    row = run_json(group="g")
    del row["utterance"]
    (run,) = Wire({RUNS: data([row])}).run(platform.find_runs(None, project_id=PROJECT))
    assert run.started_with == {"group": "g", "description": None}


def test_a_row_that_cannot_be_read_is_an_error_to_a_look_up():
    # It might be the run that is looked for.
    with pytest.raises(InvalidReplyError, match=r"data\[1\].*status"):
        Wire({RUNS: data([run_json(), {"runId": "x"}])}).run(platform.find_runs(None, project_id=PROJECT))


def test_a_project_must_be_named():
    with pytest.raises(ConfigurationError, match="project_id"):
        Wire().run(platform.find_runs(None, project_id=""))


def test_runs_of_a_project_are_polled_together():
    one, other = run_as(), run_as(runId=OTHER)
    group = platform.group_of(one)
    assert group is not None
    assert group == platform.group_of(other)
    wire = Wire({RUNS: data([run_json("x"), {"runId": []}, 5, run_json(OTHER, "STARTED"), run_json()])})
    runs = wire.run(platform.list_group(group, {RUN, OTHER}, None))
    assert {run.run_id: run.raw_state for run in runs} == {RUN: "SUCCESS", OTHER: "STARTED"}
    assert wire.asked == [RUNS]


def test_a_row_of_a_list_is_read_again_when_it_has_changed():
    group, cache = f"run:{PROJECT}", PollCache()

    def look(*rows: Any, wanted: Collection[str] = (RUN, OTHER)) -> list[Run]:
        return Wire({RUNS: data(list(rows))}).run(platform.list_group(group, wanted, None, cache))

    one, two = look(run_json(status="STARTED"), run_json(OTHER, "STARTED"))
    again, changed = look(run_json(status="STARTED"), run_json(OTHER, "SUCCESS"))
    assert again is one
    assert (two.state, changed.state) == (RunState.RUNNING, RunState.FINISHED)
    # A row that can't be read any more is missing, whatever it was before.
    assert look(run_json(status=None), run_json(OTHER, "SUCCESS")) == [changed]  # type: ignore[arg-type]
    # What is not wanted any more is forgotten.
    assert look(run_json(status="STARTED"), wanted=[OTHER]) == []
    assert look(run_json(status="STARTED"), wanted=[RUN])[0] is not one


def test_generations_are_polled_together_and_apart_from_runs():
    wire = Wire({GENERATIONS: data([generation_json()])})
    run = wire.run(poll(platform, GENERATION, project_id=PROJECT, kind="generation"))
    group = platform.group_of(run)
    assert group is not None
    assert group != platform.group_of(run_as())
    assert wire.run(platform.list_group(group, {GENERATION}, None)) == [run]


def test_a_run_of_an_unknown_project_is_polled_alone():
    assert platform.group_of(Run("omilia", RUN, RunState.QUEUED, "")) is None


def test_a_run_that_cannot_be_read_is_missing_from_its_group():
    wire = Wire({RUNS: data([run_json(status=None), run_json(OTHER)])})  # type: ignore[arg-type]
    runs = wire.run(platform.list_group(f"run:{PROJECT}", {RUN, OTHER}, None))
    assert [run.run_id for run in runs] == [OTHER]


def test_a_generation_that_is_not_listed():
    with pytest.raises(NotFoundError, match=f"Generation {GENERATION} is not among the 1 generations"):
        Wire({GENERATIONS: data([generation_json("x")])}).ask(platform.get_generation(GENERATION, PROJECT))


def test_a_generation_among_rows_that_cannot_be_read():
    rows = [5, generation_json(createdAt="bad")]
    wire = Wire({GENERATIONS: data(rows)})
    assert wire.ask(platform.get_generation(GENERATION, PROJECT)) == rows[1]
    with pytest.raises(InvalidReplyError):
        wire.ask(platform.get_generation("x", PROJECT))


# Cancelling


@pytest.mark.parametrize(
    ("given", "revocable"), [({"isRevocable": True}, True), ({"isRevocable": False}, False), ({}, True)]
)
def test_only_a_plain_no_makes_a_run_not_revocable(given, revocable):
    row = run_json(status="STARTED")
    del row["isRevocable"]
    run, said = Wire({GET_RUN: data([{**row, **given}])}).ask(platform.get_revocable_run(RUN))
    assert (run.raw_state, said) == ("STARTED", revocable)


def test_a_run_that_goes_on_is_revoked():
    wire = Wire({GET_RUN: data(run_json(status="STARTED")), REVOKE: response(status=204)})
    wire.run(cancel(platform, RUN, project_id=PROJECT))
    assert wire.asked == [GET_RUN, REVOKE]
    assert wire.requests[-1].body is None


def test_a_final_run_is_left_as_it_is():
    wire = Wire({GET_RUN: data(run_json())})
    wire.run(cancel(platform, RUN))
    assert wire.asked == [GET_RUN]


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_run_that_ends_in_between_is_no_error(status):
    wire = Wire(
        {
            GET_RUN: InTurn(data(run_json(status="STARTED")), data(run_json())),
            REVOKE: response({"detail": "Run cannot be revoked"}, status),
        }
    )
    wire.run(cancel(platform, RUN))
    assert wire.asked == [GET_RUN, REVOKE, GET_RUN]


def test_a_refusal_is_an_error_while_the_run_goes_on():
    wire = Wire({GET_RUN: data(run_json(status="STARTED")), REVOKE: response({"detail": "not yours"}, 403)})
    with pytest.raises(ApiError, match="not yours"):
        wire.run(cancel(platform, RUN))


def test_a_run_that_cannot_be_seen_just_now_is_revoked_all_the_same():
    wire = Wire({GET_RUN: response(None, 503), REVOKE: response(status=204)})
    wire.run(cancel(platform, RUN))
    assert wire.asked == [GET_RUN, REVOKE]


def test_a_run_that_is_not_there():
    with pytest.raises(NotFoundError):
        Wire().run(cancel(platform, RUN))


def test_a_revoke_that_failed_in_passing_may_be_sent_again():
    assert not platform.revoke_run(RUN).idempotent
    steps = cancel(platform, RUN)
    next(steps)
    assert steps.send(run_as("STARTED")).idempotent  # type: ignore[union-attr]


def test_there_is_no_call_that_revokes_a_generation():
    wire = Wire({GENERATIONS: InTurn(data([generation_json(status="STARTED")]), data([generation_json()]))})
    with pytest.raises(InvalidRequestError, match="no call that revokes a generation"):
        wire.run(cancel(platform, GENERATION, project_id=PROJECT, kind="generation"))
    wire.run(cancel(platform, GENERATION, project_id=PROJECT, kind="generation"))
    assert wire.asked == [GENERATIONS, GENERATIONS]


# Projects


def test_s3_storage_skips_all_the_git_variables():
    wire = Wire({"POST /api/projects/": data(project_json())})
    wire.ask(platform.create_project("n", "g", "", None, ""))
    assert wire.body() == {"name": "n", "group": "g"}


@pytest.mark.parametrize(
    ("git", "named"),
    [
        ({"url": "u"}, "git_token, git_provider must be given too"),
        ({"git_token": GIT_TOKEN}, "url, git_provider must be given too"),
        ({"git_token": GIT_TOKEN, "git_provider": "github"}, "url must be given too"),
        (
            {"url": "u", "git_token": GIT_TOKEN, "git_provider": "bitbucket"},
            "git_provider must be one of 'gitlab', 'github'",
        ),
        ({"url": "u", "git_token": 5, "git_provider": "github"}, "git_token must be a string"),
    ],
)
def test_only_some_git_arguments_are_refused(git, named):
    for make in (platform.create_project, lambda *args, **kw: platform.update_project("p", *args, **kw)):
        with pytest.raises(ConfigurationError, match=named) as caught:
            make("n", "g", **git)
        assert "canary" not in str(caught.value)


GIT = ("https://git.example.com/a.git", GIT_TOKEN, "gitlab")
NO_GIT_VALUES = (
    "Request contains an error. Field: __root__, Error: In case of git storage option, you should initialize all git"
    " variables."
)
BY_SAMPLE = {"name": "n", "group": "g", "url": GIT[0], "gitToken": GIT_TOKEN, "gitProvider": "gitlab"}
BY_TABLE = {"name": "n", "group": "g", "url": GIT[0], "git_token": GIT_TOKEN, "git_provider": "gitlab"}


@pytest.mark.parametrize("project_id", [None, PROJECT])
@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, NO_GIT_VALUES),
        (400, "Request contains an error. Field: gitToken, Error: extra fields not permitted"),
        (422, [{"loc": ["body", "git_token"], "msg": "field required", "type": "value_error.missing"}]),
        (422, [{"type": "extra_forbidden", "loc": ["body", "gitProvider"], "msg": "Extra inputs are not permitted"}]),
    ],
)
def test_o5_a_project_refused_for_the_names_of_the_sample_is_sent_once_more_with_those_of_the_table(
    project_id, status, detail
):
    key = f"PUT /api/projects/{project_id}" if project_id else "POST /api/projects/"
    wire = Wire({key: InTurn(response({"detail": detail}, status), data(project_json()))})
    assert wire.run(platform.saving_project(project_id, "n", "g", *GIT))["id"] == PROJECT
    assert [wire.body(at) for at in range(2)] == [BY_SAMPLE, BY_TABLE]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        # What may have made a project, or has nothing to do with names, is never sent again.
        (response({"detail": NO_GIT_VALUES}, 500), ServerError),
        (response({"detail": NO_GIT_VALUES}, 408), ServerError),
        (response({"detail": NO_GIT_VALUES}, 409), InvalidRequestError),
        (response({"detail": "Group: git_token invalid"}, 400), InvalidRequestError),
        (response({"detail": "Field: gitToken, Error: value is not a valid token"}, 400), InvalidRequestError),
        (response(NO_GIT_VALUES, 401), AuthenticationError),
        (lost(sent=True), TransportError),
        (response(None, 202), InvalidReplyError),
    ],
)
def test_o5_nothing_else_sends_a_project_twice(answer, error):
    wire = Wire({"POST /api/projects/": answer})
    with pytest.raises(error) as caught:
        wire.run(platform.saving_project(None, "n", "g", *GIT))
    assert wire.asked == ["POST /api/projects/"]
    assert "canary" not in str(caught.value)


def test_o5_both_namings_are_tried_once_each_and_s3_storage_has_one():
    refused = response({"detail": NO_GIT_VALUES}, 400)
    wire = Wire({"POST /api/projects/": refused})
    with pytest.raises(InvalidRequestError, match="initialize all git variables"):
        wire.run(platform.saving_project(None, "n", "g", *GIT))
    assert len(wire.asked) == 2
    wire = Wire({"POST /api/projects/": refused})
    with pytest.raises(InvalidRequestError):
        wire.run(platform.saving_project(None, "n", "g"))
    assert len(wire.asked) == 1


def test_o5_a_project_that_was_made_without_its_git_storage_is_said_and_not_made_again(caplog):
    wire = Wire({"POST /api/projects/": data(project_json(gitStorage=False, s3Storage=True))})
    assert wire.run(platform.saving_project(None, "n", "g", *GIT))["id"] == PROJECT
    assert len(wire.asked) == 1
    assert f"Project {PROJECT} was saved, and the platform shows it without Git storage" in caplog.text


# Projects by their names


PROJECTS = "GET /api/projects/"
TWIN = "c2a9ec59-0c38-4372-bff5-000000000002"


def listed(*rows: Any, count: int | None = None) -> dict[str, Any]:
    return {"data": list(rows), "meta": {"count": len(rows) if count is None else count}}


def test_a_project_is_found_by_its_name_with_one_call_before_the_start():
    wire = Wire({
        PROJECTS: listed(project_json(name="other", id=TWIN), project_json(name="smoke"), {"id": 5, "name": None}),
        "POST /api/runs/": data([run_json()]),
    })  # fmt: skip
    start = wire.run(platform.prepare_start(project_name="smoke", group="qa"))
    assert (start.ids, start.started_with["group"]) == ({"project_id": PROJECT}, "qa")
    assert wire.asked == [PROJECTS]
    wire.ask(start.call)
    assert wire.body()["projectId"] == PROJECT
    identity = wire.run(platform.identity(kind="generation", project_name="smoke"))
    assert identity is not None
    assert identity.ids == {"project_id": PROJECT, "kind": "generation"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "project_name 'smoke' is not the name of a project that this user can access. There are: none"),
        # To the letter: another case, or a blank, is another name.
        ([project_json(name="Smoke"), project_json(name="smoke ")], "There are: 'Smoke', 'smoke '"),
        ([project_json(name=f"p{n}") for n in range(40)], "'p9' and others"),
        (
            [project_json(name="smoke"), project_json(name="smoke", id=TWIN, group=None)],
            rf"is the name of 2 projects: {PROJECT} \(group iandronis\), {TWIN}. Give project_id",
        ),
        ([project_json(name="\u202e\x1b[31msm"), project_json(name=5), {}], "There are: '.*sm'"),
    ],
)
def test_a_name_that_is_not_that_of_one_project(rows, said):
    for steps in (
        platform.prepare_start(project_name="smoke"),
        platform.prepare_start(project_name="smoke", kind="generation"),
        platform.project_of(None, "smoke"),
    ):
        wire = Wire({PROJECTS: listed(*rows)})
        with pytest.raises(ConfigurationError, match=said) as caught:
            wire.run(steps)
        assert wire.asked == [PROJECTS]
        assert "canary" not in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_project_that_is_listed_twice_is_one_and_a_list_that_is_not_whole_tells_nothing():
    twice = listed(project_json(name="smoke"), project_json(name="smoke", id=PROJECT.upper()))
    assert Wire({PROJECTS: twice}).run(platform.project_named("smoke")) == PROJECT
    with pytest.raises(ConfigurationError, match="lists 1 of 30 projects"):
        Wire({PROJECTS: listed(project_json(name="smoke"), count=30)}).run(platform.project_named("smoke"))
    with pytest.raises(InvalidReplyError, match="id"):
        Wire({PROJECTS: listed(project_json(name="smoke", id="../x"))}).run(platform.project_named("smoke"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "project_id .or project_name."),
        ({"project_id": ""}, "project_id must be an id"),
        ({"project_id": PROJECT, "project_name": "smoke"}, "Exactly one of project_id and project_name"),
        ({"project_name": ""}, "project_name must be a string"),
        ({"project_name": 5}, "project_name must be a string"),
        ({"project_name": "smoke", "group": 5}, "group must be"),
        ({"project_name": "smoke", "kind": "generation", "overwrite": "no"}, "overwrite must be"),
    ],
)
def test_arguments_beside_a_name_are_checked_before_it_is_looked_up(arguments, named):
    wire = Wire({PROJECTS: listed(project_json(name="smoke"))})
    with pytest.raises(ConfigurationError, match=named):
        wire.run(platform.prepare_start(**arguments))
    assert wire.asked == []


@pytest.mark.parametrize(("name", "group"), [("", "g"), (None, "g"), ("n", " "), ("n", 5)])
def test_name_and_group_are_required(name, group):
    with pytest.raises(ConfigurationError, match=r"name|group"):
        platform.create_project(name, group)


def test_the_platforms_words_are_in_the_error():
    wire = Wire({"POST /api/projects/": response({"detail": "Group: my_groupde invalid"}, 400)})
    with pytest.raises(InvalidRequestError, match="Group: my_groupde invalid"):
        wire.ask(platform.create_project("n", "my_groupde"))


@pytest.mark.parametrize("field", ["", " ", None, 'a"b', "a\r\nb"])
def test_a_form_field_that_cannot_be_one(field):
    with pytest.raises(ConfigurationError, match="field"):
        platform.upload_test_suites("p", Path("x"), field)


# The connection test


def test_up():
    wire = Wire({"GET /api/healthcheck/": {"data": {"status": "up"}}, "GET /api/projects/": data([project_json()])})
    assert "up" in wire.run(platform.check())
    assert wire.asked == ["GET /api/healthcheck/", "GET /api/projects/"]


@pytest.mark.parametrize("status", ["down", "warming up"])
def test_down(status):
    with pytest.raises(ServerError, match=f"'{status}'"):
        Wire({"GET /api/healthcheck/": {"data": {"status": status}}}).run(platform.check())


def test_credentials_that_are_no_good():
    wire = Wire({"GET /api/healthcheck/": {"data": {"status": "UP"}}, "GET /api/projects/": response(None, 401)})
    with pytest.raises(AuthenticationError):
        wire.run(platform.check())


def test_not_there():
    with pytest.raises(TransportError):
        Wire({"GET /api/healthcheck/": lost(sent=False)}).run(platform.check())


# Responses that nobody vouches for


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**400)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["SUCCESS", "pass", "2023-04-11T15:22:50", "2023-04-11T99:00:00", RUN, GIT_TOKEN, "\ud800", "None"]
    )
)
_names = st.sampled_from(
    [
        *run_json(),
        *generation_json(),
        *project_json(),
        *case_json(),
        *stats_json(1),
        *("data", "meta", "text", "content", "sectionName", "current", "total", "git_token", "createAt", "step"),
        *("detail", "errors", "found", "status", "createdAt"),
    ]
) | st.text(max_size=4)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=6), max_leaves=25
)


def _spoiled(good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A good object of which some fields are anything."""
    return st.dictionaries(st.sampled_from(list(good)), _json, max_size=3).map(lambda bad: {**good, **bad})


_anything = st.one_of(
    _json,
    _json.map(lambda value: {"data": value}),
    st.one_of(
        *(
            st.lists(_spoiled(good) | _json, max_size=3) | _spoiled(good)
            for good in (run_json(), generation_json(), project_json(), case_json(), stats_json(1))
        )
    ).map(lambda value: {"data": value}),
)

_readers = {
    "healthcheck": platform.healthcheck(),
    "list_projects": platform.list_projects(),
    "create_project": platform.create_project("n", "g"),
    "get_project": platform.get_project(PROJECT),
    "list_project_runs": platform.list_project_runs(PROJECT),
    "list_project_generations": platform.list_project_generations(PROJECT),
    "list_project_run_stats": platform.list_project_run_stats(PROJECT),
    "create_run": platform.create_run(PROJECT),
    "get_run": platform.get_run_call(RUN),
    "list_run_test_suites": platform.list_run_test_suites(RUN),
    "get_run_stats": platform.get_run_stats(RUN),
    "list_run_test_cases": platform.list_run_test_cases(RUN),
    "get_run_logs": platform.get_run_logs(RUN),
    "create_generation": platform.create_generation(PROJECT),
    "get_golden_dialog": platform.get_golden_dialog("d"),
}


@given(body=_anything)
def test_any_json_is_a_value_or_an_invalid_response(body):
    for name, call in _readers.items():
        note(name)
        with contextlib.suppress(InvalidReplyError):
            call.read(response(body))


@given(body=_anything, stats=_anything, cases=_anything, status=st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"]))
def test_any_json_ends_a_step_in_a_value_or_an_invalid_response(body, stats, cases, status):
    wire = Wire(
        {GET_RUN: body, RUNS: body, GENERATIONS: body, GET_PROJECT: body, STATS: stats, CASES: cases, LOGS: body}
    )
    start = wire.run(platform.prepare_start(PROJECT))
    generation = wire.run(platform.prepare_start(PROJECT, kind="generation"))
    for steps in (
        poll(platform, RUN),
        poll(platform, GENERATION, project_id=PROJECT, kind="generation"),
        platform.find_runs(None, project_id=PROJECT),
        platform.find_runs(datetime(2023, 4, 11, tzinfo=UTC), project_id=PROJECT, kind="generation"),
        platform.list_group(f"run:{PROJECT}", {RUN}, None),
        platform.list_group(f"generation:{PROJECT}", {GENERATION}, None),
        platform.newest_run(start),
        platform.newest_run(generation),
        cancel(platform, RUN),
    ):
        with contextlib.suppress(InvalidReplyError, NotFoundError):
            wire.run(steps)
    try:
        report = wire.run(platform.get_report(run_as(status)))
    except InvalidReplyError:
        pass
    else:
        judge(report)
        json.dumps(report.run.to_dict()).encode()


@given(body=_anything)
def test_any_error_response_is_a_typed_error_without_the_token(body):
    wire = Wire({GET_PROJECT: response(body, 400)})
    with pytest.raises(InvalidRequestError):
        wire.ask(platform.get_project(PROJECT))


def test_what_is_no_json_is_an_invalid_response_to_each_call():
    """What counts as none: ``test_reading.py``."""
    taken = []
    for name in set(_readers) - {"get_golden_dialog"}:
        with contextlib.suppress(InvalidReplyError):
            _readers[name].read(response(b"<html>"))
            taken.append(name)
    assert taken == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"NaN"])
def test_no_object_is_no_run(content):
    with pytest.raises(InvalidReplyError):
        platform.get_run_call(RUN).read(Response(200, {}, content))


@pytest.mark.parametrize("depth", [20, 900])
def test_deep_nesting(depth):
    content = b'{"data":[' + b'{"content":[' * depth + b'{"text":"x"}' + b"]}" * depth + b"]}"
    for call in _readers.values():
        with contextlib.suppress(InvalidReplyError):
            call.read(Response(200, {}, content))


def test_a_token_nested_anywhere_is_taken_out():
    payload = {"a": [{"b": {"GIT_TOKEN": GIT_TOKEN, "c": f"x{GIT_TOKEN}y"}}], GIT_TOKEN: 1, "gitToken": None}
    cleaned = without_git_token(payload)
    assert cleaned["a"] == [{"b": {"c": "x***y"}}]
    assert "gitToken" not in cleaned


def test_a_log_shows_no_password_of_a_git_address():
    lines = log_of(response({"data": [{"content": [{"text": "Cloning https://oauth2:canary@git.example.com/a.git"}]}]}))
    assert lines == [("", "Cloning https://***@git.example.com/a.git")]


def test_trouble_is_found_in_the_first_section_that_has_any_and_cut():
    assert trouble_in([("a", "all is well"), ("b", "Test cases run: 0, failed: 0")]) == ""
    assert trouble_in([("a", "Error: no"), ("b", "failed"), ("a", "invalid")]) == "a: Error: no; invalid"
    assert len(trouble_in([("a", "error " * 200)])) < 320


# The connection


def connection(extra: dict[str, Any] | None = None, **fields: Any) -> Settings:
    conn = SimpleNamespace(
        conn_id="studio", **{"host": "https://studio.example.com", "schema": None, "port": None, "login": None,
                             "password": None, **fields}
    )  # fmt: skip
    return Settings.read(conn, extra or {})


# Authentication


@pytest.mark.parametrize("password", ["canary", "Bearer canary", "bearer  canary"])
def test_a_static_bearer_token(password):
    auth, fields = OmiliaHook.make_auth(connection(password=password))
    assert auth.headers() == {"Authorization": "Bearer canary"}
    assert list(auth.secrets()) == ["canary"]
    assert "password" in fields


def test_a_personal_access_token():
    auth, fields = OmiliaHook.make_auth(connection({"personal_access_token": "canary"}))
    assert auth.headers() == {"X-OCP-PERSONAL-ACCESS-TOKEN": "canary"}
    assert (list(auth.secrets()), fields) == (["canary"], "personal_access_token")


@pytest.mark.parametrize("extra", [{}, {"grant_type": "password"}, {"grant_type": ""}])
def test_a_user(extra):
    auth, fields = OmiliaHook.make_auth(connection(extra, login="me", password="canary"))
    assert isinstance(auth, OAuthToken)
    assert auth.grant == {
        "grant_type": "password",
        "client_id": "ocp",
        "username": "me",
        "password": "canary",
    }
    assert auth.can_refresh
    assert auth.token_url == "https://studio.example.com/auth/realms/master/protocol/openid-connect/token"
    assert fields == "login and password"


def test_a_client():
    auth, _ = OmiliaHook.make_auth(connection({"grant_type": "client_credentials"}, login="me", password="canary"))
    assert isinstance(auth, OAuthToken)
    assert auth.grant == {"grant_type": "client_credentials", "client_id": "me", "client_secret": "canary"}
    assert not auth.can_refresh


@pytest.mark.parametrize(
    ("extra", "fields", "named"),
    [
        ({}, {}, "password is empty"),
        ({}, {"login": "me"}, "password is empty"),
        ({"grant_type": "client_credentials"}, {"login": "me"}, "password is empty"),
        ({"grant_type": "client_credentials"}, {"password": "canary"}, "login is empty"),
        ({"grant_type": "password"}, {"password": "canary"}, "login is empty"),
        ({"grant_type": "refresh_token"}, {"login": "me", "password": "canary"}, "grant_type must be one of"),
        ({"personal_access_token": "canary"}, {"password": "canary"}, "personal_access_token is filled in, and so"),
        ({"personal_access_token": "canary"}, {"login": "me"}, "so is login"),
        ({"personal_access_token": "canary", "grant_type": "client_credentials"}, {}, "so is grant_type"),
        ({"personal_access_token": "can ary"}, {}, "personal_access_token must be a token"),
        ({"personal_access_token": "canäry"}, {}, "personal_access_token must be a token"),
        ({}, {"password": "canäry"}, "password must be a token"),
        ({}, {"password": "Bearer "}, "password must be a token"),
        ({"realm": ".."}, {"login": "me", "password": "canary"}, "realm must be"),
        ({"auth_url": "studio"}, {"login": "me", "password": "canary"}, "auth_url must be"),
    ],
)
def test_combinations_that_cannot_be_right(extra, fields, named):
    with pytest.raises(ConfigurationError, match=f"Connection 'studio': {named}|{named}") as caught:
        OmiliaHook.make_auth(connection(extra, **fields))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "extra", "url"),
    [
        # A path belongs to the service: Keycloak stands beside it.
        ("https://us1-m.ocp.ai/testing-studio", {}, "https://us1-m.ocp.ai/auth/realms/master/"),
        ("https://ca1.ocp.ai:8443/a/b/", {"realm": "ocp"}, "https://ca1.ocp.ai:8443/auth/realms/ocp/"),
        ("https://x.example.com", {"realm": "a/b c"}, "https://x.example.com/auth/realms/a%2Fb%20c/"),
    ],
)
def test_the_token_endpoint_stands_beside_the_service(host, extra, url):
    auth, _ = OmiliaHook.make_auth(connection(extra, host=host, login="me", password="canary"))
    assert isinstance(auth, OAuthToken)
    assert auth.token_url == f"{url}protocol/openid-connect/token"


@pytest.mark.parametrize(
    ("host", "realm", "url"),
    [
        ("https://eu1-m.ocp.ai", None, "https://eu1-m.ocp.ai/auth/realms/master/"),
        ("https://us1-m.ocp.ai/ts", None, "https://us1-m.ocp.ai/auth/realms/master/"),
        ("https://us2-m.ocp.ai/ts", None, "https://auth.us2-m.ocp.ai/auth/realms/master/"),
        ("https://pub.ca1.ocp.ai", None, "https://pub.ca1.ocp.ai/auth/realms/ocp/"),
        ("https://PUB.Frankfurt.ocp.ai:443/ts/", None, "https://PUB.Frankfurt.ocp.ai:443/auth/realms/ocp/"),
        ("https://ca1-m.ocp.ai", None, "https://ca1-m.ocp.ai/auth/realms/ocp/"),
        # What is filled in wins, and other people's hosts are no regions.
        ("https://pub.ca1.ocp.ai", "master", "https://pub.ca1.ocp.ai/auth/realms/master/"),
        ("https://ca1.example.com", None, "https://ca1.example.com/auth/realms/master/"),
        ("https://ca1.not-ocp.ai", None, "https://ca1.not-ocp.ai/auth/realms/master/"),
        ("https://us2-m.ocp.ai.example.com", None, "https://us2-m.ocp.ai.example.com/auth/realms/master/"),
    ],
)
def test_o2_realm_and_token_host_follow_from_the_host(host, realm, url):
    extra = {} if realm is None else {"realm": realm}
    auth, _ = OmiliaHook.make_auth(connection(extra, host=host, login="me", password="canary"))
    assert isinstance(auth, OAuthToken)
    assert auth.token_url == f"{url}protocol/openid-connect/token"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("https://us1-m.ocp.ai", "Is the service path before /api/ missing? The connection's host has none."),
        ("https://us1-m.ocp.ai/ts", "Is the service path before /api/ missing, or different from /ts?"),
        ("https://us1-m.ocp.ai/ts/api/", "host ends with /api, which every call adds"),
    ],
)
def test_o3_the_advice_on_the_service_path_goes_by_the_host(host, said):
    assert said in OmiliaHook.make_advice(connection(host=host, password="canary")).address


def test_o3_the_form_shows_where_the_service_path_goes():
    (form,) = (row for row in get_provider_info()["connection-types"] if row["connection-type"] == "omilia")
    assert form["ui-field-behaviour"]["placeholders"]["host"] == "https://us1-m.ocp.ai/<service path>"


def test_the_token_endpoint_may_be_anywhere():
    auth, _ = OmiliaHook.make_auth(
        connection({"auth_url": "https://login.example.com/x/token", "realm": "ocp"}, login="me", password="canary")
    )
    assert isinstance(auth, OAuthToken)
    assert auth.token_url == "https://login.example.com/x/token"


def test_nothing_secret_is_shown():
    for settings_ in (
        connection(password="canary"),
        connection({"personal_access_token": "canary"}),
        connection(login="me", password="canary"),
    ):
        auth, fields = OmiliaHook.make_auth(settings_)
        assert isinstance(auth, FixedHeaders | OAuthToken)
        assert "canary" not in repr(auth) + fields + repr(settings_)


# Links


def test_the_template():
    made = OmiliaHook.make_platform(
        connection({"run_url_template": "{base_url}/#/p/{project_id}/r/{run_id}"}, host="https://x.example.com/ts/")
    )
    run = Wire({GET_RUN: data(run_json("a:b"))}).run(poll(made, RUN))
    assert run.url == f"https://x.example.com/ts/#/p/{PROJECT}/r/a%3Ab"


@pytest.mark.parametrize("template", ["javascript:alert(1)//{run_id}", "/runs/{run_id}", "{base_url}/{model_id}"])
def test_a_template_that_cannot_be_right(template):
    with pytest.raises(ConfigurationError, match="run_url_template"):
        OmiliaHook.make_platform(connection({"run_url_template": template}))


# Artifacts


NOW = datetime(2026, 11, 22, tzinfo=UTC)


def artifact_json(**more: Any) -> dict[str, Any]:
    return {
        "artifactId": "86828048-9e69-4f3f-a053-80daad7ecd66",
        "name": "x_artifacts.zip",
        "createdAt": "2023-04-10T14:24:41.144837",
        "deletedAt": None,
        "ttl": 604800,
        "isExpired": True,
        "runId": RUN,
        **more,
    }


@pytest.mark.parametrize(
    ("more", "now", "why"),
    [
        # As in the sample of the generations.
        (
            {},
            NOW,
            "has expired: it was made on 2023-04-10 14:24:41 UTC and kept for 7 days, until 2023-04-17 14:24:41 UTC",
        ),
        # Gone by ttl, whatever isExpired says.
        (
            {"isExpired": False, "ttl": 90},
            NOW,
            "has expired: it was made on 2023-04-10 14:24:41 UTC and kept for 0:01:30, until 2023-04-10 14:26:11 UTC",
        ),
        ({"isExpired": False}, datetime(2023, 4, 17, 14, 24, 40, tzinfo=UTC), ""),
        ({"isExpired": False, "ttl": None}, NOW, ""),
        ({"ttl": None}, NOW, "has expired: it was made on 2023-04-10 14:24:41 UTC"),
        ({"createdAt": None}, NOW, "has expired: it was made, nobody says when"),
        (
            {"isExpired": False, "ttl": 10**15},
            NOW,
            "",
        ),
        (
            {"deletedAt": "2023-04-12T10:00:00", "isExpired": False},
            datetime(2023, 4, 13, tzinfo=UTC),
            "was deleted on 2023-04-12 10:00:00 UTC: it was made on 2023-04-10 14:24:41 UTC",
        ),
        # The table's spelling.
        ({"deletedAt": None, "deleted_at": "2023-04-12T10:00:00"}, NOW, "was deleted on 2023-04-12 10:00:00 UTC"),
    ],
)
def test_why_an_artifact_is_gone(more, now, why):
    wire = Wire({GET_RUN: data([run_json(artifact=artifact_json(**more))])})
    run, artifact = wire.run(platform.find_artifact(Kind.RUN, RUN))
    assert run.run_id == RUN
    said = artifact.why_gone(now)
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_the_artifact_of_a_generation_is_found_in_its_project():
    row = generation_json(artifact=artifact_json())
    answers = {f"GET /api/projects/{PROJECT}/generations/": data([row])}
    run, artifact = Wire(answers).run(platform.find_artifact(Kind.GENERATION, row["runId"], PROJECT))
    assert (run.kind, artifact.is_expired) == (Kind.GENERATION, True)
    assert Wire(answers).run(platform.find_artifact(Kind.GENERATION, RUN, PROJECT)) is None


def test_the_artifact_of_a_generation_is_found_without_its_project():
    row = generation_json(artifact=None)
    projects = [project_json(id=f"p-{number}") for number in range(40)]
    answers = {"GET /api/projects/": data(projects), "GET /api/projects/p-3/generations/": data([row])}
    wire = Wire(answers)
    run, artifact = wire.run(platform.find_artifact(Kind.GENERATION, row["runId"]))
    assert (run.ids["project_id"], artifact) == (PROJECT, None)
    assert len(wire.asked) == 5
    wire = Wire(answers)
    assert wire.run(platform.find_artifact(Kind.GENERATION, RUN)) is None
    assert len(wire.asked) == 26, "an error is not worth hundreds of requests"


def test_a_log_that_is_not_there_yet_has_no_lines():
    assert Wire({}).run(platform.read_log(run_as())) == []
