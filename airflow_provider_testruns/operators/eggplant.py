"""Operators for Eggplant DAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_testruns.operators.base import StartRunOperator


class EggplantStartExecutionOperator(StartRunOperator):
    """Runs a model, a test case or a script on Eggplant DAI and judges the result.

    ``POST /execution_service/api/v1/executions`` of the DAI API (7.1 and later). At least one of ``model_id``,
    ``rerun_id`` and ``script`` must be given.

    :param model_id: the UUID of the model.
    :param test_case_id: the test case of the model to run; an exploratory run without.
    :param rerun_id: the test case id of the original run, for a rerun.
    :param script: the name of the script, for a script-based run.
    :param agent: the agent, ``{"agent_id": …, "is_hosted_agent": …}``. Without one DAI connects to no Eggplant
        Functional suite: with ``model_id`` and ``test_case_id`` alone it only generates a path through the model.
    :param asset: the test assets, ``{"asset_version_id": …, "asset_path": …}``.
    :param sut: the system under test, ``{"sut_id": …}`` or ``{"criteria": [tag, …]}``.
    :param model_name: the name of the model, by which runs are looked up when the reply to a start was lost. Asked for
        when it is not given.
    :param eggplant_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "eggplant"
    conn_id_field = "eggplant_conn_id"
    template_fields: Sequence[str] = (
        "model_id",
        "test_case_id",
        "rerun_id",
        "script",
        "agent",
        "asset",
        "sut",
        "model_name",
        "artifacts_path",
        "eggplant_conn_id",
    )
    template_fields_renderers = {"agent": "json", "asset": "json", "sut": "json"}  # noqa: RUF012 - as Airflow has it

    def __init__(
        self,
        *,
        model_id: str | None = None,
        test_case_id: int | str | None = None,
        rerun_id: int | str | None = None,
        script: str | None = None,
        agent: dict[str, Any] | None = None,
        asset: dict[str, Any] | None = None,
        sut: dict[str, Any] | None = None,
        model_name: str | None = None,
        eggplant_conn_id: str = "eggplant_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.test_case_id = test_case_id
        self.rerun_id = rerun_id
        self.script = script
        self.agent = agent
        self.asset = asset
        self.sut = sut
        self.model_name = model_name
        self.eggplant_conn_id = eggplant_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the start call."""
        return {
            "model_id": self.model_id,
            "test_case_id": self.test_case_id,
            "rerun_id": self.rerun_id,
            "script": self.script,
            "agent": self.agent,
            "asset": self.asset,
            "sut": self.sut,
            "model_name": self.model_name,
        }
