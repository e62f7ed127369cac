"""A task's process and a triggerer's, as far as their metrics go: ``python -m tests.integration.metrics.processes``.

Each is forked as Airflow forks it: that of a task initialises the metrics of Airflow's SDK by itself
(``task_runner.main``), that of the triggers comes from one which has initialised those of Airflow's core
(``TriggererJobRunner._execute``) and initialises none. What they do is our own code against the sandbox, whose
connection is in the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from airflow import settings
from airflow.configuration import conf

from airflow_provider_testruns.metrics import metrics
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.omilia import named_id
from tests.integration.fake_context.tasks import Task, first_event


def main() -> None:
    """Start a run in one process, wait for it in another, and judge it in a third."""
    settings.configure_otel(conf)
    from airflow.observability import stats
    from airflow.observability.metrics import stats_utils

    operator = OmiliaCreateRunOperator(task_id="task", project_id=named_id(1), deferrable=False, poll_interval=0.1)
    reading, writing = os.pipe()
    _in_child(_task, operator, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        run_id = pipe.read()
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    _in_child(_trigger, run_id)


def _in_child(work: Callable[..., None], *arguments: Any) -> None:
    child = os.fork()
    if child == 0:
        # As supervisor._fork_main does.
        atexit._clear()
        status = 1
        try:
            work(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stderr.flush()
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("A process has failed.")


def _task(operator: OmiliaCreateRunOperator, pipe: int) -> None:
    from airflow.sdk.execution_time.task_runner import flush_spans
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    stats.incr("ti.start", tags={"dag_id": "dag", "task_id": "task"})
    with flush_spans():
        result = Task().run(operator)
    os.write(pipe, result["run_id"].encode())


def _trigger(run_id: str) -> None:
    from airflow.sdk.execution_time.task_runner import flush_spans

    from airflow_provider_testruns.triggers.run import RunTrigger

    run = {"platform": "omilia", "run_id": run_id, "state": "running", "raw_state": "STARTED"}
    with flush_spans():
        event = asyncio.run(first_event(RunTrigger("omilia", "omilia_default", run, 4e9, 0.1)))
    assert event["status"] == "finished", event
    metrics.count("of_the_triggerer", platform="omilia")


if __name__ == "__main__":
    main()
