"""Eggplant: executions and every way to follow them, test configurations, results, and how strict it is."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.eggplant import named_id

pytestmark = pytest.mark.integration

CHECKOUT, RETURNS, BROKEN, EMPTY, RESTRICTED = (named_id(number) for number in range(1, 6))
EXECUTIONS = "/execution_service/api/v1/executions"
UNKNOWN = "81924a8d-e584-428f-8c38-58b53cccb332"


def start(eggplant: Any, **fields: Any) -> str:
    response = eggplant.post(EXECUTIONS, json={"execution_type": "executing", **fields})
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"execution_id"}
    return str(response.json()["execution_id"])


def progress(eggplant: Any, **form: Any) -> Any:
    response = eggplant.post("/api/run/progress", data=form)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_life_of_an_execution(eggplant: Any, control: Control) -> None:
    run_id = start(eggplant, model_id=CHECKOUT)
    row = progress(eggplant, id=run_id)
    assert row.keys() == {
        "id", "modelname", "username", "starttime", "endtime", "type",
        "agentname", "initiator", "status", "processid",
    }  # fmt: skip
    assert (row["id"], row["modelname"], row["status"], row["endtime"]) == (run_id, "Checkout", "Running", None)
    assert (row["type"], row["initiator"], row["agentname"]) == ("model", "api", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+01", row["starttime"])
    assert isinstance(row["processid"], str)
    control.advance(10)
    row = progress(eggplant, id=run_id)
    assert row["status"] == "Passed"
    assert row["endtime"] is not None
    assert control.violations() == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model_id": CHECKOUT}, "Passed"),
        ({"model_id": CHECKOUT, "test_case_id": 11, "agent": {"agent_id": "1", "is_hosted_agent": True}}, "Passed"),
        ({"model_id": RETURNS}, "Failed"),
        ({"model_id": RETURNS, "test_case_id": 21}, "Passed"),
        ({"model_id": RETURNS, "test_case_id": 22}, "Failed"),
        ({"model_id": BROKEN}, "Incomplete"),
        ({"model_id": EMPTY}, "Passed"),
        ({"script": "Checkout.script"}, "Passed"),
        ({"script": "Returns.script"}, "Failed"),
        ({"rerun_id": 22}, "Failed"),
    ],
)
def test_how_executions_end(eggplant: Any, control: Control, fields: dict[str, Any], status: str) -> None:
    run_id = start(eggplant, **fields)
    control.advance(10)
    row = progress(eggplant, id=run_id)
    assert row["status"] == status
    assert row["type"] == ("testcase" if "test_case_id" in fields else "script" if "script" in fields else "model")
    assert row["endtime"] is not None


def test_progress_by_model(eggplant: Any) -> None:
    older, newer = start(eggplant, model_id=CHECKOUT), start(eggplant, model_id=CHECKOUT)
    start(eggplant, model_id=RETURNS)
    assert [r["id"] for r in progress(eggplant, modelName="Checkout")] == [newer, older]
    assert [r["id"] for r in progress(eggplant, modelName="Checkout", limit=1)] == [newer]
    assert progress(eggplant, modelName="Unknown") == []
    assert progress(eggplant, id=UNKNOWN) == []


@pytest.mark.parametrize("shape", ["documented", "list", "items"])
def test_shapes_of_progress(eggplant: Any, control: Control, shape: str) -> None:
    run_id = start(eggplant, model_id=CHECKOUT)
    control.configure(eggplant_progress_shape=shape)
    found = progress(eggplant, id=run_id)
    if shape == "items":
        assert found.keys() == {"items"}
        found = found["items"]
    (row,) = [found] if shape == "documented" else found
    assert row["id"] == run_id


def test_the_list_of_runs_is_oldest_first_and_paged(eggplant: Any) -> None:
    for _ in range(3):
        start(eggplant, model_id=CHECKOUT)
    page = eggplant.json("/ai/runs?limit=2&offset=1")
    assert page["total_count"] == 3
    assert [item["id"] for item in page["items"]] == [2, 3]
    assert eggplant.json("/ai/runs?limit=2&offset=3")["items"] == []
    one = eggplant.json("/ai/runs/2")
    assert one == page["items"][0]
    assert one.keys() == {"id", "modelname", "groupid", "runtype", "testcase", "teststatus", "starttime", "endtime"}
    assert eggplant.get("/ai/runs/99").status_code == 404


def test_single_executions(eggplant: Any, control: Control) -> None:
    run_id = start(eggplant, model_id=CHECKOUT)
    one = eggplant.json(f"{EXECUTIONS}/{run_id}")
    assert (one["execution_id"], one["model_id"], one["status"]) == (run_id, CHECKOUT, "RUNNING")
    control.advance(10)
    assert eggplant.json(f"/ai/executions/{run_id}")["status"] == "Passed"
    assert eggplant.get(f"{EXECUTIONS}/{UNKNOWN}").status_code == 404
    assert eggplant.get(f"{EXECUTIONS}/7").status_code == 422


@pytest.mark.parametrize(
    ("generation", "found"),
    [
        ("full", (200, 200, 200, 200, 200)),
        ("progress_only", (200, 405, 404, 200, 404)),
        ("executions_get", (404, 200, 200, 200, 200)),
        ("runs_only", (404, 405, 404, 200, 404)),
        ("v2", (404, 405, 404, 404, 200)),
    ],
)
def test_e11_generations_of_the_server(
    eggplant: Any, control: Control, generation: str, found: tuple[int, ...]
) -> None:
    run_id = start(eggplant, model_id=CHECKOUT)
    task = eggplant.post(f"/task_scheduler_service/api/v1/task_instances/{named_id(11)}").json()["task_instance_id"]
    control.configure(eggplant_generation=generation)
    # No item says which execution it is.
    assert not any(run_id in item.values() for item in eggplant.json("/ai/runs")["items"])
    assert found == (
        eggplant.post("/api/run/progress", data={"id": run_id}).status_code,
        eggplant.get(f"{EXECUTIONS}/{run_id}").status_code,
        eggplant.get(f"/ai/executions/{run_id}").status_code,
        eggplant.get(f"/ai/testconfigtasks/{task}").status_code,
        eggplant.get("/api/v2/test_results").status_code,
    )
    assert control.violations() == []


def test_aborting(eggplant: Any, control: Control) -> None:
    run_id = start(eggplant, model_id=CHECKOUT)
    response = eggplant("DELETE", f"{EXECUTIONS}/{run_id}")
    assert (response.status_code, response.content) == (204, b"")
    assert progress(eggplant, id=run_id)["status"] == "Running"
    control.advance(1)
    row = progress(eggplant, id=run_id)
    assert (row["status"], row["endtime"] is None) == ("Cancelled", False)
    assert eggplant("DELETE", f"{EXECUTIONS}/{run_id}").status_code == 409
    assert eggplant("DELETE", f"{EXECUTIONS}/{UNKNOWN}").status_code == 404
    assert control.run(run_id)["cancelled_by"] == "eggplant.abort_execution"


def test_models_and_agents(eggplant: Any, control: Control) -> None:
    models = eggplant.json("/ai/models")
    assert {m["name"]: m["modeluuid"] for m in models["items"]}["Checkout"] == CHECKOUT
    assert RESTRICTED not in {m["modeluuid"] for m in models["items"]}
    assert eggplant.json("/ai/agents")["total_count"] == 1
    assert control.violations() == []
    # What the document says lists the agents creates one.
    assert eggplant.post("/ai/agents").status_code == 201
    assert eggplant.json("/ai/agents")["total_count"] == 2
    assert "creates an agent" in control.violations()[0]


def test_a_model_without_access(eggplant: Any) -> None:
    body = {"execution_type": "executing", "model_id": RESTRICTED}
    assert eggplant.post(EXECUTIONS, json=body).status_code == 403
    assert eggplant.post("/api/run/progress", data={"modelName": "Restricted"}).status_code == 403


@pytest.mark.parametrize(
    ("number", "status", "failures", "tests"),
    [(11, "Passed", 0, 4), (12, "Failed", 1, 4), (13, "Incomplete", 0, 0), (14, "Passed", 1, 5)],
)
def test_test_configurations(
    eggplant: Any, control: Control, number: int, status: str, failures: int, tests: int
) -> None:
    response = eggplant.post(f"/task_scheduler_service/api/v1/task_instances/{named_id(number)}")
    assert response.status_code == 201
    task_id = response.json()["task_instance_id"]
    assert eggplant.json(f"/ai/testconfigtasks/{task_id}")["runstatus"] == "Running"
    control.advance(10)
    task = eggplant.json(f"/ai/testconfigtasks/{task_id}")
    assert task["runstatus"] == status
    (result,) = eggplant.json("/api/v2/test_config_results")["items"]
    assert task_id not in result.values()
    assert result["id"] not in task.values()
    filtered = {"test_config_result_id": result["id"]}
    assert eggplant.json("/api/v2/test_results", params=filtered)["total_count"] == tests
    children = eggplant.json("/ai/runs", params={"task_instance_id": task_id})["items"]
    assert [child["teststatus"] for child in children].count("FAILED") == failures
    assert len(children) == tests
    assert eggplant.json(f"/api/v2/test_config_results/{result['id']}") == result
    junit = eggplant.get(f"/api/v2/test_config_results/{result['id']}/junit")
    assert junit.headers["Content-Type"] == "application/xml"
    root = ElementTree.fromstring(junit.content)
    assert len(root.findall(".//failure")) == failures
    assert len(root.findall(".//testcase")) == tests


def test_results_logs_and_screenshots(eggplant: Any, control: Control) -> None:
    _, failing = start(eggplant, model_id=CHECKOUT), start(eggplant, model_id=RETURNS)
    control.advance(10)
    # A filter that the server does not know is ignored.
    results = eggplant.json("/api/v2/test_results", params={"execution_id": failing})
    assert [r["id"] for r in results["items"]] == [2, 1]
    result = results["items"][0]
    assert (result["status"], result["model_name"]) == ("FAILED", "Returns")
    path = f"/api/v2/test_results/{result['id']}"
    assert eggplant.json(path) == result
    log = eggplant.json(f"{path}/logs")["items"]
    assert {line["severity"] for line in log} == {"INFORMATIONAL"}
    assert any("not found" in line["message"] for line in log)
    (picture,) = eggplant.json(f"{path}/screenshots")["items"]
    image = eggplant.get(f"/api/v2/screenshots/{picture['id']}")
    assert image.headers["Content-Type"] == "image/png"
    assert image.content.startswith(b"\x89PNG")
    assert eggplant.json("/ai/runlogs/2")["total_count"] > 0
    assert eggplant.get(f"/api/v2/test_results/{UNKNOWN}/logs").status_code == 404


def start_with(**fields: Any) -> dict[str, Any]:
    return {"json": {"execution_type": "executing", "model_id": CHECKOUT, **fields}}


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", EXECUTIONS, {"json": {"execution_type": "executing"}}, 400),
        ("POST", EXECUTIONS, {"json": {"model_id": CHECKOUT}}, 422),
        ("POST", EXECUTIONS, start_with(execution_type="exploring"), 422),
        ("POST", EXECUTIONS, start_with(model_id="Checkout"), 422),
        ("POST", EXECUTIONS, start_with(model_id=UNKNOWN), 422),
        ("POST", EXECUTIONS, start_with(test_case_id="11"), 422),
        ("POST", EXECUTIONS, start_with(test_case_id=99), 422),
        ("POST", EXECUTIONS, start_with(modelId=CHECKOUT), 422),
        ("POST", EXECUTIONS, start_with(agent="1"), 422),
        ("POST", EXECUTIONS, start_with(agent={"id": "1"}), 422),
        ("POST", EXECUTIONS, start_with(sut={"criteria": "tag"}), 422),
        ("POST", EXECUTIONS, {"data": {"model_id": CHECKOUT}}, 422),
        ("POST", EXECUTIONS, {"data": "{", "headers": {"Content-Type": "application/json"}}, 422),
        ("POST", f"{EXECUTIONS}/", start_with(), 404),
        ("POST", "/api/run/progress", {"json": {"id": UNKNOWN}}, 400),
        ("POST", "/api/run/progress", {"data": {"limit": "1"}}, 400),
        ("POST", "/api/run/progress", {"data": {"id": UNKNOWN, "modelName": "Checkout"}}, 400),
        ("POST", "/api/run/progress", {"data": {"id": UNKNOWN, "page": "1"}}, 400),
        ("POST", "/api/run/progress", {"data": {"modelName": "Checkout", "limit": "all"}}, 400),
        ("GET", "/api/run/progress", {}, 405),
        ("GET", "/ai/runs/", {}, 404),
        ("GET", "/ai/runs?page=1", {}, 422),
        ("GET", "/ai/runs?limit=all", {}, 422),
        ("GET", "/api/v2/test_results?name=x", {}, 422),
    ],
)
def test_violations(
    eggplant: Any, control: Control, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    response = eggplant(method, path, **options)
    assert response.status_code == status, response.text
    assert "detail" in response.json()
    assert len(control.violations()) == 1
    assert control.runs() == []


def test_no_token(eggplant: Any, control: Control) -> None:
    del eggplant.session.headers["Authorization"]
    response = eggplant.get("/ai/runs")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "no bearer token" in control.violations()[0]


def test_e7_names_and_tokens_of_api_v2(eggplant: Any, control: Control) -> None:
    cases = eggplant.json("/ai/models/1/testcases")["items"]
    assert cases[0] == {"id": 11, "testcaseName": "Pay by card"}
    assert eggplant.get("/ai/models/99/testcases").status_code == 404
    configurations = eggplant.json("/test_config_service/api/v1/test_configurations")["items"]
    assert {"id": named_id(11), "name": "Nightly shop"} in configurations
    good = {"client_id": "sandbox-client", "client_secret": "sandbox-canary-eggplant-secret"}
    token = eggplant.post("/api/v2/auth", json=good).json()["access_token"]
    assert eggplant.get("/ai/runs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert control.violations() == []
    assert eggplant.post("/api/v2/auth", json=good | {"client_secret": "wrong-canary"}).status_code == 401
    assert eggplant.post("/api/v2/auth", data=good).status_code == 422


def test_e11_a_test_status_before_the_end(eggplant: Any, control: Control) -> None:
    control.configure(eggplant_early_verdict=True)
    start(eggplant, model_id=CHECKOUT)
    (item,) = eggplant.json("/ai/runs")["items"]
    assert (item["runstatus"], item["teststatus"], item["endtime"]) == ("STARTED", "FAILED", None)
    control.advance(10)
    (item,) = eggplant.json("/ai/runs")["items"]
    assert (item.get("runstatus"), item["teststatus"]) == (None, "Passed")


def test_results_of_a_run_that_never_ends_are_listed(eggplant: Any, control: Control) -> None:
    control.hang_run(start(eggplant, model_id=CHECKOUT))
    items = eggplant.json("/api/v2/test_results")["items"]
    assert items
    assert all(item["end_time"] is None for item in items)
