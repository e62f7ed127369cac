"""What is done to the tasks while they run: by the machine, by the platforms, and by users."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psutil

from airflow_provider_testruns.sandbox.control import Control
from demo.airflow import LocalAirflow
from demo.rest import AirflowApi, AirflowApiError

from .ledger import Ledger, TaskKey, TaskRow
from .plan import DAG_ID, Plan, PlannedTask

STARTS = ("eggplant.start_execution", "futureagi.execute", "omilia.create_run")
#: States in which a task is over.
OVER = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
#: A run that was made endless is ended after this time, so that a task that goes on with it does not wait for ever.
_RELEASE_AFTER = 60.0
#: How long Airflow may take to end a worker whose task a user marked, and the worker to cancel its run; seconds.
_CANCEL_WITHIN = 10.0
#: How often that may happen.
_MOST_SCHEDULERS = 3
_OUTAGES = ("503", "drop", "hang", "429", "401", "expired", "late")
#: One of each kind, whatever chance does besides: worked off in this order, while some tasks wait for runs that go on
#: until the list is done.
PLANNED = (
    "kill intent",
    "kill started",
    "kill started with its supervisor",
    *(f"outage {kind}" for kind in _OUTAGES),
    "kill the triggerer",
    "clear running",
    "clear deferred",
    "fail running",
    "fail deferred",
)
#: How many tasks of each way of waiting are held for the plan.
_HELD = 3
_SCHEDULER = "the scheduler ended by itself and was started again"
_MOMENTS = {
    "nothing": "before the intent was written",
    "intent": "between the intent and the word of the run",
    "started": "while the run went on, or was judged",
    "judged": "after a verdict",
}


@dataclass(frozen=True)
class Weather:
    """How hard it storms.

    :param worker_kills: the share of task processes that are killed, each at a moment of its first seconds.
    :param with_supervisor: the share of those whose supervisor is killed with them.
    :param lost_responses: the share of starts whose response is lost after the run was started.
    :param noise: the share of all requests that fail transiently.
    :param actions_every: seconds between two deeds of users, on average.
    :param actions: how many there are at most.
    :param triggerer_kills_every: seconds between two deaths of the triggerer, on average.
    :param outages_every: seconds between two outages, on average.
    """

    worker_kills: float = 0.25
    with_supervisor: float = 0.15
    lost_responses: float = 0.15
    noise: float = 0.01
    actions_every: float = 4.0
    actions: int = 60
    triggerer_kills_every: float = 45.0
    outages_every: float = 20.0


@dataclass(frozen=True)
class Deed:
    """Something that a user did.

    :param kind: ``clear`` or ``fail``.
    :param asked: when it was asked for.
    :param done: when Airflow had done it.
    :param run_id: the run of the task that was going, if one was.
    """

    kind: str
    key: TaskKey
    asked: float
    done: float
    run_id: str | None


@dataclass
class _Fate:
    at: float
    with_supervisor: bool


@dataclass
class Storm:
    """Storms until all tasks are over.

    :param random: the source of all choices. What is chosen repeats with its seed; when the machine gets there does
        not.
    """

    airflow: LocalAirflow
    users: AirflowApi
    platforms: Control
    plan: Plan
    ledger: Ledger
    random: Random
    weather: Weather
    say: Callable[[str], None]
    #: What has to strike before the held tasks may go on.
    planned: list[str] = field(default_factory=lambda: list(PLANNED))
    counts: Counter[str] = field(default_factory=Counter)
    deeds: list[Deed] = field(default_factory=list)
    #: When the triggerer was not there: from, to.
    without_triggerer: list[tuple[float, float]] = field(default_factory=list)
    #: When task processes were killed, and whose they were, if Airflow saw them run.
    kills: list[tuple[float, TaskKey | None]] = field(default_factory=list)
    _fates: dict[int, _Fate | None] = field(default_factory=dict)
    _endless: dict[str, tuple[TaskKey, float]] = field(default_factory=dict)
    _turned: set[str] = field(default_factory=set)
    _late: list[tuple[float, str]] = field(default_factory=list)
    _known_runs: int = 0
    _held: list[PlannedTask] = field(default_factory=list)
    #: A worker that is ended has five seconds to cancel its run, and an outage may take four of them: the two are kept
    #: apart. Until when there is an outage, and until when none may begin.
    _outage_until: float = 0.0
    _calm_until: float = 0.0

    def begin(self) -> None:
        """Order the faults that hold all the time."""
        weather, fault = self.weather, self.platforms.fault
        for start in STARTS:
            # Long enough for a kill to come before, during and after the work.
            fault("latency", operation=start, when="before", seconds=0.25)
            fault("latency", operation=start, when="after", seconds=0.25)
            fault("drop", operation=start, when="after", probability=weather.lost_responses * 0.6)
            fault("status", status=500, operation=start, when="after", probability=weather.lost_responses * 0.25)
            fault("hang", operation=start, when="after", seconds=10, probability=weather.lost_responses * 0.15)
            fault("status", status=429, headers={"Retry-After": "1"}, operation=start, probability=0.05)
            fault("drop", operation=start, when="before", probability=0.01)
        for start in STARTS[1:]:
            # Each of these runs has to be found again.
            fault("drop", operation=start, when="after", times=2)
            fault("status", status=500, operation=start, when="after", times=2)
        fault("status", status=503, probability=weather.noise * 0.4)
        fault("drop", probability=weather.noise * 0.3)
        fault("truncate", probability=weather.noise * 0.3)
        for task in self.plan.tasks:
            if task.slow:
                self.platforms.set_target(task.platform, task.target_id, duration=3600.0)
        for how in ("in_place", "deferred"):
            # With a target of their own, whose runs can be told to go on.
            fit = [t for t in self.plan.tasks if t.group.endswith(how) and t.target_id and not t.marks and not t.slow]
            self._held += fit[:_HELD]
        for task in self._held:
            self.platforms.set_target(task.platform, task.target_id, duration=3600.0)

    def run(self, run_id: str, within: float) -> None:
        """Storm until all tasks of a DAG run are over.

        :param within: seconds.
        """
        began = now = time.monotonic()
        next_triggerer = began + self.random.uniform(0.4, 1.0) * self.weather.triggerer_kills_every
        triggerer_back: float | None = None
        gone_at = 0.0
        next_deed = began + self.weather.actions_every
        next_outage = began + self.weather.outages_every
        next_told = began
        next_look = began
        rows: dict[TaskKey, TaskRow] = {}
        while True:
            now = time.monotonic()
            if now - began > within:
                waiting = {key: row.state for key, row in rows.items() if row.state not in OVER}
                raise TimeoutError(f"not over within {within:.0f} s: {waiting}")
            self._kill_workers(now)
            self._look_after_runs()
            if triggerer_back is None and self.planned and self._strike(self.planned[0], run_id, rows):
                done = self.planned.pop(0)
                self.counts[f"planned: {done}"] += 1
                self.say(f"Planned: {done}. {len(self.planned)} to come")
                if done == "kill the triggerer":
                    next_triggerer = now
                if not self.planned:
                    self._let_go()
            if now >= next_look:
                next_look = now + 1.0
                self._look_after_airflow(rows)
                rows = {key: row for key, row in self.ledger.tasks().items() if key[1] >= 0}
                over = sum(row.state in OVER for row in rows.values())
                if len(rows) == len(self.plan.tasks) and over == len(rows) and triggerer_back is None:
                    return
                if now >= next_told:
                    next_told = now + 15.0
                    states = Counter(str(row.state) for row in rows.values())
                    self.say(
                        f"{over} of {len(self.plan.tasks)} tasks are over, {len(self.platforms.runs())} runs started"
                        f" ({', '.join(f'{count} {state}' for state, count in sorted(states.items()))})"
                    )
                self._release(rows)
            if triggerer_back is None and now >= next_triggerer:
                gone_at = time.time()
                self.airflow.end_component("triggerer", grace=0.0 if self.random.random() < 0.7 else 5.0)
                self.counts["the triggerer was killed"] += 1
                triggerer_back = time.monotonic() + self.random.uniform(1.0, 8.0)
            elif triggerer_back is not None and now >= triggerer_back:
                self.airflow.start_component("triggerer")
                # It takes a while until it takes triggers up.
                self.without_triggerer.append((gone_at, time.time() + 15.0))
                triggerer_back = None
                next_triggerer = time.monotonic() + self.random.uniform(0.6, 1.4) * self.weather.triggerer_kills_every
            if now >= next_deed and len(self.deeds) < self.weather.actions:
                self._act_at_random(run_id, rows)
                next_deed = time.monotonic() + self.random.uniform(0.3, 1.7) * self.weather.actions_every
            if now >= max(next_outage, self._calm_until):
                self._outage(self.random.choice(_OUTAGES))
                next_outage = now + self.random.uniform(0.5, 1.5) * self.weather.outages_every
            time.sleep(0.05)

    # The plan

    def _strike(self, what: str, run_id: str, rows: dict[TaskKey, TaskRow]) -> bool:
        """Let one entry of the plan happen, if there is something now that it can happen to."""
        kind, _, to = what.partition(" ")
        if kind == "outage":
            if time.monotonic() < self._calm_until:
                return False
            self._outage(to)
            return True
        if what == "kill the triggerer":
            return True
        if kind == "kill":
            phase = to.partition(" ")[0]
            if phase == "intent":
                self._keep_a_start_waiting(run_id, rows)
            return any(
                (found := self.ledger.running(process.pid)) is not None
                and found[1] == phase
                and self._kill(process, to.endswith("supervisor")) == phase
                for process in self._task_processes()
            )
        records = self.ledger.records(DAG_ID)
        for task in self._held:
            row, changes = rows.get(task.key), records.get(task.key)
            known = bool(changes) and changes[-1].phase == "started"
            if row is not None and row.state == to and known and self._going(task) is not None:
                return self._act(kind, task, run_id, row.state)
        return False

    def _keep_a_start_waiting(self, run_id: str, rows: dict[TaskKey, TaskRow]) -> None:
        """See to it that there is a start whose response does not come."""
        if not any(fault["kind"] == "hang" and fault["operation"] in STARTS for fault in self.platforms.faults()):
            for start in STARTS:
                self.platforms.fault("hang", operation=start, when="after", seconds=60, times=1)
        held = [task for task in self._held if task.key in rows]
        to_come = len(rows) < len(self.plan.tasks) or any(
            row.state not in OVER and row.state not in ("running", "deferred") for row in rows.values()
        )
        if not to_come and held and not self._task_starts():
            self._act("clear", held[-1], run_id, rows[held[-1].key].state)

    def _task_starts(self) -> bool:
        """Whether a task runs that has no run yet."""
        found = [self.ledger.running(process.pid) for process in self._task_processes()]
        return any(running is None or running[1] in ("nothing", "intent") for running in found)

    def _let_go(self) -> None:
        """End what was held for the plan."""
        for task in self._held:
            self.platforms.set_target(task.platform, task.target_id, duration=task.seconds)
            for run in self.platforms.runs(task.platform):
                going = run["phase"] not in ("finished", "cancelled", "cancelling")
                if task.started(run) and going and run["run_id"] not in self._endless:
                    self.platforms.finish_run(run["run_id"])

    # The machine

    def _look_after_airflow(self, rows: dict[TaskKey, TaskRow]) -> None:
        """Start the scheduler again when a fault of its own has ended it, as whatever runs it would.

        Airflow 3.3.2 has one where it notices the death of a worker just while the task's state changes: "Failed to add
        object to the flush context".
        """
        if not self.airflow.has_ended("scheduler") or self.counts[_SCHEDULER] >= _MOST_SCHEDULERS:
            self.airflow.check()
            return
        self.counts[_SCHEDULER] += 1
        # The tasks that ran end with it.
        self.airflow.end_component("scheduler", grace=0.0)
        self.kills += [(time.time(), key) for key, row in rows.items() if row.state in ("running", "queued")]
        self.airflow.start_component("scheduler")

    def _kill_workers(self, now: float) -> None:
        for process in self._task_processes():
            if process.pid not in self._fates:
                fate = None
                if self.random.random() < self.weather.worker_kills:
                    whole = self.random.random() < self.weather.with_supervisor
                    fate = _Fate(now + self.random.uniform(0.2, 5.0), whole)
                self._fates[process.pid] = fate
            fate = self._fates[process.pid]
            if fate is not None and now >= fate.at:
                self._fates[process.pid] = None
                self._kill(process, fate.with_supervisor)

    def _task_processes(self) -> list[psutil.Process]:
        """The processes that tasks run in: children of the executor's workers, which are the scheduler's."""
        found = []
        try:
            workers = psutil.Process(self.airflow.pid("scheduler")).children()
        except psutil.NoSuchProcess:
            return []
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += worker.children()
        return found

    def _kill(self, process: psutil.Process, with_supervisor: bool) -> str | None:
        """Kill the process of a task.

        :return: how far the start of its run had come; ``None`` when it was not killed, or its task did not run yet.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            return self._kill_process(process, with_supervisor)
        return None

    def _kill_process(self, process: psutil.Process, with_supervisor: bool) -> str | None:
        worker = process.parent()
        if worker is None:
            return None
        if with_supervisor:
            # Stopped first, so that what it does is known: between two tasks it may hold the lock of the executor's
            # queue, which would stay locked, and a task that Airflow does not see running would stay in the queue.
            worker.suspend()
        else:
            process.suspend()
        runs = self.ledger.running(process.pid)
        if not with_supervisor:
            process.kill()
        elif runs is not None and process.status() != psutil.STATUS_ZOMBIE:
            worker.kill()
            process.kill()
            self.counts["task processes killed with their supervisors"] += 1
        else:
            worker.resume()
            return None
        self.kills.append((time.time(), runs[0] if runs is not None else None))
        self.counts[f"task processes killed: {'before they ran' if runs is None else _MOMENTS[runs[1]]}"] += 1
        return None if runs is None else runs[1]

    # The platforms

    def _outage(self, kind: str) -> None:
        platform = self.random.choice(("eggplant", "futureagi", "omilia"))
        seconds = self.random.uniform(1.0, 4.0)
        self._outage_until = time.monotonic() + max(seconds, 2.0)
        self.counts[f"outages: {kind}"] += 1
        if kind == "503":
            self.platforms.fault("status", status=503, platform=platform, for_seconds=seconds)
        elif kind == "drop":
            self.platforms.fault("drop", platform=platform, for_seconds=seconds)
        elif kind == "hang":
            self.platforms.fault("hang", platform=platform, seconds=10, for_seconds=seconds)
        elif kind == "429":
            headers = {"Retry-After": "2"}
            self.platforms.fault("status", status=429, headers=headers, platform=platform, for_seconds=seconds)
        elif kind == "401":
            self.platforms.reject_tokens(2.0, platform)
        elif kind == "expired":
            self.platforms.expire_tokens()
        else:
            # The next runs are shown in lists some seconds late.
            self._late.append((time.monotonic() + 10.0, ""))

    def _look_after_runs(self) -> None:
        """Let what is planned for the second run of a task hold as soon as it has the first."""
        runs = self.platforms.runs()
        if len(runs) == self._known_runs:
            self._show_late(runs)
            return
        self._known_runs = len(runs)
        for task in self.plan.tasks:
            # Only tasks with a target of their own have two kinds of runs.
            if task.marks or task.target_id in self._turned:
                continue
            if any(run["target_id"] == task.target_id for run in runs):
                self._turned.add(task.target_id)
                self.platforms.set_target(
                    task.platform, task.target_id, ending=task.later, duration=task.seconds if task.slow else None
                )
        self._show_late(runs)

    def _show_late(self, runs: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        for until, run_id in list(self._late):
            if not run_id and runs and self.platforms.now() - runs[-1]["created"] < 0.5:
                newest = max(runs, key=lambda run: run["created"])["run_id"]
                self.platforms.hide_run(newest)
                self._late.remove((until, run_id))
                self._late.append((now + 5.0, newest))
            elif run_id and now >= until:
                self.platforms.hide_run(run_id, False)
                self._late.remove((until, run_id))

    # The users

    def _act_at_random(self, dag_run: str, rows: dict[TaskKey, TaskRow]) -> None:
        kind = "clear" if self.random.random() < 0.6 else "fail"
        wanted = {"running", "deferred"}
        if kind == "clear":
            wanted |= {"up_for_retry", "queued", "scheduled"}
            if self.random.random() < 0.15:
                wanted = {"success", "failed"}
        tasks = [task for task in self.plan.tasks if task.key in rows and rows[task.key].state in wanted]
        if self.random.random() < 0.8:
            # Where something can be lost.
            tasks = [task for task in tasks if self._going(task) is not None] or tasks
        if tasks:
            task = self.random.choice(tasks)
            self._act(kind, task, dag_run, rows[task.key].state)

    def _act(self, kind: str, task: PlannedTask, dag_run: str, state: str | None) -> bool:
        """Clear a task or mark it failed; whether Airflow took it."""
        if kind == "fail" and state == "running" and time.monotonic() < self._outage_until:
            return False
        key, run = task.key, self._going(task)
        if run is not None:
            # Only a cancel ends it now.
            self.platforms.hang_run(run)
            self._endless[run] = (key, time.monotonic())
        for _ in range(3):
            asked = time.time()
            try:
                if kind == "clear":
                    self.users.clear(DAG_ID, dag_run, [key])
                else:
                    self.users.set_state(DAG_ID, dag_run, key[0], "failed", key[1])
            except AirflowApiError as e:
                # The first thing that such a request does is to write itself down: it has done nothing if it can't.
                if e.status != 500:
                    raise
                self.counts["requests that Airflow could not write down at once"] += 1
            else:
                break
        else:
            return False
        if kind == "fail" and state == "running":
            self._calm_until = time.monotonic() + _CANCEL_WITHIN
        self.deeds.append(Deed(kind, key, asked, time.time(), run))
        self.counts["tasks were cleared" if kind == "clear" else "tasks were marked failed"] += 1
        return True

    def _going(self, task: PlannedTask) -> str | None:
        going = [
            run["run_id"]
            for run in self.platforms.runs(task.platform)
            if task.started(run) and run["phase"] not in ("finished", "cancelled", "cancelling")
        ]
        return going[-1] if going else None

    def _release(self, rows: dict[TaskKey, TaskRow]) -> None:
        """End what was made endless and is still waited for; what nobody waits for stays, for the books to see."""
        if not self._endless:
            return
        records = self.ledger.records(DAG_ID)
        for run_id, (key, since) in list(self._endless.items()):
            row, changes = rows.get(key), records.get(key)
            waits = row is not None and row.state in ("running", "deferred")
            if not waits or not changes or (changes[-1].phase, changes[-1].run_id) != ("started", run_id):
                # However long it takes until another try begins, it may still cancel the run.
                self._endless[run_id] = (key, time.monotonic())
            elif time.monotonic() - since > _RELEASE_AFTER:
                del self._endless[run_id]
                self.platforms.finish_run(run_id)
