"""The hook for Future AGI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_testruns import limits
from airflow_provider_testruns.arguments import UUID
from airflow_provider_testruns.exceptions import ApiError, ConfigurationError, NotFoundError
from airflow_provider_testruns.hooks.base import PlatformHook
from airflow_provider_testruns.hooks.connection import Settings
from airflow_provider_testruns.hooks.endpoints import endpoint
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.futureagi.platform import (
    DEFAULT_BASE_URL,
    DIALECTS,
    Dialect,
    FutureAGIPlatform,
    RerunType,
)
from airflow_provider_testruns.platforms.futureagi.responses import recordings_of
from airflow_provider_testruns.transport.auth import Auth, FixedHeaders

if TYPE_CHECKING:
    from airflow_provider_testruns.files import Place


class FutureAGIHook(PlatformHook[FutureAGIPlatform]):
    """Future AGI simulate, over its REST API.

    The connection: ``host`` is the API's address (``https://api.futureagi.com`` when empty), ``password`` the API key.
    With the extra ``secret_key`` the API's current dialect is spoken (``X-Api-Key`` and ``X-Secret-Key``), without it
    the documented one (``Authorization: Bearer``), which only older installations take; the extra ``dialect``
    (``current`` or ``documented``) says which it is to be. ``workspace_id`` names the workspace, for keys that are
    bound to none. The extra ``app_url`` is the web app's address, for links, where it
    is not that of the API's host; ``verify`` and ``timeout`` are as for all platforms.

    Every method raises an :class:`~..exceptions.ApiError` (one of its children) when the platform can't be asked or
    does not answer as its documents say, and :class:`~..exceptions.ConfigurationError` for arguments that can't be
    right, such as an id that is no UUID. Calls that only read are tried again for 20 seconds when they fail in
    passing; what starts or changes something is sent once. Lists hold every page.

    :param futureagi_conn_id: the Airflow connection.
    """

    conn_name_attr = "futureagi_conn_id"
    default_conn_name = "futureagi_default"
    conn_type = "futureagi"
    hook_name = FutureAGIPlatform.title
    default_host: ClassVar[str] = DEFAULT_BASE_URL

    def __init__(self, futureagi_conn_id: str = default_conn_name) -> None:
        super().__init__(futureagi_conn_id)
        self.futureagi_conn_id = futureagi_conn_id

    @classmethod
    def make_platform(cls, settings: Settings) -> FutureAGIPlatform:
        """The platform of a connection; the extra ``dialect`` chooses the dialect, or else ``secret_key`` does."""
        return FutureAGIPlatform(_dialect(settings), settings.base_url, settings.url("app_url"))

    @classmethod
    def make_auth(cls, settings: Settings) -> tuple[Auth, str]:
        """The headers with the keys. Never both kinds: the current product answers that with a 401."""
        api_key = settings.required(
            settings.password, "password", "It holds the API key, from Settings > API keys of Future AGI."
        )
        secret_key = settings.text("secret_key")
        for name, value in (("password", api_key), ("secret_key", secret_key)):
            if not value.isascii() or any(character.isspace() for character in value):
                raise settings.problem(name, "is not a valid key: it contains a space or a non-ASCII character.")
        workspace = settings.text("workspace_id").strip()
        if workspace and not UUID.fullmatch(workspace):
            raise settings.problem("workspace_id", f"must be the workspace's id (a UUID), got {workspace!r}.")
        further = {"X-Workspace-Id": workspace.lower()} if workspace else {}
        if _dialect(settings) == "current":
            headers = {"X-Api-Key": api_key, "X-Secret-Key": secret_key, **further}
            return FixedHeaders(headers, (api_key, secret_key)), "password (the API key) and secret_key"
        fields = "password (the API key), and secret_key (Future AGI now needs both keys)"
        if secret_key:
            fields = "password (the API key), and dialect (Future AGI now needs both keys: dialect=current)"
        return FixedHeaders({"Authorization": f"Bearer {api_key}", **further}, (api_key, secret_key)), fields

    # Executions

    def execute_test_run(
        self,
        run_test_id: str,
        select_all: bool = False,
        scenario_ids: Sequence[str] | None = None,
        exclude_scenario_ids: Sequence[str] | None = None,
        simulator_id: str | None = None,
    ) -> Run:
        """Start an execution of a run test: ``POST /simulate/run-tests/{run_test_id}/execute/``; that of a prompt
        simulation with ``POST /simulate/prompt-templates/{prompt_template_id}/simulations/{run_test_id}/execute/``.

        Exactly one of ``select_all=True``, ``scenario_ids`` and ``exclude_scenario_ids`` says what is run. In the
        current dialect ids that are no scenarios of the run test are refused before anything is started.
        :meth:`start_run` does the same, and takes a ``run_test_name`` too.

        :param run_test_id: the run test (a UUID).
        :param select_all: run all of its scenarios.
        :param scenario_ids: run these (UUIDs).
        :param exclude_scenario_ids: run all but these (UUIDs).
        :param simulator_id: the simulator (a UUID), when it is not to be the run test's own.
        :return: the execution; its status comes with the first poll.
        """
        return self.start_run(
            run_test_id=run_test_id,
            select_all=select_all,
            scenario_ids=scenario_ids,
            exclude_scenario_ids=exclude_scenario_ids,
            simulator_id=simulator_id,
        )

    def get_test_execution(self, execution_id: str, run_test_id: str | None = None) -> Run:
        """One execution in its present state: ``GET /sdk/api/v1/simulation/metrics/?execution_id=``.

        :param execution_id: the execution (a UUID).
        :param run_test_id: its run test, for the link to the web app; that response does not contain it.
        """
        return self.ask(self.platform.get_run(self.platform.run_by_id(execution_id, run_test_id=run_test_id)))

    def list_executions(self, run_test_id: str) -> list[Run]:
        """All executions of a run test, newest first: ``GET /simulate/run-tests/{id}/executions/``.

        :param run_test_id: the run test (a UUID).
        """
        return self.ask(self.platform.find_runs(None, run_test_id))

    def cancel_test_execution(self, execution_id: str) -> None:
        """Stop an execution: ``POST /simulate/test-executions/{id}/cancel/``. A final one is left as it is.

        It stops in the background; :meth:`get_test_execution` shows when.

        :param execution_id: the execution (a UUID).
        """
        self.ask(self.platform.cancel_run(self.platform.run_by_id(execution_id)))

    def rerun_calls(
        self,
        execution_id: str,
        rerun_type: RerunType,
        call_execution_ids: Sequence[str] | None = None,
        select_all: bool = False,
    ) -> dict[str, Any]:
        """Run calls of a final execution again: ``POST /simulate/test-executions/{id}/rerun-calls/``.

        The execution keeps its id and goes back to running. Sent once: it is paid for each time.

        :param execution_id: the execution (a UUID).
        :param rerun_type: ``eval_only`` evaluates again what was said; ``call_and_eval`` calls again too, which the
            product does for voice agents only.
        :param call_execution_ids: the calls (UUIDs), or …
        :param select_all: … all of them.
        :return: the response: ``success_count``, ``successful_reruns``, ``failed_reruns`` and more.
        :raises StartOutcomeUnknownError: when the response got lost: the calls may be running.
        :raises ServerError: when the platform could not dispatch what it had prepared.
        :raises InvalidRequestError: when no call is run again.
        """
        response = self.ask(self.platform.rerun_calls(execution_id, rerun_type, call_execution_ids, select_all))
        for failed in response.get("failed_reruns") or ():
            self.log.warning("Call %s is not run again: %s", failed.get("call_execution_id"), failed.get("error"))
        return response

    # Run tests

    list_run_tests = endpoint(FutureAGIPlatform.list_run_tests)
    get_run_test = endpoint(FutureAGIPlatform.get_run_test)
    get_run_test_id = endpoint(FutureAGIPlatform.get_run_test_id)
    get_run_test_status = endpoint(FutureAGIPlatform.get_run_test_status)
    list_scenarios = endpoint(FutureAGIPlatform.list_scenarios)

    # Results

    get_metrics = endpoint(FutureAGIPlatform.get_metrics)
    get_analytics = endpoint(FutureAGIPlatform.get_analytics)
    list_call_results = endpoint(FutureAGIPlatform.list_call_results)
    get_kpis = endpoint(FutureAGIPlatform.get_kpis)
    get_performance_summary = endpoint(FutureAGIPlatform.get_performance_summary)
    get_call_execution = endpoint(FutureAGIPlatform.get_call_execution)
    get_test_execution_detail = endpoint(FutureAGIPlatform.get_test_execution_detail)
    get_eval_summary = endpoint(FutureAGIPlatform.get_eval_summary)
    list_transcripts = endpoint(FutureAGIPlatform.list_transcripts)

    def export_csv(self, execution_id: str, path: Place) -> str:
        """Save an execution's table as CSV: ``GET /simulate/export/{id}/?type=testexecution``.

        The file is there when it is complete, and not before.

        :param execution_id: the execution (a UUID).
        :param path: a file or a folder, local or an object storage URL (``s3://…``).
        :return: where the file is.
        """
        from airflow_provider_testruns.files import save

        def fetch(part: Path) -> None:
            self.ask(self.platform.export_csv(execution_id, part))

        return save(path, fetch, name=f"testexecution_{execution_id}.csv")

    def save_artifacts(self, run: Run, folder: Place) -> list[str]:
        """Write what Future AGI keeps of a final execution, each file complete or not at all.

        ``testexecution_{id}.csv`` is the table of its calls (:meth:`export_csv`), ``transcripts_{id}.json`` what was
        said in them (:meth:`list_transcripts`). Of voice calls there are the recordings, too:
        ``recording_{id}_{call}_combined.wav``, and ``assistant``, ``customer`` and ``stereo`` where there are such.
        They are fetched from where Future AGI says they are, without credentials: over HTTPS from public hosts, or
        from the connection's own host. One that is unavailable is logged as a warning.

        :param run: as :meth:`get_report` gave it.
        :param folder: a local folder or an object storage URL; made if it is not there.
        :return: where each was written.
        """
        from airflow_provider_testruns.files import save

        def table(part: Path) -> None:
            self.ask(self.platform.export_csv(run.run_id, part))

        def transcripts(part: Path) -> None:
            calls = self.list_transcripts(run.run_id)
            # Halves of characters, which JSON can spell, stay as it spells them.
            with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
                json.dump({"execution_id": run.run_id, "calls": calls}, file, ensure_ascii=False, indent=1)

        saved = [
            save(folder, table, name=f"testexecution_{run.run_id}.csv", into=True),
            save(folder, transcripts, name=f"transcripts_{run.run_id}.json", into=True),
        ]
        room = limits.FILES - len(saved)
        saved += islice(self._saved_recordings(run, folder), room)
        if len(saved) == limits.FILES:
            self.log.warning("Run %s has %d files or more; the others are not saved.", run.run_id, limits.FILES)
        return saved

    def _saved_recordings(self, run: Run, folder: Place) -> Iterator[str]:
        from airflow_provider_testruns.files import save
        from airflow_provider_testruns.hooks.recordings import download, ending_of

        settings, room = self.settings, self.settings.max_file_size
        try:
            calls = self.ask(self.platform.list_recorded_calls(run.run_id))
        except ApiError as e:
            self.log.warning("The recordings of run %s are not available: %s", run.run_id, e)
            return
        for call_id in calls:
            try:
                found = recordings_of(self.get_call_execution(call_id))
            except ApiError as e:
                self.log.warning("The recordings of call %s are not available: %s", call_id, e)
                if isinstance(e, NotFoundError):
                    # A server without this call has it for none of them.
                    return
                continue
            for kind, url in found.items():

                def fetch(part: Path, url: str = url) -> None:
                    nonlocal room
                    download(url, part, settings, most=room)
                    room -= part.stat().st_size

                name = f"recording_{run.run_id}_{call_id}_{kind}{ending_of(url)}"
                try:
                    yield save(folder, fetch, name=name, into=True)
                except (ApiError, ConfigurationError) as e:
                    self.log.warning("The recording %r of call %s is not saved: %s", kind, call_id, e)

    health = endpoint(FutureAGIPlatform.health)


def _dialect(settings: Settings) -> Dialect:
    """The dialect of a connection.

    :raises ConfigurationError: when it is none, or its keys are missing.
    """
    has_secret = bool(settings.text("secret_key"))
    chosen = settings.choice("dialect", DIALECTS)
    if chosen == "current" and not has_secret:
        raise settings.problem(
            "secret_key",
            "must be filled in: dialect is 'current', which needs both keys, the API key as password and the secret key"
            " that belongs to it (Settings > API keys of Future AGI).",
        )
    if not chosen:
        chosen = "current" if has_secret else "documented"
    return "current" if chosen == "current" else "documented"
