"""Operators for Omilia Testing Studio."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_testruns.arguments import check_project
from airflow_provider_testruns.cleaning import is_id, outgoing_json
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.exceptions import ApiError, ConfigurationError, InvalidReplyError, NotFoundError
from airflow_provider_testruns.operators.base import PlatformOperator, StartRunOperator, StopRunOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.files import Place
    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.hooks.omilia import OmiliaHook
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.tasks.stopping import Found


def _project(project_id: str | None, project_name: str | None) -> dict[str, Any]:
    """The project as an argument of a start. That without a name is as it was before there were names: by it a retry
    knows whether its arguments are those of the try before."""
    return {"project_id": project_id} if project_name is None else {"project_name": project_name}


class OmiliaCreateRunOperator(StartRunOperator):
    """Runs the test suites of an Omilia Testing Studio project and judges the result.

    ``POST /api/runs/`` of the Testing Studio API. The group, the utterance and the description filter the test cases;
    without them all of the project's run.

    :param project_id: the project.
    :param group: only test cases of this group.
    :param utterance: only test cases with this utterance.
    :param description: only test cases with this description.
    :param stream_logs: stream the run's own log into the task log while it is running, each line once, in place and
        deferred. It costs one more request per poll. After a restart of the triggerer the lines since the task was
        deferred are logged again. Errors of the log never change a verdict.
    :param project_name: the project's name, instead of its id; looked up before anything is started. No project of that
        name, or more than one, is an error.
    :param omilia_conn_id: the Airflow connection.

    With ``rerun_failed_only`` the cases that did not pass run again, in a run of their own, if a filter selects exactly
    those: if all failed, or the failed ones share a description that no other case has. The report is that of the new
    run, and a note says so. Not with ``min_pass_rate``.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "omilia"
    conn_id_attr = "omilia_conn_id"
    shows_failures = True
    reruns_failed = True
    tested_by = ("project_id", "project_name", "group", "utterance", "description")
    template_fields: Sequence[str] = (
        "project_id",
        "project_name",
        "group",
        "utterance",
        "description",
        "artifacts_path",
        "omilia_conn_id",
    )

    def __init__(
        self,
        *,
        project_id: str | None = None,
        group: str | None = None,
        utterance: str | None = None,
        description: str | None = None,
        stream_logs: bool = False,
        project_name: str | None = None,
        omilia_conn_id: str = "omilia_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)
        self.group = group
        self.utterance = utterance
        self.description = description
        self.stream_logs = stream_logs
        self.omilia_conn_id = omilia_conn_id

    def check_rerun(self) -> None:
        """As of :class:`.StartingTask`; and the gates must mean the same for some of the cases.

        :raises ConfigurationError: where only a whole run can be started, or judged.
        """
        super().check_rerun()
        if self.rerun_failed_only is True and self.min_pass_rate is not None:
            raise ConfigurationError(
                "Of rerun_failed_only=True and min_pass_rate only one can be given: Omilia runs the failed test cases"
                " again in a run of their own, whose pass rate is not that of all. Use max_failures."
            )

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of ``POST /api/runs/``."""
        return {
            **_project(self.project_id, self.project_name),
            "group": self.group,
            "utterance": self.utterance,
            "description": self.description,
        }


class OmiliaCreateGenerationOperator(StartRunOperator):
    """Generates test cases for an Omilia Testing Studio project, and waits for them.

    ``POST /api/generations/`` of the Testing Studio API. The API has no call that stops a generation:
    ``cancel_on_kill`` and ``cancel_on_timeout`` only log that it continues. A retry after a timeout waits for the same
    generation.

    With ``artifacts_path`` the generated test cases are written there, as ``{generation_id}_artifacts.zip``.

    :param project_id: the project.
    :param group: the group of the new test cases.
    :param test_suite: the test suites that test cases are made for, separated by commas.
    :param overwrite: whether existing test cases are replaced.
    :param simulation_data: the simulation data to add, separated by commas.
    :param project_name: the project's name, instead of its id; looked up before anything is started. No project of that
        name, or more than one, is an error.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`. A generation has no test results: those about them
    (``min_pass_rate``, ``fail_on_no_tests``) have no effect.
    """

    platform_name = "omilia"
    conn_id_attr = "omilia_conn_id"
    tested_by = ("project_id", "project_name", "group", "test_suite")
    template_fields: Sequence[str] = (
        "project_id",
        "project_name",
        "group",
        "test_suite",
        "overwrite",
        "simulation_data",
        "artifacts_path",
        "omilia_conn_id",
    )

    def __init__(
        self,
        *,
        project_id: str | None = None,
        group: str | None = None,
        test_suite: str | None = None,
        overwrite: bool = False,
        simulation_data: str | None = None,
        project_name: str | None = None,
        omilia_conn_id: str = "omilia_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)
        self.group = group
        self.test_suite = test_suite
        self.overwrite = overwrite
        self.simulation_data = simulation_data
        self.omilia_conn_id = omilia_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of ``POST /api/generations/``."""
        return {
            "kind": "generation",
            **_project(self.project_id, self.project_name),
            "group": self.group,
            "test_suite": self.test_suite,
            "overwrite": self.overwrite,
            "simulation_data": self.simulation_data,
        }


class _OmiliaOperator(PlatformOperator):
    """One call or two of the Testing Studio API."""

    platform_name = "omilia"
    conn_id_attr = "omilia_conn_id"
    ui_color = "#e8f0e4"

    def __init__(self, *, omilia_conn_id: str = "omilia_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.omilia_conn_id = omilia_conn_id

    def _project_id(self, hook: OmiliaHook, project_id: str | None, project_name: str | None) -> str:
        """The id of the project; that of a name is looked up."""
        found = hook.ask(hook.platform.project_of(project_id, project_name))
        if project_name is not None:
            self.log.info("Project %r is %s.", project_name, found)
        return found

    def _connect(self) -> OmiliaHook:
        return cast("OmiliaHook", self.connect())


class OmiliaRevokeRunOperator(StopRunOperator, _OmiliaOperator):
    """Revokes a run on Omilia Testing Studio and waits until it has finished.

    ``POST /api/runs/{run_id}/revoke/`` of the Testing Studio API. A run that the platform does not allow to be revoked
    (``isRevocable`` is false) is left alone, and the task fails and reports it.

    :param run_id: the run.
    :param omilia_conn_id: the Airflow connection.

    The return value and the other arguments are those of :class:`.StopRunOperator`.
    """

    template_fields: Sequence[str] = ("run_id", "omilia_conn_id")

    def __init__(self, *, run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id

    def requested_run(self) -> Run:
        """The run of the arguments."""
        from airflow_provider_testruns.model import Run, RunState

        return Run(self.platform_name, self.run_id, RunState.QUEUED, "")

    def find_run(self, hook: PlatformHook[Any], run: Run) -> Found:
        """As the platform shows it, with ``isRevocable``."""
        from airflow_provider_testruns.steps import ask
        from airflow_provider_testruns.tasks.stopping import Found

        found, revocable = hook.ask(ask(hook.platform.get_revocable_run(run.run_id)))
        return Found(found, "" if revocable else "the platform does not allow it to be revoked (isRevocable is false)")


class _ProjectOperator(_OmiliaOperator):
    """What creating and updating a project have in common: what a project consists of.

    ``git_token`` is rendered like a template field, and is none: Airflow stores the rendered value of those, and shows
    it. The rendered token is on the stack of ``execute`` only.
    """

    def __init__(
        self,
        *,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.group = group
        self.url = url
        self.git_token = git_token
        self.git_provider = git_provider

    @abstractmethod
    def _send(self, hook: OmiliaHook, git_token: str | None) -> dict[str, Any]:
        """Send the request."""

    @tidy_errors
    def execute(self, context: Context) -> dict[str, Any]:
        """Send the project.

        :return: the project with the API's own field names, without ``gitToken``.
        :raises ConfigurationError: before any request, when only some of the Git arguments are given.
        """
        project: dict[str, Any] = outgoing_json(self._send(self._connect(), self._rendered_token(context)), exact=())
        self.log.info("Project %s (%s).", project.get("id"), project.get("name"))
        return project

    def _rendered_token(self, context: Context) -> str | None:
        if self.git_token is None:
            return None
        dag = self.get_dag()
        # Not natively: a token of digits would become a number.
        env = dag.get_template_env(force_sandboxed=True) if dag is not None else self.get_template_env()
        token: str | None = self.render_template(self.git_token, context, env)
        return token


class OmiliaCreateProjectOperator(_ProjectOperator):
    """Creates a project on Omilia Testing Studio.

    ``POST /api/projects/`` of the Testing Studio API. The test suites of the project are in a Git repository with all
    of ``url``, ``git_token`` and ``git_provider``, and in Testing Studio's own S3 storage with none of them.

    The return value is the project with the API's own field names, without ``gitToken``. Its id is an XCom of its own,
    for the other operators: ``create.output["project_id"]``. The call is sent once; when its response is lost, a
    retry of the task may create a second project.

    :param name: its name.
    :param group: its group, one that the user has access to.
    :param url: of the Git repository.
    :param git_token: a token for the repository. Templated, so that it can stay where secrets are:
        ``"{{ conn.gitlab.password }}"`` or ``"{{ var.value.gitlab_token }}"``. It is masked in the logs, and is in no
        rendered template, XCom or exception.
    :param git_provider: ``gitlab`` or ``github``.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("name", "group", "url", "git_provider", "omilia_conn_id")

    def __init__(
        self,
        *,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, group=group, url=url, git_token=git_token, git_provider=git_provider, **kwargs)

    @tidy_errors
    def execute(self, context: Context) -> dict[str, Any]:
        """Create the project, and push its id as ``project_id``.

        :return: the project with the API's own field names, without ``gitToken``.
        :raises ConfigurationError: before any request, when only some of the Git arguments are given.
        """
        project = super().execute(context)
        project_id = project.get("id")
        if not is_id(project_id):
            raise InvalidReplyError(
                f"Connection {self.conn_id!r}: the project was created, and its id in the response is not valid:"
                f" {str(project_id)[:60]!r}. Look for it on the platform."
            )
        context["ti"].xcom_push(key="project_id", value=project_id)
        return project

    def _send(self, hook: OmiliaHook, git_token: str | None) -> dict[str, Any]:
        return hook.create_project(self.name, self.group, self.url, git_token, self.git_provider)


class OmiliaUpdateProjectOperator(_ProjectOperator):
    """Changes a project on Omilia Testing Studio.

    ``PUT /api/projects/{project_id}`` of the Testing Studio API, which takes the whole project as when it was created.

    :param project_id: the project.
    :param name: its name from now on; as for :class:`OmiliaCreateProjectOperator`.
    :param group: as for :class:`OmiliaCreateProjectOperator`.
    :param url: as for :class:`OmiliaCreateProjectOperator`.
    :param git_token: as for :class:`OmiliaCreateProjectOperator`; the API does not keep the old one.
    :param git_provider: as for :class:`OmiliaCreateProjectOperator`.
    :param project_name: the name that it has now, instead of its id; looked up.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = (
        "project_id",
        "project_name",
        "name",
        "group",
        "url",
        "git_provider",
        "omilia_conn_id",
    )

    def __init__(
        self,
        *,
        project_id: str | None = None,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
        project_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, group=group, url=url, git_token=git_token, git_provider=git_provider, **kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)

    def _send(self, hook: OmiliaHook, git_token: str | None) -> dict[str, Any]:
        project_id = self._project_id(hook, self.project_id, self.project_name)
        return hook.update_project(project_id, self.name, self.group, self.url, git_token, self.git_provider)


class OmiliaDeleteProjectOperator(_OmiliaOperator):
    """Deletes a project on Omilia Testing Studio, with its runs. Suitable as a teardown task.

    ``DELETE /api/projects/{project_id}`` of the Testing Studio API. When the response is lost, the project is looked
    up: if it no longer exists, it was deleted.

    :param project_id: the project.
    :param project_name: its name, instead of its id; looked up. On a later try that no project has it any more is what
        was asked for.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("project_id", "project_name", "omilia_conn_id")

    def __init__(self, *, project_id: str | None = None, project_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)

    @tidy_errors
    def execute(self, context: Context) -> None:
        """Delete the project.

        :raises NotFoundError: on the first try, when there is none.
        :raises ConfigurationError: when ``project_name`` is the name of more than one; on the first try, of none.
        """
        from airflow_provider_testruns.platforms.omilia.platform import NoSuchProjectError

        hook = self._connect()
        project_id = ""
        try:
            project_id = self._project_id(hook, self.project_id, self.project_name)
            hook.delete_project(project_id)
        except (NotFoundError, NoSuchProjectError):
            # The previous try may have deleted it and lost the response.
            if int(context["ti"].try_number or 1) < 2:
                raise
            self.log.info("Project %s no longer exists.", project_id or repr(self.project_name))
        except ApiError as e:
            # Without an id the delete was not sent.
            if not e.transient or not project_id or not self._is_gone(hook, project_id):
                raise
            self.log.info("The response was lost, and the project no longer exists: it was deleted. %s", e)
        self.log.info("Deleted project %s.", project_id or repr(self.project_name))

    def _is_gone(self, hook: OmiliaHook, project_id: str) -> bool:
        try:
            hook.get_project(project_id)
        except NotFoundError:
            return True
        except ApiError as e:
            self.log.warning("Could not check whether the project exists. %s", e)
        return False


class OmiliaUploadTestSuitesOperator(_OmiliaOperator):
    """Uploads the test suites of a project with S3 storage to Omilia Testing Studio, in place of those it has.

    ``POST /api/projects/{project_id}/suites/`` of the Testing Studio API, a ZIP file as a multipart form. A folder is
    packed first, reproducibly; links out of it, and ``.git``, are left out. Whatever its size, little memory is needed.

    :param project_id: the project.
    :param path: a ZIP file or a folder, local or an object storage URL (``s3://conn_id@bucket/suites``).
    :param field: the form field, which the API page does not name.
    :param project_name: the project's name, instead of its id; looked up.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("project_id", "project_name", "path", "omilia_conn_id")

    def __init__(
        self,
        *,
        project_id: str | None = None,
        path: Place,
        field: str = "file",
        project_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)
        self.path = path
        self.field = field

    @tidy_errors
    def execute(self, context: Context) -> None:
        """Upload the file or folder."""
        from airflow_provider_testruns.files import check_source

        check_source(self.path, "path")
        hook = self._connect()
        project_id = self._project_id(hook, self.project_id, self.project_name)
        hook.upload_test_suites(project_id, self.path, self.field)
        self.log.info("Uploaded %s to project %s.", self.path, project_id)


class _DownloadOperator(_OmiliaOperator):
    """Writes a file of the platform's: complete or not at all.

    :param path: where the file is to be, local or an object storage URL; what ends with a slash, and a local folder
        that exists, takes it under a name of its own.
    """

    def __init__(self, *, path: Place, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    @abstractmethod
    def _fetch(self, hook: OmiliaHook) -> str:
        """Write the file and say where it is."""

    @tidy_errors
    def execute(self, context: Context) -> str:
        """Write the file.

        :return: where it is.
        """
        from airflow_provider_testruns.files import check_target

        check_target(self.path, "path")
        written = self._fetch(self._connect())
        self.log.info("Saved %s", written)
        return written


class OmiliaDownloadTestSuitesOperator(_DownloadOperator):
    """Downloads the test suites of a project with S3 storage from Omilia Testing Studio, a ZIP file.

    ``GET /api/projects/{project_id}/suites/download/`` of the Testing Studio API. The return value is where the file
    is. It is there when it is complete, and not before.

    :param project_id: the project.
    :param path: where the file is to be, local or an object storage URL; a folder takes it as
        ``{project_id}_suites.zip``.
    :param project_name: the project's name, instead of its id; looked up.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("project_id", "project_name", "path", "omilia_conn_id")

    def __init__(
        self, *, project_id: str | None = None, path: Place, project_name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(path=path, **kwargs)
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name)

    def _fetch(self, hook: OmiliaHook) -> str:
        return hook.download_test_suites(self._project_id(hook, self.project_id, self.project_name), self.path)


class OmiliaDownloadRunArtifactOperator(_DownloadOperator):
    """Downloads the artifact of a run from Omilia Testing Studio, a ZIP file.

    ``GET /api/runs/{run_id}/artifacts/`` of the Testing Studio API. The return value is where the file is. It is there
    when it is complete, and not before. The platform keeps artifacts for a week or so; one that has expired is
    :class:`.NotFoundError`, with the date.

    :param run_id: the run.
    :param path: where the file is to be, local or an object storage URL; a folder takes it as
        ``{run_id}_artifacts.zip``.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("run_id", "path", "omilia_conn_id")

    def __init__(self, *, run_id: str, path: Place, **kwargs: Any) -> None:
        super().__init__(path=path, **kwargs)
        self.run_id = run_id

    def _fetch(self, hook: OmiliaHook) -> str:
        return hook.download_run_artifact(self.run_id, self.path)


class OmiliaDownloadGenerationArtifactOperator(_DownloadOperator):
    """Downloads the test cases that a generation has made from Omilia Testing Studio, a ZIP file.

    ``GET /api/generations/{generation_id}/artifacts/`` of the Testing Studio API. The return value is where the file
    is. It is there when it is complete, and not before. One that has expired is :class:`.NotFoundError`, with the date.

    :param generation_id: the generation.
    :param path: where the file is to be, local or an object storage URL; a folder takes it as
        ``{generation_id}_artifacts.zip``.
    :param project_id: its project, if known. It is read only when the file is unavailable, to report why; without it
        the user's projects are looked through.
    :param project_name: the project's name, instead of its id; looked up before the download.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("generation_id", "path", "project_id", "project_name", "omilia_conn_id")

    def __init__(
        self,
        *,
        generation_id: str,
        path: Place,
        project_id: str | None = None,
        project_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path=path, **kwargs)
        self.generation_id = generation_id
        self.project_id = project_id
        self.project_name = project_name
        check_project(project_id, project_name, optional=True)

    def _fetch(self, hook: OmiliaHook) -> str:
        project_id = self.project_id or ""
        if self.project_name is not None:
            project_id = self._project_id(hook, self.project_id, self.project_name)
        return hook.download_generation_artifact(self.generation_id, self.path, project_id)


class OmiliaGenerateGoldenDialogOperator(_DownloadOperator):
    """Makes the golden dialog of a dialog on Omilia Testing Studio and writes it to a JSON file.

    ``GET /api/dialogs/{dialog_id}/golden/`` of the Testing Studio API. The return value is where the file is.

    :param dialog_id: ``dialogId`` of a test case; it may hold dots and spaces.
    :param path: where the file is to be, local or an object storage URL; a folder takes it as ``{dialog_id}.json``.
    :param omilia_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("dialog_id", "path", "omilia_conn_id")

    def __init__(self, *, dialog_id: str, path: Place, **kwargs: Any) -> None:
        super().__init__(path=path, **kwargs)
        self.dialog_id = dialog_id

    def _fetch(self, hook: OmiliaHook) -> str:
        return hook.save_golden_dialog(self.dialog_id, self.path)
