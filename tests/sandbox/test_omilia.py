"""Omilia: the life of runs and generations, results, and how strict it is."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import pytest

from airflow_provider_testruns.sandbox.archives import build_zip
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.mistakes import Mistake
from airflow_provider_testruns.sandbox.omilia import GIT_TOKEN, named_id

pytestmark = pytest.mark.integration

SMOKE, REGRESSION, BROKEN, EMPTY, GIT = (named_id(number) for number in range(1, 6))
UNKNOWN = "81924a8d-e584-428f-8c38-58b53cccb332"


def start(omilia: Any, project_id: str, **filters: str) -> str:
    response = omilia.post("/api/runs/", json={"projectId": project_id, **filters})
    assert response.status_code == 200, response.text
    (run,) = response.json()["data"]
    assert run["status"] == "PENDING"
    return str(run["runId"])


def run_of(omilia: Any, run_id: str) -> dict[str, Any]:
    response = omilia.json(f"/api/runs/{run_id}")
    assert response["meta"] == {"count": 1}
    (run,) = response["data"]
    return dict(run)


def stats(omilia: Any, run_id: str) -> tuple[int, int, int]:
    found = omilia.json(f"/api/runs/{run_id}/run_stats/")["data"]
    assert found["runId"] == run_id
    return found["pass"], found["fail"], found["unavailable"]


def test_the_life_of_a_run(omilia: Any, control: Control) -> None:
    run_id = start(omilia, SMOKE)
    run = run_of(omilia, run_id)
    assert (run["status"], run["finishedAt"], run["artifact"]) == ("PENDING", None, None)
    assert run["executionMeta"] == {"current": 0, "total": 4}
    assert run["isRevocable"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", run["createdAt"])
    control.advance(6)
    run = run_of(omilia, run_id)
    assert run["status"] == "STARTED"
    assert run["executionMeta"] == {"current": 2, "total": 4}
    assert stats(omilia, run_id) == (2, 0, 0)
    control.advance(4)
    run = run_of(omilia, run_id)
    assert (run["status"], run["executionMeta"], run["duration"]) == ("SUCCESS", None, "0:00:10")
    assert run["isRevocable"] is False
    assert run["artifact"]["runId"] == run_id
    assert stats(omilia, run_id) == (4, 0, 0)
    assert control.violations() == []


@pytest.mark.parametrize(
    ("project", "status", "counts"),
    [
        (SMOKE, "SUCCESS", (4, 0, 0)),
        (REGRESSION, "FAILURE", (6, 2, 1)),
        (BROKEN, "FAILURE", (0, 0, 0)),
        (EMPTY, "SUCCESS", (0, 0, 0)),
    ],
)
def test_how_runs_end(omilia: Any, control: Control, project: str, status: str, counts: tuple[int, int, int]) -> None:
    run_id = start(omilia, project)
    control.advance(10)
    assert run_of(omilia, run_id)["status"] == status
    assert stats(omilia, run_id) == counts


@pytest.mark.parametrize(
    ("filters", "status", "counts"),
    [
        ({"group": "Payments"}, "FAILURE", (3, 1, 1)),
        ({"group": "nobody"}, "SUCCESS", (0, 0, 0)),
        ({"utterance": "lost my CARD"}, "SUCCESS", (1, 0, 0)),
        ({"description": "refused"}, "FAILURE", (0, 1, 0)),
        ({"group": "accounts", "utterance": "hello"}, "SUCCESS", (1, 0, 0)),
    ],
)
def test_filters_pick_cases(
    omilia: Any, control: Control, filters: dict[str, str], status: str, counts: tuple[int, int, int]
) -> None:
    run_id = start(omilia, REGRESSION, **filters)
    control.advance(10)
    run = run_of(omilia, run_id)
    assert run["status"] == status
    assert {name: run[name] for name in filters} == filters
    assert stats(omilia, run_id) == counts


def test_cases_and_suites(omilia: Any, control: Control) -> None:
    run_id = start(omilia, REGRESSION)
    assert {c["status"] for c in omilia.json(f"/api/runs/{run_id}/test_cases/")["data"]} == {"None"}
    control.advance(10)
    cases = {c["testCaseName"]: c for c in omilia.json(f"/api/runs/{run_id}/test_cases/")["data"]}
    failed = cases["transfer_above_limit"]
    assert failed["status"] == "fail"
    (problem,) = failed["assertionErrors"]
    assert problem.keys() == {"step", "assertion", "expected", "found"}
    assert cases["block_then_replace"]["status"] == "unavailable"
    assert "10 seconds" in cases["block_then_replace"]["generalErrors"][0]["text"]
    assert cases["greeting_known_caller"]["status"] == "success"
    assert all(case["executionTime"] > 500 for case in cases.values()), "milliseconds"
    suites = [s["testSuiteName"] for s in omilia.json(f"/api/runs/{run_id}/suites/")["data"]]
    assert suites == ["greeting", "balance", "transfer", "card_block"]


def test_logs_are_nested_and_have_a_hole(omilia: Any, control: Control) -> None:
    run_id = start(omilia, SMOKE)
    assert omilia.json(f"/api/runs/{run_id}/logs/")["completed"] is False
    control.advance(10)
    logs = omilia.json(f"/api/runs/{run_id}/logs/")
    assert logs["completed"] is True
    assert {} in logs["data"]
    running = next(s for s in logs["data"] if s.get("sectionName") == "Run Test Suites")
    assert any(item.get("sectionName") == "Load Test Suites" for item in running["content"])
    assert any("block_lost_card : success [" in item.get("text", "") for item in running["content"])


def test_a_log_only_grows(omilia: Any, control: Control) -> None:
    def lines(value: Any) -> list[str]:
        if isinstance(value, list):
            return [line for item in value for line in lines(item)]
        return [value["text"]] if "text" in value else lines(value.get("content", []))

    control.plan_next("omilia", duration=10.0)
    run_id = start(omilia, REGRESSION)
    before: list[str] = []
    seen = set()
    for _ in range(24):
        now = lines(omilia.json(f"/api/runs/{run_id}/logs/")["data"])
        assert now[: len(before)] == before
        before = now
        seen.add(len(now))
        control.advance(0.5)
    assert len(seen) > 8
    assert before[-1] == "Saving artifacts .zip file"


def test_the_list_is_newest_first_and_the_project_knows_its_latest(omilia: Any, control: Control) -> None:
    assert omilia.json(f"/api/projects/{SMOKE}")["data"]["latestRun"] is None
    older, newer = start(omilia, SMOKE), start(omilia, SMOKE)
    listed = omilia.json(f"/api/projects/{SMOKE}/runs/")
    assert [r["runId"] for r in listed["data"]] == [newer, older]
    assert listed["meta"] == {"count": 2}
    assert listed["data"][0] == run_of(omilia, newer)
    assert omilia.json(f"/api/projects/{SMOKE}")["data"]["latestRun"]["runId"] == newer
    control.advance(10)
    run_stats = omilia.json(f"/api/projects/{SMOKE}/runs_stats/")
    assert run_stats.keys() == {"data"}
    assert [s["runId"] for s in run_stats["data"]] == [newer, older]


def test_hidden_and_vanished_runs(omilia: Any, control: Control) -> None:
    hidden, gone = start(omilia, SMOKE), start(omilia, SMOKE)
    control.hide_run(hidden)
    control.vanish_run(gone)
    assert omilia.json(f"/api/projects/{SMOKE}/runs/")["data"] == []
    assert omilia.json(f"/api/projects/{SMOKE}")["data"]["latestRun"] is None
    assert run_of(omilia, hidden)["runId"] == hidden
    assert omilia.get(f"/api/runs/{gone}").status_code == 404


def test_revoking(omilia: Any, control: Control) -> None:
    run_id = start(omilia, SMOKE)
    control.advance(3)
    response = omilia.post(f"/api/runs/{run_id}/revoke/")
    assert (response.status_code, response.content) == (204, b"")
    assert run_of(omilia, run_id)["status"] == "STARTED"
    control.advance(1)
    run = run_of(omilia, run_id)
    assert (run["status"], run["isRevocable"]) == ("REVOKED", False)
    assert run["finishedAt"] is not None
    assert control.run(run_id)["cancelled_by"] == "omilia.revoke_run"
    assert omilia.post(f"/api/runs/{run_id}/revoke/").status_code == 409
    assert omilia.post(f"/api/runs/{UNKNOWN}/revoke/").status_code == 404


def names_in(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_artifacts(omilia: Any, control: Control) -> None:
    run_id = start(omilia, SMOKE)
    path = f"/api/runs/{run_id}/artifacts/"
    assert omilia.get(path).status_code == 404
    control.advance(10)
    response = omilia.get(path)
    assert response.headers["Content-Type"] == "application/zip"
    assert "results/results.csv" in names_in(response.content)
    control.advance(604_801)
    assert run_of(omilia, run_id)["artifact"]["isExpired"] is True
    assert "expired" in omilia.get(path).json()["detail"]


def test_a_big_artifact_is_streamed(omilia: Any, control: Control) -> None:
    control.configure(artifact_bytes=5_000_000)
    run_id = start(omilia, SMOKE)
    control.advance(10)
    response = omilia.get(f"/api/runs/{run_id}/artifacts/")
    assert "Content-Length" not in response.headers
    assert len(response.content) > 5_000_000
    assert names_in(response.content) == ["results/recording.raw"]


def test_golden_dialogs(omilia: Any, control: Control) -> None:
    run_id = start(omilia, SMOKE)
    case = omilia.json(f"/api/runs/{run_id}/test_cases/")["data"][0]
    assert " " in case["goldenDialogId"]
    for dialog_id in (case["dialogId"], case["goldenDialogId"]):
        golden = omilia.json(f"/api/dialogs/{dialog_id}/golden/")
        assert golden["dialogId"] == case["dialogId"]
    assert omilia.get("/api/dialogs/a%2Fb/golden/").status_code == 404
    assert control.violations() == []


def test_generations(omilia: Any, control: Control) -> None:
    body = {"projectId": SMOKE, "testSuite": "balance", "overwrite": False, "simulationData": "Ani,Dnis"}
    made = omilia.post("/api/generations/", json=body).json()["data"]
    assert made["status"] == "PENDING"
    assert "duration" not in made
    (listed,) = omilia.json(f"/api/projects/{SMOKE}/generations/")["data"]
    assert listed["runId"] == made["runId"]
    assert omilia.json(f"/api/projects/{SMOKE}/runs/")["data"] == []
    assert omilia.get(f"/api/runs/{made['runId']}").status_code == 404
    control.advance(10)
    (listed,) = omilia.json(f"/api/projects/{SMOKE}/generations/")["data"]
    assert (listed["status"], listed["testSuite"]) == ("SUCCESS", "balance")
    names = names_in(omilia.get(f"/api/generations/{made['runId']}/artifacts/").content)
    assert "tests/balance/balance_savings.yml" in names
    assert not any("card_block" in name for name in names)


def test_projects(omilia: Any) -> None:
    listed = omilia.json("/api/projects/")
    assert listed["meta"]["count"] == len(listed["data"]) == 5
    made = omilia.post("/api/projects/", json={"name": "mine", "group": "qa"}).json()["data"]
    assert (made["s3Storage"], made["gitStorage"], made["gitUrl"]) == (True, False, None)
    git = {"url": "https://git.example.com/x.git", "gitToken": "sandbox-canary-x", "gitProvider": "github"}
    path = f"/api/projects/{made['id']}"
    changed = omilia("PUT", path, json={"name": "yours", "group": "qa", **git}).json()["data"]
    assert (changed["name"], changed["gitStorage"], changed["gitToken"]) == ("yours", True, "sandbox-canary-x")
    assert omilia("DELETE", path).status_code == 204
    assert omilia.get(path).status_code == 404


def test_the_git_token_comes_back_in_clear(omilia: Any) -> None:
    assert omilia.json(f"/api/projects/{GIT}")["data"]["gitToken"] == GIT_TOKEN


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"name": "x", "group": "strangers"}, "Group: strangers invalid"),
        ({"name": "x", "group": "qa", "url": "u"}, "__root__"),
        ({"name": "x"}, "Field: group, Error: field required"),
        ({"name": "x", "group": "qa", "git_token": "t"}, "Field: git_token"),
        ({"name": 1, "group": "qa"}, "Field: name"),
        ({"name": "x", "group": "qa", "url": "u", "gitToken": "t", "gitProvider": "svn"}, "gitProvider"),
    ],
)
def test_refused_projects(omilia: Any, body: dict[str, Any], detail: str) -> None:
    response = omilia.post("/api/projects/", json=body)
    assert response.status_code == 400
    assert detail in response.json()["detail"]


def test_o3_omilia_below_a_path(omilia: Any, control: Control) -> None:
    control.configure(omilia_service_path="/testing-studio")
    assert omilia.json("/testing-studio/api/healthcheck/") == {"data": {"status": "up"}}
    beside = omilia.get("/api/healthcheck/")
    assert (beside.status_code, beside.headers["content-type"]) == (404, "text/html; charset=utf-8")
    below = omilia.get("/testing-studio/api/nothing/")
    assert (below.status_code, below.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("names", "sent", "status"),
    [
        ("sample", "sample", 200),
        ("sample", "table", 400),
        ("table", "table", 200),
        ("table", "sample", 400),
        ("table_strict", "sample", 400),
        ("both", "table", 200),
        ("both", "sample", 200),
    ],
)
def test_o5_namings_of_a_project(omilia: Any, control: Control, names: str, sent: str, status: int) -> None:
    control.configure(omilia_project_names=names)
    token, provider = ("gitToken", "gitProvider") if sent == "sample" else ("git_token", "git_provider")
    body = {"name": "n", "group": "qa", "url": "https://git.example.com/a.git", token: "t", provider: "github"}
    response = omilia.post("/api/projects/", json=body)
    assert response.status_code == status, response.text
    if status == 200:
        assert response.json()["data"]["gitToken"] == "t"
    elif names == "table":
        assert "you should initialize all git variables." in response.json()["detail"]
    assert len(control.violations()) == (names == "sample" and status == 400)


def test_tries_and_delays(omilia: Any, control: Control) -> None:
    project = control.create_project("several", ending="passed", tries=3)
    run_id = start(omilia, project)
    control.advance(10)
    first, second, *_ = omilia.json(f"/api/runs/{run_id}/test_cases/")["data"]
    assert [(c["status"], c["numberOfTries"], c["hadDelays"]) for c in (first, second)] == [
        ("success", 3, True),
        ("success", 1, False),
    ]


@pytest.mark.parametrize(
    "settings",
    [{"omilia_access_token": "lost"}, {"omilia_project_names": "x"}, {"omilia_service_path": "x"}, {"omilia_otp": 1}],
)
def test_settings_that_can_be_none(control: Control, settings: dict[str, Any]) -> None:
    with pytest.raises(Mistake):
        control.configure(**settings)


def test_suites_go_up_and_come_down(omilia: Any) -> None:
    content = build_zip({"tests/a.yml": "name: a\n"})
    path = f"/api/projects/{SMOKE}/suites/"
    response = omilia.post(path, files={"file": ("suites.zip", content, "application/zip")})
    assert (response.status_code, response.content) == (204, b"")
    assert omilia.get(f"{path}download/").content == content
    assert omilia.get(f"/api/projects/{EMPTY}/suites/download/").status_code == 404


def test_refused_uploads(omilia: Any, control: Control) -> None:
    content = build_zip({"tests/a.yml": "name: a\n"})
    path = f"/api/projects/{SMOKE}/suites/"
    assert omilia.post(path, data=content, headers={"Content-Type": "application/zip"}).status_code == 415
    assert omilia.post(path, files={"suites": ("s.zip", content)}).status_code == 400
    assert omilia.post(path, files={"file": ("s.zip", b"not a zip")}).status_code == 400
    assert omilia.post(path, files={"file": ("s.zip", build_zip({}))}).status_code == 400
    assert len(control.violations()) == 4
    assert omilia.post(f"/api/projects/{GIT}/suites/", files={"file": ("s.zip", content)}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/api/projects", {}, 404),
        ("GET", f"/api/projects/{SMOKE}/", {}, 404),
        ("POST", "/api/runs", {"json": {"projectId": SMOKE}}, 404),
        ("GET", f"/api/runs/{UNKNOWN}/", {}, 404),
        ("GET", "/api/nothing/", {}, 404),
        ("PATCH", f"/api/projects/{SMOKE}", {"json": {}}, 405),
        ("GET", "/api/runs/", {}, 405),
        ("GET", "/api/projects/?limit=1", {}, 400),
        ("POST", "/api/runs/", {"data": {"projectId": SMOKE}}, 415),
        ("POST", "/api/runs/", {"json": {"project_id": SMOKE}}, 400),
        ("POST", "/api/runs/", {"json": {"projectId": SMOKE, "tags": []}}, 400),
        ("POST", "/api/runs/", {"json": {"projectId": "no uuid"}}, 400),
        ("POST", "/api/runs/", {"json": {"projectId": SMOKE, "group": 1}}, 400),
        ("POST", "/api/runs/", {"data": "{", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/api/runs/", {"json": [SMOKE]}, 400),
        ("POST", "/api/generations/", {"json": {"projectId": SMOKE, "overwrite": "false"}}, 400),
    ],
)
def test_violations(
    omilia: Any, control: Control, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    response = omilia(method, path, **options)
    assert response.status_code == status, response.text
    assert "detail" in response.json()
    assert len(control.violations()) == 1
    assert control.runs() == []


def test_what_is_missing_is_no_violation(omilia: Any, control: Control) -> None:
    assert omilia.post("/api/runs/", json={"projectId": UNKNOWN}).status_code == 404
    assert omilia.get(f"/api/runs/{UNKNOWN}").status_code == 404
    assert omilia.get(f"/api/projects/{UNKNOWN}/runs/").status_code == 404
    assert control.violations() == []


def test_healthcheck_is_open(omilia: Any) -> None:
    del omilia.session.headers["Authorization"]
    assert omilia.json("/api/healthcheck/") == {"data": {"status": "up"}}
