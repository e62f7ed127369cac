"""Operators for Future AGI."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.arguments import seconds
from airflow_provider_testruns.operators.base import StartRunOperator, StopRunOperator
from airflow_provider_testruns.tasks.judging import GATES_AS_JSON, EvaluatingTask

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run


class FutureAGIExecuteTestRunOperator(StartRunOperator, EvaluatingTask):
    """Executes a test run (a simulation) on Future AGI and judges the result.

    ``POST /simulate/run-tests/{run_test_id}/execute/`` of the Future AGI API, in the dialect that the connection
    chooses. Exactly one of ``run_test_id`` and ``run_test_name`` must be given, and exactly one of ``scenario_ids``,
    ``exclude_scenario_ids`` and ``select_all=True``.

    :param run_test_id: the UUID of the test run.
    :param run_test_name: its name, which must be unique.
    :param scenario_ids: only these scenarios. Ids that do not belong to the test run are refused.
    :param exclude_scenario_ids: all scenarios but these.
    :param select_all: all scenarios.
    :param simulator_id: the simulator to use; the test run's own without.
    :param eval_thresholds: the least average of an evaluation by its name, a fraction from 0 to 1
        (``{"tone": 0.85}``; of an evaluation that chooses, the least share of a choice: ``{"escalated=No": 0.9}``). An
        evaluation that scored nothing misses its gate; one that the test run does not have is an error, before
        anything is started.
    :param max_metric_drop: by how much an evaluation may be below that of the run that ``compare_with`` names, by its
        name, a fraction from 0 to 1 (``{"tone": 0.05}``).
    :param stalled_after: seconds (or a timedelta) after which an execution ends as errored whose calls are all final
        and which the platform does not close; nothing is cancelled, and a retry asks the platform again before it
        starts anything. ``None`` waits until the timeout.
    :param futureagi_conn_id: the Airflow connection.

    With ``rerun_failed_only`` the calls that did not complete run again, in the same execution. Future AGI does that
    for voice agents only.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "futureagi"
    conn_id_attr = "futureagi_conn_id"
    shows_failures = True
    reruns_failed = True
    tested_by = ("run_test_id", "run_test_name", "scenario_ids", "exclude_scenario_ids", "select_all")
    template_fields: Sequence[str] = (
        "run_test_id",
        "run_test_name",
        "scenario_ids",
        "exclude_scenario_ids",
        "simulator_id",
        "eval_thresholds",
        "max_metric_drop",
        "artifacts_path",
        "futureagi_conn_id",
    )
    template_fields_renderers = GATES_AS_JSON

    def __init__(
        self,
        *,
        run_test_id: str | None = None,
        run_test_name: str | None = None,
        scenario_ids: Sequence[str] | None = None,
        exclude_scenario_ids: Sequence[str] | None = None,
        select_all: bool = False,
        simulator_id: str | None = None,
        eval_thresholds: dict[str, float] | None = None,
        max_metric_drop: dict[str, float] | None = None,
        stalled_after: float | timedelta | None = 1800.0,
        futureagi_conn_id: str = "futureagi_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_test_id = run_test_id
        self.run_test_name = run_test_name
        self.scenario_ids = scenario_ids
        self.exclude_scenario_ids = exclude_scenario_ids
        self.select_all = select_all
        self.simulator_id = simulator_id
        self.eval_thresholds = eval_thresholds
        self.max_metric_drop = max_metric_drop
        self.check_evaluations()
        self.stalled_after = None if stalled_after is None else seconds("stalled_after", stalled_after)
        self.futureagi_conn_id = futureagi_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the execute call."""
        return {
            "run_test_id": self.run_test_id,
            "run_test_name": self.run_test_name,
            "scenario_ids": self.scenario_ids,
            "exclude_scenario_ids": self.exclude_scenario_ids,
            "select_all": self.select_all,
            "simulator_id": self.simulator_id,
            "evaluations": self.evaluations(),
        }


class FutureAGIRerunCallsOperator(StartRunOperator, EvaluatingTask):
    """Runs calls of an execution on Future AGI again, waits for it and judges the result.

    ``POST /simulate/test-executions/{id}/rerun-calls/`` of the Future AGI API. The execution must be final; it keeps
    its id, goes back to running, and is judged as a whole, with the calls that are not run again. By default the calls
    that did not complete are run again; when there is none, the execution is judged as it is.

    A rerun is paid for, and no list shows it: when its response is lost it is not sent again, in this try or a later
    one, and the task fails with ``StartOutcomeUnknownError``. A rerun that was started is waited for by the next try.

    :param execution_id: the execution.
    :param run_test_id: its test run, if known: for the link, and to check ``eval_thresholds`` before anything is run.
    :param rerun_type: ``call_and_eval`` calls and evaluates again, which Future AGI does for voice agents only;
        ``eval_only`` evaluates again what was said, usually with ``select_all=True``.
    :param call_execution_ids: these calls. Those that are no calls of the execution are refused.
    :param select_all: all calls.
    :param eval_thresholds: as of :class:`FutureAGIExecuteTestRunOperator`.
    :param max_metric_drop: as of :class:`FutureAGIExecuteTestRunOperator`.
    :param stalled_after: seconds (or a timedelta) after which an execution ends as errored whose calls are all final
        and which the platform does not close; nothing is cancelled, and a retry asks the platform again before it
        starts anything. ``None`` waits until the timeout.
    :param futureagi_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`; when the task times out or is killed, the execution is
    cancelled.
    """

    platform_name = "futureagi"
    conn_id_attr = "futureagi_conn_id"
    tested_by = ("run_test_id",)
    template_fields: Sequence[str] = (
        "execution_id",
        "run_test_id",
        "rerun_type",
        "call_execution_ids",
        "eval_thresholds",
        "max_metric_drop",
        "artifacts_path",
        "futureagi_conn_id",
    )
    template_fields_renderers = GATES_AS_JSON

    def __init__(
        self,
        *,
        execution_id: str,
        run_test_id: str | None = None,
        rerun_type: str = "call_and_eval",
        call_execution_ids: Sequence[str] | None = None,
        select_all: bool = False,
        eval_thresholds: dict[str, float] | None = None,
        max_metric_drop: dict[str, float] | None = None,
        stalled_after: float | timedelta | None = 1800.0,
        futureagi_conn_id: str = "futureagi_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.run_test_id = run_test_id
        self.rerun_type = rerun_type
        self.call_execution_ids = call_execution_ids
        self.select_all = select_all
        self.eval_thresholds = eval_thresholds
        self.max_metric_drop = max_metric_drop
        self.check_evaluations()
        self.stalled_after = None if stalled_after is None else seconds("stalled_after", stalled_after)
        self.futureagi_conn_id = futureagi_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the rerun."""
        return {
            # A template that gives nothing must not become a start of something else.
            "rerun_of": self.execution_id or "",
            "run_test_id": self.run_test_id or None,
            "rerun_type": self.rerun_type,
            "call_execution_ids": self.call_execution_ids,
            "select_all": self.select_all,
            "evaluations": self.evaluations(),
        }


class FutureAGICancelTestExecutionOperator(StopRunOperator):
    """Cancels an execution on Future AGI and waits until it has finished.

    ``POST /simulate/test-executions/{id}/cancel/`` of the Future AGI API. Future AGI would make a cancelled execution
    of a completed one, so its status is read first.

    :param execution_id: the execution.
    :param run_test_id: its test run, if known: for the link.
    :param futureagi_conn_id: the Airflow connection.

    The return value and the other arguments are those of :class:`.StopRunOperator`.
    """

    platform_name = "futureagi"
    conn_id_attr = "futureagi_conn_id"
    template_fields: Sequence[str] = ("execution_id", "run_test_id", "futureagi_conn_id")

    def __init__(
        self,
        *,
        execution_id: str,
        run_test_id: str | None = None,
        futureagi_conn_id: str = "futureagi_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.run_test_id = run_test_id
        self.futureagi_conn_id = futureagi_conn_id

    def requested_run(self) -> Run:
        """The execution of the arguments."""
        from airflow_provider_testruns.model import Run, RunState

        ids = {"run_test_id": self.run_test_id} if self.run_test_id else {}
        return Run(self.platform_name, self.execution_id, RunState.QUEUED, "", ids=ids)
