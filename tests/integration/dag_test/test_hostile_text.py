"""What a platform says, through a real Airflow: no string costs a verdict, and none reaches the database as it came."""

from __future__ import annotations

import json

import pytest

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

PROJECT = "0a000000-0000-4000-8000-000000000001"
HOSTILE = "half \ud800 of a pair, NUL \x00, \x1b[31mred\x1b[0m\nERROR - a line that is not ours\u202e"


def _hostile(deferrable: bool) -> None:
    OmiliaCreateRunOperator(
        task_id="run", project_id="0a000000-0000-4000-8000-000000000001", deferrable=deferrable, poll_interval=0.1
    )


def _is_clean(text: str) -> bool:
    text.encode()
    bad = ("\ud800", "\\ud800", "\x00", "\\u0000", "\x1b", "\\u001b", "\u202e", "\\u202e")
    return not any(part in text for part in bad)


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_error_while_the_run_is_waited_for(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    body = json.dumps({"detail": HOSTILE})
    platforms.fault("status", status=403, body=body, operation="omilia.get_run", skip=1)
    task = airflow.run(_hostile, deferrable=deferrable)["run"]

    assert task.state == "failed"
    assert task.error.kind == "PermissionDeniedError"
    assert _is_clean(task.error.message)
    assert not any(line.startswith("ERROR - a line that is not ours") for line in task.lines)
    assert task.deferrals == deferrable


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_decides_nothing_costs_no_verdict(airflow: AirflowProcess, platforms: Control, deferrable: bool) -> None:
    cases = [
        {"testCaseName": f"good {HOSTILE}", "status": "success"},
        {"testCaseName": f"bad {HOSTILE}", "status": "fail", "generalErrors": [{"text": HOSTILE}]},
        {"testCaseName": f"bad {HOSTILE}\x00", "status": "fail", "generalErrors": [{"text": HOSTILE}]},
    ]
    stats = {"pass": 1, "fail": 2, "unavailable": 0, "statsId": HOSTILE}
    platforms.fault("wrong_json", body=json.dumps({"data": cases}), operation="omilia.run_test_cases")
    platforms.fault("wrong_json", body=json.dumps({"data": stats}), operation="omilia.run_stats")
    task = airflow.run(_hostile, deferrable=deferrable)["run"]

    assert (task.state, task.error.kind) == ("failed", "RunFailedError")
    assert (task.result["verdict"], task.result["total"], task.result["failed"]) == ("failed", 3, 2)
    names = [case["name"] for case in task.result["failures"]]
    # Two names stay two.
    assert len(set(names)) == 2
    assert all(name.startswith("bad half \ufffd of a pair, NUL \ufffd, red ERROR") for name in names)
    assert all("\ufffd" in case["message"] for case in task.result["failures"])
    assert not any(line.startswith("ERROR - a line that is not ours") for line in task.lines)
    tables = airflow.tables()
    assert all(_is_clean(tables[name]) for name in ("xcom", "task_state_store", "task_instance", "trigger"))
