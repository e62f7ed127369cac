"""Operators for Omilia Testing Studio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_testruns.operators.base import StartRunOperator


class OmiliaCreateRunOperator(StartRunOperator):
    """Runs the test suites of an Omilia Testing Studio project and judges the result.

    ``POST /api/runs/`` of the Testing Studio API. The last three arguments filter the test cases; without them all of
    the project's run.

    :param project_id: the project.
    :param group: only test cases of this group.
    :param utterance: only test cases with this utterance.
    :param description: only test cases with this description.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "omilia"
    conn_id_field = "omilia_conn_id"
    template_fields: Sequence[str] = (
        "project_id",
        "group",
        "utterance",
        "description",
        "artifacts_path",
        "omilia_conn_id",
    )

    def __init__(
        self,
        *,
        project_id: str,
        group: str | None = None,
        utterance: str | None = None,
        description: str | None = None,
        omilia_conn_id: str = "omilia_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.group = group
        self.utterance = utterance
        self.description = description
        self.omilia_conn_id = omilia_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of ``POST /api/runs/``."""
        return {
            "project_id": self.project_id,
            "group": self.group,
            "utterance": self.utterance,
            "description": self.description,
        }
