"""Operators for Acme Labs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_testruns.operators.base import StartRunOperator


class AcmeRunSuiteOperator(StartRunOperator):
    """Runs a suite on Acme Labs and judges the result.

    :param suite: the suite.
    :param acme_conn_id: the Airflow connection.
    """

    platform_name = "acme"
    conn_id_attr = "acme_conn_id"
    template_fields: Sequence[str] = ("suite", "acme_conn_id")

    def __init__(self, *, suite: str, acme_conn_id: str = "acme_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.suite = suite
        self.acme_conn_id = acme_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the start."""
        return {"suite": self.suite}
