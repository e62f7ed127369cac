"""Sensors for Omilia Testing Studio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_testruns.arguments import check_project
from airflow_provider_testruns.sensors.base import RunSensor

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run


class _OfAProject(RunSensor):
    """What both sensors have: a project that is given by its id or by its name."""

    project_id: str | None
    project_name: str | None
    tested_by = ("project_id", "project_name")

    def _project_id(self) -> str:
        """The id of the project; that of a name is looked up.

        :raises ConfigurationError: when it is not that of one project.
        """
        hook = self._hook
        return cast("str", hook.ask(hook.platform.project_of(self.project_id, self.project_name)))


class OmiliaRunSensor(_OfAProject):
    """Waits for a run of Omilia Testing Studio and judges it.

    ``GET /api/runs/{run_id}`` of the Testing Studio API.

    :param run_id: the run.
    :param project_id: its project, if known: many runs of one project are then polled with one call.
    :param project_name: the project's name, instead of its id; looked up before the first poll, in the mode
        ``reschedule`` before each.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`.
    """

    platform_name = "omilia"
    conn_id_attr = "omilia_conn_id"
    template_fields: Sequence[str] = ("run_id", "project_id", "project_name", "omilia_conn_id")

    def __init__(
        self,
        *,
        run_id: str,
        project_id: str | None = None,
        project_name: str | None = None,
        omilia_conn_id: str = "omilia_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name, optional=True)
        self.omilia_conn_id = omilia_conn_id

    def watched_run(self) -> Run:
        """The run of the arguments."""
        from airflow_provider_testruns.model import Run, RunState

        project_id = self._project_id() if self.project_name is not None else self.project_id
        ids = {"project_id": project_id} if project_id else {}
        return Run("omilia", self.run_id, RunState.QUEUED, "", ids=ids)


class OmiliaGenerationSensor(_OfAProject):
    """Waits for a generation of test cases on Omilia Testing Studio.

    ``GET /api/projects/{project_id}/generations/`` of the Testing Studio API, which has no call for one generation.

    :param generation_id: the generation: ``runId`` of what its start returned.
    :param project_id: its project.
    :param project_name: the project's name, instead of its id; looked up before the first poll, in the mode
        ``reschedule`` before each.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`. A generation has no test results: those about them
    (``min_pass_rate``, ``fail_on_no_tests``) have no effect.
    """

    platform_name = "omilia"
    conn_id_attr = "omilia_conn_id"
    template_fields: Sequence[str] = ("generation_id", "project_id", "project_name", "omilia_conn_id")

    def __init__(
        self,
        *,
        generation_id: str,
        project_id: str | None = None,
        project_name: str | None = None,
        omilia_conn_id: str = "omilia_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation_id = generation_id
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)
        self.omilia_conn_id = omilia_conn_id

    def watched_run(self) -> Run:
        """The generation of the arguments."""
        from airflow_provider_testruns.model import Kind, Run, RunState

        ids = {"project_id": self._project_id(), "kind": Kind.GENERATION.value}
        return Run("omilia", self.generation_id, RunState.QUEUED, "", kind=Kind.GENERATION, ids=ids)
