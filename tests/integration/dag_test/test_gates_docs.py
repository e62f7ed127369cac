"""The DAGs of docs/gates.md are run, the human gate with each answer."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_testruns.sandbox.control import Control
from tests.harness.pace import DURATION, getting_on_with_polls
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

TEXT = (Path(__file__).parents[3] / "docs" / "gates.md").read_text()
BLOCKS = dict(
    reversed((block, re.findall(r"^(\w+)\(\)$", block, re.MULTILINE)[-1]))
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
)
PROJECT = "0a000000-0000-4000-8000-000000000002"
#: Somebody who answers in Airflow's UI: its API's own function, in a thread beside dag.test().
ANSWER = """
import threading


def answer():
    import time

    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    class Somebody:
        def get_id(self):
            return "7"

        get_name = get_id

    waiting = select(TaskInstance).where(TaskInstance.state == "awaiting_input")
    answered = UpdateHITLDetailPayload(chosen_options=["{option}"], params_input={{}})
    while True:
        time.sleep(0.3)
        with create_session() as session:
            ti = session.scalar(waiting)
            if ti is not None:
                update_hitl_detail(ti.dag_id, ti.run_id, ti.task_id, answered, Somebody(), session)
                return


threading.Thread(target=answer, daemon=True).start()
"""


def source(dag_id: str) -> str:
    return BLOCKS[dag_id].replace(f"\n{dag_id}()", f"\ndag = {dag_id}()")


def test_all_blocks_are_run_here() -> None:
    assert set(BLOCKS) == {
        "quarantine",
        "first_failure_stops",
        "human_gate",
        "retries_by_cause",
        "one_at_a_time",
    }


def test_quarantine(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=0.0)
    done = airflow.run_file(source("quarantine"), "quarantine")["regression"]
    assert done.state == "success"
    assert [case["name"] for case in done.result["allowed_failures"]] == [
        "balance_joint_account",
        "transfer_above_limit",
    ]
    assert done.result["new_failures"] == [{"name": "block_then_replace", "suite": ""}]
    assert "No baseline: there is no earlier run of this task." in done.result["notes"]


def test_first_failure_stops(airflow: AirflowProcess, platforms: Control) -> None:
    # So long that only a stop ends it.
    platforms.set_target("omilia", PROJECT, duration=DURATION)
    with getting_on_with_polls(platforms, "omilia.run_stats", polls=8):
        done = airflow.run_file(source("first_failure_stops"), "first_failure_stops")["tests"]
    assert (done.state, done.result["verdict"], done.result["stopped_early"]) == ("failed", "failed", True)
    assert platforms.run(done.result["run_id"])["phase"] == "cancelled"
    assert done.record is not None
    assert done.record["verdict"] == "failed"


@pytest.mark.parametrize(
    ("ending", "option", "approval", "release"),
    [
        ("passed", "Reject", "skipped", "success"),
        ("failed", "Approve", "success", "success"),
        ("failed", "Reject", "success", "skipped"),
    ],
    ids=["the tests pass", "approved", "rejected"],
)
def test_human_gate(
    airflow: AirflowProcess, platforms: Control, ending: str, option: str, approval: str, release: str
) -> None:
    platforms.set_target("omilia", PROJECT, ending=ending)
    answer = ANSWER.format(option=option) if ending == "failed" else ""
    done = airflow.run_file(source("human_gate") + answer, "human_gate")
    states = {name: task.state for name, task in done.items()}
    assert states == {
        "tests": "success" if ending == "passed" else "failed",
        "decide": "success",
        "approval": approval,
        "release": release,
    }
    if ending == "failed":
        with closing(sqlite3.connect(airflow.database)) as connection:
            bodies = [body for (body,) in connection.execute("SELECT body FROM hitl_detail")]
        assert any(body.startswith(f"**Run {done['tests'].result['run_id']} failed**\n") for body in bodies)


def test_retries_by_cause(airflow: AirflowProcess, platforms: Control) -> None:
    done = airflow.run_file(source("retries_by_cause"), "retries_by_cause")["tests"]
    assert (done.state, done.tries, done.error.kind) == ("failed", 1, "RunFailedError")
    assert len(platforms.runs("omilia")) == 1


def test_one_at_a_time(airflow: AirflowProcess, platforms: Control) -> None:
    done = airflow.run_file(source("one_at_a_time"), "one_at_a_time")["checkout"]
    assert (done.state, done.result["verdict"]) == ("success", "passed")
