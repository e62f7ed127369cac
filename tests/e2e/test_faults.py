"""Kills, cancels and deadlines on a real Airflow: each fault strikes exactly where it is meant to.

One Airflow for all; each DAG has a task ``run`` and a sandbox of its own, so that its faults are nobody else's. What
takes long begins first and is looked at last.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import LocalAirflow
from demo.processes import families
from demo.rest import AirflowApiError
from tests.chaos.ledger import Ledger
from tests.e2e.fault_dags.faults import DAGS
from tests.e2e.gate import Gate
from tests.harness.database import migrated_database
from tests.harness.waiting import WITHIN, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

FINAL = ("success", "failed", "skipped", "upstream_failed")
#: S of the connections: how long a start may take. Where a test has to strike while a request hangs there is more.
TIMEOUT = 10
LONG = {"failed_in_start": 120, "failed_while_it_hangs": 30, "killed_in_start": 120, "killed_in_resume": 120}
HEALTH_THRESHOLD = 6


@dataclass
class World:
    """Airflow, and the platform behind each DAG."""

    airflow: LocalAirflow
    platforms: Mapping[str, Control]
    ledger: Ledger
    #: What stands before some of the platforms, to be shut.
    gates: Mapping[str, Gate]
    #: A server that none of the connections leads to.
    stranger: SandboxServer
    dag_runs: dict[str, str] = field(default_factory=dict)

    def go(self, *dag_ids: str) -> None:
        """Start DAGs."""
        for dag_id in dag_ids:
            self.dag_runs[dag_id] = self.airflow.api.trigger(dag_id)

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """What was started for a DAG, oldest first."""
        return self.platforms[dag_id].runs()

    def state(self, dag_id: str) -> str | None:
        """The state of its task."""
        state: str | None = self.airflow.api.task_instance(dag_id, self.dag_runs[dag_id], "run")["state"]
        return state

    def until_state(self, dag_id: str, *states: str) -> None:
        """Wait for the task."""
        found = self.airflow.wait_for_task(dag_id, self.dag_runs[dag_id], "run", (*states, *FINAL))
        assert found in states, self.log(dag_id)

    def ended(self, dag_id: str) -> str:
        """Wait until the task is over; return its state."""
        return self.airflow.wait_for_task(dag_id, self.dag_runs[dag_id], "run", FINAL)

    def process(self, dag_id: str) -> psutil.Process:
        """The process that the task runs in."""
        with closing(sqlite3.connect(self.ledger.database, timeout=30)) as connection:
            (pid,) = connection.execute(
                "SELECT pid FROM task_instance WHERE dag_id = ? AND state = 'running'", (dag_id,)
            ).fetchone()
        return psutil.Process(pid)

    def phases(self, dag_id: str) -> list[tuple[str, str | None]]:
        """The writes of the task's record: phase, and which of its runs it names."""
        runs = [run["run_id"] for run in self.runs(dag_id)]
        changes = self.ledger.records(dag_id)["run", -1]
        return [
            (change.phase or "removed", None if change.run_id is None else f"run {runs.index(change.run_id) + 1}")
            for change in changes
        ]

    def log(self, dag_id: str) -> str:
        """The logs of all tries as one text, a line for each entry, with its time."""
        tries = self.airflow.api.task_instance(dag_id, self.dag_runs[dag_id], "run")["try_number"]
        lines = [
            f"{line.get('timestamp')} {line['event']}" for n in range(1, tries + 1) for line in self.lines(dag_id, n)
        ]
        return "\n".join(lines)

    def lines(self, dag_id: str, try_number: int) -> list[dict[str, Any]]:
        """A try's log; none while there is none."""
        try:
            return self.airflow.api.log(dag_id, self.dag_runs[dag_id], "run", try_number)
        except AirflowApiError as e:
            # Of a try that was lost before its task had begun Airflow keeps nothing.
            if e.status == 404:
                return []
            raise

    def when(self, dag_id: str, said: str) -> float:
        """When the log said something."""
        match = re.search(rf"^(\S+) .*{said}", self.log(dag_id), re.MULTILINE)
        assert match is not None, f"{said!r} is not in\n{self.log(dag_id)}"
        return datetime.fromisoformat(match[1].replace("Z", "+00:00")).timestamp()

    def report(self, dag_id: str) -> dict[str, Any]:
        """The task's return value."""
        report: dict[str, Any] = self.airflow.api.xcom(dag_id, self.dag_runs[dag_id], "run")
        return report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        connections, platforms, gates = {}, {}, {}
        stranger = stack.enter_context(SandboxServer())
        for dag_id, (platform, _) in DAGS.items():
            sandbox = stack.enter_context(SandboxServer(run_seconds=3600.0))
            told = json.dumps(sandbox.connections()[f"{platform}_default"])
            if dag_id.startswith("outage_refused"):
                gate = gates[dag_id] = stack.enter_context(Gate(urlsplit(sandbox.url).port or 0))
                told = told.replace(sandbox.url, gate.url)
            connections[dag_id] = json.loads(told)
            connections[dag_id]["extra"]["timeout"] = LONG.get(dag_id, TIMEOUT)
            platforms[dag_id] = sandbox.control
        airflow = LocalAirflow(
            tmp_path_factory.mktemp("faults"),
            dags=Path(__file__).parent / "fault_dags",
            connections=connections,
            options={
                # On a busy machine Airflow's scheduler may take longer than the default to process a deferral.
                "AIRFLOW__TESTRUNS__EVENT_DELAY": "12",
                # Nobody changes the DAG files.
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
            },
            parallelism=8,
            say=print,
            database=migrated_database(),
        )
        stack.enter_context(airflow)
        ledger = Ledger(airflow.home / "airflow.db")
        ledger.begin()
        airflow.wait_for_dags(list(DAGS))
        world = World(airflow, platforms, ledger, gates, stranger)
        # A lookup that finds nothing takes a minute and more.
        world.go("dies_after_intent")
        yield world


def finish_when_started(world: World, dag_id: str) -> None:
    """End a run as soon as it is there."""
    wait_until(lambda: bool(world.runs(dag_id)), f"{dag_id} has started a run")
    world.platforms[dag_id].finish_run(world.runs(dag_id)[-1]["run_id"])


# Workers that are killed

BEFORE_STARTED = ("dies_before_started_omilia", "dies_before_started_futureagi", "dies_before_started_eggplant")


def test_a_worker_that_dies_between_response_and_record_leaves_a_run_that_is_adopted(world: World) -> None:
    world.go(*BEFORE_STARTED)
    for dag_id in BEFORE_STARTED:
        finish_when_started(world, dag_id)
    for dag_id in BEFORE_STARTED:
        assert world.ended(dag_id) == "success", world.log(dag_id)
        (run,) = world.runs(dag_id)
        assert world.report(dag_id)["run_id"] == run["run_id"]
        phases = world.phases(dag_id)
        assert phases[:2] == [("intent", None), ("started", "run 1")]
        assert phases[-1] == ("judged", "run 1")
        assert "may have started a run; checking" in world.log(dag_id)
        assert f"Adopted run {run['run_id']}, whose start response was lost." in world.log(dag_id)


def test_a_worker_that_dies_while_its_start_is_answered_leaves_a_run_that_is_adopted(world: World) -> None:
    dag_id = "killed_in_start"
    world.platforms[dag_id].fault("hang", operation="omilia.create_run", when="after", seconds=600, times=1)
    world.go(dag_id)
    wait_until(lambda: bool(world.runs(dag_id)), "the run is started")
    # Read back between the attempts.
    assert world.phases(dag_id) == [("intent", None)]
    world.process(dag_id).kill()
    world.until_state(dag_id, "deferred")
    assert world.phases(dag_id)[-1] == ("started", "run 1")
    world.platforms[dag_id].finish_run(world.runs(dag_id)[0]["run_id"])
    assert world.ended(dag_id) == "success"
    assert len(world.runs(dag_id)) == 1
    assert "Adopted run" in world.log(dag_id)


def test_a_worker_that_dies_after_its_record_leaves_a_run_that_is_waited_for(world: World) -> None:
    dag_id = "dies_after_started"
    world.go(dag_id)
    finish_when_started(world, dag_id)
    assert world.ended(dag_id) == "success"
    (run,) = world.runs(dag_id)
    assert f"Run {run['run_id']} was started by an earlier try: waiting for it, no new start." in world.log(dag_id)


def test_a_worker_that_dies_while_it_polls_leaves_a_run_that_is_waited_for(world: World) -> None:
    dag_id = "killed_in_place"
    world.go(dag_id)
    wait_until(lambda: world.platforms[dag_id].count("omilia.get_run") >= 2, "the run is polled")
    world.process(dag_id).kill()
    wait_until(lambda: "was started by an earlier try" in world.log(dag_id), "another try goes on")
    (run,) = world.runs(dag_id)
    assert run["phase"] in ("pending", "running")
    world.platforms[dag_id].finish_run(run["run_id"])
    assert world.ended(dag_id) == "success"
    assert len(world.runs(dag_id)) == 1


def test_a_worker_that_is_evicted_while_it_waits_cancels_its_run_and_the_next_try_starts_anew(world: World) -> None:
    dag_id = "evicted_in_place"
    world.go(dag_id)
    wait_until(lambda: "is queued" in world.log(dag_id), "the run is looked at")
    # As the supervisor passes it on.
    world.process(dag_id).terminate()
    wait_until(lambda: len(world.runs(dag_id)) == 2, "another run is started")
    old, _ = world.runs(dag_id)
    assert (old["phase"], old["cancelled_by"]) == ("cancelled", "omilia.revoke_run")
    assert ("judged", "run 1") in world.phases(dag_id)
    world.airflow.api.set_state(dag_id, world.dag_runs[dag_id], "run", "failed")
    wait_until(lambda: world.runs(dag_id)[1]["phase"] == "cancelled", "that one is cancelled, too")


def test_a_worker_that_dies_while_it_reads_the_report_is_followed_by_one_that_judges(world: World) -> None:
    dag_id = "killed_in_resume"
    platform = world.platforms[dag_id]
    platform.fault("hang", operation="omilia.run_stats", seconds=600, times=1)
    world.go(dag_id)
    world.until_state(dag_id, "deferred")
    finish_when_started(world, dag_id)
    wait_until(
        lambda: any(fault["fired"] for fault in platform.faults()) or not platform.faults(), "the report is asked for"
    )
    world.until_state(dag_id, "running")
    world.process(dag_id).kill()
    assert world.ended(dag_id) == "success"
    assert len(world.runs(dag_id)) == 1
    assert world.phases(dag_id)[-1] == ("judged", "run 1")


def test_a_worker_that_dies_after_its_verdict_is_followed_by_what_the_verdict_asks_for(world: World) -> None:
    world.platforms["dies_after_failed"].plan_next("omilia", ending="failed", duration=0.2)
    world.platforms["dies_after_failed"].plan_next("omilia", ending="passed", duration=0.2)
    world.platforms["dies_after_passed"].plan_next("omilia", ending="passed", duration=0.2)
    world.go("dies_after_passed", "dies_after_failed")
    assert world.ended("dies_after_passed") == "success"
    (run,) = world.runs("dies_after_passed")
    assert f"Run {run['run_id']} passed in an earlier try; not starting it again." in world.log("dies_after_passed")
    assert world.report("dies_after_passed")["run_id"] == run["run_id"]
    assert world.ended("dies_after_failed") == "success"
    first, second = world.runs("dies_after_failed")
    assert second["created"] > first["finished"]
    assert f"Run {first['run_id']} of an earlier try ended as failed" in world.log("dies_after_failed")
    assert world.report("dies_after_failed")["run_id"] == second["run_id"]


# Users who end tasks


def test_a_task_that_is_failed_while_its_start_is_not_answered_cancels_the_run(world: World) -> None:
    dag_id = "failed_in_start"
    world.platforms[dag_id].fault("hang", operation="omilia.create_run", when="after", seconds=600, times=1)
    world.go(dag_id)
    wait_until(lambda: bool(world.runs(dag_id)), "the run is started")
    world.airflow.api.set_state(dag_id, world.dag_runs[dag_id], "run", "failed")
    wait_until(lambda: world.runs(dag_id)[0]["phase"] == "cancelled", "the run is cancelled")
    assert len(world.runs(dag_id)) == 1
    assert world.when(dag_id, "Asked the platform to cancel run") >= world.when(dag_id, "Terminating process")


def test_on_kill_is_done_in_time_when_the_platform_hangs(world: World) -> None:
    dag_id = "failed_while_it_hangs"
    world.go(dag_id)
    platform = world.platforms[dag_id]
    wait_until(lambda: platform.count("omilia.get_run") >= 2, "the run is polled")
    platform.fault("hang", seconds=60)
    world.airflow.api.set_state(dag_id, world.dag_runs[dag_id], "run", "failed")
    wait_until(lambda: "Could not cancel" in world.log(dag_id), "it gives up")
    # Airflow kills the process some seconds after it has asked it to end, and the platform answers after a minute: the
    # words are there, so they came before either.
    platform.clear_faults()
    assert world.runs(dag_id)[0]["phase"] == "pending"
    assert "it may still be running" in world.log(dag_id)


def test_a_task_that_is_failed_before_it_defers_cancels_the_run(world: World) -> None:
    dag_id = "failed_before_it_defers"
    world.platforms[dag_id].fault("latency", operation="omilia.create_run", when="after", seconds=0.7)
    world.go(dag_id)
    wait_until(lambda: bool(world.runs(dag_id)), "the run is started", every=0.02)
    world.airflow.api.set_state(dag_id, world.dag_runs[dag_id], "run", "failed")
    wait_until(lambda: world.runs(dag_id)[0]["phase"] == "cancelled", "the run is cancelled")
    # By the task itself, unless Airflow was as quick.
    assert re.search("the task was (set to failed|killed)", world.log(dag_id))
    assert world.state(dag_id) == "failed"
    assert len(world.runs(dag_id)) == 1


def test_a_task_that_is_cleared_while_it_waits_in_place_starts_anew(world: World) -> None:
    dag_id = "cleared_in_place"
    world.go(dag_id)
    wait_until(lambda: world.platforms[dag_id].count("omilia.get_run") >= 2, "the run is polled")
    world.airflow.api.clear(dag_id, world.dag_runs[dag_id], ["run"])
    wait_until(lambda: len(world.runs(dag_id)) == 2, "another run is started")
    old, new = world.runs(dag_id)
    assert old["phase"] == "cancelled"
    assert old["finished"] <= new["created"]
    world.platforms[dag_id].finish_run(new["run_id"])
    assert world.ended(dag_id) == "success"
    assert len(world.runs(dag_id)) == 2


def test_a_task_that_is_cleared_when_no_triggerer_lives_leaves_its_run_to_the_fresh_try(world: World) -> None:
    dag_id = "cleared_without_triggerer"
    world.airflow.end_component("triggerer", grace=0)
    world.go(dag_id)
    world.until_state(dag_id, "deferred")
    (old,) = world.runs(dag_id)
    world.airflow.api.clear(dag_id, world.dag_runs[dag_id], ["run"])
    wait_until(lambda: len(world.runs(dag_id)) == 2, "another run is started")
    old, new = world.runs(dag_id)
    assert old["phase"] == "cancelled"
    assert old["finished"] <= new["created"]
    assert "the task was cleared and starts again" in world.log(dag_id)
    world.airflow.start_component("triggerer")
    world.platforms[dag_id].finish_run(new["run_id"])
    assert world.ended(dag_id) == "success"
    assert world.runs(dag_id)[1]["cancelled_by"] is None
    assert world.report(dag_id)["run_id"] == new["run_id"]


# Two triggerers


def test_a_trigger_that_is_handed_to_another_live_triggerer_cancels_nothing(world: World) -> None:
    dag_id = "handed_over"
    platform = world.platforms[dag_id]
    world.go(dag_id)
    world.until_state(dag_id, "deferred")
    wait_until(lambda: holder(world, dag_id) is not None, "a triggerer has it")
    first = holder(world, dag_id)
    frozen = families({world.airflow.pid("triggerer"): psutil.Process(world.airflow.pid("triggerer")).create_time()})
    second = world.airflow.start_component("triggerer", "second triggerer")
    # The first one is alive and does not say so: the second takes its triggers over.
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: holder(world, dag_id) not in (None, first), "the second triggerer has it")
        looks = platform.count("omilia.get_run")
        wait_until(lambda: platform.count("omilia.get_run") >= looks + 2, "the second triggerer polls")
    finally:
        for process in frozen:
            process.send_signal(signal.SIGCONT)
    # The first one wakes up and finds that the trigger is not its own any more.
    wait_until(lambda: "Trigger cancelled; the task is deferred. The run continues." in world.log(dag_id), "told")
    assert "Trigger cancelled by user action, invoking on_kill" in world.log(dag_id)
    (run,) = world.runs(dag_id)
    assert (run["phase"], run["cancelled_by"]) == ("pending", None)
    looks = platform.count("omilia.get_run")
    wait_until(lambda: platform.count("omilia.get_run") >= looks + 2, "it is still polled")
    platform.finish_run(run["run_id"])
    assert world.ended(dag_id) == "success"
    assert platform.count("omilia.revoke_run") == 0
    assert second.exit_code is None
    world.airflow.end_component("second triggerer")


def holder(world: World, dag_id: str) -> int | None:
    """The job of the triggerer that has the task's trigger."""
    with closing(sqlite3.connect(world.ledger.database, timeout=30)) as connection:
        row = connection.execute(
            'SELECT t.triggerer_id FROM task_instance ti JOIN "trigger" t ON t.id = ti.trigger_id WHERE ti.dag_id = ?',
            (dag_id,),
        ).fetchone()
    return None if row is None else row[0]


# Outages

OUTAGES = sorted(dag_id for dag_id in DAGS if dag_id.startswith("outage_"))
#: Those that pass by themselves: a start outlasts them, too.
PASSING = ("503", "refused", "hang", "429", "expired")


def outage(world: World, dag_id: str, seconds: float) -> None:
    """Let a platform be out of order from now on."""
    platform = world.platforms[dag_id]
    match kind := dag_id.removeprefix("outage_").removesuffix("_in_place"):
        case "503":
            platform.fault("status", status=503, for_seconds=seconds)
        case "refused":
            world.gates[dag_id].shut(seconds)
        case "hang":
            platform.fault("hang", seconds=60, for_seconds=seconds)
        case "429":
            platform.fault("status", status=429, headers={"Retry-After": "2"}, for_seconds=seconds)
        case "401":
            platform.reject_tokens(2.0)
        case "expired":
            platform.expire_tokens()
        case "huge":
            platform.fault("huge", size=1 << 30, operation="omilia.*run*", for_seconds=min(seconds, 3.0))
        case "elsewhere":
            location = f"{world.stranger.url}/omilia/api/projects"
            platform.fault("redirect", location=location, operation="omilia.*run*", for_seconds=min(seconds, 3.0))
        case "truncated":
            platform.fault("truncate", for_seconds=min(seconds, 3.0))
        case "wrong_json":
            platform.fault(kind, body=["not", "that"], operation="omilia.*run*", for_seconds=min(seconds, 3.0))
        case _:
            raise AssertionError(kind)


def test_outages_before_in_and_after_a_run_cost_no_try_and_start_nothing_twice(world: World) -> None:
    for dag_id in OUTAGES:
        if any(kind in dag_id for kind in PASSING):
            outage(world, dag_id, 10.0)
    world.go(*OUTAGES)
    during, after = list(OUTAGES), list(OUTAGES)
    end = time.monotonic() + 2 * WITHIN
    while after:
        assert time.monotonic() < end, (during, after)
        for dag_id in [dag_id for dag_id in during if world.platforms[dag_id].count("omilia.get_run") >= 3]:
            during.remove(dag_id)
            outage(world, dag_id, 10.0)
        for dag_id in [dag_id for dag_id in after if dag_id not in during]:
            # Half of the outage lies before the end of the run, half of it before its report.
            after.remove(dag_id)
            (run,) = world.runs(dag_id)
            world.platforms[dag_id].set_run(run["run_id"], duration=time.time() - run["created"] + 2.0)
        time.sleep(0.1)
    for dag_id in OUTAGES:
        assert world.ended(dag_id) == "success", world.log(dag_id)
        (run,) = world.runs(dag_id)
        assert world.report(dag_id)["run_id"] == run["run_id"]
        assert world.airflow.api.task_instance(dag_id, world.dag_runs[dag_id], "run")["try_number"] == 1
        assert run["cancelled_by"] is None
    assert world.stranger.control.stats()["requests"] == 0


# Deadlines


def test_deadlines_hold_over_a_restart_of_the_triggerer(world: World) -> None:
    dag_ids = ("timeout", "execution_timeout")
    world.go(*dag_ids)
    deadlines = {}
    for dag_id in dag_ids:
        world.until_state(dag_id, "deferred")
        until = re.search(r"in the triggerer, until (.+) UTC at the latest", world.log(dag_id))
        assert until is not None
        deadlines[dag_id] = datetime.fromisoformat(f"{until[1]}+00:00").timestamp() + 1
    world.airflow.end_component("triggerer", grace=0)
    wait_until(lambda: time.time() > max(deadlines.values()), "the deadlines have passed")
    looks = {dag_id: len(world.platforms[dag_id].requests()) for dag_id in dag_ids}
    world.airflow.start_component("triggerer")
    for dag_id in dag_ids:
        assert world.ended(dag_id) == "failed"
        (run,) = world.runs(dag_id)
        assert run["phase"] == "cancelled"
        error, message = world.airflow.api.errors(dag_id, world.dag_runs[dag_id], "run")[0]
        assert error == "RunTimeoutError"
        assert "ended as REVOKED" in message
        # The time of the one that died counts: the other looks once more, and the worker does if the answer comes too
        # late for that; a wait that began again would go on for a minute.
        since = [request.operation for request in world.platforms[dag_id].requests()[looks[dag_id] :]]
        assert since[: since.index("omilia.revoke_run")].count("omilia.get_run") <= 2, since


# What takes a minute


def test_a_worker_that_dies_before_its_start_is_followed_by_one_that_looks_and_starts(world: World) -> None:
    dag_id = "dies_after_intent"
    wait_until(lambda: bool(world.runs(dag_id)), "a run is started", within=2 * WITHIN)
    finish_when_started(world, dag_id)
    assert world.ended(dag_id) == "success"
    (run,) = world.runs(dag_id)
    changes = world.ledger.records(dag_id)["run", -1]
    assert [change.phase for change in changes[:3]] == ["intent", "intent", "started"]
    # Not before the platform had had the time to show a run of the first intent.
    first, second = (change.data["intent_at"] for change in changes[:2] if change.data is not None)
    assert second - first >= TIMEOUT + 60
    assert "The platform shows no run of that start: nothing was started." in world.log(dag_id)
    assert world.report(dag_id)["run_id"] == run["run_id"]


def test_nothing_was_against_the_documents(world: World) -> None:
    assert {
        dag_id: platform.violations() for dag_id, platform in world.platforms.items() if platform.violations()
    } == {}
