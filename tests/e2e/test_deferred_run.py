"""Runs that are waited for in a real triggerer: resumed, killed, cleared, and handed over to another triggerer.

One set of DAG runs for all of them: each test goes on where those stand that were triggered at the start.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.sandbox.control import Control
from demo.airflow import LocalAirflow
from tests.e2e.conftest import SharedAirflow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

#: A project of its own for each.
FOR_ONE_TASK = ("killed", "cleared", "handed_over", "killed_in_place", "hostile")
#: Tasks of two DAGs whose runs are of one project.
CROWD = [
    ("crowd_one", "run_0"),
    ("crowd_one", "run_1"),
    ("crowd_one", "run_2"),
    ("crowd_two", "run_3"),
    ("crowd_two", "run_4"),
]
FINAL = ("success", "failed", "skipped", "upstream_failed")


@dataclass
class World:
    """Airflow, the platforms, and the DAG runs that were triggered."""

    airflow: LocalAirflow
    platforms: Control
    dag_runs: dict[str, str]
    watched: str
    crowd: list[str]

    def started(self, project: str) -> list[dict[str, Any]]:
        """The runs of a project, in the order of their start."""
        return [run for run in self.platforms.runs("omilia") if run["target_name"] == project]

    def looks(self, run_id: str) -> int:
        """How often a client has looked at a run by its id."""
        return sum(run_id in request.path for request in self.platforms.requests("omilia.get_run"))

    def is_polled(self, run_id: str) -> None:
        """Wait until the triggerer looks after a run: two looks from now."""
        before = self.looks(run_id)
        wait_until(lambda: self.looks(run_id) >= before + 2, f"run {run_id} is polled")

    def deferred(self, dag_id: str, task_id: str = "run", index: int = -1, try_number: int = 1) -> None:
        """Wait until a task is deferred, and all of Airflow has taken note of it.

        An event that comes while the scheduler still has the end of the first part before it would fail the task:
        Airflow 3.3 then takes the one for the end of the whole task.
        """
        state = self.airflow.wait_for_task(dag_id, self.dag_runs[dag_id], task_id, ("deferred", *FINAL), index)
        assert state == "deferred", self.log(dag_id, task_id, try_number, index)
        noted = (
            f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{dag_id}',"
            f" task_id='{task_id}', run_id='{self.dag_runs[dag_id]}', try_number={try_number}, map_index={index})"
        )
        log = self.airflow.logs / "scheduler.log"
        wait_until(lambda: noted in log.read_text(), f"{dag_id}.{task_id} is noted as deferred")

    def ended(self, dag_id: str, task_id: str = "run", index: int = -1) -> str:
        """Wait until a task is over; return its state."""
        return self.airflow.wait_for_task(dag_id, self.dag_runs[dag_id], task_id, FINAL, index)

    def log(self, dag_id: str, task_id: str = "run", try_number: int = 1, map_index: int = -1) -> str:
        """A try's log as one text."""
        lines = self.airflow.api.log(dag_id, self.dag_runs[dag_id], task_id, try_number, map_index)
        return "\n".join(str(line.get("event")) for line in lines)


@pytest.fixture(scope="module")
def world(shared: SharedAirflow) -> World:
    control, airflow = shared.held.control, shared.airflow
    for number, name in enumerate(FOR_ONE_TASK):
        control.create_project(name, id=f"0e000000-0000-4000-8000-00000000000{number}", ending="passed")
    (watched,) = control.add_runs("omilia", "smoke-git")
    project = control.create_project("crowd", id="0e000000-0000-4000-8000-0000000000c0", ending="passed")
    crowd = control.add_runs("omilia", project, len(CROWD))
    conf = {"watched": {"run_id": watched}, "crowd_one": {"run_ids": crowd}, "crowd_two": {"run_ids": crowd}}
    dag_ids = ("through", *FOR_ONE_TASK, *conf)
    airflow.wait_for_dags(dag_ids)
    dag_runs = {dag_id: airflow.api.trigger(dag_id, conf.get(dag_id)) for dag_id in dag_ids}
    return World(airflow, control, dag_runs, watched, crowd)


THROUGH = [("eggplant", -1), ("futureagi", -1), ("omilia", 0), ("omilia", 1)]


def test_a_deferred_run_has_its_link_while_it_goes_and_its_report_when_it_is_over(world: World) -> None:
    api, dag_run = world.airflow.api, world.dag_runs["through"]
    runs = {}
    for task_id, index in THROUGH:
        world.deferred("through", task_id, index)
        run_id = api.xcom("through", dag_run, task_id, "run_id", index)
        (address,) = api.links("through", dag_run, task_id, index).values()
        assert address is not None
        assert run_id in address
        assert api.links("through", dag_run, task_id, index).keys() == {"Open test run"}
        assert world.platforms.run(run_id)["phase"] in ("pending", "running", "evaluating")
        runs[task_id, index] = run_id
    assert len(set(runs.values())) == 4

    for run_id in runs.values():
        world.platforms.finish_run(run_id)
    assert world.airflow.wait_for_run("through", dag_run) == "failed"
    verdicts = {
        ("eggplant", -1): ("failed", "failed", 1),
        ("futureagi", -1): ("success", "passed", 5),
        ("omilia", 0): ("success", "passed", 4),
        ("omilia", 1): ("failed", "failed", 9),
    }
    for (task_id, index), (state, verdict, total) in verdicts.items():
        done = api.task_instance("through", dag_run, task_id, index)
        assert (done["state"], done["try_number"]) == (state, 1)
        report = api.xcom("through", dag_run, task_id, map_index=index)
        assert (report["run_id"], report["verdict"], report["total"]) == (runs[task_id, index], verdict, total)
        assert api.links("through", dag_run, task_id, index) == {"Open test run": report["url"]}
        record = api.task_state("through", dag_run, task_id, "test_run", index)
        assert (record["phase"], record["verdict"]) == ("judged", verdict)
        log = world.log("through", task_id, 1, index)
        # The worker's words before and after, and the triggerer's between them.
        parts = (
            f"run {report['run_id']}.",
            f"Waiting for run {report['run_id']} in the triggerer",
            f"Run {report['run_id']} is finished",
            f"Result of run {report['run_id']}:",
        )
        places = [log.find(part) for part in parts]
        assert -1 not in places, (task_id, log)
        assert places == sorted(places), (task_id, log)
    errors = api.errors("through", dag_run, "omilia", 1, 1)
    assert errors[0][0] == "RunFailedError"
    assert "balance_joint_account" in errors[0][1]


def test_a_sensor_resumes_with_the_report_of_somebody_elses_run(world: World) -> None:
    world.deferred("watched")
    world.is_polled(world.watched)
    world.platforms.finish_run(world.watched)
    assert world.ended("watched") == "success"
    report = world.airflow.api.xcom("watched", world.dag_runs["watched"], "run")
    assert (report["run_id"], report["verdict"], report["passed"]) == (world.watched, "passed", 4)


def test_tasks_whose_runs_are_polled_together_have_each_its_own_lines_in_its_log(world: World) -> None:
    """Whoever came first once got the lines of all others, of other DAGs too, and the others none."""
    for dag_id, task_id in CROWD:
        world.deferred(dag_id, task_id)
    lists = world.platforms.count("omilia.list_project_runs")
    wait_until(lambda: world.platforms.count("omilia.list_project_runs") >= lists + 3, "they are polled together")
    world.platforms.finish_run(world.crowd[0])
    assert world.ended(*CROWD[0]) == "success"
    for run_id in world.crowd[1:]:
        world.platforms.finish_run(run_id)
    for (dag_id, task_id), run_id in zip(CROWD, world.crowd, strict=True):
        assert world.ended(dag_id, task_id) == "success"
        log = world.log(dag_id, task_id)
        # Once of the worker, then of the triggerer: what it was at first, and its end.
        assert log.count(f"Run {run_id} is ") >= 3, log
        assert f"Run {run_id} is finished" in log, log
        assert [other for other in world.crowd if other != run_id and other in log] == []


def test_the_run_of_a_deferred_task_that_is_marked_failed_is_cancelled(world: World) -> None:
    world.deferred("killed")
    (run,) = world.started("killed")
    world.is_polled(run["run_id"])
    world.airflow.api.set_state("killed", world.dag_runs["killed"], "run", "failed")
    wait_until(lambda: world.started("killed")[0]["phase"] == "cancelled", "the run is cancelled")
    (run,) = world.started("killed")
    assert run["cancelled_by"] == "omilia.revoke_run"
    wait_until(lambda: "Asked the platform to cancel run" in world.log("killed"), "the log tells of the cancel")
    assert "the task was set to failed" in world.log("killed")


def test_the_run_of_a_task_that_waits_in_place_and_is_marked_failed_is_cancelled(world: World) -> None:
    wait_until(lambda: bool(world.started("killed_in_place")), "the run is started")
    (run,) = world.started("killed_in_place")
    world.is_polled(run["run_id"])
    world.airflow.api.set_state("killed_in_place", world.dag_runs["killed_in_place"], "run", "failed")
    wait_until(lambda: world.started("killed_in_place")[0]["phase"] == "cancelled", "the run is cancelled")
    assert len(world.started("killed_in_place")) == 1


def test_a_cleared_task_leaves_its_run_and_starts_another(world: World) -> None:
    world.deferred("cleared")
    (old,) = world.started("cleared")
    world.is_polled(old["run_id"])
    world.airflow.api.clear("cleared", world.dag_runs["cleared"], ["run"])
    wait_until(lambda: len(world.started("cleared")) == 2, "another run is started")
    old, new = world.started("cleared")
    wait_until(lambda: world.platforms.run(old["run_id"])["phase"] == "cancelled", "the old run is cancelled")
    world.airflow.wait_for_task("cleared", world.dag_runs["cleared"], "run", ("deferred",))
    world.deferred("cleared", try_number=2)
    world.is_polled(new["run_id"])
    assert world.platforms.run(new["run_id"])["cancelled_by"] is None
    world.platforms.finish_run(new["run_id"])
    assert world.ended("cleared") == "success"
    report = world.airflow.api.xcom("cleared", world.dag_runs["cleared"], "run")
    assert (report["run_id"], report["verdict"]) == (new["run_id"], "passed")
    assert len(world.started("cleared")) == 2


def test_what_a_hostile_platform_says_ends_one_wait_and_no_other(world: World) -> None:
    world.deferred("hostile")
    world.deferred("handed_over")
    (run,) = world.started("hostile")
    (other,) = world.started("handed_over")
    said = "half \ud800 of a pair, NUL \x00, \x1b[31mred\x1b[0m\nERROR - a line that is not ours"
    body = json.dumps({"detail": said})
    world.platforms.fault("status", status=403, body=body, operation="omilia.get_run", path=run["run_id"])
    assert world.ended("hostile") == "failed"
    kind, message = world.airflow.api.errors("hostile", world.dag_runs["hostile"], "run")[0]
    assert kind == "PermissionDeniedError"
    assert "half \ufffd of a pair, NUL \ufffd, red ERROR - a line that is not ours" in message
    # The same triggerer goes on with the others.
    world.is_polled(other["run_id"])


def test_a_run_outlives_the_triggerer(world: World) -> None:
    world.deferred("handed_over")
    (run,) = world.started("handed_over")
    world.is_polled(run["run_id"])
    world.airflow.end_component("triggerer")
    world.airflow.start_component("triggerer")
    world.is_polled(run["run_id"])
    assert world.platforms.run(run["run_id"])["cancelled_by"] is None
    world.platforms.finish_run(run["run_id"])
    assert world.ended("handed_over") == "success"
    report = world.airflow.api.xcom("handed_over", world.dag_runs["handed_over"], "run")
    assert report["run_id"] == run["run_id"]
    (run,) = world.started("handed_over")
    assert run["cancelled_by"] is None


def test_nothing_was_started_twice_or_against_the_documents(world: World) -> None:
    # Whatever became of the tests before: each task is past its start by now, or soon.
    wait_until(lambda: bool(world.started("killed_in_place")), "the run is started")
    for dag_id, task_id, index in [
        *(("through", *task) for task in THROUGH),
        *((dag_id, "run", -1) for dag_id in FOR_ONE_TASK if dag_id != "killed_in_place"),
    ]:
        world.airflow.wait_for_task(dag_id, world.dag_runs[dag_id], task_id, ("deferred", *FINAL), index)
    created = {platform: len(world.platforms.runs(platform)) for platform in ("eggplant", "futureagi", "omilia")}
    tries = world.airflow.api.task_instance("cleared", world.dag_runs["cleared"], "run")["try_number"]
    # Two of Omilia in "through", one each that was killed, killed in place, handed over and hostile, one for each try
    # of "cleared", the one that was watched, and the crowd.
    assert created == {"eggplant": 1, "futureagi": 1, "omilia": 2 + 4 + tries + 1 + len(CROWD)}
    assert world.platforms.violations() == []


def test_no_secret_is_left_in_the_database_or_the_logs(world: World) -> None:
    issued = world.platforms.issued_tokens()
    assert issued
    places = {str(path): path.read_bytes().decode(errors="replace") for path in _files(world.airflow.folder)}
    with closing(sqlite3.connect(world.airflow.home / "airflow.db")) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            places[f"table {table}"] = repr(connection.execute(f'SELECT * FROM "{table}"').fetchall())
    assert "held_omilia" in places["table rendered_task_instance_fields"]
    assert any("Result of run" in text for text in places.values())
    # Every secret of the sandbox's connections and every token that it hands out begins with these words.
    assert all("sandbox-canary" in token for token in issued)
    assert [place for place, text in places.items() if "sandbox-canary" in text] == []


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
