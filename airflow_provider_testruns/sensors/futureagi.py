"""Sensors for Future AGI."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.arguments import seconds
from airflow_provider_testruns.sensors.base import RunSensor
from airflow_provider_testruns.tasks.judging import GATES_AS_JSON, EvaluatingTask

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run


class FutureAGITestExecutionSensor(RunSensor, EvaluatingTask):
    """Waits for an execution of a test run on Future AGI and judges it.

    ``GET /sdk/api/v1/simulation/metrics/`` of the Future AGI API.

    :param execution_id: the execution.
    :param run_test_id: its test run, if known: many executions of one test run are then polled with one call, and the
        link leads to the execution.
    :param eval_thresholds: the least average of an evaluation by its name, a fraction from 0 to 1.
    :param max_metric_drop: by how much an evaluation may be below that of the run that ``compare_with`` names, by its
        name, a fraction from 0 to 1.
    :param stalled_after: seconds (or a timedelta) after which an execution ends as errored whose calls are all final
        and which the platform does not close. ``None`` waits until the timeout.
    :param futureagi_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`.
    """

    platform_name = "futureagi"
    conn_id_attr = "futureagi_conn_id"
    tested_by = ("run_test_id",)
    template_fields: Sequence[str] = (
        "execution_id",
        "run_test_id",
        "eval_thresholds",
        "max_metric_drop",
        "futureagi_conn_id",
    )
    template_fields_renderers = GATES_AS_JSON

    def __init__(
        self,
        *,
        execution_id: str,
        run_test_id: str | None = None,
        eval_thresholds: dict[str, float] | None = None,
        max_metric_drop: dict[str, float] | None = None,
        stalled_after: float | timedelta | None = 1800.0,
        futureagi_conn_id: str = "futureagi_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.run_test_id = run_test_id
        self.eval_thresholds = eval_thresholds
        self.max_metric_drop = max_metric_drop
        self.check_evaluations()
        self.stalled_after = None if stalled_after is None else seconds("stalled_after", stalled_after)
        self.futureagi_conn_id = futureagi_conn_id

    def watched_run(self) -> Run:
        """The execution of the arguments."""
        from airflow_provider_testruns.model import Run, RunState

        ids = {"run_test_id": self.run_test_id} if self.run_test_id else {}
        return Run("futureagi", self.execution_id, RunState.QUEUED, "", ids=ids)
