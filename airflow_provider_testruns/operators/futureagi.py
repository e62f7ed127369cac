"""Operators for Future AGI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.arguments import number
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.operators.base import StartRunOperator

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Gates


class FutureAGIExecuteTestRunOperator(StartRunOperator):
    """Executes a test run (a simulation) on Future AGI and judges the result.

    ``POST /simulate/run-tests/{run_test_id}/execute/`` of the Future AGI API, in the dialect that the connection
    chooses. Exactly one of ``run_test_id`` and ``run_test_name`` must be given, and exactly one of ``scenario_ids``,
    ``exclude_scenario_ids`` and ``select_all=True``.

    :param run_test_id: the UUID of the test run.
    :param run_test_name: its name, which must be unique.
    :param scenario_ids: only these scenarios.
    :param exclude_scenario_ids: all scenarios but these.
    :param select_all: all scenarios.
    :param simulator_id: the simulator to use; the test run's own without.
    :param eval_thresholds: the least average of an evaluation by its name, a fraction from 0 to 1
        (``{"tone": 0.85}``). An evaluation that scored nothing misses its gate.
    :param futureagi_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "futureagi"
    conn_id_field = "futureagi_conn_id"
    template_fields: Sequence[str] = (
        "run_test_id",
        "run_test_name",
        "scenario_ids",
        "exclude_scenario_ids",
        "simulator_id",
        "eval_thresholds",
        "artifacts_path",
        "futureagi_conn_id",
    )
    template_fields_renderers = {"eval_thresholds": "json"}  # noqa: RUF012 - as Airflow has it

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
        }

    def gates(self) -> Gates:
        """What the task asks of the run, with its evaluation gates."""
        from airflow_provider_testruns.model import Gates

        return Gates(self.min_pass_rate, self.fail_on_no_tests, thresholds(self.eval_thresholds))


def thresholds(given: Any) -> dict[str, float]:
    """``eval_thresholds`` as it comes from a DAG; numbers that a template made a text of are numbers again.

    :raises ConfigurationError: when it is no dict. The numbers are checked by :class:`.Gates`.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigurationError(
            f"eval_thresholds must be a dict of fractions by the evaluation's name, got {type(given).__name__}."
        )
    return {str(name): number(value) for name, value in given.items()}
