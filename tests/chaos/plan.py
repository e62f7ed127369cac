"""What a storm goes over: tasks on all platforms, each with runs of its own that can be told from all others."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_testruns.sandbox.control import Control

DAG_ID = "chaos"
#: The filters that tell runs of one Omilia project apart; each picks a case.
_UTTERANCES = ("how much", "savings", "lost my card", "Lisbon")
#: How the first run of a task ends, and the later ones: most pass, the rest is spread over what can go wrong.
_ENDINGS = (
    *[("passed", "passed")] * 10,
    ("failed", "passed"),
    ("failed", "passed"),
    ("errored", "passed"),
    ("cancelled", "passed"),
    ("failed", "failed"),
)


@dataclass(frozen=True)
class PlannedTask:
    """One task instance.

    :param group: the task's id; instances of one group are mapped from it.
    :param map_index: its place in the group.
    :param platform: where its runs are.
    :param target_id: what they are started from.
    :param arguments: what is passed to the operator.
    :param marks: the arguments of a run by which it is known as this task's, as the sandbox keeps them.
    :param first: how its first run ends.
    :param later: how the others end.
    :param seconds: how long its runs take.
    :param slow: the first run continues for ever: the task's timeout has to end it.
    :param can_be_listed: whether a lost start can be looked up on its platform.
    """

    group: str
    map_index: int
    platform: str
    target_id: str
    arguments: dict[str, Any]
    marks: dict[str, Any]
    first: str
    later: str
    seconds: float
    slow: bool = False
    can_be_listed: bool = True

    @property
    def key(self) -> tuple[str, int]:
        """What Airflow knows it by."""
        return self.group, self.map_index

    def started(self, run: dict[str, Any]) -> bool:
        """Whether a run of the sandbox is one of this task's."""
        return (
            run["platform"] == self.platform
            and (not self.target_id or run["target_id"] == self.target_id)
            and all(run["arguments"].get(name) == value for name, value in self.marks.items())
        )


@dataclass
class Plan:
    """The tasks of one storm."""

    tasks: list[PlannedTask] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Leave it for the DAG file."""
        path.write_text(json.dumps([asdict(task) for task in self.tasks]))


def make_plan(random: Random, count: int, control: Control) -> Plan:
    """Choose tasks and make in the sandbox what they start.

    :param count: how many.
    """
    plan = Plan()
    sizes: dict[str, int] = {}

    def add(platform: str, target_id: str, arguments: dict[str, Any], kind: str | None = None, **more: Any) -> None:
        group = f"{kind or platform}_{'deferred' if random.random() < 0.7 else 'in_place'}"
        index = sizes.get(group, 0)
        sizes[group] = index + 1
        plan.tasks.append(PlannedTask(group, index, platform, target_id, arguments, **more))

    number = 0
    while len(plan.tasks) < count:
        number += 1
        first, later = random.choice(_ENDINGS)
        seconds = round(random.uniform(2.0, 12.0), 1)
        slow = random.random() < 0.05
        life = {"first": first, "later": later, "seconds": seconds, "slow": slow}
        arguments: dict[str, Any] = {"timeout": 25} if slow else {}
        if (first, later) == ("failed", "failed"):
            arguments["retry_failed_runs"] = False
        choice = random.random()
        if choice < 0.3:
            target = control.create_model(f"model {number}", ending=first, duration=seconds)
            add("eggplant", target, {"model_id": target, **arguments}, marks={}, **life)
        elif choice < 0.6:
            target = control.create_run_test(f"run test {number}", ending=first, duration=seconds)
            add("futureagi", target, {"run_test_id": target, "select_all": True, **arguments}, marks={}, **life)
        elif choice < 0.8:
            target = control.create_project(f"project {number}", ending=first, duration=seconds)
            add("omilia", target, {"project_id": target, **arguments}, marks={}, **life)
        elif choice < 0.94:
            # Several tasks in one project: told apart by their filter alone, and watched with one list call.
            target = control.create_project(f"project {number}", ending="passed", duration=seconds)
            life = {"first": "passed", "later": "passed", "seconds": seconds}
            for utterance in _UTTERANCES[: count - len(plan.tasks)]:
                filtered = {"project_id": target, "utterance": utterance}
                add("omilia", target, filtered, marks={"utterance": utterance}, **life)
        else:
            script = f"suites/chaos_{number}.suite"
            add(
                "eggplant",
                "",
                {"script": script},
                "script",
                marks={"script": script},
                first="passed",
                later="passed",
                seconds=seconds,
                can_be_listed=False,
            )
    return plan
