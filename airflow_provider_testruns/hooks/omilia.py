"""The hook for Omilia Testing Studio."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_testruns.exceptions import (
    ApiError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
)
from airflow_provider_testruns.files import as_zip, require_zip, save
from airflow_provider_testruns.hooks.base import PlatformHook
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.endpoints import endpoint
from airflow_provider_testruns.limits import SHORTEST_SECRET
from airflow_provider_testruns.model import Kind, Run
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.steps import Call, Response, ask
from airflow_provider_testruns.transport.auth import Auth, FixedHeaders, OAuthToken
from airflow_provider_testruns.transport.policy import Advice

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

T = TypeVar("T")

#: The Keycloak client of the platform's own password grant.
_CLIENT_ID = "ocp"
_PERSONAL_ACCESS_TOKEN = "X-OCP-PERSONAL-ACCESS-TOKEN"
_FOR_UNATTENDED = "Use a personal access token (extra personal_access_token) for unattended tasks."
#: From the page API Authentication, as are the hosts and realms below.
_WHY_A_TOKEN_DIES = (
    "A personal access token becomes invalid in three ways: it has expired ('Expires at') or was revoked, and is"
    " listed as"
    " Revoked; its account's password is older than 90 days (the password policy applies to it, too); or nobody has"
    " logged in to its account for 90 days, which deactivates the account even while the token is used. Log in to the"
    " console with that account, or have it reactivated, change its password if asked to, and create a new token:"
    " after a reactivation the old one stays invalid."
)
_NEEDS_OTP = (
    "With user name and password the platform also asks for a one-time password (OTP), on all environments, which a"
    f" connection cannot store. {_FOR_UNATTENDED}"
)
_REALMS = (
    "The realm is master on EU1, US1 and US2 (where tokens come from https://auth.us2-m.ocp.ai), ocp on CA1 and"
    " Frankfurt."
)
_SERVICE_PATH = (
    "Open Testing Studio in the console and read the request URLs in the browser's network tab: what is there between"
    " the host name and /api/ belongs in the connection's host."
)
#: The platform's own domain, and the regions whose realm is not master.
_DOMAIN = ".ocp.ai"
_OCP_REALM = ("ca1", "frankfurt")
#: The region whose tokens come from a host of their own, and that host.
_US2 = ("us2-m.ocp.ai", "auth.us2-m.ocp.ai")


class OmiliaHook(PlatformHook[OmiliaPlatform]):
    """Omilia Testing Studio's API, one method for every call of its API page.

    The connection's *host* is the base URL, with the path that a deployment may put before ``/api/``. Which of four
    ways to authenticate is meant is read from the fields that are filled in, never by trying:

    ====================  ==================  ================================================================
    Way                   login, password     extras
    ====================  ==================  ================================================================
    static bearer token   empty, the token    no ``grant_type``
    personal token        empty, empty        ``personal_access_token``
    user name, password   both                ``grant_type`` empty or ``password``
    client id, secret     both                ``grant_type`` ``client_credentials``
    ====================  ==================  ================================================================

    The last two ask Keycloak for tokens. Its endpoint is the extra ``auth_url``, whole; without it
    ``{scheme, name and port of the host}/auth/realms/{realm}/protocol/openid-connect/token``: a path in *host* is the
    service's own and is left out there, as Keycloak stands beside the service and not below it. Where that is not so
    (a prefix before both as in the sandbox), fill in ``auth_url``. Without ``realm`` it is ``ocp`` on the platform's
    hosts in CA1 and Frankfurt, and ``master`` everywhere else; on US2 tokens come from its auth host.

    A personal access token is the way for unattended tasks: the platform's *API authentication* page says that user
    name and password need a one-time password besides, on every environment, which no connection can hold. The token
    dies with its account: see the error of a 401.

    All methods raise :class:`.ConfigurationError` before any request when an argument or a field of the connection
    can't be right, and one of the children of :class:`.ApiError` when the platform refuses or can't be asked. Calls
    that start or change something are never sent twice. A project's ``gitToken``, which the API gives in clear, is
    taken out of all that is returned.

    :param omilia_conn_id: the Airflow connection.
    """

    conn_name_attr = "omilia_conn_id"
    default_conn_name = "omilia_default"
    conn_type = "omilia"
    hook_name = OmiliaPlatform.title

    def __init__(self, omilia_conn_id: str = default_conn_name) -> None:
        super().__init__(omilia_conn_id)
        self.omilia_conn_id = omilia_conn_id

    @classmethod
    def make_platform(cls, settings: Settings) -> OmiliaPlatform:
        """The platform of a connection.

        :param settings: the connection's fields.
        :raises ConfigurationError: when ``run_url_template`` can't be right.
        """
        template = settings.template("run_url_template", ("base_url", "run_id", "project_id"))
        return OmiliaPlatform(settings.base_url, template)

    @classmethod
    def make_auth(cls, settings: Settings) -> tuple[Auth, str]:
        """How requests are authenticated: see the class.

        :param settings: the connection's fields.
        :raises ConfigurationError: naming the field that can't be right.
        """
        personal = settings.text("personal_access_token")
        grant_type = settings.choice("grant_type", ("password", "client_credentials"))
        if personal:
            filled_in = {"login": settings.login, "password": settings.password, "grant_type": grant_type}
            others = " and ".join(name for name, value in filled_in.items() if value)
            if others:
                raise settings.problem(
                    "personal_access_token",
                    f"is filled in, and so is {others}: ambiguous credentials. Clear one of them.",
                )
            token = _header_value(settings, "personal_access_token", personal)
            return FixedHeaders({_PERSONAL_ACCESS_TOKEN: token}, (token,)), "personal_access_token"
        if not settings.password:
            hint = (
                "Fill in the password of the login, or its client secret."
                if settings.login
                else "Fill in login and password, a bearer token as password alone, or personal_access_token."
            )
            raise settings.problem("password", f"is empty. {hint}")
        if not settings.login:
            if grant_type:
                raise settings.problem(
                    "login",
                    f"is empty, and grant_type {grant_type} needs it. Fill it in, or clear grant_type if the password"
                    " is a bearer token.",
                )
            scheme, _, rest = settings.password.partition(" ")
            token = rest.strip() if scheme.lower() == "bearer" else settings.password
            token = _header_value(settings, "password", token)
            return FixedHeaders({"Authorization": f"Bearer {token}"}, (token,)), "password (a bearer token)"
        grant, fields = (
            (
                {
                    "grant_type": "client_credentials",
                    "client_id": settings.login,
                    "client_secret": settings.password,
                },
                "login (client id) and password (client secret)",
            )
            if grant_type == "client_credentials"
            else (
                {
                    "grant_type": "password",
                    "client_id": _CLIENT_ID,
                    "username": settings.login,
                    "password": settings.password,
                },
                "login and password",
            )
        )
        auth = OAuthToken(
            _token_url(settings),
            grant,
            timeout=settings.timeout,
            fields=fields,
            can_refresh=grant_type != "client_credentials",
        )
        return auth, fields

    @classmethod
    def make_advice(cls, settings: Settings) -> Advice:
        """What the platform's pages say of refused credentials, of realms, and of the path in *host*.

        :param settings: the connection's fields.
        """
        unauthorized = forbidden = ""
        if settings.text("personal_access_token"):
            unauthorized = _WHY_A_TOKEN_DIES
            forbidden = f"If the account could do this before: {_WHY_A_TOKEN_DIES}"
        elif not settings.login:
            unauthorized = f"A bearer token expires within minutes. {_FOR_UNATTENDED}"
        elif settings.text("grant_type") != "client_credentials":
            unauthorized = _NEEDS_OTP
        token = f"{_NEEDS_OTP} {_REALMS}" if settings.text("grant_type") != "client_credentials" else _REALMS
        return Advice(unauthorized, forbidden, token, _about_the_path(settings.base_url))

    # Projects

    healthcheck = endpoint(OmiliaPlatform.healthcheck)
    list_projects = endpoint(OmiliaPlatform.list_projects)

    def create_project(
        self,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
    ) -> dict[str, Any]:
        """Create a project. ``POST /api/projects/``.

        Its test suites are in a Git repository with all of the last three arguments, and in Testing Studio's own
        S3 storage with none of them. The request is sent once; where the platform refuses it for the names of the Git
        arguments, of which the API page has two, once more with the others.

        :param name: its name.
        :param group: its group, one that the user has access to.
        :param url: of the Git repository.
        :param git_token: a token for the repository. It is masked in the logs.
        :param git_provider: ``gitlab`` or ``github``.
        :return: the project with the API's own field names, without ``gitToken``.
        :raises ConfigurationError: when only some of the Git arguments are given.
        """
        self._mask(git_token)
        return self.ask(self.platform.saving_project(None, name, group, url, git_token, git_provider))

    def find_project_id(self, project_name: str) -> str:
        """The id of the one project of a name, from ``GET /api/projects/``.

        :param project_name: the project's name, to the letter.
        :raises ConfigurationError: when no project, or more than one, has this name.
        """
        return self.ask(self.platform.project_named(project_name))

    get_project = endpoint(OmiliaPlatform.get_project)

    def update_project(
        self,
        project_id: str,
        name: str,
        group: str,
        url: str | None = None,
        git_token: str | None = None,
        git_provider: str | None = None,
    ) -> dict[str, Any]:
        """Change a project. ``PUT /api/projects/{project_id}``, which takes the whole project as when it was created.

        :param project_id: the project.
        :param name: as for :meth:`create_project`.
        :param group: as for :meth:`create_project`.
        :param url: as for :meth:`create_project`.
        :param git_token: as for :meth:`create_project`; the API does not keep the old one.
        :param git_provider: as for :meth:`create_project`.
        :return: the project with the API's own field names, without ``gitToken``.
        :raises ConfigurationError: when only some of the Git arguments are given.
        """
        self._mask(git_token)
        return self.ask(self.platform.saving_project(project_id, name, group, url, git_token, git_provider))

    delete_project = endpoint(OmiliaPlatform.delete_project)
    list_project_runs = endpoint(OmiliaPlatform.list_project_runs)
    list_project_generations = endpoint(OmiliaPlatform.list_project_generations)
    list_project_run_stats = endpoint(OmiliaPlatform.list_project_run_stats)

    def upload_test_suites(
        self, project_id: str, path: str | os.PathLike[str] | ObjectStoragePath, field: str = "file"
    ) -> None:
        """Upload a project's test suites. ``POST /api/projects/{project_id}/suites/``, a multipart form.

        The file is read while it is sent, never whole in memory. A folder is packed first, reproducibly: sorted names,
        a fixed time, no link followed out of it, and no ``.git``.

        :param project_id: a project with S3 storage.
        :param path: a ZIP file, or a folder that holds what the ZIP should (``tests``, ``.omilia-ci.yml`` …); local, or
            an object storage URL.
        :param field: the form field, which the API page does not name.
        """
        # A wrong id is found before a large folder is packed.
        self.platform.upload_test_suites(project_id, Path(), field)
        with as_zip(path) as file:
            self._send(self.platform.upload_test_suites(project_id, file, field))

    def download_test_suites(self, project_id: str, path: str | os.PathLike[str] | ObjectStoragePath) -> str:
        """Download a project's test suites. ``GET /api/projects/{project_id}/suites/download/``, a ZIP.

        :param project_id: a project with S3 storage.
        :param path: where the file is to be, local or an object storage URL; a folder takes it as
            ``{project_id}_suites.zip``. It is there when it is complete, and not before.
        :return: where it is.
        """
        return self._download(
            path,
            f"{project_id}_suites.zip",
            f"the test suites of project {project_id}",
            lambda file: self.platform.download_test_suites(project_id, file),
        )

    # Runs

    def create_run(
        self, project_id: str, group: str | None = None, utterance: str | None = None, description: str | None = None
    ) -> Run:
        """Start a run of a project's test suites. ``POST /api/runs/``, sent once.

        :param project_id: the project.
        :param group: only test cases of this group; ``None`` or empty for all.
        :param utterance: only test cases with this utterance; ``None`` or empty for all.
        :param description: only test cases with this description; ``None`` or empty for all.
        :return: the run. Its state is the response's, which the API page shows to be of no use: ask :meth:`get_run`.
        """
        return self.start_run(project_id=project_id, group=group, utterance=utterance, description=description)

    def get_run(self, run_id: str, **ids: str) -> Run:
        """A run in its present state. ``GET /api/runs/{run_id}``.

        :param run_id: the run.
        :param ids: ``project_id``, if known. With ``kind="generation"``, which needs it, a generation as its project's
            list shows it.
        """
        return super().get_run(run_id, **ids)

    revoke_run = endpoint(OmiliaPlatform.revoke_run)
    list_run_test_suites = endpoint(OmiliaPlatform.list_run_test_suites)
    get_run_stats = endpoint(OmiliaPlatform.get_run_stats)
    list_run_test_cases = endpoint(OmiliaPlatform.list_run_test_cases)
    get_run_logs = endpoint(OmiliaPlatform.get_run_logs)

    def download_run_artifact(self, run_id: str, path: str | os.PathLike[str] | ObjectStoragePath) -> str:
        """Download the artifact of a run. ``GET /api/runs/{run_id}/artifacts/``, a ZIP, until it expires.

        :param run_id: the run.
        :param path: where the file is to be, local or an object storage URL; a folder takes it as
            ``{run_id}_artifacts.zip``. It is there when it is complete, and not before.
        :return: where it is.
        :raises NotFoundError: when there is none, or none any more; the message then has the date.
        """
        return self._download_artifact(Kind.RUN, run_id, "", path)

    # Generations and dialogs

    create_generation = endpoint(OmiliaPlatform.create_generation)
    get_generation = endpoint(OmiliaPlatform.get_generation)

    def download_generation_artifact(
        self, generation_id: str, path: str | os.PathLike[str] | ObjectStoragePath, project_id: str = ""
    ) -> str:
        """Download what a generation has made. ``GET /api/generations/{generation_id}/artifacts/``, a ZIP.

        :param generation_id: the generation.
        :param path: where the file is to be, local or an object storage URL; a folder takes it as
            ``{generation_id}_artifacts.zip``. It is there when it is complete, and not before.
        :param project_id: its project, if known. It is used only when the file is unavailable, to say why.
        :return: where it is.
        :raises NotFoundError: when there is none, or none any more; the message then has the date.
        """
        return self._download_artifact(Kind.GENERATION, generation_id, project_id, path)

    get_golden_dialog = endpoint(OmiliaPlatform.get_golden_dialog)

    def save_golden_dialog(self, dialog_id: str, path: str | os.PathLike[str] | ObjectStoragePath) -> str:
        """Make the golden dialog of a dialog and write it to a file, as it came.

        :param dialog_id: ``dialogId`` of a test case.
        :param path: where the file is to be, local or an object storage URL; a folder takes it as ``{dialog_id}.json``.
            It is there when it is complete, and not before.
        :return: where it is.
        """
        call = self.platform.get_golden_dialog(dialog_id)

        def read(response: Response) -> bytes:
            call.read(response)  # raises for what is no JSON
            return response.body

        content = self._send(call.with_reader(read))
        return save(path, lambda file: file.write_bytes(content), name=f"{dialog_id}.json")

    def save_artifacts(self, run: Run, folder: str | os.PathLike[str] | ObjectStoragePath) -> list[str]:
        """Write the artifact of a final run, or of a generation, complete or not at all.

        :param run: as :meth:`get_report` gave it.
        :param folder: a local folder or an object storage URL; made if it is not there. The file is
            ``{run_id}_artifacts.zip``.
        :return: where it was written; empty when the platform has none, as of a revoked run, or has none any more.
        """
        try:
            return [self._download_artifact(run.kind, run.run_id, run.ids.get("project_id", ""), folder, into=True)]
        except NotFoundError as e:
            self.log.warning("There is no artifact to save. %s", e)
            return []

    def _send(self, call: Call[T]) -> T:
        return self.ask(ask(call))

    def _download(
        self,
        target: str | os.PathLike[str] | ObjectStoragePath,
        name: str,
        what: str,
        call_for: Callable[[Path], Call[None]],
        *,
        into: bool = False,
    ) -> str:
        call_for(Path())  # a wrong id is found before any folder is made
        return save(
            target,
            lambda file: self._send(call_for(file)),
            name=name,
            check=require_zip(f"Connection {self.conn_id!r}: {what}"),
            into=into,
        )

    def _download_artifact(
        self,
        kind: Kind,
        run_id: str,
        project_id: str,
        target: str | os.PathLike[str] | ObjectStoragePath,
        *,
        into: bool = False,
    ) -> str:
        platform = self.platform
        call = platform.download_generation_artifact if kind is Kind.GENERATION else platform.download_run_artifact
        what = f"the artifact of {kind.value} {run_id}"
        try:
            return self._download(target, f"{run_id}_artifacts.zip", what, lambda file: call(run_id, file), into=into)
        except (NotFoundError, InvalidRequestError, InvalidReplyError, ServerError) as e:
            # The API page does not say what is answered for an artifact that has expired; the run itself does.
            why = self._why_no_artifact(kind, run_id, project_id)
            if not why:
                raise
            raise NotFoundError(
                f"Connection {self.conn_id!r}: {what} {why} It was answered: {e}", status=e.status
            ) from e

    def _why_no_artifact(self, kind: Kind, run_id: str, project_id: str) -> str:
        """Why an artifact is unavailable, as the run tells; empty when it does not."""
        try:
            found = self.ask(self.platform.find_artifact(kind, run_id, project_id))
        except ApiError as e:
            self.log.debug("Why the artifact is unavailable is not known: %s", e)
            return ""
        if found is None:
            return ""
        run, artifact = found
        if artifact is None:
            if run.final:
                return f"is not there: the platform made none, or keeps none, of it ({run.raw_state})."
            return (
                f"does not exist yet: it is created when the {kind.value} has finished, which is {run.raw_state} now."
            )
        now = datetime.fromtimestamp(time.time() + (self.client.session.clock_offset or 0.0), UTC)
        gone = artifact.why_gone(now)
        return f"{gone}. A new {kind.value} makes a new one." if gone else ""

    def _mask(self, secret: str | None) -> None:
        if isinstance(secret, str) and secret:
            from airflow_provider_testruns.hooks.versions import mask_secret

            mask_secret(secret)
            self.client.session.auth.known.renewed("git", secret, shortest=SHORTEST_SECRET)


def _token_url(settings: Settings) -> str:
    given = settings.url("auth_url")
    if given:
        return given
    parts = urlsplit(settings.base_url)
    host = (parts.hostname or "").rstrip(".")
    realm = settings.text("realm") or _realm_of(host)
    if realm in (".", ".."):
        raise settings.problem("realm", f"must be the name of a realm, such as master or ocp, got {realm!r}.")
    beside = _US2[1] if host == _US2[0] or host.endswith(f".{_US2[0]}") else parts.netloc
    return f"{parts.scheme}://{beside}/auth/realms/{quote(realm, safe='')}/protocol/openid-connect/token"


def _realm_of(host: str) -> str:
    """The realm of a host, by its region: ``pub.ca1.ocp.ai``, ``us1-m.ocp.ai``."""
    if not host.endswith(_DOMAIN):
        return "master"
    regions = {label.partition("-")[0] for label in host.removesuffix(_DOMAIN).split(".")}
    return "ocp" if regions.intersection(_OCP_REALM) else "master"


def _about_the_path(base_url: str) -> str:
    path = urlsplit(base_url).path.rstrip("/")
    if f"{path}/".casefold().endswith("/api/"):
        return "The connection's host ends with /api, which every call adds: remove it."
    if not path:
        return f"Is the service path before /api/ missing? The connection's host has none. {_SERVICE_PATH}"
    return f"Is the service path before /api/ missing, or different from {path}? {_SERVICE_PATH}"


def _header_value(settings: Settings, name: str, value: str) -> str:
    if not value or not value.isascii() or " " in value:
        raise settings.problem(name, "must be a token of ASCII characters without spaces. Enter it again.")
    return value
