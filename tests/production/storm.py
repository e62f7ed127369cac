"""The faults of :mod:`tests.chaos`, and those that only several machines have."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import requests

from demo.rest import AirflowApiError
from tests.chaos.ledger import TaskKey, TaskRow
from tests.chaos.plan import DAG_ID, PlannedTask
from tests.chaos.storm import PLANNED, Storm

from .cluster import HOSTS, Cluster

#: What the list of the plan has these faults under.
_CLUSTER = "cluster: "
#: How long users do nothing before such a fault, so that what they did has been carried out, and after it; seconds.
_CALM = 15.0


@dataclass(frozen=True)
class Fault:
    """One of the faults of several machines.

    :param strike: lets it happen, and ends when it is over.
    """

    name: str
    strike: Callable[[ProductionStorm], None]


class ProductionStorm(Storm):
    """Storms over a :class:`.Cluster`."""

    airflow: Cluster  # type: ignore[assignment]
    _quiet_until: float = 0.0

    def begin(self) -> None:
        """Order the faults that hold all the time, and those of several machines between the others."""
        super().begin()
        self.planned = interleave(PLANNED, [_CLUSTER + fault.name for fault in FAULTS])

    # The plan

    def _strike(self, what: str, run_id: str, rows: dict[TaskKey, TaskRow]) -> bool:
        if not what.startswith(_CLUSTER):
            return time.monotonic() >= self._quiet_until and super()._strike(what, run_id, rows)
        if self.deeds and time.time() < self.deeds[-1].done + _CALM:
            # Nobody acts until then, see _act_at_random.
            self._quiet_until = time.monotonic() + 1.0
            return False
        fault = next(fault for fault in FAULTS if _CLUSTER + fault.name == what)
        self.say(f"{fault.name} …")
        began = time.time()
        fault.strike(self)
        # What could not be told to a triggerer meanwhile, or to one that takes its triggers up again.
        self.without_triggerer.append((began, time.time() + _CALM))
        self._quiet_until = time.monotonic() + _CALM
        return True

    def _act_at_random(self, dag_run: str, rows: dict[TaskKey, TaskRow]) -> None:
        waiting = bool(self.planned) and self.planned[0].startswith(_CLUSTER)
        if not waiting and time.monotonic() >= self._quiet_until:
            super()._act_at_random(dag_run, rows)

    def _act(self, kind: str, task: PlannedTask, dag_run: str, state: str | None) -> bool:
        try:
            return super()._act(kind, task, dag_run, state)
        except (AirflowApiError, requests.RequestException) as e:
            # Whether it was done is not known. The audit takes the database's word for it.
            self.say(f"A user got no answer: {type(e).__name__}")
            self.counts["requests of users without an answer"] += 1
            return False

    # The machines

    def _look_after_airflow(self, rows: dict[TaskKey, TaskRow]) -> None:
        for name in self.airflow.revive():
            self.counts[f"{name.rpartition('-')[0]} ended by itself and was started again"] += 1

    def _task_processes(self) -> list[psutil.Process]:
        """The processes that tasks run in: children of the processes of Celery's pools."""
        found = []
        for host in HOSTS:
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):
                for pool in psutil.Process(self.airflow.pid(f"worker-{host}")).children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found += pool.children()
        return found

    @contextlib.contextmanager
    def _ending_tasks_of(self, worker: str) -> Iterator[None]:
        """Note the tasks of a worker as killed, before and after."""

        def keys() -> set[TaskKey]:
            found: set[TaskKey] = set()
            for process in self.airflow.family(worker):
                running = self.ledger.running(process.pid)
                if running is not None:
                    found.add(running[0])
            return found

        ended = keys()
        self.kills += [(time.time(), key) for key in ended]
        yield
        self.kills += [(time.time(), key) for key in ended]
        self.counts["tasks that ran on a worker that ended or stood still"] += len(ended)

    def replace(self, name: str, grace: float) -> None:
        """End a part and start it again."""
        note: Any = self._ending_tasks_of(name) if name.startswith("worker") else contextlib.nullcontext()
        with note:
            self.airflow.end_component(name, grace)
        self.airflow.start_component(name)


def interleave(some: tuple[str, ...], others: list[str]) -> list[str]:
    """Spread one list over another, both in their order."""
    found: list[str] = []
    for number, one in enumerate(some):
        begin, end = (len(others) * at // len(some) for at in (number, number + 1))
        found += [one, *others[begin:end]]
    return found


def _freeze_triggerer(storm: ProductionStorm) -> None:
    # Longer than a triggerer may be silent: another one takes its triggers, and it wakes beside that one.
    with storm.airflow.frozen("triggerer-1"):
        time.sleep(25.0)


def _freeze_worker(storm: ProductionStorm) -> None:
    # Longer than a task may be silent: it gets another try, and the first one wakes beside that.
    with storm._ending_tasks_of("worker-1"), storm.airflow.frozen("worker-1"):
        time.sleep(45.0)


def _cut(cable: str, seconds: float, worker: str | None = None) -> Callable[[ProductionStorm], None]:
    def strike(storm: ProductionStorm) -> None:
        note: Any = storm._ending_tasks_of(worker) if worker else contextlib.nullcontext()
        with note, storm.airflow.cut(cable):
            time.sleep(seconds)

    return strike


def _restart_server(name: str) -> Callable[[ProductionStorm], None]:
    def strike(storm: ProductionStorm) -> None:
        storm.airflow.end_server(name)
        time.sleep(2.0)
        storm.airflow.start_server(name)

    return strike


def _scale_down(storm: ProductionStorm) -> None:
    # As Kubernetes does: SIGTERM, a grace, SIGKILL. Celery waits for its tasks all of it.
    storm.replace("worker-2", grace=10.0)


def _rolling_restart(storm: ProductionStorm) -> None:
    for name in storm.airflow.part_names():
        storm.replace(name, grace=6.0)
        time.sleep(2.0)
    for server in ("pgbouncer",):
        _restart_server(server)(storm)
    storm.airflow.wait_until_healthy(300.0)


FAULTS = (
    Fault("a triggerer is frozen, and wakes beside the one that has its triggers", _freeze_triggerer),
    Fault("a worker is frozen, and wakes beside the next tries of its tasks", _freeze_worker),
    Fault(
        "the triggerer and the worker of host 1 are cut off from the API servers",
        _cut("API of host 1", 12.0, "worker-1"),
    ),
    Fault("host 2 is cut off from the platforms", _cut("platforms of host 2", 12.0, "worker-2")),
    Fault("everything is cut off from the database", _cut("database", 8.0)),
    Fault("Redis is restarted", _restart_server("redis")),
    Fault("PostgreSQL is restarted", _restart_server("postgresql")),
    Fault("a worker is scaled down while tasks wait in it", _scale_down),
    Fault("everything is restarted, one part after the other", _rolling_restart),
)
__all__ = ["DAG_ID", "FAULTS", "Fault", "ProductionStorm", "interleave"]
