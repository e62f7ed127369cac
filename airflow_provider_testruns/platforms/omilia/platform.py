"""Omilia Testing Studio: its API, as calls and as the steps of a run's life.

Every endpoint of the Testing Studio API page is a method that gives a :class:`Call`. Paths are as documented,
character for character: some end with a slash and some do not. How responses are read is in :mod:`.omilia.responses`.

Two things are run here: *runs* of a project's test suites, and *generations*, which make test cases from them. Both
have the same life; a generation has no call of its own to look at it, and is found in its project's list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from airflow_provider_testruns import limits
from airflow_provider_testruns.arguments import identifier, one_of, required_string, string_or_none
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import clean, is_clean, is_id
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import (
    ApiError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
)
from airflow_provider_testruns.model import CaseResult, CaseTexts, Counts, Kind, Outcome, Run, RunReport, Verdict
from airflow_provider_testruns.platforms.omilia.responses import (
    DELAYS,
    SHOWN,
    Artifact,
    artifact_of,
    bare_rows,
    case_of,
    counts_of,
    has,
    log_of,
    many,
    one,
    plain,
    run_of,
    same_id,
    trouble_in,
    without_git_token,
)
from airflow_provider_testruns.platforms.platform import (
    NOT_LISTED,
    Identity,
    Platform,
    PollCache,
    Start,
    error_message_reader,
)
from airflow_provider_testruns.platforms.reading import Fields, each, newest_first
from airflow_provider_testruns.steps import Call, Response, Steps, Upload, ask, no_value, optional, path

T = TypeVar("T")

log = get_logger(__name__)

_GIT_PROVIDERS = ("gitlab", "github")
#: What the body of a project calls the Git arguments, by the sample and by the table of the API page.
_NAMES_OF_THE_SAMPLE: Mapping[str, str] = MappingProxyType({"git_token": "gitToken", "git_provider": "gitProvider"})
_NAMES_OF_THE_TABLE: Mapping[str, str] = MappingProxyType({"git_token": "git_token", "git_provider": "git_provider"})
#: Files are not JSON, and a server that goes by this header must not refuse to send them.
_ANY_TYPE = {"Accept": "*/*"}
#: How many projects are looked through, at most, for a generation whose project is not known.
_MOST_PROJECTS = 25
#: How many test cases, or projects, a sentence names.
_MOST_NAMED = 10
_find_words = error_message_reader("detail", "errors", "message", "error")


class NoSuchProjectError(ConfigurationError):
    """There is no project of a name."""


class OmiliaPlatform(Platform):
    """Omilia Testing Studio's API.

    :param base_url: where it is, for links.
    :param run_url_template: the page of a run, with ``{base_url}``, ``{run_id}`` and ``{project_id}``; without, links
        go to ``base_url``.
    """

    name: ClassVar[str] = "omilia"
    title: ClassVar[str] = PLATFORMS["omilia"].title

    def __init__(self, base_url: str = "", run_url_template: str = "") -> None:
        self._base_url = base_url
        self._run_url_template = run_url_template or "{base_url}"

    # The calls, in the order of the API page

    def healthcheck(self) -> Call[dict[str, Any]]:
        """Whether the service and what it depends on are up (*Health Check*). ``GET /api/healthcheck/`` of the
        Testing Studio API page.

        :return: the API's own field: ``status``.
        """
        return _call("ask for its health", "GET", "/api/healthcheck/", lambda response: dict(one(response).raw))

    def list_projects(self) -> Call[list[dict[str, Any]]]:
        """The projects that the user has access to (*Get Projects*). ``GET /api/projects/``.

        :return: with the API's own field names, without ``gitToken``.
        """
        return _call("list the projects", "GET", "/api/projects/", lambda response: without_git_token(plain(response)))

    def create_project(
        self,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
        *,
        names: Mapping[str, str] = _NAMES_OF_THE_SAMPLE,
    ) -> Call[dict[str, Any]]:
        """*Create Project*: ``POST /api/projects/``.

        :param names: what the body calls the Git arguments.
        :raises ConfigurationError: when only some of the Git arguments are given, or one can't be right.
        """
        return _call(
            f"create project {name!r}",
            "POST",
            "/api/projects/",
            _read_project(None),
            json=_project_body(name, group, url, git_token, git_provider, names),
            idempotent=False,
            secrets=_secrets_of(git_token),
        )

    def update_project(
        self,
        project_id: str,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
        *,
        names: Mapping[str, str] = _NAMES_OF_THE_SAMPLE,
    ) -> Call[dict[str, Any]]:
        """*Edit Project*: ``PUT /api/projects/{project_id}``.

        :param names: what the body calls the Git arguments.
        :raises ConfigurationError: when only some of the Git arguments are given, or one can't be right.
        """
        return _call(
            f"update project {project_id}",
            "PUT",
            _path("/api/projects/{project_id}", project_id=project_id),
            _read_project(project_id),
            json=_project_body(name, group, url, git_token, git_provider, names),
            idempotent=False,
            secrets=_secrets_of(git_token),
        )

    def saving_project(self, project_id: str | None, *project: str | None) -> Steps[dict[str, Any]]:
        """*Create Project*, or *Edit Project*, whichever of the API page's two namings the platform takes.

        The Git arguments are ``gitToken`` and ``gitProvider`` in the page's sample, ``git_token`` and ``git_provider``
        in its table. The request goes out with the sample's names, and once more with the table's only where the
        platform refused the first one (400, 422) for its Git arguments: such a refusal proves that nothing was created.

        :param project_id: the project to change; ``None`` makes a new one.
        :param project: arguments of :meth:`create_project`, by position.
        :raises ConfigurationError: when only some of the Git arguments are given, or one can't be right.
        """
        make: Callable[..., Call[dict[str, Any]]] = (
            self.create_project if project_id is None else partial(self.update_project, project_id)
        )
        call = make(*project)
        with_git = _NAMES_OF_THE_SAMPLE["git_token"] in call.json
        try:
            saved = yield from ask(call)
        except InvalidRequestError as refusal:
            if not with_git or not _speaks_of_names(refusal):
                raise
            log.info("%s Sending the project again, with the names git_token and git_provider.", refusal)
            saved = yield from ask(make(*project, names=_NAMES_OF_THE_TABLE))
        if with_git and Fields(saved, "data").get("gitStorage") is False:
            log.warning(
                "Project %s was saved, and the platform shows it without Git storage: it has ignored the Git arguments."
                " Nothing is sent again, as that could create a second project. Change this one on the platform.",
                saved.get("id"),
            )
        return saved

    def delete_project(self, project_id: str) -> Call[None]:
        """Delete a project (*Delete Project*). ``DELETE /api/projects/{project_id}``.

        :param project_id: the project.
        """
        where = _path("/api/projects/{project_id}", project_id=project_id)
        return _call(f"delete project {project_id}", "DELETE", where, no_value, idempotent=False)

    def get_project(self, project_id: str) -> Call[dict[str, Any]]:
        """A project, with its latest run as ``latestRun`` (*Get Project*). ``GET /api/projects/{project_id}``.

        :param project_id: the project.
        :return: with the API's own field names, without ``gitToken``.
        """
        where = _path("/api/projects/{project_id}", project_id=project_id)
        return _call(f"get project {project_id}", "GET", where, _read_project(project_id))

    def list_project_runs(self, project_id: str) -> Call[list[Run]]:
        """All runs of a project, in the API's order and in one response (*Get Project Runs*).
        ``GET /api/projects/{project_id}/runs/``.

        :param project_id: the project.
        """
        where = _path("/api/projects/{project_id}/runs/", project_id=project_id)
        read = partial(self._runs, Kind.RUN, project_id, None)
        return _call(f"list the runs of project {project_id}", "GET", where, read)

    def list_project_generations(self, project_id: str) -> Call[list[dict[str, Any]]]:
        """All generations of a project, in one response (*Get Project Generated Test Cases*).
        ``GET /api/projects/{project_id}/generations/``.

        :param project_id: the project.
        :return: with the API's own field names; ``runId`` is the generation's id.
        """
        where = _path("/api/projects/{project_id}/generations/", project_id=project_id)
        return _call(f"list the generations of project {project_id}", "GET", where, plain)

    def list_project_run_stats(self, project_id: str) -> Call[list[dict[str, Any]]]:
        """The statistics of a project's runs (*Get Project Run Stats*). ``GET /api/projects/{project_id}/runs_stats/``.

        :param project_id: the project.
        :return: ``statsId, runId, pass, fail, unavailable`` of each; ``runId`` tells them apart, ``statsId`` does not.
        """
        where = _path("/api/projects/{project_id}/runs_stats/", project_id=project_id)
        return _call(f"list the statistics of project {project_id}", "GET", where, plain)

    def upload_test_suites(self, project_id: str, file: Path, field: str = "file") -> Call[None]:
        """*Upload Project Test Suites*: ``POST /api/projects/{project_id}/suites/``, a ZIP as a multipart form.

        :param project_id: a project with S3 storage.
        :param file: the ZIP file.
        :param field: the form field, which the API page does not name.
        """
        if not isinstance(field, str) or not field.strip() or not field.isprintable() or '"' in field:
            raise ConfigurationError(f"field must be the name of a form field, such as 'file'; got {field!r}.")
        return _call(
            f"upload the test suites of project {project_id}",
            "POST",
            _path("/api/projects/{project_id}/suites/", project_id=project_id),
            no_value,
            upload=Upload(field, file),
            idempotent=False,
            error_text=_words_on_an_upload,
        )

    def download_test_suites(self, project_id: str, file: Path) -> Call[None]:
        """*Download Project Test Suites*: ``GET /api/projects/{project_id}/suites/download/``, a ZIP.

        :param project_id: a project with S3 storage.
        :param file: takes the ZIP.
        """
        where = _path("/api/projects/{project_id}/suites/download/", project_id=project_id)
        what = f"download the test suites of project {project_id}"
        return _call(what, "GET", where, no_value, save_to=file, headers=_ANY_TYPE)

    def create_run(
        self, project_id: str, group: str | None = None, utterance: str | None = None, description: str | None = None
    ) -> Call[Run]:
        """*Create Run*: ``POST /api/runs/``. Starts a run.

        The status in the response says nothing: the sample's is already ``SUCCESS``.

        :raises ConfigurationError: naming the argument that can't be right.
        """
        body = {
            "projectId": identifier("project_id", project_id),
            # The sample sends null for a filter that is not used.
            "group": string_or_none("group", group),
            "utterance": string_or_none("utterance", utterance),
            "description": string_or_none("description", description),
        }
        return _call(
            f"start a run of project {project_id}",
            "POST",
            "/api/runs/",
            lambda response: self._run(one(response), Kind.RUN, project_id),
            json=body,
            idempotent=False,
        )

    def get_run_call(self, run_id: str, project_id: str = "") -> Call[Run]:
        """*Get Run*: ``GET /api/runs/{run_id}``."""
        where = _path("/api/runs/{run_id}", run_id=run_id)
        return _call(
            f"get run {run_id}", "GET", where, lambda response: self._run(one(response, run_id), Kind.RUN, project_id)
        )

    def download_run_artifact(self, run_id: str, file: Path) -> Call[None]:
        """*Get Run Artifact*: ``GET /api/runs/{run_id}/artifacts/``, a ZIP, until it expires.

        :param run_id: the run.
        :param file: takes the ZIP.
        """
        where = _path("/api/runs/{run_id}/artifacts/", run_id=run_id)
        what = f"download the artifact of run {run_id}"
        return _call(what, "GET", where, no_value, save_to=file, headers=_ANY_TYPE)

    def revoke_run(self, run_id: str) -> Call[None]:
        """Stop a run (*Revoke Run*). ``POST /api/runs/{run_id}/revoke/``, sent once.

        :param run_id: the run.
        :raises InvalidRequestError: when the platform refuses, as it may for a run that is final. :meth:`cancel_run`
            does not.
        """
        where = _path("/api/runs/{run_id}/revoke/", run_id=run_id)
        return _call(f"revoke run {run_id}", "POST", where, no_value, idempotent=False)

    def list_run_test_suites(self, run_id: str) -> Call[list[dict[str, Any]]]:
        """The test suites of a run (*Get Run Test Suites*). ``GET /api/runs/{run_id}/suites/``.

        :param run_id: the run.
        :return: ``testSuiteName`` of each; what failed in them is in :meth:`list_run_test_cases`.
        """
        where = _path("/api/runs/{run_id}/suites/", run_id=run_id)
        return _call(f"list the test suites of run {run_id}", "GET", where, plain)

    def get_run_stats(self, run_id: str) -> Call[dict[str, Any]]:
        """How many test cases of a run ended in which way (*Get Run Stats*). ``GET /api/runs/{run_id}/run_stats/``.

        :param run_id: the run.
        :return: ``statsId, runId, pass, fail, unavailable``.
        """
        where = _path("/api/runs/{run_id}/run_stats/", run_id=run_id)
        return _call(
            f"get the statistics of run {run_id}", "GET", where, lambda response: dict(one(response, run_id).raw)
        )

    def list_run_test_cases(self, run_id: str) -> Call[list[dict[str, Any]]]:
        """The test cases of a run (*Get Run Test Cases Stats*). ``GET /api/runs/{run_id}/test_cases/``.

        :param run_id: the run.
        :return: with the API's own field names. ``executionTime`` is in milliseconds, whatever the API page says.
        """
        where = _path("/api/runs/{run_id}/test_cases/", run_id=run_id)
        return _call(f"list the test cases of run {run_id}", "GET", where, plain)

    def get_run_logs(self, run_id: str) -> Call[list[tuple[str, str]]]:
        """The log of a run (*Get Run Logs*). ``GET /api/runs/{run_id}/logs/``.

        :param run_id: the run.
        :return: ``(section, text)`` in order; sections inside others stand where they do there.
        """
        where = _path("/api/runs/{run_id}/logs/", run_id=run_id)
        return _call(f"get the log of run {run_id}", "GET", where, log_of)

    def create_generation(
        self,
        project_id: str,
        group: str | None = None,
        test_suite: str | None = None,
        overwrite: bool = False,
        simulation_data: str | None = None,
    ) -> Call[dict[str, Any]]:
        """Start a generation of test cases (*Create Test Case Generation Run*). ``POST /api/generations/``, sent once.

        :param project_id: the project.
        :param group: the group of the new test cases.
        :param test_suite: the test suites that test cases are made for, separated by commas.
        :param overwrite: whether test cases that are there are replaced.
        :param simulation_data: the simulation data to add, separated by commas.
        :return: the generation with the API's own field names; ``runId`` is its id.
        :raises ConfigurationError: naming the argument that can't be right.
        """
        if not isinstance(overwrite, bool):
            raise ConfigurationError(
                f"overwrite must be True or False, got {overwrite!r}. For a template, set render_template_as_native_obj"
                " of the DAG."
            )
        optional = {
            "group": string_or_none("group", group),
            "testSuite": string_or_none("test_suite", test_suite),
            "simulationData": string_or_none("simulation_data", simulation_data),
        }
        # The sample leaves out what is not used, and sends a boolean where the table has a string.
        body = {"projectId": identifier("project_id", project_id), "overwrite": overwrite}
        body.update({name: value for name, value in optional.items() if value is not None})
        return _call(
            f"start a generation for project {project_id}",
            "POST",
            "/api/generations/",
            lambda response: dict(one(response).raw),
            json=body,
            idempotent=False,
        )

    def get_generation(self, generation_id: str, project_id: str) -> Call[dict[str, Any]]:
        """A generation as its project's list shows it (*Get Project Generated Test Cases*).
        ``GET /api/projects/{project_id}/generations/``: there is no call for a single one.

        :param generation_id: the generation.
        :param project_id: its project.
        :return: with the API's own field names.
        :raises NotFoundError: when the project has no such generation.
        """
        identifier("generation_id", generation_id)
        return self.list_project_generations(project_id).with_reader(
            lambda response: dict(_generation(response, generation_id, project_id).raw)
        )

    def download_generation_artifact(self, generation_id: str, file: Path) -> Call[None]:
        """*Get Test Case Generation Run Artifact*: ``GET /api/generations/{generation_id}/artifacts/``, a ZIP.

        :param generation_id: the generation.
        :param file: takes the ZIP.
        """
        where = _path("/api/generations/{generation_id}/artifacts/", generation_id=generation_id)
        what = f"download the artifact of generation {generation_id}"
        return _call(what, "GET", where, no_value, save_to=file, headers=_ANY_TYPE)

    def get_golden_dialog(self, dialog_id: str) -> Call[Any]:
        """Make the golden dialog of a dialog (*Generate Golden Dialog*). ``GET /api/dialogs/{dialog_id}/golden/``.

        :param dialog_id: ``dialogId`` of a test case; it may hold dots and spaces.
        :return: the JSON of the golden dialog.
        """
        where = _path("/api/dialogs/{dialog_id}/golden/", dialog_id=dialog_id)
        return _call(f"get the golden dialog of {dialog_id}", "GET", where, lambda response: response.json())

    # Names instead of ids

    def project_named(self, name: str) -> Steps[str]:
        """The id of the one project of a name, from *Get Projects*.

        :param name: the project's name, to the letter.
        :raises NoSuchProjectError: when no project has this name.
        :raises ConfigurationError: when more than one has, or that can't be determined.
        """
        required_string("project_name", name)
        call: Call[str] = self.list_projects().with_reader(lambda response: _id_of_project(response, name))
        return (yield from ask(call))

    def project_of(self, project_id: str | None, project_name: str | None) -> Steps[str]:
        """The id of a project that is given by its id or by its name.

        :param project_id: its id; ``None`` or empty with a name.
        :param project_name: its name; looked up with one call.
        :raises ConfigurationError: for both, for neither, and where the name is not that of one project.
        """
        if project_name is None:
            return identifier("project_id (or project_name)" if project_id is None else "project_id", project_id)
        if project_id:
            raise ConfigurationError(
                f"Exactly one of project_id and project_name must be given, got both: {project_id!r} and"
                f" {project_name!r}."
            )
        return (yield from self.project_named(project_name))

    # What more a run tells of itself

    def get_revocable_run(self, run_id: str) -> Call[tuple[Run, bool]]:
        """*Get Run*, with ``isRevocable``: only where it is given as false the run can't be revoked.

        :param run_id: the run.
        """

        def read(response: Response) -> tuple[Run, bool]:
            row = one(response, run_id)
            return self._run(row, Kind.RUN, ""), row.flag("isRevocable", default=True)

        return self.get_run_call(run_id).with_reader(read)

    def find_artifact(self, kind: Kind, run_id: str, project_id: str = "") -> Steps[tuple[Run, Artifact | None] | None]:
        """What the platform says of the artifact of a run or a generation.

        :param kind: which of the two.
        :param run_id: its id.
        :param project_id: of a generation: its project. Without, the first of the user's projects are looked through.
        :return: the run, and its artifact if it has one; ``None`` when the run is not found.
        """
        if kind is Kind.RUN:
            call: Call[tuple[Run, Artifact | None]] = self.get_run_call(run_id).with_reader(
                lambda response: self._with_artifact(one(response, run_id), kind, "")
            )
            return (yield from optional(ask(call)))
        projects = [project_id]
        if not project_id:
            listed = yield from ask(self.list_projects())
            projects = [project["id"] for project in listed[:_MOST_PROJECTS] if is_id(project.get("id"))]
        for project in projects:
            rows = yield from optional(ask(self.list_project_generations(project).with_reader(many)))
            for row in rows or []:
                if same_id(row.verbatim("runId"), run_id):
                    return self._with_artifact(row, kind, project)
        return None

    def _with_artifact(self, row: Fields, kind: Kind, project_id: str) -> tuple[Run, Artifact | None]:
        return self._run(row, kind, project_id), artifact_of(row)

    def read_log(self, run: Run) -> Steps[list[tuple[str, str]]]:
        """The lines of a run's log so far, each with its section; none while there is no log yet."""
        return (yield from optional(ask(self.get_run_logs(run.run_id)))) or []

    # A run's life

    def prepare_start(  # type: ignore[override]  # a platform's own arguments, in place of any
        self,
        project_id: str | None = None,
        group: str | None = None,
        utterance: str | None = None,
        description: str | None = None,
        *,
        kind: str = Kind.RUN.value,
        test_suite: str | None = None,
        overwrite: bool = False,
        simulation_data: str | None = None,
        project_name: str | None = None,
    ) -> Steps[Start]:
        """Make the start of a run or of a generation ready. Asks nothing, but for the project's id.

        :param project_id: the project.
        :param group: of a run: only test cases of this group. Of a generation: the group of the new test cases.
        :param utterance: of a run: only test cases with this utterance.
        :param description: of a run: only test cases with this description.
        :param kind: ``run`` or ``generation``.
        :param test_suite: of a generation: the test suites that test cases are made for, separated by commas.
        :param overwrite: of a generation: whether test cases that are there are replaced.
        :param simulation_data: of a generation: the simulation data to add, separated by commas.
        :param project_name: the project's name, instead of its id; looked up in *Get Projects*.
        :raises ConfigurationError: naming the argument that can't be right.
        """
        # What can't be right is found before anything is looked up.
        if _kind(kind) is Kind.RUN:
            _not_for("run", test_suite=test_suite, overwrite=overwrite, simulation_data=simulation_data)
            if project_name is not None:
                self.create_run("p", group, utterance, description)
            project_id = yield from self.project_of(project_id, project_name)
            return Start(
                f"run of project {project_id}",
                self.create_run(project_id, group, utterance, description),
                {"project_id": project_id},
                {"group": group or None, "utterance": utterance or None, "description": description or None},
            )
        _not_for("generation", utterance=utterance, description=description)
        if project_name is not None:
            self.create_generation("p", group, test_suite, overwrite, simulation_data)
        project_id = yield from self.project_of(project_id, project_name)
        call = self.create_generation(project_id, group, test_suite, overwrite, simulation_data)
        return Start(
            f"generation for project {project_id}",
            call.with_reader(lambda response: self._run(one(response), Kind.GENERATION, project_id)),
            {"project_id": project_id, "kind": Kind.GENERATION.value},
            {
                "group": group or None,
                "test_suite": test_suite or None,
                "overwrite": overwrite,
                "simulation_data": simulation_data or None,
            },
        )

    def identity(self, **arguments: Any) -> Steps[Identity | None]:
        """The project, and what a run or a generation shows of its arguments. Asks for the project's id only."""
        start = yield from self.prepare_start(**arguments)
        return Identity(start.ids, start.started_with)

    def run_by_id(  # type: ignore[override]  # a platform's own ids, in place of any
        self, run_id: str, project_id: str | None = None, kind: str = Kind.RUN.value
    ) -> Run:
        """A run, or a generation, of which only the ids are known.

        :param run_id: its id.
        :param project_id: its project; a generation can't be polled without it.
        :param kind: ``run`` or ``generation``.
        :raises ConfigurationError: for another kind.
        """
        ids = {"project_id": project_id, "kind": kind if _kind(kind) is not Kind.RUN else None}
        return super().run_by_id(run_id, **ids)

    def get_stored_run(self, stored: Run, identity: Identity, since: datetime | None) -> Steps[Run]:
        """The run itself; where it does not say of which project it is, the project's list is asked, too."""
        project_id = identity.ids["project_id"]
        named = self.run_by_id(stored.run_id, **identity.ids)
        if named.kind is Kind.GENERATION:
            return (yield from self.get_run(named))
        run: Run = yield from self.get_run(self.run_by_id(stored.run_id))
        if run.ids.get("project_id"):
            return run
        listed = yield from self.find_runs(since, project_id=project_id)
        return next((each for each in listed if each.run_id == run.run_id), replace(run, ids=NOT_LISTED))

    def newest_run(self, start: Start) -> Steps[Run | None]:
        """The project's ``latestRun``; of generations, the newest in the project's list."""
        project_id = start.ids["project_id"]
        if start.ids.get("kind") != Kind.GENERATION.value:
            project: Call[tuple[bool, Run | None]] = self.get_project(project_id).with_reader(
                lambda response: self._latest(response, project_id)
            )
            known, latest = yield from ask(project)
            if known:
                return latest
        runs = yield from self.find_runs(None, **start.ids)
        return runs[0] if runs else None

    def get_run(self, run: Run) -> Steps[Run]:
        """One run, or one generation, in its present state.

        :param run: as it was seen last; the ids of a generation must have its project.
        :raises NotFoundError: when there is none.
        """
        project = run.ids.get("project_id", "")
        if run.kind is not Kind.GENERATION:
            return (yield from ask(self.get_run_call(run.run_id, project)))
        generation: Call[Run] = self.get_generation(run.run_id, project).with_reader(
            lambda response: self._run(_generation(response, run.run_id, project), Kind.GENERATION, project)
        )
        return (yield from ask(generation))

    def prepare_rerun_of_failed(self, run: Run, **arguments: Any) -> Steps[Start | str]:
        """A run with filters that select the cases that did not pass, and no other.

        The API page has filters for group, utterance and description, and of a case shows only the description. It does
        not say whether a filter is compared as a whole or as a part. So there is one only for cases that share a
        description which is in no other case's; or for all cases, with the filters of the run.

        :param run: the run that failed.
        :param arguments: of :meth:`prepare_start`.
        """
        cases = yield from optional(ask(self.list_run_test_cases(run.run_id).with_reader(_described)))
        stats = yield from optional(
            ask(self.get_run_stats(run.run_id).with_reader(lambda response: counts_of(response, run.run_id)))
        )
        whole = f"The failed test cases of run {run.run_id} can't be run again by themselves: "
        if not cases or stats is None or len(cases) != stats.total:
            return f"{whole}the platform does not list all of its cases."
        if any(outcome is Outcome.NOT_RUN for outcome, _ in cases):
            return f"{whole}not all of its cases ran."
        failed = [described for outcome, described in cases if outcome is not Outcome.PASSED]
        passed = [described for outcome, described in cases if outcome is Outcome.PASSED]
        if not failed:
            return f"No test case of run {run.run_id} failed: there is none to run again."
        filters = {name: run.started_with.get(name, arguments.get(name)) for name in SHOWN[Kind.RUN]}
        if passed:
            described = failed[0]
            same = all(other == described for other in failed)
            if not same or not described or not is_clean(described) or described != described.strip():
                return f"{whole}they have no description in common, by which they could be selected."
            if any(described.casefold() in other.casefold() for other in passed):
                return f"{whole}the description {described!r} is in those of cases that passed, too."
            filters["description"] = described
        start = yield from self.prepare_start(**{**arguments, **filters})
        return replace(start, what=f"{start.what} for {len(failed)} failed test cases", rerun_of=run.run_id)

    def poll_with_failures(self, run: Run) -> Steps[tuple[Run, int | None]]:
        """One run in its present state, and what its statistics count as failed and unavailable (*Get Run Stats*).

        While its status is ``RETRY`` the platform runs something again: then nothing is final.

        :param run: the run as it was seen last.
        """
        now = yield from self.get_run(run)
        if now.final or now.raw_state.strip().casefold() == "retry":
            return now, None
        stats = yield from optional(
            ask(self.get_run_stats(now.run_id).with_reader(lambda response: counts_of(response, now.run_id)))
        )
        return now, None if stats is None else stats.not_passed

    def find_runs(  # type: ignore[override]  # a platform's own ids, in place of any
        self, since: datetime | None, project_id: str, kind: str = Kind.RUN.value
    ) -> Steps[list[Run]]:
        """The runs, or the generations, of a project that began at or after a time, newest first.

        :param since: by the platform's clock; ``None`` is from the first.
        :param project_id: the project.
        :param kind: ``run`` or ``generation``.
        """
        found = yield from ask(self._list(_kind(kind), project_id, since))
        return sorted(found, key=lambda run: newest_first(run.started_at), reverse=True)

    def cancel_run(self, run: Run) -> Steps[None]:
        """Revoke a run. One that is final is left as it is: its state is read before and, if need be, after.

        :param run: as it was seen last.
        :raises InvalidRequestError: for a generation that is not final: the API has no call that revokes one.
        """
        try:
            now = yield from self.get_run(run)
        except ApiError as e:
            # A run that can't be polled just now may well be running: that must not keep it running.
            if not e.transient or run.kind is Kind.GENERATION:
                raise
        else:
            if now.final:
                return
        if run.kind is Kind.GENERATION:
            raise InvalidRequestError(
                f"Omilia Testing Studio has no call that revokes a generation; generation {run.run_id} runs to its end."
            )
        try:
            # Twice the same as once, seen from here: unlike the bare call it may be sent again.
            yield from ask(replace(self.revoke_run(run.run_id), idempotent=True))
        except ApiError as refusal:
            if refusal.transient:
                raise
            now = yield from self.get_run(run)
            if not now.final:
                raise

    def get_report(self, run: Run) -> Steps[RunReport]:
        """The results of a final run: *Get Run Stats* and *Get Run Test Cases Stats*.

        Either may be missing; the other then speaks for it. A generation has neither.
        """
        if run.kind is Kind.GENERATION:
            return RunReport(run)
        stats = yield from optional(
            ask(self.get_run_stats(run.run_id).with_reader(lambda response: counts_of(response, run.run_id)))
        )
        rows = yield from optional(ask(self.list_run_test_cases(run.run_id).with_reader(_listed_cases)))
        if stats is None and rows is not None:
            stats = Counts()
        read, unknown = rows or ([], set())
        cases = _cases(read, unknown, run.run_id, stats)
        report = RunReport(run, stats, cases, remarks=_delays(cases))
        if run.platform_verdict is Verdict.FAILED and (report.counts is None or report.counts.not_passed == 0):
            report = replace(report, run=(yield from self._broken(run)))
        return report

    def _broken(self, run: Run) -> Steps[Run]:
        """A run that failed without a failed test: its log may say why."""
        try:
            lines = yield from ask(self.get_run_logs(run.run_id))
        except ApiError:
            return run
        trouble = trouble_in(lines)
        if not trouble:
            return run
        why = f"The run ended as {run.raw_state} without a test that failed: the run itself broke. Its log says: "
        return replace(run, message=why + trouble)

    def check(self) -> Steps[str]:
        """*Health Check* proves the address, *Get Projects* the credentials."""
        health = yield from ask(self.healthcheck())
        status = health.get("status")
        if str(status).casefold() != "up":
            raise ServerError(f"Omilia Testing Studio responds, but reports the status {status!r}.")
        projects = yield from ask(self.list_projects())
        return f"Omilia Testing Studio is up; the credentials are good for {len(projects)} projects."

    def group_of(self, run: Run) -> str | None:
        """The project, if it is known, and what kind of run it is."""
        project_id = run.ids.get("project_id")
        return f"{run.kind.value}:{project_id}" if project_id else None

    def list_group(
        self, group: str, wanted: Collection[str], oldest: datetime | None, cache: PollCache | None = None
    ) -> Steps[list[Run]]:
        """The wanted runs of a project, from one call.

        Rows that can't be read are left out: whoever waits for one of them polls it individually, and gets the error.
        """
        kind, _, project_id = group.partition(":")
        ids = frozenset(wanted)
        seen = cache or PollCache()
        call: Call[list[Run]] = self._list(_kind(kind), project_id).with_reader(
            lambda response: self._wanted(response, ids, _kind(kind), project_id, seen)
        )
        return (yield from ask(call))

    def _wanted(
        self, response: Response, ids: frozenset[str], kind: Kind, project_id: str, seen: PollCache
    ) -> list[Run]:
        def read(item: Any, index: int) -> Run:
            return self._run(Fields(item, f"data[{index}]"), kind, project_id)

        seen.keep(ids)
        runs = []
        for index, item in enumerate(bare_rows(response)):
            # Of hundreds of rows a few are wanted: the others are not worth a look at each of their fields.
            run_id = item.get("runId") if isinstance(item, dict) else None
            if isinstance(run_id, str) and run_id not in ids:
                continue
            try:
                if isinstance(run_id, str):
                    run = seen.run(run_id, item, partial(read, item, index))
                else:
                    run = read(item, index)
            except InvalidReplyError:
                continue
            if run.run_id in ids:
                runs.append(run)
        return runs

    def list_recent(  # type: ignore[override]  # a platform's own ids, in place of any
        self, since: datetime | None, cache: PollCache, project_id: str, kind: str = Kind.RUN.value
    ) -> Steps[list[Run]]:
        """The runs, or the generations, of a project that began at or after a time, from one call."""
        what = _kind(kind)
        call: Call[list[Run]] = self._list(what, project_id).with_reader(
            lambda response: self._recent(response, what, project_id, since, cache)
        )
        return (yield from ask(call))

    def _recent(
        self, response: Response, kind: Kind, project_id: str, since: datetime | None, cache: PollCache
    ) -> list[Run]:
        def read(item: Any, index: int) -> Run:
            return self._run(Fields(item, f"data[{index}]"), kind, project_id)

        def rows() -> Iterator[tuple[str | None, Any, Callable[[], Run]]]:
            for index, item in enumerate(bare_rows(response)):
                run_id = item.get("runId") if isinstance(item, dict) else None
                yield (run_id if isinstance(run_id, str) else None), item, partial(read, item, index)

        return cache.recent(rows(), since)

    def _list(self, kind: Kind, project_id: str, since: datetime | None = None) -> Call[list[Run]]:
        """The call for the runs, or the generations, of a project that began at or after a time."""
        call: Call[Any] = (
            self.list_project_runs(project_id) if kind is Kind.RUN else self.list_project_generations(project_id)
        )
        return call.with_reader(partial(self._runs, kind, project_id, since))

    def _runs(self, kind: Kind, project_id: str, since: datetime | None, response: Response) -> list[Run]:
        runs: list[Run] = []
        for row in each(bare_rows(response), "data"):
            run = self._run(row, kind, project_id)
            if since is not None and run.started_at is not None and run.started_at < since:
                continue
            if len(runs) >= limits.RUNS:
                raise InvalidReplyError(
                    f"data has more than {limits.RUNS:,} runs, which are too many to be read at once"
                )
            runs.append(run)
        return runs

    def _latest(self, response: Response, project_id: str) -> tuple[bool, Run | None]:
        project = one(response, project_id, "id")
        latest = project.child("latestRun")
        if latest is None:
            return has(project, "latestRun"), None
        return True, self._run(latest, Kind.RUN, project_id)

    def _run(self, row: Fields, kind: Kind, project_id: str) -> Run:
        return run_of(row, kind, self._url, project_id)

    def _url(self, run_id: str, project_id: str) -> str:
        return self._run_url_template.format(
            base_url=self._base_url, run_id=quote(run_id, safe=""), project_id=quote(project_id, safe="")
        )


def _call(what: str, method: str, where: str, read: Callable[[Response], T], **more: Any) -> Call[T]:
    return Call(what, method, where, read, **{"error_text": _platforms_words, **more})


def _platforms_words(body: Any) -> str:
    """The platform's own words for an error: ``detail``, sometimes ``errors``; never a Git token."""
    try:
        shown = without_git_token(body)
    except InvalidReplyError:
        return "a response that is nested too deeply"
    wrong = [f"{'.'.join(where)}: {said}" for where, said in _wrong_fields(shown)]
    return "; ".join(wrong) or _find_words(shown) or str(shown)


def _words_on_an_upload(body: Any) -> str:
    """The same, and which form field the platform wants, where it says so: the API page does not."""
    words = _platforms_words(body)
    names = {where[1] for where, said in _wrong_fields(body) if len(where) == 2 and _is_wanted(said)}
    if len(names) != 1:
        return words
    (name,) = names
    return f"{words}. The platform expects the file in the form field {name!r}: give field={name!r}"


def _is_wanted(said: str) -> bool:
    return any(word in said.casefold() for word in ("required", "missing"))


def _wrong_fields(body: Any) -> list[tuple[tuple[str, ...], str]]:
    """What a list of FastAPI's is about: ``{"detail": [{"loc": ["body", "file"], "msg": "field required"}]}``.

    :return: the places, and what is said of each; at most ten.
    """
    detail = body.get("detail") if isinstance(body, Mapping) else None
    found: list[tuple[tuple[str, ...], str]] = []
    for item in detail[:_MOST_NAMED] if isinstance(detail, list) else ():
        where = item.get("loc") if isinstance(item, Mapping) else None
        said = item.get("msg") if isinstance(item, Mapping) else None
        if isinstance(where, list) and isinstance(said, str) and all(isinstance(part, str | int) for part in where):
            found.append((tuple(clean(str(part), limits.ID) for part in where), said))
    return found


def _read_project(project_id: str | None) -> Callable[[Response], dict[str, Any]]:
    def read(response: Response) -> dict[str, Any]:
        project: dict[str, Any] = without_git_token(one(response, project_id, "id").raw)
        return project

    return read


def _generation(response: Response, generation_id: str, project_id: str) -> Fields:
    rows = bare_rows(response)
    unreadable: InvalidReplyError | None = None
    for index, item in enumerate(rows):
        try:
            row = Fields(item, f"data[{index}]")
            if same_id(row.verbatim("runId"), generation_id):
                return row
        except InvalidReplyError as e:
            unreadable = unreadable or e
    if unreadable is not None:
        raise unreadable
    raise NotFoundError(
        f"Generation {generation_id} is not among the {len(rows)} generations of project {project_id}. Check both ids.",
        status=404,
    )


def _described(response: Response) -> list[tuple[Outcome, str]]:
    """How each case ended, and its description."""
    return [(case_of(row)[0].outcome, row.verbatim("testCaseDescription") or "") for row in many(response)]


def _listed_cases(response: Response) -> tuple[list[CaseResult], set[int]]:
    """The test cases of a response, and the places of those whose status the provider does not know.

    Row by row: of a run of 100,000 cases, the rows take ten times the memory of what is kept of them.
    """
    texts, cases, unknown = CaseTexts(), list[CaseResult](), set[int]()
    for row in each(bare_rows(response), "data"):
        case, known = case_of(row)
        if not known:
            unknown.add(len(cases))
        cases.append(texts.bounded(case))
    return cases, unknown


def _cases(read: list[CaseResult], unknown: set[int], run_id: str, stats: Counts | None) -> tuple[CaseResult, ...]:
    """The test cases, of which some may have a status that the provider does not know.

    :param read: all of them.
    :param unknown: the places of those whose status is not known.
    :param stats: the run's statistics, which say what those are where they leave only one possibility.
    """
    if not unknown:
        return tuple(read)
    others = Counts.of(tuple(case for at, case in enumerate(read) if at not in unknown))
    passed = (
        stats is not None and stats.not_passed <= others.not_passed and stats.passed >= others.passed + len(unknown)
    )
    log.warning(
        "Run %s: the status of %d of %d test cases is not a word that the provider knows; they count as %s.",
        run_id,
        len(unknown),
        len(read),
        "passed, as in the run's statistics" if passed else "unavailable",
    )
    if not passed:
        return tuple(read)
    return tuple(replace(case, outcome=Outcome.PASSED) if at in unknown else case for at, case in enumerate(read))


def _id_of_project(response: Response, name: str) -> str:
    """The id of the one project of a name.

    :raises ConfigurationError: when there is none, or more than one, or the list is not whole.
    """
    rows = bare_rows(response)
    found: dict[str, str] = {}
    known: list[str] = []
    for row in each(rows, "data"):
        called = row.get("name")
        if called == name:
            project_id = row.identifier("id")
            group = row.unless_unreadable(partial(row.optional_text, "group", limit=limits.ID))
            found.setdefault(project_id.casefold(), f"{project_id} (group {group})" if group else project_id)
        elif isinstance(called, str) and len(known) <= _MOST_NAMED:
            known.append(clean(called, limits.ID))
    meta = Fields(response.json(), "the response").get("meta")
    total = meta.get("count") if isinstance(meta, Mapping) else None
    if isinstance(total, int) and not isinstance(total, bool) and total > len(rows):
        raise ConfigurationError(
            f"project_name {name!r} can't be looked up: the platform lists {len(rows)} of {total} projects, and the"
            " others may have that name, too. Give project_id."
        )
    if len(found) == 1:
        return next(iter(found.values())).partition(" ")[0]
    if found:
        shown = ", ".join(list(found.values())[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise ConfigurationError(
            f"project_name {name!r} is the name of {len(found)} projects: {shown}{more}. Give project_id."
        )
    listed = ", ".join(map(repr, known[:_MOST_NAMED])) or "none"
    more = " and others" if len(known) > _MOST_NAMED else ""
    raise NoSuchProjectError(
        f"project_name {name!r} is not the name of a project that this user can access. There are: {listed}{more}."
    )


def _delays(cases: tuple[CaseResult, ...]) -> tuple[str, ...]:
    """The test cases in which the platform saw delays, in a sentence; nothing when there is none."""
    names = [case.name for case in cases if case.details.get(DELAYS)]
    if not names:
        return ()
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (f"Had delays: {', '.join(names[:_MOST_NAMED])}{more}.",)


def _project_body(
    name: str,
    group: str,
    url: str | None,
    git_token: str | None,
    git_provider: str | None,
    names: Mapping[str, str],
) -> dict[str, str]:
    body = {"name": required_string("name", name), "group": required_string("group", group)}
    git = {"url": string_or_none("url", url), "git_token": git_token or None, "git_provider": git_provider or None}
    missing = [argument for argument, value in git.items() if value is None]
    if len(missing) == len(git):
        # S3 storage: "you shall skip all the git-related variables".
        return body
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} must be given too: a project has Git storage with all of url, git_token and"
            " git_provider, and S3 storage with none of them."
        )
    if not isinstance(git_token, str):
        raise ConfigurationError(f"git_token must be a string; got {type(git_token).__name__}.")
    provider = one_of("git_provider", git_provider, _GIT_PROVIDERS)
    return {**body, "url": str(url), names["git_token"]: git_token, names["git_provider"]: provider}


def _speaks_of_names(refusal: ApiError) -> bool:
    """Whether a project was refused for what its Git arguments are called.

    :param refusal: of a request that had all of them.
    """
    if refusal.status not in (400, 422) or not refusal.not_executed:
        return False
    said = " ".join(refusal.answer.casefold().split())
    if "initialize all git variables" in said:
        # The sample's names were ignored.
        return True
    if any(name in said for name in ("git_token", "git_provider")):
        return any(word in said for word in ("required", "missing"))
    if any(name in said for name in ("gittoken", "gitprovider")):
        return any(word in said for word in ("extra", "not permitted", "unknown", "unexpected"))
    return False


def _secrets_of(git_token: str | None) -> tuple[str, ...]:
    return (git_token,) if git_token else ()


def _path(template: str, **ids: str) -> str:
    return path(template, **{name: identifier(name, value) for name, value in ids.items()})


def _kind(kind: str) -> Kind:
    return Kind(one_of("kind", kind, (Kind.RUN.value, Kind.GENERATION.value)))


def _not_for(kind: str, **arguments: Any) -> None:
    given = [name for name, value in arguments.items() if value]
    if given:
        other = "generation" if kind == "run" else "run"
        raise ConfigurationError(f"{', '.join(given)} can't be given for a {kind}: only a {other} has that.")
