"""The control: named objects, endings, runs of others, statistics, and going back to the beginning."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.futureagi_calls import AgentExecution
from airflow_provider_testruns.sandbox.mistakes import Mistake
from airflow_provider_testruns.sandbox.omilia import named_id
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.integration

SMOKE = named_id(1)


def omilia_status(omilia: Any, run_id: str) -> str:
    return str(omilia.json(f"/api/runs/{run_id}")["data"][0]["status"])


def start(omilia: Any, project_id: str = SMOKE) -> str:
    return str(omilia.post("/api/runs/", json={"projectId": project_id}).json()["data"][0]["runId"])


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("passed", "SUCCESS"),
        ("failed", "FAILURE"),
        ("errored", "FAILURE"),
        ("cancelled", "REVOKED"),
        ("empty", "SUCCESS"),
    ],
)
def test_choosing_the_next_ending(omilia: Any, control: Control, ending: str, status: str) -> None:
    control.plan_next("omilia", ending=ending, duration=2)
    planned, usual = start(omilia), start(omilia)
    control.advance(3)
    assert omilia_status(omilia, planned) == status
    assert omilia_status(omilia, usual) == "STARTED"


def test_a_project_that_is_told_to_fail(omilia: Any, control: Control) -> None:
    control.set_target("omilia", "smoke", ending="failed", duration=1)
    run_id = start(omilia)
    control.advance(1)
    assert omilia_status(omilia, run_id) == "FAILURE"
    assert omilia.json(f"/api/runs/{run_id}/run_stats/")["data"]["fail"] == 1


def test_ending_a_run_at_once(omilia: Any, control: Control) -> None:
    run_id = start(omilia)
    control.finish_run(run_id)
    assert omilia_status(omilia, run_id) == "SUCCESS"
    other = start(omilia)
    assert requests.post(
        f"{omilia.url.removesuffix('/omilia')}/_sandbox/runs/{other}/finish?ending=cancelled", timeout=5
    ).ok
    assert omilia_status(omilia, other) == "REVOKED"


def test_a_run_that_hangs_and_words_nobody_knows(omilia: Any, control: Control) -> None:
    run_id = start(omilia)
    control.hang_run(run_id)
    control.advance(1_000_000)
    assert omilia_status(omilia, run_id) == "STARTED"
    control.set_run(run_id, raw_status="RETRY")
    assert omilia_status(omilia, run_id) == "RETRY"
    control.set_run(run_id, raw_status="")
    assert omilia_status(omilia, run_id) == "STARTED"


def test_objects_of_ones_own(omilia: Any, eggplant: Any, futureagi: Any, control: Control) -> None:
    project = control.create_project("payments-regression", cases=40)
    model = control.create_model("Loans", ending="failed")
    run_test = control.create_run_test("night", scenarios={"One": 1, "Two": 3}, agent_type="voice", recovers=True)
    runs = [
        start(omilia, project),
        eggplant.post(
            "/execution_service/api/v1/executions", json={"execution_type": "executing", "model_id": model}
        ).json()["execution_id"],
        futureagi.post(f"/simulate/run-tests/{run_test}/execute/", json={}).json()["execution_id"],
    ]
    control.advance(11)
    assert omilia.json(f"/api/runs/{runs[0]}/run_stats/")["data"]["pass"] == 39
    assert eggplant.post("/api/run/progress", data={"id": runs[1]}).json()["status"] == "Failed"
    assert len(control.call_ids(runs[2])) == 4
    assert {t["name"] for t in control.targets()} > {"payments-regression", "Loans", "night"}


def test_runs_of_others(omilia: Any, control: Control) -> None:
    old = control.add_runs("omilia", "smoke", 3, age=3600)
    mine = start(omilia)
    listed = omilia.json(f"/api/projects/{SMOKE}/runs/")["data"]
    assert [r["runId"] for r in listed] == [mine, *old[::-1]]
    assert [r["status"] for r in listed] == ["PENDING", "SUCCESS", "SUCCESS", "SUCCESS"]
    late = control.add_runs("omilia", "smoke", age=60)
    listed = omilia.json(f"/api/projects/{SMOKE}/runs/")["data"]
    assert [r["runId"] for r in listed] == [mine, *late, *old[::-1]], "by time, not by entry"


def test_statistics(omilia: Any, control: Control, sandbox: SandboxServer) -> None:
    run_id = start(omilia)
    omilia.get("/api/projects/")
    omilia.get("/api/projects")
    stats = requests.get(f"{sandbox.url}/_sandbox/stats", timeout=60).json()
    assert stats["operations"] == {"omilia.create_run": 1, "omilia.list_projects": 1, "omilia.unknown_path": 1}
    assert stats["platforms"] == {"omilia": 3}
    assert stats["statuses"]["omilia.unknown_path 404"] == 1
    assert stats["runs_created"] == {"eggplant": 0, "futureagi": 0, "omilia": 1}
    (run,) = stats["runs"]["omilia"]
    assert (run["run_id"], run["phase"], run["arguments"]) == (run_id, "pending", {"projectId": SMOKE})
    (violation,) = stats["violations"]
    assert violation["path"] == "/omilia/api/projects"
    assert [r.operation for r in control.requests()] == list(stats["operations"])


def test_connections_are_counted(control: Control, sandbox: SandboxServer) -> None:
    before = control.stats()["connections"]["opened"]
    with requests.Session() as session:
        for _ in range(3):
            session.get(f"{sandbox.url}/omilia/api/healthcheck/", timeout=60)
    assert control.stats()["connections"]["opened"] == before + 1
    for _ in range(3):
        requests.get(f"{sandbox.url}/omilia/api/healthcheck/", timeout=60)
    assert control.stats()["connections"]["opened"] == before + 4


def test_settings(control: Control, sandbox: SandboxServer) -> None:
    url = f"{sandbox.url}/_sandbox/settings"
    assert requests.post(url, json={"run_seconds": 3}, timeout=60).json()["run_seconds"] == 3
    for wrong in ({"speed": 1}, {"run_seconds": "3"}, {"run_seconds": -1}, {"artifact_bytes": True}):
        assert requests.post(url, json=wrong, timeout=60).status_code == 400
    for wrong in ({"eggplant_generation": "7.9"}, {"eggplant_progress_shape": "xml"}):
        with pytest.raises(ValueError, match="is one of"):
            control.configure(**wrong)
    assert control.settings()["run_seconds"] == 3
    control.reset()
    assert control.settings()["run_seconds"] == 10


def test_reset(omilia: Any, control: Control, sandbox: SandboxServer) -> None:
    start(omilia)
    control.fault("drop", platform="eggplant")
    control.create_project("mine")
    control.advance(86_400.0)
    assert requests.post(f"{sandbox.url}/_sandbox/reset?traffic_only=true", timeout=60).ok
    assert (control.stats()["requests"], len(control.runs()), len(control.faults())) == (0, 1, 1)
    assert requests.post(f"{sandbox.url}/_sandbox/reset", timeout=60).ok
    state = requests.get(f"{sandbox.url}/_sandbox/state", timeout=60).json()
    assert (state["runs"], state["faults"], len(state["targets"])) == ([], [], 20)
    assert control.now() == pytest.approx(time.time(), abs=3600.0)
    assert "mine" not in {t["name"] for t in state["targets"]}


def test_deciding_over_http(omilia: Any, control: Control, sandbox: SandboxServer) -> None:
    url = f"{sandbox.url}/_sandbox"
    order = {"platform": "omilia", "name": "made", "ending": "failed", "duration": 1}
    made = requests.post(f"{url}/targets", json=order, timeout=60).json()["id"]
    (run_id,) = requests.post(f"{url}/runs", json={"platform": "omilia", "target": made}, timeout=60).json()
    requests.post(f"{url}/advance", json={"seconds": 2}, timeout=60)
    assert omilia_status(omilia, run_id) == "FAILURE"
    changed = requests.patch(f"{url}/runs/{run_id}", json={"vanished": True}, timeout=60).json()
    assert changed["vanished"] is True
    assert omilia.get(f"/api/runs/{run_id}").status_code == 404
    assert requests.post(f"{url}/next", json={"platform": "omilia", "ending": "empty"}, timeout=60).ok
    assert requests.patch(f"{url}/runs/nothing", json={}, timeout=60).status_code == 404
    assert requests.patch(f"{url}/runs/{run_id}", json={"mood": "good"}, timeout=60).status_code == 422
    missing = {"platform": "omilia", "target": "nothing"}
    assert requests.post(f"{url}/runs", json=missing, timeout=60).status_code == 400


def test_time_only_moves_forward(control: Control) -> None:
    with pytest.raises(ValueError, match="forward"):
        control.advance(-1)


def test_runs_in_a_row_with_known_changes(omilia: Any, control: Control) -> None:
    for failing in (["balance_savings"], [], ["balance_savings", "block_lost_card"]):
        control.plan_next("omilia", failing=failing, duration=1)
        run_id = start(omilia)
        control.advance(1)
        assert omilia_status(omilia, run_id) == ("FAILURE" if failing else "SUCCESS")
        cases = omilia.json(f"/api/runs/{run_id}/test_cases/")["data"]
        assert sorted(case["testCaseName"] for case in cases if case["status"] == "fail") == failing
    control.set_target("omilia", "smoke", failing=["balance_savings"], duration=1)
    run_id = start(omilia)
    control.advance(1)
    assert omilia.json(f"/api/runs/{run_id}/run_stats/")["data"]["fail"] == 1
    with pytest.raises(Mistake, match="only one can be given"):
        control.plan_next("omilia", ending="failed", failing=["a"])


def test_known_failures_of_the_other_platforms(control: Control) -> None:
    tests = next(each for each in control.targets() if each["kind"] == "test configuration")
    control.set_target("eggplant", tests["id"], failing=["Search for a product"])
    run_test = control.create_run_test("Refunds", scenarios={"Refund": 3})
    control.set_target("futureagi", run_test, failing=["Refund #1", "Refund #3"])
    for platform, target in (("eggplant", tests["id"]), ("futureagi", run_test)):
        (run_id,) = control.add_runs(platform, target, age=1_000_000)
        assert control.run(run_id)["ending"] == "failed"
    run = control._find(run_id)
    assert isinstance(run, AgentExecution)
    assert [call.fails for call in run.calls] == [True, False, True]


def test_time_stands_still_between_requests_until_a_reset(control: Control, sandbox: SandboxServer) -> None:
    stopped = requests.post(f"{sandbox.url}/_sandbox/stop_clock", timeout=60).json()["now"]
    control.advance(5)
    assert control.now() == stopped + 5
    control.reset()
    began = control.now()
    wait_until(lambda: control.now() > began, "the clock goes again")
