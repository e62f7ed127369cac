"""The balance after a storm: what the sandbox has, what Airflow wrote down, and what users did must agree."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .ledger import Ledger, RecordChange, StateChange
from .plan import DAG_ID, Plan, PlannedTask
from .storm import Deed, Storm

#: What a verdict must be, by what the sandbox knows of the run.
VERDICTS = {"passed": "passed", "failed": "failed", "errored": "errored", "cancelled": "cancelled", "empty": "failed"}
#: Clocks are read in two processes, and SQLite's has milliseconds only.
_SLACK = 0.05
#: How long the trigger's or the worker's on_kill may take until the run is asked to stop.
_KILL_WITHIN = 25.0


@dataclass
class Balance:
    """What was found.

    :param counts: of everything.
    :param faults: what does not agree, a sentence each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def balance(storm: Storm, ledger: Ledger, logs: Path) -> Balance:
    """Close the books."""
    books = Balance(Counter(storm.counts))
    plan, runs = storm.plan, storm.platforms.runs()
    records, states, tasks, results = ledger.records(DAG_ID), ledger.states(), ledger.tasks(), ledger.results()
    books.counts["tasks"] = len(plan.tasks)
    books.counts["runs"] = len(runs)
    owned: set[str] = set()
    for task in plan.tasks:
        own = sorted((run for run in runs if task.started(run)), key=lambda run: run["created"])
        owned.update(run["run_id"] for run in own)
        deeds = [deed for deed in storm.deeds if deed.key == task.key]
        account = _Account(task, own, records.get(task.key, []), states.get(task.key, []), deeds, storm, books)
        account.check()
        row = tasks[task.key]
        books.counts[f"tasks that ended as {row.state}"] += 1
        account.check_result(row.state, results.get(task.key))
    for run in runs:
        if run["run_id"] not in owned:
            books.faults.append(f"run {run['run_id']} belongs to no task")
    for violation in storm.platforms.violations():
        books.faults.append(f"against the platforms' documents: {violation}")
    _check_logs(plan, logs, books)
    return books


@dataclass
class _Account:
    """One task's."""

    task: PlannedTask
    runs: list[dict[str, Any]]
    records: list[RecordChange]
    states: list[StateChange]
    deeds: list[Deed]
    storm: Storm
    books: Balance

    def fault(self, what: str) -> None:
        self.books.faults.append(f"{self.task.group}[{self.task.map_index}]: {what}")

    def check(self) -> None:
        known = {change.run_id for change in self.records} - {None}
        earlier: dict[str, Any] | None = None
        for run in self.runs:
            run_id = run["run_id"]
            epoch = self._epoch_at(run["created"])
            if epoch is None:
                self.fault(f"run {run_id} was started without an intent")
            if earlier is not None:
                self._check_successor(earlier, run)
            earlier = run
            if run_id in known:
                if run["phase"] not in ("finished", "cancelled"):
                    self._left_going(run)
            else:
                self._unknown(run)
            if run["cancelled_by"]:
                self.books.counts["runs that were cancelled"] += 1
        for change in self.records:
            if change.phase == "judged" and change.data is not None:
                self._check_verdict(change)
        for deed in self.deeds:
            self._check_deed(deed)
        phases = Counter(change.phase for change in self.records)
        self.books.counts["intents"] += phases["intent"]

    def check_result(self, state: str | None, result: Any) -> None:
        """The task's end agrees with its last run's."""
        if state not in ("success", "failed"):
            self.fault(f"ended as {state}")
        elif state == "success":
            last = self.records[-1] if self.records else None
            if last is None or last.phase != "judged" or last.data is None or last.data["verdict"] != "passed":
                self.fault(f"success without a passing verdict: {last}")
            elif result is None or result["run_id"] != last.run_id or result["verdict"] != "passed":
                self.fault(f"its result {result} is not that of its run {last.run_id}")
        elif (
            # Nobody failed it: then its tests did.
            not any(deed.kind == "fail" for deed in self.deeds)
            and self.task.can_be_listed
            and self.task.later == "passed"
        ):
            self.fault(f"failed, and nobody and no test has failed it: {self.records[-1:]}")

    def _epoch_at(self, moment: float) -> tuple[int, ...] | None:
        """The epoch of the intent under which a run was started then."""
        intents = [c for c in self.records if c.phase == "intent" and c.data and c.at <= moment + _SLACK]
        return intents[-1].epoch if intents else None

    def _judged(self, run_id: str, until: float) -> RecordChange | None:
        return next(
            (c for c in self.records if c.phase == "judged" and c.run_id == run_id and c.at <= until + _SLACK), None
        )

    def _check_successor(self, earlier: dict[str, Any], later: dict[str, Any]) -> None:
        one, other = self._epoch_at(earlier["created"]), self._epoch_at(later["created"])
        if not _same_epoch(one, other):
            self.books.counts["fresh runs after a clear"] += 1
            return
        over = earlier["finished"] is not None and earlier["finished"] <= later["created"] + _SLACK
        judged = self._judged(earlier["run_id"], later["created"])
        if earlier["cancelled_by"] and over:
            self.books.counts["further runs after a cancel"] += 1
        elif judged is not None and judged.data is not None and judged.data["verdict"] != "passed" and over:
            self.books.counts["further runs after a failing verdict"] += 1
        elif earlier["phase"] == "cancelled" and over and one is not None and other is not None and one[2] != other[2]:
            # Not by the provider. It may have been its own older try, at a clear, as far as the next one can see.
            self.books.counts["further runs after a cancel on the platform, with tasks cleared since"] += 1
        else:
            self.fault(
                f"run {later['run_id']} was started {later['created'] - earlier['created']:.1f} s after"
                f" {earlier['run_id']} (now {earlier['phase']}, cancelled by {earlier['cancelled_by']}) in the same"
                f" epoch {other}, and that one was neither judged as failing nor cancelled"
            )

    def _left_going(self, run: dict[str, Any]) -> None:
        """A known run is not over: only where Airflow told nobody that its task was failed by a user."""
        last = [deed for deed in self.deeds if deed.run_id == run["run_id"]]
        if any(deed.kind == "fail" for deed in self.deeds) and last and not any(self._reachable(deed) for deed in last):
            self.books.counts["runs that go on: their task was marked failed when Airflow tells nobody"] += 1
        else:
            self.fault(f"run {run['run_id']} is {run['phase']} and nobody looks after it ({self._told(last)})")

    def _unknown(self, run: dict[str, Any]) -> None:
        """No try has learned of a run: only where the task ended or was cleared before it could look."""
        after = [c for c in self.records if c.at > run["created"]]
        if run["cancelled_by"]:
            self.books.counts["runs that were found and cancelled by a killed try or a fresh one"] += 1
        elif not self.task.can_be_listed:
            self.books.counts["runs that can't be looked up, of starts without a response"] += 1
        elif any(deed.asked > run["created"] - 30 for deed in self.deeds):
            self.books.counts["runs that nobody knows of: killed while they were started, then ended by a user"] += 1
        else:
            self.fault(f"run {run['run_id']} was never found, and the task went on with {after[:3]}")

    def _check_verdict(self, change: RecordChange) -> None:
        assert change.data is not None
        verdict = change.data["verdict"]
        run = next((run for run in self.runs if run["run_id"] == change.run_id), None)
        if run is None:
            self.fault(f"a verdict on run {change.run_id}, which is not its own")
            return
        truth = "cancelled" if run["phase"] == "cancelled" else VERDICTS[run["ending"]]
        self.books.counts[f"verdicts: {verdict}"] += 1
        if verdict != truth or run["phase"] not in ("finished", "cancelled"):
            self.fault(f"the verdict on run {change.run_id} is {verdict}, the sandbox says {truth} ({run['phase']})")

    def _check_deed(self, deed: Deed) -> None:
        run = next((run for run in self.runs if run["run_id"] == deed.run_id), None)
        if run is None:
            return
        if run["cancelled_by"]:
            self.books.counts[f"runs cancelled after their task was {_DONE[deed.kind]}"] += 1
        elif run["finished"] is not None and run["finished"] <= deed.done + 0.5:
            # It was over before it could be made endless.
            self.books.counts[f"runs that were over when their task was {_DONE[deed.kind]}"] += 1
        elif deed.kind == "clear" and self._goes_on_with(run, deed):
            self.books.counts["runs that a task cleared while running went on with"] += 1
        elif not self.task.can_be_listed and not any(c.run_id == run["run_id"] for c in self.records):
            self.books.counts[f"runs that can't be looked up when their task was {_DONE[deed.kind]}"] += 1
        elif not self._reachable(deed):
            self.books.counts[f"runs that Airflow could tell nobody of when their task was {_DONE[deed.kind]}"] += 1
        else:
            self.fault(
                f"run {run['run_id']} was not cancelled ({run['phase']}) though its task was {_DONE[deed.kind]} when"
                f" Airflow could tell: {self._told([deed])}"
            )

    def _goes_on_with(self, run: dict[str, Any], deed: Deed) -> bool:
        """A task that is cleared while it runs keeps its epoch unless its worker ends in good order."""
        return any(c.run_id == run["run_id"] and c.phase == "judged" and c.at > deed.done for c in self.records)

    def _change_by(self, deed: Deed) -> StateChange | None:
        return next((c for c in self.states if deed.asked - _SLACK <= c.at <= deed.done + _SLACK), None)

    def _reachable(self, deed: Deed) -> bool:
        """Whether Airflow could tell the provider: to a worker that lived, or a triggerer that had the trigger."""
        change = self._change_by(deed)
        if change is None:
            return False
        if deed.kind == "clear":
            # A fresh try finds the run in the record, if it lives long enough to read it.
            ended = [other for other in self.deeds if other.kind == "fail" and other.asked >= deed.done]
            read = [c for c in self.records if c.at > change.at and (not ended or c.at < ended[0].asked)]
            return bool(read) or not ended
        until = change.at + _KILL_WITHIN
        if change.before == "running":
            return not any(change.at - 10 <= at <= until for at, key in self.storm.kills if key == self.task.key)
        if change.before == "deferred":
            gone = any(begin - 1 <= until and end >= change.at for begin, end in self.storm.without_triggerer)
            return change.triggerer is not None and not gone
        return False

    def _told(self, deeds: list[Deed]) -> str:
        return "; ".join(f"{deed.kind} at {deed.done:.1f}: {self._change_by(deed)}" for deed in deeds)


_DONE = {"clear": "cleared", "fail": "marked failed"}


def _same_epoch(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool:
    """As the provider tells epochs apart: (max_tries, retries, clear_number)."""
    if one is None or other is None:
        return one == other
    return one[0] == other[0] and (one[1] == other[1] or one[2] == other[2])


def errors_of(log: Path) -> Iterator[tuple[str, str]]:
    """Type and message of the exceptions in a try's log."""
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        for detail in entry.get("error_detail") or []:
            yield detail["exc_type"], detail["exc_value"]


def _check_logs(plan: Plan, logs: Path, books: Balance) -> None:
    can_be_listed = {task.group: task.can_be_listed for task in plan.tasks}
    for log in sorted(logs.rglob("attempt=*.log*")):
        group = re.search(r"task_id=([^/]+)", str(log))
        if group is None:
            continue
        for kind, message in errors_of(log):
            books.counts[f"errors: {kind}"] += 1
            if kind == "StartOutcomeUnknownError" and can_be_listed[group[1]]:
                books.faults.append(f"{log}: {kind}: {message}")
        text = log.read_text(errors="replace")
        for said in _SAID:
            books.counts[said] += text.count(said)


#: Lines that show that what the storm is about did happen.
_SAID = (
    "whose start response was lost",
    "was started by an earlier try: waiting for it, no new start",
    "A run may have been started; checking",
    "An earlier try may have started a run; checking",
    "The platform shows no run of that start: nothing was started",
)
