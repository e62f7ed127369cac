"""Omilia Testing Studio: the 22 calls of its API.

=============  ========================================  =======================================================
Project        Id                                        Its runs
=============  ========================================  =======================================================
smoke          0a000000-0000-4000-8000-000000000001      pass
regression     0a000000-0000-4000-8000-000000000002      end with two failed cases and an unavailable one
broken         0a000000-0000-4000-8000-000000000003      end as FAILURE without a single case: the clone failed
empty          0a000000-0000-4000-8000-000000000004      end as SUCCESS without a single case
smoke-git      0a000000-0000-4000-8000-000000000005      pass; the suites are in a Git repository, with a token
=============  ========================================  =======================================================

``group``, ``utterance`` and ``description`` of a run pick cases: the group by its whole name, the others by a part of
the text, without regard to case. A filter that picks nothing makes a run that ends as SUCCESS without a case.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from .archives import build_zip, is_zip, stream_zip, zip_entry_names
from .clock import naive
from .engine import Ending, Phase, SimulatedRun, Target, ending_for_name
from .exchange import (
    ANY_UUID,
    Exchange,
    Match,
    Operation,
    Refusal,
    Response,
    encoded_json_response,
    file_response,
    html_response,
    json_response,
    no_content,
)
from .identity import Credentials, IdentityProvider, bearer_token
from .mistakes import Mistake
from .omilia_cases import (
    REGRESSION,
    SMOKE,
    CaseResult,
    CaseTemplate,
    case_json,
    dialog_json,
    is_picked,
    problem_of,
    suite_archive,
)
from .platform import Plan, PlatformAPI, RunDescription, duration_of, ending_of

USER = "sandbox-user"
PASSWORD = "sandbox-canary-omilia-password"
CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-canary-omilia-secret"
STATIC_BEARER = "sandbox-canary-omilia-static-bearer"
PERSONAL_ACCESS_TOKEN = "sandbox-canary-omilia-personal-access-token"
#: The one that is made after an account was re-activated.
NEW_PERSONAL_ACCESS_TOKEN = "sandbox-canary-omilia-new-personal-access-token"
GIT_TOKEN = "sandbox-canary-omilia-git-token"

_USER_ID = "0a000000-0000-4000-8000-0000000000ff"


def named_id(number: int) -> str:
    """Return the id of a named object."""
    return f"0a000000-0000-4000-8000-{number:012d}"


#: The groups that the sandbox's user may use.
GROUPS = ("sandbox", "payments", "accounts", "qa")


@dataclass(slots=True)
class Project(Target):
    """A project."""

    group: str = "sandbox"
    git_url: str | None = None
    git_token: str | None = None
    git_provider: str | None = None
    suites: bytes | None = None
    cases: tuple[CaseTemplate, ...] = SMOKE
    tries: int = 0

    @property
    def uses_git(self) -> bool:
        """True when the suites are in a Git repository."""
        return self.git_url is not None


@dataclass(slots=True, eq=False)
class OmiliaRun(SimulatedRun):
    """A run or a generation."""

    cases: list[CaseResult] = field(default_factory=list)
    artifact_id: str = ""
    statistics_id: str = ""
    artifact_expired: bool = False


def _bad_request(location: str, error: str) -> Response:
    return json_response(400, {"detail": f"Request contains an error. Field: {location}, Error: {error}"})


def _detail(status: int, text: str) -> Response:
    return json_response(status, {"detail": text})


#: A field of a request body: what it is called in errors, and whether a value is of its type.
_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and ANY_UUID.fullmatch(value) is not None


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_git_provider(value: Any) -> bool:
    return value is None or value in ("gitlab", "github")


_RUN_FIELDS: Mapping[str, _Check] = {
    "projectId": _is_uuid,
    "group": _is_optional_text,
    "utterance": _is_optional_text,
    "description": _is_optional_text,
}
_GENERATION_FIELDS: Mapping[str, _Check] = {
    "projectId": _is_uuid,
    "group": _is_optional_text,
    "testSuite": _is_optional_text,
    "overwrite": _is_flag,
    "simulationData": _is_optional_text,
}
_PROJECT_FIELDS: Mapping[str, _Check] = {"name": _is_text, "group": _is_text, "url": _is_optional_text}
_GIT_FIELDS: Mapping[str, _Check] = {"gitToken": _is_optional_text, "gitProvider": _is_git_provider}
#: The same values by the table of the documents.
_TABLE_FIELDS: Mapping[str, _Check] = {"git_token": _is_optional_text, "git_provider": _is_git_provider}
#: Which names of them are known, and which others are ignored rather than refused.
_NAMINGS: Mapping[str, tuple[Mapping[str, _Check], Mapping[str, _Check]]] = {
    "sample": (_GIT_FIELDS, {}),
    "table": (_TABLE_FIELDS, _GIT_FIELDS),
    "table_strict": (_TABLE_FIELDS, {}),
    "both": ({**_GIT_FIELDS, **_TABLE_FIELDS}, {}),
}
PROJECT_NAMES = tuple(_NAMINGS)
#: What a personal access token is answered once it is dead. The documents say only that it is refused.
_DEAD_TOKENS: Mapping[str, str] = {
    "revoked": "Unauthorized",
    "password_expired": "Account is not fully set up",
    "deactivated": "Account disabled",
    "reactivated": "Unauthorized",
}
TOKEN_STATES = ("good", *_DEAD_TOKENS)


def _read_json(
    exchange: Exchange, fields: Mapping[str, _Check], required: tuple[str, ...], documented: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the body, checked to the letter.

    :param documented: other fields, which are refused without being a mistake of the client's.
    """
    if exchange.media_type != "application/json":
        raise Refusal(
            _detail(415, "Unsupported Media Type"),
            f"the body must be application/json, not {exchange.media_type or 'without Content-Type'}",
        )
    try:
        body = json.loads(exchange.body)
    except ValueError:
        raise Refusal(_bad_request("body", "value is not valid JSON"), "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(_bad_request("body", "value is not a valid dict"), "the body is not an object")
    for name in required:
        if name not in body:
            raise Refusal(_bad_request(name, "field required"), f"field {name} is missing")
    for name, value in body.items():
        check = fields.get(name)
        if check is None:
            violation = None if name in documented else f"unknown field {name}"
            raise Refusal(_bad_request(name, "extra fields not permitted"), violation)
        if not check(value):
            raise Refusal(_bad_request(name, "value is not valid"), f"field {name} has the wrong type")
    return body


class OmiliaAPI(PlatformAPI):
    """The API of Omilia Testing Studio."""

    name: ClassVar[str] = "omilia"
    prefix: ClassVar[str] = "/omilia"

    def reset(self) -> None:
        """Go back to the named projects, without runs."""
        super().reset()
        self.identity = IdentityProvider(
            self.name,
            self.clock,
            Credentials(("master", "ocp"), {CLIENT_ID: CLIENT_SECRET}, "ocp", {USER: PASSWORD}),
        )
        self.projects: dict[str, Project] = {}
        for number, (name, ending, cases) in enumerate(
            (
                ("smoke", Ending.PASSED, SMOKE),
                ("regression", Ending.FAILED, REGRESSION),
                ("broken", Ending.ERRORED, SMOKE),
                ("empty", Ending.EMPTY, ()),
                ("smoke-git", Ending.PASSED, SMOKE),
            ),
            start=1,
        ):
            project = Project(named_id(number), name, ending, cases=cases)
            if name == "smoke-git":
                project.git_url = "https://git.example.com/voice/smoke-tests.git"
                project.git_token = GIT_TOKEN
                project.git_provider = "gitlab"
            elif cases:
                project.suites = suite_archive(cases)
            self.projects[project.id] = project

    def operations(self) -> Iterable[Operation]:
        """Return the operations of the API and of the identity provider."""
        return (
            Operation(
                "omilia.token",
                "POST",
                "/auth/realms/{realm}/protocol/openid-connect/token",
                self._token,
                open=True,
            ),
            Operation("omilia.healthcheck", "GET", "/api/healthcheck/", self._healthcheck, open=True),
            Operation("omilia.list_projects", "GET", "/api/projects/", self._list_projects),
            Operation("omilia.create_project", "POST", "/api/projects/", self._create_project),
            Operation("omilia.get_project", "GET", "/api/projects/{project_id}", self._get_project),
            Operation("omilia.update_project", "PUT", "/api/projects/{project_id}", self._update_project),
            Operation("omilia.delete_project", "DELETE", "/api/projects/{project_id}", self._delete_project),
            Operation("omilia.list_project_runs", "GET", "/api/projects/{project_id}/runs/", self._list_runs),
            Operation(
                "omilia.list_project_generations",
                "GET",
                "/api/projects/{project_id}/generations/",
                self._list_generations,
            ),
            Operation(
                "omilia.list_project_run_stats",
                "GET",
                "/api/projects/{project_id}/runs_stats/",
                self._list_run_stats,
            ),
            Operation("omilia.upload_suites", "POST", "/api/projects/{project_id}/suites/", self._upload_suites),
            Operation(
                "omilia.download_suites",
                "GET",
                "/api/projects/{project_id}/suites/download/",
                self._download_suites,
            ),
            Operation("omilia.create_run", "POST", "/api/runs/", self._create_run),
            Operation("omilia.get_run", "GET", "/api/runs/{run_id}", self._get_run),
            Operation("omilia.run_artifacts", "GET", "/api/runs/{run_id}/artifacts/", self._run_artifacts),
            Operation("omilia.revoke_run", "POST", "/api/runs/{run_id}/revoke/", self._revoke_run),
            Operation("omilia.run_suites", "GET", "/api/runs/{run_id}/suites/", self._run_suites),
            Operation("omilia.run_stats", "GET", "/api/runs/{run_id}/run_stats/", self._run_stats),
            Operation("omilia.run_test_cases", "GET", "/api/runs/{run_id}/test_cases/", self._run_test_cases),
            Operation("omilia.run_logs", "GET", "/api/runs/{run_id}/logs/", self._run_logs),
            Operation("omilia.create_generation", "POST", "/api/generations/", self._create_generation),
            Operation(
                "omilia.generation_artifacts",
                "GET",
                "/api/generations/{generation_id}/artifacts/",
                self._generation_artifacts,
            ),
            Operation("omilia.golden_dialog", "GET", "/api/dialogs/{dialog_id}/golden/", self._golden_dialog),
        )

    # Answers that are the same everywhere

    def _token(self, exchange: Exchange) -> Response:
        if self.settings.omilia_otp and exchange.form().get("grant_type") == "password":
            error = {"error": "invalid_grant", "error_description": "Invalid user credentials"}
            raise Refusal(json_response(401, error))
        return self.identity.handle_token(exchange)

    def authenticate(self, exchange: Exchange) -> None:
        """Accept a token of the identity provider, the static bearer token, or a personal access token."""
        personal = exchange.headers.get("x-ocp-personal-access-token")
        token = bearer_token(exchange)
        if not self.identity.rejects:
            state = self.settings.omilia_access_token
            if personal == (NEW_PERSONAL_ACCESS_TOKEN if state == "reactivated" else PERSONAL_ACCESS_TOKEN):
                if state in ("good", "reactivated"):
                    return
                raise Refusal(_detail(401, _DEAD_TOKENS[state]))
            if token is not None and (token == STATIC_BEARER or self.identity.accepts(token)):
                return
        violation = None
        if personal is None and token is None:
            violation = "no credentials"
        elif token == PERSONAL_ACCESS_TOKEN:
            violation = "a personal access token is no bearer token"
        raise Refusal(_detail(401, "Unauthorized"), violation)

    def before_operation(self, exchange: Exchange, operation: Operation) -> None:
        """Refuse query parameters: no call of this API has any."""
        if exchange.query:
            raise Refusal(
                _bad_request(next(iter(exchange.arguments()), "query"), "extra fields not permitted"),
                "this API has no query parameters",
            )

    def identify(self, method: str, raw_path: str) -> Match:
        """Find out which operation a request is; with a service path, only below it and beside the identity
        provider."""
        service = self.settings.omilia_service_path
        if service and not raw_path.startswith("/auth/"):
            if not raw_path.startswith(f"{service}/"):
                return Match(None, {}, ())
            raw_path = raw_path.removeprefix(service)
        return super().identify(method, raw_path)

    def unknown_path(self, exchange: Exchange) -> Response:
        """Answer a path that does not exist: 404, also when only a slash is missing."""
        service = self.settings.omilia_service_path
        if service and not exchange.raw_path.startswith(f"{service}/"):
            # Other services stand on the same host, and a console.
            return html_response(404, "<html><head><title>Console</title></head><body>Page not found</body></html>")
        exchange.note("no such path; slashes count")
        return _detail(404, "Not Found")

    def wrong_method(self, exchange: Exchange, allowed: tuple[str, ...]) -> Response:
        """Answer 405."""
        response = _detail(405, "Method Not Allowed")
        response.headers.append(("allow", ", ".join(allowed)))
        return response

    def _project(self, project_id: str) -> Project:
        project = self.projects.get(project_id.lower())
        if project is None:
            raise Refusal(_detail(404, f"Project {project_id} not found"))
        return project

    def _find(self, run_id: str, kind: str) -> OmiliaRun:
        run = self.runs.find(run_id.lower())
        if not isinstance(run, OmiliaRun) or run.kind != kind:
            raise Refusal(_detail(404, f"{kind.capitalize()} {run_id} not found"))
        return run

    def _listed(self, project: Project, kind: str) -> list[OmiliaRun]:
        """Return what the project's lists show, newest first."""
        runs = [r for r in self.runs.listed(project.id) if isinstance(r, OmiliaRun) and r.kind == kind]
        runs.reverse()
        return runs

    # Projects

    def _healthcheck(self, exchange: Exchange) -> Response:
        return json_response(200, {"data": {"status": "up"}})

    def _list_projects(self, exchange: Exchange) -> Response:
        projects = [self._project_json(p) for p in self.projects.values()]
        return json_response(200, {"data": projects, "meta": {"count": len(projects)}})

    def _project_response(self, project: Project) -> Response:
        return json_response(200, {"data": self._project_json(project), "meta": {"count": 1}})

    def _project_json(self, project: Project) -> dict[str, Any]:
        latest = next(iter(self._listed(project, "run")), None)
        return {
            "name": project.name,
            "gitUrl": project.git_url,
            "gitToken": project.git_token,
            "gitProvider": project.git_provider,
            "id": project.id,
            "userId": _USER_ID,
            "group": project.group,
            "latestRun": None if latest is None else json.loads(self._row(latest, self.clock.now())),
            "gitStorage": project.uses_git,
            "s3Storage": not project.uses_git,
        }

    def _read_project(self, exchange: Exchange) -> dict[str, Any]:
        known, ignored = _NAMINGS[self.settings.omilia_project_names]
        # Both namings are in the documents: what is refused here is no mistake of the client's.
        documented = () if known is _GIT_FIELDS else (*_GIT_FIELDS, *_TABLE_FIELDS)
        body = _read_json(exchange, {**_PROJECT_FIELDS, **known, **ignored}, ("name", "group"), documented)
        for name in ignored:
            body.pop(name, None)
        for ours, other in (("gitToken", "git_token"), ("gitProvider", "git_provider")):
            body.setdefault(ours, body.pop(other, None))
        if body["group"] not in GROUPS:
            raise Refusal(_detail(400, f"Group: {body['group']} invalid"))
        git = [body.get(name) for name in ("url", "gitToken", "gitProvider")]
        if any(git) and not all(git):
            raise Refusal(
                _bad_request("__root__", "In case of git storage option, you should initialize all git variables.")
            )
        return body

    def _create_project(self, exchange: Exchange) -> Response:
        body = self._read_project(exchange)
        project = Project(self.new_id(), body["name"], ending_for_name(body["name"]))
        self._fill_project(project, body)
        self.projects[project.id] = project
        return self._project_response(project)

    def _fill_project(self, project: Project, body: dict[str, Any]) -> None:
        project.name = body["name"]
        project.group = body["group"]
        project.git_url = body.get("url")
        project.git_token = body.get("gitToken")
        project.git_provider = body.get("gitProvider")
        if project.cases == SMOKE and project.ending is Ending.FAILED:
            project.cases = REGRESSION

    def _get_project(self, exchange: Exchange) -> Response:
        return self._project_response(self._project(exchange.params["project_id"]))

    def _update_project(self, exchange: Exchange) -> Response:
        project = self._project(exchange.params["project_id"])
        self._fill_project(project, self._read_project(exchange))
        return self._project_response(project)

    def _delete_project(self, exchange: Exchange) -> Response:
        project = self._project(exchange.params["project_id"])
        del self.projects[project.id]
        for run in self.runs.all():
            if run.target_id == project.id:
                run.vanished = True
        return no_content()

    def _list_runs(self, exchange: Exchange) -> Response:
        return self._list(self._project(exchange.params["project_id"]), "run")

    def _list_generations(self, exchange: Exchange) -> Response:
        return self._list(self._project(exchange.params["project_id"]), "generation")

    def _list(self, project: Project, kind: str) -> Response:
        now = self.clock.now()
        rows = [self._row(run, now) for run in self._listed(project, kind)]
        body = f'{{"data": [{", ".join(rows)}], "meta": {{"count": {len(rows)}}}}}'
        return encoded_json_response(200, body.encode())

    def _list_run_stats(self, exchange: Exchange) -> Response:
        project = self._project(exchange.params["project_id"])
        now = self.clock.now()
        return json_response(200, {"data": [self._stats_json(run, now) for run in self._listed(project, "run")]})

    def _upload_suites(self, exchange: Exchange) -> Response:
        project = self._project(exchange.params["project_id"])
        if project.uses_git:
            raise Refusal(_detail(400, "Project has no S3 storage"))
        if exchange.media_type != "multipart/form-data":
            raise Refusal(
                _detail(415, "Unsupported Media Type"),
                f"an upload must be multipart/form-data, not {exchange.media_type or 'without Content-Type'}",
            )
        content = _uploaded_file(exchange)
        if not is_zip(content):
            raise Refusal(_bad_request("file", "value is not a ZIP file"), "the upload is not a ZIP file")
        if not zip_entry_names(content):
            raise Refusal(_bad_request("file", "the ZIP file is empty"), "the uploaded ZIP file is empty")
        project.suites = content
        return no_content()

    def _download_suites(self, exchange: Exchange) -> Response:
        project = self._project(exchange.params["project_id"])
        if project.uses_git:
            raise Refusal(_detail(400, "Project has no S3 storage"))
        if project.suites is None:
            raise Refusal(_detail(404, "No test suites uploaded"))
        return file_response(f"{project.id}_suites.zip", "application/zip", project.suites)

    # Runs

    def _create_run(self, exchange: Exchange) -> Response:
        body = _read_json(exchange, _RUN_FIELDS, ("projectId",))
        project = self._project(body["projectId"])
        run = self._new_run(project, "run", body, self.clock.now(), self.take_plan(project))
        return self._run_response(run)

    def _run_response(self, run: OmiliaRun) -> Response:
        row = self._row(run, self.clock.now())
        return encoded_json_response(200, f'{{"data": [{row}], "meta": {{"count": 1}}}}'.encode())

    def _new_run(self, project: Project, kind: str, arguments: dict[str, Any], created: float, plan: Plan) -> OmiliaRun:
        run = OmiliaRun(
            platform=self.name,
            kind=kind,
            run_id=self.new_id(),
            number=self.next_number(),
            target_id=project.id,
            target_name=project.name,
            created=created,
            duration=duration_of(plan),
            ending=ending_of(plan),
            failing=plan.failing,
            arguments=arguments,
            artifact_id=self.new_id(),
            statistics_id=self.new_id(),
        )
        if kind == "run":
            run.cases = self._case_results(project, run)
        self.runs.add(run)
        return run

    def _case_results(self, project: Project, run: OmiliaRun) -> list[CaseResult]:
        if run.ending in (Ending.ERRORED, Ending.EMPTY):
            return []
        chosen = [template for template in project.cases if is_picked(template, run.arguments)]
        flawed = any(template.flaw for template in project.cases)
        results = []
        for position, template in enumerate(chosen):
            flaw = template.flaw
            if not flawed and position == 0:
                # A project without flaws was told to fail.
                flaw = "fail"
            status = flaw if flaw is not None and run.ending is Ending.FAILED else "success"
            if run.failing is not None:
                status = "fail" if template.name in run.failing else "success"
            stamp = f"{int(run.created * 1000)}.{self.random.getrandbits(128):032x}"
            results.append(
                CaseResult(
                    template,
                    self.new_id(),
                    status,
                    # Milliseconds, whatever the documents say of seconds.
                    round(640.0 + 37.5 * position + self.random.random() * 200, 1),
                    f"sandbox_SND_{project.name}.{stamp}",
                    # A golden dialog's id has a space in it, as in the documents.
                    f"{self.random.getrandbits(160):040x}. {stamp}",
                    project.tries if position == 0 else 0,
                )
            )
        return results

    def _get_run(self, exchange: Exchange) -> Response:
        return self._run_response(self._find(exchange.params["run_id"], "run"))

    def _status(self, run: OmiliaRun, now: float) -> str:
        if run.raw_status is not None:
            return run.raw_status
        phase = run.phase(now)
        if phase is Phase.PENDING:
            return "PENDING"
        if phase is Phase.CANCELLED:
            return "REVOKED"
        if phase is not Phase.FINISHED:
            return "STARTED"
        failed = run.ending is Ending.ERRORED or any(case.status != "success" for case in run.cases)
        if run.kind == "generation":
            failed = run.ending in (Ending.ERRORED, Ending.FAILED)
        return "FAILURE" if failed else "SUCCESS"

    def _row(self, run: OmiliaRun, now: float) -> str:
        """Return the run as JSON text."""
        cached = run.cached_row(now)
        if cached is not None:
            return cached
        finished = run.finished_at(now)
        expired = self._artifact_expired(run, now)
        done = self._done(run, now)
        elapsed = int((finished or now) - run.created)
        until = 0.0
        if finished is not None:
            until = math.inf if expired else finished + self.settings.artifact_ttl
        key = (run.revision, run.phase(now), elapsed, expired, done)
        return run.cache_row(key, until, lambda: self._run_json(run, now, elapsed, expired, done))

    def _done(self, run: OmiliaRun, now: float) -> int:
        return int(run.progress(now) * len(run.cases))

    def _artifact_expired(self, run: OmiliaRun, now: float) -> bool:
        finished = run.finished_at(now)
        return run.artifact_expired or (finished is not None and now > finished + self.settings.artifact_ttl)

    def _run_json(self, run: OmiliaRun, now: float, elapsed: int, expired: bool, done: int) -> dict[str, Any]:
        final = run.phase(now).is_final
        finished = run.finished_at(now)
        artifact = None
        if finished is not None and run.phase(now) is Phase.FINISHED:
            artifact = {
                "artifactId": run.artifact_id,
                "name": f"{run.run_id}_artifacts.zip",
                "createdAt": naive(finished),
                "deletedAt": None,
                "ttl": self.settings.artifact_ttl,
                "isExpired": expired,
                "runId": run.run_id,
            }
        arguments = run.arguments
        described: dict[str, Any] = {"projectId": run.target_id}
        if run.kind == "run":
            described["parallelTestCases"] = 1
            described.update({name: arguments.get(name) for name in ("group", "utterance", "description")})
        else:
            described.update({name: arguments.get(name) for name in ("group", "testSuite")})
            described["overwrite"] = arguments.get("overwrite", False)
            described["simulationData"] = arguments.get("simulationData")
        described.update(
            runId=run.run_id,
            status=self._status(run, now),
            createdAt=naive(run.created),
            finishedAt=None if finished is None else naive(finished),
            tasks=[],
            artifact=artifact,
            isRevocable=not final and run.kind == "run",
            executionMeta=None if final else {"current": done, "total": len(run.cases)},
        )
        if run.kind == "run":
            described["duration"] = f"{elapsed // 3600}:{elapsed // 60 % 60:02d}:{elapsed % 60:02d}"
        return described

    def _require_artifact(self, run: OmiliaRun) -> None:
        now = self.clock.now()
        if run.phase(now) is not Phase.FINISHED:
            raise Refusal(_detail(404, "Artifact not found"))
        if self._artifact_expired(run, now):
            raise Refusal(_detail(404, "Artifact has expired"))

    def _run_artifacts(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        self._require_artifact(run)
        name = f"{run.run_id}_artifacts.zip"
        if self.settings.artifact_bytes:
            stream = stream_zip("results/recording.raw", self.settings.artifact_bytes)
            return file_response(name, "application/zip", stream=stream)
        lines = ["suite,case,status,milliseconds"]
        lines += [f"{c.template.suite},{c.template.name},{c.status},{c.milliseconds}" for c in run.cases]
        entries = {"results/results.csv": "\r\n".join(lines) + "\r\n"}
        for case in run.cases:
            entries[f"results/dialogs/{case.template.name}.json"] = json.dumps(dialog_json(case), indent=2)
        return file_response(name, "application/zip", build_zip(entries))

    def _revoke_run(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        if exchange.body.strip():
            raise Refusal(_bad_request("body", "extra fields not permitted"), "a revoke has no body")
        now = self.clock.now()
        if run.phase(now).is_final:
            raise Refusal(_detail(409, "Run cannot be revoked"))
        run.request_cancel(now, self.settings.cancel_seconds, "omilia.revoke_run")
        return no_content()

    def _run_suites(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        names = dict.fromkeys(case.template.suite for case in run.cases)
        return json_response(200, {"data": [{"testSuiteName": name} for name in names]})

    def _stats_json(self, run: OmiliaRun, now: float) -> dict[str, Any]:
        finished = run.cases[: self._done(run, now)]
        counts = {word: sum(1 for c in finished if c.status == word) for word in ("success", "unavailable")}
        return {
            "statsId": run.statistics_id,
            "runId": run.run_id,
            "pass": counts["success"],
            "fail": len(finished) - counts["success"] - counts["unavailable"],
            "unavailable": counts["unavailable"],
        }

    def _run_stats(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        return json_response(200, {"data": self._stats_json(run, self.clock.now())})

    def _run_test_cases(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        done = self._done(run, self.clock.now())
        return json_response(200, {"data": [case_json(case, i < done) for i, case in enumerate(run.cases)]})

    def _run_logs(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["run_id"], "run")
        now = self.clock.now()
        return json_response(200, self._logs_json(run, now))

    def _logs_json(self, run: OmiliaRun, now: float) -> dict[str, Any]:
        final = run.phase(now).is_final

        def section(position: int, name: str, lines: list[Any], completed: bool = True) -> dict[str, Any]:
            content = [line if isinstance(line, dict) else {"text": line} for line in lines]
            return {
                "sectionName": name,
                "id": f"{run.run_id[:-2]}{position:02x}",
                "content": content,
                "offset": len(content),
                "completed": completed,
            }

        project = self.projects.get(run.target_id)
        source = "Cloning repository" if project is not None and project.uses_git else "Loading test suites"
        if run.ending is Ending.ERRORED:
            lines = [f"---- {source} ----", "fatal: could not read from the remote repository", "Task failed"]
            return {"data": [section(1, "Clone Repository", lines, final)], "completed": final}
        done = self._done(run, now)
        suites = list(dict.fromkeys(case.template.suite for case in run.cases))
        loading = section(3, "Load Test Suites", [f"Test suites found: {len(suites)}", "Task completed successfully"])
        running: list[Any] = ["---- Running test suites ----", loading]
        suite = ""
        # A log only grows: what stands in it stays where it is.
        for position, case in enumerate(run.cases[: done + (not final)]):
            if case.template.suite != suite:
                suite = case.template.suite
                running.append(f"Starting run of suite with name: {suite}")
            if position < done:
                running.append(f"{case.template.name} : {case.status} [ {case.milliseconds:.3f} ms ]")
        if final:
            stats = self._stats_json(run, now)
            running.append(
                f"Test cases run: {done}, passed: {stats['pass']}, failed: {stats['fail']}, "
                f"unavailable: {stats['unavailable']}"
            )
        sections: list[dict[str, Any]] = [
            section(1, "Clone Repository", [f"---- {source} ----", "Task completed successfully"]),
            section(2, "Load Configuration", ["---- Loading configuration ----", "Task completed successfully"]),
            # The platform leaves such holes.
            {},
            section(4, "Run Test Suites", running, final),
        ]
        if final:
            sections.append(section(5, "Aggregate Results", ["Reporting to csv", "Saving artifacts .zip file"]))
        return {"data": sections, "completed": final}

    # Generations and dialogs

    def _create_generation(self, exchange: Exchange) -> Response:
        body = _read_json(exchange, _GENERATION_FIELDS, ("projectId",))
        project = self._project(body["projectId"])
        run = self._new_run(project, "generation", body, self.clock.now(), self.take_plan(project))
        row = self._row(run, self.clock.now())
        return encoded_json_response(200, f'{{"data": {row}, "meta": {{"count": 1}}}}'.encode())

    def _generation_artifacts(self, exchange: Exchange) -> Response:
        run = self._find(exchange.params["generation_id"], "generation")
        self._require_artifact(run)
        project = self.projects[run.target_id]
        wanted = (run.arguments.get("testSuite") or "").split(",")
        cases = [c for c in project.cases if wanted == [""] or c.suite in {name.strip() for name in wanted}]
        return file_response(f"{run.run_id}_artifacts.zip", "application/zip", suite_archive(cases))

    def _golden_dialog(self, exchange: Exchange) -> Response:
        dialog_id = exchange.params["dialog_id"]
        for run in self.runs.all():
            if isinstance(run, OmiliaRun) and not run.vanished:
                for case in run.cases:
                    if dialog_id in (case.dialog_id, case.golden_id):
                        golden = json.dumps(dialog_json(case), indent=2).encode()
                        return file_response(f"{quote(case.template.name)}.json", "application/json", golden)
        raise Refusal(_detail(404, f"Dialog {dialog_id} not found"))

    # For the control and the pages

    def target(self, id_or_name: str) -> Project:
        """Return a project by its id or its name."""
        for project in self.projects.values():
            if id_or_name in (project.id, project.name):
                return project
        raise Mistake(f"no project {id_or_name!r}")

    def add_project(
        self,
        name: str,
        ending: Ending | None,
        duration: float | None,
        project_id: str | None,
        cases: int | None,
        tries: int = 0,
    ) -> Project:
        """Create a project.

        :param cases: how many cases it has; None for the usual ones.
        :param tries: how often the first case is tried, with delays; 0 for the usual number.
        """
        chosen = ending_for_name(name) if ending is None else ending
        templates: tuple[CaseTemplate, ...] = REGRESSION if chosen is Ending.FAILED else SMOKE
        if cases is not None:
            templates = tuple(
                CaseTemplate(f"suite_{i // 10 + 1}", "sandbox", f"case_{i + 1:03d}", None, f"utterance {i + 1}")
                for i in range(cases)
            )
        project = Project(project_id or self.new_id(), name, chosen, duration, cases=templates, tries=tries)
        project.suites = suite_archive(templates) if templates else None
        self.projects[project.id] = project
        return project

    def simulate(self, target: Target, created: float, plan: Plan) -> SimulatedRun:
        """Start a run as a user of the platform does."""
        if not isinstance(target, Project):
            raise Mistake("runs are started from projects")
        arguments = {"projectId": target.id, "group": None, "utterance": None, "description": None}
        return self._new_run(target, "run", arguments, created, plan)

    def describe_run(self, run: SimulatedRun, now: float) -> RunDescription:
        """Describe a run for its page."""
        if not isinstance(run, OmiliaRun):
            raise Mistake("not a run of this platform")
        stats = self._stats_json(run, now)
        done = self._done(run, now)
        rows = [
            (
                case.template.suite,
                case.template.name,
                case.status if i < done else "not run",
                f"{case.milliseconds:.0f} ms" if i < done else "",
                problem_of(case) if i < done else "",
            )
            for i, case in enumerate(run.cases)
        ]
        return RunDescription(
            title=f"Project {run.target_name}, {run.kind}",
            status=self._status(run, now),
            counts={
                "cases": len(run.cases),
                "passed": stats["pass"],
                "failed": stats["fail"],
                "unavailable": stats["unavailable"],
            },
            columns=("Suite", "Case", "Status", "Time", "Problem"),
            rows=rows,
        )


def _uploaded_file(exchange: Exchange) -> bytes:
    """Return the one file of a multipart upload."""
    files: list[File] = []
    fields: list[Field] = []
    headers = {"Content-Type": exchange.headers["content-type"].encode("latin-1")}
    try:
        parse_form(headers, io.BytesIO(exchange.body), fields.append, files.append)
    except FormParserError:
        raise Refusal(_bad_request("body", "malformed multipart body"), "malformed multipart body") from None
    contents: list[bytes] = []
    # Not while parsing: the parser has not finished with a file when it hands it over.
    for file in files:
        file.file_object.seek(0)
        contents.append(file.file_object.read())
        file.close()
    items: list[Field | File] = [*fields, *files]
    names = [(item.field_name or b"").decode("utf-8", "replace") for item in items]
    for name in names:
        if name != "file":
            raise Refusal(_bad_request(name, "extra fields not permitted"), f"unknown field {name}")
    if len(contents) != 1:
        raise Refusal(_bad_request("file", "field required"), f"{len(contents)} files instead of one")
    return contents[0]
