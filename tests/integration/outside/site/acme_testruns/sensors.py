"""Sensors for Acme Labs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.sensors.base import RunSensor

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run


class AcmeRunSensor(RunSensor):
    """Waits for a run on Acme Labs and judges it.

    :param run_id: the run.
    :param acme_conn_id: the Airflow connection.
    """

    platform_name = "acme"
    conn_id_attr = "acme_conn_id"
    template_fields: Sequence[str] = ("run_id", "acme_conn_id")

    def __init__(self, *, run_id: str, acme_conn_id: str = "acme_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.acme_conn_id = acme_conn_id

    def watched_run(self) -> Run:
        """The run of the argument."""
        from airflow_provider_testruns.model import Run, RunState

        return Run("acme", self.run_id, RunState.QUEUED, "")
