"""Operators for Omilia Testing Studio."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_testruns.arguments import check_project, interval, seconds
from airflow_provider_testruns.cleaning import is_id, outgoing_json
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError, InvalidRequestError, NotFoundError
from airflow_provider_testruns.links.run import RunLink, announce
from airflow_provider_testruns.operators.base import PlatformOperator, StartRunOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.hooks.files import Place
    from airflow_provider_testruns.hooks.omilia import OmiliaHook
    from airflow_provider_testruns.lifecycle.run_log import RunLog
    from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd
    from airflow_provider_testruns.model import Run


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
    :param stream_logs: tell the run's own log in the task's log while it is going, each line once, in place and
        deferred. It costs one more request for each look at the run. After a restart of the triggerer the lines since
        the task was deferred are told again. Trouble with the log never changes a verdict.
    :param project_name: the project's name, instead of its id; looked up before anything is started. No project of that
        name, or more than one, is an error.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "omilia"
    conn_id_field = "omilia_conn_id"
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
        self._run_log: RunLog | None = None

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of ``POST /api/runs/``."""
        return {
            **_project(self.project_id, self.project_name),
            "group": self.group,
            "utterance": self.utterance,
            "description": self.description,
        }

    @tidy_errors
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer's wait, and with the run's log where the triggerer has left off."""
        self.read_booleans()
        if self.stream_logs and isinstance(event, dict):
            self._run_log = self._new_run_log(str(event.get("log_told") or ""))
        return super().execute_complete(context, event)

    def log_told(self) -> str | None:
        """What of the run's log is in the task's log; ``None`` without ``stream_logs``."""
        if not self.stream_logs:
            return None
        return self._run_log.told if self._run_log is not None else ""

    def _note(self, wait: Wait) -> None:
        super()._note(wait)
        # The end of a final run's log is told by _conclude.
        if self.stream_logs and self._hook is not None and not wait.run.final:
            self._tell_log(self._hook, wait.run, wait.deadline)

    def _conclude(self, context: Context, hook: PlatformHook[Any], end: WaitEnd) -> dict[str, Any]:
        if self.stream_logs:
            self._tell_log(hook, end.run)
        return super()._conclude(context, hook, end)

    def _tell_log(self, hook: PlatformHook[Any], run: Run, until: float | None = None) -> None:
        """Tell what is new in the run's log.

        :param until: while the run is going: the end of the wait. The next look is a new try, so there is one here.
        """
        run_log = self._run_log = self._run_log or self._new_run_log()
        if until is not None and not run_log.due:
            return
        steps = hook.platform.read_log(run)
        try:
            run_log.tell(hook.ask(steps) if until is None else hook.client.run(steps, until))
        except ApiError as e:
            run_log.trouble(e)

    def _new_run_log(self, told: str = "") -> RunLog:
        from airflow_provider_testruns.lifecycle.run_log import RunLog

        return RunLog(self.log, told)


class OmiliaCreateGenerationOperator(StartRunOperator):
    """Generates test cases for an Omilia Testing Studio project, and waits for them.

    ``POST /api/generations/`` of the Testing Studio API. The API has no call that stops a generation:
    ``cancel_on_kill`` and ``cancel_on_timeout`` have no effect, it goes on to its end.

    With ``artifacts_path`` the generated test cases are written there, as ``{generation_id}_artifacts.zip``.

    :param project_id: the project.
    :param group: the group of the new test cases.
    :param test_suite: the test suites that test cases are made for, separated by commas.
    :param overwrite: whether test cases that are there are replaced.
    :param simulation_data: the simulation data to add, separated by commas.
    :param project_name: the project's name, instead of its id; looked up before anything is started. No project of that
        name, or more than one, is an error.
    :param omilia_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`. A generation has no test results: those about them
    (``min_pass_rate``, ``fail_on_no_tests``) have no effect.
    """

    platform_name = "omilia"
    conn_id_field = "omilia_conn_id"
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
        # So that no message says that one was stopped.
        self.cancel_on_kill = False
        self.cancel_on_timeout = False

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
    conn_id_field = "omilia_conn_id"
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
        hook = cast("OmiliaHook", self.make_hook())
        self.log.info("Using connection %r: %s", self.conn_id, hook.settings.base_url)
        return hook


class OmiliaRevokeRunOperator(_OmiliaOperator):
    """Revokes a run on Omilia Testing Studio and waits until it is over.

    ``POST /api/runs/{run_id}/revoke/`` of the Testing Studio API. A run that is over already is no error: the log says
    how it ended. One that the platform says can't be revoked (``isRevocable`` is false) is left alone, and the task
    fails and says so.

    The return value is ``{platform, run_id, verdict, raw_state, url, started_at, finished_at, duration}``; the verdict
    of a revoked run is ``cancelled``, and another one when it had ended before the revoke took effect.

    :param run_id: the run.
    :param timeout: seconds (or a timedelta) until it must be over; then the task fails with :class:`.RunTimeoutError`.
    :param poll_interval: seconds (or a timedelta) between two looks at it, at least 0.1.
    :param omilia_conn_id: the Airflow connection.
    """

    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ("run_id", "omilia_conn_id")

    def __init__(
        self,
        *,
        run_id: str,
        timeout: float | timedelta = 300.0,
        poll_interval: float | timedelta = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.timeout = seconds("timeout", timeout)
        self.poll_interval = interval("poll_interval", poll_interval)

    @tidy_errors
    def execute(self, context: Context) -> dict[str, Any]:
        """Revoke the run and wait until it is over.

        :raises InvalidRequestError: when the platform says that it can't be revoked.
        :raises RunTimeoutError: when it is not over in time.
        :raises ApiError: when it could not be revoked, or can't be seen.
        """
        from airflow_provider_testruns.operators.stopping import wait_until_over
        from airflow_provider_testruns.platforms.call import ask
        from airflow_provider_testruns.reporting.xcom import run_to_xcom

        hook = self._connect()
        run, revocable = hook.ask(ask(hook.platform.get_revocable_run(self.run_id)))
        announce(context, run, self.log)
        if run.final:
            self.log.info("Run %s was over already, as %s: nothing to revoke.", run.run_id, run.raw_state)
        elif not revocable:
            raise InvalidRequestError(
                f"Connection {self.conn_id!r}: run {run.run_id} is {run.raw_state}, and the platform says that it can't"
                " be revoked now (isRevocable is false). Nothing was sent; the run goes on. Try again later, or wait"
                " for its end with OmiliaRunSensor."
            )
        else:
            hook.cancel_run(run.run_id)
            self.log.info("Asked the platform to revoke run %s.", run.run_id)
            run = wait_until_over(hook, run, "Run", self.log, timeout=self.timeout, poll_interval=self.poll_interval)
            if run.ending == "cancelled":
                self.log.info("Run %s has ended as %s: it was revoked.", run.run_id, run.raw_state)
            else:
                self.log.info("Run %s has ended as %s before the revoke took effect.", run.run_id, run.raw_state)
        return cast("dict[str, Any]", outgoing_json(run_to_xcom(run)))


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
    for the other operators: ``create.output["project_id"]``. The call is sent once; when its reply is lost, a retry of
    the task may create a second project.

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
                f"Connection {self.conn_id!r}: the project was created, and its id in the response is none:"
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
    """Deletes a project on Omilia Testing Studio, with its runs. Fit to be a teardown.

    ``DELETE /api/projects/{project_id}`` of the Testing Studio API. When the reply is lost, the project is looked for:
    that it is gone is what was asked for.

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
        from airflow_provider_testruns.platforms.omilia import NoSuchProjectError

        hook = self._connect()
        project_id = ""
        try:
            project_id = self._project_id(hook, self.project_id, self.project_name)
            hook.delete_project(project_id)
        except (NotFoundError, NoSuchProjectError):
            # The try before may have deleted it and not heard of it.
            if int(context["ti"].try_number or 1) < 2:
                raise
            self.log.info("There is no project %s any more.", project_id or repr(self.project_name))
        except ApiError as e:
            # Without an id the delete was not sent.
            if not e.transient or not project_id or not self._is_gone(hook, project_id):
                raise
            self.log.info("The reply was lost, and the project is gone: it was deleted. %s", e)
        self.log.info("Deleted project %s.", project_id or repr(self.project_name))

    def _is_gone(self, hook: OmiliaHook, project_id: str) -> bool:
        try:
            hook.get_project(project_id)
        except NotFoundError:
            return True
        except ApiError as e:
            self.log.warning("Whether the project is still there can't be seen. %s", e)
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
        from airflow_provider_testruns.hooks.files import check_source

        check_source(self.path, "path")
        hook = self._connect()
        project_id = self._project_id(hook, self.project_id, self.project_name)
        hook.upload_test_suites(project_id, self.path, self.field)
        self.log.info("The test suites of project %s are those of %s now.", project_id, self.path)


class _DownloadOperator(_OmiliaOperator):
    """Writes a file of the platform's: complete or not at all.

    :param path: where the file is to be, local or an object storage URL; what ends with a slash, and a local folder
        that is there, takes it under a name of its own.
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
        from airflow_provider_testruns.hooks.files import check_target

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
    :param project_id: its project, if known. It is looked at only when the file can't be had, to say why; without it
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
