"""How the DAG runs ended, beside how their examples say that they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rest import AirflowApi

#: The tag by which an example DAG says how a run with its form's defaults ends; a verdict follows.
ENDS = "ends: "
#: What it says in the place of a verdict where a DAG starts no run.
NO_RUNS = "no runs of its own"
_COLUMNS = ("DAG", "task", "platform", "state", "passed", "failed", "unavailable", "link")
_LINK = "Open test run"


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """One task instance at the end of its DAG run.

    :param task: its id, with the map index of a mapped one.
    :param state: Airflow's word.
    :param report: what it returned, if that is a test run's report.
    :param link: the address behind its button "Open test run"; empty when it has none.
    :param message: what it failed with; empty when it did not.
    """

    task: str
    state: str
    report: Mapping[str, Any]
    link: str
    message: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """One DAG run at its end.

    :param dag_id: the DAG.
    :param expected: the verdict that the example's tag names, or :data:`NO_RUNS`.
    :param state: Airflow's word for the DAG run.
    :param tasks: its task instances.
    """

    dag_id: str
    expected: str
    state: str
    tasks: tuple[TaskEnd, ...]

    @property
    def surprise(self) -> str:
        """What is not as the example says; empty when all is.

        That a run failed is not enough for an example of failure: its tests must have failed, and nothing else.
        """
        verdicts = [task.report.get("verdict") for task in self.tasks if task.report]
        if self.expected == NO_RUNS:
            bad = [task.task for task in self.tasks if task.state != "success" or task.report]
            return f"failed, or with a report: {', '.join(bad)}" if bad or self.state != "success" else ""
        if not verdicts:
            return f"the DAG run ended as {self.state} without a single report"
        if self.expected == "passed":
            if self.state != "success":
                return f"the DAG run ended as {self.state}"
            bad = [
                task.task
                for task in self.tasks
                if task.state != "success" or task.report.get("verdict", "passed") != "passed"
            ]
            return f"not passed: {', '.join(bad)}" if bad else ""
        if self.state != "failed":
            return f"the DAG run ended as {self.state}, expected was a failed one"
        if self.expected not in verdicts:
            return f"no test run was judged as {self.expected}"
        other = [
            task.task for task in self.tasks if task.state == "failed" and task.report.get("verdict") != self.expected
        ]
        return f"failed for another reason: {', '.join(other)}" if other else ""


def expected_end(dag: Mapping[str, Any]) -> str:
    """The verdict that a DAG's tag names.

    :param dag: the DAG, as the API tells of it.
    :raises ValueError: when it has no such tag.
    """
    ends = [tag["name"].removeprefix(ENDS) for tag in dag["tags"] if tag["name"].startswith(ENDS)]
    if len(ends) != 1:
        raise ValueError(f"{dag['dag_id']} must have one tag '{ENDS}<verdict>', it has {len(ends)}")
    return str(ends[0])


def collect(api: AirflowApi, dag_id: str, run_id: str, expected: str) -> RunEnd:
    """Read how a DAG run ended."""
    tasks = []
    instances = api.task_instances(dag_id, run_id)
    # In the order in which they began, the instances of a mapped task together; what never began comes last.
    began: dict[str, str] = {}
    for found in instances:
        start = found["start_date"] or "never"
        began[found["task_id"]] = min(start, began.get(found["task_id"], start))
    for found in sorted(instances, key=lambda one: (began[one["task_id"]], one["task_id"], one["map_index"])):
        task_id, map_index = found["task_id"], found["map_index"]
        report = api.xcom(dag_id, run_id, task_id, map_index=map_index)
        is_report = isinstance(report, dict) and "verdict" in report
        tasks.append(
            TaskEnd(
                task=task_name(found),
                state=str(found["state"]),
                report=report if is_report else {},
                link=(api.links(dag_id, run_id, task_id, map_index).get(_LINK) or "") if is_report else "",
                message=failure(api, found) if found["state"] == "failed" else "",
            )
        )
    return RunEnd(dag_id, expected, str(api.dag_run(dag_id, run_id)["state"]), tuple(tasks))


def failure(api: AirflowApi, found: Mapping[str, Any]) -> str:
    """What a task instance's last try failed with; empty when its log does not say.

    :param found: the task instance, as the API tells of it.
    """
    errors = api.errors(found["dag_id"], found["dag_run_id"], found["task_id"], found["try_number"], found["map_index"])
    return errors[0][1] if errors else ""


def task_name(found: Mapping[str, Any]) -> str:
    """A task instance's name: the task's id, and the map index with what it stands for."""
    if found["map_index"] < 0:
        return str(found["task_id"])
    index = str(found["map_index"])
    rendered = found.get("rendered_map_index") or index
    return f"{found['task_id']}[{index}]" + (f" {rendered}" if rendered != index else "")


def table(runs: Sequence[RunEnd]) -> str:
    """All task instances, one line each."""
    rows = [list(_COLUMNS)]
    for run in runs:
        for number, task in enumerate(run.tasks):
            counts = [task.report.get(name) for name in ("passed", "failed", "unavailable")]
            rows.append(
                [
                    run.dag_id if number == 0 else "",
                    task.task,
                    str(task.report.get("platform", "-")),
                    task.state,
                    *("-" if count is None else str(count) for count in counts),
                    task.link or "-",
                ]
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
