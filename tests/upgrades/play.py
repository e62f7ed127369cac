"""The DAG ``upgrade`` on an Airflow whose parts may run different versions of the provider."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import COMPONENTS, LocalAirflow

from .forms import Forms

DAG_ID = "upgrade"
DAGS = Path(__file__).parent / "dags"
#: A model whose runs a sensor watches together.
_WATCHED_MODEL = "watched together"
_PASSED = ("success", "passed")
_FAILED = ("failed", "failed")
_HOW = ("deferred", "in_place")
#: Each task's end, and the verdict in what it returns.
EXPECTED: dict[str, tuple[str, str | None]] = {
    **{f"{platform}_{how}": _PASSED for platform in ("eggplant", "futureagi", "omilia") for how in _HOW},
    **{f"failing_{how}": _FAILED for how in _HOW},
    "streaming": _PASSED,
    "generation": _PASSED,
    "configuration": _PASSED,
    "late": ("failed", None),
    "vanished": ("failed", None),
    "start": ("success", None),
    "watch": _PASSED,
    "watch_model": _PASSED,
}
#: Those that start a run each.
STARTING = sorted(set(EXPECTED) - {"watch", "watch_model"})
#: Longer than anything here takes; seconds.
_ENDLESS = 36_000.0
#: For hanging only; seconds.
_WITHIN = 420.0
OPTIONS = {
    # A program's folder is not looked into for modules: each interpreter has the provider of its own environment.
    "PYTHONSAFEPATH": "1",
    # So that the dead are noticed within the time of a test.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


@dataclass(frozen=True)
class Versions:
    """The interpreters that the parts of an Airflow have.

    :param worker: the scheduler's, whose children the workers are.
    :param triggerer: the triggerer's.
    :param rest: those of the API server and the DAG processor.
    """

    worker: Path
    triggerer: Path
    rest: Path

    def of(self, component: str) -> Path:
        """The interpreter of a component."""
        return {"scheduler": self.worker, "triggerer": self.triggerer}.get(component, self.rest)


class Play:
    """An Airflow, the three platforms, and what is stored meanwhile.

    :param folder: where Airflow keeps all it has.
    :param versions: what it begins with.
    :param timeout: of the task whose time ends; seconds.
    """

    def __init__(self, folder: Path, versions: Versions, *, timeout: float, say: Callable[[str], None]) -> None:
        self._say = say
        self.sandbox = SandboxServer()
        control = self.control = self.sandbox.control
        targets = self._targets = {}
        for task_id in STARTING:
            ending = "failed" if task_id.startswith("failing") else "passed"
            make = {"eggplant": control.create_model, "futureagi": control.create_run_test}
            create = make.get(task_id.partition("_")[0], control.create_project)
            targets[task_id] = create(f"target of {task_id}", ending=ending, duration=_ENDLESS)
        targets["configuration"] = next(one["id"] for one in control.targets() if one["kind"] == "test configuration")
        control.set_target("eggplant", targets["configuration"], ending="passed", duration=_ENDLESS)
        control.create_model(_WATCHED_MODEL, ending="passed", duration=_ENDLESS)
        plan = {"targets": targets, "timeout": timeout, "watched_model": _WATCHED_MODEL}
        self._versions = versions
        self.airflow = LocalAirflow(
            folder,
            dags=DAGS,
            connections=self.sandbox.connections(),
            options={**OPTIONS, "UPGRADE_PLAN": json.dumps(plan)},
            parallelism=12,
            say=say,
        )

    def __enter__(self) -> Self:
        try:
            self.airflow.python = self._versions.rest
            self.airflow.start()
            self.forms = Forms(self.airflow.home / "airflow.db")
            self.forms.begin()
            for name in ("scheduler", "triggerer"):
                self._replace(name, self._versions.rest, self._versions.of(name))
            self.airflow.wait_for_dags([DAG_ID])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self.airflow.stop()
        self.sandbox.close()

    def use(self, versions: Versions) -> None:
        """Replace the parts that have another version; workers are killed as they wait, the others end in order."""
        for name in COMPONENTS:
            self._replace(name, self._versions.of(name), versions.of(name))
        self._versions = versions
        self.airflow.wait_until_healthy()

    def _replace(self, name: str, before: Path, after: Path) -> None:
        if before == after:
            return
        self._say(f"{name}: another version")
        self.airflow.end_component(name, grace=0.0 if name == "scheduler" else 8.0)
        self.airflow.python = after
        self.airflow.start_component(name)

    def round(self, before: Versions, after: Versions) -> list[str]:
        """Let one version start runs and another finish them.

        :return: what was not as it should be, a sentence each.
        """
        self.use(before)
        known = {run["run_id"] for run in self.control.runs()}
        self.control.add_runs("eggplant", _WATCHED_MODEL, 2, duration=_ENDLESS)
        run_id = self.airflow.api.trigger(DAG_ID)
        self._wait_until_all_wait(run_id)
        self._say("All tasks wait")
        self.use(after)
        own = [run for run in self.control.runs() if run["run_id"] not in known]
        self._end_runs(own)
        self.airflow.wait_for_run(DAG_ID, run_id, within=_WITHIN)
        return self._check(run_id, [run for run in self.control.runs() if run["run_id"] not in known])

    def _wait_until_all_wait(self, run_id: str) -> None:
        until = time.monotonic() + _WITHIN
        while True:
            self.airflow.check()
            states, records = self.forms.states(run_id), self.forms.records(run_id)
            # Its own end is what it is about.
            waits = {
                task_id: states.get(task_id) in ("deferred", "success", "failed")
                or (states.get(task_id) == "running" and _knows_its_run(records.get(task_id)))
                for task_id in EXPECTED
            }
            if all(waits.values()):
                return
            if time.monotonic() > until:
                raise TimeoutError(f"not waiting: {[task_id for task_id, it_does in waits.items() if not it_does]}")
            time.sleep(0.5)

    def _end_runs(self, runs: list[dict[str, Any]]) -> None:
        """Let the platforms end all but the one that is to time out."""
        for run in runs:
            if run["target_id"] == self._targets["vanished"]:
                self.control.vanish_run(run["run_id"])
            elif run["target_id"] != self._targets["late"]:
                self.control.finish_run(run["run_id"])

    def _check(self, run_id: str, runs: list[dict[str, Any]]) -> list[str]:
        states, results = self.forms.states(run_id), self.forms.results(run_id)
        faults = []
        for task_id, end in EXPECTED.items():
            found = (states.get(task_id), _verdict(results.get(task_id)))
            if found != end:
                faults.append(f"{task_id} ended as {found}, not as {end}")
        # Two were there before.
        started = len(runs) - 2
        if started != len(STARTING):
            faults.append(f"{started} runs were started, not {len(STARTING)}")
        late = [run for run in runs if run["target_id"] == self._targets["late"]]
        if [run["phase"] for run in late] != ["cancelled"]:
            faults.append(f"the run of the task that timed out is {[run['phase'] for run in late]}")
        return faults + [f"against the platforms' documents: {fault}" for fault in self.control.violations()]


def _knows_its_run(record: dict[str, Any] | None) -> bool:
    return record is not None and record["phase"] == "started" and record["seen"]


def _verdict(result: Any) -> str | None:
    """The verdict in a report, or in each of several."""
    if isinstance(result, list):
        return " and ".join(sorted({report["verdict"] for report in result}))
    return result.get("verdict") if isinstance(result, dict) else None
