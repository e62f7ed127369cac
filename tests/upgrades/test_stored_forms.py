"""What earlier versions have stored in Airflow's database is read by this one, and nothing of it is lost.

The fixtures are what a running Airflow had in its tables (``python -m tests.upgrades --write NAME``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.lifecycle.starting import Phase, Record
from airflow_provider_testruns.lifecycle.waiting import WaitEnd, WaitStatus
from airflow_provider_testruns.links.run import TEST_RUN_KEY, URL_KEY
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.triggers.run import RunTrigger

pytestmark = pytest.mark.unit

_FILES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))
Form = dict[str, Any]


@pytest.fixture(params=_FILES, ids=[path.stem for path in _FILES])
def stored(request: pytest.FixtureRequest) -> dict[str, list[Form]]:
    """The forms that one version has stored, by their kind."""
    forms: dict[str, list[Form]] = json.loads(request.param.read_text())
    return forms


def test_triggers_are_made_of_their_rows_and_keep_all_that_is_in_them(stored: dict[str, list[Form]]) -> None:
    kinds = set()
    for form in stored["trigger"]:
        assert form["name"] == f"{RunTrigger.__module__}.{RunTrigger.__qualname__}"
        kwargs = form["value"]
        trigger = RunTrigger(**kwargs)
        assert trigger.serialize() == (form["name"], kwargs)
        run = Run.from_dict(trigger.test_run)
        assert run.to_dict() == trigger.test_run
        kinds.add((run.platform, run.kind.value, trigger.log_cursor is not None))
    assert {(platform, "run", False) for platform in ("eggplant", "futureagi", "omilia")} <= kinds
    assert {kind for _, kind, _ in kinds} == {"run", "generation", "test_configuration", "model"}
    assert ("omilia", "run", True) in kinds


def test_records_are_read_and_keep_all_that_is_in_them(stored: dict[str, list[Form]]) -> None:
    phases = set()
    for form in stored["record"]:
        assert form["name"] == "test_run"
        record = Record.from_json(form["value"])
        assert form["value"].items() <= record.to_json().items()
        phases.add((record.run.platform if record.run else None, record.phase))
    assert {(platform, phase) for platform, phase in phases if platform is None} == {(None, Phase.INTENT)}
    for platform in ("eggplant", "futureagi", "omilia"):
        assert {(platform, Phase.STARTED), (platform, Phase.JUDGED)} <= phases


def test_events_that_wait_for_a_worker_are_read_and_keep_all_that_is_in_them(stored: dict[str, list[Form]]) -> None:
    found = set()
    for form in stored["next"]:
        assert form["name"] == "execute_complete"
        # Without an event: the task was deferred, and Airflow adds it.
        event = form["value"].get("event")
        if event is None:
            continue
        end = WaitEnd.from_event(event)
        # The log's position is read apart.
        assert end.to_event() == {name: value for name, value in event.items() if name != "log_told"}
        found.add((end.status, type(end.error).__name__ if end.error else None, "log_told" in event))
    assert found == {
        (WaitStatus.FINISHED, None, False),
        (WaitStatus.FINISHED, None, True),
        (WaitStatus.TIMEOUT, None, False),
        (WaitStatus.ERROR, "NotFoundError", False),
    }


def test_xcoms_keep_the_names_that_pages_links_and_dags_read(stored: dict[str, list[Form]]) -> None:
    xcoms = {(form["task"], form["name"]): form["value"] for form in stored["xcom"]}
    for task in ("eggplant_deferred", "futureagi_in_place", "omilia_deferred", "generation", "configuration", "watch"):
        report = xcoms[task, "return_value"]
        assert report["verdict"] == "passed"
        assert {"platform", "run_id", "raw_state", "url", "total", "passed", "failed", "pass_rate"} <= set(report)
        assert xcoms[task, "run_id"] == report["run_id"]
        assert xcoms[task, URL_KEY] == report["url"]
    assert xcoms["failing_deferred", "return_value"]["verdict"] == "failed"
    assert set(xcoms["start", "return_value"]) == {"run_id", "run_url", "state"}
    assert [report["verdict"] for report in xcoms["watch_model", "return_value"]] == ["passed", "passed"]
    for (task, name), value in xcoms.items():
        if name == TEST_RUN_KEY:
            assert set(value) == {"platform", "conn_id", "run_id", "kind"}, task


def test_what_a_later_version_adds_is_passed_over(stored: dict[str, list[Form]]) -> None:
    later = {"added_later": {"by": "somebody"}}
    kwargs = stored["trigger"][0]["value"]
    changed = {**kwargs, **later, "run": {**kwargs["run"], **later, "wait": {**kwargs["run"].get("wait", {}), **later}}}
    trigger = RunTrigger(**changed)
    assert Run.from_dict(trigger.test_run) == Run.from_dict(kwargs["run"])
    assert (trigger.deadline, trigger.conn_id) == (kwargs["deadline"], kwargs["conn_id"])
    for form in stored["record"]:
        value = form["value"]
        changed = {**value, **later, "mark": {**value["mark"], **later}}
        assert Record.from_json(changed) == Record.from_json(value)
    event = next(form["value"]["event"] for form in stored["next"] if "event" in form["value"])
    assert WaitEnd.from_event({**event, **later, "run": {**event["run"], **later}}) == WaitEnd.from_event(event)
