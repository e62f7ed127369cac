"""Sensors for Eggplant DAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.sensors.base import RunSensor

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run


class EggplantExecutionSensor(RunSensor):
    """Waits for an execution on Eggplant DAI and judges it.

    The call that polls it depends on the server; see :meth:`.EggplantPlatform.get_run`.

    :param execution_id: the execution, as the start gave it.
    :param eggplant_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`.
    """

    platform_name = "eggplant"
    conn_id_field = "eggplant_conn_id"
    template_fields: Sequence[str] = ("execution_id", "eggplant_conn_id")

    def __init__(self, *, execution_id: str, eggplant_conn_id: str = "eggplant_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.eggplant_conn_id = eggplant_conn_id

    def watched_run(self) -> Run:
        """The execution of the arguments."""
        from airflow_provider_testruns.model import Run, RunState

        return Run("eggplant", self.execution_id, RunState.QUEUED, "")
